//! The network as a pod sees it: HTTP requests to names and addresses, and ports to listen on.
//!
//! In memory a request is a function call that takes simulated time; live it is a socket. Either way the bodies are
//! whole ([`bytes::Bytes`]): nothing simulated streams.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::{Clock, Elapsed};
use futures::future::BoxFuture;
use http::StatusCode;

use crate::{Arrival, Endings, Reply, Request, Response};

/// Why no response came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The cluster's DNS knows no such name.
    #[error("dial tcp: lookup {0}: no such host")]
    NoSuchHost(String),
    /// Nothing listens at the address, or the Service has no endpoint.
    #[error("dial tcp {0}: connect: connection refused")]
    Refused(String),
    /// No route: the network between the two is cut.
    #[error("dial tcp {0}: i/o timeout")]
    Unreachable(String),
    /// The peer closed or reset the connection before it answered.
    #[error("read tcp {0}: connection reset by peer")]
    Reset(String),
    /// The request itself is unusable, e.g. it has no host.
    #[error("{0}")]
    Invalid(String),
}

/// Who answered, as the application itself says in its response: what lets a client count requests per version without
/// asking anybody. Proxies pass it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedBy {
    /// The pod's cluster.
    pub cluster: Arc<str>,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub pod: Arc<str>,
    /// The workload that owns the pod.
    pub workload: Arc<str>,
    /// The version: the image's tag.
    pub version: Arc<str>,
}

/// A server's side of a port.
pub trait Handler: Send + Sync {
    /// Answers one request. A [`DialError`], [`DialError::Reset`] as a rule, closes the connection without an answer.
    fn handle(self: Arc<Self>, request: Request) -> Reply;
}

impl<F, Fut> Handler for F
where
    F: Fn(Request) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Response, DialError>> + Send + 'static,
{
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        Reply::later(self(request))
    }
}

/// A proxy that a pod's traffic is redirected through, as a mesh's sidecar does with iptables.
pub trait Proxy: Send + Sync {
    /// A request that a process of the pod sends to another host.
    fn outbound(self: Arc<Self>, request: Request) -> Reply;

    /// A request that arrives for the pod on `port`, where `app` listens. The proxy passes its own ports' requests
    /// straight to `app`.
    fn inbound(self: Arc<Self>, request: Request, port: u16, app: Arc<dyn Handler>) -> Reply;
}

/// One pod's network, shared by its containers.
pub trait Network: Send + Sync {
    /// The pod's address.
    fn local_ip(&self) -> IpAddr;

    /// The address of a name as the pod's DNS gives it: a ClusterIP, a pod's address, or the literal address itself.
    ///
    /// # Errors
    /// [`DialError::NoSuchHost`].
    fn resolve(&self, host: &str) -> Result<IpAddr, DialError>;

    /// Sends a request to its URI's host and port (80 without one): through the pod's proxy if it has one, else by
    /// DNS and kube-proxy. `localhost` is the pod itself. The response may have to [`arrive`](Network::arrive) yet.
    fn exchange(&self, request: Request) -> Reply;

    /// Sends a request straight to an address, past the pod's proxy: what the proxy itself does. A ClusterIP is
    /// balanced over its ready endpoints. The response may have to [`arrive`](Network::arrive) yet.
    fn dial(&self, to: SocketAddr, request: Request) -> Reply;

    /// The network's clock.
    fn clock(&self) -> Clock;

    /// The ends of processes that answers depend on.
    fn endings(&self) -> &Endings;

    /// Waits for a response's time to pass; it may get lost meanwhile.
    fn arrive(&self, response: Response) -> BoxFuture<'_, Result<Response, DialError>> {
        if response.has_arrived() {
            return Box::pin(std::future::ready(Ok(response)));
        }
        Box::pin(async move {
            let arrived = Arrival::of(response).wait(&self.clock(), self.endings(), None).await;
            arrived.expect("there is no deadline")
        })
    }

    /// [`exchange`](Network::exchange), up to the response's arrival.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, DialError>> {
        Box::pin(async move {
            let response = self.exchange(request).await?;
            self.arrive(response).await
        })
    }

    /// [`send`](Network::send), if it takes no longer than `limit`.
    ///
    /// # Errors
    /// [`Elapsed`] if it does.
    fn send_within(
        &self,
        limit: Duration,
        request: Request,
    ) -> BoxFuture<'_, Result<Result<Response, DialError>, Elapsed>> {
        Box::pin(async move {
            let clock = self.clock();
            let deadline = clock.elapsed() + limit;
            let response = match self.exchange(request) {
                Reply::Now(result) => result.expect("nobody has taken it"),
                Reply::Later(answer) => clock.timeout(limit, answer).await?,
            };
            match response {
                Ok(response) => Arrival::of(response).wait(&clock, self.endings(), Some(deadline)).await,
                Err(error) => Ok(Err(error)),
            }
        })
    }

    /// Listens on a port of the pod until the guard is dropped.
    ///
    /// # Errors
    /// [`ListenError`] if the port is taken.
    fn listen(&self, port: u16, handler: Arc<dyn Handler>) -> Result<Listening, ListenError>;

    /// Redirects the pod's traffic, both ways, through `proxy` from now on.
    fn capture(&self, proxy: Arc<dyn Proxy>);
}

/// A port that is being listened on; dropping it closes the port.
pub struct Listening {
    /// The port.
    pub port: u16,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Listening {
    /// A guard for `port` that drops `guard` when the port closes.
    pub fn new(port: u16, guard: Box<dyn Any + Send + Sync>) -> Self {
        Listening { port, _guard: guard }
    }
}

/// The port is taken by another container of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("listen tcp :{port}: bind: address already in use")]
pub struct ListenError {
    /// The port.
    pub port: u16,
}

/// A plain-text response.
pub fn respond(status: StatusCode, body: impl Into<Bytes>) -> Response {
    Response::with(status, "text/plain; charset=utf-8", body.into())
}

/// A JSON response; `body` is JSON.
pub fn respond_json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    Response::with(status, "application/json; charset=utf-8", body.into())
}
