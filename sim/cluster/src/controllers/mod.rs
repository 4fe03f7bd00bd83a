//! The controllers of a cluster's controller manager: Deployments, ReplicaSets, DaemonSets, Jobs,
//! HorizontalPodAutoscalers, Endpoints and EndpointSlices, load balancer addresses.
//!
//! Each controller is a pure decision file and a thin shell: an ordered queue, informers shared with the
//! other controllers, typed API calls. Writes carry the resourceVersion that was read; a conflict goes back
//! to the queue. Namespaces and garbage collection are the API server's. Behaviour follows
//! kube-controller-manager 1.33.

mod daemon_set;
mod deployment;
mod endpoints;
mod event_recorder;
mod expectations;
mod horizontal_pod_autoscaler;
mod index;
mod job;
mod name_suffix;
mod ownership;
mod pod_control;
mod pod_state;
mod quantity;
mod replica_set;
mod selector;
mod service_load_balancer;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Seed, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Client, Resource};
use program::{Api, Informer, Selection, Tasks, WorkQueue};

use expectations::Expectations;
use index::Index;
use pod_control::PodControl;

pub use event_recorder::{EventRecorder, reference};
pub(crate) use quantity::milli_value;

/// CPU of running pods, as metrics-server would report it. Implemented by the kubelet.
pub trait PodMetrics: Send + Sync {
    /// The pod's CPU usage in the newest finished window; `None` before a running pod's first window has
    /// passed, and for pods that do not run. Figures change once per window, not per call.
    fn cpu(&self, namespace: &str, pod: &str) -> Option<PodCpu>;
}

/// Figures from outside of the cluster, as `external.metrics.k8s.io` would give them to autoscalers.
pub trait ExternalMetrics: Send + Sync {
    /// The values of a metric's series with these labels; `None` if there is no such metric.
    fn values(&self, namespace: &str, metric: &str, labels: &BTreeMap<String, String>) -> Option<Vec<f64>>;
}

/// A pod's CPU usage over one window (metrics-server: 15 s).
#[derive(Clone, Debug, PartialEq)]
pub struct PodCpu {
    /// Mean usage per container over the window, in thousandths of a core.
    pub millicores: BTreeMap<String, i64>,
    /// The window's length.
    pub window: Duration,
    /// The window's end.
    pub timestamp: Timestamp,
}

/// What the controllers of one cluster need.
pub struct ControllerOptions {
    /// The cluster's API, as the controller manager's user.
    pub client: Client,
    /// The run's clock.
    pub clock: Clock,
    /// The cluster's seed; names of pods and slices are drawn from it.
    pub seed: Seed,
    /// Where the controllers run.
    pub tasks: Tasks,
    /// Where Events go.
    pub events: EventRecorder,
    /// CPU figures for the autoscaler.
    pub pod_metrics: Arc<dyn PodMetrics>,
    /// Figures of external metrics for the autoscaler, if anybody serves them.
    pub external_metrics: Option<Arc<dyn ExternalMetrics>>,
    /// Hands out a fresh address for each Service of type LoadBalancer.
    pub load_balancer_ips: Arc<dyn Fn() -> IpAddr + Send + Sync>,
}

/// Starts all controllers in the background; they end with `options.tasks`.
pub fn start(options: ControllerOptions) {
    let ControllerOptions {
        client,
        clock,
        seed,
        tasks,
        events,
        pod_metrics,
        external_metrics,
        load_balancer_ips,
    } = options;
    let deployment_queue = WorkQueue::new(clock);
    let replica_set_queue = WorkQueue::new(clock);
    let daemon_set_queue = WorkQueue::new(clock);
    let job_queue = WorkQueue::new(clock);
    let endpoints_queue = WorkQueue::new(clock);
    let load_balancer_queue = WorkQueue::new(clock);
    let autoscaler_queue = horizontal_pod_autoscaler::PeriodicQueue::new(clock);
    let expectations = Expectations::of("ReplicaSet");
    let daemon_expectations = Expectations::of("DaemonSet");
    let job_expectations = Expectations::of("Job");

    let pod_index: Index<Pod> = Index::default();
    let set_index: Index<ReplicaSet> = Index::default();
    let revision_index: Index<ControllerRevision> = Index::default();
    let slice_index: Index<EndpointSlice> = Index::default();
    let by_selector = endpoints::BySelector::default();

    let deployments: Informer<Deployment> = {
        let queue = deployment_queue.clone();
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            queue.add(Key::of(change.object().as_ref()));
        })
    };
    let replica_sets: Informer<ReplicaSet> = {
        let (queue, deployment_queue) = (replica_set_queue.clone(), deployment_queue.clone());
        let (deployments, index) = (deployments.clone(), set_index.clone());
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            index.observe(&change);
            queue.add(Key::of(change.object().as_ref()));
            for key in deployment::owners_of(&change, &deployments) {
                deployment_queue.add(key);
            }
        })
    };
    let daemon_sets: Informer<DaemonSet> = {
        let queue = daemon_set_queue.clone();
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            queue.add(Key::of(change.object().as_ref()));
        })
    };
    let jobs: Informer<Job> = {
        let queue = job_queue.clone();
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            queue.add(Key::of(change.object().as_ref()));
        })
    };
    let nodes: Informer<Node> = {
        let (queue, daemon_sets) = (daemon_set_queue.clone(), daemon_sets.clone());
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            if daemon_set::concerns(&change) {
                daemon_sets.list().iter().for_each(|set| queue.add(Key::of(set.as_ref())));
            }
        })
    };
    let revisions: Informer<ControllerRevision> = {
        let index = revision_index.clone();
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            index.observe(&change);
        })
    };
    let services: Informer<Service> = {
        let (endpoints_queue, load_balancer_queue) = (endpoints_queue.clone(), load_balancer_queue.clone());
        let by_selector = by_selector.clone();
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            by_selector.observe(&change);
            let key = Key::of(change.object().as_ref());
            endpoints_queue.add(key.clone());
            load_balancer_queue.add(key);
        })
    };
    let pods: Informer<Pod> = {
        let (replica_set_queue, deployment_queue) = (replica_set_queue.clone(), deployment_queue.clone());
        let endpoints_queue = endpoints_queue.clone();
        let (replica_sets, services, expectations) =
            (replica_sets.clone(), services.clone(), expectations.clone());
        let deployments = deployments.clone();
        let (daemon_set_queue, daemon_sets) = (daemon_set_queue.clone(), daemon_sets.clone());
        let daemon_expectations = daemon_expectations.clone();
        let (job_queue, jobs, job_expectations) = (job_queue.clone(), jobs.clone(), job_expectations.clone());
        let (index, by_selector) = (pod_index.clone(), by_selector.clone());
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            index.observe(&change);
            expectations.observe(&change);
            daemon_expectations.observe(&change);
            job_expectations.observe(&change);
            for key in job::owners_of(&change, &jobs) {
                job_queue.add(key);
            }
            for key in daemon_set::owners_of(&change, &daemon_sets) {
                daemon_set_queue.add(key);
            }
            for key in replica_set::owners_of(&change, &replica_sets) {
                replica_set_queue.add(key);
            }
            if let Some(key) = deployment::recreate_waiting_for(&change, &replica_sets, &deployments) {
                deployment_queue.add(key);
            }
            for key in endpoints::services_of(&change, &by_selector, &services) {
                endpoints_queue.add(key);
            }
        })
    };
    let endpoint_objects: Informer<Endpoints> = {
        let queue = endpoints_queue.clone();
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            if let program::Change::Deleted(object) = change {
                queue.add(Key::of(object.as_ref()));
            }
        })
    };
    let slices: Informer<EndpointSlice> = {
        let queue = endpoints_queue.clone();
        let config = Selection::labels(endpoints::MANAGED_SLICES);
        let index = slice_index.clone();
        Informer::start(&tasks, clock, Api::all(client.clone()), config, move |change| {
            index.observe(&change);
            if let program::Change::Deleted(slice) = change
                && let Some(key) = endpoints::service_of_slice(slice)
            {
                queue.add(key);
            }
        })
    };
    let autoscalers: Informer<HorizontalPodAutoscaler> = {
        let queue = autoscaler_queue.clone();
        Informer::start(&tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
            queue.observe(&change);
        })
    };

    let deployment_controller = deployment::DeploymentController {
        client: client.clone(),
        clock,
        events: events.component("deployment-controller", None),
        queue: deployment_queue.clone(),
        deployments: deployments.clone(),
        set_index: set_index.clone(),
        pod_index: pod_index.clone(),
    };
    let control = |name: &str, expectations: Expectations| PodControl {
        client: client.clone(),
        clock,
        events: events.component(name, None),
        pods: pods.clone(),
        expectations,
    };
    let replica_set_controller = replica_set::ReplicaSetController {
        control: control("replicaset-controller", expectations),
        names: seed.child("replicaset-controller"),
        queue: replica_set_queue.clone(),
        replica_sets: replica_sets.clone(),
        set_index,
        pod_index: pod_index.clone(),
        drawn: BTreeMap::new(),
    };
    let daemon_set_controller = daemon_set::DaemonSetController {
        control: control("daemonset-controller", daemon_expectations),
        names: seed.child("daemonset-controller"),
        queue: daemon_set_queue.clone(),
        daemon_sets: daemon_sets.clone(),
        nodes: nodes.clone(),
        pod_index: pod_index.clone(),
        revision_index,
        drawn: BTreeMap::new(),
    };
    let job_controller = job::JobController {
        control: control("job-controller", job_expectations),
        names: seed.child("job-controller"),
        queue: job_queue.clone(),
        jobs: jobs.clone(),
        pod_index: pod_index.clone(),
        known: BTreeMap::new(),
    };
    let endpoints_controller = endpoints::EndpointsController {
        client: client.clone(),
        seed: seed.child("endpointslice-controller"),
        services: services.clone(),
        pods: pod_index.clone(),
        endpoints: endpoint_objects.clone(),
        slices: slice_index,
    };
    let autoscaler = horizontal_pod_autoscaler::Autoscaler::new(
        client.clone(),
        clock,
        events.component("horizontal-pod-autoscaler", None),
        autoscalers.clone(),
        pod_index,
        (pod_metrics, external_metrics),
    );
    let load_balancer = service_load_balancer::LoadBalancerController {
        client,
        events: events.component("service-controller", None),
        services: services.clone(),
        next_ip: load_balancer_ips,
    };
    // Nobody may decide on half a picture: the workers start when every cache has its first list.
    let workers = tasks.clone();
    tasks.spawn(async move {
        deployments.synced().await;
        replica_sets.synced().await;
        daemon_sets.synced().await;
        jobs.synced().await;
        nodes.synced().await;
        revisions.synced().await;
        services.synced().await;
        pods.synced().await;
        endpoint_objects.synced().await;
        slices.synced().await;
        autoscalers.synced().await;
        workers.spawn(work(deployment_queue, deployment_controller));
        workers.spawn(work(replica_set_queue, replica_set_controller));
        workers.spawn(work(daemon_set_queue, daemon_set_controller));
        workers.spawn(work(job_queue, job_controller));
        workers.spawn(work(endpoints_queue, endpoints_controller));
        workers.spawn(work(load_balancer_queue, load_balancer));
        workers.spawn(autoscaler.run(autoscaler_queue));
    });
}

/// The key of an object in a queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    fn of<K: Resource>(object: &K) -> Key {
        let meta = object.meta();
        Key {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

/// One controller's decision and its writes for one object.
trait Reconcile: Send + 'static {
    /// Brings the object to where it should be. An error sends its key back to the queue, later each time.
    fn sync(&mut self, key: &Key) -> impl Future<Output = Result<(), kube::Error>> + Send;
}

/// Hands the queue's keys to a controller, one at a time, for ever.
async fn work(queue: WorkQueue<Key>, mut controller: impl Reconcile) {
    loop {
        let key = queue.next().await;
        match controller.sync(&key).await {
            Ok(()) => queue.forget(&key),
            Err(_) => queue.retry(key),
        }
    }
}

/// An API error in the words of its Status.
fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether an object was refused because its namespace goes away.
fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .any(|cause| cause.reason == "NamespaceTerminating")
}
