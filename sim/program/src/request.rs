//! A request of the simulated network.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::DialError;

/// The header with the number that the first proxy gives a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A whole HTTP request, and what the proxy that sends it tells its receiver's. Requests that are sent have an absolute
/// URI, whose host is a DNS name of the sender's cluster or an address. Cheap to clone: copies share all until one is
/// changed.
#[derive(Clone)]
pub struct Request {
    shared: Arc<Shared>,
    from_proxy: Option<Arc<dyn Any + Send + Sync>>,
    forwarded: Option<Forwarded>,
    /// The headers with what proxies have added, once somebody has asked for them: few do.
    headers: OnceLock<Box<HeaderMap>>,
}

/// What copies of a request share.
#[derive(Clone)]
struct Shared {
    http: http::Request<Bytes>,
    /// Where it goes, once somebody has asked.
    target: OnceLock<Result<Target, DialError>>,
    /// Whether it has a number, once somebody has asked.
    has_id: OnceLock<bool>,
}

/// Where a request goes: what its URI says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host as the URI has it.
    pub host: String,
    /// The host's address, if it is one; loopback for `localhost`.
    pub literal: Option<IpAddr>,
    /// The port; the scheme's without one.
    pub port: u16,
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
        Arc::unwrap_or_clone(self.shared).http
    }

    /// Where it goes.
    ///
    /// # Errors
    /// [`DialError::Invalid`] if its URI names no host.
    pub fn target(&self) -> Result<&Target, DialError> {
        let target = self.shared.target.get_or_init(|| {
            let uri = self.uri();
            let host =
                uri.host().ok_or_else(|| DialError::Invalid(format!("{uri}: no Host in request URL")))?;
            let default = if uri.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 };
            let literal = match host {
                "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                host => host.trim_matches(['[', ']']).parse().ok(),
            };
            Ok(Target { host: host.to_owned(), literal, port: uri.port_u16().unwrap_or(default) })
        });
        target.as_ref().map_err(Clone::clone)
    }

    /// Whether this is a copy of `other`, or the other way round, and nobody has changed either.
    pub fn is_copy_of(&self, other: &Request) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.forwarded.is_none() && other.forwarded.is_none()
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        let Some(forwarded) = self.forwarded else { return self.shared.http.headers() };
        self.headers.get_or_init(|| {
            let mut headers = self.shared.http.headers().clone();
            forwarded.write(&mut headers);
            Box::new(headers)
        })
    }

    /// Its headers, to change them.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers = OnceLock::new();
        let forwarded = self.forwarded.take();
        let headers = (**self).headers_mut();
        if let Some(forwarded) = forwarded {
            forwarded.write(headers);
        }
        headers
    }

    /// A proxy forwards it: it gets a number, drawn from `id`, if it has none (`x-request-id`), and the scheme by which it
    /// came (`x-forwarded-proto`).
    pub fn forward(&mut self, id: impl FnOnce() -> u128) {
        if self.forwarded.is_none() {
            let Shared { http, has_id, .. } = &*self.shared;
            let has_id = *has_id.get_or_init(|| http.headers().contains_key(&REQUEST_ID));
            self.forwarded = Some(Forwarded { id: (!has_id).then(id) });
        }
    }

    /// The same request, with which a proxy tells its peer this: in Envoy, headers and the client certificate.
    #[must_use]
    pub fn from_proxy<T: Any + Send + Sync>(mut self, told: Arc<T>) -> Request {
        self.from_proxy = Some(told);
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
        let shared = Arc::new(Shared { http, target: OnceLock::new(), has_id: OnceLock::new() });
        Request { shared, from_proxy: None, forwarded: None, headers: OnceLock::new() }
    }
}

impl Deref for Request {
    type Target = http::Request<Bytes>;

    fn deref(&self) -> &Self::Target {
        &self.shared.http
    }
}

impl DerefMut for Request {
    fn deref_mut(&mut self) -> &mut Self::Target {
        let shared = Arc::make_mut(&mut self.shared);
        (shared.target, shared.has_id) = (OnceLock::new(), OnceLock::new());
        &mut shared.http
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shared.http.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_all_until_one_is_changed() {
        let http = http::Request::get("http://podinfo.test:9898/?a=b").header("x-user", "me");
        let request = Request::from(http.body(Bytes::new()).unwrap());
        let mut copy = request.clone();
        assert!(copy.is_copy_of(&request));
        copy.forward(|| 0);
        assert!(!copy.is_copy_of(&request));
        assert_eq!(copy.headers()["x-request-id"], "00000000-0000-4000-8000-000000000000");
        assert_eq!((copy.headers().len(), request.headers().len()), (3, 1));
        copy.headers_mut().insert("x-user", HeaderValue::from_static("you"));
        copy.forward(|| panic!("it has a number"));
        assert_eq!((&copy.headers()["x-user"], copy.headers().len()), (&HeaderValue::from_static("you"), 3));
        assert_eq!(copy.clone().into_http().headers(), copy.headers());
        assert_eq!(request.headers()["x-user"], "me");
    }

    #[test]
    fn a_uri_names_a_target() {
        let target =
            |uri: &str| Request::from(http::Request::get(uri).body(Bytes::new()).unwrap()).target().cloned();
        let check = |uri: &str, host: &str, literal: Option<&str>, port: u16| {
            let literal = literal.map(|text| text.parse().unwrap());
            assert_eq!(target(uri), Ok(Target { host: host.to_owned(), literal, port }));
        };
        check("http://podinfo.test", "podinfo.test", None, 80);
        check("https://10.1.2.3/x", "10.1.2.3", Some("10.1.2.3"), 443);
        check("http://[::1]:9898/", "[::1]", Some("::1"), 9898);
        check("http://localhost:9090/", "localhost", Some("127.0.0.1"), 9090);
        assert!(matches!(target("/x"), Err(DialError::Invalid(_))));
        let mut request = Request::from(http::Request::get("http://a:1").body(Bytes::new()).unwrap());
        assert_eq!(request.target().unwrap().port, 1);
        *request.uri_mut() = "http://a:2".parse().unwrap();
        assert_eq!(request.target().unwrap().port, 2);
    }
}
