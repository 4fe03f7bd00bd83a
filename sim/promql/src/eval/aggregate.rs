//! Aggregations over the series of an instant vector.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};

use super::group::Groups;
use super::{Evaluator, Output, Sample, check_unique};
use crate::Labels;
use crate::ast::{Aggregate, AggregateOp};
use crate::error::QueryError;
use crate::format::{format_float, format_plain, quote};
use crate::functions::sum::{KahanSum, Spread, mean, quantile};
use crate::hash::FixedHasher;

/// Orders values with NaN below all others.
pub(crate) fn nan_first(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| right.is_nan().cmp(&left.is_nan()))
}

impl Evaluator<'_> {
    pub(super) fn aggregate(&self, aggregate: &Aggregate, at: i64) -> Result<Vec<Sample>, QueryError> {
        let op = aggregate.op;
        if matches!(op, AggregateOp::LimitK | AggregateOp::LimitRatio) && !self.options.experimental {
            let name = if op == AggregateOp::LimitK { "limitk" } else { "limit_ratio" };
            return Err(QueryError::Parse(format!(
                "1:1: parse error: {name}() is experimental and must be enabled with \
                 --enable-feature=promql-experimental-functions"
            )));
        }
        let samples = self.vector(&aggregate.inner, at)?;
        match op {
            AggregateOp::CountValues => return self.count_values(aggregate, samples),
            AggregateOp::TopK | AggregateOp::BottomK | AggregateOp::LimitK | AggregateOp::LimitRatio => {
                return self.pick(aggregate, samples, at);
            }
            _ => {}
        }
        let parameter = match (op, &aggregate.param) {
            (AggregateOp::Quantile, Some(param)) => {
                let q = self.scalar(param, at)?;
                self.check_quantile(q, "quantile");
                q
            }
            _ => f64::NAN,
        };
        let mut groups = Groups::new(&aggregate.grouping);
        let mut states: Vec<State> = Vec::new();
        for sample in &samples {
            let (group, is_new) = groups.enter(&sample.labels);
            if is_new {
                states.push(State::new(op));
            }
            states[group].add(sample.value);
        }
        let finished = states.into_iter().map(|state| state.finish(op, parameter));
        Ok(groups.labels().zip(finished).map(|(labels, value)| Sample { labels, value }).collect())
    }

    /// Warns about a quantile outside [0, 1].
    pub(crate) fn check_quantile(&self, q: f64, near: &str) {
        if q.is_nan() || !(0.0..=1.0).contains(&q) {
            let message = format!("quantile value should be between 0 and 1, got {}", format_float(q));
            self.warn(&message, near);
        }
    }

    fn count_values(&self, aggregate: &Aggregate, samples: Vec<Sample>) -> Result<Vec<Sample>, QueryError> {
        let label = self.string(parameter(aggregate)?)?;
        if !self.is_label_name(label) {
            return Err(QueryError::execution(format!("invalid label name {}", quote(label))));
        }
        let mut counts: Vec<Sample> = Vec::new();
        let mut places: BTreeMap<Labels, usize> = BTreeMap::new();
        for sample in samples {
            let mut builder = aggregate.grouping.of(&sample.labels).to_builder();
            builder.set(label, format_plain(sample.value));
            let labels = builder.build();
            let place = *places.entry(labels.clone()).or_insert_with(|| {
                counts.push(Sample { labels, value: 0.0 });
                counts.len() - 1
            });
            counts[place].value += 1.0;
        }
        Ok(counts)
    }

    /// `topk` and its kin: some of the series, unchanged.
    fn pick(&self, aggregate: &Aggregate, samples: Vec<Sample>, at: i64) -> Result<Vec<Sample>, QueryError> {
        let parameter = self.scalar(parameter(aggregate)?, at)?;
        if parameter.is_nan() {
            let what = if aggregate.op == AggregateOp::LimitRatio { "Ratio" } else { "Parameter" };
            return Err(QueryError::execution(format!("{what} value is NaN")));
        }
        if aggregate.op == AggregateOp::LimitRatio {
            let ratio = parameter.clamp(-1.0, 1.0);
            if ratio != parameter {
                let message = format!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    format_float(parameter),
                    format_float(ratio)
                );
                self.warn(&message, "limit_ratio");
            }
            return Ok(samples.into_iter().filter(|sample| in_ratio(sample, ratio)).collect());
        }
        if parameter >= i64::MAX as f64 {
            return Err(QueryError::execution(format!("Scalar value {parameter} overflows int64")));
        }
        if parameter <= i64::MIN as f64 {
            return Err(QueryError::execution(format!("Scalar value {parameter} underflows int64")));
        }
        let wanted = parameter.max(0.0) as usize;
        let mut groups = Groups::new(&aggregate.grouping);
        let mut members: Vec<Vec<Sample>> = Vec::new();
        for sample in samples {
            let (group, is_new) = groups.enter(&sample.labels);
            if is_new {
                members.push(Vec::new());
            }
            members[group].push(sample);
        }
        for group in &mut members {
            match aggregate.op {
                AggregateOp::TopK => group.sort_by(|a, b| nan_first(b.value, a.value)),
                // NaN loses here too, so it goes last.
                AggregateOp::BottomK => group.sort_by(|a, b| match (a.value.is_nan(), b.value.is_nan()) {
                    (false, false) => nan_first(a.value, b.value),
                    (a, b) => a.cmp(&b),
                }),
                _ => {}
            }
            group.truncate(wanted);
        }
        Ok(members.into_iter().flatten().collect())
    }

    /// Whether a text may name a label: Prometheus 3 takes any text, Prometheus 2 letters, digits and `_`.
    pub(crate) fn is_label_name(&self, name: &str) -> bool {
        if !self.options.closed_left {
            return !name.is_empty();
        }
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    /// The samples, unless a label set is there twice, as after functions that change labels.
    pub(crate) fn unique(&self, samples: Vec<Sample>) -> Result<Output, QueryError> {
        check_unique(&samples)?;
        Ok(Output::Vector(samples))
    }
}

fn parameter(aggregate: &Aggregate) -> Result<&crate::ast::Node, QueryError> {
    aggregate.param.as_ref().ok_or_else(|| QueryError::execution("the aggregation needs a parameter"))
}

/// Whether a series belongs to the share of `limit_ratio`: a positive ratio takes from the low hashes, a negative one
/// the complement.
fn in_ratio(sample: &Sample, ratio: f64) -> bool {
    let mut hasher = FixedHasher::default();
    sample.labels.hash(&mut hasher);
    let offset = hasher.finish() as f64 / u64::MAX as f64;
    if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}

/// A group's running state or, for the few aggregations that need them, all its values.
enum State {
    Sum(KahanSum),
    Max(f64),
    Min(f64),
    Count(f64),
    Spread(Spread),
    All(Vec<f64>),
}

impl State {
    fn new(op: AggregateOp) -> State {
        match op {
            AggregateOp::Sum => State::Sum(KahanSum::default()),
            AggregateOp::Max => State::Max(f64::NAN),
            AggregateOp::Min => State::Min(f64::NAN),
            AggregateOp::Stddev | AggregateOp::Stdvar => State::Spread(Spread::default()),
            AggregateOp::Avg | AggregateOp::Quantile => State::All(Vec::new()),
            _ => State::Count(0.0),
        }
    }

    fn add(&mut self, value: f64) {
        match self {
            State::Sum(sum) => sum.add(value),
            State::Max(best) if *best < value || best.is_nan() => *best = value,
            State::Min(best) if *best > value || best.is_nan() => *best = value,
            State::Max(_) | State::Min(_) => {}
            State::Count(count) => *count += 1.0,
            State::Spread(spread) => spread.add(value),
            State::All(values) => values.push(value),
        }
    }

    fn finish(self, op: AggregateOp, parameter: f64) -> f64 {
        match (self, op) {
            (State::Sum(sum), _) => sum.total(),
            (State::Max(value) | State::Min(value), _) => value,
            (State::Count(_), AggregateOp::Group) => 1.0,
            (State::Count(count), _) => count,
            (State::Spread(spread), AggregateOp::Stddev) => spread.variance().sqrt(),
            (State::Spread(spread), _) => spread.variance(),
            (State::All(values), AggregateOp::Avg) => mean(&values),
            (State::All(mut values), _) => quantile(parameter, &mut values),
        }
    }
}
