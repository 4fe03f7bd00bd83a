//! What checks read of a world: the rules of `rate` and `histogram_quantile`.
//!
//! They are those of the `promql` crate: a series is born at its first request, needs two samples in the window, and is
//! extrapolated to the window's edges.

use crate::law::ratio;
use crate::policy::Probe;
use crate::setting::{CUTS, Edges};
use crate::world::{Counter, SERIES, Sample, TESTER, USERS, World, question};

/// A check's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// It passes; the value is not known more closely.
    Passes,
    /// Below the least value that passes.
    Low(f64),
    /// Above the greatest.
    High(f64),
    /// No series.
    Empty,
    /// No increase in any series.
    NotANumber,
    /// The server refuses the query.
    Broken,
}

impl World<'_, '_> {
    /// What a check reads now.
    pub fn read(&mut self, now: i64, check: usize) -> Reading {
        let setting = self.setting;
        let asked = &setting.policy.checks[check];
        if let Some(slack) = setting.slack[check]
            && self.surely_passes(now, asked.window, slack)
        {
            return Reading::Passes;
        }
        match &asked.probe {
            Probe::Broken(_) => Reading::Broken,
            Probe::Assumed(share) => {
                let question = question::ASSUMED + ((now as u64) << 8) + check as u64;
                let passes = self.draws.uniform(question) < *share;
                if passes { Reading::Passes } else { missed(asked.min, asked.max) }
            }
            Probe::SuccessRate | Probe::ErrorRate => {
                self.look(now, asked.window);
                let Window { exists, increase, .. } = &self.looked;
                let wants_success = asked.probe == Probe::SuccessRate;
                // Series that do not exist have grown by nothing.
                let [answered, failed] = [0, 1].map(|kind| increase[kind] + increase[kind + 2]);
                let [answers, failures] = [0, 1].map(|kind| exists[kind] || exists[kind + 2]);
                let (part, part_exists) = match (wants_success, setting.errors_show) {
                    (true, true) => (answered, answers),
                    (true, false) => (answered + failed, answers || failures),
                    (false, true) => (failed, failures),
                    (false, false) => (0.0, false),
                };
                let all = answered + failed;
                if !part_exists {
                    return Reading::Empty;
                }
                if all == 0.0 {
                    return Reading::NotANumber;
                }
                let value = part / all * 100.0;
                match (asked.min, asked.max) {
                    (Some(min), _) if value < min => Reading::Low(value),
                    (_, Some(max)) if value > max => Reading::High(value),
                    _ => Reading::Passes,
                }
            }
            Probe::Quantile { q, telemetry, factor, .. } => {
                if *telemetry != setting.telemetry {
                    return Reading::Empty;
                }
                self.look(now, asked.window);
                let window = &self.looked;
                if window.exists == [false; SERIES] {
                    return Reading::Empty;
                }
                let all: f64 = window.increase.iter().sum();
                if all == 0.0 {
                    return Reading::NotANumber;
                }
                let Some(edges) = &setting.edges[check] else { return Reading::Passes };
                let rank = q * all;
                let up_to_low = edges.low.map_or(0.0, |low| all - window.above(low));
                let is_beyond = |value: f64| value > edges.limit || (edges.includes && value >= edges.limit);
                let is_above = if up_to_low >= rank && edges.low.is_some() {
                    false
                } else if let Some(high) = edges.high {
                    let up_to_high = all - window.above(high);
                    let part = (rank - up_to_low) / (up_to_high - up_to_low);
                    up_to_high < rank || is_beyond(edges.from + (edges.to - edges.from) * part)
                } else {
                    is_beyond(edges.from)
                };
                match (asked.max, asked.min) {
                    (Some(_), _) if is_above => {
                        Reading::High(self.quantile(now, check, rank, edges) * factor)
                    }
                    (None, Some(_)) if !is_above => Reading::Low(0.0),
                    _ => Reading::Passes,
                }
            }
        }
    }

    /// Whether a window has so few failed and slow requests that a check passes, whatever the samples between its first
    /// and its last show: most windows of a good version. The share of failed and slow requests that passes is known.
    fn surely_passes(&mut self, now: i64, length: i64, slack: f64) -> bool {
        self.tick(now);
        let samples = &self.memory.samples;
        let [.., begin, end] = samples.as_slice() else { return false };
        if self.setting.windows.last() != Some(&length) || begin.number != self.begin {
            return false;
        }
        let (mut plain, mut notable) = (0, 0);
        let least = self.setting.cuts.len().checked_sub(1);
        for source in [USERS, TESTER] {
            let [(first, last), (first_failed, last_failed)] =
                [source, source + 1].map(|series| (&begin.counters[series], &end.counters[series]));
            let slow = least.map_or(0, |least| last.above[least] - first.above[least]);
            notable += slow + last_failed.total - first_failed.total;
            // A series that is older than the window grows by no less than its samples show.
            if first.total > 0 {
                plain += last.total - first.total - slow;
            }
        }
        plain > 0 && f64::from(notable) * FACTOR_MOST <= slack * (1.0 - 1e-9) * f64::from(plain)
    }

    /// A quantile's value that is known to lie above a check's bound, for messages: the buckets above the bound are
    /// drawn only now.
    fn quantile(&mut self, now: i64, check: usize, rank: f64, edges: &Edges) -> f64 {
        let window = &self.looked;
        let all: f64 = window.increase.iter().sum();
        let above = |cut: Option<usize>| cut.map_or(all, |cut| window.above(cut));
        let mut below = all - above(edges.low);
        let mut from = edges.from;
        if edges.high.is_some() {
            let up_to = all - above(edges.high);
            if up_to >= rank {
                return from + (edges.to - from) * (rank - below) / (up_to - below);
            }
            (below, from) = (up_to, edges.to);
        }
        let mut left = above(edges.high.or(edges.low));
        let setting = self.setting;
        let survival = |bound: f64| setting.latency.above(setting.telemetry.beyond(bound), setting.slowdown);
        let bounds = setting.telemetry.bounds();
        let beyond = from;
        for (index, bound) in bounds.iter().enumerate().filter(|(_, bound)| **bound > beyond) {
            let question = question::VALUE + ((now as u64) << 16) + ((check as u64) << 8) + index as u64;
            let stays = ratio(survival(*bound), survival(from));
            let uniform = self.draws.uniform(question);
            let more = f64::from(self.memory.counts.binomial(left.round() as u32, stays, uniform)).min(left);
            let within = left - more;
            if below + within >= rank {
                return from + (bound - from) * (rank - below) / within;
            }
            (below, left, from) = (below + within, more, *bound);
        }
        bounds.last().copied().unwrap_or(0.0)
    }

    /// Finds out how much each series grew in a window that ends now.
    #[inline]
    fn look(&mut self, now: i64, length: i64) {
        if (self.looked.end, self.looked.length) != (now, length) {
            self.tick(now);
            self.find_increases(now, length);
        }
    }

    fn find_increases(&mut self, now: i64, length: i64) {
        (self.looked.end, self.looked.length) = (now, length);
        self.looked.exists = [false; SERIES];
        self.looked.increase = [0.0; SERIES];
        let setting = self.setting;
        let is_longest = setting.windows.last() == Some(&length);
        let first = if is_longest { self.begin } else { self.first_in(now, length) };
        let newest = self.last;
        if newest <= first {
            return;
        }
        // Before the first sample that is kept nothing had reached the canary.
        let begin = self.memory.samples.iter().rposition(|sample| sample.number <= first);
        let end = self.memory.samples.len() - 1;
        let scrape = setting.scrape as f64;
        let to_end = (now - self.sample_time(newest)) as f64;
        // All series that are older than the window share these.
        let sampled = ((newest - first) * setting.scrape) as f64;
        let to_start = (self.sample_time(first) - (now - length)) as f64;
        let uncut = factor(scrape, sampled, to_start, to_end, 1.0, 0.0);
        for series in 0..SERIES {
            let last = self.memory.samples[end].counters[series];
            if last.total == 0 {
                continue;
            }
            let before =
                begin.map_or(Counter::default(), |begin| self.memory.samples[begin].counters[series]);
            let (before, number) = if before.total > 0 {
                (before, first)
            } else {
                let (number, born) = self.birth(series);
                if number >= newest {
                    continue;
                }
                (born, number)
            };
            let (shown, growth) = (f64::from(before.total), f64::from(last.total - before.total));
            let by = if number == first && sampled * shown >= to_start * growth {
                uncut
            } else {
                let sampled = ((newest - number) * setting.scrape) as f64;
                let to_start = (self.sample_time(number) - (now - length)) as f64;
                factor(scrape, sampled, to_start, to_end, shown, growth)
            };
            let looked = &mut self.looked;
            looked.exists[series] = true;
            looked.factor[series] = by;
            looked.increase[series] = growth * by;
            looked.above[series] = std::array::from_fn(|cut| last.above[cut] - before.above[cut]);
        }
    }

    /// The first sample that shows a series. Between two known samples it is drawn which one it was.
    #[inline]
    fn birth(&mut self, series: usize) -> (i64, Counter) {
        if let Some(birth) = self.births[series] {
            return birth;
        }
        self.bear(series)
    }

    #[cold]
    fn bear(&mut self, series: usize) -> (i64, Counter) {
        let samples = &self.memory.samples;
        let after =
            samples.iter().position(|sample| sample.counters[series].total > 0).unwrap_or(samples.len() - 1);
        let end = samples[after];
        let begin = after.checked_sub(1).map_or(end.number - 1, |before| samples[before].number);
        let born = self.resolve(series, begin, end);
        self.births[series] = Some(born);
        born
    }

    /// Spreads a series' first requests over the samples between which they came.
    fn resolve(&mut self, series: usize, begin: i64, end: Sample) -> (i64, Counter) {
        let all = end.counters[series];
        let source = series / 2 * 2;
        let mut left = all.total;
        let mut trials = self.trials(source, begin, end.number);
        for number in (begin + 1)..end.number {
            let uniform = self.draws.uniform(question::BIRTH + ((number as u64) << 8) + series as u64);
            let here = self.trials(source, number - 1, number);
            let share = if source == USERS && !self.users.are_spaced() {
                // Independent arrivals fall anywhere.
                let probability = 1.0 / (end.number - number + 1) as f64;
                self.memory.counts.binomial(left, probability, uniform)
            } else {
                self.memory.counts.hypergeometric(trials.max(left), here, left, uniform)
            };
            trials = trials.saturating_sub(here);
            if share > 0 {
                let mut counter = Counter { total: share, ..Counter::default() };
                let mut least = 0;
                for cut in 0..self.setting.cuts.len() {
                    let uniform =
                        self.draws.uniform(question::BIRTH + ((number as u64) << 8) + 16 + cut as u64);
                    let slow = self.memory.counts.hypergeometric(all.total, share, all.above[cut], uniform);
                    least = slow.max(least).min(share);
                    counter.above[cut] = least.min(all.above[cut]);
                }
                return (number, counter);
            }
            left -= share;
        }
        (end.number, all)
    }

    /// Requests of a source between two samples, if that is known.
    fn trials(&self, source: usize, begin: i64, end: i64) -> u32 {
        let (from, to) = (self.sample_time(begin), self.sample_time(end));
        if source == USERS {
            return if self.users.are_spaced() { self.users.spaced(from, to) } else { 0 };
        }
        let sent = self.memory.runs.iter().filter_map(|run| {
            let pace = self.setting.paces[run.hook]?;
            Some(pace.sent(to - run.start) - pace.sent(from - run.start))
        });
        sent.sum()
    }
}

/// How much each series grew in a window; a series with fewer than two samples in it does not exist there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    end: i64,
    length: i64,
    exists: [bool; SERIES],
    /// The growth, extrapolated to the window's edges.
    increase: [f64; SERIES],
    /// By what it was extrapolated.
    factor: [f64; SERIES],
    above: [[u32; CUTS]; SERIES],
}

impl Window {
    /// How much the requests grew that took as long as a cut, or longer.
    #[inline]
    fn above(&self, cut: usize) -> f64 {
        let series = |series: usize| {
            if self.exists[series] { f64::from(self.above[series][cut]) * self.factor[series] } else { 0.0 }
        };
        series(0) + series(1) + series(2) + series(3)
    }
}

/// No [`factor`] is greater: two samples, and a little more than the time between them on either side.
const FACTOR_MOST: f64 = 3.2;

/// By what a series' growth is extrapolated from its samples to a window's edges, as `promql::extrapolate` does it:
/// the time between two samples, from the first to the last, from the window's edges to them, the counter at first,
/// its growth.
pub(crate) fn factor(scrape: f64, sampled: f64, to_start: f64, to_end: f64, first: f64, growth: f64) -> f64 {
    let near = |gap: f64| if gap >= scrape * 1.1 { scrape / 2.0 } else { gap };
    let mut to_start = near(to_start);
    if growth > 0.0 {
        to_start = to_start.min(sampled * first / growth);
    }
    (sampled + to_start + near(to_end)) / sampled
}

/// A value that a check misses by as little as can be told.
fn missed(min: Option<f64>, max: Option<f64>) -> Reading {
    match (min, max) {
        (_, Some(max)) => Reading::High(max + 1.0),
        (Some(min), None) => Reading::Low(min - 1.0),
        (None, None) => Reading::Passes,
    }
}
