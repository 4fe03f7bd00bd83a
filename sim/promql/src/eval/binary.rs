//! Binary operators: arithmetic, comparison, sets, and how the series of two sides find one another.

use std::collections::BTreeMap;

use super::{Computed, Instant, Outcome, Sample};
use crate::ast::{Binary, BinaryOp, Cardinality, Grouping};
use crate::error::QueryError;
use crate::labels::{Labels, METRIC_NAME};

impl Instant<'_> {
    pub(super) fn binary(&self, binary: &Binary) -> Outcome<Computed> {
        let (left, right) = (self.eval(&binary.left)?, self.eval(&binary.right)?);
        let op = binary.op;
        Ok(match (left, right) {
            (Computed::Scalar(left), Computed::Scalar(right)) => {
                let value = match compare(op, left, right) {
                    Some(holds) => f64::from(u8::from(holds)),
                    None => arithmetic(op, left, right),
                };
                Computed::Scalar(value)
            }
            (Computed::Vector(samples), Computed::Scalar(scalar)) => {
                Computed::Vector(with_scalar(binary, samples, |value| (value, scalar)))
            }
            (Computed::Scalar(scalar), Computed::Vector(samples)) => {
                Computed::Vector(with_scalar(binary, samples, |value| (scalar, value)))
            }
            (Computed::Vector(left), Computed::Vector(right)) if op.is_set() => {
                Computed::Vector(sets(binary, left, right))
            }
            (Computed::Vector(left), Computed::Vector(right)) => {
                Computed::Vector(matched(binary, left, right)?)
            }
            _ => {
                return Err(QueryError::execution(
                    "binary expression must contain only scalar and instant vector types",
                ));
            }
        })
    }
}

fn compare(op: BinaryOp, left: f64, right: f64) -> Option<bool> {
    Some(match op {
        BinaryOp::Equal => left == right,
        BinaryOp::NotEqual => left != right,
        BinaryOp::Greater => left > right,
        BinaryOp::Less => left < right,
        BinaryOp::GreaterOrEqual => left >= right,
        BinaryOp::LessOrEqual => left <= right,
        _ => return None,
    })
}

fn arithmetic(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Atan2 => left.atan2(right),
        _ => f64::NAN,
    }
}

/// The result of one pair: a value, or nothing where a comparison filters it out. `kept` is the value that stays.
fn pair(binary: &Binary, left: f64, right: f64, kept: f64) -> Option<f64> {
    match compare(binary.op, left, right) {
        None => Some(arithmetic(binary.op, left, right)),
        Some(holds) if binary.as_bool => Some(f64::from(u8::from(holds))),
        Some(true) => Some(kept),
        Some(false) => None,
    }
}

fn drops_name(binary: &Binary) -> bool {
    !binary.op.is_comparison() || binary.as_bool
}

fn with_scalar(binary: &Binary, samples: Vec<Sample>, sides: impl Fn(f64) -> (f64, f64)) -> Vec<Sample> {
    samples
        .into_iter()
        .filter_map(|sample| {
            let (left, right) = sides(sample.value);
            let value = pair(binary, left, right, sample.value)?;
            let labels = if drops_name(binary) { sample.labels.without_name() } else { sample.labels };
            Some(Sample { labels, value })
        })
        .collect()
}

/// The labels by which two sides match.
fn signature(labels: &Labels, matching: &Grouping) -> Labels {
    match matching {
        Grouping::Only(names) => labels.filtered(|name| names.iter().any(|wanted| wanted == name)),
        Grouping::Without(names) => {
            labels.filtered(|name| name != METRIC_NAME && !names.iter().any(|unwanted| unwanted == name))
        }
    }
}

fn sets(binary: &Binary, left: Vec<Sample>, right: Vec<Sample>) -> Vec<Sample> {
    use std::collections::BTreeSet;
    let of = |samples: &[Sample]| -> BTreeSet<Labels> {
        samples.iter().map(|sample| signature(&sample.labels, &binary.matching)).collect()
    };
    match binary.op {
        BinaryOp::Or => {
            let known = of(&left);
            let new = right
                .into_iter()
                .filter(|sample| !known.contains(&signature(&sample.labels, &binary.matching)));
            left.into_iter().chain(new).collect()
        }
        op => {
            let known = of(&right);
            let wanted = op == BinaryOp::And;
            let keep =
                |sample: &Sample| known.contains(&signature(&sample.labels, &binary.matching)) == wanted;
            left.into_iter().filter(keep).collect()
        }
    }
}

fn matched(binary: &Binary, left: Vec<Sample>, right: Vec<Sample>) -> Outcome<Vec<Sample>> {
    // The "one" side is looked up, the "many" side walked over.
    let swapped = matches!(binary.cardinality, Cardinality::OneToMany(_));
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let (fill_many, fill_one) = if swapped { (binary.fill.1, binary.fill.0) } else { binary.fill };
    let mut partners: BTreeMap<Labels, (Sample, bool)> = BTreeMap::new();
    for sample in one {
        let key = signature(&sample.labels, &binary.matching);
        if let Some((other, _)) = partners.get(&key) {
            let side = if swapped { "left" } else { "right" };
            return Err(QueryError::execution(format!(
                "found duplicate series for the match group {key} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                sample.labels, other.labels
            )));
        }
        partners.insert(key, (sample, false));
    }
    let mut results: Vec<Sample> = Vec::new();
    let mut taken: BTreeMap<Labels, ()> = BTreeMap::new();
    let combine = |many: &Sample, one: &Sample| -> Option<Sample> {
        let (left, right) = if swapped { (one.value, many.value) } else { (many.value, one.value) };
        let kept = left;
        let value = pair(binary, left, right, kept)?;
        Some(Sample { labels: result_labels(binary, &many.labels, &one.labels), value })
    };
    for sample in &many {
        let key = signature(&sample.labels, &binary.matching);
        let filled;
        let partner = match partners.get_mut(&key) {
            Some((partner, used)) => {
                *used = true;
                &*partner
            }
            None => match fill_one {
                Some(value) => {
                    filled = Sample { labels: key.clone(), value };
                    &filled
                }
                None => continue,
            },
        };
        let Some(result) = combine(sample, partner) else { continue };
        let identity = match binary.cardinality {
            Cardinality::OneToOne => key,
            _ => result.labels.clone(),
        };
        if taken.insert(identity, ()).is_some() {
            return Err(QueryError::execution(match binary.cardinality {
                Cardinality::OneToOne => {
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                }
                _ => "multiple matches for labels: grouping labels must ensure unique matches",
            }));
        }
        results.push(result);
    }
    if let Some(value) = fill_many {
        for (key, (partner, used)) in &partners {
            if !used {
                let filled = Sample { labels: key.clone(), value };
                results.extend(combine(&filled, partner));
            }
        }
    }
    Ok(results)
}

fn result_labels(binary: &Binary, many: &Labels, one: &Labels) -> Labels {
    let base = if drops_name(binary) { many.without_name() } else { many.clone() };
    match &binary.cardinality {
        Cardinality::OneToOne => match &binary.matching {
            Grouping::Only(names) => base.filtered(|name| {
                names.iter().any(|wanted| wanted == name) || (name == METRIC_NAME && !drops_name(binary))
            }),
            Grouping::Without(names) => base.filtered(|name| !names.iter().any(|unwanted| unwanted == name)),
        },
        Cardinality::ManyToOne(include) | Cardinality::OneToMany(include) => {
            let mut labels = base.to_builder();
            for name in include {
                // A label that the one side lacks is removed.
                labels.set(name.as_str(), one.get(name).unwrap_or_default());
            }
            labels.build()
        }
    }
}
