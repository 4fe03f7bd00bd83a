//! Two groups of one run against each other: are more requests failing, are answers slower, and is that more than
//! chance?
//!
//! Every test is held to 1%, so that a verdict from four of them (errors and three quantiles) is wrong in at most 4
//! of 100 comparisons of equal groups. The tests take requests as independent of one another; under a load that is
//! high enough to queue they are not quite, and differences look surer than they are.

use std::time::Duration;

use crate::{Distribution, Tally};

/// The level of each test.
pub const LEVEL: f64 = 0.01;
/// The normal quantile of a two-sided interval at [`LEVEL`].
const Z: f64 = 2.575_829_303_548_901;
/// Quantiles that are compared.
const QUANTILES: [f64; 3] = [0.50, 0.95, 0.99];
/// A quantile is compared if so many answers lie beyond it.
const BEYOND_LEAST: f64 = 10.0;
/// Below this expected count the normal approximation is not good enough.
const EXPECTED_LEAST: f64 = 10.0;

/// How two groups differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Share of requests without success of the baseline and the other.
    pub errors: (f64, f64),
    /// The probability of a difference in errors at least as large by chance; `None` if a group is empty.
    pub errors_p: Option<f64>,
    /// Quantiles that both groups have enough answers for.
    pub quantiles: Vec<QuantileDifference>,
    /// All in a word.
    pub verdict: Verdict,
}

/// How a latency quantile differs.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantileDifference {
    /// Which, between 0 and 1.
    pub quantile: f64,
    /// The baseline's.
    pub baseline: Duration,
    /// The other's.
    pub other: Duration,
    /// Confidence interval of other minus baseline, in seconds.
    pub interval: (f64, f64),
}

impl QuantileDifference {
    /// Other minus baseline, in seconds.
    pub fn difference(&self) -> f64 {
        self.other.as_secs_f64() - self.baseline.as_secs_f64()
    }

    /// Whether the difference is more than chance.
    pub fn is_significant(&self) -> bool {
        self.interval.0 > 0.0 || self.interval.1 < 0.0
    }
}

/// The other group against the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Something is worse, nothing better.
    Worse,
    /// Something is better, nothing worse.
    Better,
    /// Something is worse, something better.
    Mixed,
    /// No difference was shown.
    Same,
    /// Too few requests to tell.
    TooFew,
}

impl Verdict {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Worse => "worse",
            Verdict::Better => "better",
            Verdict::Mixed => "better in some, worse in others",
            Verdict::Same => "no difference shown",
            Verdict::TooFew => "too few requests to tell",
        }
    }
}

/// Compares `other` with `baseline`.
pub fn compare(baseline: &Tally, other: &Tally) -> Comparison {
    let failed = |tally: &Tally| tally.requests - tally.succeeded();
    let share = |tally: &Tally| failed(tally) as f64 / tally.requests.max(1) as f64;
    let errors = (share(baseline), share(other));
    let errors_p = two_proportions((failed(baseline), baseline.requests), (failed(other), other.requests));
    let (from, to) = (baseline.latency_from_due(), other.latency_from_due());
    let quantiles: Vec<QuantileDifference> =
        QUANTILES.iter().filter_map(|quantile| quantile_difference(*quantile, from, to)).collect();
    let mut signs = Vec::new();
    if errors_p.is_some_and(|p| p < LEVEL) {
        signs.push(errors.1 > errors.0);
    }
    let significant = quantiles.iter().filter(|quantile| quantile.is_significant());
    signs.extend(significant.map(|quantile| quantile.difference() > 0.0));
    let verdict = match (signs.contains(&true), signs.contains(&false)) {
        (true, true) => Verdict::Mixed,
        (true, false) => Verdict::Worse,
        (false, true) => Verdict::Better,
        (false, false) if quantiles.is_empty() => Verdict::TooFew,
        (false, false) => Verdict::Same,
    };
    Comparison { errors, errors_p, quantiles, verdict }
}

/// The two-sided probability of a difference as large as that between two shares (count, of all) by chance: the
/// pooled z test, or Fisher's exact test where counts are small. `None` if a group is empty.
pub fn two_proportions(a: (u64, u64), b: (u64, u64)) -> Option<f64> {
    if a.1 == 0 || b.1 == 0 {
        return None;
    }
    let (all, hits) = ((a.1 + b.1) as f64, (a.0 + b.0) as f64);
    let pooled = hits / all;
    if hits == 0.0 || hits == all {
        return Some(1.0);
    }
    let (na, nb) = (a.1 as f64, b.1 as f64);
    let least = [na * pooled, na * (1.0 - pooled), nb * pooled, nb * (1.0 - pooled)];
    if least.iter().any(|expected| *expected < EXPECTED_LEAST) {
        return Some(fisher(a, b));
    }
    let deviation = (pooled * (1.0 - pooled) * (1.0 / na + 1.0 / nb)).sqrt();
    let z = (a.0 as f64 / na - b.0 as f64 / nb) / deviation;
    Some(erfc(z.abs() / std::f64::consts::SQRT_2))
}

/// Fisher's exact test, two-sided: the sum over all tables that are at most as likely as this one.
fn fisher(a: (u64, u64), b: (u64, u64)) -> f64 {
    let hits = a.0 + b.0;
    let (least, most) = (hits.saturating_sub(b.1), hits.min(a.1));
    let all = ln_choose(a.1 + b.1, hits);
    let ln_probability = |x: u64| ln_choose(a.1, x) + ln_choose(b.1, hits - x) - all;
    let here = ln_probability(a.0);
    let at_most = (least..=most).map(ln_probability).filter(|p| *p <= here + 1e-7);
    at_most.map(f64::exp).sum::<f64>().min(1.0)
}

fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Exact for small numbers, Stirling's series beyond.
fn ln_factorial(n: u64) -> f64 {
    if n < 20 {
        return (2..=n).map(|factor| (factor as f64).ln()).sum();
    }
    let n = n as f64;
    let tau = std::f64::consts::TAU;
    n * n.ln() - n + 0.5 * (tau * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
}

/// The complementary error function for x >= 0 (Abramowitz and Stegun 7.1.26 is too coarse in the tail: series below
/// 2, continued fraction above).
fn erfc(x: f64) -> f64 {
    let scale = std::f64::consts::FRAC_2_SQRT_PI;
    if x < 2.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-17 * sum.abs() {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - scale * sum;
    }
    let fraction = (1..60).rev().fold(x, |fraction, k| x + f64::from(k) / 2.0 / fraction);
    (-x * x).exp() / (fraction * std::f64::consts::PI.sqrt())
}

/// The difference of a quantile with its confidence interval: each group's own interval from the ranks that the
/// quantile may have (binomial), then combined by their distances (MOVER: Zou and Donner 2008).
fn quantile_difference(
    quantile: f64,
    baseline: &Distribution,
    other: &Distribution,
) -> Option<QuantileDifference> {
    let (from, from_low, from_high) = quantile_interval(quantile, baseline)?;
    let (to, to_low, to_high) = quantile_interval(quantile, other)?;
    let difference = to - from;
    let low = difference - (to - to_low).hypot(from_high - from);
    let high = difference + (to_high - to).hypot(from - from_low);
    Some(QuantileDifference {
        quantile,
        baseline: Duration::from_secs_f64(from),
        other: Duration::from_secs_f64(to),
        interval: (low, high),
    })
}

fn quantile_interval(quantile: f64, of: &Distribution) -> Option<(f64, f64, f64)> {
    let count = of.count() as f64;
    if count * (1.0 - quantile) < BEYOND_LEAST {
        return None;
    }
    let spread = Z * (count * quantile * (1.0 - quantile)).sqrt();
    let at = |rank: f64| of.at_rank(rank.clamp(0.0, count - 1.0) as u64).as_secs_f64();
    let middle = count * quantile;
    Some((of.quantile(quantile).as_secs_f64(), at((middle - spread).floor()), at((middle + spread).ceil())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_tables() {
        // Two-sided normal tails.
        for (z, p) in [(0.0, 1.0), (1.0, 0.317_310_5), (1.959_964, 0.05), (2.575_829, 0.01), (5.0, 5.733e-7)]
        {
            let got = erfc(z / std::f64::consts::SQRT_2);
            assert!((got - p).abs() < 1e-6 * p.max(1e-3) + 1e-9, "{z}: {got} instead of {p}");
        }
        // The lady tasting tea: 3 of 4 against 1 of 4.
        let p = two_proportions((3, 4), (1, 4)).unwrap();
        assert!((p - 0.485_714).abs() < 1e-5, "{p}");
        // 1 of 12 against 9 of 12, as in the textbooks on Fisher's test.
        let p = two_proportions((1, 12), (9, 12)).unwrap();
        assert!((p - 0.002_759).abs() < 1e-5, "{p}");
        // z = 2.0739 (pooled): 45 of 1000 against 66 of 1000.
        let p = two_proportions((45, 1000), (66, 1000)).unwrap();
        assert!((p - 0.0402).abs() < 5e-4, "{p}");
        assert_eq!(two_proportions((0, 10), (0, 7)), Some(1.0));
        assert_eq!(two_proportions((0, 0), (0, 7)), None);
        assert!((ln_factorial(25) - 58.003_605_222_980_52).abs() < 1e-9);
    }
}
