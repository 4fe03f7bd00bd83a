//! Bodies: reading those of requests; those of answers are whole, or the streams of watches and followed logs.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};
use tree::Value;

use crate::failure::Failure;
use crate::protobuf;

/// Reads a request's body: JSON, YAML or protobuf, as its media type says.
pub(crate) fn parse(media_type: &str, body: &[u8]) -> Result<Value, Failure> {
    let text = || {
        std::str::from_utf8(body)
            .map_err(|_| Failure::bad_request(format!("the body of the request is not UTF-8 ({media_type})")))
    };
    match media_type {
        // JSON is YAML, and clients send it as such.
        "application/yaml" | "application/apply-patch+yaml" => {
            text()?.parse().or_else(|_: serde_json::Error| {
                serde_saphyr::from_str(text()?).map_err(|error| Failure::bad_request(error.to_string()))
            })
        }
        ""
        | "application/json"
        | "application/strategic-merge-patch+json"
        | "application/merge-patch+json"
        | "application/json-patch+json"
        | "*/*" => {
            text()?.parse().map_err(|error: serde_json::Error| Failure::bad_request(error.to_string()))
        }
        protobuf::MEDIA_TYPE => protobuf::object(body).map_err(Failure::bad_request),
        other => Err(Failure::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, {}; got {other}",
                protobuf::MEDIA_TYPE
            ),
        )),
    }
}

/// The body of an answer.
pub enum Body {
    /// All of it is there.
    Whole(Option<Bytes>),
    /// Pieces come as things happen.
    Stream(BoxStream<'static, Bytes>),
}

impl Body {
    /// A body that is there.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Body::Whole(Some(bytes.into()))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Body::Whole(bytes) => f.debug_tuple("Whole").field(bytes).finish(),
            Body::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Stream(stream) => {
                Pin::new(stream).poll_next(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}
