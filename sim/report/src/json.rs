//! The timeline as JSON lines, for other programs.

use serde_json::{Value, json};
use testbed::Outcome;
use testbed::timeline::{Event, since};

/// One JSON object a line: `time`, `elapsed` (seconds since the run's start), `kind` (`log`, `step`, `mark`, `table`,
/// `canary`) and what belongs to the kind.
pub fn json_lines(outcome: &Outcome) -> String {
    let mut text = String::new();
    for entry in &outcome.timeline {
        let mut line = match &entry.event {
            Event::Line { source, text } => json!({
                "kind": "log",
                "cluster": source.cluster,
                "namespace": source.namespace,
                "pod": source.pod,
                "component": source.workload,
                "container": source.container,
                "message": entry.message(),
                "line": text,
            }),
            Event::Step { action, text } => json!({"kind": "step", "component": action, "message": text}),
            Event::Mark(name) => json!({"kind": "mark", "message": name}),
            Event::Table(text) => json!({"kind": "table", "message": text}),
            Event::Canary(state) => json!({
                "kind": "canary",
                "cluster": state.cluster,
                "namespace": state.namespace,
                "name": state.name,
                "phase": state.phase,
                "weight": state.weight,
                "failedChecks": state.failed_checks,
                "served": state.served.iter().cloned().collect::<std::collections::BTreeMap<String, u64>>(),
            }),
        };
        line["time"] = Value::String(entry.at.to_string());
        line["elapsed"] = json!(since(outcome.start, entry.at).as_secs_f64());
        text.push_str(&line.to_string());
        text.push('\n');
    }
    text
}
