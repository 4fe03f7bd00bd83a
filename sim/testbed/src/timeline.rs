//! What happened in a run, in order: every container's log lines, and what the runner did and saw.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clock::{Clock, Timestamp};
use program::{LogSource, LogStore};
use serde_json::Value;
use tokio::sync::Notify;

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// Things that happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A container printed a line.
    Line {
        /// The container.
        source: Arc<LogSource>,
        /// The line.
        text: String,
    },
    /// A step began.
    Step {
        /// The action's word, e.g. `apply`.
        action: &'static str,
        /// What it does.
        text: String,
    },
    /// A named moment.
    Mark(String),
    /// A table that a step asked for.
    Table(String),
    /// A Canary's status changed.
    Canary(CanaryState),
}

/// A Canary's status as the runner saw it, with the requests that each version had answered until then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CanaryState {
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The phase.
    pub phase: String,
    /// The canary's weight.
    pub weight: i64,
    /// Failed checks of this analysis.
    pub failed_checks: i64,
    /// Requests of the scenario's traffic answered since the state before, by version.
    pub served: Vec<(String, u64)>,
}

impl Entry {
    /// The message of a log line: the field `msg` of a structured line, else the line itself. `None` for other events.
    pub fn message(&self) -> Option<Cow<'_, str>> {
        match &self.event {
            Event::Line { text, .. } => Some(message(text)),
            _ => None,
        }
    }
}

/// The message of a log line: `msg` of JSON (zap's format) or logfmt (logrus' format), else the whole line.
pub fn message(line: &str) -> Cow<'_, str> {
    if line.starts_with('{')
        && let Ok(Value::Object(mut fields)) = serde_json::from_str(line)
        && let Some(Value::String(message)) = fields.remove("msg").or_else(|| fields.remove("message"))
    {
        return Cow::Owned(message);
    }
    if line.starts_with("time=")
        && let Some((_, rest)) = line.split_once(" msg=")
    {
        let Some(quoted) = rest.strip_prefix('"') else {
            return Cow::Borrowed(rest.split(' ').next().unwrap_or(rest));
        };
        let mut text = String::new();
        let mut characters = quoted.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => text.extend(characters.next()),
                other => text.push(other),
            }
        }
        return Cow::Owned(text);
    }
    Cow::Borrowed(line)
}

/// The events of a run. Cheap to clone; clones share the events.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<Vec<Entry>>,
    grown: Notify,
}

impl Timeline {
    /// Adds an event.
    pub fn record(&self, at: Timestamp, event: Event) {
        self.entries().push(Entry { at, event });
        self.0.grown.notify_waiters();
    }

    /// Adds an event that happens now.
    pub fn record_now(&self, clock: &Clock, event: Event) {
        self.record(clock.now(), event);
    }

    /// All events so far. Nothing can be recorded while the guard lives.
    pub fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().expect("no holder of this lock panics")
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until there are more than `len` events.
    pub async fn longer_than(&self, len: usize) {
        loop {
            let grown = self.0.grown.notified();
            let mut grown = std::pin::pin!(grown);
            grown.as_mut().enable();
            if self.len() > len {
                return;
            }
            grown.await;
        }
    }

    /// Takes all events out, leaving none.
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.entries())
    }
}

impl LogStore for Timeline {
    fn line(&self, source: &Arc<LogSource>, at: Timestamp, text: &str) {
        self.record(at, Event::Line { source: Arc::clone(source), text: text.to_owned() });
    }
}

/// Which containers' lines are meant. Without a container, all of the workload's but an injected proxy.
#[derive(Clone, Copy, Debug)]
pub struct Component<'a> {
    /// The cluster; any without one.
    pub cluster: Option<&'a str>,
    /// The namespace; any without one.
    pub namespace: Option<&'a str>,
    /// The workload.
    pub workload: &'a str,
    /// The container.
    pub container: Option<&'a str>,
}

/// The name of injected proxies' containers.
const PROXY: &str = "istio-proxy";

impl Component<'_> {
    /// Whether a container belongs to the component.
    pub fn has(&self, source: &LogSource) -> bool {
        source.workload == self.workload
            && self.cluster.is_none_or(|cluster| cluster == source.cluster)
            && self.namespace.is_none_or(|namespace| namespace == source.namespace)
            && match self.container {
                Some(container) => container == source.container,
                None => source.container != PROXY || source.workload == PROXY,
            }
    }
}

/// Time since `start`, zero before it.
pub fn since(start: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(start)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_structured_and_plain_lines() {
        let json = r#"{"level":"info","ts":"2020-03-17T11:00:00.000Z","msg":"Synced test/podinfo"}"#;
        assert_eq!(message(json), "Synced test/podinfo");
        let logfmt =
            r#"time="2020-03-17T11:00:00Z" level=info msg="Refreshing \"podinfo\"" application=podinfo"#;
        assert_eq!(message(logfmt), "Refreshing \"podinfo\"");
        assert_eq!(message("time=\"x\" level=info msg=Bare application=podinfo"), "Bare");
        assert_eq!(message("{not json"), "{not json");
    }
}
