//! HTTP/2: all workers' requests over one connection per server, as Go's client does it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as _;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Mutex;

use crate::net::clock::RealTime;
use crate::net::dial::{Dialer, Origin, Stream};
use crate::net::http1::{BODY_KEPT, Reply, Surroundings, stage};
use crate::net::response::{Head, Wanted};
use crate::{Failure, FailureKind, Phases, RequestSpec, Time as _};

/// Where HTTP/2 is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Http2 {
    /// Nowhere.
    #[default]
    Never,
    /// Where a server agrees to it in the TLS handshake.
    Agreed,
    /// Everywhere, without asking.
    Always,
}

/// What a server speaks.
#[derive(Clone)]
enum Spoken {
    Http2(SendRequest<Full<Bytes>>),
    Http1,
}

/// The connections, by server.
#[derive(Default)]
pub(crate) struct Pool(Mutex<BTreeMap<Origin, Spoken>>);

/// How to reach a server.
pub(crate) enum Way {
    /// Over the connection that all share.
    Shared(SendRequest<Full<Bytes>>),
    /// HTTP/1.1 on a connection of the worker's own, which may be open already.
    Own(Option<Stream>),
}

impl Pool {
    /// The way to `origin`; opens the shared connection if it is not open.
    pub(crate) async fn way(
        &self,
        origin: &Origin,
        always: bool,
        dialer: &Dialer,
        time: &RealTime,
        phases: &mut Phases,
    ) -> Result<Way, Failure> {
        let started = time.now();
        let mut spoken = self.0.lock().await;
        match spoken.get(origin) {
            Some(Spoken::Http2(sender)) if !sender.is_closed() => return Ok(Way::Shared(sender.clone())),
            Some(Spoken::Http1) => return Ok(Way::Own(None)),
            Some(Spoken::Http2(_)) | None => {}
        }
        let dialled = dialer.dial(origin, time, phases).await?;
        if !dialled.http2 && !always {
            spoken.insert(origin.clone(), Spoken::Http1);
            return Ok(Way::Own(Some(dialled.stream)));
        }
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(dialled.stream))
            .await
            .map_err(|error| failure(&error))?;
        // Its end shows in the requests that it carried.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        spoken.insert(origin.clone(), Spoken::Http2(sender.clone()));
        phases.connect = time.now() - started;
        Ok(Way::Shared(sender))
    }
}

/// Sends a request over a shared connection.
pub(crate) async fn exchange(
    mut sender: SendRequest<Full<Bytes>>,
    request: &RequestSpec,
    wanted: Wanted<'_>,
    around: Surroundings<'_>,
) -> Result<Reply, Failure> {
    let Surroundings { time, stage, phases, began, mut body, .. } = around;
    stage.store(stage::WAITING, std::sync::atomic::Ordering::Relaxed);
    let mut message = request.to_http().map(Full::new);
    if let Some(host) = message.headers_mut().remove(HOST)
        && let Ok(host) = host.to_str()
        && let Ok(authority) = host.parse()
    {
        let mut parts = message.uri().clone().into_parts();
        parts.authority = Some(authority);
        *message.uri_mut() = http::Uri::from_parts(parts).unwrap_or_else(|_| request.url.clone());
    }
    message.headers_mut().remove(CONNECTION);
    sender.ready().await.map_err(|error| failure(&error))?;
    phases.write = time.now() - began;
    let response = sender.send_request(message).await.map_err(|error| failure(&error))?;
    let first = time.now();
    phases.wait = first.saturating_sub(began + phases.write);
    stage.store(stage::READING, std::sync::atomic::Ordering::Relaxed);
    let (parts, mut frames) = response.into_parts();
    let text = |name: &str| {
        let value = parts.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let head = Head {
        status: parts.status.as_u16(),
        content_length: text("content-length").and_then(|length| length.parse().ok()),
        keep_alive: true,
        header: wanted.header.and_then(text),
        location: if wanted.location { text("location") } else { None },
    };
    let mut body_bytes = 0;
    while let Some(frame) = frames.frame().await {
        let frame = frame.map_err(|error| failure(&error))?;
        if let Some(data) = frame.data_ref() {
            body_bytes += data.len() as u64;
            if let Some(body) = &mut body {
                let room = BODY_KEPT.saturating_sub(body.len());
                body.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
    }
    let finished = time.now();
    phases.read = finished - first;
    Ok(Reply { head, body_bytes, reusable: true, finished })
}

fn failure(error: &hyper::Error) -> Failure {
    // The innermost reason says most.
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    let reset = error.is_closed() || error.is_canceled() || error.is_incomplete_message();
    let kind = if reset || text.contains("reset") || text.contains("closed") || text.contains("GOAWAY") {
        FailureKind::Reset
    } else {
        FailureKind::Protocol
    };
    Failure { kind, text: Cow::Owned(format!("http2: {text}")) }
}
