//! Container logs: what programs print, in the order in which they print it.

use std::sync::{Arc, Mutex};

use clock::{Clock, Timestamp};

/// The container that a log line comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogSource {
    /// The cluster's name.
    pub cluster: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The workload that owns the pod, e.g. the Deployment's name.
    pub workload: String,
    /// The container's name.
    pub container: String,
    /// How often the container had been restarted before.
    pub run: u32,
}

/// Where log lines go: the timeline of a run, `kubectl logs`.
pub trait LogStore: Send + Sync {
    /// Takes one line, without its line break. Called in the order of printing.
    fn line(&self, source: &Arc<LogSource>, at: Timestamp, text: &str);
}

/// One container's standard output and error.
#[derive(Clone)]
pub struct LogSink {
    store: Arc<dyn LogStore>,
    source: Arc<LogSource>,
    clock: Clock,
}

impl LogSink {
    /// The log of `source`, kept by `store`.
    pub fn new(store: Arc<dyn LogStore>, source: LogSource, clock: Clock) -> Self {
        LogSink { store, source: Arc::new(source), clock }
    }

    /// Prints `text`; several lines become several log lines.
    pub fn print(&self, text: &str) {
        let now = self.clock.now();
        for line in text.lines() {
            self.store.line(&self.source, now, line);
        }
    }

    /// The container that prints here.
    pub fn source(&self) -> &LogSource {
        &self.source
    }
}

/// A [`LogStore`] that keeps all lines in memory.
#[derive(Debug, Default)]
pub struct Logs(Mutex<Vec<(Arc<LogSource>, Timestamp, String)>>);

impl Logs {
    /// All lines so far for which `keep` holds, in the order of printing.
    pub fn lines(&self, keep: impl Fn(&LogSource) -> bool) -> Vec<(Timestamp, String)> {
        let lines = self.0.lock().expect("no holder of this lock panics");
        lines.iter().filter(|(source, ..)| keep(source)).map(|(_, at, text)| (*at, text.clone())).collect()
    }
}

impl LogStore for Logs {
    fn line(&self, source: &Arc<LogSource>, at: Timestamp, text: &str) {
        self.0.lock().expect("no holder of this lock panics").push((Arc::clone(source), at, text.to_owned()));
    }
}
