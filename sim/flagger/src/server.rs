//! The controller's HTTP server: health and metrics.

use std::sync::Arc;

use canary::Dialect;
use http::StatusCode;
use program::{Context, Handler, ListenError, Listening, Request, respond};

use crate::recorder::Recorder;

/// Serves `/healthz` and `/metrics` until the guard is dropped.
///
/// # Errors
/// [`ListenError`] if the port is taken.
pub fn serve(
    context: &Context,
    port: u16,
    recorder: Recorder,
    dialect: Dialect,
) -> Result<Listening, ListenError> {
    let handler = move |request: Request| {
        let response = match request.uri().path() {
            "/healthz" => respond(StatusCode::OK, "OK"),
            "/metrics" => {
                let mut response = respond(StatusCode::OK, recorder.exposition(dialect));
                response.headers_mut().insert(
                    http::header::CONTENT_TYPE,
                    http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
                );
                response
            }
            _ => respond(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        async move { Ok(response) }
    };
    let handler: Arc<dyn Handler> = Arc::new(handler);
    context.network.listen(port, handler)
}
