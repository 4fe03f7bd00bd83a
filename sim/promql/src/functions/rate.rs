//! `rate`, `increase`, `delta` and their instant kin.

use crate::ast::Node;
use crate::error::QueryError;
use crate::eval::{Evaluator, Sample, Window};
use crate::format::quote;

/// Which of the extrapolating functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extrapolation {
    /// A counter's growth per second.
    Rate,
    /// A counter's growth over the whole window.
    Increase,
    /// A gauge's difference over the whole window.
    Delta,
}

/// What `rate`, `increase` or `delta` gives for one series' samples in the window from `start_ms` to `end_ms`:
/// the difference between first and last sample (for counters after adding what was lost at each reset),
/// extrapolated to the window's edges. An edge nearer than 1.1 average distances between samples is reached fully,
/// else half a distance is added; a counter is never extrapolated below zero. `None` for fewer than two samples.
pub fn extrapolate(
    kind: Extrapolation,
    times_ms: &[i64],
    values: &[f64],
    start_ms: i64,
    end_ms: i64,
) -> Option<f64> {
    let count = times_ms.len().min(values.len());
    if count < 2 {
        return None;
    }
    let (first_time, last_time) = (times_ms[0], times_ms[count - 1]);
    let (first, last) = (values[0], values[count - 1]);
    let is_counter = kind != Extrapolation::Delta;
    let mut difference = last - first;
    if is_counter {
        for two in values[..count].windows(2) {
            if two[1] < two[0] {
                difference += two[0];
            }
        }
    }
    let mut to_start = (first_time - start_ms) as f64 / 1000.0;
    let mut to_end = (end_ms - last_time) as f64 / 1000.0;
    let sampled = (last_time - first_time) as f64 / 1000.0;
    let average = sampled / (count - 1) as f64;
    let threshold = average * 1.1;
    if to_start >= threshold {
        to_start = average / 2.0;
    }
    if is_counter && difference > 0.0 && first >= 0.0 {
        to_start = to_start.min(sampled * (first / difference));
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if kind == Extrapolation::Rate {
        factor /= (end_ms - start_ms) as f64 / 1000.0;
    }
    Some(difference * factor)
}

pub(super) fn call(
    evaluator: &Evaluator<'_>,
    arg: &Node,
    at: i64,
    kind: Extrapolation,
) -> Result<Vec<Sample>, QueryError> {
    if kind != Extrapolation::Delta {
        inform_about_names(evaluator, arg);
    }
    evaluator.over_windows(arg, at, false, |window| {
        extrapolate(kind, window.times, window.values, window.start, window.end)
    })
}

/// Remarks on a metric whose name is not a counter's. Only a selector's own name is looked at.
fn inform_about_names(evaluator: &Evaluator<'_>, arg: &Node) {
    let Node::Range(selector, _) = crate::eval::strip(arg) else { return };
    let Some(name) = selector
        .matchers
        .iter()
        .find(|matcher| matcher.name == crate::METRIC_NAME && matcher.kind == crate::MatchKind::Equal)
    else {
        return;
    };
    let is_counter = ["_total", "_sum", "_count", "_bucket"].iter().any(|end| name.value.ends_with(end));
    if !is_counter && !evaluator.storage.select(&selector.matchers).is_empty() {
        evaluator.inform(
            &format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                quote(&name.value)
            ),
            &name.value,
        );
    }
}

/// The per-second growth between a counter's last two samples.
pub(super) fn irate(window: &Window<'_>) -> Option<f64> {
    let (before, last, seconds) = last_two(window)?;
    Some(if last < before { last } else { last - before } / seconds)
}

/// The difference between a gauge's last two samples.
pub(super) fn idelta(window: &Window<'_>) -> Option<f64> {
    last_two(window).map(|(before, last, _)| last - before)
}

fn last_two(window: &Window<'_>) -> Option<(f64, f64, f64)> {
    let index = window.times.len().checked_sub(2)?;
    let seconds = (window.times[index + 1] - window.times[index]) as f64 / 1000.0;
    Some((window.values[index], window.values[index + 1], seconds))
}
