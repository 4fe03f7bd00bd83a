//! The application controller against API servers and a git repository, as a program in a pod would run it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, Options};
use bytes::Bytes;
use clock::{Clock, Seed};
use crd::Application;
use gitops::git::{Change, CommitInfo, Remotes, Repository};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use program::{
    Apis, ConnectError, Context, CpuMeter, DialError, Endings, ExecTable, Files, Handler, Identity,
    ListenError, Listening, LogSink, LogSource, Logs, Network, Proxy, Reply, Request, Tasks, Termination,
};
use serde_json::{Value, json};

const REPOSITORY: &str = "https://git.example.com/samples.git";

struct Servers(Vec<ApiServer>);

impl Servers {
    fn client(&self, name: &str) -> Client {
        let server = self.0.iter().find(|server| server.name() == name).unwrap();
        Client::new(server.client_service("argocd"), "default")
    }
}

impl Apis for Servers {
    fn in_cluster(&self) -> Client {
        self.client("mesh01")
    }

    fn connect(&self, server: &str, _token: Option<&str>) -> Result<Client, ConnectError> {
        let name = server.trim_start_matches("https://").split('.').next().unwrap_or_default();
        let known = self.0.iter().any(|server| server.name() == name);
        if known {
            Ok(self.client(name))
        } else {
            Err(ConnectError(format!("dial tcp: lookup {server}: no such host")))
        }
    }
}

struct NoNetwork {
    clock: Clock,
    endings: Endings,
}

impl Network for NoNetwork {
    fn local_ip(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
    fn resolve(&self, host: &str) -> Result<IpAddr, DialError> {
        Err(DialError::NoSuchHost(host.to_owned()))
    }
    fn exchange(&self, request: Request) -> Reply {
        DialError::NoSuchHost(request.uri().to_string()).into()
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
    fn listen(&self, port: u16, _: Arc<dyn Handler>) -> Result<Listening, ListenError> {
        Ok(Listening::new(port, Box::new(())))
    }
    fn capture(&self, _: Arc<dyn Proxy>) {}
}

struct Fixture {
    servers: Arc<Servers>,
    repository: Repository,
    logs: Arc<Logs>,
    tasks: Tasks,
    folder: std::path::PathBuf,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.tasks.abort_all();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn deployment(image: &str) -> String {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                         "spec": {"containers": [{"name": "main", "image": image}]}}}})
    .to_string()
}

fn commit(clock: Clock, message: &str) -> CommitInfo {
    CommitInfo { author: "Dev <dev@example.com>".into(), at: clock.now(), message: message.into() }
}

impl Fixture {
    async fn start(clock: Clock, name: &str, sync_policy: Value) -> Fixture {
        let server = |name: &str| {
            let seed = Seed::new(1).child(name);
            ApiServer::new(Options { name: name.into(), clock, seed, service_cidr: [10, 96] })
        };
        let servers = Arc::new(Servers(vec![server("mesh01"), server("mesh02")]));
        let folder = std::env::temp_dir().join(format!("coalmine-argocd-{name}-{}", std::process::id()));
        let files: BTreeMap<String, Bytes> = [
            (
                "app/kustomization.yaml".to_owned(),
                Bytes::from("namespace: test\nresources: [web.yaml, map.yaml]\n"),
            ),
            ("app/web.yaml".to_owned(), Bytes::from(deployment("podinfo:1"))),
            (
                "app/map.yaml".to_owned(),
                Bytes::from("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '1'}\n"),
            ),
        ]
        .into();
        let repository = Repository::create(&folder, "latest", &files, &commit(clock, "start")).unwrap();
        let remotes = Remotes::default();
        remotes.insert(REPOSITORY, repository.clone());

        let mesh01 = servers.client("mesh01");
        for text in crd::manifests::ARGOCD.split("\n---\n") {
            let object: Value = serde_saphyr::from_str(text).unwrap();
            let crd = ApiResource::from_gvk(&GroupVersionKind::gvk(
                "apiextensions.k8s.io",
                "v1",
                "CustomResourceDefinition",
            ));
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            Api::<DynamicObject>::all_with(mesh01.clone(), &crd)
                .create(&PostParams::default(), &object)
                .await
                .unwrap();
        }
        let make = async |client: &Client, object: Value| {
            let gvk = |object: &Value| {
                let (group, version) =
                    object["apiVersion"].as_str().unwrap().split_once('/').unwrap_or(("", "v1"));
                GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap())
            };
            let resource = ApiResource::from_gvk(&gvk(&object));
            let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        };
        make(&mesh01, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}})).await;
        make(
            &servers.client("mesh02"),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}}),
        )
        .await;
        make(
            &mesh01,
            json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject",
            "metadata": {"name": "default", "namespace": "argocd"},
            "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}],
                     "clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}}),
        )
        .await;
        make(&mesh01, json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "mesh02", "namespace": "argocd", "labels": {"argocd.argoproj.io/secret-type": "cluster"}},
            "stringData": {"name": "mesh02", "server": "https://mesh02.example.test:6443", "config": "{}"}})).await;
        make(&mesh01, json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": "web", "namespace": "argocd"},
            "spec": {"project": "default", "source": {"repoURL": REPOSITORY, "path": "app", "targetRevision": "latest"},
                     "destination": {"server": "https://mesh02.example.test:6443", "namespace": "test"},
                     "syncPolicy": sync_policy}})).await;

        let logs = Arc::new(Logs::default());
        let source = LogSource {
            cluster: "mesh01".into(),
            namespace: "argocd".into(),
            pod: "argocd-0".into(),
            workload: "argocd".into(),
            container: "argocd-application-controller".into(),
            run: 0,
        };
        let tasks = Tasks::default();
        let context = Context {
            identity: Arc::new(Identity {
                cluster: "mesh01".into(),
                namespace: "argocd".into(),
                pod: "argocd-0".into(),
                uid: "1".into(),
                pod_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                node: "node".into(),
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                service_account: "default".into(),
                workload: "argocd".into(),
                container: "argocd-application-controller".into(),
                image: "argoproj/argocd:v1.4.2".into(),
                ports: Vec::new(),
                restart_count: 0,
            }),
            args: Arc::from(Vec::new()),
            env: Arc::default(),
            files: Files::default(),
            apis: servers.clone(),
            network: Arc::new(NoNetwork { clock, endings: Endings::default() }),
            clock,
            seed: Seed::new(1),
            log: LogSink::new(logs.clone(), source, clock),
            cpu: CpuMeter::default(),
            tasks: tasks.clone(),
            termination: Termination::default(),
            exec: ExecTable::default(),
        };
        let main = gitops::program(remotes);
        tasks.spawn(async move {
            main(context).await;
        });
        Fixture { servers, repository, logs, tasks, folder }
    }

    fn applications(&self) -> Api<Application> {
        Api::namespaced(self.servers.client("mesh01"), "argocd")
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.servers.client("mesh02"), "test")
    }

    async fn image(&self) -> Option<String> {
        let found = self.deployments().get_opt("web").await.unwrap()?;
        found.spec?.template.spec?.containers.first()?.image.clone()
    }

    async fn sync_status(&self) -> (String, String, String) {
        let application = self.applications().get("web").await.unwrap();
        let status = serde_json::to_value(application.status).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&status["sync"]["status"]),
            text(&status["health"]["status"]),
            text(&status["sync"]["revision"]),
        )
    }

    fn printed(&self) -> String {
        self.logs.lines(|_| true).into_iter().map(|(at, line)| format!("{at} {line}\n")).collect()
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Clock) -> F) {
    clock::run_simulated("2020-03-17T11:00:00Z".parse().unwrap(), test);
}

#[test]
fn a_merge_reaches_the_cluster_at_the_next_poll_or_at_once_when_asked() {
    run(|clock| async move {
        let fixture = Fixture::start(clock, "merge", json!({"automated": {}})).await;
        clock.sleep(Duration::from_secs(5)).await;
        assert_eq!(fixture.image().await.as_deref(), Some("podinfo:1"), "{}", fixture.printed());
        let (sync, health, revision) = fixture.sync_status().await;
        assert_eq!((sync.as_str(), health.as_str()), ("Synced", "Progressing"), "{}", fixture.printed());
        assert_eq!(revision, fixture.repository.resolve("latest").unwrap());

        let change = Change::Write("app/web.yaml".into(), deployment("podinfo:2").into());
        fixture.repository.commit("latest", &[change], &commit(clock, "release")).unwrap();
        clock.sleep(Duration::from_secs(170)).await;
        assert_eq!(fixture.image().await.as_deref(), Some("podinfo:1"));
        clock.sleep(Duration::from_secs(10)).await;
        assert_eq!(fixture.image().await.as_deref(), Some("podinfo:2"), "{}", fixture.printed());

        let change = Change::Write("app/web.yaml".into(), deployment("podinfo:3").into());
        fixture.repository.commit("latest", &[change], &commit(clock, "release")).unwrap();
        let refresh = json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}});
        fixture.applications().patch("web", &PatchParams::default(), &Patch::Merge(refresh)).await.unwrap();
        clock.sleep(Duration::from_secs(2)).await;
        assert_eq!(fixture.image().await.as_deref(), Some("podinfo:3"), "{}", fixture.printed());
        let application = fixture.applications().get("web").await.unwrap();
        assert!(!application.annotations().contains_key("argocd.argoproj.io/refresh"));
    });
}

#[test]
fn drift_is_shown_without_self_heal_and_undone_with_it() {
    for (heals, expected) in [(false, "podinfo:hand"), (true, "podinfo:1")] {
        run(|clock| async move {
            let name = if heals { "heals" } else { "drifts" };
            let fixture = Fixture::start(clock, name, json!({"automated": {"selfHeal": heals}})).await;
            clock.sleep(Duration::from_secs(5)).await;
            let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "podinfo:hand"}]}}}});
            fixture
                .deployments()
                .patch("web", &PatchParams::default(), &Patch::Strategic(patch))
                .await
                .unwrap();
            clock.sleep(Duration::from_secs(20)).await;
            assert_eq!(fixture.image().await.as_deref(), Some(expected), "{}", fixture.printed());
            let expected = if heals { "Synced" } else { "OutOfSync" };
            assert_eq!(fixture.sync_status().await.0, expected, "{}", fixture.printed());
        });
    }
}

#[test]
fn what_git_dropped_is_pruned_only_on_request() {
    for (prunes, left) in [(false, true), (true, false)] {
        run(|clock| async move {
            let name = if prunes { "prunes" } else { "keeps" };
            let fixture = Fixture::start(clock, name, json!({"automated": {"prune": prunes}})).await;
            clock.sleep(Duration::from_secs(5)).await;
            let maps: Api<ConfigMap> = Api::namespaced(fixture.servers.client("mesh02"), "test");
            assert!(maps.get_opt("m").await.unwrap().is_some());
            let changes = [
                Change::Remove("app/map.yaml".into()),
                Change::Write(
                    "app/kustomization.yaml".into(),
                    "namespace: test\nresources: [web.yaml]\n".into(),
                ),
            ];
            fixture.repository.commit("latest", &changes, &commit(clock, "drop m")).unwrap();
            clock.sleep(Duration::from_secs(200)).await;
            assert_eq!(maps.get_opt("m").await.unwrap().is_some(), left, "{}", fixture.printed());
        });
    }
}

#[test]
fn a_broken_commit_is_told_in_the_conditions_and_changes_nothing() {
    run(|clock| async move {
        let fixture = Fixture::start(clock, "broken", json!({"automated": {}})).await;
        clock.sleep(Duration::from_secs(5)).await;
        let change = Change::Write("app/web.yaml".into(), "kind: [".into());
        fixture.repository.commit("latest", &[change], &commit(clock, "oops")).unwrap();
        clock.sleep(Duration::from_secs(200)).await;
        assert_eq!(fixture.image().await.as_deref(), Some("podinfo:1"));
        let application = fixture.applications().get("web").await.unwrap();
        let status = serde_json::to_value(application.status).unwrap();
        let condition = &status["conditions"][0];
        assert_eq!(condition["type"], "ComparisonError", "{status}");
        assert!(condition["message"].as_str().unwrap().contains("app/web.yaml"), "{condition}");
    });
}
