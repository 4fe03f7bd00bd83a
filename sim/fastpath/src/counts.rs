//! Counts of random events by inversion: the binomial and the Poisson count that a uniform number leads to.
//!
//! Inversion makes one uniform number one count, and the count grows with the probability while the number stays. So
//! two policies that share their random numbers see the same luck, and a worse version never has a better day than a
//! good one. Counts with a variance below [`VARIANCE_EXACT`] are exact, and come from tables where a law repeats;
//! wider ones follow the Cornish-Fisher expansion, whose error there is far below one count.

/// The variance up to which counts are exact.
const VARIANCE_EXACT: f64 = 400.0;
/// Weights below this, against 1 at the mode, are left out of a table: no uniform number of 53 bits finds them.
const NEGLIGIBLE: f64 = 1e-18;
/// How many entries a cache of tables may hold before further laws are computed anew each time.
const CACHE_ENTRIES: usize = 1 << 20;
/// Slots of a cache of tables; at most half of them are used.
const CACHE_SLOTS: usize = 1 << 12;

/// A distribution of counts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    /// Successes among trials.
    Binomial { trials: u32, probability: f64 },
    /// Events at a rate.
    Poisson { mean: f64 },
}

impl Law {
    fn mean(self) -> f64 {
        match self {
            Law::Binomial { trials, probability } => f64::from(trials) * probability,
            Law::Poisson { mean } => mean,
        }
    }

    fn variance(self) -> f64 {
        match self {
            Law::Binomial { probability, .. } => self.mean() * (1.0 - probability),
            Law::Poisson { mean } => mean,
        }
    }

    fn most(self) -> u32 {
        match self {
            Law::Binomial { trials, .. } => trials,
            Law::Poisson { .. } => u32::MAX,
        }
    }

    /// The weight of `count + 1` against that of `count`.
    fn ratio(self, count: u32) -> f64 {
        let next = f64::from(count) + 1.0;
        match self {
            Law::Binomial { trials, probability } => {
                (f64::from(trials) - f64::from(count)) * probability / (next * (1.0 - probability))
            }
            Law::Poisson { mean } => mean / next,
        }
    }

    /// The least count with a weight, and the distribution function from there on.
    fn tabulate(self, cdf: &mut Vec<f64>) -> u32 {
        let mode = match self {
            Law::Binomial { trials, probability } => ((f64::from(trials) + 1.0) * probability) as u32,
            Law::Poisson { mean } => mean as u32,
        };
        let mode = mode.min(self.most());
        cdf.clear();
        let (mut weight, mut low) = (1.0, mode);
        cdf.push(weight);
        while low > 0 {
            weight /= self.ratio(low - 1);
            if weight < NEGLIGIBLE {
                break;
            }
            cdf.push(weight);
            low -= 1;
        }
        cdf.reverse();
        let (mut weight, mut high) = (1.0, mode);
        while high < self.most() {
            weight *= self.ratio(high);
            if weight < NEGLIGIBLE {
                break;
            }
            cdf.push(weight);
            high += 1;
        }
        let mut sum = 0.0;
        for weight in cdf.iter_mut() {
            sum += *weight;
            *weight = sum;
        }
        for value in cdf.iter_mut() {
            *value /= sum;
        }
        low
    }

    /// The count by an expansion around the normal distribution.
    fn expand(self, uniform: f64) -> u32 {
        let (mean, variance) = (self.mean(), self.variance());
        let deviation = variance.sqrt();
        let (skew, excess) = match self {
            Law::Binomial { probability, .. } => (
                (1.0 - 2.0 * probability) / deviation,
                (1.0 - 6.0 * probability * (1.0 - probability)) / variance,
            ),
            Law::Poisson { .. } => (1.0 / deviation, 1.0 / variance),
        };
        let z = normal_quantile(uniform);
        let square = z * z;
        let shift = z + (square - 1.0) * skew / 6.0 + z * (square - 3.0) * excess / 24.0
            - z * (2.0 * square - 5.0) * skew * skew / 36.0;
        // A count stands for the half below and above it.
        let count = (mean + deviation * shift + 0.5).floor();
        count.clamp(0.0, f64::from(self.most())) as u32
    }
}

/// How many entries a guide has for each of its table's: most numbers then find their count at once.
const GUIDES: usize = 4;
/// The most entries of a table that is kept.
const TABLE_ENTRIES: usize = 1 << 12;

/// Where the table of a law is.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The parameter's bits and the trials.
    parameter: u64,
    trials: u32,
    /// The least count in the table.
    low: u32,
    /// Where its distribution function begins.
    cdf: u32,
    /// Its last entry.
    last: u32,
    /// Where its guide begins.
    guide: u32,
    /// The binary logarithm of its guide's size; 0 for an empty slot.
    bits: u32,
}

/// Inverts laws, keeping the tables of those that it met. One per thread; what is in it never changes an answer.
pub struct Counts {
    /// By hash.
    slots: Vec<Slot>,
    used: usize,
    /// The distribution functions of all tables, in 32 bits.
    cdf: Vec<u32>,
    /// The guides of all tables: where to begin the search, by a uniform number's first bits.
    guide: Vec<u16>,
    scratch: Vec<f64>,
}

impl Default for Counts {
    fn default() -> Self {
        let slots = vec![Slot::default(); CACHE_SLOTS];
        Counts { slots, used: 0, cdf: Vec::new(), guide: Vec::new(), scratch: Vec::new() }
    }
}

impl Counts {
    /// Successes among `trials` for the uniform number.
    #[inline]
    pub fn binomial(&mut self, trials: u32, probability: f64, uniform: f64) -> u32 {
        // None is at least as likely as 1 - mean: most draws of rare events end here.
        if trials == 0 || uniform < 1.0 - f64::from(trials) * probability {
            return 0;
        }
        // And all of them at least as likely as this.
        if uniform >= f64::from(trials) * (1.0 - probability) {
            return trials;
        }
        if probability <= 0.0 {
            return 0;
        }
        self.invert(Law::Binomial { trials, probability }, trials, probability.to_bits(), uniform)
    }

    /// Events at a mean for the uniform number.
    #[inline]
    pub fn poisson(&mut self, mean: f64, uniform: f64) -> u32 {
        if uniform < 1.0 - mean || mean <= 0.0 {
            return 0;
        }
        self.invert(Law::Poisson { mean }, u32::MAX, mean.to_bits(), uniform)
    }

    #[inline]
    fn invert(&mut self, law: Law, trials: u32, parameter: u64, uniform: f64) -> u32 {
        let mut at = (u64::from(trials).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ parameter)
            .wrapping_mul(0xd6e8_feb8_6659_fd93) as usize
            >> (64 - CACHE_SLOTS.trailing_zeros());
        loop {
            let slot = &self.slots[at % CACHE_SLOTS];
            if slot.parameter == parameter && slot.trials == trials && slot.bits > 0 {
                return self.find(slot, uniform);
            }
            if slot.bits == 0 {
                return self.meet(law, (trials, parameter), at % CACHE_SLOTS, uniform);
            }
            at += 1;
        }
    }

    /// The count that a uniform number leads to.
    #[inline]
    fn find(&self, slot: &Slot, uniform: f64) -> u32 {
        let wanted = (uniform * 4_294_967_296.0) as i64 as u32;
        let mut at = u32::from(self.guide[slot.guide as usize + (wanted >> (32 - slot.bits)) as usize]);
        while at < slot.last && self.cdf[(slot.cdf + at) as usize] <= wanted {
            at += 1;
        }
        slot.low + at
    }

    /// Answers for a law that no table is kept of, and keeps one if there is room.
    #[cold]
    fn meet(&mut self, law: Law, key: (u32, u64), at: usize, uniform: f64) -> u32 {
        if law.variance() > VARIANCE_EXACT {
            return law.expand(uniform);
        }
        let low = law.tabulate(&mut self.scratch);
        if self.cdf.len() + self.scratch.len() > CACHE_ENTRIES
            || self.used >= CACHE_SLOTS / 2
            || self.scratch.len() > TABLE_ENTRIES
        {
            return low
                + self.scratch.partition_point(|value| *value <= uniform).min(self.scratch.len() - 1) as u32;
        }
        self.used += 1;
        self.slots[at] = self.table(key, low);
        self.find(&self.slots[at], uniform)
    }

    /// Keeps the table whose distribution function was found last.
    fn table(&mut self, (trials, parameter): (u32, u64), low: u32) -> Slot {
        let (cdf, guide) = (self.cdf.len(), self.guide.len());
        self.cdf.extend(self.scratch.iter().map(|value| (value * 4_294_967_296.0) as u32));
        let entries = &self.cdf[cdf..];
        let bits = (entries.len() * GUIDES).next_power_of_two().trailing_zeros();
        let mut at = 0;
        self.guide.extend((0..1u64 << bits).map(|place| {
            let least = place << (32 - bits);
            while at + 1 < entries.len() && u64::from(entries[at]) <= least {
                at += 1;
            }
            at as u16
        }));
        let last = entries.len() as u32 - 1;
        Slot { parameter, trials, low, cdf: cdf as u32, last, guide: guide as u32, bits }
    }

    /// How many of `chosen` are among the first `first` of `all`, for the uniform number: the hypergeometric count.
    pub fn hypergeometric(&mut self, all: u32, first: u32, chosen: u32, uniform: f64) -> u32 {
        let low = (u64::from(chosen) + u64::from(first)).saturating_sub(u64::from(all)) as u32;
        let high = chosen.min(first);
        if low >= high {
            return high;
        }
        let (all, first, chosen) = (f64::from(all), f64::from(first), f64::from(chosen));
        let mode = (((first + 1.0) * (chosen + 1.0) / (all + 2.0)) as u32).clamp(low, high);
        let ratio = |count: u32| {
            let count = f64::from(count);
            (first - count) * (chosen - count) / ((count + 1.0) * (all - first - chosen + count + 1.0))
        };
        let weights = &mut self.scratch;
        weights.clear();
        let (mut weight, mut least) = (1.0, mode);
        weights.push(1.0);
        while least > low && weight > NEGLIGIBLE {
            least -= 1;
            weight /= ratio(least);
            weights.push(weight);
        }
        weights.reverse();
        let (mut weight, mut most) = (1.0, mode);
        while most < high && weight > NEGLIGIBLE {
            weight *= ratio(most);
            most += 1;
            weights.push(weight);
        }
        let mut left = uniform * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return least + index as u32;
            }
            left -= weight;
        }
        high
    }
}

/// The standard normal distribution's quantile (Acklam's rational approximation with one step of Halley's).
pub fn normal_quantile(probability: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    let p = probability.clamp(1e-300, 1.0 - f64::EPSILON / 2.0);
    let fold = |x: f64, terms: &[f64]| terms.iter().fold(0.0, |sum, term| sum * x + term);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        fold(q, &C) / (fold(q, &D) * q + 1.0)
    };
    let z = if p < 0.024_25 {
        tail(p)
    } else if p > 1.0 - 0.024_25 {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        let r = q * q;
        q * fold(r, &A) / (fold(r, &B) * r + 1.0)
    };
    let error = 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2) - p;
    let step = error * (2.0 * std::f64::consts::PI).sqrt() * (z * z / 2.0).exp();
    if step.is_finite() { z - step / (1.0 + z * step / 2.0) } else { z }
}

/// The probability of at most `count` successes among `trials`.
pub fn binomial_cdf(trials: u32, probability: f64, count: u32) -> f64 {
    if count >= trials || probability <= 0.0 {
        return 1.0;
    }
    if probability >= 1.0 {
        return 0.0;
    }
    let mut cdf = Vec::new();
    let low = Law::Binomial { trials, probability }.tabulate(&mut cdf);
    match count.checked_sub(low) {
        None => 0.0,
        Some(index) => cdf.get(index as usize).copied().unwrap_or(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distribution function in logarithms, without recurrences.
    fn reference(trials: u32, probability: f64, count: u32) -> f64 {
        let ln = |n: u32| libm::lgamma(f64::from(n) + 1.0);
        let term = |k: u32| {
            (ln(trials) - ln(k) - ln(trials - k)
                + f64::from(k) * probability.ln()
                + f64::from(trials - k) * (1.0 - probability).ln())
            .exp()
        };
        (0..=count).map(term).sum()
    }

    #[test]
    fn binomial_counts_are_exact_quantiles() {
        let mut counts = Counts::default();
        for (trials, probability) in [(1, 0.3), (30, 0.01), (600, 0.05), (1500, 0.5), (40, 0.97)] {
            for uniform in [1e-9, 0.001, 0.1, 0.5, 0.77, 0.999, 1.0 - 1e-9] {
                let count = counts.binomial(trials, probability, uniform);
                // Tables hold 32 bits.
                assert!(reference(trials, probability, count) >= uniform - 1e-9);
                if count > 0 {
                    assert!(reference(trials, probability, count - 1) <= uniform + 1e-9);
                }
                assert_eq!(count, counts.binomial(trials, probability, uniform), "from the table");
            }
            let at = trials / 2;
            assert!(
                (binomial_cdf(trials, probability, at) - reference(trials, probability, at)).abs() < 1e-10
            );
        }
    }

    #[test]
    fn wide_counts_follow_the_exact_distribution_closely() {
        let mut cdf = Vec::new();
        for law in [
            Law::Binomial { trials: 20_000, probability: 0.03 },
            Law::Binomial { trials: 2_000, probability: 0.5 },
            Law::Poisson { mean: 450.0 },
        ] {
            let low = law.tabulate(&mut cdf);
            for step in 1..2000 {
                let uniform = f64::from(step) / 2000.0;
                let exact = low + cdf.partition_point(|value| *value <= uniform) as u32;
                let near = law.expand(uniform);
                assert!(exact.abs_diff(near) <= 1, "{law:?} {uniform}: {exact} {near}");
            }
        }
    }

    #[test]
    fn counts_grow_with_probability() {
        let mut counts = Counts::default();
        for trials in [10, 700, 50_000] {
            for uniform in [0.01, 0.5, 0.99] {
                let mut before = 0;
                for step in 0..=100 {
                    let count = counts.binomial(trials, f64::from(step) / 100.0, uniform);
                    // The expansion and the table may differ by one where they meet.
                    assert!(count + 1 >= before, "{trials} {uniform} {step}");
                    before = count;
                }
                assert_eq!(before, trials);
            }
        }
    }

    #[test]
    fn hypergeometric_extremes_and_mean() {
        let mut counts = Counts::default();
        assert_eq!(counts.hypergeometric(50, 10, 50, 0.3), 10);
        assert_eq!(counts.hypergeometric(50, 10, 0, 0.3), 0);
        let steps = 4000;
        let sum: u32 = (0..steps)
            .map(|step| counts.hypergeometric(250, 50, 20, (f64::from(step) + 0.5) / f64::from(steps)))
            .sum();
        assert!((f64::from(sum) / f64::from(steps) - 4.0).abs() < 0.01);
    }

    #[test]
    fn normal_quantiles() {
        for (probability, z) in [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (0.001, -3.090_232_306_167_814)]
        {
            assert!((normal_quantile(probability) - z).abs() < 1e-9);
        }
    }
}
