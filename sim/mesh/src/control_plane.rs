//! The control plane: reads rules from one cluster and services from all, and gives every proxy the same snapshot.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use clock::{Clock, Seed};
use crd::{
    ApiGateway, DestinationRule, Gateway, GatewayApiVersion, GatewayRoute, IstioVersion, VirtualService,
};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch};
use kube::{Client, Resource};
use program::{Api, Informer, Kind, Main, Selection, Tasks};
use serde_json::json;
use tokio::sync::Notify;

use crate::config::{ClusterPort, ClusterService, Config, Sources};
use crate::telemetry::Telemetry;
use crate::workload::Workload;
use crate::{gateway_api, proxy};

/// Proxies are told when there was no change for so long (istiod's `PILOT_DEBOUNCE_AFTER`) …
const DEBOUNCE: Duration = Duration::from_millis(100);
/// … and so long after the first change at the latest (`PILOT_DEBOUNCE_MAX`).
const DEBOUNCE_MAX: Duration = Duration::from_secs(10);

/// What a control plane is made of.
pub struct Options {
    /// The API with VirtualServices, DestinationRules and Gateways.
    pub config: Client,
    /// The clusters with Services and pods, by name.
    pub data: Vec<(String, Client)>,
    /// The unit of the proxies' duration histogram.
    pub telemetry: Telemetry,
    /// The run's clock.
    pub clock: Clock,
    /// Where the proxies' randomness comes from.
    pub seed: Seed,
    /// Where its background tasks run.
    pub tasks: Tasks,
}

/// A running control plane. Cheap to clone.
#[derive(Clone)]
pub struct ControlPlane(Arc<Shared>);

struct Shared {
    telemetry: Telemetry,
    seed: Seed,
    latest: Mutex<Arc<Push>>,
    /// How many pushes there were.
    version: AtomicU64,
}

/// What proxies were told last: objects as they were then. The snapshot is built when the first proxy looks at it, as
/// most pushes of a busy cluster are followed by the next before there is a request.
#[derive(Default)]
struct Push {
    virtual_services: Vec<Arc<VirtualService>>,
    destination_rules: Vec<Arc<DestinationRule>>,
    gateways: Vec<Arc<Gateway>>,
    api_routes: Vec<Arc<GatewayRoute>>,
    api_gateways: Vec<Arc<ApiGateway>>,
    members: Vec<MemberObjects>,
    config: OnceLock<Arc<Config>>,
}

/// The objects of one cluster.
struct MemberObjects {
    cluster: String,
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
    pods: Vec<Arc<Pod>>,
}

struct Rules {
    virtual_services: Informer<VirtualService>,
    destination_rules: Informer<DestinationRule>,
    gateways: Informer<Gateway>,
    api_routes: Defined<GatewayRoute>,
    api_gateways: Defined<ApiGateway>,
}

/// The objects of a kind that may not be defined yet: they are watched once it is.
type Defined<K> = Arc<Mutex<Option<Informer<K>>>>;

struct Member {
    cluster: String,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    pods: Informer<Pod>,
}

impl ControlPlane {
    /// Starts to watch, and to push a snapshot whenever something has changed.
    pub fn start(options: Options) -> Self {
        let Options { config, data, telemetry, clock, seed, tasks } = options;
        let changed = Arc::new(Notify::new());
        let mark = || {
            let changed = Arc::clone(&changed);
            move || changed.notify_one()
        };
        // Every Istio API server serves this version.
        let version = IstioVersion::V1Alpha3;
        let all = Selection::default;
        let (a, b, c) = (mark(), mark(), mark());
        let rules = Rules {
            virtual_services: Informer::start(
                &tasks,
                clock,
                Api::all_with(config.clone(), &version),
                all(),
                move |_| a(),
            ),
            destination_rules: Informer::start(
                &tasks,
                clock,
                Api::all_with(config.clone(), &version),
                all(),
                move |_| b(),
            ),
            gateways: Informer::start(
                &tasks,
                clock,
                Api::all_with(config.clone(), &version),
                all(),
                move |_| c(),
            ),
            api_routes: once_defined(&tasks, clock, &config, &changed),
            api_gateways: once_defined(&tasks, clock, &config, &changed),
        };
        let members: Vec<Member> = data
            .into_iter()
            .map(|(cluster, client)| {
                let (a, b, c) = (mark(), mark(), mark());
                Member {
                    cluster,
                    services: Informer::start(&tasks, clock, Api::all(client.clone()), all(), move |_| a()),
                    slices: Informer::start(&tasks, clock, Api::all(client.clone()), all(), move |_| b()),
                    pods: Informer::start(&tasks, clock, Api::all(client), all(), move |_| c()),
                }
            })
            .collect();
        let (latest, version) = (Mutex::default(), AtomicU64::default());
        let shared = Arc::new(Shared { telemetry, seed, latest, version });
        let pushed = Arc::clone(&shared);
        tasks.spawn(async move {
            loop {
                changed.notified().await;
                let latest = clock.elapsed() + DEBOUNCE_MAX;
                loop {
                    let quiet = DEBOUNCE.min(latest.saturating_sub(clock.elapsed()));
                    if quiet.is_zero() || clock.timeout(quiet, changed.notified()).await.is_err() {
                        break;
                    }
                }
                let push = Arc::new(Push::of(&rules, &members));
                *pushed.latest.lock().expect("no holder of this lock panics") = Arc::clone(&push);
                pushed.version.fetch_add(1, Ordering::SeqCst);
                report(&config, &clock, &push.api_routes, &push.api_gateways).await;
            }
        });
        ControlPlane(shared)
    }

    /// The program behind `istio/proxyv2` images: a sidecar, or a gateway with the argument `router`.
    pub fn proxy(&self) -> Main {
        proxy::program(self.clone())
    }

    /// The snapshot that proxies have.
    pub fn config(&self) -> Arc<Config> {
        let latest = self.0.latest.lock().expect("no holder of this lock panics");
        if let Some(config) = latest.config.get() {
            return Arc::clone(config);
        }
        let latest = Arc::clone(&latest);
        Arc::clone(latest.config.get_or_init(|| Arc::new(Config::build(latest.sources()))))
    }

    /// How many snapshots there were. What is kept of one is kept with the number from before it was read.
    pub(crate) fn version(&self) -> u64 {
        self.0.version.load(Ordering::SeqCst)
    }

    pub(crate) fn telemetry(&self) -> Telemetry {
        self.0.telemetry
    }

    pub(crate) fn seed(&self) -> Seed {
        self.0.seed
    }
}

/// Watches a kind of the Gateway API as soon as its definition is there.
fn once_defined<K>(tasks: &Tasks, clock: Clock, client: &Client, changed: &Arc<Notify>) -> Defined<K>
where
    K: Kind + Resource<DynamicType = GatewayApiVersion>,
{
    let version = GatewayApiVersion::default();
    let definition = format!("metadata.name={}.{}", K::plural(&version), K::group(&version));
    let found: Defined<K> = Arc::default();
    let (objects, changed) = (Arc::clone(&found), Arc::clone(changed));
    let (inner, client_of_kind) = (tasks.clone(), client.clone());
    let watched = Selection::fields(definition);
    Informer::<CustomResourceDefinition>::start(tasks, clock, Api::all(client.clone()), watched, move |_| {
        let mut objects = objects.lock().expect("no holder of this lock panics");
        let changed = Arc::clone(&changed);
        objects.get_or_insert_with(|| {
            let api = Api::all_with(client_of_kind.clone(), &version);
            Informer::start(&inner, clock, api, Selection::default(), move |_| changed.notify_one())
        });
    });
    found
}

fn list<K>(objects: &Defined<K>) -> Vec<Arc<K>>
where
    K: Kind + Resource,
{
    let objects = objects.lock().expect("no holder of this lock panics");
    objects.as_ref().map(Informer::list).unwrap_or_default()
}

/// Tells the routes what became of them, where their status does not say so yet.
async fn report(client: &Client, clock: &Clock, routes: &[Arc<GatewayRoute>], gateways: &[Arc<ApiGateway>]) {
    for route in routes {
        let (_, mut status) = gateway_api::rules(route, gateways);
        let old = route.status.as_ref().map_or(&[][..], |status| &status.parents);
        let now = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        for parent in &mut status.parents {
            let known = old.iter().find(|old| old.parent_ref == parent.parent_ref);
            for condition in &mut parent.conditions {
                let mut conditions = known.into_iter().flat_map(|known| &known.conditions);
                let same =
                    conditions.find(|old| old.kind == condition.kind && old.status == condition.status);
                let since = same.and_then(|old| old.extra.get("lastTransitionTime").cloned());
                let since = since.unwrap_or_else(|| now.as_str().into());
                condition.extra.insert("lastTransitionTime".to_owned(), since);
            }
        }
        if status.parents == old {
            continue;
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), route.namespace(), &GatewayRoute::api_resource());
        let patch = Patch::Merge(json!({"status": {"parents": status.parents}}));
        // A route that is gone needs no status; any other refusal is tried again with the next push.
        let _ = api.patch_status(route.name(), &patch).await;
    }
}

impl Push {
    fn of(rules: &Rules, members: &[Member]) -> Push {
        let members = members.iter().map(|member| MemberObjects {
            cluster: member.cluster.clone(),
            services: member.services.list(),
            slices: member.slices.list(),
            pods: member.pods.list(),
        });
        Push {
            virtual_services: by_age(rules.virtual_services.list()),
            destination_rules: by_age(rules.destination_rules.list()),
            gateways: by_age(rules.gateways.list()),
            api_routes: by_age(list(&rules.api_routes)),
            api_gateways: by_age(list(&rules.api_gateways)),
            members: members.collect(),
            config: OnceLock::new(),
        }
    }

    fn sources(&self) -> Sources {
        let mut sources = Sources {
            virtual_services: self.virtual_services.clone(),
            destination_rules: self.destination_rules.clone(),
            gateways: self.gateways.clone(),
            api_routes: self.api_routes.clone(),
            api_gateways: self.api_gateways.clone(),
            ..Sources::default()
        };
        for member in &self.members {
            member.add_to(&mut sources);
        }
        sources
    }
}

impl MemberObjects {
    fn add_to(&self, sources: &mut Sources) {
        for pod in &self.pods {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
            if let Some(address) = address {
                sources.workloads.insert(address, Workload::of(&self.cluster, pod));
            }
        }
        let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in &self.slices {
            let service =
                slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
            if let Some(service) = service {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                slices.entry((namespace, service)).or_default().push(slice);
            }
        }
        for service in &self.services {
            let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
            let name = service.metadata.name.as_deref().unwrap_or_default();
            // Each cluster's system Services are its own.
            if namespace == "kube-system" || (namespace == "default" && name == "kubernetes") {
                continue;
            }
            let slices = slices.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
            let spec = service.spec.as_ref();
            let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten().filter_map(|port| {
                let endpoints =
                    slices.iter().flat_map(|slice| ready(slice, port.name.as_deref().unwrap_or_default()));
                Some(ClusterPort { port: u16::try_from(port.port).ok()?, endpoints: endpoints.collect() })
            });
            let address = spec.and_then(|spec| spec.cluster_ip.as_deref());
            sources.services.push(ClusterService {
                ports: ports.collect(),
                cluster_ip: address.and_then(|address| address.parse().ok()),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
        }
    }
}

/// The ready endpoints of a named port.
fn ready(slice: &EndpointSlice, port: &str) -> Vec<SocketAddr> {
    let ports = slice.ports.iter().flatten();
    let numbers: Vec<u16> = ports
        .filter(|found| found.name.as_deref().unwrap_or_default() == port)
        .filter_map(|found| found.port.and_then(|port| u16::try_from(port).ok()))
        .collect();
    let mut found = Vec::new();
    for endpoint in &slice.endpoints {
        if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
            continue;
        }
        for address in endpoint.addresses.iter().filter_map(|address| address.parse().ok()) {
            found.extend(numbers.iter().map(|port| SocketAddr::new(address, *port)));
        }
    }
    found
}

/// Objects in the order of their creation, then of namespace and name.
fn by_age<K: Resource>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    objects.sort_by_key(|object| object.meta().creation_timestamp.as_ref().map(|time| time.0));
    objects
}
