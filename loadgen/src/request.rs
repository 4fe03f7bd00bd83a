//! The request that a run repeats.

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// One request as data, with everything that the command line said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestSpec {
    /// The method.
    pub method: Method,
    /// The absolute URL, without user name and password.
    pub url: Uri,
    /// The URL as it was typed, for messages.
    pub typed_url: String,
    /// Headers, `Host` only where it differs from the URL's.
    pub headers: HeaderMap,
    /// The body, empty for none.
    pub body: Bytes,
}

impl RequestSpec {
    /// A request without headers or body.
    ///
    /// # Errors
    /// What is wrong with the URL; http and https are known.
    pub fn new(method: Method, url: &str) -> Result<Self, String> {
        let bare = url.split('#').next().unwrap_or_default();
        let parsed: Uri = bare.parse().map_err(|error| format!("parse {url:?}: {error}"))?;
        match parsed.scheme_str() {
            Some("http" | "https") => {}
            Some(scheme) => return Err(format!("parse {url:?}: unsupported protocol scheme {scheme:?}")),
            None => {
                return Err(format!(
                    "parse {url:?}: unsupported protocol scheme \"\": the URL must begin with http:// or https://"
                ));
            }
        }
        let mut parts = parsed.into_parts();
        let authority =
            parts.authority.take().ok_or_else(|| format!("parse {url:?}: no host in request URL"))?;
        let (user, host) = match authority.as_str().rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host.to_owned()),
            None => (None, authority.as_str().to_owned()),
        };
        if host.is_empty() || host.starts_with(':') {
            return Err(format!("parse {url:?}: no host in request URL"));
        }
        parts.authority = Some(host.parse().map_err(|error| format!("parse {url:?}: {error}"))?);
        let parsed = Uri::from_parts(parts).map_err(|error| format!("parse {url:?}: {error}"))?;
        let mut spec = RequestSpec {
            method,
            url: parsed,
            typed_url: url.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        if let Some(user) = user {
            spec.set_basic_auth(&user);
        }
        Ok(spec)
    }

    /// Sets a header, replacing what it was.
    ///
    /// # Errors
    /// When the name or value cannot be sent.
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), String> {
        let header: HeaderName = name.parse().map_err(|_| format!("invalid header field name {name:?}"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("invalid header field value for {name:?}"))?;
        self.headers.insert(header, value);
        Ok(())
    }

    /// Sets basic authentication from `user:password`.
    pub fn set_basic_auth(&mut self, credentials: &str) {
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        let value = HeaderValue::from_str(&format!("Basic {encoded}")).expect("base64 is ASCII");
        self.headers.insert(http::header::AUTHORIZATION, value);
    }

    /// The `Host` to send: the header if one was given, else the URL's authority.
    pub fn host(&self) -> &str {
        match self.headers.get(http::header::HOST) {
            Some(host) => host.to_str().unwrap_or_default(),
            None => self.url.authority().map_or("", |authority| authority.as_str()),
        }
    }

    /// The request for a client that takes the `http` crate's types.
    pub fn to_http(&self) -> http::Request<Bytes> {
        let mut request = http::Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// What Go's client puts before its errors: `Get "http://x/": `.
    pub fn error_prefix(&self) -> String {
        let method = self.method.as_str();
        let (first, rest) = method.split_at(method.len().min(1));
        format!("{first}{} {:?}: ", rest.to_ascii_lowercase(), self.typed_url)
    }
}
