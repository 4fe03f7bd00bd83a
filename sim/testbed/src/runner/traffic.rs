//! The scenario's client traffic: open and closed loops over the simulated network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clock::{Clock, Seed};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use program::Request;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::client::Client;
use super::cookies::Cookies;
use super::record::Record;
use super::schedule::Schedule;
use crate::World;
use crate::scenario::{Closed, Open, Traffic};

/// How long a client waits for an answer, unless told.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that may be on their way at the same time in an open model; more are errors at once.
const IN_FLIGHT_MAX: usize = 10_000;
/// The clock's timers round up to this; shorter times are kept as data.
const GRANULARITY: Duration = Duration::from_millis(1);
/// What a request of a closed loop costs at least, so that instant answers cannot hold the clock.
const LEAST_LATENCY: Duration = Duration::from_micros(10);

/// A stream of requests that runs in the background until it is stopped or dropped.
pub(super) struct Stream {
    stop: Arc<Stop>,
    task: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    notify: Notify,
}

impl Stop {
    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    async fn asked(&self) {
        let notified = self.notify.notified();
        let mut notified = std::pin::pin!(notified);
        notified.as_mut().enable();
        if !self.is_asked() {
            notified.await;
        }
    }
}

impl Stream {
    /// Starts a traffic.
    pub(super) async fn start(
        world: &World,
        spec: &Traffic,
        index: u16,
        record: &Arc<Record>,
        (clock, seed): (Clock, Seed),
    ) -> Result<Stream, String> {
        let client = Client::at(world, &spec.from).await?;
        let request = client.request(&spec.method, &spec.url, &spec.headers, spec.body.as_deref())?;
        let stop = Arc::new(Stop::default());
        let shared = Arc::new(Shared {
            request,
            timeout: spec.timeout.map_or(TIMEOUT, |timeout| timeout.0),
            spec: spec.clone(),
            index,
            client,
            clock,
            record: Arc::clone(record),
            stop: Arc::clone(&stop),
            start: clock.elapsed(),
        });
        let rng = seed.child("traffic").stream(&spec.name);
        let task = tokio::spawn(async move {
            if let Some(open) = &shared.spec.open {
                shared.open(open, Schedule::new(open, rng)).await;
            } else if let Some(closed) = &shared.spec.closed {
                shared.closed(closed).await;
            }
        });
        Ok(Stream { stop, task: task.abort_handle() })
    }

    /// Sends no more requests; those on their way are waited for in the background.
    pub(super) fn stop(&self) {
        self.stop.asked.store(true, Ordering::SeqCst);
        self.stop.notify.notify_waiters();
    }
}

struct Shared {
    spec: Traffic,
    index: u16,
    client: Client,
    request: Request,
    timeout: Duration,
    clock: Clock,
    record: Arc<Record>,
    stop: Arc<Stop>,
    start: Duration,
}

impl Shared {
    async fn open(&self, _: &Open, mut schedule: Schedule) {
        let end = self.spec.duration.map(|duration| duration.0);
        let mut flying = FuturesUnordered::new();
        let mut next = schedule.next();
        loop {
            let due = next.filter(|due| end.is_none_or(|end| *due < end)).map(|due| self.start + due);
            if due.is_none() && flying.is_empty() {
                return;
            }
            tokio::select! { biased;
                () = self.stop.asked() => break,
                () = self.reach(due), if due.is_some() => {
                    if flying.len() < IN_FLIGHT_MAX {
                        flying.push(self.send(None));
                    } else {
                        let error = "too many requests on their way".to_owned();
                        self.record.add(self.index, self.clock.elapsed(), Duration::ZERO, Err(error));
                    }
                    next = schedule.next();
                }
                Some(_) = flying.next(), if !flying.is_empty() => {}
            }
        }
        while flying.next().await.is_some() {}
    }

    async fn reach(&self, due: Option<Duration>) {
        if let Some(due) = due {
            self.clock.sleep_until_elapsed(due).await;
        }
    }

    async fn closed(&self, closed: &Closed) {
        let mut clients: FuturesUnordered<_> =
            (0..closed.clients).map(|_| self.closed_client(closed)).collect();
        while clients.next().await.is_some() {}
    }

    /// One client of a closed loop. Its own time is exact; the clock follows it within its granularity.
    async fn closed_client(&self, closed: &Closed) {
        let end = self.spec.duration.map(|duration| self.start + duration.0);
        let mut local = self.start;
        let mut cookies = closed.keep_cookies.then(Cookies::default);
        while !self.stop.is_asked() && end.is_none_or(|end| local < end) {
            if local.saturating_sub(self.clock.elapsed()) >= GRANULARITY {
                tokio::select! { biased;
                    () = self.stop.asked() => break,
                    () = self.clock.sleep_until_elapsed(local) => {}
                }
            }
            let sent = local.max(self.clock.elapsed().saturating_sub(GRANULARITY));
            let latency = self.send(cookies.as_mut()).await.max(LEAST_LATENCY);
            local = (sent + latency).max(self.clock.elapsed().saturating_sub(GRANULARITY)) + closed.think.0;
        }
    }

    /// Sends one request, with a client's cookies if it keeps any, and records it; returns its latency.
    async fn send(&self, mut cookies: Option<&mut Cookies>) -> Duration {
        let sent = self.clock.elapsed();
        let mut request = self.request.clone();
        if let Some(cookies) = &mut cookies {
            cookies.send(request.headers_mut(), sent);
        }
        let answer = self.clock.timeout(self.timeout, self.client.send(request)).await;
        let now = self.clock.elapsed();
        match answer {
            Ok(Ok(response)) => {
                if let Some(cookies) = cookies {
                    cookies.keep(response.headers(), now);
                }
                let latency = response.latency();
                let version = super::version_of(&response);
                self.record.add(self.index, now, latency, Ok((response.status().as_u16(), version)));
                latency
            }
            Ok(Err(error)) => {
                self.record.add(self.index, now, now - sent, Err(error.to_string()));
                now - sent
            }
            Err(_) => {
                self.record.add(self.index, now, self.timeout, Err("no answer in time".into()));
                self.timeout
            }
        }
    }
}
