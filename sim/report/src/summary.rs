//! What came of a run, in a screenful.

use std::fmt::Write as _;

use testbed::{ExpectationResult, Mismatch, Outcome, Status, TrafficSummary};

use crate::{latency, unified_diff, virtual_time};

/// The block at a run's end: verdict, Canaries, time, traffic, every expectation, and how to replay a failure.
pub fn summary(outcome: &Outcome) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{} {}", verdict(outcome), outcome.scenario);
    for canary in &outcome.canaries {
        let _ = writeln!(
            text,
            "  canary         {}/{} in {}: {}, weight {}",
            canary.namespace, canary.name, canary.cluster, canary.phase, canary.weight
        );
    }
    let _ = writeln!(text, "  virtual time   {}", virtual_time(outcome.virtual_time));
    let _ = writeln!(text, "  seed           {}", outcome.seed);
    outcome.traffic.iter().for_each(|summary| traffic(&mut text, summary));
    match &outcome.status {
        Status::Finished => {
            let passed = outcome.expectations.iter().filter(|result| result.passed).count();
            let all = outcome.expectations.len();
            let _ = writeln!(text, "  expectations   {passed} of {all} hold");
            outcome.expectations.iter().for_each(|result| expectation(&mut text, result));
        }
        Status::Stopped => text.push_str("  stopped before its end: nothing was checked\n"),
        Status::Failed(failure) => {
            let _ = writeln!(text, "  {}: {}", failure.place, failure.message);
        }
    }
    if !outcome.passed() {
        let _ = writeln!(text, "  replay         {}", replay(outcome));
    }
    text
}

/// The command that runs the same again.
pub fn replay(outcome: &Outcome) -> String {
    format!("coalmine run {} --seed {}", quoted(&outcome.file), outcome.seed)
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

/// One line for a run among others.
pub fn one_line(outcome: &Outcome) -> String {
    let mut line = format!("{} {:32}", verdict(outcome), outcome.scenario);
    let phases: Vec<&str> = outcome.canaries.iter().map(|canary| canary.phase.as_str()).collect();
    let _ = write!(line, " {:12}", phases.join(","));
    let _ = write!(line, " {:>8} virtual", virtual_time(outcome.virtual_time));
    match &outcome.status {
        Status::Finished => {
            let all = outcome.expectations.len();
            let failed: Vec<&ExpectationResult> =
                outcome.expectations.iter().filter(|result| !result.passed).collect();
            let _ = write!(line, ", {} of {all} expectations hold", all - failed.len());
            if let Some(first) = failed.first() {
                let reason = first.explanation.lines().next().unwrap_or_default();
                let _ = write!(line, " ({}: {reason})", first.name);
            }
        }
        Status::Stopped => line.push_str(", stopped"),
        Status::Failed(failure) => {
            let _ = write!(line, ", {}", failure.message.lines().next().unwrap_or_default());
        }
    }
    line
}

fn verdict(outcome: &Outcome) -> &'static str {
    match (&outcome.status, outcome.passed()) {
        (Status::Stopped, _) => "STOP",
        (_, true) => "PASS",
        (_, false) => "FAIL",
    }
}

fn traffic(text: &mut String, traffic: &TrafficSummary) {
    let (requests, errors) = (traffic.requests, traffic.errors);
    let _ = writeln!(text, "  traffic        {}: {requests} requests, {errors} errors", traffic.name);
    for (error, count) in &traffic.error_texts {
        let _ = writeln!(text, "    {count} × {error}");
    }
    if traffic.versions.is_empty() {
        return;
    }
    let width = traffic.versions.iter().map(|version| version.version.len()).max().unwrap_or_default().max(7);
    let _ = writeln!(
        text,
        "    {:width$} {:>9} {:>7} {:>8} {:>8} {:>8}",
        "version", "answers", "errors", "p50", "p90", "p99"
    );
    for version in &traffic.versions {
        let name = if version.version.is_empty() { "(proxy)" } else { &version.version };
        let _ = writeln!(
            text,
            "    {name:width$} {:>9} {:>7} {:>8} {:>8} {:>8}",
            version.requests,
            version.errors,
            latency(version.p50),
            latency(version.p90),
            latency(version.p99)
        );
    }
}

fn expectation(text: &mut String, result: &ExpectationResult) {
    let verdict = if result.passed { "pass" } else { "FAIL" };
    let _ = write!(text, "    {verdict}  {}", result.name);
    if !result.explanation.is_empty() {
        let _ = write!(text, ": {}", result.explanation.replace('\n', "\n      "));
    }
    text.push('\n');
    if !result.passed {
        let _ = writeln!(text, "      at {}", result.place);
    }
    if let Some(mismatch) = &result.mismatch {
        for line in diff(mismatch).lines() {
            let _ = writeln!(text, "      {line}");
        }
    }
}

/// A unified diff of expected and found lines.
pub(crate) fn diff(mismatch: &Mismatch) -> String {
    let joined = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    unified_diff(("expected", "found"), &joined(&mismatch.expected), &joined(&mismatch.found))
}
