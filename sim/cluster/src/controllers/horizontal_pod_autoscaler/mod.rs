//! The HorizontalPodAutoscaler controller: looks at each autoscaler every 15 s and scales its target by CPU and by
//! external metrics.
//!
//! The wish of a metric is computed in `replica_calculator` and `external`, what becomes of it in `limits`. Metrics
//! other than CPU (Resource and ContainerResource) and external ones have no source here and are reported as upstream
//! reports a missing metrics API.

mod external;
mod limits;
mod replica_calculator;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::{Clock, Timestamp};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use program::{Api, Change, Informer, WorkQueue};

use super::event_recorder::{EventRecorder, reference};
use super::index::Index;
use super::quantity::{from_milli, milli_value};
use super::selector::{self, selects};
use super::{ExternalMetrics, Key, PodCpu, PodMetrics, api_message};
use limits::Memory;
use replica_calculator::{Proposal, Target, propose};

/// The time between two looks at an autoscaler.
const PERIOD: Duration = Duration::from_secs(15);

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

/// Hands out each autoscaler once per period. Cheap to clone; clones share the queue.
#[derive(Clone)]
pub(super) struct PeriodicQueue {
    queue: WorkQueue<Key>,
    waiting: Arc<Mutex<BTreeSet<Key>>>,
}

impl PeriodicQueue {
    pub(super) fn new(clock: Clock) -> Self {
        PeriodicQueue { queue: WorkQueue::new(clock), waiting: Arc::default() }
    }

    /// A new or changed autoscaler is looked at a period from now, unless it waits already.
    pub(super) fn observe(&self, change: &Change<'_, HorizontalPodAutoscaler>) {
        if let Change::Applied { new, .. } = change {
            self.schedule(Key::of(new.as_ref()));
        }
    }

    fn schedule(&self, key: Key) {
        if self.lock().insert(key.clone()) {
            self.queue.add_after(key, PERIOD);
        }
    }

    async fn next(&self) -> Key {
        let key = self.queue.next().await;
        self.lock().remove(&key);
        key
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Key>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }
}

pub(super) struct Autoscaler {
    client: Client,
    clock: Clock,
    events: EventRecorder,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Index<Pod>,
    metrics: Arc<dyn PodMetrics>,
    external: Option<Arc<dyn ExternalMetrics>>,
    memories: BTreeMap<Key, Memory>,
    /// The selector of each autoscaler's target, to notice two autoscalers on the same pods.
    selectors: BTreeMap<Key, String>,
}

/// The answers of all metrics together.
struct Computed {
    replicas: i32,
    /// The metric that asked for the most.
    metric: String,
    statuses: Vec<MetricStatus>,
}

/// Why no answer can be given: condition reason and message, and the message of the Event that sums up.
struct Failure {
    reason: &'static str,
    condition: String,
    message: String,
}

impl Autoscaler {
    pub(super) fn new(
        client: Client,
        clock: Clock,
        events: EventRecorder,
        autoscalers: Informer<HorizontalPodAutoscaler>,
        pods: Index<Pod>,
        (metrics, external): (Arc<dyn PodMetrics>, Option<Arc<dyn ExternalMetrics>>),
    ) -> Self {
        let (memories, selectors) = (BTreeMap::new(), BTreeMap::new());
        Autoscaler { client, clock, events, autoscalers, pods, metrics, external, memories, selectors }
    }

    pub(super) async fn run(mut self, queue: PeriodicQueue) {
        loop {
            let key = queue.next().await;
            match self.autoscalers.get(&key.namespace, &key.name) {
                Some(autoscaler) => {
                    self.sync(&key, &autoscaler).await;
                    queue.schedule(key);
                }
                None => {
                    self.memories.remove(&key);
                    self.selectors.remove(&key);
                }
            }
        }
    }

    async fn sync(&mut self, key: &Key, autoscaler: &HorizontalPodAutoscaler) {
        let Some(spec) = &autoscaler.spec else { return };
        let object = reference(autoscaler);
        let mut status = autoscaler.status.clone().unwrap_or_default();
        status.observed_generation = autoscaler.metadata.generation;
        self.look(key, spec, &object, &mut status).await;
        if autoscaler.status.as_ref() != Some(&status) {
            let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), &key.namespace);
            let mut updated = autoscaler.clone();
            updated.status = Some(status);
            if let Err(error) = api.replace_status(&key.name, &updated).await {
                self.events.warning(&object, "FailedUpdateStatus", api_message(&error));
            }
        }
    }

    async fn look(
        &mut self,
        key: &Key,
        spec: &HorizontalPodAutoscalerSpec,
        object: &ObjectReference,
        status: &mut HorizontalPodAutoscalerStatus,
    ) {
        let now = self.clock.now();
        let elapsed = self.clock.elapsed();
        let target = &spec.scale_target_ref;
        let api = self.target_api(spec, &key.namespace);
        let mut scale = match api.get_scale(&target.name).await {
            Ok(scale) => scale,
            Err(error) => {
                let error = api_message(&error);
                self.events.warning(object, "FailedGetScale", error.clone());
                let message =
                    format!("the HPA controller was unable to get the target's current scale: {error}");
                set(status, ABLE, "False", "FailedGetScale", message, now);
                return;
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        set(status, ABLE, "True", "SucceededGetScale", message, now);
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        self.memories.entry(key.clone()).or_default().start(current, elapsed);
        let min = spec.min_replicas.unwrap_or(1);
        let mut reason = String::new();
        let mut metrics = None;
        let desired = if current == 0 && min != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            set(status, ACTIVE, "False", "ScalingDisabled", message, now);
            current
        } else if current > spec.max_replicas {
            "Current number of replicas above Spec.MaxReplicas".clone_into(&mut reason);
            spec.max_replicas
        } else if current < min {
            "Current number of replicas below Spec.MinReplicas".clone_into(&mut reason);
            min
        } else {
            let computed = match self.compute(key, spec, &scale, object, now) {
                Ok(computed) => computed,
                Err(failure) => {
                    set(status, ACTIVE, "False", failure.reason, failure.condition, now);
                    status.current_replicas = Some(current);
                    self.events.warning(object, "FailedComputeMetricsReplicas", failure.message);
                    return;
                }
            };
            let message = format!(
                "the HPA was able to successfully calculate a replica count from {}",
                computed.metric
            );
            set(status, ACTIVE, "True", "ValidMetricFound", message, now);
            if computed.replicas > current {
                reason = format!("{} above target", computed.metric);
            } else if computed.replicas < current {
                "All metrics below target".clone_into(&mut reason);
            }
            metrics = Some(computed.statuses);
            let memory = self.memories.entry(key.clone()).or_default();
            let limited = memory.limit(spec, current, computed.replicas, elapsed);
            set(status, ABLE, "True", limited.able.0, limited.able.1, now);
            let is_limited = if limited.is_limited { "True" } else { "False" };
            set(status, LIMITED, is_limited, limited.limited.0, limited.limited.1, now);
            limited.replicas
        };
        status.current_replicas = Some(current);
        status.desired_replicas = desired;
        status.current_metrics = metrics;
        if desired == current {
            return;
        }
        scale.spec.get_or_insert_default().replicas = Some(desired);
        match api.replace_scale(&target.name, &scale).await {
            Ok(_) => {
                let message = format!("the HPA controller was able to update the target scale to {desired}");
                set(status, ABLE, "True", "SucceededRescale", message, now);
                status.last_scale_time = Some(Time(now));
                self.memories.entry(key.clone()).or_default().scaled(current, desired, elapsed);
                let message = format!("New size: {desired}; reason: {reason}");
                self.events.normal(object, "SuccessfulRescale", message);
            }
            Err(error) => {
                let error = api_message(&error);
                let message = format!("New size: {desired}; reason: {reason}; error: {error}");
                self.events.warning(object, "FailedRescale", message);
                let message = format!("the HPA controller was unable to update the target scale: {error}");
                set(status, ABLE, "False", "FailedUpdateScale", message, now);
                status.desired_replicas = current;
            }
        }
    }

    fn target_api(&self, spec: &HorizontalPodAutoscalerSpec, namespace: &str) -> Api<DynamicObject> {
        let target = &spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or("v1");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &target.kind));
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    fn compute(
        &mut self,
        key: &Key,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        object: &ObjectReference,
        now: Timestamp,
    ) -> Result<Computed, Failure> {
        let text = scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        let pods = self.target_pods(key, &text, object)?;
        let cpu: BTreeMap<String, PodCpu> = pods
            .iter()
            .filter_map(|pod| {
                let name = pod.metadata.name.clone()?;
                let cpu = self.metrics.cpu(&key.namespace, &name)?;
                Some((name, cpu))
            })
            .collect();
        let size = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let observed = scale.status.as_ref().map_or(0, |status| status.replicas);
        let metrics = spec.metrics.as_deref().unwrap_or_default();
        let mut computed = Computed { replicas: 0, metric: String::new(), statuses: Vec::new() };
        let mut first_failure: Option<Failure> = None;
        let mut failures = 0;
        for metric in metrics {
            let answer = match &metric.external {
                Some(source) => {
                    external::propose(source, self.external.as_deref(), &key.namespace, observed, &pods)
                }
                None => compute_one(metric, observed, &pods, &cpu, now)
                    .map(|(proposal, name, status)| (proposal.replicas, name.to_owned(), status)),
            };
            match answer {
                Ok((replicas, name, status)) => {
                    if computed.metric.is_empty() || replicas > computed.replicas {
                        (computed.replicas, computed.metric) = (replicas, name);
                    }
                    computed.statuses.push(status);
                }
                Err((reason, message)) => {
                    failures += 1;
                    self.events.warning(object, reason, message.clone());
                    first_failure.get_or_insert_with(|| Failure {
                        reason,
                        condition: format!("the HPA was unable to compute the replica count: {message}"),
                        message,
                    });
                }
            }
        }
        // Growth may rest on the metrics that work; shrinking needs all of them.
        match first_failure {
            Some(failure) if failures >= metrics.len() || computed.replicas < size => Err(Failure {
                message: format!(
                    "invalid metrics ({failures} invalid out of {}), first error is: {}",
                    metrics.len(),
                    failure.message
                ),
                ..failure
            }),
            _ => Ok(computed),
        }
    }

    /// The pods of the target's selector; an autoscaler must have them for itself.
    fn target_pods(
        &mut self,
        key: &Key,
        text: &str,
        object: &ObjectReference,
    ) -> Result<Vec<Arc<Pod>>, Failure> {
        let invalid = |reason, condition: String, message: String| Failure { reason, condition, message };
        if text.is_empty() {
            self.events.warning(object, "SelectorRequired", "selector is required");
            let condition = "the HPA target's scale is missing a selector".to_owned();
            return Err(invalid("InvalidSelector", condition, "selector is required".to_owned()));
        }
        let selector = selector::parse(text).map_err(|error| {
            let message =
                format!("couldn't convert selector into a corresponding internal selector object: {error}");
            self.events.warning(object, "InvalidSelector", message.clone());
            invalid("InvalidSelector", message.clone(), message)
        })?;
        self.selectors.insert(key.clone(), text.to_owned());
        let pods = self.pods.candidates(&key.namespace, &selector, None);
        let rivals: Vec<String> = self
            .selectors
            .iter()
            .filter(|(other, _)| other.namespace == key.namespace)
            .filter(|(_, other)| {
                selector::parse(other)
                    .is_ok_and(|other| pods.iter().any(|pod| selects(&other, pod.metadata.labels.as_ref())))
            })
            .map(|(other, _)| format!("{}/{}", other.namespace, other.name))
            .collect();
        if rivals.len() > 1 {
            let message =
                format!("pods by selector {text} are controlled by multiple HPAs: [{}]", rivals.join(" "));
            self.events.warning(object, "AmbiguousSelector", message.clone());
            return Err(invalid("AmbiguousSelector", message.clone(), message));
        }
        Ok(pods)
    }
}

type MetricAnswer = Result<(Proposal, &'static str, MetricStatus), (&'static str, String)>;

fn compute_one(
    metric: &MetricSpec,
    current: i32,
    pods: &[Arc<Pod>],
    cpu: &BTreeMap<String, PodCpu>,
    now: Timestamp,
) -> MetricAnswer {
    let none = BTreeMap::new();
    let figures = |resource: &str| if resource == "cpu" { cpu } else { &none };
    let value = |proposal: &Proposal| MetricValueStatus {
        average_utilization: proposal.utilization,
        average_value: Some(from_milli(proposal.average_milli)),
        value: None,
    };
    let failed = |reason, resource: &str, target: Target| {
        let what = if matches!(target, Target::Utilization(_)) { "utilization" } else { "usage" };
        let resource = resource.to_owned();
        move |error: String| {
            let error = error.replace("resource cpu", &format!("resource {resource}"));
            (reason, format!("failed to get {resource} {what}: {error}"))
        }
    };
    if let Some(source) = &metric.resource {
        let reason = "FailedGetResourceMetric";
        let target = target_of(&source.target).map_err(|message| (reason, message))?;
        let proposal = propose(current, target, pods, figures(&source.name), None, now).map_err(failed(
            reason,
            &source.name,
            target,
        ))?;
        let name = match (source.name.as_str(), target) {
            ("cpu", Target::Utilization(_)) => "cpu resource utilization (percentage of request)",
            _ => "cpu resource",
        };
        let status = ResourceMetricStatus { name: source.name.clone(), current: value(&proposal) };
        let status =
            MetricStatus { type_: metric.type_.clone(), resource: Some(status), ..MetricStatus::default() };
        return Ok((proposal, name, status));
    }
    if let Some(source) = &metric.container_resource {
        let reason = "FailedGetContainerResourceMetric";
        let target = target_of(&source.target).map_err(|message| (reason, message))?;
        let proposal = propose(current, target, pods, figures(&source.name), Some(&source.container), now)
            .map_err(failed(reason, &source.name, target))?;
        let name = match target {
            Target::Utilization(_) => "cpu container resource utilization (percentage of request)",
            Target::AverageValue(_) => "cpu container resource",
        };
        let status = ContainerResourceMetricStatus {
            name: source.name.clone(),
            container: source.container.clone(),
            current: value(&proposal),
        };
        let status = MetricStatus {
            type_: metric.type_.clone(),
            container_resource: Some(status),
            ..MetricStatus::default()
        };
        return Ok((proposal, name, status));
    }
    let missing = |api: &str| {
        format!("unable to fetch metrics from {api}: the server could not find the requested resource")
    };
    Err(match metric.type_.as_str() {
        "Pods" => ("FailedGetPodsMetric", missing("custom metrics API")),
        "Object" => ("FailedGetObjectMetric", missing("custom metrics API")),
        other => ("InvalidMetricSourceType", format!("unknown metric source type {other:?}")),
    })
}

fn target_of(target: &MetricTarget) -> Result<Target, String> {
    if let Some(milli) = target.average_value.as_ref().and_then(milli_value).filter(|milli| *milli > 0) {
        return Ok(Target::AverageValue(milli));
    }
    let percent = target.average_utilization.filter(|percent| *percent > 0);
    percent.map(Target::Utilization).ok_or_else(|| {
        "invalid resource metric source: neither a utilization target nor a value target was set".into()
    })
}

/// Sets a condition; its transition time moves with its status only.
fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    type_: &str,
    value: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let index = conditions.iter().position(|condition| condition.type_ == type_).unwrap_or_else(|| {
        let type_ = type_.to_owned();
        conditions.push(HorizontalPodAutoscalerCondition { type_, ..Default::default() });
        conditions.len() - 1
    });
    let condition = &mut conditions[index];
    if condition.status != value {
        condition.last_transition_time = Some(Time(now));
    }
    value.clone_into(&mut condition.status);
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message.into());
}
