//! The controllers against a real API server, with a kubelet that only marks pods ready.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::{ApiServer, Options};
use clock::{Clock, Seed};
use cluster::{ControllerOptions, EventRecorder, PodCpu, PodMetrics, start_controllers};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Endpoints, Event, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use program::{Change, Informer, Selection, Tasks, WorkQueue};
use serde_json::{Value, json};

/// How long a pod's image takes to be ready; pods of image `broken` never are.
const READY_AFTER: Duration = Duration::from_secs(6);

/// One cluster without nodes.
struct World {
    client: Client,
    clock: Clock,
    /// Where the controllers run.
    manager: Tasks,
    /// Millicores that every running pod uses.
    cpu: Arc<AtomicI64>,
    /// The most pods and the fewest ready ones that were seen since the last reset.
    extremes: Arc<Mutex<(usize, usize)>>,
}

struct FlatCpu(Arc<AtomicI64>, Clock);

impl PodMetrics for FlatCpu {
    fn cpu(&self, _namespace: &str, _pod: &str) -> Option<PodCpu> {
        let millicores = BTreeMap::from([("podinfod".to_owned(), self.0.load(Ordering::Relaxed))]);
        Some(PodCpu { millicores, window: Duration::from_secs(15), timestamp: self.1.now() })
    }
}

fn with_world<F, T>(test: impl FnOnce(World) -> F) -> T
where
    F: Future<Output = T>,
{
    clock::run_simulated("2020-03-17T11:00:00Z".parse().unwrap(), |clock| async move {
        let seed = Seed::new(7);
        let server = ApiServer::new(Options {
            name: "mesh02".into(),
            clock,
            seed: seed.child("api"),
            service_cidr: [10, 96],
        });
        let tasks = Tasks::default();
        let client = Client::new(server.client_service("admin"), "default");
        let manager = Tasks::default();
        let controllers = Client::new(server.client_service("system:kube-controller-manager"), "default");
        let cpu = Arc::new(AtomicI64::new(10));
        start_manager(&controllers, clock, &manager, &cpu);
        let namespace: Namespace = from(json!({"metadata": {"name": "test"}}));
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let extremes = Arc::new(Mutex::new((0, usize::MAX)));
        start_kubelet(&client, clock, &tasks, Arc::clone(&extremes));
        test(World { client, clock, manager, cpu, extremes }).await
    })
}

/// Starts the controllers and returns their recorder of Events.
fn start_manager(client: &Client, clock: Clock, tasks: &Tasks, cpu: &Arc<AtomicI64>) -> EventRecorder {
    let events = EventRecorder::new(client.clone(), clock, tasks);
    let next_ip = AtomicU8::new(1);
    start_controllers(ControllerOptions {
        client: client.clone(),
        clock,
        seed: Seed::new(7).child("controllers"),
        tasks: tasks.clone(),
        events: events.clone(),
        pod_metrics: Arc::new(FlatCpu(Arc::clone(cpu), clock)),
        external_metrics: None,
        load_balancer_ips: Arc::new(move || {
            IpAddr::from([203, 0, 113, next_ip.fetch_add(1, Ordering::Relaxed)])
        }),
    });
    events
}

/// Runs pods: an address at once, ready after [`READY_AFTER`], gone a second after their deletion.
fn start_kubelet(client: &Client, clock: Clock, tasks: &Tasks, extremes: Arc<Mutex<(usize, usize)>>) {
    let queue: WorkQueue<(u8, String)> = WorkQueue::new(clock);
    let pods: Arc<Mutex<BTreeMap<String, bool>>> = Arc::default();
    let informer = {
        let queue = queue.clone();
        Informer::<Pod>::start(
            tasks,
            clock,
            program::Api::all(client.clone()),
            Selection::default(),
            move |change| {
                let pod = change.object();
                let name = pod.name_any();
                let mut pods = pods.lock().unwrap();
                match &change {
                    Change::Applied { old: None, .. } => {
                        queue.add((0, name.clone()));
                        queue.add_after((1, name.clone()), READY_AFTER);
                    }
                    Change::Applied { old: Some(old), new } => {
                        if old.metadata.deletion_timestamp.is_none()
                            && new.metadata.deletion_timestamp.is_some()
                        {
                            queue.add_after((2, name.clone()), Duration::from_secs(1));
                        }
                    }
                    Change::Deleted(_) => {}
                }
                if matches!(change, Change::Deleted(_)) || pod.metadata.deletion_timestamp.is_some() {
                    pods.remove(&name);
                } else {
                    let ready = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                    pods.insert(name, ready.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"));
                }
                let ready = pods.values().filter(|ready| **ready).count();
                let mut extremes = extremes.lock().unwrap();
                *extremes = (extremes.0.max(pods.len()), extremes.1.min(ready));
            },
        )
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), "test");
    let mut started = 0;
    tasks.spawn(async move {
        loop {
            let (stage, name) = queue.next().await;
            let Some(pod) = informer.get("test", &name) else { continue };
            let now = Time(clock.now());
            let status = match stage {
                0 => {
                    started += 1;
                    let conditions = json!([{"type": "Ready", "status": "False", "lastTransitionTime": now}]);
                    let ip = format!("10.0.0.{started}");
                    json!({"phase": "Running", "podIP": ip, "startTime": now, "conditions": conditions})
                }
                1 if pod.spec.as_ref().unwrap().containers[0].image.as_deref() != Some("broken") => {
                    json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]})
                }
                2 => {
                    let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
                    continue;
                }
                _ => continue,
            };
            let patch = Patch::Merge(json!({"status": status}));
            let _ = api.patch_status(&name, &PatchParams::default(), &patch).await;
        }
    });
}

fn from<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn deployment(replicas: i32, image: &str) -> Deployment {
    from(json!({
        "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {
            "replicas": replicas,
            "minReadySeconds": 5,
            "progressDeadlineSeconds": 60,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": {"app": "podinfo"}},
            "template": {
                "metadata": {"labels": {"app": "podinfo"}},
                "spec": {"containers": [{
                    "name": "podinfod", "image": image,
                    "ports": [{"name": "http", "containerPort": 9898}],
                    "resources": {"requests": {"cpu": "100m"}},
                }]},
            },
        },
    }))
}

impl World {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "test")
    }

    async fn create<K>(&self, object: K)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + serde::Serialize
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap();
    }

    async fn seconds(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }

    async fn set_image(&self, image: &str) {
        let patch =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "image": image}]}}}});
        let params = PatchParams::default();
        self.api::<Deployment>().patch("podinfo", &params, &Patch::Strategic(patch)).await.unwrap();
    }

    async fn deployment(&self) -> Deployment {
        self.api().get("podinfo").await.unwrap()
    }

    /// `status reason` of a condition.
    async fn condition(&self, type_: &str) -> String {
        let status = self.deployment().await.status.unwrap();
        let conditions = status.conditions.unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == type_);
        found.map_or(String::new(), |c| format!("{} {}", c.status, c.reason.unwrap_or_default()))
    }

    /// Messages of the Events with this reason, by the time of the first occurrence.
    async fn messages(&self, reason: &str) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let mut events: Vec<Event> =
            events.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).collect();
        // Names end in the nanoseconds of the first occurrence.
        events.sort_by_key(|event| event.name_any().rsplit('.').next().map(str::to_owned));
        events.into_iter().map(|event| event.message.unwrap_or_default()).collect()
    }
}

#[test]
fn a_rollout_keeps_its_limits_and_an_undo_reuses_the_old_replica_set() {
    with_world(|world| async move {
        world.create(deployment(4, "podinfo:1")).await;
        world.seconds(12).await;
        assert_eq!(world.condition("Available").await, "True MinimumReplicasAvailable");
        assert_eq!(world.condition("Progressing").await, "True NewReplicaSetAvailable");
        let first = world.deployment().await;
        assert_eq!(first.annotations()["deployment.kubernetes.io/revision"], "1");
        assert_eq!(first.metadata.generation, Some(1));

        *world.extremes.lock().unwrap() = (0, usize::MAX);
        world.set_image("podinfo:2").await;
        world.seconds(8).await;
        // Half-way: the next tick of a canary controller would see this.
        let status = world.deployment().await.status.unwrap();
        assert_eq!((status.updated_replicas, status.replicas), (Some(2), Some(5)));
        world.seconds(60).await;
        assert_eq!(*world.extremes.lock().unwrap(), (5, 3));
        let status = world.deployment().await.status.unwrap();
        assert_eq!(
            (
                status.updated_replicas,
                status.replicas,
                status.available_replicas,
                status.unavailable_replicas
            ),
            (Some(4), Some(4), Some(4), None)
        );
        assert_eq!(status.observed_generation, Some(2));
        let sets = world.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
        let by_revision: BTreeMap<String, String> = sets
            .iter()
            .map(|set| (set.annotations()["deployment.kubernetes.io/revision"].clone(), set.name_any()))
            .collect();
        let (old, new) = (&by_revision["1"], &by_revision["2"]);
        let scaled = |direction: &str, set: &str, from: i32, to: i32| {
            format!("Scaled {direction} replica set {set} from {from} to {to}")
        };
        assert_eq!(
            world.messages("ScalingReplicaSet").await,
            [
                scaled("up", old, 0, 4),
                scaled("up", new, 0, 1),
                scaled("down", old, 4, 3),
                scaled("up", new, 1, 2),
                scaled("down", old, 3, 1),
                scaled("up", new, 2, 4),
                scaled("down", old, 1, 0),
            ]
        );

        world.set_image("podinfo:1").await;
        world.seconds(60).await;
        let sets = world.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
        assert_eq!(sets.len(), 2);
        let reused = sets.iter().find(|set| &set.name_any() == old).unwrap();
        assert_eq!(reused.annotations()["deployment.kubernetes.io/revision"], "3");
        assert_eq!(world.deployment().await.annotations()["deployment.kubernetes.io/revision"], "3");
        assert_eq!(reused.status.as_ref().unwrap().available_replicas, Some(4));
    });
}

#[test]
fn a_rollout_that_cannot_become_ready_hits_its_deadline_and_recovers() {
    with_world(|world| async move {
        world.create(deployment(3, "podinfo:1")).await;
        world.seconds(20).await;
        world.set_image("broken").await;
        world.seconds(55).await;
        assert_eq!(world.condition("Progressing").await, "True ReplicaSetUpdated");
        world.seconds(20).await;
        assert_eq!(world.condition("Progressing").await, "False ProgressDeadlineExceeded");
        assert_eq!(world.condition("Available").await, "True MinimumReplicasAvailable");
        world.set_image("podinfo:3").await;
        world.seconds(60).await;
        assert_eq!(world.condition("Progressing").await, "True NewReplicaSetAvailable");
    });
}

#[test]
fn recreate_and_scale_and_pause() {
    with_world(|world| async move {
        let mut object = deployment(3, "podinfo:1");
        object.spec.as_mut().unwrap().strategy = from(json!({"type": "Recreate"}));
        world.create(object).await;
        world.seconds(20).await;
        *world.extremes.lock().unwrap() = (0, usize::MAX);
        world.set_image("podinfo:2").await;
        world.seconds(20).await;
        assert_eq!(*world.extremes.lock().unwrap(), (3, 0));
        assert_eq!(world.condition("Progressing").await, "True NewReplicaSetAvailable");
        let deployments: Api<Deployment> = world.api();
        let patch = |spec: Value| Patch::Merge(json!({"spec": spec}));
        deployments
            .patch("podinfo", &PatchParams::default(), &patch(json!({"paused": true, "replicas": 5})))
            .await
            .unwrap();
        world.set_image("podinfo:3").await;
        world.seconds(20).await;
        let status = world.deployment().await.status.unwrap();
        assert_eq!((status.available_replicas, status.updated_replicas), (Some(5), None));
        assert_eq!(world.condition("Progressing").await, "Unknown DeploymentPaused");
        deployments
            .patch("podinfo", &PatchParams::default(), &patch(json!({"paused": false})))
            .await
            .unwrap();
        world.seconds(30).await;
        assert_eq!(world.deployment().await.status.unwrap().updated_replicas, Some(5));
    });
}

#[test]
fn the_autoscaler_follows_cpu_up_at_once_and_down_after_five_minutes() {
    with_world(|world| async move {
        world.create(deployment(2, "podinfo:1")).await;
        let autoscaler: HorizontalPodAutoscaler = from(json!({
            "metadata": {"name": "podinfo", "namespace": "test"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                "minReplicas": 2, "maxReplicas": 4,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 99}}}],
            },
        }));
        world.create(autoscaler).await;
        world.seconds(40).await;
        assert_eq!(world.deployment().await.spec.unwrap().replicas, Some(2));
        world.cpu.store(250, Ordering::Relaxed);
        world.seconds(16).await;
        assert_eq!(world.deployment().await.spec.unwrap().replicas, Some(4));
        let above = "New size: 4; reason: cpu resource utilization (percentage of request) above target";
        assert_eq!(world.messages("SuccessfulRescale").await, [above]);
        let status = world.api::<HorizontalPodAutoscaler>().get("podinfo").await.unwrap().status.unwrap();
        assert_eq!((status.current_replicas, status.desired_replicas), (Some(2), 4));
        let conditions: Vec<_> = status
            .conditions
            .unwrap()
            .into_iter()
            .map(|c| format!("{}={} {}", c.type_, c.status, c.reason.unwrap()))
            .collect();
        assert_eq!(
            conditions,
            [
                "AbleToScale=True SucceededRescale",
                "ScalingActive=True ValidMetricFound",
                "ScalingLimited=True TooManyReplicas"
            ]
        );
        world.cpu.store(10, Ordering::Relaxed);
        world.seconds(280).await;
        assert_eq!(world.deployment().await.status.unwrap().available_replicas, Some(4));
        world.seconds(60).await;
        assert_eq!(world.deployment().await.status.unwrap().available_replicas, Some(2));
        assert_eq!(
            world.messages("SuccessfulRescale").await[1],
            "New size: 2; reason: All metrics below target"
        );
    });
}

#[test]
fn services_get_endpoints_slices_and_addresses() {
    with_world(|world| async move {
        let service = |name: &str, spec: Value| -> Service {
            from(json!({"metadata": {"name": name, "namespace": "test"}, "spec": spec}))
        };
        let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
        let selector = json!({"app": "podinfo"});
        world
            .create(service("podinfo", json!({"type": "LoadBalancer", "selector": selector, "ports": ports})))
            .await;
        world.create(service("copy", json!({"ports": ports}))).await;
        world.create(deployment(2, "podinfo:1")).await;
        world.seconds(3).await;
        let counts = |endpoints: Endpoints| {
            let count = |list: Option<Vec<_>>| list.map_or(0, |list| list.len());
            let subsets = endpoints.subsets.unwrap_or_default();
            subsets
                .into_iter()
                .map(|s| (count(s.addresses), count(s.not_ready_addresses)))
                .collect::<Vec<_>>()
        };
        let endpoints: Api<Endpoints> = world.api();
        assert_eq!(counts(endpoints.get("podinfo").await.unwrap()), [(0, 2)]);
        world.seconds(5).await;
        assert_eq!(counts(endpoints.get("podinfo").await.unwrap()), [(2, 0)]);
        assert!(endpoints.get_opt("copy").await.unwrap().is_none());
        let slices = world.api::<EndpointSlice>().list(&ListParams::default()).await.unwrap().items;
        assert_eq!(slices.len(), 1, "{slices:?}");
        assert_eq!(slices[0].labels()["kubernetes.io/service-name"], "podinfo");
        assert_eq!(slices[0].owner_references()[0].kind, "Service");
        assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(9898));
        assert_eq!(slices[0].endpoints.len(), 2);
        let status = world.api::<Service>().get("podinfo").await.unwrap().status.unwrap();
        let ingress = status.load_balancer.unwrap().ingress.unwrap();
        assert_eq!(ingress[0].ip.as_deref(), Some("203.0.113.1"));

        world.api::<Service>().delete("podinfo", &DeleteParams::default()).await.unwrap();
        world.seconds(1).await;
        assert!(endpoints.get_opt("podinfo").await.unwrap().is_none());
        assert_eq!(world.api::<EndpointSlice>().list(&ListParams::default()).await.unwrap().items, []);
        // Pods go with their Deployment, and come back for nobody.
        world.api::<Deployment>().delete("podinfo", &DeleteParams::default()).await.unwrap();
        world.seconds(5).await;
        assert_eq!(world.api::<Pod>().list(&ListParams::default()).await.unwrap().items.len(), 0);
    });
}

#[test]
fn an_orphan_is_adopted_and_a_relabelled_pod_released() {
    with_world(|world| async move {
        world.create(deployment(2, "podinfo:1")).await;
        world.seconds(10).await;
        let pods: Api<Pod> = world.api();
        let listed = pods.list(&ListParams::default()).await.unwrap().items;
        let name = listed[0].name_any();
        let relabel = |app: &str| Patch::Merge(json!({"metadata": {"labels": {"app": app}}}));
        pods.patch(&name, &PatchParams::default(), &relabel("debug")).await.unwrap();
        world.seconds(10).await;
        assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 3);
        assert_eq!(pods.get(&name).await.unwrap().owner_references().len(), 0);
        pods.patch(&name, &PatchParams::default(), &relabel("podinfo")).await.unwrap();
        world.seconds(10).await;
        assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 2);
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = || {
        with_world(|world| async move {
            world.create(deployment(4, "podinfo:1")).await;
            world.seconds(15).await;
            world.set_image("podinfo:2").await;
            world.seconds(40).await;
            let events = world.api::<Event>().list(&ListParams::default()).await.unwrap();
            let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap();
            serde_json::to_string(&(events.items, pods.items)).unwrap()
        })
    };
    let first = history();
    assert_eq!(first, history());
    assert_eq!(first.matches("SuccessfulCreate").count(), 8);
}

#[test]
fn restarted_controllers_carry_on_and_repeated_events_are_counted() {
    with_world(|world| async move {
        world.create(deployment(2, "podinfo:1")).await;
        world.seconds(15).await;
        // A restart: the same seed, an empty memory.
        world.manager.abort_all();
        let events = start_manager(&world.client, world.clock, &world.manager, &world.cpu);
        let replicas = Patch::Merge(json!({"spec": {"replicas": 4}}));
        world.api::<Deployment>().patch("podinfo", &PatchParams::default(), &replicas).await.unwrap();
        world.seconds(15).await;
        assert_eq!(world.deployment().await.status.unwrap().available_replicas, Some(4));
        assert_eq!(world.messages("SuccessfulCreate").await.len(), 4);
        assert_eq!(world.messages("FailedCreate").await, [""; 0]);
        let recorder = events.component("kubelet", Some("node-1"));
        let object = cluster::reference(&world.deployment().await);
        for _ in 0..3 {
            recorder.warning(&object, "BackOff", "Back-off restarting failed container");
            world.seconds(10).await;
        }
        let events = world.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let event = events.iter().find(|event| event.reason.as_deref() == Some("BackOff")).unwrap();
        let times = |time: &Option<Time>| time.as_ref().unwrap().0.to_string();
        assert_eq!(event.count, Some(3));
        assert_eq!(times(&event.first_timestamp), "2020-03-17T11:00:30Z");
        assert_eq!(times(&event.last_timestamp), "2020-03-17T11:00:50Z");
        assert_eq!(event.source.as_ref().unwrap().host.as_deref(), Some("node-1"));
    });
}

/// Nodes by number, every one but the last with a disk.
async fn add_nodes(world: &World, count: u32) {
    let api: Api<Node> = Api::all(world.client.clone());
    for number in 1..=count {
        let disk = if number == count { "none" } else { "ssd" };
        let node = json!({"metadata": {"name": format!("node-{number}"), "labels": {"disk": disk}}});
        api.create(&PostParams::default(), &from(node)).await.unwrap();
    }
}

async fn daemon_set(world: &World) -> (DaemonSet, [i32; 5]) {
    let set: DaemonSet = world.api().get("agent").await.unwrap();
    let status = set.status.clone().unwrap();
    let numbers = [
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled.unwrap_or(0),
        status.number_available.unwrap_or(0),
    ];
    (set, numbers)
}

#[test]
fn a_daemon_set_has_a_pod_on_every_node_that_it_selects() {
    with_world(|world| async move {
        add_nodes(&world, 4).await;
        let set = json!({
            "metadata": {"name": "agent", "namespace": "test"},
            "spec": {
                "selector": {"matchLabels": {"app": "agent"}},
                "template": {
                    "metadata": {"labels": {"app": "agent"}},
                    "spec": {
                        "nodeSelector": {"disk": "ssd"},
                        "containers": [{"name": "agent", "image": "agent:1"}],
                    },
                },
            },
        });
        world.create(from::<DaemonSet>(set)).await;
        world.seconds(10).await;
        assert_eq!(daemon_set(&world).await.1, [3, 3, 3, 3, 3]);

        // One at a time, the default.
        *world.extremes.lock().unwrap() = (0, usize::MAX);
        let patch = |patch: Value| {
            let api = world.api::<DaemonSet>();
            async move { api.patch("agent", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap() }
        };
        let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "image": image}]}}}});
        patch(image("agent:2")).await;
        world.seconds(9).await;
        let (half_way, numbers) = daemon_set(&world).await;
        assert_eq!(half_way.status.unwrap().number_unavailable, Some(1));
        assert_eq!((numbers[3], numbers[4]), (2, 2), "the second node's pod has just been made");
        world.seconds(30).await;
        let (rolled, numbers) = daemon_set(&world).await;
        assert_eq!(numbers, [3, 3, 3, 3, 3]);
        assert_eq!(rolled.status.unwrap().observed_generation, rolled.metadata.generation);
        assert_eq!(*world.extremes.lock().unwrap(), (3, 2));
        let revisions = world.api::<ControllerRevision>().list(&ListParams::default()).await.unwrap().items;
        let mut revisions: Vec<i64> = revisions.iter().map(|revision| revision.revision).collect();
        revisions.sort_unstable();
        assert_eq!(revisions, [1, 2]);

        // A version that is never ready takes no second pod.
        patch(image("broken")).await;
        world.seconds(60).await;
        assert_eq!(daemon_set(&world).await.1, [3, 3, 2, 1, 2]);

        // Nodes come and go by their labels.
        patch(image("agent:2")).await;
        world.seconds(30).await;
        let nodes: Api<Node> = Api::all(world.client.clone());
        let label = |disk: &str| Patch::Merge(json!({"metadata": {"labels": {"disk": disk}}}));
        nodes.patch("node-4", &PatchParams::default(), &label("ssd")).await.unwrap();
        world.seconds(10).await;
        assert_eq!(daemon_set(&world).await.1, [4, 4, 4, 4, 4]);
        patch(json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "tape"}}}}})).await;
        world.seconds(10).await;
        assert_eq!(daemon_set(&world).await.1, [0, 0, 0, 0, 0]);
        assert_eq!(world.api::<Pod>().list(&ListParams::default()).await.unwrap().items.len(), 0);
    });
}
