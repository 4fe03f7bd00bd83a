//! A release from the first tick to the last, against API servers, as a program in a pod would do it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::{ApiServer, Options};
use clock::{Clock, Seed};
use crd::{Canary, Phase, VirtualService};
use futures::future::BoxFuture;
use http::StatusCode;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use program::{
    Apis, ConnectError, Context, CpuMeter, DialError, ExecTable, ExitCode, Files, Handler, Identity,
    ListenError, Listening, LogSink, LogSource, Logs, Network, Proxy, Request, Response, Tasks, Termination,
    respond, respond_json,
};
use serde_json::{Value, json};

/// The canary's cluster and the mesh's.
struct Servers([ApiServer; 2]);

impl Servers {
    fn client(&self, index: usize) -> Client {
        Client::new(self.0[index].client_service("flagger"), "default")
    }
}

impl Apis for Servers {
    fn in_cluster(&self) -> Client {
        self.client(0)
    }

    fn connect(&self, server: &str, _token: Option<&str>) -> Result<Client, ConnectError> {
        match server {
            "https://asm.test:6443" => Ok(self.client(1)),
            other => Err(ConnectError(format!("no such host {other}"))),
        }
    }
}

/// A Prometheus and a load tester; requests are written down.
#[derive(Default)]
struct World {
    requests: Mutex<Vec<String>>,
    /// A part of queries that find no values.
    blind: Mutex<Option<&'static str>>,
    served: Mutex<Option<Arc<dyn Handler>>>,
}

impl World {
    fn answer(&self, request: &Request) -> Response {
        let (uri, body) = (request.uri(), String::from_utf8_lossy(request.body()).into_owned());
        self.requests.lock().unwrap().push(format!("{} {body}", uri.host().unwrap()));
        if uri.host() == Some("loadtester.test") {
            return respond(StatusCode::ACCEPTED, "");
        }
        let query = uri.query().unwrap_or_default();
        let blind = self.blind.lock().unwrap().is_some_and(|part| query.contains(part));
        let value = if query.contains("duration") {
            "0.1"
        } else if query.contains("vector") {
            "1"
        } else {
            "100"
        };
        let result = if blind { json!([]) } else { json!([{"metric": {}, "value": [0, value]}]) };
        let answer = json!({"status": "success", "data": {"resultType": "vector", "result": result}});
        respond_json(StatusCode::OK, &answer)
    }
}

impl Network for World {
    fn local_ip(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
    fn resolve(&self, host: &str) -> Result<IpAddr, DialError> {
        Err(DialError::NoSuchHost(host.to_owned()))
    }
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, DialError>> {
        Box::pin(async move { Ok(self.answer(&request)) })
    }
    fn dial(&self, to: SocketAddr, _: Request) -> BoxFuture<'_, Result<Response, DialError>> {
        Box::pin(async move { Err(DialError::Refused(to.to_string())) })
    }
    fn listen(&self, port: u16, handler: Arc<dyn Handler>) -> Result<Listening, ListenError> {
        *self.served.lock().unwrap() = Some(handler);
        Ok(Listening::new(port, Box::new(())))
    }
    fn capture(&self, _: Arc<dyn Proxy>) {}
}

const KUBECONFIG: &str = "
clusters: [{name: asm, cluster: {server: 'https://asm.test:6443'}}]
users: [{name: admin, user: {token: t}}]
contexts: [{name: asm, context: {cluster: asm, user: admin}}]
current-context: asm
";

struct Run {
    clock: Clock,
    client: Client,
    mesh: Client,
    world: Arc<World>,
    logs: Arc<Logs>,
    tasks: Tasks,
    termination: Termination,
    ended: Arc<Mutex<Option<ExitCode>>>,
}

fn definition(kind: &str) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.networking.istio.io")},
        "spec": {"group": "networking.istio.io", "scope": "Namespaced",
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                      "singular": kind.to_lowercase()},
            "versions": [version("v1alpha3", true), version("v1beta1", false)]},
    })
}

async fn create(client: &Client, object: Value) {
    let version = object["apiVersion"].as_str().unwrap();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = object["kind"].as_str().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// Reports every Deployment as rolled out, a second after the last look.
async fn roll_out(clock: Clock, client: Client) {
    let api: Api<Deployment> = Api::namespaced(client, "test");
    loop {
        clock.sleep(Duration::from_secs(1)).await;
        for deployment in api.list(&Default::default()).await.unwrap() {
            let replicas = deployment.spec.as_ref().unwrap().replicas.unwrap_or(1);
            let status = json!({"status": {
                "observedGeneration": deployment.metadata.generation, "replicas": replicas,
                "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas,
            }});
            let name = deployment.name_any();
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        }
    }
}

impl Run {
    async fn start(clock: Clock, tag: &str) -> Run {
        let server = |name: &str| {
            let seed = Seed::new(1).child(name);
            ApiServer::new(Options { name: name.into(), clock, seed, service_cidr: [10, 96] })
        };
        let servers = Arc::new(Servers([server("mesh02"), server("asm")]));
        let (client, mesh) = (servers.client(0), servers.client(1));
        for text in crd::manifests::FLAGGER.split("\n---\n") {
            create(&client, serde_saphyr::from_str(text).unwrap()).await;
        }
        for client in [&client, &mesh] {
            create(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}}))
                .await;
        }
        create(&mesh, definition("VirtualService")).await;
        create(&mesh, definition("DestinationRule")).await;

        let (world, logs) = (Arc::new(World::default()), Arc::new(Logs::default()));
        let (tasks, termination) = (Tasks::default(), Termination::default());
        let files = Files::default();
        files.write("/tmp/istio-host/kubeconfig", KUBECONFIG.as_bytes().to_vec());
        let source = LogSource {
            cluster: "mesh02".into(),
            namespace: "istio-system".into(),
            pod: "flagger-0".into(),
            workload: "flagger".into(),
            container: "flagger".into(),
        };
        let args = [
            "-log-level=info",
            "-mesh-provider=istio",
            "-metrics-server=http://prometheus:9090",
            "-kubeconfig-service-mesh=/tmp/istio-host/kubeconfig",
        ];
        let context = Context {
            identity: Arc::new(Identity {
                cluster: "mesh02".into(),
                namespace: "istio-system".into(),
                pod: "flagger-0".into(),
                uid: "u".into(),
                pod_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                node: "n".into(),
                labels: Default::default(),
                annotations: Default::default(),
                service_account: "flagger".into(),
                workload: "flagger".into(),
                container: "flagger".into(),
                image: format!("weaveworks/flagger:{tag}"),
                ports: Vec::new(),
                restart_count: 0,
            }),
            args: args.map(str::to_owned).to_vec().into(),
            env: Default::default(),
            files,
            apis: servers.clone(),
            network: world.clone(),
            clock,
            seed: Seed::new(1),
            log: LogSink::new(logs.clone(), source, clock),
            cpu: CpuMeter::default(),
            tasks: tasks.clone(),
            termination: termination.clone(),
            exec: ExecTable::default(),
        };
        let ended: Arc<Mutex<Option<ExitCode>>> = Arc::default();
        let end = Arc::clone(&ended);
        tasks.spawn(async move {
            let code = (flagger::program())(context).await;
            *end.lock().unwrap() = Some(code);
        });
        tasks.spawn(roll_out(clock, client.clone()));
        Run { clock, client, mesh, world, logs, tasks, termination, ended }
    }

    async fn apply(&self) {
        create(
            &self.client,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "test"},
                   "data": {"color": "red"}}),
        )
        .await;
        create(
            &self.client,
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "podinfo", "namespace": "test"},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "podinfo"}}, "template": {
                    "metadata": {"labels": {"app": "podinfo"}},
                    "spec": {"containers": [{"name": "podinfod", "image": "podinfo:3.1.0",
                        "envFrom": [{"configMapRef": {"name": "settings"}}]}]}}}}),
        )
        .await;
        create(
            &self.client,
            json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
                "metadata": {"name": "podinfo", "namespace": "test"},
                "spec": {
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                    "service": {"port": 9898, "gateways": ["public-gateway.istio-system"]},
                    "analysis": {"interval": "10s", "threshold": 2, "maxWeight": 40, "stepWeight": 20,
                        "metrics": [{"name": "request-success-rate", "threshold": 99, "interval": "30s"},
                                    {"name": "request-duration", "threshold": 500, "interval": "30s"}],
                        "webhooks": [{"name": "load-test", "url": "http://loadtester.test/", "timeout": "5s",
                                      "metadata": {"cmd": "hey"}}]}}}),
        )
        .await;
    }

    async fn release(&self, image: &str) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), "test");
        let patch =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "image": image}]}}}});
        api.patch("podinfo", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    async fn canary(&self) -> Canary {
        Api::<Canary>::namespaced(self.client.clone(), "test").get("podinfo").await.unwrap()
    }

    async fn until(&self, phase: Phase) {
        for _ in 0..300 {
            if self.canary().await.status.is_some_and(|status| status.phase == phase) {
                return;
            }
            self.clock.sleep(Duration::from_secs(1)).await;
        }
        panic!("never {phase}:\n{}", self.messages().join("\n"));
    }

    /// The messages so far, without klog's lines.
    fn messages(&self) -> Vec<String> {
        let lines = self.logs.lines(|_| true).into_iter().filter(|(_, line)| line.starts_with('{'));
        let message = |line: String| {
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            line["msg"].as_str().unwrap().to_owned()
        };
        lines.map(|(_, line)| message(line)).collect()
    }

    /// The messages since the last new revision.
    fn last_run(&self) -> Vec<String> {
        let messages = self.messages();
        let start = messages.iter().rposition(|message| message.starts_with("New revision")).unwrap();
        messages[start..].to_vec()
    }

    async fn weights(&self) -> Vec<(String, i32)> {
        let api: Api<VirtualService> = Api::namespaced(self.mesh.clone(), "test");
        let object = api.get("podinfo").await.unwrap();
        let rule = &object.spec.http[0];
        rule.route.iter().map(|to| (to.destination.host.clone(), to.weight)).collect()
    }

    async fn image(&self, name: &str) -> (String, Option<i32>) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), "test");
        let spec = api.get(name).await.unwrap().spec.unwrap();
        (spec.template.spec.unwrap().containers[0].image.clone().unwrap(), spec.replicas)
    }
}

#[test]
fn a_release_is_promoted_and_the_next_rolled_back() {
    clock::run_simulated("2020-03-17T11:00:00Z".parse().unwrap(), |clock| async move {
        let run = Run::start(clock, "1.0.0-rc.1").await;
        run.apply().await;
        run.until(Phase::Initialized).await;
        let started = [
            "Starting flagger version 1.0.0-rc.1 revision e59acc7bae6b2d1c9a3e97abb2dcadc9f0985c2d mesh provider istio",
            "Connected to Kubernetes API",
            "Waiting for canary informer cache to sync",
            "Waiting for metric template informer cache to sync",
            "Waiting for alert provider informer cache to sync",
            "Connected to metrics server http://prometheus:9090",
            "Starting HTTP server on port 8080",
            "Starting operator",
            "Started operator workers",
            "Synced test/podinfo",
            "Service podinfo-canary.test created",
            "Service podinfo-primary.test created",
            "ConfigMap settings-primary synced",
            "Deployment podinfo-primary.test created",
            "Halt advancement podinfo-primary.test waiting for rollout to finish: \
             observed deployment generation less then desired generation",
            "Scaling down podinfo.test",
            "Service podinfo.test created",
            "DestinationRule podinfo-canary.test created",
            "DestinationRule podinfo-primary.test created",
            "VirtualService podinfo.test created",
            "Initialization done! podinfo.test",
        ];
        let mut messages = run.messages();
        messages[1].truncate("Connected to Kubernetes API".len());
        assert_eq!(messages, started);
        assert_eq!(run.image("podinfo").await, ("podinfo:3.1.0".into(), Some(0)));
        assert_eq!(run.image("podinfo-primary").await, ("podinfo:3.1.0".into(), Some(2)));
        assert_eq!(run.weights().await, [("podinfo-primary".into(), 100), ("podinfo-canary".into(), 0)]);

        run.release("podinfo:3.1.1").await;
        run.until(Phase::Succeeded).await;
        let promoted = [
            "New revision detected! Scaling up podinfo.test",
            "Starting canary analysis for podinfo.test",
            "Advance podinfo.test canary weight 20",
            "Advance podinfo.test canary weight 40",
            "Copying podinfo.test template spec to podinfo-primary.test",
            "ConfigMap settings-primary synced",
            "Routing all traffic to primary",
            "Promotion completed! Scaling down podinfo.test",
        ];
        assert_eq!(run.last_run(), promoted);
        assert_eq!(run.image("podinfo").await, ("podinfo:3.1.1".into(), Some(0)));
        assert_eq!(run.image("podinfo-primary").await.0, "podinfo:3.1.1");
        let status = run.canary().await.status.unwrap();
        assert_eq!(status.last_applied_spec, status.last_promoted_spec);
        assert_eq!(status.conditions[0].reason, "Succeeded");
        assert!(status.tracked_configs.unwrap().contains_key("configmap/settings"));
        let asked = run.world.requests.lock().unwrap().clone();
        let payload = r#"loadtester.test {"name":"podinfo","namespace":"test","phase":"Progressing","metadata":{"cmd":"hey"}}"#;
        assert!(asked.iter().any(|asked| asked == payload), "{asked:#?}");

        *run.world.blind.lock().unwrap() = Some("duration");
        run.release("podinfo:3.1.2").await;
        run.until(Phase::Failed).await;
        let halt = "Halt advancement no values found for istio metric request-duration probably podinfo.test is not \
                    receiving traffic";
        let failed = [
            "New revision detected! Scaling up podinfo.test",
            "Starting canary analysis for podinfo.test",
            "Advance podinfo.test canary weight 20",
            halt,
            halt,
            "Rolling back podinfo.test failed checks threshold reached 2",
            "Canary failed! Scaling down podinfo.test",
        ];
        assert_eq!(run.last_run(), failed);
        assert_eq!(run.weights().await, [("podinfo-primary".into(), 100), ("podinfo-canary".into(), 0)]);
        assert_eq!(run.image("podinfo").await.1, Some(0));

        let events =
            Api::<Event>::namespaced(run.client.clone(), "test").list(&Default::default()).await.unwrap();
        let counted = events.iter().find(|event| event.message.as_deref() == Some(halt)).unwrap();
        assert_eq!((counted.type_.as_deref(), counted.count), (Some("Warning"), Some(2)));

        let handler = run.world.served.lock().unwrap().clone().unwrap();
        let request = http::Request::get("http://flagger:8080/metrics").body(Default::default()).unwrap();
        let metrics = handler.handle(request).await.unwrap();
        let metrics = String::from_utf8(metrics.body().to_vec()).unwrap();
        assert!(
            metrics.contains("flagger_canary_status{name=\"podinfo\",namespace=\"test\"} 2"),
            "{metrics}"
        );

        run.termination.request();
        clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(*run.ended.lock().unwrap(), Some(ExitCode::SUCCESS));
        run.tasks.abort_all();
    });
}

#[test]
fn the_newer_release_reverts_a_deleted_canary() {
    clock::run_simulated("2026-03-17T11:00:00Z".parse().unwrap(), |clock| async move {
        let run = Run::start(clock, "1.44.0").await;
        run.apply().await;
        let api: Api<Canary> = Api::namespaced(run.client.clone(), "test");
        let patch = json!({"spec": {"revertOnDeletion": true}});
        api.patch("podinfo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        run.until(Phase::Initialized).await;
        run.release("podinfo:3.1.1").await;
        run.until(Phase::Succeeded).await;
        let promoted = [
            "New revision detected! Scaling up podinfo.test",
            "Starting canary analysis for podinfo.test",
            "Advance podinfo.test canary weight 20",
            "Advance podinfo.test canary weight 40",
            "Copying podinfo.test template spec to podinfo-primary.test",
            "ConfigMap settings-primary synced",
            "Routing all traffic to primary",
            "Promotion completed! Scaling down podinfo.test",
        ];
        let spoken: Vec<String> =
            run.last_run().into_iter().filter(|message| !message.contains("uses HTTP service")).collect();
        assert_eq!(spoken, promoted);
        assert_eq!(run.canary().await.metadata.finalizers.unwrap(), ["finalizer.flagger.app"]);
        // The mesh lives in another cluster: ownership would mean nothing there.
        let mesh: Api<VirtualService> = Api::namespaced(run.mesh.clone(), "test");
        assert_eq!(mesh.get("podinfo").await.unwrap().metadata.owner_references, None);

        api.delete("podinfo", &Default::default()).await.unwrap();
        clock.sleep(Duration::from_secs(30)).await;
        assert!(api.get_opt("podinfo").await.unwrap().is_none(), "{:#?}", run.messages());
        assert_eq!(run.image("podinfo").await, ("podinfo:3.1.1".into(), Some(2)));
        let messages = run.messages();
        assert!(messages.iter().any(|message| message == "Terminated canary podinfo.test"), "{messages:#?}");
        run.tasks.abort_all();
    });
}
