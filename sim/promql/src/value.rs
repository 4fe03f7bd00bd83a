//! What a query gives.

use std::collections::BTreeSet;

use crate::Labels;

/// The answer to an instant or range query.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One number at the query's time.
    Scalar(f64),
    /// A string literal.
    Text(String),
    /// One sample per series, in the evaluation's order.
    Vector(Vec<InstantSample>),
    /// Samples over time per series.
    Matrix(Vec<RangeSeries>),
}

/// One series' value at the query's time.
#[derive(Clone, Debug, PartialEq)]
pub struct InstantSample {
    /// The series.
    pub labels: Labels,
    /// The evaluation's time, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The value.
    pub value: f64,
}

/// One series' values over time.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSeries {
    /// The series.
    pub labels: Labels,
    /// Times in milliseconds since the Unix epoch, and values; times ascend.
    pub points: Vec<(i64, f64)>,
}

/// Remarks on an answer, in Prometheus' words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// The answer may be wrong.
    pub warnings: BTreeSet<String>,
    /// The answer may not mean what was asked.
    pub infos: BTreeSet<String>,
}

/// An answer with its remarks.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The answer.
    pub value: Value,
    /// Remarks on it.
    pub annotations: Annotations,
}
