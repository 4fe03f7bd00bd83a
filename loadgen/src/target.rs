//! What load is sent to: one request in, what came of it out, as data.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Something that requests can be sent to, over up to as many connections as the plan has.
pub trait Target: Sync {
    /// What belongs to one connection: a socket and its buffers, or nothing.
    type Connection: Send;

    /// A fresh connection, not necessarily opened yet. `index` counts from 0.
    fn connection(&self, index: usize) -> Self::Connection;

    /// Sends one request and waits for its whole answer. Failures are data too: nothing ends a run early.
    ///
    /// `sent` is now, on the run's [`Time`](crate::Time): the latency counts from it.
    fn send(
        &self,
        connection: &mut Self::Connection,
        sent: Duration,
    ) -> impl Future<Output = Exchange> + Send;
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// Time from sending to the end of the answer, exact where the target knows better than the clock.
    pub latency: Duration,
    /// The answer, or why there was none.
    pub result: Result<Answer, Failure>,
    /// Where the time went.
    pub phases: Phases,
    /// What the result is counted under besides the whole, e.g. the version that answered.
    pub group: Option<Arc<str>>,
}

impl Exchange {
    /// An answer that took `latency`, all of it waiting for the first byte.
    pub fn answered(answer: Answer, latency: Duration) -> Self {
        let phases = Phases { wait: latency, ..Phases::default() };
        Exchange { latency, result: Ok(answer), phases, group: None }
    }

    /// A failure after `latency`.
    pub fn failed(failure: Failure, latency: Duration) -> Self {
        Exchange { latency, result: Err(failure), phases: Phases::default(), group: None }
    }
}

/// A response, as far as a load generator cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body's length where the response declared it (`Content-Length`), else `None`: hey counts no others.
    pub content_length: Option<u64>,
    /// Bytes of the body that arrived, as they were on the wire.
    pub body_bytes: u64,
}

impl Answer {
    /// An answer without a declared length.
    pub fn status(status: u16) -> Self {
        Answer { status, content_length: None, body_bytes: 0 }
    }
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class of failure.
    pub kind: FailureKind,
    /// The text that reports count and print.
    pub text: Cow<'static, str>,
}

/// Classes of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The name did not resolve.
    Resolve,
    /// No connection.
    Connect,
    /// The connection opened, but TLS did not come about.
    Tls,
    /// No answer in time.
    Timeout,
    /// The connection broke after it was open.
    Reset,
    /// The answer was no HTTP.
    Protocol,
    /// The request could not be made at all.
    Invalid,
}

impl FailureKind {
    /// One word, for reports.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Resolve => "resolve",
            FailureKind::Connect => "connect",
            FailureKind::Tls => "tls",
            FailureKind::Timeout => "timeout",
            FailureKind::Reset => "reset",
            FailureKind::Protocol => "protocol",
            FailureKind::Invalid => "invalid",
        }
    }
}

/// Where a request's time went, in hey's terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Name lookup and connecting; zero on a kept connection.
    pub connect: Duration,
    /// Name lookup alone.
    pub lookup: Duration,
    /// Writing the request.
    pub write: Duration,
    /// From the request written to the first byte of the answer.
    pub wait: Duration,
    /// From the first byte to the last.
    pub read: Duration,
}
