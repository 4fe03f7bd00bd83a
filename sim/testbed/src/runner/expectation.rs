//! Checks what a scenario expects, when its run is over.

use std::time::Duration;

use loadgen::{Distribution, format_duration};
use regex::Regex;

use super::outcome::{ExpectationResult, Mismatch};
use super::record::{Filter, Sample};
use super::{Runner, check, query};
use crate::scenario::{
    DurationLimit, Errors, Expectation, LatencyLimit, Located, LogExpectation, LogMode, RequestCount, Share,
};
use crate::timeline::{Component, Entry, Event};

/// Log lines that a failed `ordered`, `subset` or `regex` expectation shows of what was printed.
const LINES_SHOWN_MAX: usize = 200;

/// What a check found: an explanation, and lines that differ if lines were compared.
type Finding = Result<String, (String, Option<Mismatch>)>;

fn wrong(explanation: impl Into<String>) -> (String, Option<Mismatch>) {
    (explanation.into(), None)
}

impl Runner<'_> {
    /// Checks one expectation.
    pub(super) async fn expectation(&self, expectation: &Located<Expectation>) -> ExpectationResult {
        let (name, finding) = self.find(expectation).await;
        let name = expectation.name.clone().unwrap_or(name);
        let place = format!("{}:{}", self.loaded.file, expectation.at);
        let (passed, explanation, mismatch) = match finding {
            Ok(explanation) => (true, explanation, None),
            Err((explanation, mismatch)) => (false, explanation, mismatch),
        };
        ExpectationResult { place, name, passed, explanation, mismatch }
    }

    async fn find(&self, expectation: &Expectation) -> (String, Finding) {
        if let Some(log) = &expectation.log {
            let name = format!("log of {}{}", log.workload, cluster(log.cluster.as_deref()));
            return (name, self.log(log));
        }
        if let Some(object) = &expectation.object {
            let found = self.current(object).await.map_err(wrong);
            let finding = found.and_then(|found| check::object(object, found.as_ref()).map_err(wrong));
            return (check::wish(object), finding.map(|()| String::new()));
        }
        if let Some(metric) = &expectation.metric {
            let found = query::ask(&self.world, metric).await.map_err(wrong);
            let finding = found.and_then(|value| {
                check::query(metric, value).map_err(wrong)?;
                Ok(value.map_or_else(|| "no value".to_owned(), |value| value.to_string()))
            });
            return (format!("metric {}", metric.promql), finding);
        }
        if let Some(canary) = &expectation.canary {
            let found = self.canary_now(canary).await.map_err(wrong);
            let finding = found.and_then(|found| check::canary(canary, found.as_ref()).map_err(wrong));
            return (check::canary_wish(canary), finding.map(|()| String::new()));
        }
        if let Some(share) = &expectation.share {
            return (format!("share of {}", share.version), self.share(share));
        }
        if let Some(errors) = &expectation.errors {
            let what =
                errors.status.as_deref().map_or("errors".to_owned(), |status| format!("answers {status}"));
            return (format!("{what}{}", of(errors.traffic.as_deref())), self.errors(errors));
        }
        if let Some(latency) = &expectation.latency {
            let version =
                latency.version.as_deref().map(|version| format!(" of {version}")).unwrap_or_default();
            return (format!("latency p{}{version}", latency.quantile * 100.0), self.latency(latency));
        }
        if let Some(count) = &expectation.requests {
            return (format!("requests{}", of(count.traffic.as_deref())), self.requests(count));
        }
        if let Some(limit) = &expectation.duration {
            let ends = [limit.from.as_deref().unwrap_or("start"), limit.until.as_deref().unwrap_or("end")];
            return (format!("duration from {} to {}", ends[0], ends[1]), self.duration(limit));
        }
        ("nothing".into(), Ok(String::new()))
    }

    fn log(&self, log: &LogExpectation) -> Finding {
        let only = pattern(log.only.as_ref())?;
        let from = self.entry(log.from.as_deref(), 0)?;
        let entries = self.world.logs().entries();
        let until = self.entry(log.until.as_deref(), entries.len())?;
        let lines: Vec<String> = entries[from..until.max(from)]
            .iter()
            .filter_map(|entry| line(log, entry))
            .filter(|line| only.as_ref().is_none_or(|only| only.is_match(line)))
            .collect();
        drop(entries);
        for never in &log.never {
            let regex = Regex::new(never).map_err(|error| wrong(error.to_string()))?;
            if let Some(line) = lines.iter().find(|line| regex.is_match(line)) {
                return Err(wrong(format!(
                    "{line:?} matches {:?}, which must never be printed",
                    never.value
                )));
            }
        }
        let expected: Vec<String> = log.lines.iter().map(|line| line.value.clone()).collect();
        compare(log.mode, &expected, &lines)
    }

    fn entry(&self, mark: Option<&str>, otherwise: usize) -> Result<usize, (String, Option<Mismatch>)> {
        match mark {
            None => Ok(otherwise),
            Some(name) => self.mark(name).map(|mark| mark.entry).ok_or_else(|| wrong(unreached(name))),
        }
    }

    /// The requests that an expectation speaks of.
    fn select(
        &self,
        traffic: Option<&str>,
        version: Option<&str>,
        (from, until): (Option<&str>, Option<&str>),
    ) -> Result<Vec<Sample>, (String, Option<Mismatch>)> {
        let time = |mark: Option<&str>| -> Result<Option<Duration>, (String, Option<Mismatch>)> {
            let Some(name) = mark else { return Ok(None) };
            self.mark(name).map(|mark| Some(mark.at)).ok_or_else(|| wrong(unreached(name)))
        };
        let filter = Filter {
            traffic: traffic.and_then(|name| self.traffic_index(name)),
            version,
            from: time(from)?,
            until: time(until)?,
        };
        Ok(self.record.select(&filter))
    }

    fn share(&self, share: &Share) -> Finding {
        let window = (share.from.as_deref(), share.until.as_deref());
        let traffic = share.traffic.as_deref();
        let all = self.select(traffic, None, window)?.iter().filter(|sample| sample.status > 0).count();
        let ours = self.select(traffic, Some(&share.version), window)?.len();
        if all == 0 {
            return Err(wrong("no request was answered"));
        }
        let part = ours as f64 / all as f64;
        let found = format!("{part:.3} ({ours} of {all} answers)");
        match check::within(part, share.min, share.max) {
            Ok(()) => Ok(found),
            Err(limit) => {
                let versions = self.record.versions().join(", ");
                Err(wrong(format!("{found}, {limit}; versions that answered: {versions}")))
            }
        }
    }

    fn errors(&self, errors: &Errors) -> Finding {
        let window = (errors.from.as_deref(), errors.until.as_deref());
        let samples = self.select(errors.traffic.as_deref(), errors.version.as_deref(), window)?;
        let is_error = |sample: &&Sample| match errors.status.as_deref() {
            None => sample.failed(),
            Some(status) => status_matches(status, sample.status),
        };
        let count = samples.iter().filter(is_error).count();
        let rate = if samples.is_empty() { 0.0 } else { count as f64 / samples.len() as f64 };
        let found = format!("{count} of {} requests", samples.len());
        if errors.max.is_some_and(|max| count as u64 > max) {
            return Err(wrong(format!("{found}, more than {}", errors.max.unwrap_or_default())));
        }
        if errors.min.is_some_and(|min| (count as u64) < min) {
            return Err(wrong(format!("{found}, fewer than {}", errors.min.unwrap_or_default())));
        }
        if errors.max_rate.is_some_and(|max| rate > max) {
            let max = errors.max_rate.unwrap_or_default();
            return Err(wrong(format!("{found}, a rate of {rate:.4}, above {max}")));
        }
        Ok(found)
    }

    fn latency(&self, limit: &LatencyLimit) -> Finding {
        let window = (limit.from.as_deref(), limit.until.as_deref());
        let samples = self.select(limit.traffic.as_deref(), limit.version.as_deref(), window)?;
        let mut latencies = Distribution::default();
        samples.iter().filter(|sample| sample.status > 0).for_each(|sample| latencies.record(sample.latency));
        if latencies.count() == 0 {
            return Err(wrong("no request was answered"));
        }
        duration_within(latencies.quantile(limit.quantile), limit.min, limit.max)
    }

    fn requests(&self, count: &RequestCount) -> Finding {
        let window = (count.from.as_deref(), count.until.as_deref());
        let found = self.select(count.traffic.as_deref(), count.version.as_deref(), window)?.len() as u64;
        if count.min.is_some_and(|min| found < min) {
            return Err(wrong(format!("{found}, fewer than {}", count.min.unwrap_or_default())));
        }
        if count.max.is_some_and(|max| found > max) {
            return Err(wrong(format!("{found}, more than {}", count.max.unwrap_or_default())));
        }
        Ok(found.to_string())
    }

    fn duration(&self, limit: &DurationLimit) -> Finding {
        let time = |mark: Option<&str>, otherwise: Duration| match mark {
            None => Ok(otherwise),
            Some(name) => self.mark(name).map(|mark| mark.at).ok_or_else(|| wrong(unreached(name))),
        };
        let from = time(limit.from.as_deref(), Duration::ZERO)?;
        let until = time(limit.until.as_deref(), self.clock.elapsed())?;
        duration_within(until.saturating_sub(from), limit.min, limit.max)
    }
}

fn duration_within(
    found: Duration,
    min: Option<crate::scenario::Span>,
    max: Option<crate::scenario::Span>,
) -> Finding {
    let text = format_duration(found);
    if let Some(max) = max.filter(|max| found > max.0) {
        return Err(wrong(format!("{text}, longer than {max}")));
    }
    if let Some(min) = min.filter(|min| found < min.0) {
        return Err(wrong(format!("{text}, shorter than {min}")));
    }
    Ok(text)
}

fn unreached(mark: &str) -> String {
    format!("the mark {mark:?} was never reached")
}

fn cluster(name: Option<&str>) -> String {
    name.map(|name| format!(" in {name}")).unwrap_or_default()
}

fn of(traffic: Option<&str>) -> String {
    traffic.map(|name| format!(" of {name}")).unwrap_or_default()
}

/// `503`, or `5xx`.
fn status_matches(pattern: &str, status: u16) -> bool {
    let status = status.to_string();
    pattern.len() == status.len()
        && pattern.chars().zip(status.chars()).all(|(wanted, found)| wanted == 'x' || wanted == found)
}

fn pattern(pattern: Option<&Located<String>>) -> Result<Option<Regex>, (String, Option<Mismatch>)> {
    pattern.map(|pattern| Regex::new(pattern)).transpose().map_err(|error| wrong(error.to_string()))
}

/// A timeline's entry as a line of the log, if it is one.
fn line(log: &LogExpectation, entry: &Entry) -> Option<String> {
    let Event::Line { source, text } = &entry.event else { return None };
    let component = Component {
        cluster: log.cluster.as_deref(),
        namespace: log.namespace.as_deref(),
        workload: &log.workload,
        container: log.container.as_deref(),
    };
    let text = || if log.raw { text.clone() } else { entry.message().unwrap_or_default().into_owned() };
    component.has(source).then(text)
}

/// Compares a log with what is expected of it. Pure.
fn compare(mode: LogMode, expected: &[String], found: &[String]) -> Finding {
    match mode {
        LogMode::Exact => {
            if expected == found {
                return Ok(format!("{} lines", found.len()));
            }
            let mismatch = Mismatch { expected: expected.to_vec(), found: found.to_vec() };
            Err(("the log differs".into(), Some(mismatch)))
        }
        LogMode::Ordered => in_order(expected, found, |line, found| line == found),
        LogMode::Regex => {
            let compiled: Result<Vec<Regex>, _> = expected.iter().map(|line| Regex::new(line)).collect();
            let compiled = compiled.map_err(|error| wrong(error.to_string()))?;
            in_order(&compiled, found, |regex, found| regex.is_match(found))
        }
        LogMode::Subset => {
            let mut left: Vec<&String> = found.iter().collect();
            for line in expected {
                match left.iter().position(|found| *found == line) {
                    Some(index) => drop(left.swap_remove(index)),
                    None => return Err(wrong(format!("{line:?} was not printed{}", printed(found)))),
                }
            }
            Ok(format!("{} lines among {}", expected.len(), found.len()))
        }
    }
}

fn in_order<T: std::fmt::Display>(
    expected: &[T],
    found: &[String],
    is: impl Fn(&T, &String) -> bool,
) -> Finding {
    let mut rest = found.iter().enumerate();
    let mut after = None;
    for wanted in expected {
        match rest.find(|(_, line)| is(wanted, line)) {
            Some((index, _)) => after = Some(index),
            None => {
                let wanted = wanted.to_string();
                let place =
                    after.map(|index: usize| format!(" after {:?}", found[index])).unwrap_or_default();
                let start = after.map_or(0, |index| index + 1);
                return Err(wrong(format!("{wanted:?} was not printed{place}{}", printed(&found[start..]))));
            }
        }
    }
    Ok(format!("{} lines among {}", expected.len(), found.len()))
}

/// What was printed instead.
fn printed(lines: &[String]) -> String {
    if lines.is_empty() {
        return "; nothing more was printed".into();
    }
    let shown: Vec<String> = lines.iter().take(LINES_SHOWN_MAX).map(|line| format!("\n    {line}")).collect();
    let more = lines.len().saturating_sub(LINES_SHOWN_MAX);
    let more = if more > 0 { format!("\n    … and {more} lines") } else { String::new() };
    format!("; what was printed:{}{more}", shown.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mode: LogMode, expected: &str, found: &str) -> Result<(), String> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        compare(mode, &words(expected), &words(found)).map(drop).map_err(|(explanation, _)| explanation)
    }

    #[test]
    fn modes_of_comparing_logs() {
        assert_eq!(check(LogMode::Exact, "a b", "a b"), Ok(()));
        assert!(check(LogMode::Exact, "a b", "a b c").is_err());
        assert_eq!(check(LogMode::Ordered, "a c", "a b c"), Ok(()));
        assert!(
            check(LogMode::Ordered, "c a", "a b c")
                .unwrap_err()
                .contains("\"a\" was not printed after \"c\"")
        );
        assert_eq!(check(LogMode::Subset, "c a", "a b c"), Ok(()));
        assert!(check(LogMode::Subset, "a a", "a b c").is_err());
        assert_eq!(check(LogMode::Regex, "^a$ .*", "a b"), Ok(()));
        assert!(check(LogMode::Regex, "x", "a b").unwrap_err().ends_with("what was printed:\n    a\n    b"));
    }

    #[test]
    fn statuses_match_by_digit_or_class() {
        assert!(status_matches("5xx", 503) && status_matches("503", 503) && status_matches("0", 0));
        assert!(!status_matches("5xx", 404) && !status_matches("5xx", 50));
    }
}
