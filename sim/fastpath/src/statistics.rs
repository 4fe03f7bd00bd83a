//! Figures with their uncertainty.

use serde::{Deserialize, Serialize};

/// The standard normal quantile of a two-sided 95 % interval.
pub const Z95: f64 = 1.959_963_984_540_054;

/// A figure and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

/// A share of `all` (Wilson's interval); `None` of nothing.
pub fn share(part: u64, all: u64) -> Option<Estimate> {
    if all == 0 {
        return None;
    }
    let (n, p) = (all as f64, part as f64 / all as f64);
    let square = Z95 * Z95;
    let middle = (p + square / (2.0 * n)) / (1.0 + square / n);
    let half = Z95 / (1.0 + square / n) * (p * (1.0 - p) / n + square / (4.0 * n * n)).sqrt();
    let low = if part == 0 { 0.0 } else { (middle - half).max(0.0) };
    let high = if part == all { 1.0 } else { (middle + half).min(1.0) };
    Some(Estimate { value: p, low, high })
}

/// A mean from a sum and a sum of squares.
pub fn mean(sum: u128, squares: u128, count: u64) -> Option<Estimate> {
    if count == 0 {
        return None;
    }
    let n = count as f64;
    let value = sum as f64 / n;
    let variance = (squares as f64 / n - value * value).max(0.0);
    let half = Z95 * (variance / n).sqrt();
    Some(Estimate { value, low: (value - half).max(0.0), high: value + half })
}

/// The ranks, as shares, between which a quantile lies.
pub fn quantile_ranks(q: f64, count: u64) -> (f64, f64) {
    let half = Z95 * (q * (1.0 - q) / count.max(1) as f64).sqrt();
    ((q - half).max(0.0), (q + half).min(1.0))
}

/// Whether two samples of counts by category may be of one distribution: the chi-square statistic over categories
/// with enough expected counts, and its degrees of freedom.
pub fn chi_square(one: &[u64], other: &[u64]) -> (f64, usize) {
    let (total_one, total_other): (u64, u64) = (one.iter().sum(), other.iter().sum());
    let (n, m) = (total_one as f64, total_other as f64);
    let (mut statistic, mut categories) = (0.0, 0usize);
    for (a, b) in one.iter().zip(other) {
        let both = (a + b) as f64;
        let (expected_one, expected_other) = (both * n / (n + m), both * m / (n + m));
        if expected_one.min(expected_other) < 5.0 {
            continue;
        }
        categories += 1;
        statistic += (*a as f64 - expected_one).powi(2) / expected_one;
        statistic += (*b as f64 - expected_other).powi(2) / expected_other;
    }
    (statistic, categories.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_wilsons_interval() {
        let found = share(10, 100).unwrap();
        assert!((found.low - 0.0552).abs() < 1e-3 && (found.high - 0.1744).abs() < 1e-3, "{found:?}");
        assert_eq!(share(0, 0), None);
        let none = share(0, 1000).unwrap();
        assert!(none.low == 0.0 && none.high > 0.003 && none.high < 0.004);
    }

    #[test]
    fn chi_square_sees_differences() {
        assert!(chi_square(&[500, 500], &[510, 490]).0 < 3.84);
        assert!(chi_square(&[500, 500], &[600, 400]).0 > 10.0);
    }
}
