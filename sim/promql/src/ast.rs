//! The checked tree of a query: names resolved, durations in milliseconds, types sound.

use std::fmt;

use crate::functions::Function;
use crate::matcher::Matcher;

/// What an expression gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    Text,
    Vector,
    Matrix,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Scalar => "scalar",
            Kind::Text => "string",
            Kind::Vector => "instant vector",
            Kind::Matrix => "range vector",
        })
    }
}

/// An expression.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Number(f64),
    Text(String),
    Selector(Selector),
    /// A selector over `range_ms`.
    Range(Selector, i64),
    Subquery(Box<Subquery>),
    Call(Function, Vec<Node>),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Negate(Box<Node>),
    /// An expression whose value does not depend on the step: evaluated once.
    Constant(Box<Node>),
}

impl Node {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Node::Number(_) => Kind::Scalar,
            Node::Text(_) => Kind::Text,
            Node::Selector(_) | Node::Aggregate(_) => Kind::Vector,
            Node::Range(..) | Node::Subquery(_) => Kind::Matrix,
            Node::Call(function, _) => function.gives(),
            Node::Binary(binary) => match (binary.left.kind(), binary.right.kind()) {
                (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
                _ => Kind::Vector,
            },
            Node::Negate(inner) | Node::Constant(inner) => inner.kind(),
        }
    }
}

/// Which series, and when.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub matchers: Vec<Matcher>,
    pub when: When,
}

/// `@` and `offset`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct When {
    pub at: Option<At>,
    pub offset_ms: i64,
}

/// The time that `@` names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum At {
    Start,
    End,
    Time(i64),
}

/// `expr[range:step]`.
#[derive(Clone, Debug)]
pub(crate) struct Subquery {
    pub inner: Node,
    pub range_ms: i64,
    /// The engine's default where none is given.
    pub step_ms: Option<i64>,
    pub when: When,
}

/// `by` or `without`, `on` or `ignoring`.
#[derive(Clone, Debug)]
pub(crate) enum Grouping {
    /// Only these labels.
    Only(Vec<String>),
    /// All but these labels and the metric's name.
    Without(Vec<String>),
}

/// An aggregation's operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    TopK,
    BottomK,
    Quantile,
    CountValues,
    LimitK,
    LimitRatio,
}

impl AggregateOp {
    /// The aggregation of that name, in lower case.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "sum" => AggregateOp::Sum,
            "avg" => AggregateOp::Avg,
            "min" => AggregateOp::Min,
            "max" => AggregateOp::Max,
            "count" => AggregateOp::Count,
            "group" => AggregateOp::Group,
            "stddev" => AggregateOp::Stddev,
            "stdvar" => AggregateOp::Stdvar,
            "topk" => AggregateOp::TopK,
            "bottomk" => AggregateOp::BottomK,
            "quantile" => AggregateOp::Quantile,
            "count_values" => AggregateOp::CountValues,
            "limitk" => AggregateOp::LimitK,
            "limit_ratio" => AggregateOp::LimitRatio,
            _ => return None,
        })
    }

    /// Whether a parameter comes before the vector.
    pub(crate) fn has_parameter(self) -> bool {
        use AggregateOp::{BottomK, CountValues, LimitK, LimitRatio, Quantile, TopK};
        matches!(self, TopK | BottomK | Quantile | CountValues | LimitK | LimitRatio)
    }
}

/// An aggregation.
#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    pub op: AggregateOp,
    pub inner: Node,
    pub param: Option<Node>,
    pub grouping: Grouping,
}

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// How tightly it binds.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And | BinaryOp::Unless => 2,
            _ if self.is_comparison() => 3,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Pow => 6,
            _ => 5,
        }
    }

    pub(crate) fn is_comparison(self) -> bool {
        use BinaryOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        matches!(self, Equal | NotEqual | Greater | Less | GreaterOrEqual | LessOrEqual)
    }

    pub(crate) fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

/// How many series of one side may match one of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cardinality {
    OneToOne,
    /// `group_left(…)`: the left side has many; these labels come from the right.
    ManyToOne(Vec<String>),
    /// `group_right(…)`.
    OneToMany(Vec<String>),
}

/// A binary operation.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    pub op: BinaryOp,
    pub left: Node,
    pub right: Node,
    /// `bool`: comparisons give 0 or 1.
    pub as_bool: bool,
    pub matching: Grouping,
    pub cardinality: Cardinality,
    /// Values that stand in for a missing partner on the left and the right.
    pub fill: (Option<f64>, Option<f64>),
}
