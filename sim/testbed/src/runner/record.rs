//! Every request of the scenario's traffic, small enough to keep them all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use loadgen::Distribution;

use super::outcome::{Answers, TrafficSummary, VersionSummary};

/// Different error texts that are counted apart; further ones share a line.
const ERROR_TEXTS_MAX: usize = 50;

/// One request that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// The traffic's index.
    pub(super) traffic: u16,
    /// The index of the version that answered; [`NOBODY`] without one.
    pub(super) version: u16,
    /// The status, 0 without an answer.
    pub(super) status: u16,
    /// When it ended, since the run's start.
    pub(super) at: Duration,
    /// How long it took.
    pub(super) latency: Duration,
}

/// No version answered.
const NOBODY: u16 = u16::MAX;

impl Sample {
    /// Whether a user would call it an error: no answer, or a status of 500 and above.
    pub(super) fn failed(&self) -> bool {
        self.status == 0 || self.status >= 500
    }

    fn is_answer_of(&self, traffic: u16) -> bool {
        self.traffic == traffic && self.status != 0
    }
}

/// The requests of a run.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    samples: Vec<Sample>,
    versions: Vec<String>,
    errors: BTreeMap<u16, BTreeMap<String, u64>>,
    /// How many samples the last [`Record::served_since`] has counted.
    counted: usize,
}

/// What to count: requests of a traffic, of a version, within a time. `None` is everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter<'a> {
    pub(super) traffic: Option<u16>,
    pub(super) version: Option<&'a str>,
    pub(super) from: Option<Duration>,
    pub(super) until: Option<Duration>,
}

impl Record {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Adds a request that ended.
    pub(super) fn add(
        &self,
        traffic: u16,
        at: Duration,
        latency: Duration,
        answer: Result<(u16, Option<&str>), String>,
    ) {
        let mut inner = self.inner();
        let (status, version) = match &answer {
            Ok((status, version)) => (*status, version.map_or(NOBODY, |version| inner.version(version))),
            Err(_) => (0, NOBODY),
        };
        let sample = Sample { traffic, version, status, at, latency };
        if sample.failed() {
            let text = match answer {
                Ok((status, _)) => match http::StatusCode::from_u16(status) {
                    Ok(code) => code.to_string(),
                    Err(_) => status.to_string(),
                },
                Err(text) => text,
            };
            let texts = inner.errors.entry(traffic).or_default();
            let text = if texts.len() < ERROR_TEXTS_MAX || texts.contains_key(&text) {
                text
            } else {
                "other errors".into()
            };
            *texts.entry(text).or_default() += 1;
        }
        inner.samples.push(sample);
    }

    /// Answers by version since the last call.
    pub(super) fn served_since(&self) -> Vec<(String, u64)> {
        let mut inner = self.inner();
        let mut counts = vec![0; inner.versions.len()];
        for sample in &inner.samples[inner.counted..] {
            if sample.version != NOBODY {
                counts[usize::from(sample.version)] += 1;
            }
        }
        let counts = inner.versions.iter().cloned().zip(counts).filter(|(_, count)| *count > 0);
        let served: BTreeMap<String, u64> = counts.collect();
        inner.counted = inner.samples.len();
        served.into_iter().collect()
    }

    /// The requests that a filter lets through.
    pub(super) fn select(&self, filter: &Filter<'_>) -> Vec<Sample> {
        let inner = self.inner();
        let version = filter.version.map(|version| inner.versions.iter().position(|known| known == version));
        let keep = |sample: &&Sample| {
            filter.traffic.is_none_or(|traffic| traffic == sample.traffic)
                && version.is_none_or(|version| version == Some(usize::from(sample.version)))
                && filter.from.is_none_or(|from| sample.at >= from)
                && filter.until.is_none_or(|until| sample.at < until)
        };
        inner.samples.iter().filter(keep).copied().collect()
    }

    /// Versions that answered, as they are called.
    pub(super) fn versions(&self) -> Vec<String> {
        let mut versions = self.inner().versions.clone();
        versions.sort();
        versions
    }

    /// How many requests have ended so far.
    pub(super) fn len(&self) -> usize {
        self.inner().samples.len()
    }

    /// The summary of one traffic. `marks` are names with the number of requests that had ended before, in order.
    pub(super) fn summary(&self, traffic: u16, name: &str, marks: &[(String, usize)]) -> TrafficSummary {
        let inner = self.inner();
        let mut summary = TrafficSummary {
            name: name.to_owned(),
            versions: inner.summaries(traffic),
            error_texts: inner.errors.get(&traffic).cloned().unwrap_or_default(),
            ..TrafficSummary::default()
        };
        for sample in inner.samples.iter().filter(|sample| sample.traffic == traffic) {
            summary.requests += 1;
            summary.errors += u64::from(sample.failed());
        }
        let ends = marks.iter().skip(1).map(|(_, next)| *next).chain([inner.samples.len()]);
        summary.by_mark = marks
            .iter()
            .zip(ends)
            .map(|((mark, first), end)| (mark.clone(), inner.answers(traffic, *first..end)))
            .collect();
        summary
    }
}

impl Inner {
    /// How much each version answered, of the samples in a range, the versions in order.
    fn answers(&self, traffic: u16, range: Range<usize>) -> Vec<Answers> {
        // The last is nobody.
        let mut counts = vec![(0, 0); self.versions.len() + 1];
        for sample in self.samples[range].iter().filter(|sample| sample.is_answer_of(traffic)) {
            let (requests, errors) = &mut counts[usize::from(sample.version).min(self.versions.len())];
            *requests += 1;
            *errors += u64::from(sample.failed());
        }
        let names = self.versions.iter().cloned().chain([String::new()]);
        let counted = names.zip(counts).filter(|(_, (requests, _))| *requests > 0);
        let answers = counted.map(|(version, (requests, errors))| Answers { version, requests, errors });
        let mut answers: Vec<Answers> = answers.collect();
        answers.sort_by(|one, other| one.version.cmp(&other.version));
        answers
    }

    /// What each version answered.
    fn summaries(&self, traffic: u16) -> Vec<VersionSummary> {
        let mut latencies = vec![Distribution::default(); self.versions.len() + 1];
        for sample in self.samples.iter().filter(|sample| sample.is_answer_of(traffic)) {
            latencies[usize::from(sample.version).min(self.versions.len())].record(sample.latency);
        }
        let summary = |Answers { version, requests, errors }: Answers| {
            let place = self.versions.iter().position(|known| *known == version);
            let latencies = &latencies[place.unwrap_or(self.versions.len())];
            let [p50, p90, p99] = latencies.quantiles([0.5, 0.9, 0.99]);
            VersionSummary { version, requests, errors, p50, p90, p99 }
        };
        self.answers(traffic, 0..self.samples.len()).into_iter().map(summary).collect()
    }

    fn version(&mut self, version: &str) -> u16 {
        let index = self.versions.iter().position(|known| known == version).unwrap_or_else(|| {
            self.versions.push(version.to_owned());
            self.versions.len() - 1
        });
        u16::try_from(index).unwrap_or(NOBODY)
    }
}
