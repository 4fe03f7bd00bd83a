//! What runs and where: `testbed.json`, and the status page.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use clock::Clock;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use live::Port;
use program::{Api, Tasks};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use testbed::World;
use testbed::scenario::Loaded;
use testbed::timeline::{Event, message};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::Options;
use crate::folder::{Folder, STATE_FILE};
use crate::snapshot::Snapshot;

/// How many log lines the page shows.
const LINES: usize = 40;

/// A cluster and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name, which is its context's in the kubeconfig.
    pub name: String,
    /// The API server's URL.
    pub server: String,
    /// A kubeconfig with this cluster alone.
    pub kubeconfig: String,
    /// An administrator's bearer token.
    pub token: String,
    /// Where its DNS server listens, over UDP and TCP; control planes have none.
    pub dns: Option<String>,
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Its URL inside the testbed.
    pub url: String,
    /// The URL to clone it from, and push to.
    pub clone: String,
}

/// A port of a pod or Service on a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forwarded {
    /// The cluster.
    pub cluster: String,
    /// `Pod` or `Service`.
    pub kind: String,
    /// Namespace and name.
    pub name: String,
    /// The address in the cluster.
    pub ip: String,
    /// The port.
    pub port: u16,
    /// Where it really listens: the same, unless the port needs an administrator.
    pub address: String,
}

impl Forwarded {
    /// The address in the cluster; `None` if it has none that a socket can have.
    pub(crate) fn target(&self) -> Option<std::net::SocketAddr> {
        let ip: std::net::IpAddr = self.ip.parse().ok()?;
        ip.is_loopback().then(|| std::net::SocketAddr::new(ip, self.port))
    }
}

/// How far the file's steps are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Setup {
    /// They are being carried out.
    Running,
    /// All are done.
    Done,
    /// One failed; the rest were not carried out.
    Failed(String),
}

/// Everything that a user needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The testbed's name.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// How many times faster than real time it lives.
    pub speed: f64,
    /// The kubeconfig with all clusters.
    pub kubeconfig: String,
    /// The status page.
    pub status: String,
    /// What ends the testbed, as a bearer token for `POST /stop` of the status page.
    pub stop_token: String,
    /// How far the set-up is.
    pub setup: Setup,
    /// The clusters, in order.
    pub clusters: Vec<Cluster>,
    /// The repositories.
    pub repositories: Vec<Repository>,
    /// Load balancers and other Services on sockets, and pods.
    pub addresses: Vec<Forwarded>,
    /// What could not be opened.
    pub problems: Vec<String>,
}

/// Writes a text where the page is kept.
type Write = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The page, and the file beside it.
pub(crate) struct StatusPage {
    state: Mutex<State>,
    write: Write,
    world: Arc<World>,
    stopping: Arc<Notify>,
    place: u8,
    clock: Clock,
}

impl StatusPage {
    pub(crate) async fn open(
        loaded: &Loaded,
        options: &Options,
        folder: &Folder,
        (world, place, clock): (Arc<World>, u8, Clock),
        (clusters, repositories): (Vec<Cluster>, Vec<Repository>),
        stopping: Arc<Notify>,
        tasks: &Tasks,
    ) -> Result<Arc<StatusPage>, String> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| format!("no port for the status page: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let state = State {
            name: loaded.scenario.metadata.name.clone(),
            pid: std::process::id(),
            speed: options.speed,
            kubeconfig: folder.path().join("kubeconfig").display().to_string(),
            status: format!("http://{address}/"),
            stop_token: format!("{:016x}{:016x}", live::random_number(), live::random_number()),
            setup: Setup::Running,
            clusters,
            repositories,
            addresses: Vec::new(),
            problems: Vec::new(),
        };
        let writer = folder.clone();
        let page = Arc::new(StatusPage {
            state: Mutex::new(state),
            write: Box::new(move |text| writer.write(STATE_FILE, text).map(drop)),
            world,
            stopping,
            place,
            clock,
        });
        let served = Arc::clone(&page);
        let answer = move |request: Request<Bytes>, _| {
            let page = Arc::clone(&served);
            async move { Ok(page.answer(&request).await) }
        };
        let port = Port::open(listener, 1 << 16, Arc::new(answer)).map_err(|error| error.to_string())?;
        tasks.spawn(async move {
            let _open = port;
            std::future::pending::<()>().await;
        });
        Ok(page)
    }

    pub(crate) fn state(&self) -> State {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes `testbed.json`.
    pub(crate) fn write(&self) -> Result<(), String> {
        let text = serde_json::to_string_pretty(&*self.lock()).map_err(|error| error.to_string())?;
        (self.write)(&format!("{text}\n"))
    }

    pub(crate) fn set_up(&self, setup: Setup) -> Result<(), String> {
        self.lock().setup = setup;
        self.write()
    }

    /// Notes a socket; of pods only the newest few matter to anybody, so the file is written for Services.
    pub(crate) fn forward(&self, forward: &Forwarded) {
        {
            let mut state = self.lock();
            state.addresses.retain(|known| known.address != forward.address);
            state.addresses.push(forward.clone());
            state.addresses.sort();
        }
        self.save();
    }

    /// Forgets a socket that was closed.
    pub(crate) fn forget(&self, target: std::net::SocketAddr) {
        self.lock().addresses.retain(|known| known.target() != Some(target));
        self.save();
    }

    pub(crate) fn problem(&self, problem: String) {
        {
            let mut state = self.lock();
            if !state.problems.contains(&problem) {
                state.problems.push(problem);
            }
        }
        self.save();
    }

    fn save(&self) {
        if let Err(problem) = self.write() {
            self.lock().problems.push(problem);
        }
    }

    async fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/") => respond(StatusCode::OK, "text/html; charset=utf-8", self.page().await),
            (&Method::GET, "/status.json") => {
                let mut state = serde_json::to_value(&*self.lock()).unwrap_or_default();
                // Secrets are for the owner of the folder.
                state["stopToken"] = Value::Null;
                for cluster in state["clusters"].as_array_mut().into_iter().flatten() {
                    cluster["token"] = Value::Null;
                }
                respond(StatusCode::OK, "application/json", state.to_string())
            }
            (&Method::POST, "/stop" | "/snapshot") if !self.is_owner(request) => {
                respond(StatusCode::UNAUTHORIZED, "text/plain", "the token is wrong\n".to_owned())
            }
            (&Method::POST, "/snapshot") => match self.snapshot() {
                Ok(text) => respond(StatusCode::OK, "application/json", text),
                Err(why) => respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{why}\n")),
            },
            (&Method::POST, "/stop") => {
                self.stopping.notify_one();
                respond(StatusCode::OK, "text/plain", "stopping\n".to_owned())
            }
            _ => respond(StatusCode::NOT_FOUND, "text/plain", "there is / and /status.json\n".to_owned()),
        }
    }

    /// Whether a request carries the token of the folder's owner.
    fn is_owner(&self, request: &Request<Bytes>) -> bool {
        let expected = format!("Bearer {}", self.lock().stop_token);
        let given = request.headers().get(header::AUTHORIZATION);
        given.is_some_and(|given| given.as_bytes() == expected.as_bytes())
    }

    fn snapshot(&self) -> Result<String, String> {
        let state = self.state();
        if state.setup == Setup::Running {
            return Err("the set-up is under way: take the snapshot when it is done".to_owned());
        }
        let urls: Vec<String> = state.repositories.into_iter().map(|repository| repository.url).collect();
        let snapshot = Snapshot::take(&state.name, self.place, self.clock.now(), &self.world, &urls)?;
        serde_json::to_string(&snapshot).map_err(|error| error.to_string())
    }

    async fn page(&self) -> String {
        let state = self.state();
        let mut page = format!(
            "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=2><title>{name}</title><style>body{{font:14px/1.5 system-ui;margin:2em;max-width:110ch}}table{{border-collapse:collapse}}td,th{{text-align:left;padding:.1em 1.5em .1em 0}}pre{{background:#f4f4f4;padding:1em;overflow:auto}}</style><h1>{name}</h1>",
            name = escaped(&state.name)
        );
        page.push_str(&match &state.setup {
            Setup::Running => "<p>The set-up is under way.</p>".to_owned(),
            Setup::Done => String::new(),
            Setup::Failed(why) => format!("<p><b>The set-up failed:</b> {}</p>", escaped(why)),
        });
        page.push_str("<h2>Canaries</h2><table><tr><th>cluster<th>canary<th>status<th>weight<th>failed checks<th>last transition</tr>");
        for row in self.canaries().await {
            page.push_str("<tr>");
            row.iter().for_each(|cell| page.push_str(&format!("<td>{}", escaped(cell))));
            page.push_str("</tr>");
        }
        page.push_str("</table><h2>Clusters</h2><table>");
        for cluster in &state.clusters {
            page.push_str(&format!(
                "<tr><td>{}<td>{}</tr>",
                escaped(&cluster.name),
                escaped(&cluster.server)
            ));
        }
        page.push_str("</table><h2>Repositories</h2><table>");
        for repository in &state.repositories {
            page.push_str(&format!(
                "<tr><td>{}<td>{}</tr>",
                escaped(&repository.url),
                escaped(&repository.clone)
            ));
        }
        page.push_str("</table><h2>Services</h2><table>");
        for forward in state.addresses.iter().filter(|forward| forward.kind == "Service") {
            let address = escaped(&forward.address);
            let (cluster, name) = (escaped(&forward.cluster), escaped(&forward.name));
            page.push_str(&format!(
                "<tr><td>{cluster}<td>{name}<td><a href=\"http://{address}/\">{address}</a></tr>"
            ));
        }
        page.push_str("</table>");
        if !state.problems.is_empty() {
            page.push_str(&format!("<h2>Problems</h2><pre>{}</pre>", escaped(&state.problems.join("\n"))));
        }
        page.push_str(&format!("<h2>Log</h2><pre>{}</pre>", escaped(&self.log())));
        page
    }

    async fn canaries(&self) -> Vec<[String; 6]> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("flagger.app", "v1beta1", "Canary"));
        let mut rows = Vec::new();
        for cluster in self.world.clusters() {
            let Some(client) = self.world.client(&cluster) else { continue };
            let api: Api<DynamicObject> = Api::all_with(client, &kind);
            // A cluster without the definition has no canaries.
            let Ok(found) = api.list(&ListParams::default()).await else { continue };
            for canary in found {
                let status = &canary.data["status"];
                let text = |field: &str| match &status[field] {
                    Value::String(text) => text.clone(),
                    Value::Null => String::new(),
                    other => other.to_string(),
                };
                let name = format!("{}/{}", canary.namespace().unwrap_or_default(), canary.name_any());
                rows.push([
                    cluster.clone(),
                    name,
                    text("phase"),
                    text("canaryWeight"),
                    text("failedChecks"),
                    text("lastTransitionTime"),
                ]);
            }
        }
        rows
    }

    /// The newest lines of canary controllers, and the steps.
    fn log(&self) -> String {
        let entries = self.world.logs().entries();
        let lines = entries.iter().rev().filter_map(|entry| {
            let at = entry.at.round(jiff_second()).unwrap_or(entry.at);
            match &entry.event {
                Event::Line { source, text } if source.workload.starts_with("flagger") => {
                    Some(format!("{at} {}/{} {}", source.cluster, source.workload, message(text)))
                }
                Event::Step { action, text } => Some(format!("{at} {action}: {text}")),
                _ => None,
            }
        });
        let mut lines: Vec<String> = lines.take(LINES).collect();
        lines.reverse();
        lines.join("\n")
    }
}

fn jiff_second() -> k8s_openapi::jiff::Unit {
    k8s_openapi::jiff::Unit::Second
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}
