//! Redirects, as Go's client follows them.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST};
use http::{Method, Uri};

use crate::RequestSpec;

/// As many redirects are followed; one more is an error.
pub const REDIRECTS_MAX: usize = 10;

/// Whether a status asks to go elsewhere.
pub fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// The request that a redirect asks for.
///
/// # Errors
/// What is wrong with `location`.
pub fn follow(request: &RequestSpec, status: u16, location: &str) -> Result<RequestSpec, String> {
    let url = resolve(&request.url, location);
    let mut next = RequestSpec::new(request.method.clone(), &url)
        .map_err(|error| format!("failed to parse Location header {location:?}: {error}"))?;
    next.headers = request.headers.clone();
    next.typed_url.clone_from(&request.typed_url);
    if matches!(status, 307 | 308) {
        next.body = request.body.clone();
    } else if ![Method::GET, Method::HEAD].contains(&request.method) {
        next.method = Method::GET;
        next.body = Bytes::new();
        next.headers.remove(CONTENT_TYPE);
    }
    if next.url.host() != request.url.host() {
        // Secrets and the virtual host belong to the server they were meant for.
        for name in [AUTHORIZATION, COOKIE, HOST] {
            next.headers.remove(name);
        }
    }
    Ok(next)
}

/// A reference against a base (RFC 3986, 5.2).
fn resolve(base: &Uri, reference: &str) -> String {
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().unwrap_or("http");
    let authority = base.authority().map_or("", |authority| authority.as_str());
    if reference
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.bytes().all(|c| c.is_ascii_alphanumeric()))
    {
        return reference.to_owned();
    }
    if let Some(rest) = reference.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let merged = if path.is_empty() {
        base.path().to_owned()
    } else if path.starts_with('/') {
        without_dots(path)
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        without_dots(&format!("{folder}/{path}"))
    };
    let query = match query {
        Some(query) => format!("?{query}"),
        None if path.is_empty() => base.query().map(|query| format!("?{query}")).unwrap_or_default(),
        None => String::new(),
    };
    format!("{scheme}://{authority}{merged}{query}")
}

fn without_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    out.pop();
                }
                if last {
                    out.push("");
                }
            }
            segment => out.push(segment),
        }
    }
    format!("/{}", out.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_resolve_as_the_rfc_says() {
        let base: Uri = "http://a:1/b/c/d?q".parse().unwrap();
        for (reference, resolved) in [
            ("https://x/y", "https://x/y"),
            ("//x/y", "http://x/y"),
            ("/y?z#f", "http://a:1/y?z"),
            ("y", "http://a:1/b/c/y"),
            ("../y", "http://a:1/b/y"),
            ("../../../y", "http://a:1/y"),
            ("./", "http://a:1/b/c/"),
            ("..", "http://a:1/b/"),
            ("?z", "http://a:1/b/c/d?z"),
            ("", "http://a:1/b/c/d?q"),
        ] {
            assert_eq!(resolve(&base, reference), resolved, "{reference}");
        }
    }

    #[test]
    fn a_redirect_keeps_what_its_status_says_and_no_secrets() {
        let mut post = RequestSpec::new(Method::POST, "http://u:p@a/x").unwrap();
        post.body = Bytes::from_static(b"b");
        let next = follow(&post, 303, "/y").unwrap();
        assert_eq!((next.method, next.body.len()), (Method::GET, 0));
        assert!(next.headers.contains_key(AUTHORIZATION));
        let next = follow(&post, 307, "http://b/y").unwrap();
        assert_eq!((next.method, &next.body[..]), (Method::POST, &b"b"[..]));
        assert!(!next.headers.contains_key(AUTHORIZATION));
        assert!(follow(&post, 302, "ftp://b/").is_err());
    }
}
