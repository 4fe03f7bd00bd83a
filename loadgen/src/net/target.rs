//! Requests over sockets, as a target for the scheduler.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;

use crate::net::clock::{Deadline, RealTime};
use crate::net::dial::{Dialer, Origin};
use crate::net::http1::{Broken, Http1, Reply, Scratch, Surroundings, stage};
use crate::net::http2::{self, Http2, Pool, Way};
use crate::net::response::Wanted;
use crate::net::wire::{self, Framing};
use crate::redirect::{REDIRECTS_MAX, follow, is_redirect};
use crate::{Answer, Exchange, Failure, FailureKind, Mix, Phases, RequestSpec, Target, Time as _};

/// Servers to which one worker keeps a connection.
const LINKS_MAX: usize = 16;
/// The longest name of a group.
const GROUP_MAX: usize = 100;

/// What requests are counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// The value of a response header.
    Header(String),
    /// A field of a JSON body, by the names on the way to it.
    Json(Vec<String>),
    /// The request's URL, as it was typed.
    Url,
}

/// How requests are sent.
#[derive(Clone, Debug, Default)]
pub struct TargetOptions {
    /// The limit for one request, redirects included.
    pub timeout: Option<Duration>,
    /// A new connection for each request.
    pub close: bool,
    /// Take redirects as answers.
    pub keep_redirects: bool,
    /// HTTP/2 where a server agrees to it in the TLS handshake.
    pub http2: bool,
    /// HTTP/2 everywhere, without asking.
    pub http2_prior_knowledge: bool,
    /// What to group results by.
    pub group_by: Option<GroupBy>,
}

/// What the threads of a run count together.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The number of the next request.
    next: Arc<AtomicU64>,
    abandoned: Arc<AtomicU64>,
}

impl Counts {
    /// Requests that were on their way when the run was dropped.
    pub fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }
}

/// Sends the requests of a [`Mix`] over sockets. One per thread: connections belong to a runtime.
pub struct SocketTarget {
    mix: Arc<Mix>,
    /// Requests that are the same each time.
    fixed: Vec<Option<Prepared>>,
    counts: Counts,
    options: TargetOptions,
    http2: Http2,
    dialer: Arc<Dialer>,
    time: RealTime,
    pool: Pool,
    scratch: Scratch,
}

/// A request, ready to go out.
struct Prepared {
    request: RequestSpec,
    origin: Arc<Origin>,
    bytes: Vec<u8>,
    group: Option<Arc<str>>,
}

/// A worker's connections by server; none where it was closed.
type Links = Vec<(Arc<Origin>, Option<Http1>)>;

/// One worker's connections.
pub struct SocketConnection {
    links: Links,
    deadline: Deadline,
    stage: AtomicU8,
    body: Vec<u8>,
    /// The group of the last answer: most likely that of the next one.
    group: Option<Arc<str>>,
    /// Whether a request is on its way.
    busy: bool,
    abandoned: Arc<AtomicU64>,
}

impl Drop for SocketConnection {
    fn drop(&mut self) {
        if self.busy {
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl SocketTarget {
    /// A target on the current runtime. The threads of a run share `counts`, which number the requests.
    pub fn new(
        mix: Arc<Mix>,
        options: TargetOptions,
        dialer: Arc<Dialer>,
        time: RealTime,
        counts: Counts,
    ) -> Self {
        let http2 = match &options {
            TargetOptions { http2_prior_knowledge: true, .. } => Http2::Always,
            TargetOptions { http2: true, .. } => Http2::Agreed,
            _ => Http2::Never,
        };
        let mut target = SocketTarget {
            mix,
            fixed: Vec::new(),
            counts,
            options,
            http2,
            dialer,
            time,
            pool: Pool::default(),
            scratch: Scratch::default(),
        };
        let fixed = target.mix.fixed().map(|request| request.map(|request| target.prepare(request.clone())));
        target.fixed = fixed.collect();
        target
    }

    fn prepare(&self, request: RequestSpec) -> Prepared {
        let origin = Arc::new(Origin::of(&request.url));
        let proxy = self.dialer.route.proxy.as_ref().filter(|_| !origin.tls);
        let framing = Framing {
            close: self.options.close,
            absolute: proxy.is_some(),
            proxy_authorization: proxy.and_then(|proxy| proxy.authorization.as_deref()),
        };
        let bytes = wire::bytes(&request, framing);
        let group = match self.options.group_by {
            Some(GroupBy::Url) => Some(Arc::from(request.typed_url.as_str())),
            _ => None,
        };
        Prepared { request, origin, bytes, group }
    }

    fn wanted(&self, request: &RequestSpec) -> Wanted<'_> {
        Wanted {
            header: match &self.options.group_by {
                Some(GroupBy::Header(name)) => Some(name),
                _ => None,
            },
            location: !self.options.keep_redirects,
            head_request: request.method == Method::HEAD,
        }
    }

    /// Sends a request and follows redirects.
    async fn perform(
        &self,
        links: &mut Links,
        stage: &AtomicU8,
        body: &mut Vec<u8>,
        phases: &mut Phases,
        prepared: &Prepared,
        sent: Duration,
    ) -> Result<Reply, Failure> {
        let reply = self.hop(links, stage, body, phases, prepared, sent).await?;
        if self.options.keep_redirects || !is_redirect(reply.head.status) {
            return Ok(reply);
        }
        Box::pin(self.redirected(links, stage, body, phases, prepared, reply)).await
    }

    async fn redirected(
        &self,
        links: &mut Links,
        stage: &AtomicU8,
        body: &mut Vec<u8>,
        phases: &mut Phases,
        prepared: &Prepared,
        mut reply: Reply,
    ) -> Result<Reply, Failure> {
        let mut hops = 0;
        let mut current: Option<Prepared> = None;
        while is_redirect(reply.head.status) {
            let Some(location) = reply.head.location.take() else { break };
            let request = current.as_ref().map_or(&prepared.request, |current| &current.request);
            let invalid = |text: String| Failure { kind: FailureKind::Protocol, text: Cow::Owned(text) };
            hops += 1;
            if hops > REDIRECTS_MAX {
                return Err(invalid(format!("stopped after {REDIRECTS_MAX} redirects")));
            }
            let next = self.prepare(follow(request, reply.head.status, &location).map_err(invalid)?);
            let now = self.time.now();
            reply = self.hop(links, stage, body, phases, &next, now).await?;
            current = Some(next);
        }
        Ok(reply)
    }

    /// Sends one request over a connection that is open or to be opened.
    async fn hop(
        &self,
        links: &mut Links,
        stage: &AtomicU8,
        body: &mut Vec<u8>,
        phases: &mut Phases,
        prepared: &Prepared,
        mut began: Duration,
    ) -> Result<Reply, Failure> {
        let Prepared { request, origin, bytes, .. } = prepared;
        let wanted = self.wanted(request);
        let keeps_body = matches!(self.options.group_by, Some(GroupBy::Json(_)));
        body.clear();
        let mut opened = None;
        let always = self.http2 == Http2::Always;
        // What is seldom needed is boxed, which keeps the future of the usual case small.
        if always || (self.http2 == Http2::Agreed && origin.tls) {
            stage.store(stage::CONNECTING, Ordering::Relaxed);
            let way = self.pool.way(origin, always, &self.dialer, &self.time, phases);
            match Box::pin(way).await? {
                Way::Shared(sender) => {
                    let body = keeps_body.then_some(body);
                    let began = self.time.now();
                    let around =
                        Surroundings { time: &self.time, scratch: &self.scratch, stage, phases, began, body };
                    return Box::pin(http2::exchange(sender, request, wanted, around)).await;
                }
                Way::Own(stream) => opened = stream,
            }
        }
        // Most often it is the very same.
        let known = |(linked, _): &(Arc<Origin>, _)| Arc::ptr_eq(linked, origin) || linked == origin;
        let slot = match links.iter().position(known) {
            Some(slot) => slot,
            None => {
                if links.len() >= LINKS_MAX {
                    links.remove(0);
                }
                links.push((Arc::clone(origin), None));
                links.len() - 1
            }
        };
        let link = &mut links[slot].1;
        if let Some(stream) = opened {
            *link = Some(Http1::new(stream));
        } else if let Some(idle) = link
            && !idle.is_open(began).await
        {
            *link = None;
        }
        loop {
            let connection = match link {
                Some(connection) => connection,
                None => {
                    stage.store(stage::CONNECTING, Ordering::Relaxed);
                    let dialled = Box::pin(self.dialer.dial(origin, &self.time, phases)).await?;
                    began = self.time.now();
                    link.insert(Http1::new(dialled.stream))
                }
            };
            let body = keeps_body.then_some(&mut *body);
            let around =
                Surroundings { time: &self.time, scratch: &self.scratch, stage, phases, began, body };
            let exchanged = connection.exchange(bytes, wanted, around).await;
            if self.options.close || !exchanged.as_ref().is_ok_and(|reply| reply.reusable) {
                *link = None;
            }
            match exchanged {
                Ok(reply) => return Ok(reply),
                Err(Broken::Stale) if is_idempotent(&request.method) => {}
                Err(Broken::Stale) => {
                    return Err(Failure { kind: FailureKind::Reset, text: Cow::Borrowed("EOF") });
                }
                Err(Broken::Failed(kind, text)) => return Err(Failure { kind, text: Cow::Owned(text) }),
            }
        }
    }

    fn group_of(&self, reply: &Reply, body: &[u8], last: &mut Option<Arc<str>>) -> Option<Arc<str>> {
        let found = match self.options.group_by.as_ref()? {
            GroupBy::Header(_) => reply.head.header.as_deref().map(Cow::Borrowed),
            GroupBy::Json(path) => json_field(body, path).map(Cow::Owned),
            GroupBy::Url => return None,
        };
        let name = found.unwrap_or(Cow::Borrowed("(none)"));
        let name: String = name.chars().filter(|c| !c.is_control()).take(GROUP_MAX).collect();
        if last.as_deref() != Some(name.as_str()) {
            *last = Some(Arc::from(name));
        }
        last.clone()
    }
}

/// The field of a JSON document as text.
fn json_field(body: &[u8], path: &[String]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let mut value = &document;
    for name in path {
        value = match value {
            serde_json::Value::Array(list) => list.get(name.parse::<usize>().ok()?)?,
            other => other.get(name)?,
        };
    }
    Some(match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// Methods that may be sent again when a connection turned out to be closed (RFC 9110, 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

impl Target for SocketTarget {
    type Connection = SocketConnection;

    fn connection(&self, _index: usize) -> SocketConnection {
        SocketConnection {
            links: Vec::new(),
            deadline: Deadline::default(),
            stage: AtomicU8::new(0),
            body: Vec::new(),
            group: None,
            busy: false,
            abandoned: Arc::clone(&self.counts.abandoned),
        }
    }

    async fn send(&self, connection: &mut SocketConnection, sent: Duration) -> Exchange {
        let number = self.counts.next.fetch_add(1, Ordering::Relaxed);
        let which = self.mix.which(number);
        let rendered;
        let prepared = match &self.fixed[which] {
            Some(prepared) => prepared,
            None => match self.mix.render(which, number) {
                Ok(request) => {
                    rendered = self.prepare(request);
                    &rendered
                }
                Err(text) => {
                    let failure = Failure { kind: FailureKind::Invalid, text: Cow::Owned(text) };
                    return Exchange::failed(failure, Duration::ZERO);
                }
            },
        };
        let SocketConnection { links, deadline, stage, body, group, busy, .. } = connection;
        *busy = true;
        let mut phases = Phases::default();
        let limit = self.options.timeout.map(|timeout| sent + timeout);
        let work = self.perform(links, stage, body, &mut phases, prepared, sent);
        let result = deadline.limit(&self.time, limit, work).await;
        *busy = false;
        let result = result.unwrap_or_else(|| {
            // What was given up in the middle is of no more use.
            for (_, link) in links {
                link.take_if(|connection| connection.is_busy());
            }
            let text = match stage.load(Ordering::Relaxed) {
                stage::READING => {
                    "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
                }
                stage::CONNECTING => "context deadline exceeded (Client.Timeout exceeded while connecting)",
                _ => "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            };
            Err(Failure { kind: FailureKind::Timeout, text: Cow::Borrowed(text) })
        });
        match result {
            Ok(reply) => Exchange {
                latency: reply.finished.saturating_sub(sent),
                group: prepared.group.clone().or_else(|| self.group_of(&reply, body, group)),
                result: Ok(Answer {
                    status: reply.head.status,
                    content_length: reply.head.content_length,
                    body_bytes: reply.body_bytes,
                }),
                phases,
            },
            Err(failure) => {
                let text = format!("{}{}", prepared.request.error_prefix(), failure.text);
                let failure = Failure { kind: failure.kind, text: Cow::Owned(text) };
                let latency = self.time.now().saturating_sub(sent);
                Exchange { group: prepared.group.clone(), ..Exchange::failed(failure, latency) }
            }
        }
    }
}
