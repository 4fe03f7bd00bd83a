//! What a scenario expects: checked when the run is over.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CanaryCheck, Located, ObjectCheck, QueryCheck, Span};

/// One expectation: exactly one check.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// What it is about, shown in the summary.
    pub name: Option<String>,
    /// A component's log.
    pub log: Option<LogExpectation>,
    /// An object's state.
    pub object: Option<ObjectCheck>,
    /// A PromQL query's value.
    pub metric: Option<QueryCheck>,
    /// A Canary's final state.
    pub canary: Option<CanaryCheck>,
    /// A version's share of the answered requests.
    pub share: Option<Share>,
    /// Requests that users saw fail.
    pub errors: Option<Errors>,
    /// Latency of answers.
    pub latency: Option<LatencyLimit>,
    /// How many requests were sent.
    pub requests: Option<RequestCount>,
    /// Virtual time that something took.
    pub duration: Option<DurationLimit>,
}

impl Expectation {
    /// The names of the checks that are given.
    pub(super) fn checks(&self) -> Vec<&'static str> {
        let given = [
            ("log", self.log.is_some()),
            ("object", self.object.is_some()),
            ("metric", self.metric.is_some()),
            ("canary", self.canary.is_some()),
            ("share", self.share.is_some()),
            ("errors", self.errors.is_some()),
            ("latency", self.latency.is_some()),
            ("requests", self.requests.is_some()),
            ("duration", self.duration.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

/// Lines of a component's log: the field `msg` of structured lines, else the whole line.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogExpectation {
    /// The cluster; any without one.
    pub cluster: Option<String>,
    /// The namespace; any without one.
    pub namespace: Option<String>,
    /// The workload whose pods print.
    pub workload: String,
    /// The container; any without one.
    pub container: Option<String>,
    /// Only lines whose message matches this regular expression.
    pub only: Option<Located<String>>,
    /// How lines are compared.
    #[serde(default)]
    pub mode: LogMode,
    /// Only lines after this mark.
    pub from: Option<String>,
    /// Only lines before this mark.
    pub until: Option<String>,
    /// Compares whole lines, also of structured logs.
    #[serde(default)]
    pub raw: bool,
    /// The expected lines (regular expressions with mode `regex`).
    #[serde(default)]
    pub lines: Vec<Located<String>>,
    /// Regular expressions that no line may match.
    #[serde(default)]
    pub never: Vec<Located<String>>,
}

/// How a log is compared with the expected lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogMode {
    /// The same lines in the same order, and no others.
    #[default]
    Exact,
    /// The lines occur in this order; others may stand between them.
    Ordered,
    /// The lines occur, in any order.
    Subset,
    /// The regular expressions match lines in this order; others may stand between them.
    Regex,
}

/// A version's share of the answered requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// The traffic; all without one.
    pub traffic: Option<String>,
    /// The version (image tag) that answered.
    pub version: String,
    /// The least share, 0 to 1.
    pub min: Option<f64>,
    /// The greatest share, 0 to 1.
    pub max: Option<f64>,
    /// Only requests after this mark.
    pub from: Option<String>,
    /// Only requests before this mark.
    pub until: Option<String>,
}

/// An error budget: failed requests, by default those without an answer or with a status of 500 and above.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Errors {
    /// The traffic; all without one.
    pub traffic: Option<String>,
    /// Only answers of this version.
    pub version: Option<String>,
    /// Counts answers with this status, e.g. 503 or `5xx`, instead of all failures.
    pub status: Option<String>,
    /// The greatest number of errors.
    pub max: Option<u64>,
    /// The greatest rate of errors, 0 to 1.
    pub max_rate: Option<f64>,
    /// The least number of errors, to check that a fault was felt.
    pub min: Option<u64>,
    /// Only requests after this mark.
    pub from: Option<String>,
    /// Only requests before this mark.
    pub until: Option<String>,
}

/// A limit on latency.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LatencyLimit {
    /// The traffic; all without one.
    pub traffic: Option<String>,
    /// Only answers of this version.
    pub version: Option<String>,
    /// Which part of the requests must be as fast, 0 to 1.
    pub quantile: f64,
    /// The greatest latency.
    pub max: Option<Span>,
    /// The least latency.
    pub min: Option<Span>,
    /// Only requests after this mark.
    pub from: Option<String>,
    /// Only requests before this mark.
    pub until: Option<String>,
}

/// A number of requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestCount {
    /// The traffic; all without one.
    pub traffic: Option<String>,
    /// Only answers of this version.
    pub version: Option<String>,
    /// The least number.
    pub min: Option<u64>,
    /// The greatest number.
    pub max: Option<u64>,
    /// Only requests after this mark.
    pub from: Option<String>,
    /// Only requests before this mark.
    pub until: Option<String>,
}

/// A limit on virtual time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DurationLimit {
    /// The mark to count from; the run's start without one.
    pub from: Option<String>,
    /// The mark to count to; the run's end without one.
    pub until: Option<String>,
    /// The longest time.
    pub max: Option<Span>,
    /// The shortest time.
    pub min: Option<Span>,
}
