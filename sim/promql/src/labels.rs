//! Label sets: what identifies a series.

use std::fmt;
use std::sync::Arc;

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// A label: name and value.
type Pair = (Arc<str>, Arc<str>);

/// A label set, sorted by name, without empty values (an empty value means that the label is not there). Cheap to
/// clone; ordered as Prometheus orders label sets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Pair]>);

impl Default for Labels {
    fn default() -> Self {
        Labels(Arc::from([]))
    }
}

impl Labels {
    /// The labels of `pairs`; of two pairs with one name the later counts, empty values are left out.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        let pairs = pairs.into_iter();
        let mut builder = LabelsBuilder { pairs: Vec::with_capacity(pairs.size_hint().0) };
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// Takes pairs that are sorted by name already, each name once, no value empty.
    pub(crate) fn from_sorted(pairs: Vec<Pair>) -> Self {
        debug_assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0), "labels must be sorted: {pairs:?}");
        Labels(pairs.into())
    }

    /// Whether both are one allocation; if not, they may be equal all the same.
    pub(crate) fn is_same(&self, other: &Labels) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn pairs(&self) -> &[Pair] {
        &self.0
    }

    /// The value of a label, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(name).map(|value| &**value)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&Arc<str>> {
        // Label sets are short and `__name__` sorts before lower-case names: a scan beats a binary search.
        self.0.iter().find(|(key, _)| &**key == name).map(|(_, value)| value)
    }

    /// The metric's name, or the empty string.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or_default()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels for which `keep` holds.
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Labels {
        if self.0.iter().all(|(name, _)| keep(name)) {
            return self.clone();
        }
        Labels(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    /// The labels without the metric's name.
    pub fn without_name(&self) -> Labels {
        self.filtered(|name| name != METRIC_NAME)
    }

    /// A builder that starts from these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.0.to_vec() }
    }
}

/// As Prometheus prints label sets in messages: `{__name__="up", job="x"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={}", crate::format::quote(value))?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Changes a label set.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<Pair>,
}

impl LabelsBuilder {
    /// The value of a label, or the empty string.
    pub fn get(&self, name: &str) -> &str {
        self.pairs.binary_search_by(|(key, _)| (**key).cmp(name)).map_or("", |index| &self.pairs[index].1)
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) {
        let (name, value) = (name.into(), value.into());
        // Most come in order.
        if self.pairs.last().is_none_or(|(last, _)| **last < *name) {
            if !value.is_empty() {
                self.pairs.push((name, value));
            }
            return;
        }
        match self.pairs.binary_search_by(|(key, _)| (**key).cmp(&name)) {
            Ok(index) if value.is_empty() => drop(self.pairs.remove(index)),
            Ok(index) => self.pairs[index].1 = value,
            Err(_) if value.is_empty() => {}
            Err(index) => self.pairs.insert(index, (name, value)),
        }
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        self.retain(|key, _| key != name);
    }

    /// Keeps the labels for which `keep` holds.
    pub fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        self.pairs.retain(|(name, value)| keep(name, value));
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The label set.
    pub fn build(self) -> Labels {
        Labels(self.pairs.into())
    }
}
