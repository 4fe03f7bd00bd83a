//! Pods on nodes: programs, probes, restarts, volumes, the network between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::ApiServer;
use bytes::Bytes;
use clock::{Clock, Seed};
use cluster::{Cluster, Image, Node, Options, Registry, Wire};
use http::StatusCode;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use program::{Apis, ConnectError, Context, DialError, ExitCode, Logs, Request, program, respond};
use serde_json::{Value, json};

struct OneApi(Client);

impl Apis for OneApi {
    fn in_cluster(&self) -> Client {
        self.0.clone()
    }

    fn connect(&self, server: &str, _: Option<&str>) -> Result<Client, ConnectError> {
        Err(ConnectError(format!("no server {server}")))
    }
}

/// `web` answers on 8080 after a second with its pod's name; `crash` exits at once; `files` prints a file every minute;
/// `work` ends after five seconds, badly if its index is among those that `FAILS` names.
struct Images;

impl Registry for Images {
    fn find(&self, image: &str) -> Result<Image, String> {
        let main = match image.split(':').next().unwrap_or_default() {
            "web" => program(|context: Context| async move {
                context.clock.sleep(Duration::from_secs(1)).await;
                let name = context.identity.pod.clone();
                let handler = move |request: Request| {
                    let name = name.clone();
                    async move {
                        if request.uri().path() == "/reset" {
                            return Err(DialError::Reset("me".into()));
                        }
                        Ok(respond(StatusCode::OK, name).taking(Duration::from_millis(20)))
                    }
                };
                let Ok(_listening) = context.network.listen(8080, Arc::new(handler)) else {
                    return ExitCode::FAILURE;
                };
                context.log.print(&format!(
                    "args {:?} greeting {:?}",
                    context.args,
                    context.env.get("GREETING")
                ));
                context.termination.requested().await;
                context.clock.sleep(Duration::from_secs(3)).await;
                ExitCode::SUCCESS
            }),
            "crash" => program(|context: Context| async move {
                context.log.print("started");
                ExitCode(3)
            }),
            "files" => program(|context: Context| async move {
                loop {
                    let text = context.files.read_to_string("/etc/app/key").unwrap_or_else(|error| error);
                    context.log.print(&text);
                    context.clock.sleep(Duration::from_secs(60)).await;
                }
            }),
            "work" => program(|context: Context| async move {
                let variable = |name: &str| context.env.get(name).cloned().unwrap_or_default();
                let (index, host) = (variable("JOB_COMPLETION_INDEX"), variable("HOSTNAME"));
                context
                    .log
                    .print(&format!("{index} on {host}, {} done before", context.identity.restart_count));
                context.clock.sleep(Duration::from_secs(5)).await;
                let failing = variable("FAILS");
                let fails = failing == "all" || failing.split(',').any(|one| !one.is_empty() && one == index);
                ExitCode(if fails { 7 } else { 0 })
            }),
            other => return Err(format!("rpc error: code = NotFound desc = {other}: not found")),
        };
        Ok(Image { main, pull: Duration::from_secs(4) })
    }
}

pub(crate) struct World {
    pub client: Client,
    pub clock: Clock,
    pub logs: Arc<Logs>,
    wire: Wire,
    cluster: Cluster,
}

impl World {
    pub async fn start(clock: Clock) -> World {
        let seed = Seed::new(7);
        let options = apiserver::Options { name: "mesh01".into(), clock, seed, service_cidr: [10, 96] };
        let client = Client::new(ApiServer::new(options).client_service("admin"), "default");
        let logs = Arc::new(Logs::default());
        let wire = Wire::new(clock, seed);
        let node = |name: &str| Node { name: name.into(), cpu_millis: 4000, memory_bytes: 8 << 30 };
        let cluster = Cluster::start(Options {
            name: "mesh01".into(),
            client: client.clone(),
            clock,
            seed,
            wire: wire.clone(),
            registry: Arc::new(Images),
            apis: {
                let client = client.clone();
                Arc::new(move |_| Arc::new(OneApi(client.clone())) as Arc<dyn Apis>)
            },
            logs: logs.clone(),
            nodes: vec![node("node-1"), node("node-2")],
            external_metrics: None,
        })
        .await
        .unwrap();
        World { client, clock, logs, wire, cluster }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), "default");
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    pub async fn pod(&self, name: &str) -> Value {
        serde_json::to_value(self.pods().get(name).await.unwrap()).unwrap()
    }

    pub async fn events(&self) -> Vec<String> {
        let api: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(self.client.clone(), "default");
        let events = api.list(&ListParams::default()).await.unwrap().items;
        events
            .into_iter()
            .map(|event| format!("{}: {}", event.reason.unwrap(), event.message.unwrap()))
            .collect()
    }
}

pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Clock) -> F) {
    clock::run_simulated("2020-03-17T11:00:00Z".parse().unwrap(), test);
}

fn condition<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == name).unwrap_or(&Value::Null)
}

#[test]
fn a_pod_is_ready_when_its_first_probe_after_the_delay_says_so() {
    run(|clock| async move {
        let world = World::start(clock).await;
        world.create::<Pod>(json!({"metadata": {"name": "p"}, "spec": {"containers": [{
            "name": "main", "image": "web:1", "command": ["./web", "--greet=$(GREETING)"],
            "env": [{"name": "GREETING", "value": "hello $(HOSTNAME)"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "readinessProbe": {"httpGet": {"port": 8080, "path": "/ready"}, "initialDelaySeconds": 5}}]}})).await;
        clock.sleep(Duration::from_secs(2)).await;
        let pod = world.pod("p").await;
        assert_eq!(pod["spec"]["nodeName"], "node-1");
        assert_eq!(pod["status"]["phase"], "Pending");
        assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
        clock.sleep(Duration::from_secs(6)).await;
        let pod = world.pod("p").await;
        assert_eq!(
            (&pod["status"]["phase"], &condition(&pod, "Ready")["status"]),
            (&json!("Running"), &json!("False"))
        );
        clock.sleep(Duration::from_secs(3)).await;
        let pod = world.pod("p").await;
        assert_eq!(condition(&pod, "Ready")["status"], "True", "{pod:#}");
        let started: clock::Timestamp =
            pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
        let ready: clock::Timestamp =
            condition(&pod, "Ready")["lastTransitionTime"].as_str().unwrap().parse().unwrap();
        // The pod came at 0 s, its container started at 4 s: the delay is over at 9 s, the kubelet looks at 10 s.
        assert_eq!(ready.duration_since(started).as_secs(), 6);
        let lines = world.logs.lines(|source| source.pod == "p");
        assert_eq!(lines[0].1, "args [\"--greet=hello $(HOSTNAME)\"] greeting Some(\"hello $(HOSTNAME)\")");
        let events = world.events().await;
        assert!(events.contains(&"Pulling: Pulling image \"web:1\"".to_owned()), "{events:?}");
        assert!(
            events
                .iter()
                .any(|event| event.starts_with("Scheduled: Successfully assigned default/p to node-1"))
        );

        world.pods().delete("p", &DeleteParams::default()).await.unwrap();
        clock.sleep(Duration::from_secs(1)).await;
        let pod = world.pod("p").await;
        assert_eq!(condition(&pod, "Ready")["status"], "False", "a pod that ends is not ready");
        clock.sleep(Duration::from_secs(3)).await;
        assert!(world.pods().get_opt("p").await.unwrap().is_none(), "it ended within its grace");
    });
}

#[test]
fn crashing_containers_back_off_and_missing_images_are_told() {
    run(|clock| async move {
        let world = World::start(clock).await;
        world.create::<Pod>(json!({"metadata": {"name": "c"}, "spec": {"containers": [{"name": "main", "image": "crash:1"}]}})).await;
        world.create::<Pod>(json!({"metadata": {"name": "m"}, "spec": {"containers": [{"name": "main", "image": "nothing:1"}]}})).await;
        clock.sleep(Duration::from_secs(40)).await;
        let pod = world.pod("c").await;
        let status = &pod["status"]["containerStatuses"][0];
        // Once at the start, at once again, after 10 and after 20 seconds more.
        assert_eq!(world.logs.lines(|source| source.pod == "c").len(), 4);
        assert_eq!(status["restartCount"], 3);
        assert_eq!(status["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
        let pod = world.pod("m").await;
        assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ImagePullBackOff");
        let events = world.events().await;
        assert!(events.iter().any(|event| event.contains("nothing: not found")), "{events:?}");
    });
}

#[test]
fn mounted_config_maps_follow_their_object() {
    run(|clock| async move {
        let world = World::start(clock).await;
        world.create::<Pod>(json!({"metadata": {"name": "f"}, "spec": {
            "volumes": [{"name": "config", "configMap": {"name": "app"}}],
            "containers": [{"name": "main", "image": "files:1", "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}]}]}})).await;
        clock.sleep(Duration::from_secs(30)).await;
        assert!(world.events().await.iter().any(|event| event.contains("configmap \"app\" not found")));
        world.create::<ConfigMap>(json!({"metadata": {"name": "app"}, "data": {"key": "one"}})).await;
        clock.sleep(Duration::from_secs(30)).await;
        let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "default");
        maps.patch("app", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "two"}})))
            .await
            .unwrap();
        clock.sleep(Duration::from_secs(180)).await;
        let lines: Vec<String> =
            world.logs.lines(|source| source.pod == "f").into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines.first().map(String::as_str), Some("one"));
        assert_eq!(lines.last().map(String::as_str), Some("two"));
    });
}

#[test]
fn services_balance_over_ready_pods_from_inside_and_outside() {
    run(|clock| async move {
        let world = World::start(clock).await;
        world.create::<Deployment>(json!({"metadata": {"name": "web"}, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "web:1", "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 2}}]}}}})).await;
        world
            .create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer",
            "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
            .await;
        clock.sleep(Duration::from_secs(12)).await;
        let inside = world.cluster.attach("default", "client");
        let get = |url: &str| Request::from(http::Request::get(url).body(Bytes::new()).unwrap());
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let before = clock.elapsed();
        for _ in 0..50 {
            let response = inside.send(get("http://web.default/")).await.unwrap();
            assert_eq!(response.latency(), Duration::from_micros(20_200));
            *seen.entry(String::from_utf8(response.body().to_vec()).unwrap()).or_default() += 1;
        }
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen.keys().all(|pod| pod.starts_with("web-")));
        assert_eq!(
            (clock.elapsed() - before).as_millis(),
            50 * 20,
            "each answer takes its time; less than the timer's millisecond is not slept for"
        );
        assert_eq!(
            inside.send(get("http://nowhere/")).await.unwrap_err(),
            DialError::NoSuchHost("nowhere".into())
        );
        let refused = inside.send(get("http://web.default:81/")).await.unwrap_err();
        assert!(matches!(refused, DialError::Refused(_)), "{refused}");

        let services: Api<Service> = Api::namespaced(world.client.clone(), "default");
        let service = services.get("web").await.unwrap();
        let ip = service.status.unwrap().load_balancer.unwrap().ingress.unwrap()[0].ip.clone().unwrap();
        world.wire.set_host("app.example.com", ip.parse().unwrap());
        let outside = world.wire.outside("users", None);
        assert_eq!(outside.send(get("http://app.example.com/")).await.unwrap().status(), StatusCode::OK);
        world.wire.cut("outside", "mesh01");
        let cut = clock
            .timeout(Duration::from_secs(60), outside.send(get("http://app.example.com/")))
            .await
            .unwrap();
        assert!(matches!(cut, Err(DialError::Unreachable(_))), "{cut:?}");
        world.wire.heal("outside", "mesh01");
        let address: SocketAddr = format!("{ip}:80").parse().unwrap();
        assert!(outside.dial(address, get("http://app.example.com/")).await.is_ok());

        let pod =
            world.pods().list(&ListParams::default().labels("app=web")).await.unwrap().items[0].name_any();
        assert!(world.cluster.crash("default", &pod, None, 1));
        clock.sleep(Duration::from_millis(10)).await;
        for _ in 0..20 {
            let answer = inside.send(get("http://web.default/")).await.unwrap();
            assert_ne!(answer.body(), pod.as_bytes(), "a crashed pod gets no traffic");
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = || {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        run(|clock| async move {
            let world = World::start(clock).await;
            world.create::<Deployment>(json!({"metadata": {"name": "web"}, "spec": {"replicas": 3,
                "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "main", "image": "web:1"}]}}}})).await;
            world.clock.sleep(Duration::from_secs(30)).await;
            let pods = world.pods().list(&ListParams::default()).await.unwrap();
            seen.lock().unwrap().push(serde_json::to_string(&pods.items).unwrap());
            let events = world.events().await;
            seen.lock().unwrap().extend(events);
        });
        Arc::try_unwrap(lines).unwrap().into_inner().unwrap()
    };
    assert_eq!(history(), history());
}
