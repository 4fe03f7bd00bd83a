//! Functions over one series' samples in a window. Windows are never empty.

use super::sum::{KahanSum, Spread, quantile};
use crate::eval::Window;

/// Time and value of the largest sample (the last of equals); NaN only if all are.
pub(super) fn max(window: &Window<'_>) -> (i64, f64) {
    extreme(window, |value, best| value >= best)
}

/// Time and value of the smallest sample (the last of equals); NaN only if all are.
pub(super) fn min(window: &Window<'_>) -> (i64, f64) {
    extreme(window, |value, best| value <= best)
}

fn extreme(window: &Window<'_>, beats: impl Fn(f64, f64) -> bool) -> (i64, f64) {
    let mut best = (window.times[0], window.values[0]);
    for (time, value) in window.times.iter().zip(window.values) {
        if beats(*value, best.1) || best.1.is_nan() {
            best = (*time, *value);
        }
    }
    best
}

pub(super) fn variance(window: &Window<'_>) -> f64 {
    let mut spread = Spread::default();
    window.values.iter().for_each(|value| spread.add(*value));
    spread.variance()
}

/// The median of the distances from the median.
pub(super) fn median_deviation(window: &Window<'_>) -> Option<f64> {
    let mut values = window.values.to_vec();
    let median = quantile(0.5, &mut values);
    let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    Some(quantile(0.5, &mut distances))
}

/// How often the value changed; NaN equals NaN.
pub(super) fn changes(window: &Window<'_>) -> Option<f64> {
    let differ = |two: &&[f64]| two[0] != two[1] && !(two[0].is_nan() && two[1].is_nan());
    Some(window.values.windows(2).filter(differ).count() as f64)
}

/// How often a counter fell.
pub(super) fn resets(window: &Window<'_>) -> Option<f64> {
    Some(window.values.windows(2).filter(|two| two[1] < two[0]).count() as f64)
}

/// The slope per second, by least squares.
pub(super) fn deriv(window: &Window<'_>) -> Option<f64> {
    (window.values.len() > 1).then(|| regression(window, window.times[0]).0)
}

/// The value in `ahead` seconds from the evaluation's time, by least squares.
pub(super) fn predict_linear(window: &Window<'_>, ahead: f64) -> Option<f64> {
    (window.values.len() > 1).then(|| {
        let (slope, intercept) = regression(window, window.at);
        slope * ahead + intercept
    })
}

/// Slope per second and the value at `origin`.
fn regression(window: &Window<'_>, origin: i64) -> (f64, f64) {
    let first = window.values[0];
    if window.values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let count = window.values.len() as f64;
    let [mut sum_x, mut sum_y, mut sum_xy, mut sum_xx] = [KahanSum::default(); 4];
    for (time, y) in window.times.iter().zip(window.values) {
        let x = (time - origin) as f64 / 1000.0;
        sum_x.add(x);
        sum_y.add(*y);
        sum_xy.add(x * y);
        sum_xx.add(x * x);
    }
    let (sum_x, sum_y) = (sum_x.total(), sum_y.total());
    let covariance = sum_xy.total() - sum_x * sum_y / count;
    let variance = sum_xx.total() - sum_x * sum_x / count;
    let slope = covariance / variance;
    (slope, sum_y / count - slope * sum_x / count)
}

/// Holt's double exponential smoothing.
pub(super) fn smoothed(window: &Window<'_>, smoothing: f64, trend_factor: f64) -> Option<f64> {
    let values = window.values;
    if values.len() < 2 {
        return None;
    }
    let (mut before, mut level, mut trend) = (0.0, values[0], values[1] - values[0]);
    for (index, value) in values.iter().enumerate().skip(1) {
        if index > 1 {
            trend = trend_factor * (level - before) + (1.0 - trend_factor) * trend;
        }
        (before, level) = (level, smoothing * value + (1.0 - smoothing) * (level + trend));
    }
    Some(level)
}
