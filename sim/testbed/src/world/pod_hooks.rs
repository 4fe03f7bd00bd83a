//! What a cluster's API server asks about running pods: their logs and their usage.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use apiserver::{Body, LogQuery, Measured, Metrics, PodLogs};
use bytes::Bytes;
use clock::{Clock, Timestamp};
use cluster::{ExternalMetrics, PodMetrics};
use futures::StreamExt as _;

use crate::timeline::{Event, Timeline};

/// `pods/log` of one cluster, out of the timeline.
pub(super) struct ClusterLogs {
    pub cluster: String,
    pub timeline: Timeline,
    pub clock: Clock,
}

/// The lines of one log.
#[derive(Clone)]
struct Wanted {
    cluster: String,
    namespace: String,
    pod: String,
    container: Option<String>,
    run: Option<u32>,
    since: Option<Timestamp>,
    timestamps: bool,
}

impl Wanted {
    /// The log's lines among the timeline's entries from `from` on, how many entries there are now, and whether a later
    /// run of the container has printed.
    fn lines(&self, timeline: &Timeline, from: usize) -> (Vec<String>, usize, bool) {
        let entries = timeline.entries();
        let mut is_over = false;
        let lines = entries.iter().skip(from).filter_map(|entry| match &entry.event {
            Event::Line { source, text } => {
                let is_meant = source.cluster == self.cluster
                    && source.namespace == self.namespace
                    && source.pod == self.pod
                    && self.container.as_ref().is_none_or(|container| *container == source.container)
                    && self.since.is_none_or(|since| entry.at >= since);
                is_over |= is_meant && self.run.is_some_and(|run| source.run > run);
                let is_meant = is_meant && self.run.is_none_or(|run| source.run == run);
                let line = || match self.timestamps {
                    true => format!("{} {text}\n", entry.at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ")),
                    false => format!("{text}\n"),
                };
                is_meant.then(line)
            }
            _ => None,
        });
        let lines = lines.collect();
        (lines, entries.len(), is_over)
    }
}

impl PodLogs for ClusterLogs {
    fn read(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        tail: Option<usize>,
    ) -> Result<String, String> {
        let query = LogQuery { container: container.map(str::to_owned), tail, ..LogQuery::default() };
        Ok(self.so_far(&self.wanted(namespace, pod, &query), &query).0)
    }

    fn stream(&self, namespace: &str, pod: &str, query: &LogQuery) -> Result<Body, String> {
        let wanted = self.wanted(namespace, pod, query);
        let (text, seen) = self.so_far(&wanted, query);
        if !query.follow {
            return Ok(Body::whole(text));
        }
        let (timeline, first) =
            (self.timeline.clone(), VecDeque::from_iter((!text.is_empty()).then(|| Bytes::from(text))));
        let later =
            futures::stream::unfold((first, seen, false), move |(mut ready, mut seen, mut is_over)| {
                let (timeline, wanted) = (timeline.clone(), wanted.clone());
                async move {
                    loop {
                        if let Some(text) = ready.pop_front() {
                            return Some((text, (ready, seen, is_over)));
                        }
                        if is_over {
                            return None;
                        }
                        timeline.longer_than(seen).await;
                        let (lines, now, over) = wanted.lines(&timeline, seen);
                        (seen, is_over) = (now, over);
                        ready.extend((!lines.is_empty()).then(|| Bytes::from(lines.concat())));
                    }
                }
            });
        Ok(Body::Stream(later.boxed()))
    }
}

impl ClusterLogs {
    fn wanted(&self, namespace: &str, pod: &str, query: &LogQuery) -> Wanted {
        let age = query.since.and_then(|since| jiff::SignedDuration::try_from(since).ok());
        Wanted {
            cluster: self.cluster.clone(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: query.container.clone(),
            run: query.container_id.as_deref().and_then(cluster::run_of_container),
            since: age.and_then(|age| self.clock.now().checked_sub(age).ok()),
            timestamps: query.timestamps,
        }
    }

    fn so_far(&self, wanted: &Wanted, query: &LogQuery) -> (String, usize) {
        let (lines, seen, _) = wanted.lines(&self.timeline, 0);
        let from = query.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        (lines[from..].concat(), seen)
    }
}

/// `external.metrics.k8s.io` of one cluster: the figures of KEDA's operator.
pub(super) struct Outside {
    pub cluster: String,
    pub figures: keda::Figures,
}

impl ExternalMetrics for Outside {
    fn values(&self, namespace: &str, metric: &str, labels: &BTreeMap<String, String>) -> Option<Vec<f64>> {
        self.figures.get(&self.cluster, namespace, metric, labels).map(|figure| vec![figure])
    }
}

/// `metrics.k8s.io` of one cluster: the kubelet's CPU figures. Programs use no simulated memory.
pub(super) struct Usage(pub Arc<dyn PodMetrics>);

impl Metrics for Usage {
    fn pod(&self, namespace: &str, pod: &str) -> Option<Vec<Measured>> {
        let cpu = self.0.cpu(namespace, pod)?;
        let measured = |(container, millicores): (String, i64)| Measured {
            container,
            cpu_millis: u64::try_from(millicores).unwrap_or(0),
            memory_bytes: 0,
        };
        Some(cpu.millicores.into_iter().map(measured).collect())
    }
}
