//! Series in memory: samples by time, found by labels.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;

use crate::hash::FixedState;
use crate::labels::Labels;
use crate::matcher::Matcher;

/// The value that ends a series: a NaN with bits of its own, told apart from a NaN that a program exposed.
pub const STALE_MARKER: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Whether a value is the [`STALE_MARKER`].
pub fn is_stale_marker(value: f64) -> bool {
    value.to_bits() == 0x7ff0_0000_0000_0002
}

/// A series of one [`Storage`], to append to without looking labels up. Valid until [`Storage::trim`] has removed the
/// series, and never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(u32);

/// Why a sample was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The series has a later sample.
    OutOfOrder,
    /// The series has another value at that time.
    Duplicate,
    /// The series has been trimmed away: look it up again.
    Gone,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AppendError::OutOfOrder => "out of order sample",
            AppendError::Duplicate => "duplicate sample for timestamp",
            AppendError::Gone => "unknown series",
        })
    }
}

impl std::error::Error for AppendError {}

/// One series' samples. Times and values apart, so that functions run over plain slices of values.
#[derive(Debug)]
pub(crate) struct Series {
    pub labels: Labels,
    pub times: Vec<i64>,
    pub values: Vec<f64>,
    /// Whether any value is a stale marker; without one, windows are slices.
    pub has_markers: bool,
    /// The labels without the metric's name, made when a function first drops it.
    nameless: OnceLock<Labels>,
}

impl Series {
    /// The labels without the metric's name.
    pub(crate) fn nameless(&self) -> &Labels {
        self.nameless.get_or_init(|| self.labels.without_name())
    }

    /// The samples with `start < time <= end`, or `start <= time` where the left edge belongs to the window.
    pub(crate) fn between(&self, start: i64, end: i64, closed_left: bool) -> (&[i64], &[f64]) {
        let start = if closed_left { start.saturating_sub(1) } else { start };
        let until = match self.times.last() {
            Some(last) if *last <= end => self.times.len(),
            _ => self.times.partition_point(|time| *time <= end),
        };
        let from = self.times[..until].partition_point(|time| *time <= start);
        (&self.times[from..until], &self.values[from..until])
    }

    /// The newest sample with `after < time <= until`, unless it is a stale marker.
    pub(crate) fn newest(&self, after: i64, until: i64) -> Option<(i64, f64)> {
        let end = match self.times.last() {
            Some(last) if *last <= until => self.times.len(),
            _ => self.times.partition_point(|time| *time <= until),
        };
        let index = end.checked_sub(1)?;
        let (time, value) = (self.times[index], self.values[index]);
        (time > after && !is_stale_marker(value)).then_some((time, value))
    }
}

/// Label values and their series, in order of creation. Hashed, not sorted: every new series is put under all its labels.
type Postings = IndexMap<Arc<str>, Vec<u32>, FixedState>;

/// Series in memory. Samples of a series ascend in time; several series may be at different times.
#[derive(Default)]
pub struct Storage {
    /// By reference; `None` where a series was trimmed away.
    slots: Vec<Option<Series>>,
    by_labels: IndexMap<Labels, u32, FixedState>,
    /// Postings by label name. All series share its names and values.
    index: IndexMap<Arc<str>, Postings, FixedState>,
    samples: u64,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage {{ series: {}, samples: {} }}", self.by_labels.len(), self.samples)
    }
}

impl Storage {
    /// A store without series.
    pub fn new() -> Self {
        Storage::default()
    }

    /// The series with these labels, created if it is not there.
    pub fn series(&mut self, labels: &Labels) -> SeriesRef {
        if let Some(slot) = self.by_labels.get(labels) {
            return SeriesRef(*slot);
        }
        let slot = u32::try_from(self.slots.len()).expect("fewer than four billion series");
        let index = &mut self.index;
        let pairs = labels.pairs().iter().map(|(name, value)| {
            let named = index.entry(Arc::clone(name));
            let name = Arc::clone(named.key());
            let with_value = named.or_default().entry(Arc::clone(value));
            let value = Arc::clone(with_value.key());
            with_value.or_default().push(slot);
            (name, value)
        });
        let labels = Labels::from_sorted(pairs.collect());
        self.by_labels.insert(labels.clone(), slot);
        self.slots.push(Some(Series {
            labels,
            times: Vec::new(),
            values: Vec::new(),
            has_markers: false,
            nameless: OnceLock::new(),
        }));
        SeriesRef(slot)
    }

    /// Appends a sample at a time in milliseconds since the Unix epoch. The same sample twice is no error.
    ///
    /// # Errors
    /// [`AppendError`] when the sample is older than the series' newest, contradicts it, or the series is gone.
    pub fn append(&mut self, series: SeriesRef, at_ms: i64, value: f64) -> Result<(), AppendError> {
        let slot = self.slots.get_mut(series.0 as usize).and_then(Option::as_mut);
        let series = slot.ok_or(AppendError::Gone)?;
        if let (Some(last), Some(last_value)) = (series.times.last(), series.values.last()) {
            if at_ms < *last {
                return Err(AppendError::OutOfOrder);
            }
            if at_ms == *last {
                let same = last_value.to_bits() == value.to_bits();
                return if same { Ok(()) } else { Err(AppendError::Duplicate) };
            }
        }
        if series.times.len() == series.times.capacity() {
            // Steps of a quarter, not doubling, once a series is longer: many series, and memory counts.
            let length = series.times.len();
            let more = if length < 64 { length.max(8) } else { length / 4 };
            series.times.reserve_exact(more);
            series.values.reserve_exact(more);
        }
        series.has_markers |= is_stale_marker(value);
        series.times.push(at_ms);
        series.values.push(value);
        self.samples += 1;
        Ok(())
    }

    /// Appends a sample to the series with these labels.
    ///
    /// # Errors
    /// As [`Storage::append`].
    pub fn append_labelled(&mut self, labels: &Labels, at_ms: i64, value: f64) -> Result<(), AppendError> {
        let series = self.series(labels);
        self.append(series, at_ms, value)
    }

    /// The labels of a series, unless it was trimmed away.
    pub fn labels(&self, series: SeriesRef) -> Option<&Labels> {
        self.slots.get(series.0 as usize)?.as_ref().map(|series| &series.labels)
    }

    /// Removes samples older than `oldest_ms`, and series that have none left.
    pub fn trim(&mut self, oldest_ms: i64) {
        let mut removed = false;
        for slot in &mut self.slots {
            let Some(series) = slot else { continue };
            let old = series.times.partition_point(|time| *time < oldest_ms);
            self.samples -= old as u64;
            if old == series.times.len() {
                self.by_labels.shift_remove(&series.labels);
                *slot = None;
                removed = true;
            } else if old > 0 {
                series.times.drain(..old);
                series.values.drain(..old);
            }
        }
        if removed {
            let slots = &self.slots;
            self.index.retain(|_, postings| {
                postings.retain(|_, list| {
                    list.retain(|slot| slots[*slot as usize].is_some());
                    !list.is_empty()
                });
                !postings.is_empty()
            });
        }
    }

    /// Removes all samples of the series that satisfy the matchers, with the series.
    pub fn delete(&mut self, matchers: &[Matcher]) {
        for slot in self.select(matchers) {
            let Some(series) = self.slots[slot as usize].as_mut() else { continue };
            self.samples -= series.times.len() as u64;
            series.times.clear();
            series.values.clear();
        }
        self.trim(i64::MIN);
    }

    /// How many series there are.
    pub fn series_count(&self) -> usize {
        self.by_labels.len()
    }

    /// How many samples there are.
    pub fn sample_count(&self) -> u64 {
        self.samples
    }

    /// The oldest and the newest sample's time.
    pub fn time_bounds(&self) -> Option<(i64, i64)> {
        let series = || self.slots.iter().flatten();
        let oldest = series().filter_map(|series| series.times.first()).min()?;
        let newest = series().filter_map(|series| series.times.last()).max()?;
        Some((*oldest, *newest))
    }

    /// The label sets that satisfy one of the matcher groups and have samples in `[from_ms, until_ms]`, sorted.
    pub fn find_series(&self, groups: &[Vec<Matcher>], from_ms: i64, until_ms: i64) -> BTreeSet<&Labels> {
        let mut found = BTreeSet::new();
        for matchers in groups {
            let series = self.select(matchers).into_iter().map(|slot| self.slot(slot));
            found.extend(
                series.filter(|series| series.is_alive(from_ms, until_ms)).map(|series| &series.labels),
            );
        }
        found
    }

    /// Label names in use, sorted; only of series that satisfy one of the groups, unless there is no group.
    pub fn label_names(&self, groups: &[Vec<Matcher>], from_ms: i64, until_ms: i64) -> BTreeSet<&str> {
        let series = self.find_series(all_if_empty(groups).as_ref(), from_ms, until_ms);
        series.into_iter().flat_map(|labels| labels.iter().map(|(name, _)| name)).collect()
    }

    /// Values of a label, sorted; only of series that satisfy one of the groups, unless there is no group.
    pub fn label_values(
        &self,
        label: &str,
        groups: &[Vec<Matcher>],
        from_ms: i64,
        until_ms: i64,
    ) -> BTreeSet<&str> {
        let series = self.find_series(all_if_empty(groups).as_ref(), from_ms, until_ms);
        series.into_iter().filter_map(|labels| labels.get(label)).collect()
    }

    pub(crate) fn slot(&self, slot: u32) -> &Series {
        self.slots[slot as usize].as_ref().expect("postings name living series only")
    }

    /// The series that satisfy all matchers, in order of creation.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> Vec<u32> {
        let mut found: Option<Vec<u32>> = None;
        let mut rest = Vec::new();
        for matcher in matchers {
            let Some(values) = matcher.candidates() else {
                rest.push(matcher);
                continue;
            };
            let postings = self.index.get(matcher.name.as_str());
            let lists: Vec<&[u32]> =
                values.iter().filter_map(|value| postings?.get(*value)).map(Vec::as_slice).collect();
            found = Some(match (found, lists.as_slice()) {
                (_, []) => return Vec::new(),
                (None, [only]) => only.to_vec(),
                (None, _) => union(&lists),
                (Some(found), [only]) => intersect(found, only),
                (Some(found), _) => intersect(found, &union(&lists)),
            });
        }
        let mut found = found.unwrap_or_else(|| self.by_labels.values().copied().collect());
        for matcher in rest {
            // The verdict depends on the value alone, and series share a label's values: ask once per value.
            let mut verdicts: Vec<(*const u8, bool)> = Vec::new();
            let absent = matcher.matches("");
            found.retain(|slot| match self.slot(*slot).labels.value(&matcher.name) {
                None => absent,
                Some(value) => {
                    let address = value.as_ptr();
                    match verdicts.iter().find(|(known, _)| *known == address) {
                        Some((_, verdict)) => *verdict,
                        None => {
                            let verdict = matcher.matches(value);
                            if verdicts.len() < 16 {
                                verdicts.push((address, verdict));
                            }
                            verdict
                        }
                    }
                }
            });
        }
        found
    }
}

impl Series {
    fn is_alive(&self, from_ms: i64, until_ms: i64) -> bool {
        let first = self.times.partition_point(|time| *time < from_ms);
        self.times.get(first).is_some_and(|time| *time <= until_ms)
    }
}

/// A single group without matchers, which all series satisfy, where no group is given.
fn all_if_empty(groups: &[Vec<Matcher>]) -> std::borrow::Cow<'_, [Vec<Matcher>]> {
    if groups.is_empty() { vec![Vec::new()].into() } else { groups.into() }
}

fn intersect(left: Vec<u32>, right: &[u32]) -> Vec<u32> {
    // Both ascend. A short list searches in a long one, lists of like length walk together.
    if left.len() * 8 < right.len() {
        return left.into_iter().filter(|slot| right.binary_search(slot).is_ok()).collect();
    }
    if right.len() * 8 < left.len() {
        return right.iter().copied().filter(|slot| left.binary_search(slot).is_ok()).collect();
    }
    let mut right = right.iter().peekable();
    left.into_iter()
        .filter(|slot| {
            while right.next_if(|other| *other < slot).is_some() {}
            right.peek() == Some(&slot)
        })
        .collect()
}

fn union(lists: &[&[u32]]) -> Vec<u32> {
    let mut all = lists.concat();
    all.sort_unstable();
    all.dedup();
    all
}
