//! The API server in process: bare requests, typed requests through kube, starting up, watches.

use std::hint::black_box;
use std::time::Duration;

use allocator as _;
use apiserver::{ApiServer, Options};
use bytes::Bytes;
use clock::{Clock, Seed};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const PATH: &str = "/apis/apps/v1/namespaces/default/deployments";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn server() -> ApiServer {
    let options =
        Options { name: "bench".into(), clock: Clock::live(1.0), seed: Seed::new(1), service_cidr: [10, 96] };
    ApiServer::new(options)
}

/// A Deployment of about 4 KiB.
fn deployment() -> Value {
    let env: Vec<Value> = (0..62)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "some text of a usual length"}))
        .collect();
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "nginx:1", "env": env}]}}}})
}

async fn ask(server: &ApiServer, method: &str, path: &str, kind: &str, body: Bytes) -> Bytes {
    let request =
        http::Request::builder().method(method).uri(path).header("content-type", kind).body(body).unwrap();
    let answer = server.handle("bench", request).await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.into_body().collect().await.unwrap().to_bytes()
}

async fn with_deployment() -> ApiServer {
    let server = server();
    ask(&server, "POST", PATH, "application/json", deployment().to_string().into()).await;
    server
}

fn requests(c: &mut Criterion) {
    let runtime = runtime();
    let server = runtime.block_on(with_deployment());
    let path = format!("{PATH}/web");
    let mut group = c.benchmark_group("apiserver");
    group.throughput(Throughput::Elements(1));
    group.bench_function("bare_get", |bencher| {
        bencher.iter(|| runtime.block_on(ask(&server, "GET", black_box(&path), "", Bytes::new())));
    });
    let mut number = 0u64;
    group.bench_function("bare_merge_patch", |bencher| {
        bencher.iter(|| {
            number += 1;
            let patch = format!("{{\"metadata\":{{\"annotations\":{{\"n\":\"{number}\"}}}}}}");
            runtime.block_on(ask(&server, "PATCH", &path, "application/merge-patch+json", patch.into()))
        });
    });
    group.bench_function("bare_put", |bencher| {
        let mut object = deployment();
        bencher.iter(|| {
            number += 1;
            object["metadata"]["annotations"] = json!({"n": number.to_string()});
            runtime.block_on(ask(&server, "PUT", &path, "application/json", object.to_string().into()))
        });
    });
    // kube's client keeps a task of its own.
    let api: Api<Deployment> = runtime.block_on(async {
        Api::namespaced(Client::new(server.client_service("bench"), "default"), "default")
    });
    group.bench_function("typed_get", |bencher| {
        bencher.iter(|| runtime.block_on(api.get("web")).unwrap());
    });
    group.bench_function("typed_merge_patch", |bencher| {
        bencher.iter(|| {
            number += 1;
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"n": number.to_string()}}}));
            runtime.block_on(api.patch("web", &PatchParams::default(), &patch)).unwrap()
        });
    });
    group.finish();
}

fn start_up(c: &mut Criterion) {
    let runtime = runtime();
    let _inside = runtime.enter();
    c.bench_function("apiserver/start_up", |bencher| bencher.iter(server));
}

fn watches(c: &mut Criterion) {
    const WATCHERS: usize = 1000;
    const UPDATES: usize = 1000;
    let runtime = runtime();
    let mut group = c.benchmark_group("apiserver");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    group.throughput(Throughput::Elements((WATCHERS * UPDATES) as u64));
    group.bench_function("watch_fan_out", |bencher| {
        bencher.iter_batched(
            || {
                runtime.block_on(async {
                    let server = with_deployment().await;
                    let mut streams = Vec::new();
                    for _ in 0..WATCHERS {
                        let request =
                            http::Request::get(format!("{PATH}?watch=true")).body(Bytes::new()).unwrap();
                        let answer = server.handle("bench", request).await.unwrap();
                        let mut stream = answer.into_body().into_data_stream();
                        stream.next().await.unwrap().unwrap();
                        streams.push(stream);
                    }
                    (server, streams)
                })
            },
            |(server, mut streams)| {
                runtime.block_on(async {
                    let path = format!("{PATH}/web");
                    for number in 0..UPDATES {
                        let patch = format!("{{\"metadata\":{{\"annotations\":{{\"n\":\"{number}\"}}}}}}");
                        ask(&server, "PATCH", &path, "application/merge-patch+json", patch.into()).await;
                        for stream in &mut streams {
                            black_box(stream.next().await.unwrap().unwrap());
                        }
                    }
                });
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, requests, start_up, watches);
criterion_main!(benches);
