//! Send times: hey's ticker, and the arrivals of an open model. Pure arithmetic.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A ticker with a buffer of one, as Go's `time.Tick`: it ticks at fixed times, keeps one tick that nobody waited
/// for, and drops the rest.
#[derive(Clone, Debug)]
pub struct Ticker {
    start: Duration,
    period: Duration,
    /// When the last tick was taken.
    taken: Duration,
}

impl Ticker {
    /// A ticker whose first tick is one period after `start`.
    ///
    /// # Panics
    /// If the period is zero; callers reject such rates when they parse them.
    pub fn new(start: Duration, period: Duration) -> Self {
        assert!(!period.is_zero(), "a ticker's period must be positive");
        Ticker { start, period, taken: start }
    }

    /// Takes the next tick for a worker that begins to wait at `arrived`; returns when it has it.
    pub fn take(&mut self, arrived: Duration) -> Duration {
        let passed = self.taken.saturating_sub(self.start).as_nanos() / self.period.as_nanos();
        let tick = self.start + nanos((passed + 1).saturating_mul(self.period.as_nanos()));
        self.taken = tick.max(arrived);
        self.taken
    }
}

/// A stretch of a profile: the rate goes in a straight line to [`rate`](Stage::rate), from the rate at which the
/// stage before ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Requests per second at the end.
    pub rate: f64,
    /// How long the stage takes; zero jumps.
    pub length: Duration,
}

/// A rate over time: stages one after the other, the first one from zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pieces: Vec<Piece>,
    /// Whether the last rate goes on for ever.
    open_ended: bool,
}

/// A stage with where it begins.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    /// Seconds since the start.
    at: f64,
    /// Arrivals before it.
    before: f64,
    /// Requests per second where it begins.
    from: f64,
    /// Requests per second where it ends.
    to: f64,
    /// Seconds.
    length: f64,
}

impl Piece {
    fn arrivals(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length
    }

    /// Seconds from the piece's beginning until `count` arrivals have come, by the square root that does not cancel.
    fn until(&self, count: f64) -> f64 {
        if self.length == 0.0 || count <= 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.length;
        let root = (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt();
        (2.0 * count / (self.from + root)).min(self.length)
    }
}

impl Profile {
    /// One rate, for ever.
    ///
    /// # Panics
    /// If the rate is not positive and finite.
    pub fn constant(rate: f64) -> Self {
        assert!(rate.is_finite() && rate > 0.0, "the rate must be positive, got {rate}");
        let mut profile = Profile::stages(&[Stage { rate, length: Duration::ZERO }]);
        profile.open_ended = true;
        profile
    }

    /// From zero to `rate` in a straight line, then `rate` for ever.
    ///
    /// # Panics
    /// If the rate is not positive and finite.
    pub fn ramp(rate: f64, length: Duration) -> Self {
        let mut profile = Profile::constant(rate);
        if !length.is_zero() {
            profile = Profile { open_ended: true, ..Profile::stages(&[Stage { rate, length }]) };
        }
        profile
    }

    /// Stages, after which no more requests are due.
    ///
    /// # Panics
    /// If a rate is negative or not finite.
    pub fn stages(stages: &[Stage]) -> Self {
        let (mut at, mut before, mut from) = (0.0, 0.0, 0.0);
        let mut pieces = Vec::with_capacity(stages.len());
        for stage in stages {
            assert!(stage.rate.is_finite() && stage.rate >= 0.0, "a rate of {}", stage.rate);
            let length = stage.length.as_secs_f64();
            let piece = Piece { at, before, from, to: stage.rate, length };
            at += length;
            before += piece.arrivals();
            from = stage.rate;
            pieces.push(piece);
        }
        Profile { pieces, open_ended: false }
    }

    /// When the last stage ends; `None` for a profile that never does.
    pub fn length(&self) -> Option<Duration> {
        let last = self.pieces.last().filter(|_| !self.open_ended)?;
        Some(Duration::from_secs_f64(last.at + last.length))
    }

    /// Seconds until `count` arrivals are expected; `None` if there are never as many.
    fn until(&self, count: f64) -> Option<f64> {
        let last = self.pieces.last()?;
        let total = last.before + last.arrivals();
        if count >= total {
            let beyond = count - total;
            return (self.open_ended).then(|| last.at + last.length + beyond / last.to);
        }
        let piece = self.pieces.partition_point(|piece| piece.before <= count).max(1) - 1;
        let piece = &self.pieces[piece];
        Some(piece.at + piece.until(count - piece.before))
    }
}

/// The due times of an open model's requests.
#[derive(Clone, Debug)]
pub struct Arrivals {
    profile: Profile,
    drawn: u64,
    gaps: Gaps,
}

#[derive(Clone, Debug)]
enum Gaps {
    Constant,
    Poisson { rng: Box<Xoshiro256PlusPlus>, expected: f64 },
}

impl Arrivals {
    /// `rate` requests per second at equal distances, the first at once.
    ///
    /// # Panics
    /// If the rate is not positive and finite.
    pub fn constant(rate: f64) -> Self {
        Arrivals::even(Profile::constant(rate))
    }

    /// `rate` requests per second on average, independent of one another.
    ///
    /// # Panics
    /// If the rate is not positive and finite.
    pub fn poisson(rate: f64, seed: u64) -> Self {
        Arrivals::random(Profile::constant(rate), seed)
    }

    /// As evenly as the profile's rate allows, the first as soon as its rate is above zero.
    pub fn even(profile: Profile) -> Self {
        Arrivals { profile, drawn: 0, gaps: Gaps::Constant }
    }

    /// Independent of one another, with the profile's rate as their average: a Poisson process in time.
    pub fn random(profile: Profile, seed: u64) -> Self {
        let rng = Box::new(Xoshiro256PlusPlus::seed_from_u64(seed));
        Arrivals { profile, drawn: 0, gaps: Gaps::Poisson { rng, expected: 0.0 } }
    }

    /// The due time of the next request, since the start; `None` when the profile is over.
    pub fn next_due(&mut self) -> Option<Duration> {
        let index = self.drawn;
        self.drawn += 1;
        let count = match &mut self.gaps {
            Gaps::Constant => index as f64,
            Gaps::Poisson { rng, expected } => {
                // 53 random bits in (0, 1]: the logarithm of zero never comes up.
                let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
                *expected -= uniform.ln();
                *expected
            }
        };
        self.profile.until(count).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
