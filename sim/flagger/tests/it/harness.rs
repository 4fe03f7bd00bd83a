//! The controller as a program in a pod, against API servers, a Prometheus, a load tester and other servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::{ApiServer, Options};
use clock::{Clock, Seed};
use crd::{Canary, Phase, VirtualService};
use http::StatusCode;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use program::{
    Apis, ConnectError, Context, CpuMeter, DialError, Endings, ExecTable, ExitCode, Files, Handler, Identity,
    ListenError, Listening, LogSink, LogSource, Logs, Network, Proxy, Reply, Request, Response, Tasks,
    Termination, respond, respond_json,
};
use serde_json::{Value, json};

/// The canary's cluster and the mesh's.
struct Servers([ApiServer; 2]);

impl Servers {
    pub fn client(&self, index: usize) -> Client {
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

/// A Prometheus, a load tester and others; requests are written down.
pub struct World {
    clock: Clock,
    endings: Endings,
    /// `HOST BODY` of each.
    pub requests: Mutex<Vec<String>>,
    /// `METHOD URL` of each, and the headers that sign it.
    pub details: Mutex<Vec<String>>,
    /// A part of queries that find no values.
    pub blind: Mutex<Option<&'static str>>,
    /// What hosts answer: status and body.
    pub answers: Mutex<BTreeMap<String, (u16, String)>>,
    pub served: Mutex<Option<Arc<dyn Handler>>>,
}

impl World {
    fn new(clock: Clock) -> Self {
        World {
            clock,
            endings: Endings::default(),
            requests: Mutex::default(),
            details: Mutex::default(),
            blind: Mutex::default(),
            answers: Mutex::default(),
            served: Mutex::default(),
        }
    }

    /// Sets what a host answers from now on.
    pub fn answers(&self, host: &str, status: u16, body: impl Into<String>) {
        self.answers.lock().unwrap().insert(host.to_owned(), (status, body.into()));
    }

    fn answer(&self, request: &Request) -> Response {
        let (uri, body) = (request.uri(), String::from_utf8_lossy(request.body()).into_owned());
        let host = uri.host().unwrap();
        self.requests.lock().unwrap().push(format!("{host} {body}"));
        let signs = ["authorization", "dd-api-key", "dd-application-key", "x-query-key"];
        let signs = signs.iter().filter_map(|name| request.headers().get(*name)?.to_str().ok());
        let signs: String = signs.map(|value| format!(" {value}")).collect();
        self.details.lock().unwrap().push(format!("{} {uri}{signs}", request.method()));
        if let Some((status, body)) = self.answers.lock().unwrap().get(host) {
            return respond(StatusCode::from_u16(*status).unwrap(), body.clone());
        }
        if host == "loadtester.test" {
            return respond(StatusCode::ACCEPTED, "");
        }
        let query = uri.query().unwrap_or_default();
        let blind = self.blind.lock().unwrap().is_some_and(|part| query.contains(part));
        let value = if query.contains("duration_milliseconds") || query.contains("duration_seconds_bucket") {
            "0.1"
        } else if query.contains("vector") {
            "1"
        } else {
            "100"
        };
        let result = if blind { json!([]) } else { json!([{"metric": {}, "value": [0, value]}]) };
        let answer = json!({"status": "success", "data": {"resultType": "vector", "result": result}});
        respond_json(StatusCode::OK, answer.to_string())
    }
}

impl Network for World {
    fn local_ip(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
    fn resolve(&self, host: &str) -> Result<IpAddr, DialError> {
        Err(DialError::NoSuchHost(host.to_owned()))
    }
    fn exchange(&self, request: Request) -> Reply {
        self.answer(&request).into()
    }
    fn dial(&self, to: SocketAddr, _: Request) -> Reply {
        DialError::Refused(to.to_string()).into()
    }
    fn clock(&self) -> Clock {
        self.clock
    }
    fn endings(&self) -> &Endings {
        &self.endings
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

pub struct Run {
    pub clock: Clock,
    pub client: Client,
    pub mesh: Client,
    pub world: Arc<World>,
    pub logs: Arc<Logs>,
    pub tasks: Tasks,
    pub termination: Termination,
    pub ended: Arc<Mutex<Option<ExitCode>>>,
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

/// Reports every Deployment and DaemonSet as rolled out, a second after the last look.
async fn roll_out(clock: Clock, client: Client) {
    let daemons: Api<DaemonSet> = Api::namespaced(client.clone(), "test");
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
        for daemons_of in daemons.list(&Default::default()).await.unwrap() {
            let pod = daemons_of.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).unwrap();
            // Three nodes, none of which has the label of a DaemonSet that is scaled to zero.
            let nodes = if pod.node_selector.is_some() { 0 } else { 3 };
            let status = json!({"status": {
                "observedGeneration": daemons_of.metadata.generation, "desiredNumberScheduled": nodes,
                "currentNumberScheduled": nodes, "updatedNumberScheduled": nodes, "numberAvailable": nodes,
                "numberReady": nodes, "numberMisscheduled": 0,
            }});
            let name = daemons_of.name_any();
            daemons.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        }
    }
}

/// A Canary of podinfo, with some fields of its spec replaced.
pub fn canary(fields: Value) -> Value {
    let mut canary = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {"port": 9898, "gateways": ["public-gateway.istio-system"]},
            "analysis": {"interval": "10s", "threshold": 2, "maxWeight": 40, "stepWeight": 20,
                "metrics": [{"name": "request-success-rate", "threshold": 99, "interval": "30s"},
                            {"name": "request-duration", "threshold": 500, "interval": "30s"}],
                "webhooks": [{"name": "load-test", "url": "http://loadtester.test/", "timeout": "5s",
                              "metadata": {"cmd": "hey"}}]}}});
    for (name, value) in fields.as_object().unwrap() {
        canary["spec"][name] = value.clone();
    }
    canary
}

impl Run {
    pub async fn start(clock: Clock, tag: &str, more: &[&str]) -> Run {
        let server = |name: &str| {
            let seed = Seed::new(1).child(name);
            ApiServer::new(Options { name: name.into(), clock, seed, service_cidr: [10, 96] })
        };
        let servers = Arc::new(Servers([server("mesh02"), server("asm")]));
        let (client, mesh) = (servers.client(0), servers.client(1));
        let definitions = async |client: &Client, texts: &[&str]| {
            for text in texts.iter().flat_map(|text| text.split("\n---\n")) {
                create(client, serde_saphyr::from_str(text).unwrap()).await;
            }
        };
        // The mesh's cluster must not know Canaries: its garbage collector would miss the older release's owners.
        definitions(&client, &[crd::manifests::FLAGGER, crd::manifests::KEDA]).await;
        definitions(&mesh, &[crd::manifests::ISTIO, crd::manifests::GATEWAY_API]).await;
        for client in [&client, &mesh] {
            create(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}}))
                .await;
        }

        let (world, logs) = (Arc::new(World::new(clock)), Arc::new(Logs::default()));
        let (tasks, termination) = (Tasks::default(), Termination::default());
        let files = Files::default();
        files.write("/tmp/istio-host/kubeconfig", KUBECONFIG.as_bytes().to_vec());
        let source = LogSource {
            cluster: "mesh02".into(),
            namespace: "istio-system".into(),
            pod: "flagger-0".into(),
            workload: "flagger".into(),
            container: "flagger".into(),
            run: 0,
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
            args: args.iter().chain(more).map(|arg| (*arg).to_owned()).collect(),
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

    /// Creates an object in the Canary's cluster.
    pub async fn create(&self, object: Value) {
        create(&self.client, object).await;
    }

    /// A ConfigMap, a Deployment that uses it, and a Canary of both.
    pub async fn apply(&self) {
        self.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "test"},
                   "data": {"color": "red"}}))
            .await;
        self.create(json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "podinfo", "namespace": "test"},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "podinfo"}}, "template": {
                    "metadata": {"labels": {"app": "podinfo"}},
                    "spec": {"containers": [{"name": "podinfod", "image": "podinfo:3.1.0",
                        "envFrom": [{"configMapRef": {"name": "settings"}}]}]}}}}))
            .await;
        self.create(canary(json!({}))).await;
    }

    pub async fn release(&self, image: &str) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), "test");
        let patch =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "image": image}]}}}});
        api.patch("podinfo", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    pub async fn canary(&self) -> Canary {
        Api::<Canary>::namespaced(self.client.clone(), "test").get("podinfo").await.unwrap()
    }

    pub async fn until(&self, phase: Phase) {
        for _ in 0..300 {
            if self.canary().await.status.is_some_and(|status| status.phase == phase) {
                return;
            }
            self.clock.sleep(Duration::from_secs(1)).await;
        }
        panic!("never {phase}:\n{}", self.messages().join("\n"));
    }

    /// The messages so far, without klog's lines.
    pub fn messages(&self) -> Vec<String> {
        let lines = self.logs.lines(|_| true).into_iter().filter(|(_, line)| line.starts_with('{'));
        let message = |line: String| {
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            line["msg"].as_str().unwrap().to_owned()
        };
        lines.map(|(_, line)| message(line)).collect()
    }

    /// The messages since the last new revision.
    pub fn last_run(&self) -> Vec<String> {
        let messages = self.messages();
        let start = messages.iter().rposition(|message| message.starts_with("New revision")).unwrap();
        messages[start..].to_vec()
    }

    pub async fn weights(&self) -> Vec<(String, i32)> {
        let api: Api<VirtualService> = Api::namespaced(self.mesh.clone(), "test");
        let object = api.get("podinfo").await.unwrap();
        let rule = &object.spec.http[0];
        rule.route.iter().map(|to| (to.destination.host.clone(), to.weight)).collect()
    }

    pub async fn image(&self, name: &str) -> (String, Option<i32>) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), "test");
        let spec = api.get(name).await.unwrap().spec.unwrap();
        (spec.template.spec.unwrap().containers[0].image.clone().unwrap(), spec.replicas)
    }
}
