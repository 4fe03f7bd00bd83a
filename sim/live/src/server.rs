//! The listener: connections, TLS, who asks, limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, Body, Failure, User};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::credentials::Credentials;
use crate::upgrade::{self, Pods};

/// The largest request body, as upstream.
const BODY_MAX: usize = 3 * 1024 * 1024;
/// How much of a body is read that is too large.
const DRAINED_MAX: usize = 32 * 1024 * 1024;
/// How long a client may take for its TLS handshake and for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster's API on a socket. Dropping it closes the socket and ends all connections.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for kubeconfigs.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Everything that a connection needs.
struct Door {
    api: ApiServer,
    credentials: Arc<Credentials>,
    pods: Option<Arc<dyn Pods>>,
}

/// Serves a cluster's API over HTTPS until the result is dropped. `pods` is where `exec` and `port-forward` end.
///
/// # Errors
/// What the operating system says about the socket.
pub fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    api: ApiServer,
    credentials: Arc<Credentials>,
    pods: Option<Arc<dyn Pods>>,
) -> io::Result<Serving> {
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let door = Arc::new(Door { api, credentials, pods });
    tokio::spawn(accept(listener, TlsAcceptor::from(tls), door, stopped));
    Ok(Serving { address, stop })
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    door: Arc<Door>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let connection = tokio::select! { biased;
            _ = stopped.changed() => return,
            connection = listener.accept() => connection,
        };
        match connection {
            Ok((socket, _)) => {
                let (tls, door, mut stopped) = (tls.clone(), Arc::clone(&door), stopped.clone());
                tokio::spawn(async move {
                    tokio::select! { biased;
                        _ = stopped.changed() => {}
                        () = converse(socket, tls, door) => {}
                    }
                });
            }
            // Too many open files is a state that passes; the others are the client's.
            Err(_) => pause(Duration::from_millis(10)).await,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "sockets are real: their limits are in real time")]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[expect(clippy::disallowed_methods, reason = "sockets are real: their limits are in real time")]
async fn limited<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

async fn converse(socket: TcpStream, tls: TlsAcceptor, door: Arc<Door>) {
    // Watches are many small writes.
    let _ = socket.set_nodelay(true);
    // A client that speaks no TLS, or trusts another authority, hears of it from its own side.
    let Some(Ok(stream)) = limited(HEAD_TIMEOUT, tls.accept(socket)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let user = certificate.and_then(|certificate| door.credentials.of_certificate(certificate));
    let user = user.map(Arc::new);
    let service = service_fn(move |request| answer(Arc::clone(&door), user.clone(), request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1000);
    // An error here is a connection that broke: there is nobody left to tell.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// One request. `Err` breaks the connection, as injected faults do.
async fn answer(
    door: Arc<Door>,
    certificate: Option<Arc<User>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, apiserver::Broken> {
    let user = match (certificate, door.credentials.of_headers(&door.api, request.headers())) {
        (Some(user), _) => user,
        (None, Some(Some(user))) => Arc::new(user),
        (None, Some(None) | None) => return Ok(refused(&Failure::unauthenticated())),
    };
    let user = match impersonated(request.headers()) {
        None => user,
        Some(wanted) => match door.api.impersonate(&user, wanted) {
            Ok(user) => Arc::new(user),
            Err(failure) => return Ok(refused(&failure)),
        },
    };
    let mut request = request;
    let upgraded = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    if let Some(upgraded) = upgraded
        && let Some(wanted) = door.api.upgrade(&user, &head)
    {
        let query = head.uri.query().unwrap_or_default();
        return Ok(match wanted {
            Ok(wanted) => {
                upgrade::answer(&head.headers, query, upgraded, wanted, &door.api, door.pods.clone())
            }
            Err(failure) => refused(&failure),
        });
    }
    let Some(body) = read(body).await? else { return Ok(refused(&Failure::too_large())) };
    door.api.handle_as(&user, Request::from_parts(head, body)).await
}

/// The whole body; `None` if it is too large. Some more of such a body is read all the same: many clients look for the
/// answer only when they have sent everything.
async fn read(mut body: Incoming) -> Result<Option<Bytes>, apiserver::Broken> {
    let (mut whole, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| apiserver::Broken)?.into_data() else { continue };
        length += data.len();
        if length <= BODY_MAX {
            whole.extend_from_slice(&data);
        } else if length > DRAINED_MAX {
            break;
        }
    }
    Ok((length <= BODY_MAX).then(|| whole.freeze()))
}

/// The user that `kubectl --as` names.
fn impersonated(headers: &HeaderMap) -> Option<User> {
    let text = |value: &header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let name = text(headers.get("impersonate-user")?);
    let mut groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
    groups.push("system:authenticated".to_owned());
    Some(User { name, groups })
}

/// A Status as an answer.
pub(crate) fn refused(failure: &Failure) -> Response<Body> {
    let mut answer = Response::new(Body::whole(failure.status().to_string()));
    *answer.status_mut() = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}
