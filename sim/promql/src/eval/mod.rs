//! Evaluation: the engine, its options, and the walk over a query's tree, one step at a time.

mod aggregate;
mod binary;
mod group;
mod select;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use indexmap::IndexMap;

use crate::ast::{At, Node, When};
use crate::error::QueryError;
use crate::functions;
use crate::hash::FixedState;
use crate::labels::{Labels, METRIC_NAME};
use crate::parse::Query;
use crate::storage::Storage;
use crate::value::{Annotations, Evaluation, InstantSample, RangeSeries, Value};

pub(crate) use aggregate::nan_first;
pub(crate) use select::Window;

/// How queries are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How old a sample may be that still counts as a series' value, in milliseconds; 5 minutes by default.
    pub lookback_ms: i64,
    /// Whether windows include their left edge, as in Prometheus 2; Prometheus 3 leaves it out.
    pub closed_left: bool,
    /// The step of subqueries that name none, in milliseconds: Prometheus' global evaluation interval, 1 minute.
    pub default_step_ms: i64,
    /// Whether functions and aggregations that Prometheus calls experimental may be used.
    pub experimental: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { lookback_ms: 300_000, closed_left: false, default_step_ms: 60_000, experimental: false }
    }
}

/// Evaluates queries. Cheap to copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine {
    options: Options,
}

impl Engine {
    /// An engine with these options.
    pub fn new(options: Options) -> Self {
        Engine { options }
    }

    /// The engine's options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The query's value at a time in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`QueryError::Parse`] for an experimental function that is not enabled, [`QueryError::Execution`] in
    /// Prometheus' words otherwise.
    pub fn instant(&self, storage: &Storage, query: &Query, at_ms: i64) -> Result<Evaluation, QueryError> {
        let evaluator = Evaluator::new(self.options, storage, query.text(), (at_ms, at_ms, 0))?;
        let root = strip(&query.root);
        let value = if matches!(root, Node::Range(..) | Node::Subquery(_)) {
            Value::Matrix(evaluator.matrix(root, at_ms)?)
        } else {
            match evaluator.eval(root, at_ms)? {
                Output::Scalar(value) => Value::Scalar(value),
                Output::Text(text) => Value::Text(text),
                Output::Vector(samples) => {
                    check_unique(&samples)?;
                    let of = |Sample { labels, value }| InstantSample { labels, at_ms, value };
                    Value::Vector(samples.into_iter().map(of).collect())
                }
            }
        };
        Ok(Evaluation { value, annotations: evaluator.annotations.into_inner() })
    }

    /// The query's values from `start_ms` to `end_ms`, both included, every `step_ms`. Always a matrix, sorted by
    /// labels; a scalar becomes one series without labels.
    ///
    /// # Errors
    /// As [`Engine::instant`]; also when the step is not positive or the query gives neither scalar nor vector.
    pub fn range(
        &self,
        storage: &Storage,
        query: &Query,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<Evaluation, QueryError> {
        query.check_range()?;
        if step_ms <= 0 {
            return Err(QueryError::execution(
                "zero or negative query resolution step widths are not accepted",
            ));
        }
        let evaluator = Evaluator::new(self.options, storage, query.text(), (start_ms, end_ms, step_ms))?;
        let steps = Steps { at: start_ms, end: end_ms, step: step_ms };
        let mut series = evaluator.collect(&query.root, steps)?;
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Evaluation { value: Value::Matrix(series), annotations: evaluator.annotations.into_inner() })
    }
}

/// A series' value at one step.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub labels: Labels,
    pub value: f64,
}

/// What a node gives at one step.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    Scalar(f64),
    Text(String),
    Vector(Vec<Sample>),
}

/// Times of evaluation, `end` included.
pub(crate) struct Steps {
    at: i64,
    end: i64,
    step: i64,
}

impl Iterator for Steps {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        let at = (self.at <= self.end).then_some(self.at)?;
        self.at = at.saturating_add(self.step);
        Some(at)
    }
}

/// The evaluation of one query.
pub(crate) struct Evaluator<'a> {
    pub options: Options,
    pub storage: &'a Storage,
    text: &'a str,
    /// Start, end and step of the whole query.
    pub bounds: (i64, i64, i64),
    /// The series of each selector, by the selector's address in the tree.
    selections: RefCell<BTreeMap<usize, Rc<[u32]>>>,
    /// Values of constant nodes, by address.
    constants: RefCell<BTreeMap<usize, Output>>,
    annotations: RefCell<Annotations>,
}

impl<'a> Evaluator<'a> {
    fn new(
        options: Options,
        storage: &'a Storage,
        text: &'a str,
        bounds: (i64, i64, i64),
    ) -> Result<Self, QueryError> {
        if options.lookback_ms < 0 || options.default_step_ms <= 0 {
            return Err(QueryError::execution("the engine's lookback and default step must be positive"));
        }
        Ok(Evaluator {
            options,
            storage,
            text,
            bounds,
            selections: RefCell::default(),
            constants: RefCell::default(),
            annotations: RefCell::default(),
        })
    }

    /// The value of a node that is no range.
    pub(crate) fn eval(&self, node: &Node, at: i64) -> Result<Output, QueryError> {
        Ok(match node {
            Node::Number(value) => Output::Scalar(*value),
            Node::Text(text) => Output::Text(text.clone()),
            Node::Selector(selector) => Output::Vector(self.newest(selector, at)),
            Node::Range(..) | Node::Subquery(_) => {
                return Err(QueryError::execution("a range vector has no single value"));
            }
            Node::Call(function, args) => functions::call(self, *function, args, at)?,
            Node::Aggregate(aggregate) => Output::Vector(self.aggregate(aggregate, at)?),
            Node::Binary(binary) => self.binary(binary, at)?,
            Node::Negate(inner) => match self.eval(inner, at)? {
                Output::Vector(mut samples) => {
                    drop_names(&mut samples)?;
                    samples.iter_mut().for_each(|sample| sample.value = -sample.value);
                    Output::Vector(samples)
                }
                Output::Scalar(value) => Output::Scalar(-value),
                text @ Output::Text(_) => text,
            },
            Node::Constant(inner) => {
                let key = std::ptr::from_ref(node).addr();
                if let Some(known) = self.constants.borrow().get(&key) {
                    return Ok(known.clone());
                }
                let value = self.eval(inner, at)?;
                self.constants.borrow_mut().insert(key, value.clone());
                value
            }
        })
    }

    /// The value of a node whose kind is a vector.
    pub(crate) fn vector(&self, node: &Node, at: i64) -> Result<Vec<Sample>, QueryError> {
        match self.eval(node, at)? {
            Output::Vector(samples) => Ok(samples),
            Output::Scalar(_) | Output::Text(_) => Err(QueryError::execution("expected an instant vector")),
        }
    }

    /// The value of a node whose kind is a scalar.
    pub(crate) fn scalar(&self, node: &Node, at: i64) -> Result<f64, QueryError> {
        match self.eval(node, at)? {
            Output::Scalar(value) => Ok(value),
            Output::Vector(_) | Output::Text(_) => Err(QueryError::execution("expected a scalar")),
        }
    }

    /// The text of a string literal.
    pub(crate) fn string<'n>(&self, node: &'n Node) -> Result<&'n str, QueryError> {
        match strip(node) {
            Node::Text(text) => Ok(text),
            _ => Err(QueryError::execution("expected a string")),
        }
    }

    /// The time that a selector looks at when the evaluation is at `at`.
    fn moment(&self, when: &When, at: i64) -> i64 {
        let at = match when.at {
            None => at,
            Some(At::Start) => self.bounds.0,
            Some(At::End) => self.bounds.1,
            Some(At::Time(time)) => time,
        };
        at.saturating_sub(when.offset_ms)
    }

    /// Evaluates a node at each step; series in the order in which they first appear.
    fn collect(&self, node: &Node, steps: Steps) -> Result<Vec<RangeSeries>, QueryError> {
        let mut series: IndexMap<Labels, Vec<(i64, f64)>, FixedState> = IndexMap::default();
        for at in steps {
            match self.eval(node, at)? {
                Output::Scalar(value) => series.entry(Labels::default()).or_default().push((at, value)),
                Output::Text(_) => return Err(QueryError::execution("a string has no values over time")),
                Output::Vector(samples) => {
                    for (position, sample) in samples.into_iter().enumerate() {
                        // A step mostly gives the series of the step before, in the same order.
                        let points = match series.get_index(position) {
                            Some((labels, _)) if labels.is_same(&sample.labels) => &mut series[position],
                            _ => series.entry(sample.labels).or_default(),
                        };
                        if points.last().is_some_and(|(last, _)| *last == at) {
                            return Err(same_labelset());
                        }
                        points.push((at, sample.value));
                    }
                }
            }
        }
        Ok(series.into_iter().map(|(labels, points)| RangeSeries { labels, points }).collect())
    }

    /// Remarks that the answer may be wrong.
    pub(crate) fn warn(&self, message: &str, near: &str) {
        let message = format!("PromQL warning: {message}{}", self.place(near));
        self.annotations.borrow_mut().warnings.insert(message);
    }

    /// Remarks that the query may not mean what was asked.
    pub(crate) fn inform(&self, message: &str, near: &str) {
        let message = format!("PromQL info: {message}{}", self.place(near));
        self.annotations.borrow_mut().infos.insert(message);
    }

    fn place(&self, near: &str) -> String {
        match self.text.find(near) {
            Some(at) => format!(" ({})", crate::parse::position(self.text, at)),
            None => String::new(),
        }
    }
}

/// The node behind [`Node::Constant`].
pub(crate) fn strip(node: &Node) -> &Node {
    match node {
        Node::Constant(inner) => inner,
        node => node,
    }
}

/// Removes the metrics' names, and refuses series that differed in nothing else.
pub(crate) fn drop_names(samples: &mut [Sample]) -> Result<(), QueryError> {
    let names_differ = |two: &[Sample]| {
        two[0].labels.value(METRIC_NAME).map(|n| &**n) != two[1].labels.value(METRIC_NAME).map(|n| &**n)
    };
    let several = samples.windows(2).any(names_differ);
    for sample in samples.iter_mut() {
        sample.labels = sample.labels.without_name();
    }
    if several { check_unique(samples) } else { Ok(()) }
}

/// Refuses vectors that hold a label set twice.
pub(crate) fn check_unique(samples: &[Sample]) -> Result<(), QueryError> {
    if samples.len() < 2 {
        return Ok(());
    }
    let mut seen: IndexMap<&Labels, (), FixedState> = IndexMap::default();
    if samples.iter().any(|sample| seen.insert(&sample.labels, ()).is_some()) {
        return Err(same_labelset());
    }
    Ok(())
}

fn same_labelset() -> QueryError {
    QueryError::execution("vector cannot contain metrics with the same labelset")
}
