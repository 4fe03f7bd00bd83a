//! Lists, watches and discovery as requests on the wire.

use std::collections::BTreeSet;

use apiserver::{ApiServer, Measured, Metrics, User};
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::with_server;

/// Sends a request as a user; returns the status code and the body.
async fn ask_as(server: &ApiServer, user: &User, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = http::Request::builder().method(method).uri(path).body(body).unwrap();
    let answer = server.handle_as(user, request).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn ask(server: &ApiServer, method: &str, path: &str, body: Value) -> (u16, Value) {
    ask_as(server, &User::administrator("admin"), method, path, body).await
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(server: &ApiServer, name: &str, app: &str) {
    let map = json!({"metadata": {"name": name, "labels": {"app": app}}});
    assert_eq!(ask(server, "POST", MAPS, map).await.0, 201);
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[test]
fn pages_show_one_state_whatever_is_written_between_them() {
    with_server(|server, _, _| async move {
        for name in ["b", "d", "f", "h"] {
            make(&server, name, "x").await;
        }
        let (_, first) = ask(&server, "GET", &format!("{MAPS}?limit=2"), Value::Null).await;
        assert_eq!(names(&first), ["b", "d"]);
        assert_eq!(first["metadata"]["remainingItemCount"], 3);
        // One is added, one goes, one changes: the list does not.
        make(&server, "e", "x").await;
        assert_eq!(ask(&server, "DELETE", &format!("{MAPS}/f"), Value::Null).await.0, 200);
        let changed = json!({"metadata": {"name": "h"}, "data": {"a": "b"}});
        assert_eq!(ask(&server, "PUT", &format!("{MAPS}/h"), changed).await.0, 200);
        let token = first["metadata"]["continue"].as_str().unwrap();
        let (_, rest) = ask(&server, "GET", &format!("{MAPS}?limit=9&continue={token}"), Value::Null).await;
        assert_eq!(names(&rest), ["f", "h", "kube-root-ca.crt"]);
        assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        assert!(rest["items"][1]["data"].is_null());
        let version = first["metadata"]["resourceVersion"].as_str().unwrap();
        let exact = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
        assert_eq!(
            names(&ask(&server, "GET", &exact, Value::Null).await.1),
            ["b", "d", "f", "h", "kube-root-ca.crt"]
        );
        let (_, now) = ask(&server, "GET", MAPS, Value::Null).await;
        assert_eq!(names(&now), ["b", "d", "e", "h", "kube-root-ca.crt"]);

        for number in 0..600 {
            let changed = json!({"metadata": {"name": "h"}, "data": {"a": number.to_string()}});
            ask(&server, "PUT", &format!("{MAPS}/h"), changed).await;
        }
        let (code, status) = ask(&server, "GET", &format!("{MAPS}?continue={token}"), Value::Null).await;
        assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
        let future = format!("{MAPS}?resourceVersion=99999999");
        assert_eq!(ask(&server, "GET", &future, Value::Null).await.0, 504);
        for bad in ["resourceVersionMatch=Exact", "sendInitialEvents=true"] {
            assert_eq!(ask(&server, "GET", &format!("{MAPS}?{bad}"), Value::Null).await.0, 422, "{bad}");
        }
    });
}

/// The first lines of a watch, as type and name.
async fn watched(server: &ApiServer, query: &str, lines: usize) -> Vec<(String, Value)> {
    let request = http::Request::get(format!("{MAPS}?watch=true&{query}")).body(Bytes::new()).unwrap();
    let answer = server.handle("admin", request).await.unwrap();
    let mut stream = answer.into_body().into_data_stream();
    let mut found = Vec::new();
    for _ in 0..lines {
        let event: Value = serde_json::from_slice(&stream.next().await.unwrap().unwrap()).unwrap();
        found.push((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
    }
    found
}

#[test]
fn initial_events_end_with_a_bookmark_for_empty_full_and_filtered_sets() {
    with_server(|server, _, _| async move {
        let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let end = |event: &(String, Value)| {
            assert_eq!(event.0, "BOOKMARK");
            assert_eq!(event.1["kind"], "ConfigMap");
            assert_eq!(event.1["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
            assert_ne!(event.1["metadata"]["resourceVersion"], "0");
        };
        end(&watched(&server, &format!("{query}&labelSelector=app"), 1).await[0]);
        make(&server, "a", "x").await;
        make(&server, "b", "y").await;
        let all = watched(&server, query, 4).await;
        let added: Vec<&Value> = all[..3].iter().map(|(_, object)| &object["metadata"]["name"]).collect();
        assert_eq!(added, ["a", "b", "kube-root-ca.crt"]);
        end(&all[3]);
        let some = watched(&server, &format!("{query}&labelSelector=app%3Dy"), 2).await;
        assert_eq!(some[0].1["metadata"]["name"], "b");
        end(&some[1]);
        let request = http::Request::get(format!("{MAPS}?watch=1&sendInitialEvents=true"));
        let answer = server.handle("admin", request.body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 422, "resourceVersionMatch is missing");
    });
}

#[test]
fn aggregated_discovery_says_what_legacy_discovery_says() {
    with_server(|server, _, _| async move {
        let (_, groups) = ask(&server, "GET", "/apis", Value::Null).await;
        let mut legacy = BTreeSet::new();
        let mut lists = vec!["/api/v1".to_owned()];
        for group in groups["groups"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                lists.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap()));
            }
        }
        for path in lists {
            let (code, list) = ask(&server, "GET", &path, Value::Null).await;
            assert_eq!(code, 200, "{path}");
            for resource in list["resources"].as_array().unwrap() {
                legacy.insert(format!("{} {} {}", path, resource["name"], resource["kind"]));
            }
        }
        let mut aggregated = BTreeSet::new();
        for path in ["/api", "/apis"] {
            let accept =
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
            let request = http::Request::get(path).header("accept", accept).body(Bytes::new()).unwrap();
            let answer = server.handle("admin", request).await.unwrap();
            let media = answer.headers()["content-type"].to_str().unwrap().to_owned();
            assert_eq!(media, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            let list: Value = serde_json::from_slice(&bytes).unwrap();
            for group in list["items"].as_array().unwrap() {
                for version in group["versions"].as_array().unwrap() {
                    let prefix = match group["metadata"]["name"].as_str() {
                        Some(name) => format!("/apis/{name}/{}", version["version"].as_str().unwrap()),
                        None => "/api/v1".to_owned(),
                    };
                    for resource in version["resources"].as_array().unwrap() {
                        let name = resource["resource"].as_str().unwrap();
                        aggregated
                            .insert(format!("{prefix} {:?} {}", name, resource["responseKind"]["kind"]));
                        for part in resource["subresources"].as_array().into_iter().flatten() {
                            let name = format!("{name}/{}", part["subresource"].as_str().unwrap());
                            aggregated.insert(format!("{prefix} {name:?} {}", part["responseKind"]["kind"]));
                        }
                    }
                }
            }
        }
        assert_eq!(aggregated, legacy);
        assert!(legacy.len() > 70, "{}", legacy.len());

        let (_, index) = ask(&server, "GET", "/openapi/v3", Value::Null).await;
        for (path, entry) in index["paths"].as_object().unwrap() {
            let url = entry["serverRelativeURL"].as_str().unwrap();
            let (code, document) = ask(&server, "GET", url, Value::Null).await;
            assert_eq!(code, 200, "{path}");
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let text = document.to_string();
            for name in
                text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap())
            {
                assert!(schemas.contains_key(name), "{path} refers to {name}, which it does not define");
            }
        }
    });
}

#[test]
fn evictions_respect_disruption_budgets() {
    with_server(|server, _, _| async move {
        for name in ["a", "b"] {
            let pod = json!({"metadata": {"name": name, "labels": {"app": "x"}},
                             "spec": {"containers": [{"name": "a", "image": "b"}]}});
            assert_eq!(ask(&server, "POST", "/api/v1/namespaces/default/pods", pod).await.0, 201);
            let ready = json!({"metadata": {"name": name}, "status": {"phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}]}});
            let path = format!("/api/v1/namespaces/default/pods/{name}/status");
            assert_eq!(ask(&server, "PUT", &path, ready).await.0, 200);
        }
        let budget = json!({"metadata": {"name": "x"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
        let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
        assert_eq!(ask(&server, "POST", budgets, budget).await.0, 201);
        let evict = |name: &'static str| {
            let server = server.clone();
            async move {
                let path = format!("/api/v1/namespaces/default/pods/{name}/eviction");
                let eviction =
                    json!({"metadata": {"name": name}, "deleteOptions": {"gracePeriodSeconds": 0}});
                ask(&server, "POST", &path, eviction).await
            }
        };
        assert_eq!(evict("a").await.0, 201);
        let (code, status) = evict("b").await;
        assert_eq!(code, 429);
        assert_eq!(status["details"]["causes"][0]["reason"], "DisruptionBudget");
    });
}

#[test]
fn roles_are_enforced_when_asked_for() {
    with_server(|server, _, _| async move {
        let jane = User { name: "jane".into(), groups: vec!["system:authenticated".into()] };
        let pods = "/api/v1/namespaces/default/pods";
        assert_eq!(ask_as(&server, &jane, "GET", pods, Value::Null).await.0, 200, "roles are not enforced");
        server.enforce_rbac();
        let (code, status) = ask_as(&server, &jane, "GET", pods, Value::Null).await;
        assert_eq!(code, 403);
        assert_eq!(
            status["message"],
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let binding = json!({"metadata": {"name": "jane"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
        let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
        assert_eq!(ask(&server, "POST", bindings, binding).await.0, 201);
        assert_eq!(ask_as(&server, &jane, "GET", pods, Value::Null).await.0, 200);
        assert_eq!(ask_as(&server, &jane, "DELETE", &format!("{pods}/x"), Value::Null).await.0, 403);
        assert_eq!(ask_as(&server, &jane, "GET", "/api/v1/pods", Value::Null).await.0, 403);
    });
}

struct Fixed;

impl Metrics for Fixed {
    fn pod(&self, _: &str, pod: &str) -> Option<Vec<Measured>> {
        let measured = Measured { container: "a".into(), cpu_millis: 250, memory_bytes: 1 << 20 };
        (pod == "a").then(|| vec![measured])
    }
}

#[test]
fn metrics_are_served_once_somebody_measures() {
    with_server(|server, _, _| async move {
        let path = "/apis/metrics.k8s.io/v1beta1/pods";
        assert_eq!(ask(&server, "GET", path, Value::Null).await.0, 404);
        server.set_metrics(std::sync::Arc::new(Fixed));
        for name in ["a", "b"] {
            let pod =
                json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
            ask(&server, "POST", "/api/v1/namespaces/default/pods", pod).await;
        }
        let (_, list) = ask(&server, "GET", path, Value::Null).await;
        assert_eq!(names(&list), ["a"], "nothing is measured of the other");
        assert_eq!(list["items"][0]["containers"][0]["usage"], json!({"cpu": "250m", "memory": "1024Ki"}));
    });
}
