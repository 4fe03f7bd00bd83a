//! Sums, means, spreads and quantiles of floats, with the compensation that Prometheus applies.

use crate::eval::nan_first;

/// A sum with Neumaier's compensation for lost digits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KahanSum {
    sum: f64,
    lost: f64,
}

impl KahanSum {
    pub(crate) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - total) + value;
        } else {
            self.lost += (value - total) + self.sum;
        }
        self.sum = total;
    }

    pub(crate) fn total(&self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }
}

/// The sum.
pub(crate) fn sum(values: &[f64]) -> f64 {
    let mut sum = KahanSum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum.total()
}

/// The arithmetic mean. Where the sum of finite values would overflow, the mean is moved value by value.
pub(crate) fn mean(values: &[f64]) -> f64 {
    let total = sum(values);
    if !total.is_infinite() || values.iter().any(|value| value.is_infinite()) {
        return total / values.len() as f64;
    }
    let mut mean = KahanSum::default();
    for (index, value) in values.iter().enumerate() {
        let count = (index + 1) as f64;
        let kept = (count - 1.0) / count;
        mean = KahanSum { sum: mean.sum * kept, lost: mean.lost * kept };
        mean.add(value / count);
    }
    mean.total()
}

/// Mean and squared distances from it, in one pass (Welford).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread {
    count: f64,
    mean: KahanSum,
    squares: KahanSum,
}

impl Spread {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean.total();
        self.mean.add(delta / self.count);
        self.squares.add(delta * (value - self.mean.total()));
    }

    /// The population variance.
    pub(crate) fn variance(&self) -> f64 {
        self.squares.total() / self.count
    }
}

/// The q-quantile by linear interpolation between ranks. Sorts the values.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| nan_first(*a, *b));
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = (rank.floor().max(0.0) as usize).min(last);
    let upper = (lower + 1).min(last);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}
