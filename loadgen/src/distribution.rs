//! Distributions of durations in bounded memory.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Count, extremes and sum of durations, all exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    count: u64,
    least: Duration,
    most: Duration,
    sum: Duration,
}

impl Default for Spread {
    fn default() -> Self {
        Spread { count: 0, least: Duration::MAX, most: Duration::ZERO, sum: Duration::ZERO }
    }
}

impl Spread {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.count += 1;
        self.least = self.least.min(duration);
        self.most = self.most.max(duration);
        self.sum += duration;
    }

    /// Adds all of another spread.
    pub fn merge(&mut self, other: &Spread) {
        self.count += other.count;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        self.sum += other.sum;
    }

    /// How many durations were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The shortest; zero when empty.
    pub fn least(&self) -> Duration {
        if self.count == 0 { Duration::ZERO } else { self.least }
    }

    /// The longest; zero when empty.
    pub fn most(&self) -> Duration {
        self.most
    }

    /// The sum.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The arithmetic mean, `None` when empty.
    pub fn mean(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_secs_f64(self.sum.as_secs_f64() / self.count as f64))
    }
}

/// A distribution of durations: histogram to three significant digits, with exact extremes and sum.
#[derive(Clone, Debug)]
pub struct Distribution {
    histogram: Histogram<u64>,
    spread: Spread,
}

impl Default for Distribution {
    fn default() -> Self {
        let histogram = Histogram::new(3).expect("three significant digits are valid");
        Distribution { histogram, spread: Spread::default() }
    }
}

impl Distribution {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.spread.record(duration);
        if !duration.is_zero() {
            let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            self.histogram.record(nanos).expect("the histogram resizes itself");
        }
    }

    /// Adds all of another distribution.
    pub fn merge(&mut self, other: &Distribution) {
        self.histogram.add(&other.histogram).expect("the histogram resizes itself");
        self.spread.merge(&other.spread);
    }

    /// The distribution of a histogram in nanoseconds; extremes and sum are as exact as its buckets.
    pub fn of_histogram(nanos: &Histogram<u64>) -> Self {
        let mut distribution = Distribution::default();
        for step in nanos.iter_recorded() {
            let value = nanos.median_equivalent(step.value_iterated_to());
            let count = step.count_since_last_iteration();
            let at = Duration::from_nanos(value);
            let spread = &mut distribution.spread;
            spread.count += count;
            spread.least = spread.least.min(at);
            spread.most = spread.most.max(at);
            spread.sum += Duration::from_secs_f64(at.as_secs_f64() * count as f64);
            if value > 0 {
                distribution.histogram.record_n(value, count).expect("the histogram resizes itself");
            }
        }
        distribution
    }

    /// Count, extremes and sum.
    pub fn spread(&self) -> &Spread {
        &self.spread
    }

    /// Durations of zero: no bucket of the histogram holds them.
    fn zeros(&self) -> u64 {
        self.spread.count - self.histogram.len()
    }

    /// How many durations were added.
    pub fn count(&self) -> u64 {
        self.spread.count
    }

    /// The shortest, exact; zero when empty.
    pub fn least(&self) -> Duration {
        self.spread.least()
    }

    /// The longest, exact.
    pub fn most(&self) -> Duration {
        self.spread.most
    }

    /// The arithmetic mean, `None` when empty.
    pub fn mean(&self) -> Option<Duration> {
        self.spread.mean()
    }

    /// The standard deviation, zero when empty.
    pub fn deviation(&self) -> Duration {
        let (count, Some(mean)) = (self.count(), self.mean()) else { return Duration::ZERO };
        let mean = mean.as_secs_f64();
        let mut squares = self.zeros() as f64 * mean * mean;
        for step in self.histogram.iter_recorded() {
            let off = self.histogram.median_equivalent(step.value_iterated_to()) as f64 / 1e9 - mean;
            squares += step.count_since_last_iteration() as f64 * off * off;
        }
        Duration::from_secs_f64((squares / count as f64).sqrt())
    }

    /// The duration below or at which `quantile` (0 to 1) of all lie; zero when empty.
    pub fn quantile(&self, quantile: f64) -> Duration {
        self.quantiles([quantile])[0]
    }

    /// The durations of quantiles that ascend, as [`quantile`](Distribution::quantile) gives them: all in one go.
    pub fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> [Duration; N] {
        let count = self.count() as f64;
        self.at_ranks(quantiles.map(|quantile| ((quantile * count).ceil() as u64).saturating_sub(1)))
    }

    /// The duration at a rank, counted from 0, in ascending order; zero when empty.
    pub fn at_rank(&self, rank: u64) -> Duration {
        self.at_ranks([rank])[0]
    }

    /// The durations at ranks that ascend, as [`at_rank`](Distribution::at_rank) gives them: all in one go.
    pub fn at_ranks<const N: usize>(&self, ranks: [u64; N]) -> [Duration; N] {
        let (count, mut seen) = (self.count(), self.zeros());
        let mut steps = self.histogram.iter_recorded();
        let mut at = None;
        ranks.map(|rank| {
            if count == 0 || rank < self.zeros() {
                return Duration::ZERO;
            }
            if rank + 1 >= count {
                return self.most();
            }
            if rank == 0 {
                return self.least();
            }
            while seen <= rank {
                let Some(step) = steps.next() else { return self.most() };
                seen += step.count_since_last_iteration();
                at = Some(step.value_iterated_to());
            }
            let nanos = at.map_or(0, |value| self.histogram.median_equivalent(value));
            Duration::from_nanos(nanos).clamp(self.least(), self.most())
        })
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
        if self.zeros() > 0 {
            put(Duration::ZERO, self.zeros());
        }
        let least = u64::try_from(self.least().as_nanos()).unwrap_or(u64::MAX);
        for step in self.histogram.iter_recorded() {
            let value = step.value_iterated_to();
            // What cannot be told apart from the exact least counts as the least.
            let is_least = self.histogram.equivalent(value, least);
            let at = if is_least {
                self.least()
            } else {
                Duration::from_nanos(self.histogram.median_equivalent(value))
            };
            put(at.clamp(self.least(), self.most()), step.count_since_last_iteration());
        }
        counts
    }

    /// The share of durations within one standard deviation of the mean, as wrk prints it.
    pub fn share_within_deviation(&self) -> f64 {
        let Some(mean) = self.mean() else { return 0.0 };
        let deviation = self.deviation();
        let (low, high) = (mean.saturating_sub(deviation), mean + deviation);
        let mut within = if low.is_zero() { self.zeros() } else { 0 };
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
