//! What came of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Timestamp;

use crate::timeline::Entry;

/// Everything that a run gave, as data.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// The scenario's file, as it was named.
    pub file: String,
    /// The seed that the run had.
    pub seed: u64,
    /// What the clocks showed at the start.
    pub start: Timestamp,
    /// How long the run lasted in virtual time.
    pub virtual_time: Duration,
    /// How long it took in real time; filled in by whoever has a stopwatch.
    pub wall_time: Option<Duration>,
    /// Whether it ended by itself.
    pub status: Status,
    /// All Canaries that the run ended with.
    pub canaries: Vec<CanaryOutcome>,
    /// The scenario's traffic, in its order.
    pub traffic: Vec<TrafficSummary>,
    /// Every expectation's result, in the scenario's order; empty if the run did not come to them.
    pub expectations: Vec<ExpectationResult>,
    /// The lines that belong into the scenario's golden file, if it has one.
    pub golden: Option<Vec<String>>,
    /// Everything that happened, in order.
    pub timeline: Vec<Entry>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// All steps are done; the expectations have been checked.
    Finished,
    /// It was stopped at a time that the user gave; nothing was checked.
    Stopped,
    /// A step failed, or the run took too long.
    Failed(RunFailure),
}

/// Why a run did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFailure {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// `FILE:LINE:COLUMN` of the step, or the file.
    pub place: String,
    /// What went wrong, with the object's last state where there is one.
    pub message: String,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The system did not do what the scenario waits for or asserts.
    Unmet,
    /// The scenario asks for something impossible: a manifest that the API rejects, a branch that does not exist.
    Unusable,
}

/// A Canary at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryOutcome {
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The phase.
    pub phase: String,
    /// The weight of its status.
    pub weight: i64,
}

/// What one stream of traffic got.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficSummary {
    /// The traffic's name.
    pub name: String,
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Requests without an answer or with a status of 500 and above.
    pub errors: u64,
    /// What the errors were.
    pub error_texts: BTreeMap<String, u64>,
    /// The answers by version, the versions in order.
    pub versions: Vec<VersionSummary>,
    /// The same of the answers from each mark on until the next, by the mark's name.
    pub by_mark: BTreeMap<String, Vec<Answers>>,
}

/// How much one version answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// As [`VersionSummary::version`].
    pub version: String,
    /// Answers.
    pub requests: u64,
    /// Answers with a status of 500 and above.
    pub errors: u64,
}

/// What one version answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VersionSummary {
    /// The version: the tag of the answering container's image. Empty for answers of proxies.
    pub version: String,
    /// Answers.
    pub requests: u64,
    /// Answers with a status of 500 and above.
    pub errors: u64,
    /// The latency that half of the answers had at most.
    pub p50: Duration,
    /// The latency that 90 % had at most.
    pub p90: Duration,
    /// The latency that 99 % had at most.
    pub p99: Duration,
}

/// Whether an expectation holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectationResult {
    /// `FILE:LINE:COLUMN`.
    pub place: String,
    /// What was expected, in a few words.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What was found.
    pub explanation: String,
    /// Lines that should be the same and are not.
    pub mismatch: Option<Mismatch>,
}

/// Expected and found lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What was expected.
    pub expected: Vec<String>,
    /// What was found.
    pub found: Vec<String>,
}

impl Outcome {
    /// Whether the run came to its end and all expectations hold. A run that the user stopped passes.
    pub fn passed(&self) -> bool {
        match &self.status {
            Status::Finished => self.expectations.iter().all(|result| result.passed),
            Status::Stopped => true,
            Status::Failed(_) => false,
        }
    }

    /// The exit code that the run deserves: 0 passed, 1 failed, 2 unusable input.
    pub fn exit_code(&self) -> u8 {
        match &self.status {
            Status::Failed(failure) if failure.kind == FailureKind::Unusable => 2,
            _ if self.passed() => 0,
            _ => 1,
        }
    }
}
