//! What many rollouts add up to: counts and sketches whose size does not grow, which can be merged in any order.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rollout::{End, Outcome};
use crate::statistics::{Estimate, mean, quantile_ranks};
use crate::tick::{Failure, Reason};

/// A distribution of whole numbers, to three digits, with exact sums.
#[derive(Clone, Debug)]
pub struct Sketch {
    histogram: Histogram<u64>,
    sum: u128,
    squares: u128,
}

impl Default for Sketch {
    fn default() -> Self {
        Sketch { histogram: Histogram::new(3).expect("three digits are valid"), sum: 0, squares: 0 }
    }
}

impl PartialEq for Sketch {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum && self.squares == other.squares && self.histogram == other.histogram
    }
}

impl Sketch {
    /// Adds a value.
    pub fn add(&mut self, value: u64) {
        self.histogram.record(value).expect("the histogram grows with its values");
        self.sum += u128::from(value);
        self.squares += u128::from(value) * u128::from(value);
    }

    /// Adds another sketch's values.
    pub fn merge(&mut self, other: &Sketch) {
        self.histogram.add(&other.histogram).expect("the histogram grows with its values");
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The mean and its interval; `None` without values.
    pub fn mean(&self) -> Option<Estimate> {
        mean(self.sum, self.squares, self.count())
    }

    /// A quantile and its interval (by order statistics); `None` without values.
    pub fn quantile(&self, q: f64) -> Option<Estimate> {
        if self.count() == 0 {
            return None;
        }
        let (low, high) = quantile_ranks(q, self.count());
        let at = |q: f64| self.histogram.value_at_quantile(q) as f64;
        Some(Estimate { value: at(q), low: at(low), high: at(high) })
    }

    /// Values and their counts, ascending, for charts.
    pub fn bars(&self) -> Vec<(u64, u64)> {
        self.histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct SketchFile {
    sum: String,
    squares: String,
    values: Vec<(u64, u64)>,
}

impl Serialize for Sketch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = self.bars();
        SketchFile { sum: self.sum.to_string(), squares: self.squares.to_string(), values }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Sketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = SketchFile::deserialize(deserializer)?;
        let mut sketch = Sketch::default();
        for (value, count) in file.values {
            sketch
                .histogram
                .record_n(value, count)
                .map_err(|error| D::Error::custom(format!("{error:?}")))?;
        }
        let number =
            |text: &str| text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no number")));
        (sketch.sum, sketch.squares) = (number(&file.sum)?, number(&file.squares)?);
        Ok(sketch)
    }
}

/// The sum of many rollouts of one setting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Rollouts.
    pub rollouts: u64,
    /// Those that were promoted.
    pub promoted: u64,
    /// Those that were rolled back because too many checks failed.
    pub rolled_back_by_checks: u64,
    /// Those of them whose last failed check had no values.
    pub rolled_back_without_values: u64,
    /// Those that were rolled back because the canary was not ready in time.
    pub rolled_back_by_deadline: u64,
    /// Those that were rolled back otherwise.
    pub rolled_back_otherwise: u64,
    /// Those that never end.
    pub endless: u64,
    /// Those with a failed check.
    pub with_failed_checks: u64,
    /// Which check failed first, by `NAME: WHY`.
    pub first_failures: BTreeMap<String, u64>,
    /// Milliseconds from the release to the rollback.
    pub detection: Sketch,
    /// Milliseconds from the release to the promotion.
    pub promotion: Sketch,
    /// Requests of users that the canary answered.
    pub requests: Sketch,
    /// Those that failed.
    pub errors: Sketch,
    /// Failures by index, until they are named.
    #[serde(skip)]
    pub(crate) failures: Vec<((u8, Failure), u64)>,
}

impl Tally {
    /// Adds a rollout.
    pub fn add(&mut self, outcome: &Outcome) {
        self.rollouts += 1;
        let time = outcome.time.max(0) as u64;
        match outcome.end {
            End::Promoted => {
                self.promoted += 1;
                self.promotion.add(time);
            }
            End::RolledBack(reason) => {
                match reason {
                    Reason::Threshold => self.rolled_back_by_checks += 1,
                    Reason::Deadline => self.rolled_back_by_deadline += 1,
                    Reason::Other => self.rolled_back_otherwise += 1,
                }
                let no_values = matches!(outcome.last_failure, Some((_, Failure::NoValues)));
                self.rolled_back_without_values += u64::from(reason == Reason::Threshold && no_values);
                self.detection.add(time);
            }
            End::Endless => self.endless += 1,
        }
        if let Some((check, failure, _)) = outcome.first_failure {
            self.with_failed_checks += 1;
            self.add_failure((check, failure), 1);
        }
        self.requests.add(outcome.user_requests);
        self.errors.add(outcome.user_errors);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Tally) {
        self.rollouts += other.rollouts;
        self.promoted += other.promoted;
        self.rolled_back_by_checks += other.rolled_back_by_checks;
        self.rolled_back_without_values += other.rolled_back_without_values;
        self.rolled_back_by_deadline += other.rolled_back_by_deadline;
        self.rolled_back_otherwise += other.rolled_back_otherwise;
        self.endless += other.endless;
        self.with_failed_checks += other.with_failed_checks;
        for (name, count) in &other.first_failures {
            *self.first_failures.entry(name.clone()).or_default() += count;
        }
        for (failure, count) in &other.failures {
            self.add_failure(*failure, *count);
        }
        self.detection.merge(&other.detection);
        self.promotion.merge(&other.promotion);
        self.requests.merge(&other.requests);
        self.errors.merge(&other.errors);
    }

    fn add_failure(&mut self, failure: (u8, Failure), count: u64) {
        match self.failures.iter_mut().find(|(known, _)| *known == failure) {
            Some((_, sum)) => *sum += count,
            None => self.failures.push((failure, count)),
        }
    }

    /// Names the failures after the checks.
    pub fn name_failures(&mut self, names: &[String]) {
        for ((check, failure), count) in std::mem::take(&mut self.failures) {
            let unnamed = String::new();
            let name = names.get(usize::from(check)).unwrap_or(&unnamed);
            let why = match failure {
                Failure::Bound => "out of bounds",
                Failure::NoValues => "no values",
                Failure::Query => "query failed",
                Failure::Webhook => "webhook refused",
            };
            *self.first_failures.entry(format!("{name}: {why}")).or_default() += count;
        }
    }

    /// Rollouts that were rolled back, for whatever reason.
    pub fn rolled_back(&self) -> u64 {
        self.rolled_back_by_checks + self.rolled_back_by_deadline + self.rolled_back_otherwise
    }
}
