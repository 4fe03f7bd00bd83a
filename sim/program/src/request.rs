//! A request of the simulated network.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;

/// A whole HTTP request, and what the proxy that sends it tells its receiver's. Requests that are sent have an absolute
/// URI, whose host is a DNS name of the sender's cluster or an address. Cheap to clone: copies share all until one is
/// changed.
#[derive(Clone)]
pub struct Request {
    http: Arc<http::Request<Bytes>>,
    from_proxy: Option<Arc<dyn Any + Send + Sync>>,
}

impl Request {
    /// The request without what the network knows of it.
    pub fn into_http(self) -> http::Request<Bytes> {
        Arc::unwrap_or_clone(self.http)
    }

    /// The same request, with which a proxy tells its peer this: in Envoy, headers and the client certificate.
    #[must_use]
    pub fn from_proxy<T: Any + Send + Sync>(mut self, told: T) -> Request {
        self.from_proxy = Some(Arc::new(told));
        self
    }

    /// What the sender's proxy tells.
    pub fn told<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.from_proxy.clone()?.downcast().ok()
    }
}

impl From<http::Request<Bytes>> for Request {
    fn from(http: http::Request<Bytes>) -> Request {
        Request { http: Arc::new(http), from_proxy: None }
    }
}

impl Deref for Request {
    type Target = http::Request<Bytes>;

    fn deref(&self) -> &Self::Target {
        &self.http
    }
}

impl DerefMut for Request {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.http)
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.http.fmt(f)
    }
}
