//! The scheduler: workers over a target on a time. It sends, waits and records; what to do and when is decided by
//! `pace`.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::{Arrivals, Pace, Plan, Recorder, Sample, Target, Ticker, Time};

/// What a request costs at least on virtual time, so that a target that answers in no time at all cannot hold the
/// clock.
const LEAST_VIRTUAL_LATENCY: Duration = Duration::from_micros(10);

/// Asks a run to stop: workers finish the request that they are at.
#[derive(Debug, Default)]
pub struct StopSignal {
    stopped: AtomicBool,
    /// Workers that sleep, by their index.
    sleepers: Mutex<BTreeMap<usize, Waker>>,
}

impl StopSignal {
    /// Stops the run; workers that wait for their time wait no longer.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let sleepers = std::mem::take(&mut *self.sleepers.lock().expect("no holder of this lock panics"));
        sleepers.into_values().for_each(Waker::wake);
    }

    /// Whether [`stop`](StopSignal::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn poll_stopped(&self, worker: usize, context: &Context<'_>) -> Poll<()> {
        if self.is_stopped() {
            return Poll::Ready(());
        }
        let mut sleepers = self.sleepers.lock().expect("no holder of this lock panics");
        sleepers.insert(worker, context.waker().clone());
        drop(sleepers);
        // Stopped in between: the waker came too late to be called.
        if self.stopped.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Carries out `plan` and records every request. The report's total time runs from this call (or the end of the
/// warm-up) to its end.
///
/// Dropping the future abandons the requests on their way; what was answered so far is in the recorder.
pub async fn run<T: Target, C: Time>(plan: &Plan, target: &T, time: &C, recorder: &Recorder) {
    run_until(plan, target, time, recorder, &StopSignal::default()).await;
}

/// [`run`], until `stop` says so or the plan is done.
pub async fn run_until<T: Target, C: Time>(
    plan: &Plan,
    target: &T,
    time: &C,
    recorder: &Recorder,
    stop: &StopSignal,
) {
    Share::of(plan, time.now(), recorder, stop).work(0..plan.connections, target, time).await;
}

/// A run that several threads carry out together, each with workers, a target and a runtime of its own; their times
/// must have the same origin.
pub struct Share<'a> {
    plan: &'a Plan,
    recorder: &'a Recorder,
    stop: &'a StopSignal,
    start: Duration,
    arrivals: Option<Mutex<Queue>>,
}

struct Queue {
    arrivals: Arrivals,
    left: u64,
}

impl<'a> Share<'a> {
    /// A run of `plan` that starts at `start`.
    pub fn of(plan: &'a Plan, start: Duration, recorder: &'a Recorder, stop: &'a StopSignal) -> Self {
        let arrivals = match &plan.pace {
            Pace::Open(arrivals) => {
                let left = plan.requests.unwrap_or(u64::MAX);
                Some(Mutex::new(Queue { arrivals: arrivals.clone(), left }))
            }
            Pace::Unlimited | Pace::PerWorker(_) => None,
        };
        Share { plan, recorder, stop, start, arrivals }
    }

    /// Does the part of the workers in `workers`; all of them together are `0..plan.connections`.
    pub async fn work<T: Target, C: Time>(&self, workers: Range<usize>, target: &T, time: &C) {
        let mut end = self.recorded_from();
        let mut running = FuturesUnordered::new();
        for index in workers {
            let worker = Worker { share: self, target, time, index };
            running.push(async move {
                match &self.arrivals {
                    Some(arrivals) => worker.open(arrivals).await,
                    None => worker.closed().await,
                }
            });
        }
        while let Some(finished) = running.next().await {
            end = end.max(finished);
        }
        self.recorder.extend_total(end.saturating_sub(self.recorded_from()));
    }

    /// When recording begins: after the warm-up.
    fn recorded_from(&self) -> Duration {
        self.start + self.plan.warmup
    }

    fn is_over(&self, at: Duration) -> bool {
        self.stop.is_stopped()
            || self.plan.duration.is_some_and(|duration| at >= self.recorded_from() + duration)
    }
}

/// An open model's next request.
enum Next {
    /// Is due then.
    Due(Duration),
    /// Does not exist: all have been sent.
    Sent,
    /// Does not exist: the profile is over.
    Never,
}

struct Worker<'a, T, C> {
    share: &'a Share<'a>,
    target: &'a T,
    time: &'a C,
    index: usize,
}

impl<T: Target, C: Time> Worker<'_, T, C> {
    /// hey's worker: checks whether to stop, waits for its tick, sends. Returns when it ended.
    async fn closed(&self) -> Duration {
        let (share, plan) = (self.share, self.share.plan);
        let mut connection = self.target.connection(self.index);
        let begin = if plan.ramp.is_zero() {
            share.start
        } else {
            share.start + plan.ramp.mul_f64(self.index as f64 / plan.connections as f64)
        };
        let mut ticker = match plan.pace {
            Pace::PerWorker(period) => Some(Ticker::new(begin, period)),
            Pace::Unlimited | Pace::Open(_) => None,
        };
        let workers = u64::try_from(plan.connections).unwrap_or(u64::MAX);
        let mut left = plan.requests.map(|requests| requests / workers);
        let mut local = begin;
        while left != Some(0) && !share.is_over(local) {
            let due = ticker.as_mut().map_or(local, |ticker| ticker.take(local));
            let Some(finished) = self.send_at(due, due, &mut connection).await else { break };
            local = finished;
            if due >= share.recorded_from() {
                left = left.map(|left| left - 1);
            }
        }
        local
    }

    /// Takes the next request that is due, waits for its time, sends. Returns when it ended.
    async fn open(&self, queue: &Mutex<Queue>) -> Duration {
        let share = self.share;
        let mut connection = self.target.connection(self.index);
        let mut local = share.start;
        loop {
            let due = match self.next_due(queue) {
                Next::Due(due) if !share.is_over(due) => due,
                Next::Sent => return local,
                Next::Due(_) | Next::Never => break,
            };
            let Some(finished) = self.send_at(due, due.max(local), &mut connection).await else { break };
            local = finished;
        }
        // A run of ten seconds takes ten seconds, also when the last request of the rate comes before.
        if let Some(duration) = share.plan.duration
            && !share.stop.is_stopped()
        {
            let end = share.recorded_from() + duration;
            if end > local {
                self.sleep_until(end).await;
            }
            if !share.stop.is_stopped() {
                return local.max(end);
            }
        }
        local
    }

    fn next_due(&self, queue: &Mutex<Queue>) -> Next {
        let mut queue = queue.lock().expect("no holder of this lock panics");
        if queue.left == 0 {
            return Next::Sent;
        }
        let Some(due) = queue.arrivals.next_due() else { return Next::Never };
        let due = self.share.start + due;
        if due >= self.share.recorded_from() {
            queue.left -= 1;
        }
        Next::Due(due)
    }

    /// Sends one request at `at` and records it; returns the time after its answer, `None` if the run was stopped
    /// before it was sent.
    ///
    /// On virtual time that time is exact: the clock follows it within its granularity, and may run ahead by as much
    /// since timers round up.
    async fn send_at(&self, due: Duration, at: Duration, connection: &mut T::Connection) -> Option<Duration> {
        let share = self.share;
        let granularity = self.time.granularity();
        let mut now = self.time.now();
        let ahead = at.saturating_sub(now);
        if !ahead.is_zero() && ahead >= granularity {
            self.sleep_until(at).await;
            if share.stop.is_stopped() {
                return None;
            }
            now = self.time.now();
        }
        let sent = at.max(now.saturating_sub(granularity));
        let exchange = self.target.send(connection, sent).await;
        let finished = if granularity.is_zero() {
            sent + exchange.latency
        } else {
            let finished = sent + exchange.latency.max(LEAST_VIRTUAL_LATENCY);
            finished.max(self.time.now().saturating_sub(granularity))
        };
        let from = share.recorded_from();
        if due >= from {
            // Only an open model's requests are due at times of their own; in a closed one our delay is no one's wait.
            let due = if share.arrivals.is_some() { due } else { sent };
            share.recorder.record(&Sample { due: due - from, sent: sent.saturating_sub(from), exchange });
        }
        Some(finished)
    }

    /// Sleeps until `at` or until the run is stopped.
    async fn sleep_until(&self, at: Duration) {
        let mut sleep = pin!(self.time.sleep_until(at));
        poll_fn(|context| {
            if sleep.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            self.share.stop.poll_stopped(self.index, context)
        })
        .await;
    }
}
