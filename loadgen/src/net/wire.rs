//! Requests as HTTP/1.1 bytes.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use http::{HeaderName, Method};

use crate::RequestSpec;

/// What a connection adds to a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framing<'a> {
    /// `Connection: close`.
    pub close: bool,
    /// The whole URL in the first line, as a proxy needs it.
    pub absolute: bool,
    /// `Proxy-Authorization`.
    pub proxy_authorization: Option<&'a str>,
}

/// The request's bytes, head and body.
pub(crate) fn bytes(request: &RequestSpec, framing: Framing<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + request.body.len());
    let mut line = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| out.extend_from_slice(part));
        out.extend_from_slice(b"\r\n");
    };
    let target = request.url.path_and_query().map_or("/", |target| target.as_str());
    let whole = request.url.to_string();
    // `http` gives a query without a path as it was typed.
    let slash = if target.starts_with('?') { "/" } else { "" };
    let place = if framing.absolute { whole.as_str() } else { target };
    let slash = if framing.absolute { "" } else { slash };
    line(&[request.method.as_str().as_bytes(), b" ", slash.as_bytes(), place.as_bytes(), b" HTTP/1.1"]);
    line(&[b"Host: ", request.host().as_bytes()]);
    for (name, value) in &request.headers {
        if name != HOST && name != CONTENT_LENGTH {
            line(&[title_case(name).as_bytes(), b": ", value.as_bytes()]);
        }
    }
    if let Some(length) = content_length(request) {
        line(&[b"Content-Length: ", length.to_string().as_bytes()]);
    }
    if framing.close && !request.headers.contains_key(CONNECTION) {
        line(&[b"Connection: close"]);
    }
    if let Some(authorization) = framing.proxy_authorization {
        line(&[b"Proxy-Authorization: ", authorization.as_bytes()]);
    }
    line(&[]);
    out.extend_from_slice(&request.body);
    out
}

/// A body's length; methods that mean to carry one say so when there is none.
fn content_length(request: &RequestSpec) -> Option<usize> {
    let carries = [Method::POST, Method::PUT, Method::PATCH].contains(&request.method);
    (carries || !request.body.is_empty()).then_some(request.body.len())
}

/// `x-version` as `X-Version`, which is how HTTP/1.1 headers usually look, and all that some servers know.
fn title_case(name: &HeaderName) -> String {
    let mut start = true;
    let letter = |c: char| {
        let c = if std::mem::replace(&mut start, c == '-') { c.to_ascii_uppercase() } else { c };
        Some(c)
    };
    name.as_str().chars().filter_map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_look_as_other_clients_send_them() {
        let mut request = RequestSpec::new(Method::POST, "http://h:8080/p?q=1#f").unwrap();
        request.set_header("x-a-b", "1").unwrap();
        let text = |framing| String::from_utf8(bytes(&request, framing)).unwrap();
        assert_eq!(
            text(Framing::default()),
            "POST /p?q=1 HTTP/1.1\r\nHost: h:8080\r\nX-A-B: 1\r\nContent-Length: 0\r\n\r\n"
        );
        let framing = Framing { close: true, absolute: true, proxy_authorization: Some("Basic eA==") };
        assert_eq!(
            text(framing),
            "POST http://h:8080/p?q=1 HTTP/1.1\r\nHost: h:8080\r\nX-A-B: 1\r\nContent-Length: 0\r\n\
             Connection: close\r\nProxy-Authorization: Basic eA==\r\n\r\n"
        );
        let request = RequestSpec::new(Method::GET, "http://h").unwrap();
        assert_eq!(bytes(&request, Framing::default()), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
}
