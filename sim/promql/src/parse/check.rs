//! Whether operands have the types that operators, functions and aggregations take.

use crate::ast::{AggregateOp, BinaryOp, Cardinality, Grouping, Kind};
use crate::functions::Function;

use super::grammar::{Modifiers, Parsed, Parser};

impl Parser<'_> {
    fn check_kind(&mut self, parsed: &Parsed, wanted: Kind, context: &str) {
        let kind = parsed.node.kind();
        if kind != wanted {
            self.mistyped(parsed.start, format!("expected type {wanted} in {context}, got {kind}"));
        }
    }

    pub(super) fn check_call(&mut self, function: Function, at: usize, args: &[Parsed]) {
        let (name, got) = (function.name(), args.len());
        let signature = function.signature();
        let (least, most) = (signature.required, signature.most());
        let wrong = match most {
            Some(most) if least == most && got != most => Some(format!("expected {most} argument(s)")),
            _ if got < least => Some(format!("expected at least {least} argument(s)")),
            Some(most) if got > most => Some(format!("expected at most {most} argument(s)")),
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.mistyped(at, format!("{wrong} in call to \"{name}\", got {got}"));
        }
        for (index, arg) in args.iter().enumerate() {
            let Some(wanted) = signature.args.get(index).or(signature.args.last()) else { return };
            self.check_kind(arg, *wanted, &format!("call to function \"{name}\""));
        }
    }

    pub(super) fn check_aggregate(&mut self, op: AggregateOp, args: &[Parsed]) {
        let Some((inner, params)) = args.split_last() else { return };
        self.check_kind(inner, Kind::Vector, "aggregation expression");
        for param in params {
            let wanted = if op == AggregateOp::CountValues { Kind::Text } else { Kind::Scalar };
            self.check_kind(param, wanted, "aggregation parameter");
        }
    }

    /// `op` with where and how it is written.
    pub(super) fn check_binary(
        &mut self,
        op: BinaryOp,
        (at, text): (usize, &str),
        modifiers: &Modifiers,
        left: &Parsed,
        right: &Parsed,
    ) {
        if modifiers.as_bool && !op.is_comparison() {
            self.mistyped(at, "bool modifier can only be used on comparison operators".into());
        }
        let kinds = (left.node.kind(), right.node.kind());
        if op.is_comparison() && !modifiers.as_bool && kinds == (Kind::Scalar, Kind::Scalar) {
            self.mistyped(at, "comparisons between scalars must use BOOL modifier".into());
        }
        if op.is_set() && modifiers.cardinality != Cardinality::OneToOne {
            self.mistyped(
                left.start,
                format!("no grouping allowed for {:?} operation", text.to_ascii_lowercase()),
            );
        }
        if let (Some(Grouping::Only(on)), Cardinality::ManyToOne(included) | Cardinality::OneToMany(included)) =
            (&modifiers.matching, &modifiers.cardinality)
            && let Some(both) = on.iter().find(|label| included.contains(label))
        {
            self.mistyped(at, format!("label {both:?} must not occur in ON and GROUP clause at once"));
        }
        for side in [left, right] {
            if !matches!(side.node.kind(), Kind::Scalar | Kind::Vector) {
                self.mistyped(
                    side.start,
                    "binary expression must contain only scalar and instant vector types".into(),
                );
            }
        }
        if kinds != (Kind::Vector, Kind::Vector) {
            if modifiers.matching.as_ref().is_some_and(|matching| match matching {
                Grouping::Only(labels) | Grouping::Without(labels) => !labels.is_empty(),
            }) {
                self.mistyped(left.start, "vector matching only allowed between instant vectors".into());
            } else if op.is_set() {
                self.mistyped(
                    left.start,
                    format!(
                        "set operator {:?} not allowed in binary scalar expression",
                        text.to_ascii_lowercase()
                    ),
                );
            }
        }
    }
}
