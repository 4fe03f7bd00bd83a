//! Evaluation of a query at an instant, or at the steps of a range.

mod aggregate;
mod binary;
mod call;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::ast::{At, Node, Selector, Subquery, When};
use crate::error::QueryError;
use crate::labels::Labels;
use crate::parse::Query;
use crate::storage::{Storage, is_stale_marker};
use crate::value::{Annotations, Evaluation, InstantSample, RangeSeries, Value};

/// How queries are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How far an instant selector looks back, in milliseconds (5 minutes).
    pub lookback_ms: i64,
    /// Whether windows include their left edge: `true` for Prometheus 2, `false` since 3.0.
    pub closed_left: bool,
    /// The step of subqueries that name none, in milliseconds: the global evaluation interval (1 minute).
    pub subquery_step_ms: i64,
    /// The most steps of a range query (11,000).
    pub steps_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { lookback_ms: 300_000, closed_left: false, subquery_step_ms: 60_000, steps_max: 11_000 }
    }
}

/// Evaluates queries over a [`Storage`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine {
    options: Options,
}

/// A sample while it is computed with.
#[derive(Clone, Debug)]
struct Sample {
    labels: Labels,
    value: f64,
}

/// An intermediate result.
#[derive(Clone, Debug)]
enum Computed {
    Scalar(f64),
    Text(String),
    Vector(Vec<Sample>),
}

/// The samples of one series in a window, without stale markers.
struct Window<'a> {
    labels: Labels,
    times: Cow<'a, [i64]>,
    values: Cow<'a, [f64]>,
}

/// One evaluation: where, how, and at which time.
#[derive(Clone, Copy)]
struct Instant<'a> {
    storage: &'a Storage,
    options: Options,
    at_ms: i64,
    /// The query's own bounds, for `@ start()` and `@ end()`.
    bounds: (i64, i64),
}

type Outcome<T> = Result<T, QueryError>;

impl Engine {
    /// An engine with these options.
    pub fn new(options: Options) -> Self {
        Engine { options }
    }

    /// Evaluates a query at one time, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`QueryError::Execution`] for what only shows over the series, e.g. many-to-many matches.
    pub fn instant(&self, storage: &Storage, query: &Query, at_ms: i64) -> Outcome<Evaluation> {
        let instant = Instant { storage, options: self.options, at_ms, bounds: (at_ms, at_ms) };
        let value = match query.root.as_ref() {
            Node::Range(selector, range_ms) => Value::Matrix(matrix(instant.windows(selector, *range_ms))),
            Node::Subquery(subquery) => Value::Matrix(matrix(instant.subquery(subquery)?)),
            node => match instant.eval(node)? {
                Computed::Scalar(value) => Value::Scalar(value),
                Computed::Text(text) => Value::Text(text),
                Computed::Vector(samples) => {
                    unique(&samples)?;
                    let of =
                        |sample: Sample| InstantSample { labels: sample.labels, at_ms, value: sample.value };
                    Value::Vector(samples.into_iter().map(of).collect())
                }
            },
        };
        Ok(Evaluation { value, annotations: Annotations::default() })
    }

    /// Evaluates a query at `start`, `start + step`, … up to `end`.
    ///
    /// # Errors
    /// [`QueryError`] for ranges and strings, too many steps, and as [`Engine::instant`].
    pub fn range(
        &self,
        storage: &Storage,
        query: &Query,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Outcome<Evaluation> {
        query.check_range()?;
        let step_ms = step_ms.max(1);
        let steps = usize::try_from((end_ms - start_ms) / step_ms).unwrap_or(0);
        if steps > self.options.steps_max {
            return Err(QueryError::Parse(format!(
                "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
                self.options.steps_max
            )));
        }
        let mut series: BTreeMap<Labels, Vec<(i64, f64)>> = BTreeMap::new();
        let mut at_ms = start_ms;
        while at_ms <= end_ms {
            let instant = Instant { storage, options: self.options, at_ms, bounds: (start_ms, end_ms) };
            match instant.eval(&query.root)? {
                Computed::Scalar(value) => series.entry(Labels::default()).or_default().push((at_ms, value)),
                Computed::Text(_) => {}
                Computed::Vector(samples) => {
                    unique(&samples)?;
                    for sample in samples {
                        series.entry(sample.labels).or_default().push((at_ms, sample.value));
                    }
                }
            }
            at_ms += step_ms;
        }
        let series = series.into_iter().map(|(labels, points)| RangeSeries { labels, points }).collect();
        Ok(Evaluation { value: Value::Matrix(series), annotations: Annotations::default() })
    }
}

/// A result has each label set once.
fn unique(samples: &[Sample]) -> Outcome<()> {
    let mut seen = std::collections::BTreeSet::new();
    if samples.iter().all(|sample| seen.insert(&sample.labels)) {
        Ok(())
    } else {
        Err(QueryError::execution("vector cannot contain metrics with the same labelset"))
    }
}

fn matrix(windows: Vec<Window<'_>>) -> Vec<RangeSeries> {
    let mut series: Vec<RangeSeries> = windows
        .into_iter()
        .map(|window| RangeSeries {
            points: window.times.iter().copied().zip(window.values.iter().copied()).collect(),
            labels: window.labels,
        })
        .collect();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}

impl<'a> Instant<'a> {
    fn eval(&self, node: &Node) -> Outcome<Computed> {
        Ok(match node {
            Node::Number(value) => Computed::Scalar(*value),
            Node::Text(text) => Computed::Text(text.clone()),
            Node::Selector(selector) => Computed::Vector(self.select(selector)),
            Node::Range(..) | Node::Subquery(_) => {
                return Err(QueryError::execution("a range vector has no value of its own"));
            }
            Node::Call(function, args) => self.call(*function, args)?,
            Node::Aggregate(aggregate) => Computed::Vector(self.aggregate(aggregate)?),
            Node::Binary(binary) => self.binary(binary)?,
            Node::Negate(inner) => match self.eval(inner)? {
                Computed::Scalar(value) => Computed::Scalar(-value),
                Computed::Vector(samples) => {
                    let negate = |sample: Sample| Sample {
                        labels: sample.labels.without_name(),
                        value: -sample.value,
                    };
                    Computed::Vector(samples.into_iter().map(negate).collect())
                }
                text @ Computed::Text(_) => text,
            },
            Node::Constant(inner) => self.eval(inner)?,
        })
    }

    fn scalar(&self, node: &Node) -> Outcome<f64> {
        match self.eval(node)? {
            Computed::Scalar(value) => Ok(value),
            _ => Err(QueryError::execution("expected a scalar")),
        }
    }

    fn text(&self, node: &Node) -> Outcome<String> {
        match self.eval(node)? {
            Computed::Text(text) => Ok(text),
            _ => Err(QueryError::execution("expected a string")),
        }
    }

    fn vector(&self, node: &Node) -> Outcome<Vec<Sample>> {
        match self.eval(node)? {
            Computed::Vector(samples) => Ok(samples),
            _ => Err(QueryError::execution("expected an instant vector")),
        }
    }

    /// The moment that `@` and `offset` mean.
    fn moment(&self, when: When) -> i64 {
        let base = match when.at {
            None => self.at_ms,
            Some(At::Start) => self.bounds.0,
            Some(At::End) => self.bounds.1,
            Some(At::Time(at_ms)) => at_ms,
        };
        base - when.offset_ms
    }

    fn left_edge(&self, start_ms: i64) -> i64 {
        // Windows are open at the left; one millisecond more closes them.
        if self.options.closed_left { start_ms - 1 } else { start_ms }
    }

    fn select(&self, selector: &Selector) -> Vec<Sample> {
        let until = self.moment(selector.when);
        let after = self.left_edge(until - self.options.lookback_ms);
        let found = self.storage.select(&selector.matchers).into_iter().map(|slot| self.storage.slot(slot));
        found
            .filter_map(|series| {
                let (_, value) = series.newest(after, until)?;
                Some(Sample { labels: series.labels.clone(), value })
            })
            .collect()
    }

    /// The newest samples of a selector with their own times.
    fn select_times(&self, selector: &Selector) -> Vec<(Labels, i64)> {
        let until = self.moment(selector.when);
        let after = self.left_edge(until - self.options.lookback_ms);
        let found = self.storage.select(&selector.matchers).into_iter().map(|slot| self.storage.slot(slot));
        found.filter_map(|series| Some((series.labels.clone(), series.newest(after, until)?.0))).collect()
    }

    fn windows(&self, selector: &Selector, range_ms: i64) -> Vec<Window<'a>> {
        let until = self.moment(selector.when);
        let after = self.left_edge(until - range_ms);
        let storage = self.storage;
        let found = storage.select(&selector.matchers).into_iter().map(|slot| storage.slot(slot));
        found
            .filter_map(|series| {
                let start = series.times.partition_point(|time| *time <= after);
                let end = start + series.times[start..].partition_point(|time| *time <= until);
                if start == end {
                    return None;
                }
                let (times, values) = (&series.times[start..end], &series.values[start..end]);
                if !series.has_markers || !values.iter().any(|value| is_stale_marker(*value)) {
                    return Some(Window {
                        labels: series.labels.clone(),
                        times: Cow::Borrowed(times),
                        values: Cow::Borrowed(values),
                    });
                }
                let kept = times.iter().zip(values).filter(|(_, value)| !is_stale_marker(**value));
                let (times, values): (Vec<i64>, Vec<f64>) = kept.map(|(time, value)| (*time, *value)).unzip();
                (!times.is_empty()).then(|| Window {
                    labels: series.labels.clone(),
                    times: Cow::Owned(times),
                    values: Cow::Owned(values),
                })
            })
            .collect()
    }

    fn subquery(&self, subquery: &Subquery) -> Outcome<Vec<Window<'static>>> {
        let until = self.moment(subquery.when);
        let after = self.left_edge(until - subquery.range_ms);
        let step = subquery.step_ms.unwrap_or(self.options.subquery_step_ms).max(1);
        // Steps lie on multiples of the step, whatever the query's time.
        let mut at_ms = after.div_euclid(step) * step;
        if at_ms <= after {
            at_ms += step;
        }
        let mut series: BTreeMap<Labels, (Vec<i64>, Vec<f64>)> = BTreeMap::new();
        while at_ms <= until {
            let instant = Instant { at_ms, ..*self };
            let samples = match instant.eval(&subquery.inner)? {
                Computed::Vector(samples) => samples,
                Computed::Scalar(value) => vec![Sample { labels: Labels::default(), value }],
                Computed::Text(_) => Vec::new(),
            };
            for sample in samples {
                let entry = series.entry(sample.labels).or_default();
                entry.0.push(at_ms);
                entry.1.push(sample.value);
            }
            at_ms += step;
        }
        let window = |(labels, (times, values))| Window {
            labels,
            times: Cow::Owned(times),
            values: Cow::Owned(values),
        };
        Ok(series.into_iter().map(window).collect())
    }

    /// The windows of a range argument, and the window's bounds.
    fn range(&self, node: &Node) -> Outcome<(Vec<Window<'a>>, (i64, i64))> {
        match node {
            Node::Range(selector, range_ms) => {
                let until = self.moment(selector.when);
                Ok((self.windows(selector, *range_ms), (until - range_ms, until)))
            }
            Node::Subquery(subquery) => {
                let until = self.moment(subquery.when);
                Ok((self.subquery(subquery)?, (until - subquery.range_ms, until)))
            }
            Node::Constant(inner) => self.range(inner),
            _ => Err(QueryError::execution("expected a range vector")),
        }
    }
}
