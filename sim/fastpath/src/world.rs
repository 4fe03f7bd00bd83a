//! The world of one rollout: requests that arrive, counters that proxies keep, samples that Prometheus takes.
//!
//! Nothing is drawn before somebody looks. Counters are known at the samples that a window begins or ends with; what
//! happened between two of them is one draw per kind of request. The rules of `rate` and `histogram_quantile` are
//! those of the `promql` crate: a series is born at its first request, needs two samples in the window, and is
//! extrapolated to the window's edges.

use crate::arrivals::Users;
use crate::counts::Counts;
use crate::draws::Draws;
use crate::law::{self, Law, Laws, ratio};
use crate::policy::{Probe, Reach};
use crate::setting::{CUTS, Edges, PHASES, Setting};

/// Series of requests: users' and the load tester's, answered and failed.
const SERIES: usize = 4;
const USERS: usize = 0;
const TESTER: usize = 2;

/// Counters of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counter {
    /// Requests.
    total: u32,
    /// Requests that took as long as a cut or longer, by cut.
    above: [u32; CUTS],
}

/// What counters showed at a sample.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// The sample's number: times of samples are `phase + number * interval`.
    number: i64,
    counters: [Counter; SERIES],
}

/// What is kept from rollout to rollout: tables and buffers.
#[derive(Default)]
pub struct Memory {
    pub(crate) counts: Counts,
    laws: Laws,
    samples: Vec<Sample>,
    marks: Vec<i64>,
}

/// A load test that runs or has run.
#[derive(Clone, Copy, Debug)]
struct Run {
    hook: usize,
    start: i64,
    end: i64,
}

/// Requests of users that are expected and not drawn yet.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    notable: f64,
    plain: f64,
    /// The greatest expected number of plain requests in an interval.
    window: f64,
    /// The law that tells failed from slow: the same for all weights.
    law: usize,
    circumstances: usize,
}

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

/// One rollout's world.
pub struct World<'a, 'm> {
    setting: &'a Setting<'a>,
    memory: &'m mut Memory,
    draws: Draws,
    users: Users<'a>,
    /// The prior's step.
    step: usize,
    /// The first sample after the release, in milliseconds.
    phase: i64,
    /// The first tick.
    pub first_tick: i64,
    /// Time up to which requests are drawn.
    cursor: i64,
    /// The number of the last sample that is known.
    last: i64,
    counters: [Counter; SERIES],
    /// The number and counters of each series' first sample.
    births: [Option<(i64, Counter)>; SERIES],
    /// Whether requests are drawn for now that no window shows.
    defers: bool,
    /// The expected number of requests of users that are left to be drawn at the end.
    deferred: f64,
    pending: Pending,
    /// Requests of a load test that are not drawn yet, their law's place, and their circumstances.
    pending_tests: (u32, usize, usize),
    /// The canary's share of the users' requests, in percent.
    share: u32,
    /// Whether users wait for the canary's answers.
    visible: bool,
    runs: Vec<Run>,
    /// When the canary became ready.
    ready: i64,
    burst: (i64, i64),
    bursts: u64,
    /// The window that was looked at last: its end, its length and what it showed.
    looked: Option<(i64, i64, [Option<Increase>; SERIES])>,
    /// Requests of users that the canary answered.
    pub user_requests: u64,
    /// Those that failed.
    pub user_errors: u64,
}

/// Questions of draws, apart from those about a stretch of time.
mod question {
    pub const PHASE: u64 = 1 << 62;
    pub const TICK: u64 = PHASE + 1;
    pub const START: u64 = PHASE + 2;
    pub const PLACE: u64 = PHASE + 3;
    pub const END: u64 = PHASE + 4;
    pub const BURST: u64 = PHASE + 0x1000;
    pub const ASSUMED: u64 = PHASE + (1 << 60);
    pub const BIRTH: u64 = PHASE + (1 << 59);
    pub const VALUE: u64 = PHASE + (1 << 58);
}

impl<'a, 'm> World<'a, 'm> {
    /// The world of rollout `index`.
    pub fn new(setting: &'a Setting<'a>, memory: &'m mut Memory, draws: Draws, index: u64) -> Self {
        let scrape = setting.scrape;
        let grid = (scrape / PHASES).max(1);
        let on_grid = |uniform: f64, length: i64| (uniform * (length / grid).max(1) as f64) as i64 * grid;
        let prometheus = &setting.model.prometheus;
        let phase = match prometheus.phase {
            Some(phase) => phase.millis() % scrape,
            None => on_grid(draws.uniform(question::PHASE), scrape),
        };
        let first_tick = match prometheus.first_tick {
            Some(tick) => tick.millis(),
            None => on_grid(draws.uniform(question::TICK), setting.policy.interval),
        };
        let users = Users::new(
            &setting.model.traffic,
            draws.uniform(question::START),
            draws.uniform(question::PLACE),
        );
        memory.samples.clear();
        let last = (-phase).div_euclid(scrape);
        memory.samples.push(Sample { number: last, ..Sample::default() });
        let mut world = World {
            step: (index % setting.error_rates.len() as u64) as usize,
            phase,
            first_tick,
            cursor: 0,
            last,
            counters: Default::default(),
            births: [None; SERIES],
            defers: false,
            deferred: 0.0,
            pending: Pending::default(),
            pending_tests: (0, 0, 0),
            share: 0,
            visible: true,
            runs: Vec::new(),
            ready: i64::MAX,
            burst: (i64::MAX, i64::MAX),
            bursts: 0,
            looked: None,
            user_requests: 0,
            user_errors: 0,
            setting,
            memory,
            draws,
            users,
        };
        world.next_burst(0);
        world
    }

    fn next_burst(&mut self, after: i64) {
        let Some(bursts) = &self.setting.model.bursts else { return };
        let gap = -bursts.every.seconds() * (1.0 - self.draws.uniform(question::BURST + self.bursts)).ln();
        self.bursts += 1;
        let start = after.saturating_add((gap * 1000.0) as i64);
        self.burst = (start, start.saturating_add(bursts.lasts.millis().max(1)));
    }

    /// Sets what the canary gets from `now` on: its share of the users' requests in percent, and whether they wait for
    /// its answers.
    pub fn route(&mut self, now: i64, share: u32, visible: bool) {
        self.advance(now);
        if visible != self.visible {
            self.flush(now);
        }
        (self.share, self.visible) = (share, visible);
    }

    /// The canary is ready from this moment on.
    pub fn ready_at(&mut self, at: i64) {
        self.ready = at;
    }

    /// A webhook with a load test is called: it starts, unless it still runs.
    pub fn call(&mut self, now: i64, hook: usize) {
        let Some((test, _)) = self.setting.load_test(hook) else { return };
        let end = now.saturating_add(test.length(self.setting.mean_latency));
        match self.runs.iter_mut().find(|run| run.hook == hook) {
            Some(run) if now < run.end => {}
            Some(run) => {
                let (start, cursor) = (now, self.cursor);
                debug_assert!(cursor <= now, "requests are drawn up to {cursor}, after {now}");
                *run = Run { hook, start, end };
            }
            None => self.runs.push(Run { hook, start: now, end }),
        }
    }

    fn sample_time(&self, number: i64) -> i64 {
        self.phase + number * self.setting.scrape
    }

    /// The number of the first sample inside a window that ends at `now`.
    #[inline]
    fn first_in(&self, now: i64, window: i64) -> i64 {
        let left = now - window - self.phase;
        if self.setting.closed_left {
            -(-left).div_euclid(self.setting.scrape)
        } else {
            left.div_euclid(self.setting.scrape) + 1
        }
    }

    /// Draws what happens until a tick, keeping the samples that this tick's windows and those of later ticks need.
    pub fn tick(&mut self, now: i64) {
        let newest = (now - self.phase).div_euclid(self.setting.scrape);
        if self.share == 0 && self.runs.is_empty() {
            // Nothing reaches the canary.
            self.cursor = self.cursor.max(now);
            self.flush(now);
            if newest > self.last {
                self.last = newest;
                self.memory.samples.push(Sample { number: newest, counters: self.counters });
            }
            return;
        }
        let interval = self.setting.policy.interval;
        let begin = self.setting.windows.last().map_or(i64::MAX, |longest| self.first_in(now, *longest));
        self.memory.marks.clear();
        for window in &self.setting.windows {
            let mut tick = now;
            loop {
                let number = self.first_in(tick, *window);
                if number > newest {
                    break;
                }
                if number > self.last {
                    self.memory.marks.push(number);
                }
                tick += interval;
            }
        }
        if newest > self.last {
            self.memory.marks.push(newest);
        }
        self.memory.marks.sort_unstable();
        self.memory.marks.dedup();
        for index in 0..self.memory.marks.len() {
            let number = self.memory.marks[index];
            // What comes before the first sample of the longest window is in none.
            self.defers = self.setting.defers && number <= begin;
            self.advance(self.sample_time(number));
            self.flush(self.sample_time(number));
            self.memory.samples.push(Sample { number, counters: self.counters });
            self.last = number;
        }
        self.defers = self.setting.defers;
        self.advance(now);
        self.forget(now);
    }

    /// Draws what is left until the end.
    pub fn finish(&mut self, now: i64) {
        self.defers = self.setting.defers;
        self.advance(now);
        self.flush(now);
        self.user_requests +=
            u64::from(self.memory.counts.poisson(self.deferred, self.draws.uniform(question::END)));
    }

    /// Drops samples that no window can reach any more.
    fn forget(&mut self, now: i64) {
        let Some(longest) = self.setting.windows.last() else { return };
        if self.memory.samples.len() < 64 {
            return;
        }
        let oldest = self.first_in(now, *longest);
        let keep = self.memory.samples.iter().rposition(|sample| sample.number < oldest).unwrap_or(0);
        self.memory.samples.drain(..keep);
    }

    /// Draws what happens until a moment.
    pub fn advance(&mut self, until: i64) {
        while self.cursor < until {
            let (from, mut to) = (self.cursor, until);
            let mut change = |at: i64| {
                if at > from && at < to {
                    to = at;
                }
            };
            let mut circumstances = 0;
            if let Some(cold) = &self.setting.model.cold_start
                && self.ready != i64::MAX
            {
                let end = self.ready.saturating_add(cold.lasts.millis());
                change(end);
                circumstances |= law::COLD * usize::from(from < end);
            }
            if self.setting.model.bursts.is_some() {
                while self.burst.1 <= from {
                    self.next_burst(self.burst.1);
                }
                change(self.burst.0);
                change(self.burst.1);
                circumstances |= law::BURST * usize::from(from >= self.burst.0);
            }
            if self.setting.model.capacity.is_some() {
                self.runs.iter().for_each(|run| change(run.end));
                circumstances |= law::TESTED * usize::from(self.runs.iter().any(|run| from < run.end));
            }
            self.stretch(from, to, circumstances);
            self.cursor = to;
        }
    }

    /// Draws a stretch of time in which nothing changes.
    fn stretch(&mut self, from: i64, to: i64, circumstances: usize) {
        let question = (to as u64) << 8;
        if self.share > 0 {
            let law = self.law(self.share, circumstances, from);
            if self.users.are_spaced() {
                let trials = self.users.spaced(from, to);
                let before = self.seen_by_users();
                self.split(USERS, trials, law, question);
                self.expose(before);
            } else {
                let mean = self.users.expected(from, to);
                let Law { notable, plain, .. } = *self.memory.laws.at(law);
                if circumstances != self.pending.circumstances {
                    self.flush(from);
                }
                self.pending.circumstances = circumstances;
                self.pending.law = law;
                self.pending.notable += mean * notable;
                self.pending.plain += mean * plain;
                // Between windows only the sum matters, once the counter is so high that no window is cut at its zero.
                let window = mean * plain * self.setting.policy.interval as f64 / (to - from) as f64;
                self.pending.window = self.pending.window.max(window);
            }
        }
        for index in 0..self.runs.len() {
            let run = self.runs[index];
            if from >= run.end {
                continue;
            }
            let Some((test, reach)) = self.setting.load_test(run.hook) else { continue };
            let share = match reach {
                Reach::Canary => 100,
                Reach::Split => self.share,
                Reach::Primary | Reach::Nobody => 0,
            };
            let period = self.setting.periods[run.hook];
            let trials = test.sent(to - run.start, period) - test.sent(from - run.start, period);
            if *reach == Reach::Canary && self.setting.model.capacity.is_none() && self.runs.len() == 1 {
                // Weights change nothing for these: what comes between two samples is one draw.
                if circumstances != self.pending_tests.2 {
                    self.flush_tests(from);
                    self.pending_tests = (0, self.law(share, circumstances, from), circumstances);
                } else if self.pending_tests.0 == 0 {
                    self.pending_tests.1 = self.law(share, circumstances, from);
                }
                self.pending_tests.0 += trials;
            } else if share > 0 && trials > 0 {
                let law = self.law(share, circumstances, from);
                self.split(TESTER, trials, law, question + 64 + (index as u64 & 1) * 64);
            }
        }
    }

    /// Draws requests whose number is known.
    #[inline]
    fn split(&mut self, source: usize, trials: u32, law: usize, question: u64) {
        let draws = self.draws;
        let Law { notable, rest, .. } = *self.memory.laws.at(law);
        let counts = &mut self.memory.counts;
        let notable = counts.binomial(trials, notable, draws.uniform(question));
        let plain = if rest == 1.0 {
            trials - notable
        } else {
            counts.binomial(trials - notable, rest, draws.uniform(question + 1))
        };
        self.counters[source].total += plain;
        if notable > 0 {
            self.note(source, notable, law, question);
        }
    }

    /// Draws what the load test sent until now.
    fn flush_tests(&mut self, now: i64) {
        let (trials, law, _) = self.pending_tests;
        if trials > 0 {
            self.pending_tests.0 = 0;
            self.split(TESTER, trials, law, ((now as u64) << 8) + 64);
        }
    }

    /// Draws the users' requests that are expected until now, if they arrive independently: whatever the weights
    /// were, their sum is one draw.
    fn flush(&mut self, now: i64) {
        self.flush_tests(now);
        let Pending { notable, plain, window, law, .. } = self.pending;
        self.pending = Pending::default();
        if notable + plain <= 0.0 {
            return;
        }
        let question = (now as u64) << 8;
        let before = self.seen_by_users();
        let shown = f64::from(self.counters[USERS].total);
        if self.defers && shown > self.setting.cut_ratio * (2.0 * window + 40.0) {
            self.deferred += if self.visible { plain } else { 0.0 };
        } else {
            self.counters[USERS].total += self.memory.counts.poisson(plain, self.draws.uniform(question + 1));
        }
        let notable = self.memory.counts.poisson(notable, self.draws.uniform(question));
        if notable > 0 {
            self.note(USERS, notable, law, question);
        }
        self.expose(before);
    }

    /// What has reached users' series: requests, failures, answers after the client's timeout.
    #[inline]
    fn seen_by_users(&self) -> [u32; 3] {
        let (answered, failed) = (&self.counters[USERS], self.counters[USERS + 1].total);
        [answered.total, failed, self.setting.timeout.map_or(0, |cut| answered.above[cut])]
    }

    /// Counts what users met since then.
    #[inline]
    fn expose(&mut self, before: [u32; 3]) {
        if self.visible {
            let now = self.seen_by_users();
            let [answered, failed, late] = [0, 1, 2].map(|kind| u64::from(now[kind] - before[kind]));
            self.user_requests += answered + failed;
            self.user_errors += failed + late;
        }
    }

    /// Tells failed requests from slow ones.
    fn note(&mut self, source: usize, notable: u32, law: usize, question: u64) {
        let law = *self.memory.laws.at(law);
        let failed = self.memory.counts.binomial(notable, law.error, self.draws.uniform(question + 2));
        let mut left = notable - failed;
        self.counters[source].total += left;
        let mut slow = 0;
        for cut in 0..self.setting.cuts.len() {
            if left > 0 {
                let uniform = self.draws.uniform(question + 3 + cut as u64);
                let more = self.memory.counts.binomial(left, law.slow[cut], uniform);
                left -= more;
                slow += more;
            }
            self.counters[source].above[cut] += slow;
        }
        if failed > 0 {
            self.fail(source, failed, &law, question);
        }
    }

    fn fail(&mut self, source: usize, failed: u32, law: &Law, question: u64) {
        let counter = &mut self.counters[source + 1];
        counter.total += failed;
        let (mut left, mut slow) = (failed, 0);
        for cut in 0..self.setting.cuts.len() {
            if left > 0 && law.error_slow[cut] > 0.0 {
                let uniform = self.draws.uniform(question + 20 + cut as u64);
                let more = self.memory.counts.binomial(left, law.error_slow[cut], uniform);
                left -= more;
                slow += more;
            }
            counter.above[cut] += slow;
        }
    }

    /// The place of the law of requests of which the canary gets `share` percent.
    #[inline]
    fn law(&mut self, share: u32, circumstances: usize, at: i64) -> usize {
        let has_capacity = self.setting.model.capacity.is_some();
        if has_capacity && !Users::is_steady(&self.setting.model.traffic) {
            // The load never repeats.
            let law = Law::new(self.setting, self.step, share, circumstances, self.load(at));
            return self.memory.laws.pass(law);
        }
        // The share of users matters to the load, the share of this source to the split.
        let users = if has_capacity { self.share } else { 0 };
        let slot = Laws::slot(self.step, users, share, circumstances);
        if let Some(place) = self.memory.laws.find(slot) {
            return place;
        }
        let law = Law::new(self.setting, self.step, share, circumstances, self.load(at));
        self.memory.laws.keep(slot, law)
    }

    /// The canary's load against its capacity, 0 without one.
    fn load(&self, at: i64) -> f64 {
        let setting = self.setting;
        let Some(capacity) = setting.model.capacity else { return 0.0 };
        let running = self.runs.iter().filter(|run| at < run.end);
        let tests = running.filter_map(|run| setting.load_test(run.hook)).map(|(test, reach)| {
            let rate = test.rate(setting.mean_latency);
            match reach {
                Reach::Canary => rate,
                Reach::Split => rate * f64::from(self.share) / 100.0,
                Reach::Primary | Reach::Nobody => 0.0,
            }
        });
        (self.users.rate(at) * f64::from(self.share) / 100.0 + tests.sum::<f64>()) / capacity
    }

    /// What a check reads now.
    pub fn read(&mut self, now: i64, check: usize) -> Reading {
        let setting = self.setting;
        let asked = &setting.policy.checks[check];
        match &asked.probe {
            Probe::Broken(_) => Reading::Broken,
            Probe::Assumed(share) => {
                let question = question::ASSUMED + ((now as u64) << 8) + check as u64;
                let passes = self.draws.uniform(question) < *share;
                if passes { Reading::Passes } else { missed(asked.min, asked.max) }
            }
            Probe::SuccessRate | Probe::ErrorRate => {
                let wants_success = asked.probe == Probe::SuccessRate;
                let window = self.window(now, asked.window);
                let (mut part, mut all, mut part_exists, mut exists) = (0.0, 0.0, false, false);
                for (index, series) in window.iter().enumerate() {
                    let Some(series) = series else { continue };
                    let fails = index % 2 == 1 && setting.errors_show;
                    all += series.increase;
                    exists = true;
                    if fails != wants_success {
                        part += series.increase;
                        part_exists = true;
                    }
                }
                if !part_exists || !exists {
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
                let window = self.window(now, asked.window);
                if window.iter().all(Option::is_none) {
                    return Reading::Empty;
                }
                let all: f64 = window.iter().flatten().map(|series| series.increase).sum();
                if all == 0.0 {
                    return Reading::NotANumber;
                }
                let Some(edges) = &setting.edges[check] else { return Reading::Passes };
                let rank = q * all;
                let above = |cut: Option<usize>| -> f64 {
                    let above = window.iter().flatten();
                    above.map(|series| cut.map_or(0.0, |cut| series.above[cut] as f64 * series.factor)).sum()
                };
                let up_to_low = if edges.low.is_some() { all - above(edges.low) } else { 0.0 };
                let up_to_high = if edges.high.is_some() { all - above(edges.high) } else { all };
                let is_above = if up_to_low >= rank && edges.low.is_some() {
                    false
                } else if edges.high.is_none() {
                    edges.from > edges.limit || (edges.includes && edges.from >= edges.limit)
                } else if up_to_high < rank {
                    true
                } else {
                    let value =
                        edges.from + (edges.to - edges.from) * (rank - up_to_low) / (up_to_high - up_to_low);
                    value > edges.limit || (edges.includes && value >= edges.limit)
                };
                match (asked.max, asked.min) {
                    (Some(_), _) if is_above => {
                        Reading::High(self.quantile(now, check, rank, &window, edges) * factor)
                    }
                    (None, Some(_)) if !is_above => Reading::Low(0.0),
                    _ => Reading::Passes,
                }
            }
        }
    }

    /// A quantile's value that is known to lie above a check's bound, for messages: the buckets above the bound are
    /// drawn only now.
    fn quantile(
        &mut self,
        now: i64,
        check: usize,
        rank: f64,
        window: &[Option<Increase>; SERIES],
        edges: &Edges,
    ) -> f64 {
        let all: f64 = window.iter().flatten().map(|series| series.increase).sum();
        let above = |cut: Option<usize>| -> f64 {
            let series = window.iter().flatten();
            series
                .map(|series| cut.map_or(series.increase, |cut| f64::from(series.above[cut]) * series.factor))
                .sum()
        };
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

    /// How much each series grew in a window that ends now; `None` for series with fewer than two samples in it.
    #[inline]
    fn window(&mut self, now: i64, length: i64) -> [Option<Increase>; SERIES] {
        if let Some((end, known, found)) = &self.looked
            && (*end, *known) == (now, length)
        {
            return *found;
        }
        let found = self.look(now, length);
        self.looked = Some((now, length, found));
        found
    }

    fn look(&mut self, now: i64, length: i64) -> [Option<Increase>; SERIES] {
        let first = self.first_in(now, length);
        let newest = self.last;
        let mut found = [None; SERIES];
        if newest <= first {
            return found;
        }
        let position = self.memory.samples.iter().rposition(|sample| sample.number <= first);
        let begin = position.map_or(Sample::default(), |position| self.memory.samples[position]);
        let end = self.memory.samples[self.memory.samples.len() - 1];
        for (index, found) in found.iter_mut().enumerate() {
            let last = end.counters[index];
            if last.total == 0 {
                continue;
            }
            let (mut number, mut before) = (first, begin.counters[index]);
            if before.total == 0 {
                (number, before) = self.birth(index);
            }
            if number >= newest {
                continue;
            }
            *found = Some(self.increase(now, length, number, before, newest, last));
        }
        found
    }

    /// The increase of a series between two samples, extrapolated to a window's edges.
    #[inline]
    fn increase(
        &self,
        now: i64,
        length: i64,
        first: i64,
        before: Counter,
        newest: i64,
        last: Counter,
    ) -> Increase {
        let difference = last.total - before.total;
        let factor = factor(
            self.setting.scrape as f64,
            ((newest - first) * self.setting.scrape) as f64,
            (self.sample_time(first) - (now - length)) as f64,
            (now - self.sample_time(newest)) as f64,
            f64::from(before.total),
            f64::from(difference),
        );
        let mut above = [0; CUTS];
        for (cut, _) in self.setting.cuts.iter().enumerate() {
            above[cut] = last.above[cut] - before.above[cut];
        }
        Increase { increase: f64::from(difference) * factor, factor, above }
    }

    /// The first sample that shows a series. Between two known samples it is drawn which one it was.
    fn birth(&mut self, series: usize) -> (i64, Counter) {
        if let Some(birth) = self.births[series] {
            return birth;
        }
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
        let mut trials: u32 = ((begin + 1)..=end.number).map(|number| self.trials(source, number)).sum();
        for number in (begin + 1)..end.number {
            let uniform = self.draws.uniform(question::BIRTH + ((number as u64) << 8) + series as u64);
            let here = self.trials(source, number);
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
    fn trials(&self, source: usize, number: i64) -> u32 {
        let (from, to) = (self.sample_time(number - 1), self.sample_time(number));
        if source == USERS {
            return if self.users.are_spaced() { self.users.spaced(from, to) } else { 0 };
        }
        let sent = self.runs.iter().filter_map(|run| {
            let (test, _) = self.setting.load_test(run.hook)?;
            let period = self.setting.periods[run.hook];
            Some(test.sent(to - run.start, period) - test.sent(from - run.start, period))
        });
        sent.sum()
    }
}

/// How much a series grew.
#[derive(Clone, Copy, Debug)]
struct Increase {
    increase: f64,
    factor: f64,
    above: [u32; CUTS],
}

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
