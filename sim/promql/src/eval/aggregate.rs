//! Aggregations: `sum by (le) (…)` and the rest.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{Instant, Outcome, Sample};
use crate::ast::{Aggregate, AggregateOp, Grouping};
use crate::error::QueryError;
use crate::format::format_plain;
use crate::functions::over_time::{mean, quantile, variance};
use crate::hash::FixedState;
use crate::labels::{Labels, METRIC_NAME};

impl Instant<'_> {
    pub(super) fn aggregate(&self, aggregate: &Aggregate) -> Outcome<Vec<Sample>> {
        use AggregateOp::*;
        let samples = self.vector(&aggregate.inner)?;
        let param = match (&aggregate.param, aggregate.op) {
            (Some(param), TopK | BottomK | Quantile | LimitK | LimitRatio) => self.scalar(param)?,
            _ => 0.0,
        };
        let name = match (&aggregate.param, aggregate.op) {
            (Some(param), CountValues) => self.text(param)?,
            _ => String::new(),
        };
        if aggregate.op == CountValues {
            return count_values(samples, &aggregate.grouping, &name);
        }
        // Groups come in the order of their first sample.
        let mut groups: IndexMap<Labels, Vec<Sample>, FixedState> = IndexMap::default();
        for sample in samples {
            groups.entry(group_labels(&sample.labels, &aggregate.grouping)).or_default().push(sample);
        }
        let mut results = Vec::with_capacity(groups.len());
        for (labels, members) in groups {
            let values = || members.iter().map(|sample| sample.value);
            let value = match aggregate.op {
                Sum => values().sum(),
                Avg => mean(&values().collect::<Vec<_>>()),
                Min => values().fold(
                    f64::NAN,
                    |least, value| if value < least || least.is_nan() { value } else { least },
                ),
                Max => values()
                    .fold(f64::NAN, |most, value| if value > most || most.is_nan() { value } else { most }),
                Count => members.len() as f64,
                Group => 1.0,
                Stdvar => variance(&values().collect::<Vec<_>>()),
                Stddev => variance(&values().collect::<Vec<_>>()).sqrt(),
                Quantile => quantile(param, &mut values().collect::<Vec<_>>()),
                TopK | BottomK => {
                    results.extend(ranked(members, param, aggregate.op == TopK)?);
                    continue;
                }
                LimitK => {
                    results.extend(members.into_iter().take(count_of(param)?));
                    continue;
                }
                LimitRatio => {
                    let ratio = param.clamp(-1.0, 1.0);
                    let kept = (members.len() as f64 * ratio.abs()).round() as usize;
                    let skipped = if ratio < 0.0 { members.len() - kept } else { 0 };
                    results.extend(members.into_iter().skip(skipped).take(kept));
                    continue;
                }
                CountValues => continue,
            };
            results.push(Sample { labels, value });
        }
        Ok(results)
    }
}

fn group_labels(labels: &Labels, grouping: &Grouping) -> Labels {
    match grouping {
        Grouping::Only(names) if names.is_empty() => Labels::default(),
        Grouping::Only(names) => labels.filtered(|name| names.iter().any(|wanted| wanted == name)),
        Grouping::Without(names) => {
            labels.filtered(|name| name != METRIC_NAME && !names.iter().any(|unwanted| unwanted == name))
        }
    }
}

fn count_of(param: f64) -> Outcome<usize> {
    if param.is_nan() {
        return Err(QueryError::execution("Parameter value is NaN"));
    }
    Ok(param.clamp(0.0, 1e9) as usize)
}

/// The greatest or least members, best first; NaN is worse than any number.
fn ranked(mut members: Vec<Sample>, param: f64, greatest: bool) -> Outcome<Vec<Sample>> {
    let count = count_of(param)?;
    members.sort_by(|a, b| match (a.value.is_nan(), b.value.is_nan()) {
        (false, false) if greatest => b.value.total_cmp(&a.value),
        (false, false) => a.value.total_cmp(&b.value),
        (a, b) => a.cmp(&b),
    });
    members.truncate(count);
    Ok(members)
}

fn count_values(samples: Vec<Sample>, grouping: &Grouping, name: &str) -> Outcome<Vec<Sample>> {
    let valid = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid {
        return Err(QueryError::execution(format!("invalid label name {name:?}")));
    }
    let mut counts: BTreeMap<Labels, f64> = BTreeMap::new();
    for sample in samples {
        let mut labels = group_labels(&sample.labels, grouping).to_builder();
        labels.set(name, format_plain(sample.value));
        *counts.entry(labels.build()).or_default() += 1.0;
    }
    Ok(counts.into_iter().map(|(labels, value)| Sample { labels, value }).collect())
}
