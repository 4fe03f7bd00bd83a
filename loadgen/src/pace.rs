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

/// The due times of an open model's requests.
#[derive(Clone, Debug)]
pub struct Arrivals {
    rate: f64,
    drawn: u64,
    gaps: Gaps,
}

#[derive(Clone, Debug)]
enum Gaps {
    Constant,
    Poisson { rng: Xoshiro256PlusPlus, elapsed: f64 },
}

impl Arrivals {
    /// `rate` requests per second at equal distances, the first at once.
    ///
    /// # Panics
    /// If the rate is not positive and finite.
    pub fn constant(rate: f64) -> Self {
        assert!(rate.is_finite() && rate > 0.0, "the rate must be positive, got {rate}");
        Arrivals { rate, drawn: 0, gaps: Gaps::Constant }
    }

    /// `rate` requests per second on average, independent of one another.
    ///
    /// # Panics
    /// If the rate is not positive and finite.
    pub fn poisson(rate: f64, seed: u64) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Arrivals { gaps: Gaps::Poisson { rng, elapsed: 0.0 }, ..Arrivals::constant(rate) }
    }

    /// The due time of the next request, since the start.
    pub fn next_due(&mut self) -> Duration {
        let index = self.drawn;
        self.drawn += 1;
        match &mut self.gaps {
            Gaps::Constant => Duration::from_secs_f64(index as f64 / self.rate),
            Gaps::Poisson { rng, elapsed } => {
                // 53 random bits in (0, 1]: the logarithm of zero never comes up.
                let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
                *elapsed -= uniform.ln() / self.rate;
                Duration::from_secs_f64(*elapsed)
            }
        }
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
