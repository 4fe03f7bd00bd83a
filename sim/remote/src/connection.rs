//! One HTTP/1.1 connection per request, under a `kube::Client`. Requests are few: a pool would be more than they need.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use clock::Clock;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::{BoxError, Service};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// How long the API server may take to begin its answer.
const ANSWER: Duration = Duration::from_secs(60);

/// The way to an API server.
#[derive(Clone)]
pub(crate) struct Connection {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    clock: Clock,
}

impl Connection {
    /// The way to the server of this URL; `server_name` is whom its certificate is about, if not its host.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(crate) fn new(
        url: &Uri,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, String>,
        server_name: Option<&str>,
        clock: Clock,
    ) -> Result<Connection, String> {
        let host = url.host().ok_or_else(|| format!("server: {url} names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_https = url.scheme_str() != Some("http");
        let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let tls = if is_https {
            let name = server_name.unwrap_or(&host).to_owned();
            let name = ServerName::try_from(name).map_err(|error| format!("tls-server-name: {error}"))?;
            Some((TlsConnector::from(tls()?), name))
        } else {
            None
        };
        Ok(Connection { host, port, tls, clock })
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let (host, port) = (self.host.as_str(), self.port);
        let late = || {
            io::Error::new(io::ErrorKind::TimedOut, format!("no connection after {} s", CONNECT.as_secs()))
        };
        let connected =
            self.clock.timeout(CONNECT, TcpStream::connect((host, port))).await.map_err(|_| late())?;
        let socket = connected?;
        // A small request must not wait for more to come.
        socket.set_nodelay(true)?;
        match &self.tls {
            None => self.exchange(socket, request).await,
            Some((tls, name)) => {
                let shaken = self.clock.timeout(CONNECT, tls.connect(name.clone(), socket)).await;
                self.exchange(shaken.map_err(|_| late())??, request).await
            }
        }
    }

    async fn exchange<S>(&self, stream: S, mut request: Request<Body>) -> Result<Response<Incoming>, BoxError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer's body, or when nobody wants that any more.
        tokio::spawn(connection);
        let authority = request.uri().authority().map_or_else(|| self.host.clone(), ToString::to_string);
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(&authority)?);
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse()?;
        let late = || format!("no answer after {} s", ANSWER.as_secs());
        let answer = self.clock.timeout(ANSWER, sender.send_request(request)).await.map_err(|_| late())?;
        Ok(answer?)
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
