//! Plain HTTP on a socket, for everything that is no API server: whole requests in, whole answers out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The connection ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection was reset")]
pub struct Reset;

/// What answers.
pub trait Answer: Send + Sync {
    /// Answers one request; [`Reset`] closes the connection instead.
    fn answer(
        &self,
        request: Request<Bytes>,
        from: SocketAddr,
    ) -> BoxFuture<'static, Result<Response<Bytes>, Reset>>;
}

impl<F, Fut> Answer for F
where
    F: Fn(Request<Bytes>, SocketAddr) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Response<Bytes>, Reset>> + Send + 'static,
{
    fn answer(
        &self,
        request: Request<Bytes>,
        from: SocketAddr,
    ) -> BoxFuture<'static, Result<Response<Bytes>, Reset>> {
        Box::pin(self(request, from))
    }
}

/// A port that answers until it is dropped.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Port {
    /// Answers on a listener; bodies are limited to `body_max` bytes.
    ///
    /// # Errors
    /// What the operating system says about the socket.
    pub fn open(listener: TcpListener, body_max: usize, answer: Arc<dyn Answer>) -> io::Result<Port> {
        let address = listener.local_addr()?;
        let (stop, mut stopped) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! { biased;
                    _ = stopped.changed() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((socket, from)) = accepted else { continue };
                let (answer, mut stopped) = (Arc::clone(&answer), stopped.clone());
                tokio::spawn(async move {
                    tokio::select! { biased;
                        _ = stopped.changed() => {}
                        () = converse(socket, from, body_max, answer) => {}
                    }
                });
            }
        });
        Ok(Port { address, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

async fn converse(socket: TcpStream, from: SocketAddr, body_max: usize, answer: Arc<dyn Answer>) {
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            let body = match Limited::new(body, body_max).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => {
                    let mut refusal = Response::new(Full::from("Request entity too large\n"));
                    *refusal.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
                    return Ok(refusal);
                }
                Err(_) => return Err(Reset),
            };
            answer.answer(Request::from_parts(head, body), from).await.map(|answer| answer.map(Full::new))
        }
    });
    // An error here is a connection that broke: there is nobody left to tell.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
}
