//! Results as JUnit XML, which CI systems show.

use std::fmt::Write as _;

use testbed::{Outcome, Status};

use crate::replay;
use crate::summary::diff;

/// A suite per scenario and a case per expectation; the run itself is the first case.
pub fn junit(outcomes: &[Outcome]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let suites: Vec<Suite> = outcomes.iter().map(Suite::of).collect();
    let (tests, failures): (usize, usize) =
        suites.iter().fold((0, 0), |sum, suite| (sum.0 + suite.cases.len(), sum.1 + suite.failures()));
    let _ = writeln!(text, "<testsuites tests=\"{tests}\" failures=\"{failures}\">");
    for suite in &suites {
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" time=\"{:.3}\" timestamp=\"{}\">",
            escaped(&suite.outcome.scenario),
            suite.cases.len(),
            suite.failures(),
            suite.outcome.wall_time.unwrap_or_default().as_secs_f64(),
            suite.outcome.start,
        );
        let _ = writeln!(
            text,
            "    <properties><property name=\"seed\" value=\"{}\"/><property name=\"virtual-seconds\" value=\"{:.3}\"/></properties>",
            suite.outcome.seed,
            suite.outcome.virtual_time.as_secs_f64(),
        );
        for case in &suite.cases {
            let (class, name) = (escaped(&suite.outcome.scenario), escaped(&case.name));
            let _ = write!(
                text,
                "    <testcase classname=\"{class}\" name=\"{name}\" file=\"{}\"",
                escaped(&case.place)
            );
            match &case.failure {
                None => text.push_str("/>\n"),
                Some(failure) => {
                    let first = failure.lines().next().unwrap_or_default();
                    let _ = writeln!(
                        text,
                        ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                        escaped(first),
                        escaped(failure)
                    );
                }
            }
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

struct Suite<'a> {
    outcome: &'a Outcome,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    place: String,
    failure: Option<String>,
}

impl Suite<'_> {
    fn of(outcome: &Outcome) -> Suite<'_> {
        let failure = match &outcome.status {
            Status::Finished | Status::Stopped => None,
            Status::Failed(failure) => Some(format!("{}: {}", failure.place, failure.message)),
        };
        let run = Case { name: "the run ends".into(), place: outcome.file.clone(), failure };
        let expectations = outcome.expectations.iter().map(|result| Case {
            name: result.name.clone(),
            place: result.place.clone(),
            failure: (!result.passed).then(|| {
                let mut text = format!("{}: {}\n", result.place, result.explanation);
                if let Some(mismatch) = &result.mismatch {
                    text.push_str(&diff(mismatch));
                }
                let _ = write!(text, "replay: {}", replay(outcome));
                text
            }),
        });
        Suite { outcome, cases: std::iter::once(run).chain(expectations).collect() }
    }

    fn failures(&self) -> usize {
        self.cases.iter().filter(|case| case.failure.is_some()).count()
    }
}

/// Text for XML: markup escaped, control characters that XML has no place for left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => {}
            other => escaped.push(other),
        }
    }
    escaped
}
