//! The world of one rollout: requests that arrive, counters that proxies keep, samples that Prometheus takes.
//!
//! Nothing is drawn before somebody looks. Counters are known at the samples that a window begins or ends with; what
//! happened between two of them is one draw per kind of request. What checks read of them is in [`crate::reading`].

use crate::arrivals::Users;
use crate::counts::Counts;
use crate::draws::Draws;
use crate::law::{self, Law, Laws};
use crate::policy::Reach;
use crate::reading::Window;
use crate::setting::{CUTS, PHASES, Setting};

/// Series of requests: users' and the load tester's, answered and failed.
pub(crate) const SERIES: usize = 4;
pub(crate) const USERS: usize = 0;
pub(crate) const TESTER: usize = 2;

/// Counters of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counter {
    /// Requests.
    pub total: u32,
    /// Requests that took as long as a cut or longer, by cut.
    pub above: [u32; CUTS],
}

/// What counters showed at a sample.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// The sample's number: times of samples are `phase + number * interval`.
    pub number: i64,
    pub counters: [Counter; SERIES],
}

/// What is kept from rollout to rollout: tables and buffers.
#[derive(Default)]
pub struct Memory {
    pub(crate) counts: Counts,
    laws: Laws,
    pub(crate) samples: Vec<Sample>,
    marks: Vec<i64>,
    pub(crate) runs: Vec<Run>,
}

/// A load test that runs or has run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub hook: usize,
    pub start: i64,
    end: i64,
    /// Requests that it sent up to the moment that is drawn.
    sent: u32,
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

/// Requests of a load test past the weights that are not drawn yet.
#[derive(Clone, Copy, Debug, Default)]
struct PendingTests {
    trials: u32,
    /// Their law; `None` before the first.
    law: Option<usize>,
    circumstances: usize,
}

/// What the canary gets of the users' requests while nothing changes.
#[derive(Clone, Copy, Debug)]
struct Flow {
    share: u32,
    circumstances: usize,
    /// Expected requests per millisecond, of both kinds.
    notable: f64,
    plain: f64,
    /// Expected plain requests in an interval.
    window: f64,
}

/// One rollout's world.
pub struct World<'a, 'm> {
    pub(crate) setting: &'a Setting<'a>,
    pub(crate) memory: &'m mut Memory,
    pub(crate) draws: Draws,
    pub(crate) users: Users<'a>,
    /// The prior's step.
    step: usize,
    /// The first sample after the release, in milliseconds.
    pub(crate) phase: i64,
    /// The first tick.
    pub first_tick: i64,
    /// Time up to which requests are drawn or expected.
    cursor: i64,
    /// The number of the last sample that is known.
    pub(crate) last: i64,
    /// The tick whose samples are known.
    pub(crate) ticked: i64,
    /// The number of the first sample in that tick's longest window.
    pub(crate) begin: i64,
    counters: [Counter; SERIES],
    /// The number and counters of each series' first sample.
    pub(crate) births: [Option<(i64, Counter)>; SERIES],
    /// Whether requests are drawn for now that no window shows.
    defers: bool,
    /// The expected number of requests of users that are left to be drawn at the end.
    deferred: f64,
    pending: Pending,
    pending_tests: PendingTests,
    /// The canary's share of the users' requests, in percent.
    share: u32,
    /// Whether users wait for the canary's answers.
    visible: bool,
    flow: Flow,
    /// When the canary became ready.
    ready: i64,
    burst: (i64, i64),
    bursts: u64,
    /// The window that was looked at last.
    pub(crate) looked: Window,
    /// Requests of users that the canary answered.
    pub user_requests: u64,
    /// Those that failed.
    pub user_errors: u64,
}

/// What requests met.
#[derive(Clone, Copy, Debug)]
struct Met {
    /// How many reached the canary.
    reached: u32,
    /// How many of them failed, or were answered after the client's timeout.
    harmed: u32,
}

/// Questions of draws, apart from those about a stretch of time.
pub(crate) mod question {
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
        memory.runs.clear();
        let last = (-phase).div_euclid(scrape);
        memory.samples.push(Sample { number: last, ..Sample::default() });
        let mut world = World {
            step: (index % setting.error_rates.len() as u64) as usize,
            phase,
            first_tick,
            cursor: 0,
            last,
            ticked: i64::MIN,
            begin: i64::MAX,
            counters: Default::default(),
            births: [None; SERIES],
            defers: false,
            deferred: 0.0,
            pending: Pending::default(),
            pending_tests: PendingTests::default(),
            share: 0,
            visible: true,
            flow: Flow { share: 0, circumstances: 0, notable: 0.0, plain: 0.0, window: 0.0 },
            ready: i64::MAX,
            burst: (i64::MAX, i64::MAX),
            bursts: 0,
            looked: Window::default(),
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
        if self.setting.is_plain && share > 0 && share != self.flow.share {
            self.find_flow(now, now + 1, 0);
        }
    }

    /// The canary is ready from this moment on.
    pub fn ready_at(&mut self, at: i64) {
        self.ready = at;
    }

    /// A webhook with a load test is called: it starts, unless it still runs.
    pub fn call(&mut self, now: i64, hook: usize) {
        let Some((test, reach)) = self.setting.load_test(hook) else { return };
        let known = self.memory.runs.iter().position(|run| run.hook == hook);
        if known.is_some_and(|known| now < self.memory.runs[known].end) {
            return;
        }
        // What the last run sent is in this tick's windows and in later ones.
        self.tick(now);
        self.advance(now);
        self.collect(now);
        let end = now.saturating_add(test.length(self.setting.mean_latency));
        let run = Run { hook, start: now, end, sent: 0 };
        if self.setting.is_plain && self.pending_tests.law.is_none() && *reach == Reach::Canary {
            self.pending_tests.law = Some(self.law(100, 0, now));
        }
        match known {
            Some(known) => self.memory.runs[known] = run,
            None => self.memory.runs.push(run),
        }
    }

    #[inline]
    pub(crate) fn sample_time(&self, number: i64) -> i64 {
        self.phase + number * self.setting.scrape
    }

    /// The number of the first sample inside a window that ends at `now`.
    #[inline]
    pub(crate) fn first_in(&self, now: i64, window: i64) -> i64 {
        let left = now - window - self.phase;
        if self.setting.closed_left {
            -(-left).div_euclid(self.setting.scrape)
        } else {
            left.div_euclid(self.setting.scrape) + 1
        }
    }

    /// Draws what happens until a tick, keeping the samples that this tick's windows and those of later ticks need.
    pub fn tick(&mut self, now: i64) {
        if now == self.ticked {
            return;
        }
        self.ticked = now;
        let setting = self.setting;
        let newest = (now - self.phase).div_euclid(setting.scrape);
        self.begin = setting.windows.last().map_or(i64::MAX, |longest| self.first_in(now, *longest));
        if self.share == 0 && self.memory.runs.is_empty() {
            // Nothing reaches the canary.
            self.cursor = self.cursor.max(now);
            self.flush(now);
            if newest > self.last {
                self.last = newest;
                self.memory.samples.push(Sample { number: newest, counters: self.counters });
            }
            return;
        }
        if setting.windows.len() == 1 && setting.windows[0] <= setting.policy.interval {
            // No sample is in two windows.
            self.mark(self.begin.min(newest));
            self.mark(newest);
        } else {
            self.find_marks(now, newest);
            for index in 0..self.memory.marks.len() {
                self.mark(self.memory.marks[index]);
            }
        }
        self.defers = setting.defers;
        self.forget(now);
    }

    /// Finds the samples at which the windows of this tick and of later ones begin.
    fn find_marks(&mut self, now: i64, newest: i64) {
        let interval = self.setting.policy.interval;
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
        self.memory.marks.push(newest);
        self.memory.marks.sort_unstable();
        self.memory.marks.dedup();
    }

    /// Draws what happens until a sample, and keeps it.
    fn mark(&mut self, number: i64) {
        if number <= self.last {
            return;
        }
        // What comes before the first sample of the longest window is in none.
        self.defers = self.setting.defers && number <= self.begin;
        let at = self.sample_time(number);
        self.advance(at);
        self.flush(at);
        self.memory.samples.push(Sample { number, counters: self.counters });
        self.last = number;
    }

    /// Draws what is left until the end.
    pub fn finish(&mut self, now: i64) {
        self.defers = self.setting.defers;
        self.advance(now);
        // Nobody will read what the load test met.
        self.flush_users(now);
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
    #[inline]
    pub fn advance(&mut self, until: i64) {
        if !self.setting.is_plain {
            self.advance_any(until);
        } else if self.cursor < until {
            if self.share > 0 {
                self.expect((until - self.cursor) as f64);
            }
            self.cursor = until;
        }
    }

    fn advance_any(&mut self, until: i64) {
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
                let runs = &self.memory.runs;
                runs.iter().for_each(|run| change(run.end));
                circumstances |= law::TESTED * usize::from(runs.iter().any(|run| from < run.end));
            }
            self.stretch(from, to, circumstances);
            self.cursor = to;
        }
    }

    /// Draws a stretch of time in which nothing changes.
    #[inline]
    fn stretch(&mut self, from: i64, to: i64, circumstances: usize) {
        if self.share > 0 {
            if self.users.are_spaced() {
                let law = self.law(self.share, circumstances, from);
                let trials = self.users.spaced(from, to);
                let met = self.split(USERS, trials, law, (to as u64) << 8);
                self.expose(met);
            } else {
                if circumstances != self.pending.circumstances {
                    self.flush(from);
                    self.pending.circumstances = circumstances;
                }
                let known = (self.flow.share, self.flow.circumstances) == (self.share, circumstances);
                if !known || !self.users.is_steady() {
                    self.find_flow(from, to, circumstances);
                }
                self.expect((to - from) as f64);
            }
        }
        for index in 0..self.memory.runs.len() {
            self.send(index, from, to, circumstances);
        }
    }

    /// Adds the users' requests of so many milliseconds to those that are expected.
    #[inline]
    fn expect(&mut self, span: f64) {
        let (flow, pending) = (&self.flow, &mut self.pending);
        pending.notable += span * flow.notable;
        pending.plain += span * flow.plain;
        // Between windows only the sum matters, once the counter is so high that no window is cut at its zero.
        pending.window = pending.window.max(flow.window);
    }

    /// Finds what the canary gets of the users' requests in a stretch.
    fn find_flow(&mut self, from: i64, to: i64, circumstances: usize) {
        let law = self.law(self.share, circumstances, from);
        let Law { notable, plain, .. } = *self.memory.laws.at(law);
        let rate = self.users.expected(from, to) / (to - from) as f64;
        let window = rate * plain * self.setting.policy.interval as f64;
        let (notable, plain) = (rate * notable, rate * plain);
        self.flow = Flow { share: self.share, circumstances, notable, plain, window };
        self.pending.law = law;
    }

    /// Draws what a load test sends in a stretch, or adds it to what is to be drawn.
    #[inline]
    fn send(&mut self, index: usize, from: i64, to: i64, circumstances: usize) {
        let run = self.memory.runs[index];
        if from >= run.end {
            return;
        }
        let (Some((_, reach)), Some(pace)) = (self.setting.load_test(run.hook), self.setting.paces[run.hook])
        else {
            return;
        };
        let sent = pace.sent(to - run.start);
        let trials = sent - run.sent;
        self.memory.runs[index].sent = sent;
        let share = match reach {
            Reach::Canary => 100,
            Reach::Split => self.share,
            Reach::Primary | Reach::Nobody => 0,
        };
        if *reach == Reach::Canary && self.setting.model.capacity.is_none() && self.memory.runs.len() == 1 {
            // Weights change nothing for these: what comes between two samples is one draw.
            if self.pending_tests.law.is_none() || circumstances != self.pending_tests.circumstances {
                self.flush_tests(from);
                let law = Some(self.law(share, circumstances, from));
                self.pending_tests = PendingTests { trials: 0, law, circumstances };
            }
            self.pending_tests.trials += trials;
        } else if share > 0 && trials > 0 {
            let law = self.law(share, circumstances, from);
            self.split(TESTER, trials, law, ((to as u64) << 8) + 64 + (index as u64 & 1) * 64);
        }
    }

    /// Draws requests whose number is known.
    #[inline]
    fn split(&mut self, source: usize, trials: u32, law: usize, question: u64) -> Met {
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
        let harmed = if notable > 0 { self.note(source, notable, law, question) } else { 0 };
        Met { reached: plain + notable, harmed }
    }

    /// Adds what the load test sent until now to what is to be drawn, if nothing but time matters to it.
    #[inline]
    fn collect(&mut self, now: i64) {
        if !self.setting.is_plain {
            return;
        }
        let Some(run) = self.memory.runs.first_mut() else { return };
        let Some(pace) = &self.setting.paces[run.hook] else { return };
        let sent = pace.sent(now - run.start);
        self.pending_tests.trials += sent - run.sent;
        run.sent = sent;
    }

    /// Draws what the load test sent until now.
    #[inline]
    fn flush_tests(&mut self, now: i64) {
        self.collect(now);
        let PendingTests { trials, law: Some(law), .. } = self.pending_tests else { return };
        if trials > 0 {
            self.pending_tests.trials = 0;
            if self.setting.is_plain && self.defers && self.is_grown(law) {
                return;
            }
            self.split(TESTER, trials, law, ((now as u64) << 8) + 64);
        }
    }

    /// Whether the load test's counters are so high that no window is cut at their zero, whatever comes before it.
    #[inline]
    fn is_grown(&self, law: usize) -> bool {
        let [answered, failed] = [TESTER, TESTER + 1].map(|series| f64::from(self.counters[series].total));
        let Law { notable, error, .. } = self.memory.laws.at(law);
        let least = |mean: f64| self.setting.cut_ratio * (2.0 * mean + 40.0);
        let window = self.setting.tests_most;
        failed > least(window * notable * error) && answered > least(window)
    }

    /// Draws the users' requests that are expected until now, if they arrive independently: whatever the weights
    /// were, their sum is one draw.
    fn flush(&mut self, now: i64) {
        self.flush_tests(now);
        self.flush_users(now);
    }

    fn flush_users(&mut self, now: i64) {
        let Pending { notable, plain, window, law, .. } = self.pending;
        if plain + notable <= 0.0 {
            return;
        }
        self.pending = Pending { notable: 0.0, plain: 0.0, window: 0.0, ..self.pending };
        let question = (now as u64) << 8;
        let shown = f64::from(self.counters[USERS].total);
        let mut met = Met { reached: 0, harmed: 0 };
        if self.defers && shown > self.setting.cut_ratio * (2.0 * window + 40.0) {
            self.deferred += if self.visible { plain } else { 0.0 };
        } else {
            met.reached = self.memory.counts.poisson(plain, self.draws.uniform(question + 1));
            self.counters[USERS].total += met.reached;
        }
        let notable = self.memory.counts.poisson(notable, self.draws.uniform(question));
        if notable > 0 {
            met.reached += notable;
            met.harmed = self.note(USERS, notable, law, question);
        }
        self.expose(met);
    }

    /// Counts what users met.
    #[inline]
    fn expose(&mut self, met: Met) {
        if self.visible {
            self.user_requests += u64::from(met.reached);
            self.user_errors += u64::from(met.harmed);
        }
    }

    /// Tells failed requests from slow ones; how many failed, or were answered after the client's timeout.
    fn note(&mut self, source: usize, notable: u32, law: usize, question: u64) -> u32 {
        let Law { error, late, .. } = *self.memory.laws.at(law);
        let failed = self.memory.counts.binomial(notable, error, self.draws.uniform(question + 2));
        let answered = notable - failed;
        let mut harmed = failed;
        if answered > 0 {
            self.counters[source].total += answered;
            harmed += self.slow(source, answered, law, question + 3);
        }
        if failed > 0 {
            self.counters[source + 1].total += failed;
            let late = self.memory.counts.binomial(failed, late, self.draws.uniform(question + 20));
            if late > 0 {
                self.slow(source + 1, late, law, question + 21);
            }
        }
        harmed
    }

    /// Tells by how much requests are slow that are it; how many were answered after the client's timeout.
    fn slow(&mut self, series: usize, requests: u32, law: usize, question: u64) -> u32 {
        let Memory { counts, laws, .. } = &mut *self.memory;
        let law = laws.at(law);
        let (mut left, mut slow, mut too_late) = (requests, 0, 0);
        for cut in 0..self.setting.cuts.len() {
            if left > 0 {
                let more = counts.binomial(left, law.slow[cut], self.draws.uniform(question + cut as u64));
                left -= more;
                slow += more;
            }
            self.counters[series].above[cut] += slow;
            if self.setting.timeout == Some(cut) {
                too_late = slow;
            }
        }
        too_late
    }

    /// The place of the law of requests of which the canary gets `share` percent.
    #[inline]
    fn law(&mut self, share: u32, circumstances: usize, at: i64) -> usize {
        let has_capacity = self.setting.model.capacity.is_some();
        if has_capacity && !self.users.is_steady() {
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
        let running = self.memory.runs.iter().filter(|run| at < run.end);
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
}
