//! Binary operators: arithmetic, comparisons, set operators, and the matching of series between two vectors.

use std::collections::BTreeSet;

use super::group::Groups;
use super::{Evaluator, Output, Sample, drop_names};
use crate::ast::{Binary, BinaryOp, Cardinality, Grouping};
use crate::error::QueryError;
use crate::labels::{Labels, METRIC_NAME};

/// The operator on two numbers. Comparisons give their left operand, and whether they hold.
fn apply(op: BinaryOp, left: f64, right: f64) -> (f64, bool) {
    match op {
        BinaryOp::Add => (left + right, true),
        BinaryOp::Sub => (left - right, true),
        BinaryOp::Mul => (left * right, true),
        BinaryOp::Div => (left / right, true),
        BinaryOp::Mod => (left % right, true),
        BinaryOp::Pow => (left.powf(right), true),
        BinaryOp::Atan2 => (left.atan2(right), true),
        BinaryOp::Equal => (left, left == right),
        BinaryOp::NotEqual => (left, left != right),
        BinaryOp::Greater => (left, left > right),
        BinaryOp::Less => (left, left < right),
        BinaryOp::GreaterOrEqual => (left, left >= right),
        BinaryOp::LessOrEqual => (left, left <= right),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => (left, true),
    }
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

impl Evaluator<'_> {
    pub(super) fn binary(&self, binary: &Binary, at: i64) -> Result<Output, QueryError> {
        let op = binary.op;
        let (left, right) = (self.eval(&binary.left, at)?, self.eval(&binary.right, at)?);
        match (left, right) {
            (Output::Scalar(left), Output::Scalar(right)) => {
                let (value, holds) = apply(op, left, right);
                Ok(Output::Scalar(if op.is_comparison() { truth(holds) } else { value }))
            }
            (Output::Vector(samples), Output::Scalar(scalar)) => {
                with_scalar(binary, samples, |value| apply(op, value, scalar))
            }
            (Output::Scalar(scalar), Output::Vector(samples)) => with_scalar(binary, samples, |value| {
                let (result, holds) = apply(op, scalar, value);
                // A filter lets the vector's own value through.
                (if op.is_comparison() { value } else { result }, holds)
            }),
            (Output::Vector(left), Output::Vector(right)) if op.is_set() => {
                Ok(Output::Vector(set(binary, left, right)))
            }
            (Output::Vector(left), Output::Vector(right)) => vectors(binary, left, right).map(Output::Vector),
            _ => Err(QueryError::execution("strings cannot be operands")),
        }
    }
}

fn drops_name(binary: &Binary) -> bool {
    binary.as_bool || !(binary.op.is_comparison() || binary.op.is_set())
}

fn with_scalar(
    binary: &Binary,
    mut samples: Vec<Sample>,
    operate: impl Fn(f64) -> (f64, bool),
) -> Result<Output, QueryError> {
    samples.retain_mut(|sample| {
        let (value, holds) = operate(sample.value);
        sample.value = if binary.as_bool { truth(holds) } else { value };
        binary.as_bool || holds
    });
    if drops_name(binary) {
        drop_names(&mut samples)?;
    }
    Ok(Output::Vector(samples))
}

fn set(binary: &Binary, mut left: Vec<Sample>, mut right: Vec<Sample>) -> Vec<Sample> {
    let mut groups = Groups::new(&binary.matching);
    if binary.op == BinaryOp::Or {
        for sample in &left {
            groups.enter(&sample.labels);
        }
        right.retain(|sample| groups.find(&sample.labels).is_none());
        left.append(&mut right);
    } else {
        for sample in &right {
            groups.enter(&sample.labels);
        }
        left.retain(|sample| groups.find(&sample.labels).is_some() == (binary.op == BinaryOp::And));
    }
    left
}

fn vectors(binary: &Binary, left: Vec<Sample>, right: Vec<Sample>) -> Result<Vec<Sample>, QueryError> {
    // From here on `many` may have several series per match group, `one` has a single one.
    let swapped = matches!(binary.cardinality, Cardinality::OneToMany(_));
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let (fill_many, fill_one) = if swapped { (binary.fill.1, binary.fill.0) } else { binary.fill };
    if (many.is_empty() && fill_many.is_none()) || (one.is_empty() && fill_one.is_none()) {
        return Ok(Vec::new());
    }
    let mut groups = Groups::new(&binary.matching);
    let mut ones: Vec<&Sample> = Vec::with_capacity(one.len());
    for sample in &one {
        let (group, is_new) = groups.enter(&sample.labels);
        if !is_new {
            let side = if swapped { "left" } else { "right" };
            return Err(QueryError::execution(format!(
                "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];\
                 many-to-many matching not allowed: matching labels must be unique on one side",
                binary.matching.of(&sample.labels),
                sample.labels,
                ones[group].labels
            )));
        }
        ones.push(sample);
    }
    let is_one_to_one = binary.cardinality == Cardinality::OneToOne;
    let (mut met, mut used) = (vec![false; ones.len()], vec![false; ones.len()]);
    let mut result: Vec<Sample> = Vec::with_capacity(many.len());
    let combine = |many_labels: &Labels, many: f64, one_labels: &Labels, one: f64| {
        let (left, right) = if swapped { (one, many) } else { (many, one) };
        let (value, holds) = apply(binary.op, left, right);
        (holds || binary.as_bool).then(|| Sample {
            labels: result_labels(binary, many_labels, one_labels),
            value: if binary.as_bool { truth(holds) } else { value },
        })
    };
    for sample in &many {
        let Some(group) = groups.find(&sample.labels) else {
            if let Some(fill) = fill_one {
                result.extend(combine(
                    &sample.labels,
                    sample.value,
                    &binary.matching.of(&sample.labels),
                    fill,
                ));
            }
            continue;
        };
        met[group] = true;
        if let Some(found) = combine(&sample.labels, sample.value, &ones[group].labels, ones[group].value) {
            if is_one_to_one && used[group] {
                return Err(QueryError::execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
            used[group] = true;
            result.push(found);
        }
    }
    if let Some(fill) = fill_many {
        for (sample, _) in ones.iter().zip(&met).filter(|(_, met)| !**met) {
            result.extend(combine(&binary.matching.of(&sample.labels), fill, &sample.labels, sample.value));
        }
    }
    if !is_one_to_one {
        let mut seen = BTreeSet::new();
        if result.iter().any(|sample| !seen.insert(&sample.labels)) {
            return Err(QueryError::execution(
                "multiple matches for labels: grouping labels must ensure unique matches",
            ));
        }
    }
    Ok(result)
}

fn result_labels(binary: &Binary, many: &Labels, one: &Labels) -> Labels {
    let drops_name = drops_name(binary);
    let included = match &binary.cardinality {
        Cardinality::OneToOne => {
            return many.filtered(|name| {
                let kept = match &binary.matching {
                    Grouping::Only(names) => names.iter().any(|kept| kept == name),
                    Grouping::Without(names) => !names.iter().any(|dropped| dropped == name),
                };
                kept && !(drops_name && name == METRIC_NAME)
            });
        }
        Cardinality::ManyToOne(included) | Cardinality::OneToMany(included) => included,
    };
    if included.is_empty() {
        return if drops_name { many.without_name() } else { many.clone() };
    }
    let mut builder = many.to_builder();
    if drops_name {
        builder.remove(METRIC_NAME);
    }
    for name in included {
        match one.value(name) {
            Some(value) => builder.set(name.as_str(), value.clone()),
            None => builder.remove(name),
        }
    }
    builder.build()
}
