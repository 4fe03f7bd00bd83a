//! Results of a run in bounded memory: histograms and exact counts.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{Exchange, Phases};

/// Different error texts that are counted apart; further ones share a line.
const ERROR_TEXTS_MAX: usize = 100;
/// The line that further error texts share.
const OTHER_ERRORS: &str = "other errors";
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

/// A distribution of durations: histogram to three significant digits, with exact extremes and sum.
#[derive(Clone, Debug)]
pub struct Distribution {
    histogram: Histogram<u64>,
    zeros: u64,
    least: Duration,
    most: Duration,
    sum: Duration,
}

impl Default for Distribution {
    fn default() -> Self {
        let histogram = Histogram::new(3).expect("three significant digits are valid");
        Distribution { histogram, zeros: 0, least: Duration::MAX, most: Duration::ZERO, sum: Duration::ZERO }
    }
}

impl Distribution {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.least = self.least.min(duration);
        self.most = self.most.max(duration);
        self.sum += duration;
        if duration.is_zero() {
            self.zeros += 1;
        } else {
            let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            self.histogram.record(nanos).expect("the histogram resizes itself");
        }
    }

    /// Adds all of another distribution.
    pub fn merge(&mut self, other: &Distribution) {
        self.histogram.add(&other.histogram).expect("the histogram resizes itself");
        self.zeros += other.zeros;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        self.sum += other.sum;
    }

    /// How many durations were added.
    pub fn count(&self) -> u64 {
        self.histogram.len() + self.zeros
    }

    /// The shortest, exact; zero when empty.
    pub fn least(&self) -> Duration {
        if self.count() == 0 { Duration::ZERO } else { self.least }
    }

    /// The longest, exact.
    pub fn most(&self) -> Duration {
        self.most
    }

    /// The sum, exact.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The arithmetic mean, `None` when empty.
    pub fn mean(&self) -> Option<Duration> {
        let count = self.count();
        (count > 0).then(|| Duration::from_secs_f64(self.sum.as_secs_f64() / count as f64))
    }

    /// The standard deviation, zero when empty.
    pub fn deviation(&self) -> Duration {
        let (count, Some(mean)) = (self.count(), self.mean()) else { return Duration::ZERO };
        let mean = mean.as_secs_f64();
        let mut squares = self.zeros as f64 * mean * mean;
        for step in self.histogram.iter_recorded() {
            let off = self.histogram.median_equivalent(step.value_iterated_to()) as f64 / 1e9 - mean;
            squares += step.count_since_last_iteration() as f64 * off * off;
        }
        Duration::from_secs_f64((squares / count as f64).sqrt())
    }

    /// The duration below or at which `quantile` (0 to 1) of all lie; zero when empty.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = (quantile * self.count() as f64).ceil() as u64;
        self.at_rank(rank.saturating_sub(1))
    }

    /// The duration at a rank, counted from 0, in ascending order; zero when empty.
    pub fn at_rank(&self, rank: u64) -> Duration {
        let count = self.count();
        if count == 0 || rank < self.zeros {
            return Duration::ZERO;
        }
        if rank + 1 >= count {
            return self.most;
        }
        if rank == 0 {
            return self.least;
        }
        let mut seen = self.zeros;
        for step in self.histogram.iter_recorded() {
            seen += step.count_since_last_iteration();
            if seen > rank {
                let nanos = self.histogram.median_equivalent(step.value_iterated_to());
                return Duration::from_nanos(nanos).clamp(self.least, self.most);
            }
        }
        self.most
    }

    /// How many lie at or below each of `bounds` (ascending) but above the one before.
    pub fn counts_between(&self, bounds: &[Duration]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len()];
        let mut bound = 0;
        let mut put = |duration: Duration, count: u64| {
            while bound + 1 < bounds.len() && duration > bounds[bound] {
                bound += 1;
            }
            if let Some(slot) = counts.get_mut(bound) {
                *slot += count;
            }
        };
        if self.zeros > 0 {
            put(Duration::ZERO, self.zeros);
        }
        let least = u64::try_from(self.least.as_nanos()).unwrap_or(u64::MAX);
        for step in self.histogram.iter_recorded() {
            let value = step.value_iterated_to();
            // What cannot be told apart from the exact least counts as the least.
            let is_least = self.histogram.equivalent(value, least);
            let at = if is_least {
                self.least
            } else {
                Duration::from_nanos(self.histogram.median_equivalent(value))
            };
            put(at.clamp(self.least, self.most), step.count_since_last_iteration());
        }
        counts
    }

    /// The share of durations within one standard deviation of the mean, as wrk prints it.
    pub fn share_within_deviation(&self) -> f64 {
        let Some(mean) = self.mean() else { return 0.0 };
        let deviation = self.deviation();
        let (low, high) = (mean.saturating_sub(deviation), mean + deviation);
        let mut within = if low.is_zero() { self.zeros } else { 0 };
        for step in self.histogram.iter_recorded() {
            let at = Duration::from_nanos(self.histogram.median_equivalent(step.value_iterated_to()));
            if (low..=high).contains(&at) {
                within += step.count_since_last_iteration();
            }
        }
        within as f64 / self.count() as f64
    }

    /// The histogram in nanoseconds, without durations of zero.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

/// All that is known after a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The run's length, up to the last answer.
    pub total: Duration,
    /// Requests sent, answered or not.
    pub requests: u64,
    /// Latencies of answered requests, from sending.
    pub latency: Distribution,
    /// Latencies of answered requests, from when they were due.
    pub latency_from_due: Distribution,
    /// [`Phases::connect`] of answered requests.
    pub connect: Distribution,
    /// [`Phases::lookup`] of answered requests.
    pub lookup: Distribution,
    /// [`Phases::write`] of answered requests.
    pub write: Distribution,
    /// [`Phases::wait`] of answered requests.
    pub wait: Distribution,
    /// [`Phases::read`] of answered requests.
    pub read: Distribution,
    /// Answers by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Failures by text; beyond a hundred texts they share `other errors`.
    pub errors: BTreeMap<String, u64>,
    /// The sum of declared body lengths.
    pub bytes: u64,
    /// Requests finished in each second of the run, for a day.
    pub per_second: Vec<u32>,
}

impl Report {
    /// Requests per second, failed ones included.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.total.as_secs_f64()
    }

    /// Failed requests.
    pub fn failed(&self) -> u64 {
        self.requests - self.latency.count()
    }

    fn add(&mut self, sample: &Sample) {
        self.requests += 1;
        let Sample { due, sent, exchange } = sample;
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
                self.latency.record(exchange.latency);
                self.latency_from_due.record(finished.saturating_sub(*due));
                let Phases { connect, lookup, write, wait, read } = exchange.phases;
                self.connect.record(connect);
                self.lookup.record(lookup);
                self.write.record(write);
                self.wait.record(wait);
                self.read.record(read);
                *self.statuses.entry(answer.status).or_insert(0) += 1;
                self.bytes += answer.content_length.unwrap_or(0);
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

    /// Adds one request.
    pub fn record(&self, sample: &Sample) {
        let mut recording = self.0.lock().expect("no holder of this lock panics");
        recording.report.add(sample);
        if let Some(observer) = &mut recording.observer {
            observer(sample);
        }
    }

    /// Sets the run's length; until then it is the end of the last answer.
    pub fn set_total(&self, total: Duration) {
        self.0.lock().expect("no holder of this lock panics").report.total = total;
    }

    /// A copy of the results so far.
    pub fn snapshot(&self) -> Report {
        self.0.lock().expect("no holder of this lock panics").report.clone()
    }

    /// The results; the recorder starts afresh.
    pub fn finish(&self) -> Report {
        std::mem::take(&mut self.0.lock().expect("no holder of this lock panics").report)
    }
}
