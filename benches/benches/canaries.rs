//! Many canaries at once: `cargo bench -p benches --bench canaries`.
//!
//! One cluster with the mesh's control plane, Prometheus and Flagger, and some number of Deployments, each with a Canary
//! of its own. All of them get a new version in the same moment and are promoted. The table has wall time against
//! virtual time, and how often virtual time is faster: from that moment to the last promotion, which is mostly pods that
//! start and stop, and while all of them are in phase `Progressing`. Wall time per canary should not grow. The policy is
//! that of Flagger's tutorial for Istio (a minute, steps of 10 % to 50 %), and the same with half a minute. Options: `--canaries A,B,C` (100,300,1000), `--interval SECONDS` (60 and 30).
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark measures wall time, with no interface"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use allocator as _;
use clock::{Clock, Seed, run_simulated};
use crd::{Canary, Phase};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use program::{Informer, Selection, Tasks};
use serde_json::{Value, json};
use testbed::world::{ClusterSpec, MeshSpec, Role, Telemetry, World, WorldSpec};

const CLUSTER: &str = "kind";
/// Pods that a node takes; a canary in progress has two, and one more for a moment.
const PODS_PER_NODE: u32 = 110;
/// Seconds between the checks of a canary: Flagger's tutorial, and half of it.
const INTERVALS: [u32; 2] = [60, 30];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let (mut sizes, mut intervals) = (vec![100, 300, 1000], INTERVALS.to_vec());
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            // `cargo test --benches` asks whether it starts.
            "--test" => (sizes, intervals) = (vec![2], vec![60]),
            "--canaries" => sizes = numbers(args.next()),
            "--interval" => intervals = numbers(args.next()),
            other => panic!("unknown argument {other:?}: --canaries A,B,C and --interval SECONDS are known"),
        }
    }
    println!(
        "| interval | canaries | set-up, wall | release to promotion | wall | times faster | per canary | progressing | wall | times faster |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for interval in intervals {
        for size in &sizes {
            let Figures { setup, whole, progressing } = measure(*size, interval);
            println!(
                "| {interval} s | {size} | {:.2} s | {} | {:.2} ms | {} |",
                setup.as_secs_f64(),
                whole.columns(),
                whole.wall.as_secs_f64() * 1000.0 / f64::from(*size),
                progressing.columns(),
            );
        }
    }
}

fn numbers(list: Option<&str>) -> Vec<u32> {
    let list = list.expect("the option takes numbers").split(',');
    list.map(|number| number.parse().expect("the option takes numbers")).collect()
}

struct Figures {
    setup: Duration,
    /// From the release to the last promotion.
    whole: Span,
    /// While all canaries are in phase `Progressing`.
    progressing: Span,
}

struct Span {
    simulated: Duration,
    wall: Duration,
}

impl Span {
    fn columns(&self) -> String {
        let (simulated, wall) = (self.simulated.as_secs_f64(), self.wall.as_secs_f64());
        format!("{simulated:.0} s | {wall:.2} s | {:.0}", simulated / wall)
    }
}

#[derive(Clone, Copy)]
struct Moment {
    simulated: Duration,
    wall: Instant,
}

impl Moment {
    fn now(clock: Clock) -> Moment {
        Moment { simulated: clock.elapsed(), wall: Instant::now() }
    }

    fn until(self, later: Moment) -> Span {
        Span { simulated: later.simulated - self.simulated, wall: later.wall - self.wall }
    }
}

fn measure(canaries: u32, interval: u32) -> Figures {
    let epoch = "2026-03-17T11:00:00Z".parse().expect("a time");
    run_simulated(epoch, |clock| async move {
        let began = Instant::now();
        let nodes = (3 * canaries).div_ceil(PODS_PER_NODE) + 1;
        let mesh = MeshSpec {
            control_plane: CLUSTER.into(),
            data: vec![CLUSTER.into()],
            telemetry: Telemetry::Milliseconds,
            proxy: None,
        };
        let spec = WorldSpec {
            clusters: vec![ClusterSpec { name: CLUSTER.into(), nodes, role: Role::Data }],
            mesh: Some(mesh),
            loopback: None,
        };
        let world = World::start(&spec, clock, Seed::new(1)).await.expect("the specification is in order");
        let client = world.client(CLUSTER).expect("there is this cluster");
        set_up(&client).await;
        for number in 0..canaries {
            create(&client, deployment(number)).await;
            create(&client, canary(number, interval)).await;
        }
        let tasks = Tasks::default();
        let all =
            Informer::start(&tasks, clock, program::Api::all(client.clone()), Selection::default(), |_| {});
        watch(&all, clock, |in_phase| in_phase(Phase::Initialized) == canaries).await;
        let released = Moment::now(clock);
        let deployments = api(&client, "apps", "v1", "Deployment", "test");
        for number in 0..canaries {
            let patch = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
            let patch = Patch::Merge(patch);
            deployments.patch(&name(number), &PatchParams::default(), &patch).await.expect("it is there");
        }
        let (_, begun) = watch(&all, clock, |in_phase| in_phase(Phase::Progressing) == canaries).await;
        let (last, _) = watch(&all, clock, |in_phase| in_phase(Phase::Progressing) < canaries).await;
        let (_, promoted) = watch(&all, clock, |in_phase| in_phase(Phase::Succeeded) == canaries).await;
        Figures {
            setup: released.wall - began,
            whole: released.until(promoted),
            progressing: begun.until(last.unwrap_or(begun)),
        }
    })
}

/// Looks at the canaries every few seconds until `enough`, which is told how many are in a phase; returns the last
/// moment before, if it was not so from the beginning, and the moment.
async fn watch(
    all: &Informer<Canary>,
    clock: Clock,
    enough: impl Fn(&dyn Fn(Phase) -> u32) -> bool,
) -> (Option<Moment>, Moment) {
    let limit = clock.elapsed() + Duration::from_secs(3600);
    let mut before = None;
    loop {
        let now = Moment::now(clock);
        let all = all.list();
        let is_in = |one: &Canary, phase| one.status.as_ref().is_some_and(|status| status.phase == phase);
        if enough(&|phase| all.iter().filter(|one| is_in(one, phase)).count() as u32) {
            return (before, now);
        }
        assert!(now.simulated < limit, "after an hour the canaries have not come to the next phase");
        before = Some(now);
        clock.sleep(Duration::from_secs(5)).await;
    }
}

/// Flagger and Prometheus, which scrapes itself only: sidecars would be measured with it.
async fn set_up(client: &Client) {
    for namespace in ["test", "istio-system"] {
        create(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
            .await;
    }
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/flagger/base/flagger.yaml");
    let flagger = std::fs::read_to_string(manifests).expect("the manifest is there");
    let definitions = crd::manifests::FLAGGER;
    for text in definitions.split("\n---").chain(flagger.split("\n---")) {
        let object: Value = serde_saphyr::from_str(text).expect("manifests are YAML");
        create(client, object).await;
    }
    let config = "scrape_configs: [{job_name: itself, static_configs: [{targets: ['localhost:9090']}]}]";
    create(
        client,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prometheus", "namespace": "istio-system"},
            "data": {"prometheus.yml": config}}),
    )
    .await;
    create(
        client,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "prometheus", "namespace": "istio-system"},
            "spec": {"selector": {"app": "prometheus"}, "ports": [{"port": 9090}]}}),
    )
    .await;
    let container = json!({"name": "prometheus", "image": "prom/prometheus:v2.53.0",
        "args": ["--config.file=/etc/prometheus/prometheus.yml"], "ports": [{"containerPort": 9090}],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/prometheus"}]});
    create(
        client,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "prometheus", "namespace": "istio-system"},
            "spec": {"selector": {"matchLabels": {"app": "prometheus"}}, "template": {
                "metadata": {"labels": {"app": "prometheus"}},
                "spec": {"containers": [container],
                    "volumes": [{"name": "config", "configMap": {"name": "prometheus"}}]}}}}),
    )
    .await;
}

fn name(number: u32) -> String {
    format!("app-{number:04}")
}

fn deployment(number: u32) -> Value {
    let name = name(number);
    let container = json!({"name": "podinfod", "image": "ghcr.io/stefanprodan/podinfo:6.0.0",
        "command": ["./podinfo", "--port=9898"], "ports": [{"name": "http", "containerPort": 9898}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9898}}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "test", "labels": {"app": name}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}}})
}

/// Five steps, each with a query.
fn canary(number: u32, interval: u32) -> Value {
    let name = name(number);
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": name, "namespace": "test"},
    "spec": {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "service": {"port": 9898},
        "analysis": {"interval": format!("{interval}s"), "threshold": 5, "maxWeight": 50, "stepWeight": 10,
            "metrics": [{"name": "share", "query": "vector(99.5)", "thresholdRange": {"min": 99}}]},
    }})
}

fn api(client: &Client, group: &str, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match kind {
        "Namespace" | "ClusterRoleBinding" | "CustomResourceDefinition" => {
            Api::all_with(client.clone(), &resource)
        }
        _ => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

async fn create(client: &Client, object: Value) {
    let version = object["apiVersion"].as_str().expect("an apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = object["kind"].as_str().expect("a kind");
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let api = api(client, group, version, kind, namespace);
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("the server takes it");
}
