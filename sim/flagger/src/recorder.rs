//! The controller's own metrics, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use canary::Dialect;
use crd::Phase;

/// Upper bounds of the duration's buckets, in seconds: the Go client's default.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Label values by which a series is known, in the order of the metric's labels.
type Key = Vec<String>;

#[derive(Default)]
struct Histogram {
    /// Cumulative counts per bucket.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

#[derive(Default)]
struct Series {
    info: BTreeMap<Key, f64>,
    total: BTreeMap<Key, f64>,
    status: BTreeMap<Key, f64>,
    weight: BTreeMap<Key, f64>,
    analysis: BTreeMap<Key, f64>,
    successes: BTreeMap<Key, f64>,
    failures: BTreeMap<Key, f64>,
    duration: BTreeMap<Key, Histogram>,
}

/// The metrics. Cheap to clone; clones share them.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Series>>);

/// The labels of finished runs.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// `canary`, `blue-green` or `ab-testing`.
    pub strategy: &'a str,
    /// Whether the analysis was skipped.
    pub skipped: bool,
}

impl Recorder {
    /// Notes version and mesh provider.
    pub fn info(&self, version: &str, provider: &str) {
        self.lock().info.insert(vec![version.to_owned(), provider.to_owned()], 1.0);
    }

    /// Notes the number of a namespace's Canaries.
    pub fn total(&self, namespace: &str, count: usize) {
        self.lock().total.insert(vec![namespace.to_owned()], count as f64);
    }

    /// Notes a target's phase: 0 while it is judged, 2 after a failure, else 1.
    pub fn status(&self, target: &str, namespace: &str, phase: Phase) {
        let value = match phase {
            Phase::Progressing => 0.0,
            Phase::Failed => 2.0,
            _ => 1.0,
        };
        self.lock().status.insert(vec![target.to_owned(), namespace.to_owned()], value);
    }

    /// Notes the weights of a target and its primary.
    pub fn weight(&self, target: &str, namespace: &str, primary: i32, canary: i32) {
        let mut series = self.lock();
        series.weight.insert(vec![format!("{target}-primary"), namespace.to_owned()], primary.into());
        series.weight.insert(vec![target.to_owned(), namespace.to_owned()], canary.into());
    }

    /// Notes a checked metric's value.
    pub fn analysis(&self, target: &str, namespace: &str, metric: &str, value: f64) {
        let key = vec![target.to_owned(), namespace.to_owned(), metric.to_owned()];
        self.lock().analysis.insert(key, value);
    }

    /// Counts a promotion.
    pub fn success(&self, target: &str, namespace: &str, run: Run<'_>) {
        *self.lock().successes.entry(run.key(target, namespace)).or_default() += 1.0;
    }

    /// Counts a rollback.
    pub fn failure(&self, target: &str, namespace: &str, run: Run<'_>) {
        *self.lock().failures.entry(run.key(target, namespace)).or_default() += 1.0;
    }

    /// Notes how long a tick took.
    pub fn duration(&self, target: &str, namespace: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut series = self.lock();
        let histogram = series.duration.entry(vec![target.to_owned(), namespace.to_owned()]).or_default();
        for (count, bound) in histogram.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
        histogram.count += 1;
        histogram.sum += seconds;
    }

    /// All metrics as text.
    pub fn exposition(&self, dialect: Dialect) -> String {
        let series = self.lock();
        let mut text = String::new();
        let target: &[&str] = &["name", "namespace"];
        durations(&mut text, &series.duration);
        if dialect == Dialect::Latest {
            let run: &[&str] = &["name", "namespace", "deployment_strategy", "analysis_status"];
            let help = "Total number of canary failures";
            family(&mut text, "canary_failures_total", "counter", help, run, &series.failures);
            let help = "Last canary analysis result per metric";
            let labels = &["name", "namespace", "metric"];
            family(&mut text, "canary_metric_analysis", "gauge", help, labels, &series.analysis);
        }
        family(&mut text, "canary_status", "gauge", "Last canary analysis result", target, &series.status);
        if dialect == Dialect::Latest {
            let run: &[&str] = &["name", "namespace", "deployment_strategy", "analysis_status"];
            let help = "Total number of canary successes";
            family(&mut text, "canary_successes_total", "counter", help, run, &series.successes);
        }
        family(&mut text, "canary_total", "gauge", "Number of canaries", &["namespace"], &series.total);
        let labels = &["workload", "namespace"];
        family(&mut text, "canary_weight", "gauge", "Current weight of a workload", labels, &series.weight);
        let labels = &["version", "mesh_provider"];
        family(&mut text, "info", "gauge", "Flagger version and mesh provider", labels, &series.info);
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Series> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Run<'_> {
    fn key(&self, target: &str, namespace: &str) -> Key {
        let status = if self.skipped { "skipped" } else { "completed" };
        [target, namespace, self.strategy, status].map(str::to_owned).to_vec()
    }
}

fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP flagger_{name} {help}\n# TYPE flagger_{name} {kind}");
}

fn labels(names: &[&str], key: &Key) -> String {
    let pairs = names.iter().zip(key);
    pairs.map(|(name, value)| format!("{name}={}", quoted(value))).collect::<Vec<_>>().join(",")
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    names: &[&str],
    series: &BTreeMap<Key, f64>,
) {
    if series.is_empty() {
        return;
    }
    header(text, name, kind, help);
    for (key, value) in series {
        let _ = writeln!(text, "flagger_{name}{{{}}} {value}", labels(names, key));
    }
}

fn durations(text: &mut String, series: &BTreeMap<Key, Histogram>) {
    if series.is_empty() {
        return;
    }
    let name = "canary_duration_seconds";
    header(text, name, "histogram", "Seconds spent performing canary analysis");
    for (key, histogram) in series {
        let labels = labels(&["name", "namespace"], key);
        for (count, bound) in histogram.buckets.iter().zip(BUCKETS) {
            let _ = writeln!(text, "flagger_{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let Histogram { count, sum, .. } = histogram;
        let _ = writeln!(text, "flagger_{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "flagger_{name}_sum{{{labels}}} {sum}");
        let _ = writeln!(text, "flagger_{name}_count{{{labels}}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_exposed() {
        let recorder = Recorder::default();
        recorder.info("1.0.0-rc.1", "istio");
        recorder.weight("podinfo", "test", 95, 5);
        recorder.status("podinfo", "test", Phase::Progressing);
        recorder.success("podinfo", "test", Run { strategy: "canary", skipped: false });
        recorder.duration("podinfo", "test", Duration::from_millis(30));
        let text = recorder.exposition(Dialect::Rc1);
        for line in [
            "# TYPE flagger_canary_weight gauge",
            "flagger_canary_weight{workload=\"podinfo-primary\",namespace=\"test\"} 95",
            "flagger_canary_status{name=\"podinfo\",namespace=\"test\"} 0",
            "flagger_info{version=\"1.0.0-rc.1\",mesh_provider=\"istio\"} 1",
            "flagger_canary_duration_seconds_bucket{name=\"podinfo\",namespace=\"test\",le=\"0.025\"} 0",
            "flagger_canary_duration_seconds_bucket{name=\"podinfo\",namespace=\"test\",le=\"0.05\"} 1",
            "flagger_canary_duration_seconds_bucket{name=\"podinfo\",namespace=\"test\",le=\"1\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
        assert!(!text.contains("successes_total"));
        assert!(recorder.exposition(Dialect::Latest).contains(
            "flagger_canary_successes_total{name=\"podinfo\",namespace=\"test\",\
             deployment_strategy=\"canary\",analysis_status=\"completed\"} 1"
        ));
    }
}
