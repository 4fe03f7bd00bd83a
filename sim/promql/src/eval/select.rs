//! Selectors: newest samples, windows over ranges, subqueries.

use std::rc::Rc;

use super::{Evaluator, Sample, Steps, strip};
use crate::ast::{Node, Selector, Subquery};
use crate::error::QueryError;
use crate::labels::{Labels, METRIC_NAME};
use crate::matcher::MatchKind;
use crate::storage::{Series, is_stale_marker};
use crate::value::RangeSeries;

/// One series' samples in a range.
pub(crate) struct Window<'w> {
    pub times: &'w [i64],
    pub values: &'w [f64],
    /// The range's edges.
    pub start: i64,
    pub end: i64,
    /// The step at which the query is evaluated.
    pub at: i64,
}

/// The labels of a window's series.
pub(crate) enum Owner<'w> {
    Stored(&'w Series),
    Made(&'w Labels),
}

impl Owner<'_> {
    pub(crate) fn labels(&self) -> &Labels {
        match self {
            Owner::Stored(series) => &series.labels,
            Owner::Made(labels) => labels,
        }
    }

    fn without_name(&self) -> Labels {
        match self {
            Owner::Stored(series) => series.nameless().clone(),
            Owner::Made(labels) => labels.without_name(),
        }
    }
}

impl Evaluator<'_> {
    /// The series of a selector.
    fn selected(&self, selector: &Selector) -> Rc<[u32]> {
        let key = std::ptr::from_ref(selector).addr();
        if let Some(known) = self.selections.borrow().get(&key) {
            return Rc::clone(known);
        }
        let slots: Rc<[u32]> = self.storage.select(&selector.matchers).into();
        self.selections.borrow_mut().insert(key, Rc::clone(&slots));
        slots
    }

    /// The newest sample of each series within the lookback.
    pub(super) fn newest(&self, selector: &Selector, at: i64) -> Vec<Sample> {
        let samples = self.newest_with_times(selector, at);
        samples.into_iter().map(|(_, sample)| sample).collect()
    }

    /// As `newest`, with the samples' own times.
    pub(crate) fn newest_with_times(&self, selector: &Selector, at: i64) -> Vec<(i64, Sample)> {
        let until = self.moment(&selector.when, at);
        let after = until.saturating_sub(self.options.lookback_ms) - i64::from(self.options.closed_left);
        let slots = self.selected(selector);
        let mut samples = Vec::with_capacity(slots.len());
        for slot in slots.iter() {
            let series = self.storage.slot(*slot);
            if let Some((time, value)) = series.newest(after, until) {
                samples.push((time, Sample { labels: series.labels.clone(), value }));
            }
        }
        samples
    }

    /// Visits each series that has samples in the range of a range node.
    pub(crate) fn windows(
        &self,
        node: &Node,
        at: i64,
        visit: &mut dyn FnMut(&Owner<'_>, &Window<'_>),
    ) -> Result<(), QueryError> {
        match strip(node) {
            Node::Range(selector, range) => {
                self.stored_windows(selector, *range, at, visit);
                Ok(())
            }
            Node::Subquery(subquery) => self.subquery_windows(subquery, at, visit),
            _ => Err(QueryError::execution("expected a range vector")),
        }
    }

    fn stored_windows(
        &self,
        selector: &Selector,
        range: i64,
        at: i64,
        visit: &mut dyn FnMut(&Owner<'_>, &Window<'_>),
    ) {
        let end = self.moment(&selector.when, at);
        let start = end.saturating_sub(range);
        let (mut kept_times, mut kept_values) = (Vec::new(), Vec::new());
        for slot in self.selected(selector).iter() {
            let series = self.storage.slot(*slot);
            let (times, values) = series.between(start, end, self.options.closed_left);
            let mut window = Window { times, values, start, end, at };
            if series.has_markers && values.iter().any(|value| is_stale_marker(*value)) {
                kept_times.clear();
                kept_values.clear();
                for (time, value) in times.iter().zip(values) {
                    if !is_stale_marker(*value) {
                        kept_times.push(*time);
                        kept_values.push(*value);
                    }
                }
                (window.times, window.values) = (&kept_times, &kept_values);
            }
            if !window.times.is_empty() {
                visit(&Owner::Stored(series), &window);
            }
        }
    }

    fn subquery_windows(
        &self,
        subquery: &Subquery,
        at: i64,
        visit: &mut dyn FnMut(&Owner<'_>, &Window<'_>),
    ) -> Result<(), QueryError> {
        let end = self.moment(&subquery.when, at);
        let start = end.saturating_sub(subquery.range_ms);
        let step = subquery.step_ms.unwrap_or(self.options.default_step_ms);
        // Steps lie on multiples of the step, whatever the time of evaluation.
        let mut first = step * start.div_euclid(step);
        if first < start || (first == start && !self.options.closed_left) {
            first += step;
        }
        let series = self.collect(&subquery.inner, Steps { at: first, end, step })?;
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for RangeSeries { labels, points } in &series {
            times.clear();
            values.clear();
            times.extend(points.iter().map(|(time, _)| *time));
            values.extend(points.iter().map(|(_, value)| *value));
            let window = Window { times: &times, values: &values, start, end, at };
            visit(&Owner::Made(labels), &window);
        }
        Ok(())
    }

    /// A range's samples as they are, sorted by labels.
    pub(super) fn matrix(&self, node: &Node, at: i64) -> Result<Vec<RangeSeries>, QueryError> {
        let mut found = Vec::new();
        self.windows(node, at, &mut |owner, window| {
            let points = window.times.iter().copied().zip(window.values.iter().copied()).collect();
            found.push(RangeSeries { labels: owner.labels().clone(), points });
        })?;
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }

    /// Applies a function to each window; series for which it gives nothing are left out.
    pub(crate) fn over_windows(
        &self,
        node: &Node,
        at: i64,
        keep_name: bool,
        mut function: impl FnMut(&Window<'_>) -> Option<f64>,
    ) -> Result<Vec<Sample>, QueryError> {
        let mut samples: Vec<Sample> = Vec::new();
        self.windows(node, at, &mut |owner, window| {
            if let Some(value) = function(window) {
                let labels = if keep_name { owner.labels().clone() } else { owner.without_name() };
                samples.push(Sample { labels, value });
            }
        })?;
        if !keep_name && !has_one_name(node) {
            super::check_unique(&samples)?;
        }
        Ok(samples)
    }
}

/// Whether a range's series are known to have one name, so that dropping it leaves no two alike.
fn has_one_name(node: &Node) -> bool {
    match strip(node) {
        Node::Range(selector, _) => selector
            .matchers
            .iter()
            .any(|matcher| matcher.name == METRIC_NAME && matcher.kind == MatchKind::Equal),
        _ => false,
    }
}
