//! Functions that change or sort by labels.

use std::cmp::Ordering;

use crate::ast::Node;
use crate::error::QueryError;
use crate::eval::{Evaluator, Output, Sample};
use crate::format::quote;
use crate::matcher::anchored;

/// `label_replace(v, dst, replacement, src, regex)`.
pub(super) fn replace(evaluator: &Evaluator<'_>, args: &[Node], at: i64) -> Result<Output, QueryError> {
    let text = |index: usize| evaluator.string(&args[index]);
    let (dst, replacement, src, pattern) = (text(1)?, text(2)?, text(3)?, text(4)?);
    let regex = anchored(pattern).map_err(|_| {
        QueryError::execution(format!("invalid regular expression in label_replace(): {pattern}"))
    })?;
    if !evaluator.is_label_name(dst) {
        return Err(QueryError::execution(format!(
            "invalid destination label name in label_replace(): {dst}"
        )));
    }
    let mut samples = evaluator.vector(&args[0], at)?;
    for sample in &mut samples {
        let value = sample.labels.get(src).unwrap_or_default();
        if let Some(captures) = regex.captures(value) {
            let mut expanded = String::new();
            captures.expand(replacement, &mut expanded);
            set(sample, dst, &expanded);
        }
    }
    evaluator.unique(samples)
}

/// `label_join(v, dst, separator, src...)`.
pub(super) fn join(evaluator: &Evaluator<'_>, args: &[Node], at: i64) -> Result<Output, QueryError> {
    let (dst, separator) = (evaluator.string(&args[1])?, evaluator.string(&args[2])?);
    let sources = args[3..].iter().map(|arg| evaluator.string(arg)).collect::<Result<Vec<_>, _>>()?;
    if let Some(bad) = sources.iter().find(|name| !evaluator.is_label_name(name)) {
        return Err(QueryError::execution(format!("invalid source label name in label_join(): {bad}")));
    }
    if !evaluator.is_label_name(dst) {
        return Err(QueryError::execution(format!("invalid destination label name in label_join(): {dst}")));
    }
    let mut samples = evaluator.vector(&args[0], at)?;
    for sample in &mut samples {
        let values: Vec<&str> =
            sources.iter().map(|name| sample.labels.get(name).unwrap_or_default()).collect();
        let joined = values.join(separator);
        set(sample, dst, &joined);
    }
    evaluator.unique(samples)
}

fn set(sample: &mut Sample, name: &str, value: &str) {
    let mut builder = sample.labels.to_builder();
    builder.set(name, value);
    sample.labels = builder.build();
}

/// `sort_by_label(v, label...)`: natural order of the labels' values, then of the whole label sets.
pub(super) fn sort(
    evaluator: &Evaluator<'_>,
    args: &[Node],
    at: i64,
    descending: bool,
) -> Result<Output, QueryError> {
    let names = args[1..].iter().map(|arg| evaluator.string(arg)).collect::<Result<Vec<_>, _>>()?;
    if let Some(bad) = names.iter().find(|name| !evaluator.is_label_name(name)) {
        return Err(QueryError::execution(format!("invalid label name {}", quote(bad))));
    }
    let mut samples = evaluator.vector(&args[0], at)?;
    samples.sort_by(|a, b| {
        let by_names = names.iter().map(|name| {
            natural(a.labels.get(name).unwrap_or_default(), b.labels.get(name).unwrap_or_default())
        });
        let order = by_names.fold(Ordering::Equal, Ordering::then).then_with(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    });
    Ok(Output::Vector(samples))
}

/// Compares texts so that runs of digits count as numbers: `a2` before `a10`.
fn natural(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let number = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (l, r) = (number(left), number(right));
        if l > 0 && r > 0 {
            let (a, b) = (left[..l].trim_start_matches('0'), right[..r].trim_start_matches('0'));
            let order = a.len().cmp(&b.len()).then_with(|| a.cmp(b));
            if order != Ordering::Equal {
                return order;
            }
            (left, right) = (&left[l..], &right[r..]);
            continue;
        }
        match (left.chars().next(), right.chars().next()) {
            (Some(a), Some(b)) if a == b => {
                (left, right) = (&left[a.len_utf8()..], &right[b.len_utf8()..]);
            }
            (a, b) => return a.cmp(&b),
        }
    }
}
