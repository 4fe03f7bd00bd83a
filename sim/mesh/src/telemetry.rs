//! Istio's standard metrics of one proxy, in Prometheus' text format.
//!
//! Mixer-time meshes (1.4 and before) export `istio_request_duration_seconds`, newer ones
//! `istio_request_duration_milliseconds`; [`Telemetry`] chooses. A series exists from its first request on.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::Named;
use crate::workload::Workload;

/// The unit of the duration histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telemetry {
    /// `istio_request_duration_seconds`, as Mixer made it.
    Seconds,
    /// `istio_request_duration_milliseconds`, as the proxies make it since 1.5.
    Milliseconds,
}

/// Upper bounds in seconds.
const BOUNDS_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds in milliseconds.
const BOUNDS_MILLIS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Which side counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reporter {
    /// The server's proxy.
    Destination,
    /// The client's proxy.
    Source,
}

/// What tells one series from another.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// Which side counts.
    pub reporter: Reporter,
    /// The client.
    pub source: &'a Arc<Workload>,
    /// The server.
    pub destination: &'a Arc<Workload>,
    /// The service.
    pub service: &'a Arc<Named>,
    /// The status; 0 if the client left.
    pub code: u16,
    /// Envoy's response flags, `-` without.
    pub flags: &'static str,
    /// Whether the connection is mutual TLS.
    pub mutual_tls: bool,
}

/// The order of two series in what pages show of them, with short cuts: as a rule they are made of the same. What is not
/// shown, such as a pod's other labels, tells no series from another: a page has no line twice.
fn by_shown(one: Series<'_>, other: Series<'_>, telemetry: Telemetry) -> Ordering {
    let workloads = |one: &Arc<Workload>, other: &Arc<Workload>| match Arc::ptr_eq(one, other) {
        true => Ordering::Equal,
        false => shown(one, telemetry).cmp(&shown(other, telemetry)),
    };
    (one.reporter, one.code, one.flags, one.mutual_tls)
        .cmp(&(other.reporter, other.code, other.flags, other.mutual_tls))
        .then_with(|| workloads(one.source, other.source))
        .then_with(|| workloads(one.destination, other.destination))
        .then_with(|| one.service.cmp(other.service))
}

/// What pages show of a workload.
fn shown(workload: &Workload, telemetry: Telemetry) -> ([&str; 5], Option<[&str; 2]>) {
    let Workload { cluster, namespace, name, app, version, account, .. } = workload;
    let more = (telemetry == Telemetry::Milliseconds).then(|| [canonical(workload), cluster]);
    ([namespace, name, app, version, account], more)
}

/// The name of a workload's canonical service.
fn canonical(workload: &Workload) -> &str {
    let name = workload.labels.get("app.kubernetes.io/name").unwrap_or(&workload.app);
    if name == "unknown" { &workload.name } else { name }
}

/// What a series is made of, and its counters.
struct Counted {
    reporter: Reporter,
    source: Arc<Workload>,
    destination: Arc<Workload>,
    service: Arc<Named>,
    code: u16,
    flags: &'static str,
    mutual_tls: bool,
    lines: Lines,
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
    /// Its durations as the last page shows them, and how many they were then.
    durations: (String, u64),
}

impl Counted {
    /// A series without requests.
    fn new(series: Series<'_>, telemetry: Telemetry) -> Counted {
        let Series { reporter, source, destination, service, code, flags, mutual_tls } = series;
        Counted {
            reporter,
            source: Arc::clone(source),
            destination: Arc::clone(destination),
            service: Arc::clone(service),
            code,
            flags,
            mutual_tls,
            lines: Lines::new(&labels(series, telemetry), telemetry),
            buckets: vec![0; telemetry.bounds().len()],
            count: 0,
            sum: 0.0,
            durations: (String::new(), 0),
        }
    }

    /// Its durations as a page shows them.
    fn durations(&mut self) -> &str {
        let Counted { lines, buckets, count, sum, durations: (text, written), .. } = self;
        if written != count {
            *written = *count;
            text.clear();
            let mut total = 0;
            for (line, in_bucket) in lines.buckets.iter().zip(buckets) {
                total += *in_bucket;
                number(text, line, total);
            }
            number(text, &lines.infinity, *count);
            text.push_str(&format!("{}{sum}\n", lines.sum));
            number(text, &lines.count, *count);
        }
        text
    }

    fn series(&self) -> Series<'_> {
        let Counted { reporter, source, destination, service, code, flags, mutual_tls, .. } = self;
        let (reporter, code, mutual_tls) = (*reporter, *code, *mutual_tls);
        Series { reporter, source, destination, service, code, flags, mutual_tls }
    }

    /// Whether it is of the very same parts, which is quicker to see than whether it is equal.
    fn is_made_of(&self, series: Series<'_>) -> bool {
        self.code == series.code
            && self.reporter == series.reporter
            && self.mutual_tls == series.mutual_tls
            && std::ptr::eq(self.flags, series.flags)
            && Arc::ptr_eq(&self.destination, series.destination)
            && Arc::ptr_eq(&self.source, series.source)
            && Arc::ptr_eq(&self.service, series.service)
    }
}

/// The metrics of one proxy.
pub struct Metrics {
    telemetry: Telemetry,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    /// In the order of the series.
    series: Vec<Counted>,
    /// How long the last page was.
    length: usize,
}

impl Metrics {
    /// Metrics without series.
    pub fn new(telemetry: Telemetry) -> Self {
        Metrics { telemetry, all: Mutex::default() }
    }

    /// Counts a request.
    pub fn record(&self, series: Series<'_>, duration: Duration) {
        let bounds = self.telemetry.bounds();
        let value = match self.telemetry {
            Telemetry::Seconds => duration.as_secs_f64(),
            // Whole milliseconds, as Envoy measures.
            Telemetry::Milliseconds => {
                (duration.as_secs() * 1000 + u64::from(duration.subsec_millis())) as f64
            }
        };
        let mut all = self.all.lock().expect("no holder of this lock panics");
        let all = &mut all.series;
        let place = all.iter().position(|known| known.is_made_of(series)).unwrap_or_else(|| {
            match all.binary_search_by(|known| by_shown(known.series(), series, self.telemetry)) {
                Ok(place) => {
                    // Made of newer parts: those that come will be, too.
                    let known = &mut all[place];
                    known.flags = series.flags;
                    known.source = Arc::clone(series.source);
                    known.destination = Arc::clone(series.destination);
                    known.service = Arc::clone(series.service);
                    place
                }
                Err(place) => {
                    all.insert(place, Counted::new(series, self.telemetry));
                    place
                }
            }
        });
        let counted = &mut all[place];
        // Only the first bucket that takes the value: the page adds them up.
        if let Some(bucket) = bounds.iter().position(|bound| value <= *bound) {
            counted.buckets[bucket] += 1;
        }
        counted.count += 1;
        counted.sum += value;
    }

    /// The `/stats/prometheus` page.
    pub fn page(&self) -> String {
        let mut all = self.all.lock().expect("no holder of this lock panics");
        // Pages grow slowly.
        let mut page = String::with_capacity(all.length + 1024);
        page.push_str("# TYPE istio_requests_total counter\n");
        for counted in &all.series {
            number(&mut page, &counted.lines.requests, counted.count);
        }
        page.push_str("# TYPE ");
        page.push_str(self.telemetry.duration());
        page.push_str(" histogram\n");
        all.series.iter_mut().for_each(|counted| page.push_str(counted.durations()));
        all.length = page.len();
        page
    }
}

/// Adds a line with a whole number.
fn number(page: &mut String, line: &str, value: u64) {
    page.push_str(line);
    page.push_str(itoa::Buffer::new().format(value));
    page.push('\n');
}

impl Telemetry {
    /// The name of the duration histogram.
    fn duration(self) -> &'static str {
        match self {
            Telemetry::Seconds => "istio_request_duration_seconds",
            Telemetry::Milliseconds => "istio_request_duration_milliseconds",
        }
    }

    /// The upper bounds of its buckets, in its unit.
    fn bounds(self) -> &'static [f64] {
        match self {
            Telemetry::Seconds => &BOUNDS_SECONDS,
            Telemetry::Milliseconds => &BOUNDS_MILLIS,
        }
    }
}

/// A series' lines on the page, each up to its value: only values change from page to page.
struct Lines {
    requests: String,
    buckets: Vec<String>,
    infinity: String,
    sum: String,
    count: String,
}

impl Lines {
    fn new(labels: &str, telemetry: Telemetry) -> Self {
        let name = telemetry.duration();
        let bucket = |bound: &dyn std::fmt::Display| format!("{name}_bucket{{{labels},le=\"{bound}\"}} ");
        Lines {
            requests: format!("istio_requests_total{{{labels}}} "),
            buckets: telemetry.bounds().iter().map(|bound| bucket(bound)).collect(),
            infinity: bucket(&"+Inf"),
            sum: format!("{name}_sum{{{labels}}} "),
            count: format!("{name}_count{{{labels}}} "),
        }
    }
}

fn labels(series: Series<'_>, telemetry: Telemetry) -> String {
    let mut text = String::new();
    let reporter = match series.reporter {
        Reporter::Destination => "destination",
        Reporter::Source => "source",
    };
    let policy = match (series.reporter, series.mutual_tls) {
        (Reporter::Source, _) => "unknown",
        (_, true) => "mutual_tls",
        (_, false) => "none",
    };
    let principal = |workload: &Workload| {
        if series.mutual_tls && workload.namespace != "unknown" {
            format!("spiffe://cluster.local/ns/{}/sa/{}", workload.namespace, workload.account)
        } else {
            "unknown".to_owned()
        }
    };
    let (source, destination) = (series.source, series.destination);
    let mut add = |name: &str, value: &str| {
        let separator = if text.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        text.push_str(&format!("{separator}{name}=\"{value}\""));
    };
    add("reporter", reporter);
    for (side, workload) in [("source", source), ("destination", destination)] {
        add(&format!("{side}_workload"), &workload.name);
        add(&format!("{side}_workload_namespace"), &workload.namespace);
        add(&format!("{side}_principal"), &principal(workload));
        add(&format!("{side}_app"), &workload.app);
        add(&format!("{side}_version"), &workload.version);
        if telemetry == Telemetry::Milliseconds {
            add(&format!("{side}_canonical_service"), canonical(workload));
            let revision = if workload.version == "unknown" { "latest" } else { &workload.version };
            add(&format!("{side}_canonical_revision"), revision);
            add(&format!("{side}_cluster"), &workload.cluster);
        }
    }
    add("destination_service", &series.service.host);
    add("destination_service_name", &series.service.name);
    add("destination_service_namespace", &series.service.namespace);
    add("request_protocol", "http");
    add("response_code", &series.code.to_string());
    add("response_flags", series.flags);
    add("connection_security_policy", policy);
    if telemetry == Telemetry::Seconds {
        add("permissive_response_code", "none");
        add("permissive_response_policyid", "none");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Arc<Named> {
        let (name, namespace) = (name.to_owned(), "test".to_owned());
        Arc::new(Named { host: format!("{name}.test.svc.cluster.local"), name, namespace })
    }

    fn page(telemetry: Telemetry) -> String {
        let workload = |name: &str| {
            let labels = [("app".to_owned(), "podinfo".to_owned())].into();
            Arc::new(Workload::new("mesh02", "test", name, "default", labels))
        };
        let metrics = Metrics::new(telemetry);
        let series = Series {
            reporter: Reporter::Destination,
            source: Workload::unknown(),
            destination: &workload("podinfo"),
            service: &named("podinfo-canary"),
            code: 200,
            flags: "-",
            mutual_tls: false,
        };
        metrics.record(series, Duration::from_micros(4_700));
        metrics.record(series, Duration::from_secs(20));
        metrics.page()
    }

    #[test]
    fn pages_have_no_line_twice() {
        let workload = |cluster: &str, hash: &str| {
            let labels = [("app", "podinfo"), ("pod-template-hash", hash)];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            Arc::new(Workload::new(cluster, "test", "podinfo", "default", labels))
        };
        // Only the newer metrics tell clusters apart.
        for (telemetry, expected) in
            [(Telemetry::Seconds, &["4"][..]), (Telemetry::Milliseconds, &["3", "1"])]
        {
            let metrics = Metrics::new(telemetry);
            for (cluster, hash) in [("mesh01", "a"), ("mesh01", "b"), ("mesh02", "b"), ("mesh01", "a")] {
                let series = Series {
                    reporter: Reporter::Source,
                    source: Workload::unknown(),
                    destination: &workload(cluster, hash),
                    service: &named("podinfo"),
                    code: 200,
                    flags: "-",
                    mutual_tls: false,
                };
                metrics.record(series, Duration::from_millis(1));
            }
            let page = metrics.page();
            let requests = page.lines().filter(|line| line.starts_with("istio_requests_total{"));
            let counts: Vec<&str> = requests.filter_map(|line| Some(line.rsplit_once(' ')?.1)).collect();
            assert_eq!(counts, expected, "{page}");
        }
    }

    #[test]
    fn pages_have_the_units_of_their_time() {
        let old = page(Telemetry::Seconds);
        assert!(
            old.contains("istio_requests_total{reporter=\"destination\",source_workload=\"unknown\""),
            "{old}"
        );
        assert!(
            old.contains(",le=\"0.005\"} 1\n")
                && old.contains(",le=\"10\"} 1\n")
                && old.contains(",le=\"+Inf\"} 2\n")
        );
        assert!(old.contains("istio_request_duration_seconds_sum") && !old.contains("canonical"));
        let new = page(Telemetry::Milliseconds);
        assert!(new.contains("istio_request_duration_milliseconds_bucket") && new.contains(",le=\"5\"} 1\n"));
        assert!(new.contains("destination_cluster=\"mesh02\"") && !new.contains("_seconds_"));
        assert_eq!(old.lines().count(), 2 + 1 + 11 + 3);
    }
}
