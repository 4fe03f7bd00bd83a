//! Service-level assertions on a report: `p99<500ms`, `success>99%`, `rate>=100`, `p95@v2<200ms`.

use std::fmt;
use std::time::Duration;

use crate::{Distribution, Report, Tally, format_duration, parse_duration};

/// What must hold after a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    text: String,
    metric: Metric,
    /// Of this group alone.
    group: Option<String>,
    relation: Relation,
    /// In seconds, as a share, or as it is.
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    /// A latency; from sending, or from when requests were due.
    Latency {
        of: Latency,
        raw: bool,
    },
    Success,
    Errors,
    Rate,
    Requests,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Latency {
    Quantile(f64),
    Mean,
    Least,
    Most,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Relation {
    Less,
    AtMost,
    More,
    AtLeast,
}

/// How an assertion turned out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The assertion as it was typed.
    pub assertion: String,
    /// Whether it holds.
    pub holds: bool,
    /// What was measured, or why nothing was.
    pub measured: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.holds { "holds" } else { "FAILED" };
        write!(f, "{word}: {} ({})", self.assertion, self.measured)
    }
}

const METRICS: &str = "p50 to p99.99, mean, min, max (raw.p99 and so on: from sending instead of from the intended \
                       time), success, errors, rate, requests";

impl Assertion {
    /// Reads `METRIC[@GROUP] < VALUE`; the relation may be `<`, `<=`, `>` or `>=`. Latencies take durations
    /// (`500ms`), `success` and `errors` a percentage.
    ///
    /// # Errors
    /// What is wrong with it, and what there is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |what: &str| format!("assertion {text:?}: {what}");
        let at = text.find(['<', '>']).ok_or_else(|| bad("write METRIC<VALUE, e.g. p99<500ms"))?;
        let (relation, width) = match &text[at..] {
            rest if rest.starts_with("<=") => (Relation::AtMost, 2),
            rest if rest.starts_with(">=") => (Relation::AtLeast, 2),
            rest if rest.starts_with('<') => (Relation::Less, 1),
            _ => (Relation::More, 1),
        };
        let value = text[at + width..].trim();
        let (name, group) = match text[..at].trim().split_once('@') {
            Some((name, group)) => (name.trim_end(), Some(group.trim().to_owned())),
            None => (text[..at].trim(), None),
        };
        let metric =
            Metric::parse(name).ok_or_else(|| bad(&format!("unknown metric {name:?}: {METRICS}")))?;
        let bound = match metric {
            Metric::Latency { .. } => {
                let duration = parse_duration(value)
                    .map_err(|_| bad(&format!("{value:?} is no duration, e.g. 500ms or 1.5s")))?;
                Some(duration.as_secs_f64())
            }
            Metric::Success | Metric::Errors => value
                .strip_suffix('%')
                .and_then(|percent| percent.trim().parse::<f64>().ok())
                .filter(|percent| (0.0..=100.0).contains(percent))
                .map(|percent| percent / 100.0),
            Metric::Rate | Metric::Requests => value.parse().ok().filter(|value: &f64| value.is_finite()),
        };
        let bound = bound.ok_or_else(|| {
            let kind =
                if matches!(metric, Metric::Rate | Metric::Requests) { "number" } else { "percentage" };
            bad(&format!("{value:?} is no {kind}"))
        })?;
        Ok(Assertion { text: text.to_owned(), metric, group, relation, bound })
    }

    /// Whether it holds for a report. What was not measured does not hold.
    pub fn check(&self, report: &Report) -> Outcome {
        let outcome = |holds, measured: String| Outcome { assertion: self.text.clone(), holds, measured };
        let tally = match &self.group {
            None => &report.all,
            Some(group) => match report.groups.get(group.as_str()) {
                Some(tally) => tally,
                None => {
                    let known: Vec<&str> = report.groups.keys().map(|name| &**name).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    return outcome(false, format!("no results in group {group:?}; groups: {known}"));
                }
            },
        };
        let Some(value) = self.metric.of(tally, report) else {
            return outcome(false, "nothing was measured: no request was answered".to_owned());
        };
        let holds = match self.relation {
            Relation::Less => value < self.bound,
            Relation::AtMost => value <= self.bound,
            Relation::More => value > self.bound,
            Relation::AtLeast => value >= self.bound,
        };
        let shown = match self.metric {
            Metric::Latency { .. } => format_duration(Duration::from_nanos((value * 1e9).round() as u64)),
            Metric::Success | Metric::Errors => format!("{:.4}%", value * 100.0),
            Metric::Rate => format!("{value:.2}/s"),
            Metric::Requests => format!("{value}"),
        };
        outcome(holds, shown)
    }
}

impl Metric {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "success" => return Some(Metric::Success),
            "errors" => return Some(Metric::Errors),
            "rate" => return Some(Metric::Rate),
            "requests" => return Some(Metric::Requests),
            _ => {}
        }
        let (raw, name) = match name.strip_prefix("raw.") {
            Some(name) => (true, name),
            None => (false, name),
        };
        let of = match name {
            "mean" | "avg" => Latency::Mean,
            "min" => Latency::Least,
            "max" => Latency::Most,
            _ => {
                let percent: f64 = name.strip_prefix('p')?.parse().ok()?;
                Latency::Quantile(Some(percent / 100.0).filter(|share| (0.0..=1.0).contains(share))?)
            }
        };
        Some(Metric::Latency { of, raw })
    }

    fn of(self, tally: &Tally, report: &Report) -> Option<f64> {
        match self {
            Metric::Success => tally.success(),
            Metric::Errors => tally.success().map(|success| 1.0 - success),
            Metric::Rate => {
                let rate = tally.requests as f64 / report.total.as_secs_f64();
                Some(rate).filter(|rate| rate.is_finite())
            }
            Metric::Requests => Some(tally.requests as f64),
            Metric::Latency { of, raw } => {
                let latency: &Distribution = if raw { &tally.latency } else { tally.latency_from_due() };
                let mean = latency.mean()?;
                let value = match of {
                    Latency::Quantile(at) => latency.quantile(at),
                    Latency::Mean => mean,
                    Latency::Least => latency.least(),
                    Latency::Most => latency.most(),
                };
                Some(value.as_secs_f64())
            }
        }
    }
}
