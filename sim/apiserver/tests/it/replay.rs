//! Watches replay to what lists show, whatever is written and wherever they start.

use std::collections::BTreeMap;

use apiserver::ApiServer;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::with_server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[derive(Clone, Debug)]
enum Write {
    Create(u8, bool),
    Change(u8, bool),
    Delete(u8),
    Watch,
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (0..6u8, any::<bool>()).prop_map(|(name, chosen)| Write::Create(name, chosen)),
        4 => (0..6u8, any::<bool>()).prop_map(|(name, chosen)| Write::Change(name, chosen)),
        2 => (0..6u8).prop_map(Write::Delete),
        1 => Just(Write::Watch),
    ]
}

async fn ask(server: &ApiServer, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(
            "content-type",
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" },
        )
        .body(body)
        .unwrap();
    let answer = server.handle("admin", request).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

type Objects = BTreeMap<String, Value>;

fn keyed(list: &Value) -> Objects {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), item.clone())).collect()
}

/// A client that listed and watches on.
struct Watching {
    objects: Objects,
    stream: std::pin::Pin<Box<dyn futures::Stream<Item = Bytes>>>,
}

impl Watching {
    async fn start(server: &ApiServer, selector: &str) -> Watching {
        let (_, list) = ask(server, "GET", &format!("{MAPS}?{selector}"), None).await;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap();
        let path = format!("{MAPS}?{selector}&watch=true&resourceVersion={version}");
        let request = http::Request::get(path).body(Bytes::new()).unwrap();
        let answer = server.handle("admin", request).await.unwrap();
        let stream = answer.into_body().into_data_stream().map(Result::unwrap);
        Watching { objects: keyed(&list), stream: Box::pin(stream) }
    }

    /// Takes in everything that has been sent.
    fn catch_up(&mut self) {
        // Without tokio's budget, which would call a stream empty that is not.
        while let Some(Some(line)) = tokio::task::unconstrained(self.stream.next()).now_or_never() {
            let event: Value = serde_json::from_slice(&line).unwrap();
            let object = event["object"].clone();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            match event["type"].as_str().unwrap() {
                "ADDED" => assert!(self.objects.insert(name, object).is_none(), "added twice"),
                "MODIFIED" => {
                    assert!(self.objects.insert(name, object).is_some(), "modified before it was added")
                }
                "DELETED" => assert!(self.objects.remove(&name).is_some(), "deleted twice"),
                other => panic!("unexpected {other}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn watches_replay_to_lists(writes in proptest::collection::vec(write(), 1..60)) {
        with_server(|server, _, _| async move {
            let selectors = ["", "labelSelector=chosen%3Dtrue"];
            let mut watching = vec![
                (0, Watching::start(&server, selectors[0]).await),
                (1, Watching::start(&server, selectors[1]).await),
            ];
            let mut last = 0;
            for (number, write) in writes.into_iter().enumerate() {
                let labels = |chosen: bool| json!({"chosen": chosen.to_string()});
                let (code, _) = match write {
                    Write::Create(name, chosen) => {
                        let map = json!({"metadata": {"name": format!("m{name}"), "labels": labels(chosen)}});
                        ask(&server, "POST", MAPS, Some(map)).await
                    }
                    Write::Change(name, chosen) => {
                        let patch = json!({"metadata": {"labels": labels(chosen)}, "data": {"n": number.to_string()}});
                        ask(&server, "PATCH", &format!("{MAPS}/m{name}"), Some(patch)).await
                    }
                    Write::Delete(name) => ask(&server, "DELETE", &format!("{MAPS}/m{name}"), None).await,
                    Write::Watch => {
                        for (index, selector) in selectors.iter().enumerate() {
                            watching.push((index, Watching::start(&server, selector).await));
                        }
                        (200, Value::Null)
                    }
                };
                assert!([200, 201, 404, 409].contains(&code), "{code}");
                let (_, list) = ask(&server, "GET", MAPS, None).await;
                let version: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                assert!(version >= last, "versions never go back");
                last = version;
            }
            for (index, mut watching) in watching {
                watching.catch_up();
                let (_, list) = ask(&server, "GET", &format!("{MAPS}?{}", selectors[index]), None).await;
                assert_eq!(watching.objects, keyed(&list));
            }
        });
    }
}

#[test]
fn of_concurrent_writers_with_one_version_exactly_one_wins() {
    with_server(|server, _, _| async move {
        ask(&server, "POST", MAPS, Some(json!({"metadata": {"name": "counter"}, "data": {"n": "0"}}))).await;
        let path = format!("{MAPS}/counter");
        // Each writer adds one, and tries again when another was faster.
        let writers = (0..20).map(|_| {
            let (server, path) = (server.clone(), path.clone());
            async move {
                for _ in 0..10 {
                    loop {
                        let (_, mut map) = ask(&server, "GET", &path, None).await;
                        let count: u32 = map["data"]["n"].as_str().unwrap().parse().unwrap();
                        map["data"]["n"] = json!((count + 1).to_string());
                        tokio::task::yield_now().await;
                        if ask(&server, "PUT", &path, Some(map)).await.0 == 200 {
                            break;
                        }
                    }
                }
            }
        });
        futures::future::join_all(writers).await;
        let (_, map) = ask(&server, "GET", &path, None).await;
        assert_eq!(map["data"]["n"], "200");
    });
}

#[test]
fn a_watch_that_nobody_reads_ends() {
    with_server(|server, _, _| async move {
        let mut slow = Watching::start(&server, "").await;
        ask(&server, "POST", MAPS, Some(json!({"metadata": {"name": "busy"}}))).await;
        for number in 0..9000 {
            let patch = json!({"data": {"n": number.to_string()}});
            ask(&server, "PATCH", &format!("{MAPS}/busy"), Some(patch)).await;
        }
        let mut events = 0;
        while slow.stream.next().await.is_some() {
            events += 1;
        }
        assert!(events < 9000, "{events} events were kept for a client that does not read");
    });
}
