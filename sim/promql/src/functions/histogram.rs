//! Quantiles and fractions of classic histograms.

use std::collections::BTreeMap;

use crate::ast::Node;
use crate::error::QueryError;
use crate::eval::{Evaluator, Output, Sample};
use crate::format::{parse_float, quote};
use crate::labels::{Labels, METRIC_NAME};

/// The label that holds a bucket's upper bound.
const BOUND: &str = "le";

/// One bucket of a classic histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The upper bound, included.
    pub upper: f64,
    /// Observations up to the bound, those of lower buckets included.
    pub count: f64,
}

/// The q-quantile of a classic histogram by linear interpolation within a bucket, as `histogram_quantile` gives it:
/// NaN without a `+Inf` bucket, with fewer than two buckets, without observations or for a NaN `q`; `-Inf` for `q`
/// below 0, `+Inf` above 1; in the `+Inf` bucket the highest finite bound. The first bucket starts at 0 if its bound
/// is positive. Sorts the buckets and forces their counts to ascend; the second value tells whether that had to
/// change more than rounding would explain.
pub fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if q > 1.0 {
        return (f64::INFINITY, false);
    }
    let Some(forced) = prepare(buckets) else { return (f64::NAN, false) };
    let last = buckets.len() - 1;
    if last == 0 || buckets[last].count == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * buckets[last].count;
    let found = buckets[..last].iter().position(|bucket| bucket.count >= rank).unwrap_or(last);
    let bucket = buckets[found];
    let value = if found == last {
        buckets[last - 1].upper
    } else if found == 0 && bucket.upper <= 0.0 {
        bucket.upper
    } else {
        let (mut start, mut count) = (0.0, bucket.count);
        if let Some(below) = found.checked_sub(1).map(|below| buckets[below]) {
            start = below.upper;
            count -= below.count;
            rank -= below.count;
        }
        start + (bucket.upper - start) * (rank / count)
    };
    (value, forced)
}

/// Sorts buckets, merges equal bounds and makes counts ascend. `None` where there is no `+Inf` bucket, else whether
/// counts had to be forced.
fn prepare(buckets: &mut Vec<Bucket>) -> Option<bool> {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if buckets.last()?.upper != f64::INFINITY {
        return None;
    }
    buckets.dedup_by(|later, kept| {
        let same = later.upper == kept.upper;
        if same {
            kept.count += later.count;
        }
        same
    });
    let (mut forced, mut before) = (false, buckets[0].count);
    for bucket in &mut buckets[1..] {
        if bucket.count == before {
            continue;
        }
        if almost_equal(before, bucket.count) {
            bucket.count = before;
        } else if bucket.count < before {
            bucket.count = before;
            forced = true;
        } else {
            before = bucket.count;
        }
    }
    Some(forced)
}

/// Equal but for rounding in sums of rates.
fn almost_equal(left: f64, right: f64) -> bool {
    const TOLERANCE: f64 = 1e-12;
    let (sum, difference) = (left.abs() + right.abs(), (left - right).abs());
    if left == 0.0 || right == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

/// The share of observations between two bounds.
fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> (f64, bool) {
    let Some(forced) = prepare(buckets) else { return (f64::NAN, false) };
    let last = buckets[buckets.len() - 1].count;
    if buckets.len() < 2 || last == 0.0 || last.is_nan() || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, forced);
    }
    if lower >= upper {
        return (0.0, forced);
    }
    ((rank_at(upper, buckets) - rank_at(lower, buckets)) / last, forced)
}

/// How many observations are at or below a value, interpolated within its bucket.
fn rank_at(value: f64, buckets: &[Bucket]) -> f64 {
    let first_lower = if buckets[0].upper > 0.0 { 0.0 } else { f64::NEG_INFINITY };
    let mut below = Bucket { upper: first_lower, count: 0.0 };
    for bucket in buckets {
        if value <= below.upper {
            return below.count;
        }
        if value < bucket.upper {
            if below.upper.is_infinite() || bucket.upper.is_infinite() {
                return below.count;
            }
            let share = (value - below.upper) / (bucket.upper - below.upper);
            return below.count + (bucket.count - below.count) * share;
        }
        below = *bucket;
    }
    below.count
}

/// The buckets of each histogram in a vector, in order of appearance, with the metric's name for remarks.
fn histograms(evaluator: &Evaluator<'_>, samples: Vec<Sample>) -> Vec<(Labels, String, Vec<Bucket>)> {
    let mut places: BTreeMap<Labels, usize> = BTreeMap::new();
    let mut found: Vec<(Labels, String, Vec<Bucket>)> = Vec::new();
    for sample in samples {
        let bound = sample.labels.get(BOUND).unwrap_or_default();
        let Some(upper) = parse_float(bound) else {
            evaluator.warn(
                &format!(
                    "bucket label \"le\" is missing or has a malformed value of {} for metric name {}",
                    quote(bound),
                    quote(sample.labels.metric_name())
                ),
                "histogram_",
            );
            continue;
        };
        let bucket = Bucket { upper, count: sample.value };
        // Histograms mostly come whole: the last one's labels are the likeliest.
        let is_like_last = found.last().is_some_and(|(labels, ..)| {
            let mine = sample.labels.pairs().iter().filter(|(name, _)| !is_internal(name));
            mine.eq(labels.pairs())
        });
        if is_like_last {
            found.last_mut().expect("there is a last one").2.push(bucket);
            continue;
        }
        let labels = sample.labels.filtered(|name| !is_internal(name));
        match places.get(&labels) {
            Some(place) => found[*place].2.push(bucket),
            None => {
                places.insert(labels.clone(), found.len());
                found.push((labels, sample.labels.metric_name().to_owned(), vec![bucket]));
            }
        }
    }
    found
}

fn is_internal(name: &str) -> bool {
    name == BOUND || name == METRIC_NAME
}

fn each(
    evaluator: &Evaluator<'_>,
    arg: &Node,
    at: i64,
    function: &str,
    give: impl Fn(&mut Vec<Bucket>) -> (f64, bool),
) -> Result<Output, QueryError> {
    let samples = evaluator.vector(arg, at)?;
    let mut result = Vec::new();
    for (labels, name, mut buckets) in histograms(evaluator, samples) {
        let (value, forced) = give(&mut buckets);
        if forced {
            evaluator.inform(
                &format!(
                    "input to {function} needed to be fixed for monotonicity (see \
                     https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) \
                     for metric name {}",
                    quote(&name)
                ),
                function,
            );
        }
        result.push(Sample { labels, value });
    }
    Ok(Output::Vector(result))
}

/// `histogram_quantile(q, v)`.
pub(super) fn quantile(evaluator: &Evaluator<'_>, args: &[Node], at: i64) -> Result<Output, QueryError> {
    let q = evaluator.scalar(&args[0], at)?;
    evaluator.check_quantile(q, "histogram_quantile");
    each(evaluator, &args[1], at, "histogram_quantile", |buckets| bucket_quantile(q, buckets))
}

/// `histogram_fraction(lower, upper, v)`.
pub(super) fn fraction(evaluator: &Evaluator<'_>, args: &[Node], at: i64) -> Result<Output, QueryError> {
    let (lower, upper) = (evaluator.scalar(&args[0], at)?, evaluator.scalar(&args[1], at)?);
    each(evaluator, &args[2], at, "histogram_fraction", |buckets| bucket_fraction(lower, upper, buckets))
}
