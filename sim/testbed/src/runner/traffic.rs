//! The scenario's client traffic: open and closed loops over the simulated network.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use clock::{Clock, Elapsed, GRANULARITY, Seed};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use program::{Arrival, DialError, Reply, Request, Response};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::client::Client;
use super::cookies::Cookies;
use super::record::Record;
use super::schedule::Schedule;
use crate::World;
use crate::scenario::{Closed, Traffic};

/// How long a client waits for an answer, unless told.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that may be on their way at the same time in an open model; more are errors at once.
const IN_FLIGHT_MAX: usize = 10_000;
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
                shared.open(Schedule::new(open, rng)).await;
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
    async fn open(&self, mut schedule: Schedule) {
        let network = self.client.network();
        let end = self.spec.duration.map(|duration| duration.0);
        let next_due = |schedule: &mut Schedule| {
            let due = schedule.next().filter(|due| end.is_none_or(|end| *due < end));
            due.map(|due| self.start + due)
        };
        let endings = network.endings();
        let mut ended = endings.count();
        let mut ending = pin!(endings.more_than(ended));
        let mut flights = Flights::default();
        // Those that nobody can answer at once.
        let mut waiting = FuturesUnordered::new();
        let mut due = next_due(&mut schedule);
        let mut stop = pin!(self.stop.asked());
        let mut is_stopped = false;
        // Whom `stop` and `ending` will wake.
        let mut asked: Option<Waker> = None;
        loop {
            let now = self.clock.elapsed();
            if !is_stopped && self.stop.is_asked() {
                (due, is_stopped) = (None, true);
            }
            if endings.count() > ended {
                ended = endings.count();
                ending.set(endings.more_than(ended));
                asked = None;
                flights.look(self);
            }
            if due.is_some_and(|due| due <= now) {
                if flights.len() + waiting.len() < IN_FLIGHT_MAX {
                    match network.exchange(self.request.clone()) {
                        Reply::Now(result) => flights.add(self, now, result.expect("nobody has taken it")),
                        Reply::Later(answer) => waiting.push(self.wait(now, answer)),
                    }
                } else {
                    let error = "too many requests on their way".to_owned();
                    self.record.add(self.index, now, Duration::ZERO, Err(error));
                }
                due = next_due(&mut schedule);
                continue;
            }
            if flights.due().is_some_and(|due| due <= now) {
                flights.advance(self);
                continue;
            }
            let next = [due, flights.due()].into_iter().flatten().min();
            if next.is_none() && waiting.is_empty() {
                return;
            }
            let mut reached = pin!(self.reach(next));
            poll_fn(|context| {
                // It is time as a rule: nothing else is looked at then.
                if next.is_some() && reached.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                // Who is asked once wakes this task; what there is to tell is seen without asking.
                if !asked.as_ref().is_some_and(|asked| asked.will_wake(context.waker())) {
                    asked = Some(context.waker().clone());
                    if !is_stopped {
                        let _ = stop.as_mut().poll(context);
                    }
                    let _ = ending.as_mut().poll(context);
                }
                let has_news = self.stop.is_asked() != is_stopped || endings.count() > ended;
                let mut has_answer = || !waiting.is_empty() && waiting.poll_next_unpin(context).is_ready();
                if has_news || has_answer() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    /// Waits for an answer that is known later.
    async fn wait(&self, sent: Duration, answer: BoxFuture<'static, Result<Response, DialError>>) {
        let network = self.client.network();
        let arrived = async { network.arrive(answer.await?).await };
        self.ended(sent, self.clock.timeout(self.timeout, arrived).await);
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
        let answer = self.client.network().send_within(self.timeout, request).await;
        if let (Some(cookies), Ok(Ok(response))) = (cookies, &answer) {
            cookies.keep(response.headers(), self.clock.elapsed());
        }
        self.ended(sent, answer)
    }

    /// Records a request that was sent then; returns its latency.
    fn ended(&self, sent: Duration, answer: Result<Result<Response, DialError>, Elapsed>) -> Duration {
        let now = self.clock.elapsed();
        match answer {
            Ok(Ok(response)) => {
                let latency = response.latency();
                let version = super::version_of(&response);
                self.record.add(self.index, now, latency, Ok((response.status().as_u16(), version)));
                latency
            }
            Ok(Err(error)) => {
                self.record.add(self.index, now, now - sent, Err(error.to_string()));
                now - sent
            }
            Err(Elapsed) => {
                self.record.add(self.index, now, self.timeout, Err("no answer in time".into()));
                self.timeout
            }
        }
    }
}

/// Requests whose answers are on their way: the first that goes on first, and of those at one time the first that was
/// sent. Most are added at the end.
#[derive(Default)]
struct Flights {
    all: VecDeque<(Place, Box<Flight>)>,
    added: u64,
}

/// When a flight goes on, and its number.
type Place = (Duration, u64);

/// An answer on its way, and when its request was sent.
struct Flight {
    arrival: Arrival,
    sent: Duration,
}

impl Flights {
    fn len(&self) -> usize {
        self.all.len()
    }

    /// When the first goes on.
    fn due(&self) -> Option<Duration> {
        self.all.front().map(|((due, _), _)| *due)
    }

    /// What came of a request that was sent then: recorded once it has arrived.
    fn add(&mut self, client: &Shared, sent: Duration, result: Result<Response, DialError>) {
        match result.map(Arrival::of) {
            Ok(arrival) => {
                self.added += 1;
                self.take(client, self.added, Box::new(Flight { arrival, sent }));
            }
            Err(error) => _ = client.ended(sent, Ok(Err(error))),
        }
    }

    /// Takes a flight as far as it is time for, and keeps it until it goes on.
    fn take(&mut self, client: &Shared, number: u64, mut flight: Box<Flight>) {
        let deadline = clock::tick(flight.sent + client.timeout);
        match flight.arrival.advance(&client.clock).map(clock::tick) {
            None => _ = client.ended(flight.sent, Ok(flight.arrival.result())),
            Some(due) if due > deadline && client.clock.elapsed() >= deadline => {
                client.ended(flight.sent, Err(Elapsed));
            }
            Some(due) => {
                let place = (due.min(deadline), number);
                let after = match self.all.back() {
                    Some((last, _)) if *last > place => self.all.partition_point(|(other, _)| *other < place),
                    _ => self.all.len(),
                };
                self.all.insert(after, (place, flight));
            }
        }
    }

    /// Goes on with all that it is time for.
    fn advance(&mut self, client: &Shared) {
        let now = client.clock.elapsed();
        while self.due().is_some_and(|due| due <= now)
            && let Some(((_, number), flight)) = self.all.pop_front()
        {
            self.take(client, number, flight);
        }
    }

    /// A process has ended: goes on with all that fail by that.
    fn look(&mut self, client: &Shared) {
        let mut broken = Vec::new();
        let others = std::mem::take(&mut self.all).into_iter().filter_map(|(place, mut flight)| {
            if flight.arrival.look() {
                broken.push((place, flight));
                return None;
            }
            Some((place, flight))
        });
        self.all = others.collect();
        for ((_, number), flight) in broken {
            self.take(client, number, flight);
        }
    }
}
