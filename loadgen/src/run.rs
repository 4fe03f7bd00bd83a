//! The scheduler: workers over a target on a time. It sends, waits and records; what to do and when is decided by
//! `pace`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::{Arrivals, Pace, Plan, Recorder, Sample, Target, Ticker, Time};

/// What a request costs at least on virtual time, so that a target that answers in no time at all cannot hold the
/// clock.
const LEAST_VIRTUAL_LATENCY: Duration = Duration::from_micros(10);

/// Asks a run to stop: workers finish the request that they are at.
#[derive(Debug, Default)]
pub struct StopSignal(AtomicBool);

impl StopSignal {
    /// Stops the run.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Carries out `plan` and records every request. The report's total time runs from this call to its end.
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
    let run = Run { plan, target, time, recorder, stop, start: time.now() };
    let arrivals = match &plan.pace {
        Pace::Open(arrivals) => {
            Some(Mutex::new(Queue { arrivals: arrivals.clone(), left: plan.requests.unwrap_or(u64::MAX) }))
        }
        Pace::Unlimited | Pace::PerWorker(_) => None,
    };
    let mut end = run.start;
    let mut workers = FuturesUnordered::new();
    for index in 0..plan.connections {
        let (run, arrivals) = (&run, &arrivals);
        workers.push(async move {
            match arrivals {
                Some(arrivals) => run.open_worker(index, arrivals).await,
                None => run.closed_worker(index).await,
            }
        });
    }
    while let Some(finished) = workers.next().await {
        end = end.max(finished);
    }
    recorder.set_total(end.saturating_sub(run.start));
}

struct Run<'a, T, C> {
    plan: &'a Plan,
    target: &'a T,
    time: &'a C,
    recorder: &'a Recorder,
    stop: &'a StopSignal,
    start: Duration,
}

struct Queue {
    arrivals: Arrivals,
    left: u64,
}

impl<T: Target, C: Time> Run<'_, T, C> {
    /// hey's worker: checks whether to stop, waits for its tick, sends. Returns when it ended.
    async fn closed_worker(&self, index: usize) -> Duration {
        let mut connection = self.target.connection(index);
        let mut ticker = match self.plan.pace {
            Pace::PerWorker(period) => Some(Ticker::new(self.start, period)),
            Pace::Unlimited | Pace::Open(_) => None,
        };
        let workers = u64::try_from(self.plan.connections).unwrap_or(u64::MAX);
        let mut left = self.plan.requests.map(|requests| requests / workers);
        let mut local = self.start;
        while left != Some(0) && !self.is_over(local) {
            let due = ticker.as_mut().map_or(local, |ticker| ticker.take(local));
            local = self.send_at(due, due, &mut connection).await;
            left = left.map(|left| left - 1);
        }
        local
    }

    /// Takes the next request that is due, waits for its time, sends. Returns when it ended.
    async fn open_worker(&self, index: usize, queue: &Mutex<Queue>) -> Duration {
        let mut connection = self.target.connection(index);
        let mut local = self.start;
        while !self.stop.is_stopped() {
            let due = {
                let mut queue = queue.lock().expect("no holder of this lock panics");
                if queue.left == 0 {
                    break;
                }
                queue.left -= 1;
                self.start + queue.arrivals.next_due()
            };
            if self.plan.duration.is_some_and(|duration| due >= self.start + duration) {
                break;
            }
            local = self.send_at(due, due.max(local), &mut connection).await;
        }
        local
    }

    /// Sends one request at `at` and records it; returns the time after its answer.
    ///
    /// On virtual time that time is exact: the clock follows it within its granularity, and may run ahead by as much
    /// since timers round up.
    async fn send_at(&self, due: Duration, at: Duration, connection: &mut T::Connection) -> Duration {
        let granularity = self.time.granularity();
        let ahead = at.saturating_sub(self.time.now());
        if !ahead.is_zero() && ahead >= granularity {
            self.time.sleep_until(at).await;
        }
        let sent = at.max(self.time.now().saturating_sub(granularity));
        let exchange = self.target.send(connection).await;
        let latency = if granularity.is_zero() {
            exchange.latency
        } else {
            exchange.latency.max(LEAST_VIRTUAL_LATENCY)
        };
        let finished = (sent + latency).max(self.time.now().saturating_sub(granularity));
        self.recorder.record(&Sample {
            due: due.saturating_sub(self.start),
            sent: sent.saturating_sub(self.start),
            exchange,
        });
        finished
    }

    fn is_over(&self, local: Duration) -> bool {
        self.stop.is_stopped() || self.plan.duration.is_some_and(|duration| local >= self.start + duration)
    }
}
