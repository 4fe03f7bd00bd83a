//! Tools that scrape: VictoriaMetrics finds the pods of a live testbed through its API, as Kubernetes' service discovery
//! does it; Debian's Prometheus, which is built without that discovery, gets what VictoriaMetrics found, relabels it
//! itself, scrapes, and must give the answers of the testbed's own Prometheus.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use local::State;
use serde_json::{Value, json};
use simple_dns::RCODE;
use testbed::scenario::Loaded;

use super::testbed::with;
use super::{dns, tool, until};
use crate::root;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &Path, arguments: &[String], folder: &Path) -> Running {
    let child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Running(child.unwrap())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The JSON at an address; null as long as nobody answers.
fn ask(url: &str, query: Option<&str>) -> Value {
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "10", "-G", url]);
    if let Some(query) = query {
        command.args(["--data-urlencode", &format!("query={query}")]);
    }
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap_or_default()
}

/// The values of an instant query, by labels.
fn values(prometheus: &str, query: &str) -> BTreeMap<String, f64> {
    let answer = ask(&format!("http://{prometheus}/api/v1/query"), Some(query));
    let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    let read = |result: &Value| {
        let labels: BTreeMap<_, _> = result["metric"].as_object().unwrap().iter().collect();
        (format!("{labels:?}"), result["value"][1].as_str().unwrap().parse().unwrap())
    };
    results.iter().map(read).collect()
}

fn value(prometheus: &str, query: &str) -> f64 {
    values(prometheus, query).into_values().next().unwrap_or(f64::NAN)
}

/// Sends requests by the ingress gateway: one in four fails, as podinfo is asked to.
fn send(gateway: &str, count: usize) {
    let mut socket = TcpStream::connect(gateway).unwrap();
    for number in 0..count {
        let path = if number % 4 == 3 { "/status/500" } else { "/version" };
        write!(socket, "GET {path} HTTP/1.1\r\nHost: app.istio.example.com\r\n\r\n").unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        socket.read_exact(&mut body).unwrap();
    }
}

/// The testbed's own scrape jobs, with the pods found by what `discovery` says.
fn jobs(discovery: &str) -> String {
    let manifest =
        std::fs::read_to_string(root().join("fixtures/article/flagger/prometheus/config.yaml")).unwrap();
    let (_, jobs) = manifest.split_once("scrape_configs:\n").unwrap();
    let found = "kubernetes_sd_configs:\n          - role: pod\n";
    assert!(jobs.contains(found), "{jobs}");
    format!("global: {{scrape_interval: 1s}}\nscrape_configs:\n{}", jobs.replace(found, discovery))
}

fn address(state: &State, cluster: &str, name: &str, is_meant: impl Fn(Ipv4Addr) -> bool) -> String {
    let found = state.addresses.iter().find(|forward| {
        forward.cluster == cluster
            && forward.kind == "Service"
            && forward.name == name
            && is_meant(forward.ip.parse().unwrap())
    });
    found.unwrap_or_else(|| panic!("no {name} in {cluster}: {:?}", state.addresses)).address.clone()
}

#[test]
fn a_real_prometheus_gives_the_answers_of_the_testbed_s() {
    let tools = (tool("debian/usr/bin/victoria-metrics"), tool("debian/usr/bin/prometheus"));
    let (Some(discoverer), Some(prometheus)) = tools else { return };
    let loaded = Loaded::read_testbed(&root().join("scenarios/testbeds/article.yaml")).unwrap();
    with(&loaded, None, |state, folder| {
        let gateway =
            address(state, "mesh01", "istio-system/istio-ingressgateway", |ip| ip.octets()[1] >= 198);
        let own = address(state, "mesh02", "istio-system/prometheus", |_| true);

        // The gateway's host has the gateway's address.
        let server = state.clusters[1].dns.as_deref().unwrap();
        let ip = gateway.split(':').next().unwrap().parse().unwrap();
        assert_eq!(dns::addresses(server, "app.istio.example.com"), (RCODE::NoError, [ip].into()));

        let cluster = &state.clusters[2];
        let found_by_api = format!(
            "kubernetes_sd_configs:\n          - {{role: pod, api_server: '{}', bearer_token: '{}', tls_config: {{ca_file: '{}'}}}}\n",
            cluster.server,
            cluster.token,
            Path::new(&state.kubeconfig).with_file_name("ca.crt").display()
        );
        std::fs::write(folder.join("victoria.yml"), jobs(&found_by_api)).unwrap();
        let at = format!("127.0.0.1:{}", free_port());
        let arguments = [
            "-promscrape.config=victoria.yml",
            // What it has watched counts from the next look on.
            "-promscrape.kubernetesSDCheckInterval=1s",
            "-storageDataPath=victoria",
            "-memory.allowedBytes=64MB",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.push(format!("-httpListenAddr={at}"));
        let _discoverer = start(&discoverer, &arguments, folder);
        let mut targets = Vec::new();
        until("VictoriaMetrics finds the pods", || {
            let found = ask(&format!("http://{at}/api/v1/targets"), None);
            let found = found["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
            targets = found.iter().map(|target| target["discoveredLabels"].clone()).collect();
            // Two pods of podinfo with an application and a proxy, and Flagger's proxy.
            targets.len() >= 5 && found.iter().all(|target| target["health"] == "up")
        });

        let files: Vec<Value> = targets
            .iter()
            .map(|labels| {
                let meta = labels.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("__meta_"));
                let meta: serde_json::Map<_, _> =
                    meta.map(|(name, value)| (name.clone(), value.clone())).collect();
                json!({"targets": [labels["__address__"]], "labels": meta})
            })
            .collect();
        // A pod has several ports, and each job keeps its own.
        std::fs::write(folder.join("targets.json"), Value::from(files).to_string()).unwrap();
        let from_file = "file_sd_configs:\n          - files: [targets.json]\n";
        std::fs::write(folder.join("prometheus.yml"), jobs(from_file)).unwrap();
        let real = format!("127.0.0.1:{}", free_port());
        let arguments =
            ["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus", "--log.level=error"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.push(format!("--web.listen-address={real}"));
        let _prometheus = start(&prometheus, &arguments, folder);

        let workload = "reporter=\"destination\",destination_workload_namespace=\"test\",destination_workload=~\"podinfo-primary\"";
        let rate = |condition: &str| format!("sum(rate(istio_requests_total{{{workload}{condition}}}[1m]))");
        let success = format!("{} / {} * 100", rate(",response_code!~\"5.*\""), rate(""));
        let duration = |what: &str| {
            format!("histogram_quantile(0.99, sum({what}) by (le))")
                .replace("SERIES", &format!("istio_request_duration_seconds_bucket{{{workload}}}"))
        };
        until("both Prometheuses see a quarter of the requests fail", || {
            send(&gateway, 200);
            [&real, &own].iter().all(|prometheus| (value(prometheus, &success) - 75.0).abs() < 2.0)
        });
        let slow = |prometheus: &str| value(prometheus, &duration("rate(SERIES[1m])"));
        until("both see the same latency", || {
            send(&gateway, 200);
            let (real, own) = (slow(&real), slow(&own));
            own > 0.0 && (real - own).abs() < 0.25 * own
        });
        // At rest the counters are the same, and so is what is made of them, to the last digit but rounding.
        let series =
            format!("sum(istio_requests_total{{{workload}}}) by (response_code, source_workload, pod_name)");
        until("both have the same counters", || {
            let found = values(&own, &series);
            !found.is_empty() && values(&real, &series) == found
        });
        let (theirs, ours) = (value(&real, &duration("SERIES")), value(&own, &duration("SERIES")));
        assert!((theirs - ours).abs() < 1e-9, "{theirs} and {ours}");
        let targets = ask(&format!("http://{real}/api/v1/targets"), None);
        let up = |target: &Value| target["health"] == "up";
        assert!(targets["data"]["activeTargets"].as_array().unwrap().iter().all(up), "{targets}");
    });
}
