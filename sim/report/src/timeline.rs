//! The timeline of a run as text: when, where, who, what.

use std::fmt::Write as _;
use std::time::Duration;

use testbed::Outcome;
use testbed::timeline::{CanaryState, Component, Entry, Event, since};

/// How wide a weight's bar is.
const BAR: usize = 20;

/// The run's events, a line each: virtual time since the start, cluster, component, message. A Canary's line shows
/// its weight as a bar and the answers per version since the line before.
pub fn timeline(outcome: &Outcome) -> String {
    let clusters = outcome.timeline.iter().filter_map(|entry| cluster(&entry.event)).map(str::len);
    let width = clusters.max().unwrap_or_default().max("cluster".len());
    let components = outcome.timeline.iter().map(|entry| component(&entry.event).len());
    let names = components.max().unwrap_or_default().clamp("component".len(), 32);
    let mut text = String::new();
    let _ = writeln!(text, "{} started at {}, seed {}", outcome.scenario, outcome.start, outcome.seed);
    let _ = writeln!(text, "{:>9}  {:width$}  {:names$}  message", "time", "cluster", "component");
    for entry in &outcome.timeline {
        let Some(message) = message(entry) else { continue };
        let time = clock(since(outcome.start, entry.at));
        let cluster = cluster(&entry.event).unwrap_or("");
        let component = component(&entry.event);
        let mut lines = message.lines();
        let first = lines.next().unwrap_or_default();
        let _ =
            writeln!(text, "{}", format!("{time}  {cluster:width$}  {component:names$}  {first}").trim_end());
        for line in lines {
            let _ = writeln!(text, "{:9}  {:width$}  {:names$}  {line}", "", "", "");
        }
    }
    text
}

/// The canary controller's own log, as it was printed: JSON lines. Where several clusters run one, those count that
/// have Canaries.
pub fn flagger_log(outcome: &Outcome) -> String {
    let relevant = |cluster: &str| {
        outcome.canaries.is_empty() || outcome.canaries.iter().any(|canary| canary.cluster == cluster)
    };
    let controller = Component { cluster: None, namespace: None, workload: "flagger", container: None };
    let lines = outcome.timeline.iter().filter_map(|entry| match &entry.event {
        Event::Line { source, text } if controller.has(source) && relevant(&source.cluster) => {
            Some(text.as_str())
        }
        _ => None,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// `0:04:19.5`, tenths only where there are any.
fn clock(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    let (seconds, tenth) = (tenths / 10, tenths % 10);
    format!("{}:{:02}:{:02}.{tenth}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn cluster(event: &Event) -> Option<&str> {
    match event {
        Event::Line { source, .. } => Some(&source.cluster),
        Event::Canary(state) => Some(&state.cluster),
        Event::Step { .. } | Event::Mark(_) | Event::Table(_) => None,
    }
}

fn component(event: &Event) -> &str {
    match event {
        Event::Line { source, .. } => &source.workload,
        Event::Canary(_) => "canary",
        Event::Step { action, .. } => action,
        Event::Mark(_) => "mark",
        Event::Table(_) => "",
    }
}

/// What a line says; `None` for what only `--output json` shows.
fn message(entry: &Entry) -> Option<String> {
    match &entry.event {
        Event::Line { text, .. } => {
            if text.contains("\"level\":\"debug\"") {
                return None;
            }
            entry.message().map(|message| message.into_owned())
        }
        Event::Step { text, .. } | Event::Table(text) => Some(text.clone()),
        Event::Mark(name) => Some(format!("── {name} ──")),
        Event::Canary(state) => Some(canary(state)),
    }
}

fn canary(state: &CanaryState) -> String {
    let filled = usize::try_from(state.weight.clamp(0, 100)).unwrap_or_default() * BAR / 100;
    let bar: String = (0..BAR).map(|index| if index < filled { '█' } else { '░' }).collect();
    let mut text =
        format!("{}/{} {} {bar} weight {}", state.namespace, state.name, state.phase, state.weight);
    if state.failed_checks > 0 {
        let _ = write!(text, ", {} failed checks", state.failed_checks);
    }
    if !state.served.is_empty() {
        let served: Vec<String> =
            state.served.iter().map(|(version, requests)| format!("{version}: {requests}")).collect();
        let _ = write!(text, " (answers since: {})", served.join(", "));
    }
    text
}
