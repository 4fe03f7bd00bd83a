//! A cluster's machinery: workload controllers, scheduler, kubelet, Services, DNS.
//!
//! A [`Cluster`] works through a kube client on whatever API server it is given, and runs the programs that a
//! [`Registry`] knows behind images. The [`Wire`] joins the pods of all clusters of a run. It knows nothing of meshes,
//! canaries or API servers' insides.

mod controllers;
mod dns;
mod kube_proxy;
mod kubelet;
mod node_affinity;
mod registry;
mod scheduler;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use clock::{Clock, Seed};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Client;
use kube::api::Patch;
use program::{Api, Apis, ExecOutput, Identity, LogStore, Network, Tasks};
use serde_json::json;

pub use controllers::{
    ControllerOptions, EventRecorder, ExternalMetrics, PodCpu, PodMetrics, reference,
    start as start_controllers,
};
pub use kubelet::run_of_container;
pub use registry::{Image, Registry};
pub use wire::Wire;

/// A node that pods run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Its memory in bytes.
    pub memory_bytes: u64,
}

impl Node {
    /// The labels of its object.
    fn labels(&self) -> BTreeMap<&'static str, &str> {
        BTreeMap::from([
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
        ])
    }
}

/// A container's access to API servers, given who it is: its service account decides as whom it asks.
pub type ApiAccess = Arc<dyn Fn(&Identity) -> Arc<dyn Apis> + Send + Sync>;

/// What a cluster is made of.
pub struct Options {
    /// Its name, which is also its name on the wire.
    pub name: String,
    /// Its API, as an administrator.
    pub client: Client,
    /// The run's clock.
    pub clock: Clock,
    /// Where its randomness comes from.
    pub seed: Seed,
    /// The network that joins it to other clusters.
    pub wire: Wire,
    /// The programs behind images.
    pub registry: Arc<dyn Registry>,
    /// The API servers that its pods can reach, and as whom.
    pub apis: ApiAccess,
    /// Where its containers' logs go.
    pub logs: Arc<dyn LogStore>,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Figures that its autoscalers may ask for, if anybody serves them.
    pub external_metrics: Option<Arc<dyn ExternalMetrics>>,
}

/// A running cluster; it stops when it is dropped.
pub struct Cluster {
    wire: Wire,
    net: Arc<wire::ClusterNet>,
    kubelet: kubelet::Kubelet,
    seed: Seed,
    tasks: Tasks,
}

impl Cluster {
    /// Registers the nodes and starts everything that runs in a cluster.
    ///
    /// # Errors
    /// The API server's refusal of a node.
    pub async fn start(options: Options) -> Result<Cluster, kube::Error> {
        let Options { name, client, clock, seed, wire, registry, apis, logs, nodes, external_metrics } =
            options;
        let tasks = Tasks::default();
        let net = wire.join(&name);
        net.services.start(&client, clock, &tasks).await;
        let events = EventRecorder::new(client.clone(), clock, &tasks);
        let addresses = register(&client, clock, &net, &nodes).await?;
        scheduler::start(client.clone(), clock, &tasks, nodes, &events);
        let kubelet = kubelet::Kubelet::start(kubelet::Parts {
            client: client.clone(),
            clock,
            seed: seed.child("kubelet"),
            tasks: tasks.clone(),
            wire: wire.clone(),
            net: Arc::clone(&net),
            registry,
            apis,
            logs,
            events: events.clone(),
            nodes: addresses,
        });
        let balanced = wire.clone();
        start_controllers(ControllerOptions {
            client,
            clock,
            seed: seed.child("controllers"),
            tasks: tasks.clone(),
            events,
            pod_metrics: Arc::new(kubelet.clone()),
            external_metrics,
            load_balancer_ips: Arc::new(move || balanced.load_balancer_ip()),
        });
        Ok(Cluster { wire, net, kubelet, seed, tasks })
    }

    /// Runs a command in a pod's container (its first without a name), as `kubectl exec` does.
    ///
    /// # Errors
    /// A sentence when there is no such pod or container, or it is not running.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        argv: Vec<String>,
    ) -> Result<ExecOutput, String> {
        self.kubelet.exec(namespace, pod, container, argv).await
    }

    /// The CPU figures of its pods.
    pub fn pod_metrics(&self) -> Arc<dyn PodMetrics> {
        Arc::new(self.kubelet.clone())
    }

    /// Makes a container (the pod's first without a name) exit with `code`; the kubelet restarts it by its policy.
    /// Returns whether it was running.
    pub fn crash(&self, namespace: &str, pod: &str, container: Option<&str>, code: i32) -> bool {
        self.kubelet.pod(namespace, pod).is_some_and(|pod| {
            let name = container.map_or_else(|| pod.first_container(), str::to_owned);
            pod.crash(&name, code)
        })
    }

    /// A network end in the cluster without a pod: it has the cluster's DNS and Services, and a fresh address.
    pub fn attach(&self, namespace: &str, name: &str) -> Arc<dyn Network> {
        Arc::new(self.wire.add_pod(&self.net, namespace, self.seed.child("attached").child(name)))
    }

    /// Stops everything that runs in the cluster; its API server and objects stay.
    pub fn shutdown(&self) {
        self.tasks.abort_all();
        self.kubelet.shutdown();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Creates the Node objects, or finds those of an earlier start again.
async fn register(
    client: &Client,
    clock: Clock,
    net: &wire::ClusterNet,
    nodes: &[Node],
) -> Result<BTreeMap<String, kubelet::Host>, kube::Error> {
    let api: Api<NodeObject> = Api::all(client.clone());
    let mut addresses = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let ip = net.node_ip(index);
        let metadata = json!({"name": node.name, "labels": node.labels()});
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata});
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        match api.create(&object).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            result => drop(result?),
        }
        let amounts = json!({"cpu": format!("{}m", node.cpu_millis), "memory": node.memory_bytes.to_string(), "pods": scheduler::PODS_MAX.to_string()});
        let now = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = json!({"status": {
            "capacity": amounts, "allocatable": amounts,
            "addresses": [{"type": "InternalIP", "address": ip.to_string()}, {"type": "Hostname", "address": node.name}],
            "nodeInfo": {"kubeletVersion": "v1.33.0+coalmine", "osImage": "simulated", "operatingSystem": "linux",
                "architecture": "amd64", "kernelVersion": "", "containerRuntimeVersion": "coalmine://1", "machineID": "",
                "systemUUID": "", "bootID": "", "kubeProxyVersion": "v1.33.0+coalmine"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "kubelet is posting ready status", "lastHeartbeatTime": now, "lastTransitionTime": now}],
        }});
        api.patch_status(&node.name, &Patch::Merge(status)).await?;
        let Node { name, cpu_millis, memory_bytes } = node.clone();
        addresses.insert(name, kubelet::Host { ip, cpu_millis, memory_bytes });
    }
    Ok(addresses)
}
