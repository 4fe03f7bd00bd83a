//! A response of the simulated network, and the time that still has to pass for it.
//!
//! **Latency travels as data.** Virtual timers round up to a millisecond and cost more than the request itself, so a
//! handler that models its service time does not sleep: it says how long the answer takes ([`Response::taking`]). Who
//! passes it on adds its own part ([`Response::pass`]), and says what it does once the time has come
//! ([`Response::then`]: a proxy counts the request then) and whose end the answer does not survive
//! ([`Response::guard`]). All of that lies ahead of the response until its receiver lets it arrive
//! ([`Arrival`](crate::Arrival)): one wait for all as a rule, and then each part in its order, innermost first.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{DialError, ServedBy, Termination};

/// A whole HTTP response, how long it takes and who gave it. Cheap to move: many pass it on.
pub struct Response(Box<Parts>);

struct Parts {
    http: http::Response<Bytes>,
    unwritten: Unwritten,
    /// All headers, once somebody has asked for them: few do.
    headers: OnceLock<HeaderMap>,
    latency: Option<Duration>,
    served_by: Option<Arc<ServedBy>>,
    ahead: Vec<Ahead>,
    /// When everything that is ahead has passed, in the clock's elapsed time.
    arrives: Duration,
}

/// Headers that most responses have.
#[derive(Clone, Copy, Default)]
struct Unwritten {
    content_type: Option<&'static str>,
    upstream_time: Option<Duration>,
}

/// How long the upstream of a proxy took, in milliseconds.
const UPSTREAM_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

impl Unwritten {
    fn is_nothing(&self) -> bool {
        self.content_type.is_none() && self.upstream_time.is_none()
    }

    fn write(self, headers: &mut HeaderMap) {
        if let Some(kind) = self.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(time) = self.upstream_time {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            headers.insert(UPSTREAM_TIME, HeaderValue::from(millis));
        }
    }
}

/// What has to happen before a response has arrived.
pub(crate) enum Ahead {
    /// The clock's elapsed time comes to this.
    Until(Duration),
    /// Up to here, the answer fails if this process ends: an address to name in the error.
    Guard(Termination, SocketAddr),
    /// Somebody passes it on.
    Stage(Box<dyn Stage>),
    /// It gets no further.
    Lost(Lost),
}

/// One who passes a response on when its time has come.
pub trait Stage: Send + Sync {
    /// The response has come this far.
    ///
    /// # Errors
    /// [`Lost`], if it does not get further.
    fn done(&mut self, response: &Response) -> Result<(), Lost>;

    /// Something further in has failed: what comes of it, in place of the response that this stage has seen before.
    ///
    /// # Errors
    /// What the next stage gets instead of a response.
    fn redo(&mut self, clock: &Clock, result: Result<Response, DialError>) -> Result<Response, DialError>;
}

/// A response that got lost on its way.
#[derive(Debug)]
pub struct Lost {
    /// After how long its receiver knows.
    pub after: Duration,
    /// What the receiver makes of it.
    pub error: DialError,
}

impl Response {
    /// A response with status 200, of which nobody says how long it takes.
    pub fn new(body: Bytes) -> Response {
        http::Response::new(body).into()
    }

    /// A response with this status and `Content-Type`.
    pub fn with(status: StatusCode, content_type: &'static str, body: Bytes) -> Response {
        let mut response = Response::new(body);
        *response.0.http.status_mut() = status;
        response.0.unwritten.content_type = Some(content_type);
        response
    }

    /// The response without what the network knows of it.
    pub fn into_http(mut self) -> http::Response<Bytes> {
        self.headers_mut();
        self.0.http
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        if self.0.unwritten.is_nothing() {
            return self.0.http.headers();
        }
        self.0.headers.get_or_init(|| {
            let mut headers = self.0.http.headers().clone();
            self.0.unwritten.write(&mut headers);
            headers
        })
    }

    /// Its headers, to change them.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.0.headers = OnceLock::new();
        let headers = self.0.http.headers_mut();
        std::mem::take(&mut self.0.unwritten).write(headers);
        headers
    }

    /// A proxy says how long its upstream took (`x-envoy-upstream-service-time`).
    pub fn took_upstream(&mut self, time: Duration) {
        if self.0.unwritten.upstream_time.is_some() {
            self.headers_mut();
        }
        self.0.headers = OnceLock::new();
        self.0.unwritten.upstream_time = Some(time);
    }

    /// Its body.
    pub fn into_body(self) -> Bytes {
        self.0.http.into_body()
    }

    /// The same response, which takes this long.
    #[must_use]
    pub fn taking(mut self, latency: Duration) -> Response {
        self.0.latency = Some(latency);
        self
    }

    /// The same response, which this application gave.
    #[must_use]
    pub fn served_by(mut self, who: Arc<ServedBy>) -> Response {
        self.0.served_by = Some(who);
        self
    }

    /// The exact time that it takes; zero if nobody said.
    pub fn latency(&self) -> Duration {
        self.0.latency.unwrap_or_default()
    }

    /// The application that gave it, which proxies do not hide.
    pub fn server(&self) -> Option<&ServedBy> {
        self.0.served_by.as_deref()
    }

    /// Adds to its latency; returns what it is then.
    pub fn add_latency(&mut self, more: Duration) -> Duration {
        let total = self.latency() + more;
        self.0.latency = Some(total);
        total
    }

    /// Whether nothing is ahead of it.
    pub fn has_arrived(&self) -> bool {
        self.0.ahead.is_empty()
    }

    /// It took `more`, besides what it says; or, if nobody has said, the time since `started` (the clock's elapsed time
    /// when the request was sent). That time has to pass.
    pub fn pass(&mut self, clock: &Clock, started: Duration, more: Duration) {
        if self.0.latency.is_none() {
            self.0.latency = Some(self.0.arrives.max(clock.elapsed()) - started);
        }
        self.settle(clock, started, more);
    }

    /// It takes `more` than it says, counted from `started` (the clock's elapsed time when the request was sent). That
    /// time has to pass.
    pub fn settle(&mut self, clock: &Clock, started: Duration, more: Duration) {
        let due = started + self.add_latency(more);
        if due <= self.0.arrives {
            return;
        }
        let now = self.0.arrives.max(clock.elapsed());
        // Less is no wait.
        if due.saturating_sub(now) >= clock::GRANULARITY {
            self.0.arrives = clock::tick(due);
            self.push(Ahead::Until(due));
        }
    }

    /// Unless it has arrived so far, it fails if a process ends before: that at this address.
    pub fn guard(&mut self, process: &Termination, at: SocketAddr) {
        if !self.has_arrived() {
            self.push(Ahead::Guard(process.clone(), at));
        }
    }

    /// `stage` passes it on: now, if it has arrived so far.
    pub fn then(&mut self, mut stage: impl Stage + 'static) {
        if !self.has_arrived() {
            self.push(Ahead::Stage(Box::new(stage)));
        } else if let Err(lost) = stage.done(self) {
            self.lose(lost);
        }
    }

    /// It gets no further than it has come so far.
    pub fn lose(&mut self, lost: Lost) {
        self.push(Ahead::Lost(lost));
    }

    /// What is ahead, which is taken from it.
    pub(crate) fn take_ahead(&mut self) -> Vec<Ahead> {
        std::mem::take(&mut self.0.ahead)
    }

    fn push(&mut self, part: Ahead) {
        if self.0.ahead.capacity() == 0 {
            // Enough for a gateway and a sidecar.
            self.0.ahead.reserve_exact(12);
        }
        self.0.ahead.push(part);
    }
}

impl From<http::Response<Bytes>> for Response {
    fn from(http: http::Response<Bytes>) -> Response {
        Response(Box::new(Parts {
            http,
            unwritten: Unwritten::default(),
            headers: OnceLock::new(),
            latency: None,
            served_by: None,
            ahead: Vec::new(),
            arrives: Duration::ZERO,
        }))
    }
}

impl Deref for Response {
    type Target = http::Response<Bytes>;

    fn deref(&self) -> &Self::Target {
        &self.0.http
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.http.fmt(f)
    }
}
