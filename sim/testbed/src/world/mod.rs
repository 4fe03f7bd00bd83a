//! One run's system: clusters, mesh, programs, network and git repositories.

mod apis;
mod client_pods;
mod images;
mod pod_hooks;
mod shard;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock};

use apiserver::{Admission, ApiServer};
use clock::{Clock, Seed};
use cluster::{Cluster, Node, Wire};
use fixtures::{Behaviour, Behaviours};
use gitops::git::Remotes;
use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use mesh::{ControlPlane, Injection};
use program::{Api, Network, Tasks};
use tree::Value;

use crate::timeline::Timeline;
use apis::Servers;
use client_pods::ClientPods;
use images::Images;
pub(crate) use images::repository;
use pod_hooks::{ClusterLogs, Outside, Usage};

pub use apis::server_url;
pub use mesh::Telemetry;

/// What a world is made of.
#[derive(Clone, Debug, Default)]
pub struct WorldSpec {
    /// The clusters, in order.
    pub clusters: Vec<ClusterSpec>,
    /// The mesh, if there is one.
    pub mesh: Option<MeshSpec>,
    /// The place (0 to 4) among the testbeds of this machine, if addresses are to be in 127.0.0.0/8, so that sockets
    /// can stand in front of pods.
    pub loopback: Option<u8>,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// Its name.
    pub name: String,
    /// How many nodes it has.
    pub nodes: u32,
    /// What it is for.
    pub role: Role,
}

/// What a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It runs workloads.
    Data,
    /// It holds a mesh's configuration.
    ControlPlane,
}

/// A service mesh.
#[derive(Clone, Debug)]
pub struct MeshSpec {
    /// The cluster with the configuration.
    pub control_plane: String,
    /// The clusters of the mesh.
    pub data: Vec<String>,
    /// The unit of the duration histogram.
    pub telemetry: Telemetry,
    /// The proxies' version.
    pub proxy: Option<String>,
}

/// The name under which [`World::client`] asks the API servers.
pub const RUNNER: &str = "coalmine";
/// The name under which clusters' own controllers and kubelets ask.
const MACHINERY: &str = "system:coalmine";
/// A node's CPU, in thousandths of a core.
const NODE_CPU_MILLIS: u64 = 8_000;
/// A node's memory, in bytes.
const NODE_MEMORY: u64 = 32 << 30;
/// The second octet of the first cluster's Service addresses.
const FIRST_SERVICE_NET: u8 = 96;

/// One run's system; it stops when it is dropped.
pub struct World {
    servers: Servers,
    clusters: Vec<(String, Cluster)>,
    images: Arc<Images>,
    wire: Wire,
    remotes: Remotes,
    timeline: Timeline,
    clock: Clock,
    tasks: Tasks,
}

impl World {
    /// Starts everything.
    ///
    /// # Errors
    /// A sentence that names what is wrong with the specification.
    pub async fn start(spec: &WorldSpec, clock: Clock, seed: Seed) -> Result<World, String> {
        let tasks = Tasks::default();
        let timeline = Timeline::default();
        let network = seed.child("network");
        let wire = match spec.loopback {
            Some(place) => Wire::on_loopback(clock, network, place),
            None => Wire::new(clock, network),
        };
        let server = |(index, cluster): (usize, &ClusterSpec)| {
            let index = u8::try_from(index).map_err(|_| "a run has at most 100 clusters".to_owned())?;
            let server = ApiServer::new(apiserver::Options {
                name: cluster.name.clone(),
                clock,
                seed: seed.child(&cluster.name).child("api"),
                service_cidr: match spec.loopback {
                    None => [10, FIRST_SERVICE_NET + index.min(99)],
                    Some(place) => [127, FIRST_SERVICE_NET + (place * 16) + index.min(15)],
                },
            });
            let logs = ClusterLogs { cluster: cluster.name.clone(), timeline: timeline.clone(), clock };
            server.set_pod_logs(Arc::new(logs));
            Ok::<_, String>((cluster.name.clone(), server))
        };
        let servers: Vec<_> = spec.clusters.iter().enumerate().map(server).collect::<Result<_, _>>()?;
        let servers = Servers { servers: servers.into(), wire: wire.clone(), clock };
        let client = |name: &str| {
            servers.client(name, MACHINERY).ok_or_else(|| format!("there is no cluster {name:?}"))
        };
        let remotes = Remotes::default();
        let proxy = match &spec.mesh {
            None => None,
            Some(mesh) => {
                let config = client(&mesh.control_plane)?;
                create_definitions(&config).await?;
                let mut data = Vec::new();
                for name in &mesh.data {
                    data.push((name.clone(), client(name)?));
                    let injection = Injection { version: mesh.proxy.clone().unwrap_or_else(default_proxy) };
                    servers.get(name).expect("it has a client").set_admission(Arc::new(Injector(injection)));
                }
                let control_plane = ControlPlane::start(mesh::Options {
                    config,
                    data,
                    telemetry: mesh.telemetry,
                    clock,
                    seed: seed.child("mesh"),
                    tasks: tasks.clone(),
                });
                Some(control_plane.proxy())
            }
        };
        let figures = keda::Figures::default();
        let images = Arc::new(Images {
            behaviours: Behaviours::default(),
            client_pods: ClientPods::default(),
            flagger: flagger::program(),
            loadtester: fixtures::loadtester(),
            prometheus: prometheus::program(),
            argocd: gitops::program(remotes.clone()),
            keda: keda::program(figures.clone()),
            proxy,
            used: Mutex::default(),
        });
        let mut clusters = Vec::new();
        for cluster in spec.clusters.iter().filter(|cluster| cluster.role == Role::Data) {
            let node = |number: u32| Node {
                name: format!("{}-node-{number}", cluster.name),
                cpu_millis: NODE_CPU_MILLIS,
                memory_bytes: NODE_MEMORY,
            };
            let started = Cluster::start(cluster::Options {
                name: cluster.name.clone(),
                client: client(&cluster.name)?,
                clock,
                seed: seed.child(&cluster.name),
                wire: wire.clone(),
                registry: images.clone(),
                apis: servers.access(),
                logs: Arc::new(timeline.clone()),
                nodes: (1..=cluster.nodes).map(node).collect(),
                external_metrics: Some(Arc::new(Outside {
                    cluster: cluster.name.clone(),
                    figures: figures.clone(),
                })),
            });
            let started = started.await.map_err(|error| format!("cluster {}: {error}", cluster.name))?;
            if let Some(server) = servers.get(&cluster.name) {
                server.set_metrics(Arc::new(Usage(started.pod_metrics())));
            }
            clusters.push((cluster.name.clone(), started));
        }
        Ok(World { servers, clusters, images, wire, remotes, timeline, clock, tasks })
    }

    /// A client of a cluster's API.
    pub fn client(&self, cluster: &str) -> Option<Client> {
        self.servers.client(cluster, RUNNER)
    }

    /// The clusters' names, in order.
    pub fn clusters(&self) -> Vec<String> {
        self.servers.servers.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Git repositories by URL.
    pub fn remotes(&self) -> &Remotes {
        &self.remotes
    }

    /// Everything that was logged.
    pub fn logs(&self) -> &Timeline {
        &self.timeline
    }

    /// A client outside the clusters, with the DNS of a cluster if one is given.
    ///
    /// # Errors
    /// A sentence if there is no such cluster.
    pub fn users(&self, dns_of: Option<&str>) -> Result<Arc<dyn Network>, String> {
        if let Some(cluster) = dns_of {
            self.running(cluster)?;
        }
        Ok(self.wire.outside("users", dns_of))
    }

    /// Whether a cluster runs pods: control planes do not.
    pub fn runs_pods(&self, cluster: &str) -> bool {
        self.running(cluster).is_ok()
    }

    /// The addresses of a name in a cluster's DNS, with `default` as the asking pod's namespace; none if there is no such
    /// name, or the cluster runs no pods.
    pub fn addresses(&self, cluster: &str, host: &str) -> Vec<IpAddr> {
        if self.runs_pods(cluster) { self.wire.addresses(cluster, "default", host) } else { Vec::new() }
    }

    /// A pod that does nothing but send what the caller sends through it; made if it is not there.
    ///
    /// # Errors
    /// A sentence if it cannot be made.
    pub async fn client_pod(
        &self,
        cluster: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<dyn Network>, String> {
        self.running(cluster)?;
        let client = self.client(cluster).expect("a running cluster has an API server");
        self.images.client_pods.get(client, self.clock, (cluster, namespace, name)).await
    }

    /// Changes how an image behaves from now on.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn set_behaviour(&self, image: &str, behaviour: &Behaviour) -> Result<(), String> {
        self.images
            .behaviours
            .set(&self.clock, image, behaviour.clone())
            .map_err(|problem| format!("image {image}: {problem}"))
    }

    /// The images that containers have run so far.
    pub fn images_used(&self) -> BTreeSet<String> {
        self.images.used.lock().expect("no holder of this lock panics").clone()
    }

    /// A cluster's API server.
    pub fn api(&self, cluster: &str) -> Option<ApiServer> {
        self.servers.get(cluster).cloned()
    }

    /// Cuts the network between two clusters. Connections to the API servers end, and those across the cut do not
    /// come back.
    pub fn cut(&self, one: &str, other: &str) {
        self.wire.cut(one, other);
        for cluster in [one, other] {
            if let Some(server) = self.servers.get(cluster) {
                server.drop_watches();
            }
        }
    }

    /// Mends a cut.
    pub fn heal(&self, one: &str, other: &str) {
        self.wire.heal(one, other);
    }

    /// Kills a container of a pod, the first unless one is named.
    ///
    /// # Errors
    /// A sentence if there is no such container.
    pub fn crash(
        &self,
        cluster: &str,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
    ) -> Result<(), String> {
        if self.running(cluster)?.crash(namespace, pod, container, CRASH_CODE) {
            return Ok(());
        }
        let container =
            container.map_or_else(|| "a container".to_owned(), |name| format!("container {name:?}"));
        Err(format!("{container} of pod {namespace}/{pod} in {cluster} is not running"))
    }

    /// Runs a command in a pod's container, the first unless one is named, as `kubectl exec` does.
    ///
    /// # Errors
    /// A sentence if there is no such container, or it does not run.
    pub async fn exec(
        &self,
        cluster: &str,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        command: Vec<String>,
    ) -> Result<program::ExecOutput, String> {
        self.running(cluster)?.exec(namespace, pod, container, command).await
    }

    fn running(&self, name: &str) -> Result<&Cluster, String> {
        let found = self.clusters.iter().find(|(cluster, _)| cluster == name).map(|(_, cluster)| cluster);
        found.ok_or_else(|| {
            let is_control_plane = self.servers.get(name).is_some();
            match is_control_plane {
                true => format!("cluster {name:?} is a control plane: it runs no pods"),
                false => format!("there is no cluster {name:?}"),
            }
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.abort_all();
        // What holds itself would outlive the run: pods' servers the network, API servers the kubelets that they ask.
        self.wire.close();
        self.servers.servers.iter().for_each(|(_, server)| server.detach());
    }
}

/// The exit code of a crashed container.
const CRASH_CODE: i32 = 1;

fn default_proxy() -> String {
    "1.4.5".to_owned()
}

/// Sidecar injection as an admission hook.
struct Injector(Injection);

impl Admission for Injector {
    fn admit(&self, kind: &str, object: &mut Value, namespace: Option<&Value>) -> Result<(), String> {
        if kind == "/Pod" {
            let labels = namespace.map_or(&Value::Null, |namespace| &namespace["metadata"]["labels"]);
            self.0.inject(object, labels);
        }
        Ok(())
    }
}

/// Creates Istio's CustomResourceDefinitions.
async fn create_definitions(client: &Client) -> Result<(), String> {
    // Read once, however many testbeds a process has.
    static DEFINITIONS: OnceLock<Result<Vec<DynamicObject>, String>> = OnceLock::new();
    let definitions = DEFINITIONS.get_or_init(|| {
        let objects = gitops::manifests::parse("Istio's definitions", crd::manifests::ISTIO)
            .map_err(|error| error.to_string())?;
        let object = |object| serde_json::from_value(object).map_err(|error| error.to_string());
        objects.into_iter().map(object).collect()
    });
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    for definition in definitions.as_ref().map_err(String::clone)? {
        api.create(definition).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use program::{DialError, Handler, Proxy, Reply, Request};

    use super::*;

    /// A proxy holds the network that holds it.
    struct Holder(Arc<dyn Network>);

    impl Proxy for Holder {
        fn outbound(self: Arc<Self>, request: Request) -> Reply {
            DialError::Invalid(format!("{} {}", self.0.local_ip(), request.uri())).into()
        }

        fn inbound(self: Arc<Self>, request: Request, _: u16, app: Arc<dyn Handler>) -> Reply {
            app.handle(request)
        }
    }

    #[test]
    fn nothing_of_a_world_outlives_its_run() {
        let (asm, data) = ("asm".to_owned(), "data".to_owned());
        let spec = WorldSpec {
            clusters: vec![
                ClusterSpec { name: asm.clone(), nodes: 0, role: Role::ControlPlane },
                ClusterSpec { name: data.clone(), nodes: 1, role: Role::Data },
            ],
            mesh: Some(MeshSpec {
                control_plane: asm,
                data: vec![data],
                telemetry: Telemetry::Seconds,
                proxy: None,
            }),
            loopback: None,
        };
        let epoch = "2020-03-17T11:00:00Z".parse().unwrap();
        let (servers, network) = clock::run_simulated(epoch, |clock| async move {
            let world = World::start(&spec, clock, Seed::new(1)).await.unwrap();
            let client = world.wire.outside("client", None);
            client.capture(Arc::new(Holder(Arc::clone(&client))));
            (Arc::downgrade(&world.servers.servers), Arc::downgrade(&client))
        });
        assert!(servers.upgrade().is_none(), "the API servers are still there");
        assert!(network.upgrade().is_none(), "the network is still there");
    }
}
