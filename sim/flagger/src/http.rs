//! HTTP calls of the controller, with a time limit and Go's words for what goes wrong.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use program::Context;

/// A call's answer.
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// The body as text.
    pub body: String,
}

/// Calls a URL through the pod's network.
///
/// # Errors
/// Go's text, `METHOD "URL": …`, for a URL that cannot be used, no connection, or no answer within `limit`.
pub async fn call(
    context: &Context,
    method: Method,
    url: &str,
    headers: HeaderMap,
    body: impl Into<Bytes>,
    limit: Duration,
) -> Result<Answer, String> {
    let verb = format!("{}{}", &method.as_str()[..1], method.as_str()[1..].to_ascii_lowercase());
    let failed = |error: String| format!("{verb} {url:?}: {error}");
    let mut request = http::Request::new(body.into());
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().map_err(|error| format!("parse {url:?}: {error}"))?;
    *request.headers_mut() = headers;
    let host = request.uri().host().filter(|host| !host.is_empty());
    if host.is_none() || request.uri().scheme().is_none() {
        return Err(failed(format!(
            "unsupported protocol scheme {:?}",
            request.uri().scheme_str().unwrap_or("")
        )));
    }
    match context.network.send_within(limit, request.into()).await {
        Ok(Ok(response)) => Ok(Answer {
            status: response.status(),
            body: String::from_utf8_lossy(response.body()).into_owned(),
        }),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("context deadline exceeded".to_owned())),
    }
}

/// The headers of a JSON body.
pub fn json_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers
}
