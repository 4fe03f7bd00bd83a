//! Results of a run in bounded memory: histograms and exact counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::{Distribution, Exchange, FailureKind, Phases, Spread};

/// Different error texts that are counted apart; further ones share a line.
const ERROR_TEXTS_MAX: usize = 100;
/// The line that further error texts share.
const OTHER_ERRORS: &str = "other errors";
/// Groups that are counted apart; further ones share one.
const GROUPS_MAX: usize = 50;
/// The group that further ones share.
const OTHER_GROUPS: &str = "other groups";
/// Seconds for which requests are counted apart: a day.
const SECONDS_MAX: usize = 86_400;

/// One request as the scheduler saw it; times count from the run's start.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it should have been sent.
    pub due: Duration,
    /// When it was sent.
    pub sent: Duration,
    /// What came of it.
    pub exchange: Exchange,
}

/// What came of some of a run's requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests sent, answered or not.
    pub requests: u64,
    /// Latencies of answered requests, from sending.
    pub latency: Distribution,
    /// Latencies of answered requests from when they were due, once one was sent later than that.
    from_due: Option<Distribution>,
    /// Answers by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer by kind.
    pub failures: BTreeMap<FailureKind, u64>,
}

impl Tally {
    /// Latencies of answered requests, from when they were due.
    pub fn latency_from_due(&self) -> &Distribution {
        self.from_due.as_ref().unwrap_or(&self.latency)
    }

    /// Requests without an answer.
    pub fn failed(&self) -> u64 {
        self.requests - self.latency.count()
    }

    /// Requests that were answered with a status below 400.
    pub fn succeeded(&self) -> u64 {
        self.statuses.range(..400).map(|(_, count)| count).sum()
    }

    /// The share of requests that [succeeded](Tally::succeeded), `None` when none was sent.
    pub fn success(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.succeeded() as f64 / self.requests as f64)
    }

    fn add(&mut self, sample: &Sample) {
        self.requests += 1;
        let Sample { due, sent, exchange } = sample;
        match &exchange.result {
            Ok(answer) => {
                if due != sent && self.from_due.is_none() {
                    self.from_due = Some(self.latency.clone());
                }
                self.latency.record(exchange.latency);
                if let Some(from_due) = &mut self.from_due {
                    from_due.record((*sent + exchange.latency).saturating_sub(*due));
                }
                *self.statuses.entry(answer.status).or_insert(0) += 1;
            }
            Err(failure) => *self.failures.entry(failure.kind).or_insert(0) += 1,
        }
    }
}

/// All that is known after a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The run's length, up to the last answer.
    pub total: Duration,
    /// All requests together.
    pub all: Tally,
    /// Requests by [`Exchange::group`]; beyond fifty groups they share `other groups`.
    pub groups: BTreeMap<Arc<str>, Tally>,
    /// [`Phases::connect`] of answered requests.
    pub connect: Spread,
    /// [`Phases::lookup`] of answered requests.
    pub lookup: Spread,
    /// [`Phases::write`] of answered requests.
    pub write: Spread,
    /// [`Phases::wait`] of answered requests.
    pub wait: Spread,
    /// [`Phases::read`] of answered requests.
    pub read: Spread,
    /// Failures by text; beyond a hundred texts they share `other errors`.
    pub errors: BTreeMap<String, u64>,
    /// The sum of declared body lengths.
    pub bytes: u64,
    /// Bytes of bodies that arrived, declared or not.
    pub body_bytes: u64,
    /// Requests finished in each second of the run, for a day.
    pub per_second: Vec<u32>,
}

impl Report {
    /// Requests per second, failed ones included.
    pub fn rate(&self) -> f64 {
        self.all.requests as f64 / self.total.as_secs_f64()
    }

    fn add(&mut self, sample: &Sample) {
        let Sample { sent, exchange, .. } = sample;
        self.all.add(sample);
        if let Some(group) = &exchange.group {
            self.group(group).add(sample);
        }
        let finished = *sent + exchange.latency;
        self.total = self.total.max(finished);
        let second = usize::try_from(finished.as_secs()).unwrap_or(usize::MAX);
        if second < SECONDS_MAX {
            if self.per_second.len() <= second {
                self.per_second.resize(second + 1, 0);
            }
            self.per_second[second] += 1;
        }
        match &exchange.result {
            Ok(answer) => {
                let Phases { connect, lookup, write, wait, read } = exchange.phases;
                self.connect.record(connect);
                self.lookup.record(lookup);
                self.write.record(write);
                self.wait.record(wait);
                self.read.record(read);
                self.bytes += answer.content_length.unwrap_or(0);
                self.body_bytes += answer.body_bytes;
            }
            Err(failure) => {
                let text: &str = &failure.text;
                if let Some(count) = self.errors.get_mut(text) {
                    *count += 1;
                } else {
                    let text = if self.errors.len() < ERROR_TEXTS_MAX { text } else { OTHER_ERRORS };
                    *self.errors.entry(text.to_owned()).or_insert(0) += 1;
                }
            }
        }
    }

    fn group(&mut self, name: &Arc<str>) -> &mut Tally {
        let name = if self.groups.len() < GROUPS_MAX || self.groups.contains_key(name) {
            Arc::clone(name)
        } else {
            Arc::from(OTHER_GROUPS)
        };
        self.groups.entry(name).or_default()
    }
}

/// How far a run is, for those who watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Requests finished.
    pub requests: u64,
    /// Of these, answered with a status below 400.
    pub succeeded: u64,
    /// Requests finished in each of the last seconds, at most as many as asked for.
    pub last_seconds: Vec<u32>,
    /// The quantiles asked for, of latencies from when requests were due.
    pub quantiles: Vec<Duration>,
}

/// Called with each sample, in the order of answers.
type Observer = Box<dyn FnMut(&Sample) + Send>;

/// Collects samples while a run goes on.
#[derive(Default)]
pub struct Recorder(Mutex<Recording>);

#[derive(Default)]
struct Recording {
    report: Report,
    observer: Option<Observer>,
}

impl Recorder {
    /// A recorder that also hands every sample to `observer`, e.g. to print it.
    pub fn observed(observer: impl FnMut(&Sample) + Send + 'static) -> Self {
        Recorder(Mutex::new(Recording { report: Report::default(), observer: Some(Box::new(observer)) }))
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Adds one request.
    pub fn record(&self, sample: &Sample) {
        let mut recording = self.lock();
        recording.report.add(sample);
        if let Some(observer) = &mut recording.observer {
            observer(sample);
        }
    }

    /// Makes the run at least this long; until then its length is the end of the last answer.
    pub fn extend_total(&self, total: Duration) {
        let mut recording = self.lock();
        recording.report.total = recording.report.total.max(total);
    }

    /// How far the run is, with `seconds` of its recent past.
    pub fn progress(&self, seconds: usize, quantiles: &[f64]) -> Progress {
        let recording = self.lock();
        let Report { all, per_second, .. } = &recording.report;
        Progress {
            requests: all.requests,
            succeeded: all.succeeded(),
            last_seconds: per_second[per_second.len().saturating_sub(seconds)..].to_vec(),
            quantiles: quantiles.iter().map(|at| all.latency_from_due().quantile(*at)).collect(),
        }
    }

    /// The results; the recorder starts afresh.
    pub fn finish(&self) -> Report {
        std::mem::take(&mut self.lock().report)
    }
}
