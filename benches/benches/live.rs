//! Live clusters: `cargo bench -p benches --bench live`.
//!
//! - Requests: the API server over HTTP/1.1 and HTTPS, beside bare hyper servers of one stored object: one that sends its
//!   bytes, one that prints it each time, one that parses and keeps what it is sent. One core for the server, the other
//!   for the client; the object is a Deployment of about 4 KiB.
//! - Clusters: how long 1, 10 and 100 of them take to start, controllers and HTTPS listeners included, and their memory.
//! - Pods: a Deployment that is scaled to 10,000, on virtual time.
//! - Lists: how long one client waits while another one pages through 100,000 objects.
//!
//! Options: `--seconds N`, `--rounds N`, and one of `--requests`, `--clusters`, `--pods`, `--lists` for that part alone.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark of real processes in real time, with no interface"
)]

use std::convert::Infallible;
use std::future::pending;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use allocator as _;
use apiserver::{ApiServer, User};
use benches::process::{Served, median, peak_memory, pinned, resident_memory, this, watch};
use bytes::Bytes;
use clock::{Clock, Seed, run_simulated};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use live::{Authority, Credentials};
use serde_json::{Value, json};
use testbed::world::{ClusterSpec, Role, World, WorldSpec};
use tokio::net::TcpListener;

const PATH: &str = "/apis/apps/v1/namespaces/default/deployments/web";
/// Connections of the client.
const CONNECTIONS: &str = "16";
/// Objects in the list that is paged through.
const LISTED: usize = 100_000;
/// kubectl's size of a page.
const PAGE: usize = 500;
/// Pods that a node takes.
const PODS_PER_NODE: u32 = 110;
/// Replicas that the Deployment is scaled to.
const PODS: u32 = 10_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--serve", kind, folder] => serve(kind, Path::new(folder)),
        ["--start", clusters] => start(clusters.parse().expect("--start takes a number")),
        ["--scale", pods] => scale(pods.parse().expect("--scale takes a number")),
        ["--loadgen", rest @ ..] => {
            let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
            return ExitCode::from(loadgen::cli::main("loadgen", &rest));
        }
        // `cargo test --benches` asks whether it starts.
        ["--test"] => {}
        _ => {
            let part = |name: &str| {
                let parts = ["--requests", "--clusters", "--pods", "--lists"];
                words.contains(&name) || !words.iter().any(|word| parts.contains(word))
            };
            let number = |name: &str, default: usize| {
                let at = words.iter().position(|word| *word == name);
                let value = at.and_then(|at| words.get(at + 1));
                value.map_or(default, |value| {
                    value.parse().unwrap_or_else(|_| panic!("{name} takes a number"))
                })
            };
            let folder = std::env::temp_dir().join(format!("coalmine-bench-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("the temporary folder takes one");
            if part("--requests") {
                requests(&folder, number("--seconds", 3), number("--rounds", 5));
            }
            if part("--clusters") {
                clusters();
            }
            if part("--pods") {
                pods();
            }
            if part("--lists") {
                lists(&folder);
            }
            let _ = std::fs::remove_dir_all(folder);
        }
    }
    ExitCode::SUCCESS
}

fn server(clock: Clock) -> ApiServer {
    ApiServer::new(apiserver::Options {
        name: "bench".into(),
        clock,
        seed: Seed::new(1),
        service_cidr: [10, 96],
    })
}

/// A Deployment of about 4 KiB, as clients read it; `note` is an annotation.
fn deployment(note: &str) -> Value {
    let env: Vec<Value> = (0..62)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "some text of a usual length"}))
        .collect();
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}, "annotations": {"note": note}},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "nginx:1", "env": env}]}}}})
}

async fn create(api: &ApiServer, path: &str, object: &Value) {
    let request = Request::post(path).header("content-type", "application/json");
    let answer = api.handle("bench", request.body(object.to_string().into()).unwrap()).await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
}

/// Serves until it is killed; prints where.
fn serve(kind: &str, folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let api = server(Clock::live(1.0));
        create(&api, "/apis/apps/v1/namespaces/default/deployments", &deployment("0")).await;
        if kind == "lists" {
            for number in 0..LISTED {
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "value"},
                    "metadata": {"name": format!("map-{number:06}"), "namespace": "default"}});
                create(&api, "/api/v1/namespaces/default/configmaps", &object).await;
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        if kind == "https" {
            let authority = Authority::new("bench").unwrap();
            std::fs::write(folder.join("ca.crt"), authority.certificate_pem()).unwrap();
            let credentials = Arc::new(Credentials::default());
            let token = credentials.add_token(User::administrator("bench"));
            let tls = authority.server_config().unwrap();
            let _serving = live::serve(listener, tls, api, credentials, None).unwrap();
            println!("{port} {token}");
            return pending().await;
        }
        println!("{port}");
        // As the API server stores it, with its defaults.
        let request = Request::get(PATH).body(Bytes::new()).unwrap();
        let bytes =
            api.handle("bench", request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let bare =
            Bare { api, user: User::administrator("bench"), value: Mutex::new(deployment("0")), bytes };
        let (bare, kind) = (Arc::new(bare), kind.to_owned());
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            let _ = socket.set_nodelay(true);
            let (bare, kind) = (Arc::clone(&bare), kind.clone());
            tokio::spawn(async move {
                let builder = hyper::server::conn::http1::Builder::new();
                let io = TokioIo::new(socket);
                let _ = match kind.as_str() {
                    "apiserver" | "lists" => {
                        let service = service_fn(|request| bare.answer(request));
                        builder.serve_connection(io, service).await
                    }
                    "printed" => {
                        let service = service_fn(|_| {
                            let text = bare.value.lock().unwrap().to_string();
                            async { plain(text.into()) }
                        });
                        builder.serve_connection(io, service).await
                    }
                    _ => {
                        let service = service_fn(|request| bare.keep(request));
                        builder.serve_connection(io, service).await
                    }
                };
            });
        }
    });
}

/// What hyper alone serves, and the API server without TLS.
struct Bare {
    api: ApiServer,
    user: User,
    value: Mutex<Value>,
    bytes: Bytes,
}

impl Bare {
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<apiserver::Body>, apiserver::Broken> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| apiserver::Broken)?.to_bytes();
        self.api.handle_as(&self.user, Request::from_parts(head, body)).await
    }

    /// Sends the stored bytes; parses what it is sent, keeps it, and sends it back.
    async fn keep(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        if request.method() != Method::PUT {
            return plain(self.bytes.clone());
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        *self.value.lock().unwrap() = serde_json::from_slice(&body).unwrap();
        plain(body)
    }
}

fn plain(bytes: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut answer = Response::new(Full::new(bytes));
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(answer)
}

/// A server, as the table names it, and whether it is asked with GET or PUT.
const SERVERS: &[(&str, &str, &str)] = &[
    ("stored", "hyper, stored bytes", "GET"),
    ("printed", "hyper, printed each time", "GET"),
    ("apiserver", "API server, HTTP/1.1", "GET"),
    ("https", "API server, HTTPS", "GET"),
    ("stored", "hyper, parses and keeps", "PUT"),
    ("apiserver", "API server, HTTP/1.1", "PUT"),
    ("https", "API server, HTTPS", "PUT"),
];

fn requests(folder: &Path, seconds: usize, rounds: usize) {
    // Each request has another number in it, so each changes the object.
    let body = folder.join("body.json");
    std::fs::write(&body, deployment("{{n}}").to_string()).expect("the folder takes a file");
    println!("A Deployment of {} bytes, {CONNECTIONS} connections.\n", deployment("0").to_string().len());
    println!("| server | request | requests/s | requests per server CPU second | of hyper's |");
    println!("| --- | --- | ---: | ---: | ---: |");
    let mut runs = vec![Vec::new(); SERVERS.len()];
    for _ in 0..rounds {
        for ((kind, _, method), runs) in SERVERS.iter().zip(&mut runs) {
            runs.push(ask(kind, method, folder, &body, seconds));
        }
    }
    let mut bare = 0.0;
    for ((kind, name, method), runs) in SERVERS.iter().zip(&runs) {
        let per_second = median(runs.iter().map(|(per_second, _)| *per_second));
        let per_cpu = median(runs.iter().map(|(_, per_cpu)| *per_cpu));
        if *kind == "stored" {
            bare = per_cpu;
        }
        println!("| {name} | {method} | {per_second:.0} | {per_cpu:.0} | {:.2} |", per_cpu / bare);
    }
    println!();
}

/// Requests per second, and per second of the server's processor time.
fn ask(kind: &str, method: &str, folder: &Path, body: &Path, seconds: usize) -> (f64, f64) {
    let served = Served::start(&["--serve", kind, &folder.to_string_lossy()]);
    let (port, token) = served.greeting.split_once(' ').unwrap_or((&served.greeting, ""));
    let scheme = if kind == "https" { "https" } else { "http" };
    let (url, z) = (format!("{scheme}://127.0.0.1:{port}{PATH}"), format!("{seconds}s"));
    let (authorization, authority) = (format!("Authorization: Bearer {token}"), folder.join("ca.crt"));
    let this = this();
    let mut command = vec![&*this, "--loadgen", "--json", "-z", &z, "-c", CONNECTIONS, "-H", &authorization];
    let (body, authority) = (body.to_string_lossy(), authority.to_string_lossy());
    if method == "PUT" {
        command.extend(["-m", "PUT", "-T", "application/json", "--template", "-D", &body]);
    }
    if kind == "https" {
        command.extend(["--cacert", &authority]);
    }
    command.push(&url);
    let before = served.took().cpu;
    let (_, report) = watch(pinned("0", &command).stdout(Stdio::piped()).spawn().expect("taskset runs"));
    let cpu = served.took().cpu - before;
    let report: Value = serde_json::from_str(&report).expect("a report");
    let requests = report["statuses"]["200"].as_f64().unwrap_or(0.0);
    assert!(requests > 0.0 && Some(requests) == report["requests"].as_f64(), "{kind} {method}: {report:#}");
    (requests / report["total_seconds"].as_f64().unwrap(), requests / cpu)
}

fn clusters() {
    println!("| clusters | start-up | per cluster | memory per cluster |");
    println!("| ---: | ---: | ---: | ---: |");
    for number in ["1", "10", "100"] {
        let this = this();
        let child = pinned("0", &[&this, "--start", number]).stdout(Stdio::piped()).spawn().unwrap();
        print!("{}", watch(child).1);
    }
    println!();
}

/// Starts clusters with a node each, and everything that runs in them, and listeners.
fn start(number: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let authority = Authority::new("bench").unwrap();
        let (before, began) = (resident_memory("self").unwrap(), Instant::now());
        let names: Vec<String> = (1..=number).map(|number| format!("cluster-{number}")).collect();
        let cluster = |name: &String| ClusterSpec { name: name.clone(), nodes: 1, role: Role::Data };
        let spec = WorldSpec { clusters: names.iter().map(cluster).collect(), mesh: None, loopback: None };
        let world =
            World::start(&spec, Clock::live(1.0), Seed::new(1)).await.expect("the specification is in order");
        let mut listeners = Vec::new();
        for name in &names {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (tls, credentials) = (authority.server_config().unwrap(), Arc::new(Credentials::default()));
            let api = world.api(name).expect("there is this cluster");
            listeners.push(live::serve(listener, tls, api, credentials, None).unwrap());
        }
        // A first answer from each.
        for name in &names {
            let client = world.client(name).expect("there is this cluster");
            let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client);
            assert_eq!(nodes.list(&Default::default()).await.unwrap().items.len(), 1);
        }
        let took = began.elapsed().as_secs_f64() * 1000.0;
        // What follows the start.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let each = (resident_memory("self").unwrap() - before) / 1024.0 / number as f64;
        println!("| {number} | {took:.1} ms | {:.2} ms | {each:.2} MB |", took / number as f64);
    });
}

fn pods() {
    println!("| pods | to create | virtual time | wall time | per pod | peak memory |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    let this = this();
    let child = pinned("0", &[&this, "--scale", &PODS.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    println!("{}", watch(child).1);
}

/// Scales a Deployment and waits until all of its pods are ready.
fn scale(pods: u32) {
    run_simulated("2026-03-17T11:00:00Z".parse().expect("a time"), |clock| async move {
        let nodes = pods.div_ceil(PODS_PER_NODE) + 1;
        let spec = WorldSpec {
            clusters: vec![ClusterSpec { name: "kind".into(), nodes, role: Role::Data }],
            mesh: None,
            loopback: None,
        };
        let world = World::start(&spec, clock, Seed::new(1)).await.expect("the specification is in order");
        let api: Api<Deployment> = Api::namespaced(world.client("kind").expect("it is there"), "default");
        let container = json!({"name": "podinfod", "image": "ghcr.io/stefanprodan/podinfo:6.0.0",
            "ports": [{"containerPort": 9898}], "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9898}}});
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}}});
        let object = serde_json::from_value(object).expect("a Deployment");
        api.create(&PostParams::default(), &object).await.expect("the server takes it");
        clock.sleep(Duration::from_secs(5)).await;
        let (from, began, mut created) = (clock.elapsed(), Instant::now(), None);
        let patch = Patch::Merge(json!({"spec": {"replicas": pods}}));
        api.patch("web", &PatchParams::default(), &patch).await.expect("it is there");
        loop {
            clock.sleep(Duration::from_secs(1)).await;
            let status = api.get("web").await.expect("it is there").status.unwrap_or_default();
            let wanted = i32::try_from(pods).ok();
            if status.replicas == wanted && created.is_none() {
                created = Some(began.elapsed());
            }
            if status.ready_replicas == wanted {
                break;
            }
            assert!(clock.elapsed() < from + Duration::from_secs(3600), "after an hour: {status:?}");
        }
        let took = began.elapsed();
        println!(
            "| {pods} | {:.2} s | {:.0} s | {:.2} s | {:.2} ms | {:.0} MB |",
            created.unwrap_or(took).as_secs_f64(),
            (clock.elapsed() - from).as_secs_f64(),
            took.as_secs_f64(),
            took.as_secs_f64() * 1000.0 / f64::from(pods),
            peak_memory("self").unwrap() / 1024.0,
        );
    });
}

fn lists(folder: &Path) {
    println!("| while another client | requests | p50 | p99 | slowest |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let served = Served::start(&["--serve", "lists", &folder.to_string_lossy()]);
    let port: u16 = served.greeting.parse().expect("a port");
    let hdr: PathBuf = folder.join("lists.hdr");
    for (name, pages) in [("rests", false), ("pages", true)] {
        let (url, this, hdr) = (format!("http://127.0.0.1:{port}{PATH}"), this(), hdr.to_string_lossy());
        let command = [&this, "--loadgen", "--json", "--rate", "200", "-z", "5s", "--hdr", &hdr, &url];
        let child = pinned("0", &command).stdout(Stdio::piped()).spawn().expect("taskset runs");
        let paging = pages.then(|| std::thread::spawn(move || page(port, Duration::from_secs(5))));
        let report: Value = serde_json::from_str(&watch(child).1).expect("a report");
        let quantile = |name: &str| report["latency_from_due"][name].as_f64().unwrap_or(f64::NAN) * 1000.0;
        let did = match paging {
            Some(thread) => {
                let (objects, seconds) = thread.join().expect("pages arrive");
                format!("{name}, {objects} objects in {seconds:.1} s")
            }
            None => name.to_owned(),
        };
        println!(
            "| {did} | {} | {:.2} ms | {:.2} ms | {:.2} ms |",
            report["requests"],
            quantile("p50"),
            quantile("p99"),
            quantile("max"),
        );
    }
}

/// Pages through the list again and again; returns how many objects came and how long that took.
fn page(port: u16, limit: Duration) -> (usize, f64) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (began, mut objects, mut next) = (Instant::now(), 0, String::new());
    loop {
        let path = format!("/api/v1/configmaps?limit={PAGE}{next}");
        write!(socket, "GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").unwrap();
        let page: Value = serde_json::from_slice(&body(&mut socket)).expect("a list");
        objects += page["items"].as_array().expect("items").len();
        next = match page["metadata"]["continue"].as_str() {
            Some(token) => format!("&continue={token}"),
            None if began.elapsed() > limit => return (objects, began.elapsed().as_secs_f64()),
            None => String::new(),
        };
    }
}

/// The body of one response that says how long it is.
fn body(socket: &mut TcpStream) -> Vec<u8> {
    let (mut read, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let got = socket.read(&mut buffer).unwrap();
        assert!(got > 0, "the server closed the connection");
        read.extend_from_slice(&buffer[..got]);
        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&read[..end]).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("a length");
        let length: usize = length.trim().parse().unwrap();
        if read.len() >= end + 4 + length {
            return read.split_off(end + 4);
        }
    }
}
