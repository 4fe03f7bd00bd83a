//! A request of the simulated network.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header with the number that the first proxy gives a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A whole HTTP request, and what the proxy that sends it tells its receiver's. Requests that are sent have an absolute
/// URI, whose host is a DNS name of the sender's cluster or an address. Cheap to clone: copies share all until one is
/// changed.
#[derive(Clone)]
pub struct Request {
    http: Arc<http::Request<Bytes>>,
    from_proxy: Option<Arc<dyn Any + Send + Sync>>,
    forwarded: Option<Forwarded>,
    /// The headers with what proxies have added, once somebody has asked for them: few do.
    headers: OnceLock<Box<HeaderMap>>,
}

/// What proxies have added to a request's headers.
#[derive(Clone, Copy)]
struct Forwarded {
    /// The number that it got; none if it had one.
    id: Option<u128>,
}

impl Request {
    /// The request without what the network knows of it.
    pub fn into_http(mut self) -> http::Request<Bytes> {
        self.headers_mut();
        Arc::unwrap_or_clone(self.http)
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        let Some(forwarded) = self.forwarded else { return self.http.headers() };
        self.headers.get_or_init(|| {
            let mut headers = self.http.headers().clone();
            forwarded.write(&mut headers);
            Box::new(headers)
        })
    }

    /// Its headers, to change them.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers = OnceLock::new();
        let headers = Arc::make_mut(&mut self.http).headers_mut();
        if let Some(forwarded) = self.forwarded.take() {
            forwarded.write(headers);
        }
        headers
    }

    /// A proxy forwards it: it gets a number, drawn from `id`, if it has none (`x-request-id`), and the scheme by which it
    /// came (`x-forwarded-proto`).
    pub fn forward(&mut self, id: impl FnOnce() -> u128) {
        if self.forwarded.is_none() {
            let has_id = self.http.headers().contains_key(&REQUEST_ID);
            self.forwarded = Some(Forwarded { id: (!has_id).then(id) });
        }
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

impl Forwarded {
    fn write(self, headers: &mut HeaderMap) {
        if let Some(id) = self.id {
            headers.insert(REQUEST_ID, request_id(id));
        }
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
}

/// A random UUID (version 4) as text.
fn request_id(random: u128) -> HeaderValue {
    let versioned = random & !(0xf << 76) & !(0b11 << 62) | (0x4 << 76) | (0b10 << 62);
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    for (digit, place) in places.enumerate() {
        let value = (versioned >> (124 - 4 * digit)) & 0xf;
        text[place] = b"0123456789abcdef"[value as usize];
    }
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are visible")
}

impl From<http::Request<Bytes>> for Request {
    fn from(http: http::Request<Bytes>) -> Request {
        Request { http: Arc::new(http), from_proxy: None, forwarded: None, headers: OnceLock::new() }
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
