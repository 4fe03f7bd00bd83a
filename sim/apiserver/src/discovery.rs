//! Discovery: which groups, versions and resources there are, and the server's version and health.

use std::collections::BTreeMap;

use http::{Response, StatusCode, header};
use tree::{Value, json};

use crate::body::Body;
use crate::openapi;
use crate::openapi_v2;
use crate::resource::{Resource, Version};
use crate::server::answered;
use crate::store::Store;

/// The version that the server says it is.
pub(crate) const GIT_VERSION: &str = "v1.33.0+coalmine";

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The answer to a path outside the resources; `None` if there is nothing there. `metrics` tells whether the metrics
/// API is served.
pub(crate) fn answer(store: &Store, path: &str, accept: &str, metrics: bool) -> Option<Response<Body>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let (["api" | "apis"], Some(version)) = (parts.as_slice(), aggregated_version(accept)) {
        return Some(aggregated(store, parts == ["api"], version, metrics));
    }
    let body = match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => {
            let mut answer = answered(StatusCode::OK, "ok");
            let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, plain);
            return Some(answer);
        }
        ["version"] => version(),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]}),
        ["apis"] => {
            let groups: Vec<Value> =
                groups(store, metrics).iter().map(|(name, versions)| group(name, versions)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] => {
            let groups = groups(store, metrics);
            let mut found = group(name, groups.get(*name)?);
            found["kind"] = json!("APIGroup");
            found["apiVersion"] = json!("v1");
            found
        }
        ["api", version] => resources(store, "", version, metrics)?,
        ["apis", group, version] => resources(store, group, version, metrics)?,
        ["openapi", "v2"] => return Some(openapi_v2::answer(store, accept)),
        ["openapi", "v3"] => openapi::v3_index(store),
        ["openapi", "v3", path @ ..] => openapi::v3(store, path)?,
        _ => return None,
    };
    Some(answered(StatusCode::OK, body.to_string()))
}

fn version() -> Value {
    json!({"major": "1", "minor": "33", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
           "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64"})
}

/// Groups with their served versions, preferred first.
fn groups(store: &Store, metrics: bool) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in store.collections.values().map(|collection| &collection.resource) {
        for version in resource.versions.iter().filter(|version| version.served) {
            let (group, version) = resource.served_as(version);
            if group.is_empty() {
                continue;
            }
            let versions = groups.entry(group.to_owned()).or_default();
            if !versions.iter().any(|known| known == version) {
                versions.push(version.to_owned());
            }
        }
    }
    for group in ["authentication.k8s.io", "authorization.k8s.io"] {
        groups.insert(group.to_owned(), vec!["v1".to_owned()]);
    }
    if metrics {
        groups.insert(crate::metrics::GROUP.to_owned(), vec![crate::metrics::VERSION.to_owned()]);
    }
    groups
}

fn group(name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// What a group and version serve, as legacy discovery lists it.
fn entries(store: &Store, group: &str, version: &str, metrics: bool) -> Vec<Value> {
    let mut entries = Vec::new();
    for collection in store.collections.values() {
        let resource = &collection.resource;
        if let Some(version) = resource.serving(group, version) {
            entries.extend(entries_of(resource, version));
        }
    }
    entries.extend(reviews(group, version));
    if metrics && (group, version) == (crate::metrics::GROUP, crate::metrics::VERSION) {
        entries.extend(crate::metrics::RESOURCES.iter().map(|(plural, kind, namespaced)| {
            json!({"name": plural, "singularName": "", "namespaced": namespaced, "kind": kind,
                   "verbs": ["get", "list"]})
        }));
    }
    entries
}

fn resources(store: &Store, group: &str, version: &str, metrics: bool) -> Option<Value> {
    let entries = entries(store, group, version, metrics);
    if entries.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}),
    )
}

/// The version of aggregated discovery that the client prefers, if it takes any before the legacy one.
fn aggregated_version(accept: &str) -> Option<&'static str> {
    accept.split(',').find_map(|accepted| {
        let has = |parameter: &str| accepted.split(';').any(|part| part.trim() == parameter);
        if !has("g=apidiscovery.k8s.io") || !has("as=APIGroupDiscoveryList") {
            return None;
        }
        [("v=v2", "v2"), ("v=v2beta1", "v2beta1")]
            .into_iter()
            .find(|(wanted, _)| has(wanted))
            .map(|(_, name)| name)
    })
}

/// All groups, versions and resources in one document: the same as legacy discovery, in another shape.
fn aggregated(store: &Store, core: bool, discovery_version: &str, metrics: bool) -> Response<Body> {
    let all = if core { [(String::new(), vec!["v1".to_owned()])].into() } else { groups(store, metrics) };
    let items: Vec<Value> = all
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources =
                        aggregated_resources(group, version, entries(store, group, version, metrics));
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let body = json!({"kind": "APIGroupDiscoveryList", "metadata": {}, "items": items,
                      "apiVersion": format!("apidiscovery.k8s.io/{discovery_version}")});
    let mut answer = answered(StatusCode::OK, body.to_string());
    let media =
        format!("application/json;g=apidiscovery.k8s.io;v={discovery_version};as=APIGroupDiscoveryList");
    if let Ok(media) = header::HeaderValue::from_str(&media) {
        answer.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    answer
}

fn aggregated_resources(group: &str, version: &str, entries: Vec<Value>) -> Vec<Value> {
    let mut resources: Vec<Value> = Vec::new();
    for entry in entries {
        let name = entry["name"].as_str().unwrap_or_default();
        let own = |field: &str, default: &str| entry[field].as_str().unwrap_or(default).to_owned();
        let kind =
            json!({"group": own("group", group), "version": own("version", version), "kind": entry["kind"]});
        if let Some((parent, part)) = name.split_once('/') {
            let part = json!({"subresource": part, "responseKind": kind, "verbs": entry["verbs"]});
            // Subresources follow their resource.
            if let Some(resource) = resources.iter_mut().rfind(|resource| resource["resource"] == parent) {
                match resource["subresources"].as_array_mut() {
                    Some(parts) => parts.push(part),
                    None => resource["subresources"] = json!([part]),
                }
            }
            continue;
        }
        let scope = if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut resource = json!({"resource": name, "responseKind": kind, "scope": scope, "verbs": entry["verbs"],
                                  "singularResource": entry["singularName"]});
        for field in ["shortNames", "categories"] {
            if entry[field].is_array() {
                resource[field] = entry[field].clone();
            }
        }
        resources.push(resource);
    }
    resources
}

fn entries_of(resource: &Resource, version: &Version) -> Vec<Value> {
    let mut own = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        own["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        own["categories"] = json!(resource.categories);
    }
    let part = |name: &str, kind: &str, verbs: &[&str]| {
        json!({"name": format!("{}/{name}", resource.plural), "singularName": "",
               "namespaced": resource.namespaced, "kind": kind, "verbs": verbs})
    };
    let mut entries = vec![own];
    if version.status {
        entries.push(part("status", &resource.kind, &["get", "patch", "update"]));
    }
    if version.scale.is_some() {
        let mut scale = part("scale", "Scale", &["get", "patch", "update"]);
        scale["group"] = json!("autoscaling");
        scale["version"] = json!("v1");
        entries.push(scale);
    }
    match resource.group_kind().as_str() {
        "/Pod" => {
            entries.push(part("log", "Pod", &["get"]));
            entries.push(part("exec", "PodExecOptions", &["create", "get"]));
            entries.push(part("attach", "PodAttachOptions", &["create", "get"]));
            entries.push(part("portforward", "PodPortForwardOptions", &["create", "get"]));
            entries.push(part("binding", "Binding", &["create"]));
            let mut eviction = part("eviction", "Eviction", &["create"]);
            eviction["group"] = json!("policy");
            eviction["version"] = json!("v1");
            entries.push(eviction);
        }
        "/ServiceAccount" => {
            let mut token = part("token", "TokenRequest", &["create"]);
            token["group"] = json!("authentication.k8s.io");
            token["version"] = json!("v1");
            entries.push(token);
        }
        "/Namespace" => entries.push(part("finalize", "Namespace", &["update"])),
        _ => {}
    }
    entries
}

fn reviews(group: &str, version: &str) -> Vec<Value> {
    let kinds: &[(&str, bool)] = match (group, version) {
        ("authorization.k8s.io", "v1") => &[
            ("LocalSubjectAccessReview", true),
            ("SelfSubjectAccessReview", false),
            ("SelfSubjectRulesReview", false),
            ("SubjectAccessReview", false),
        ],
        ("authentication.k8s.io", "v1") => &[("SelfSubjectReview", false), ("TokenReview", false)],
        _ => &[],
    };
    kinds
        .iter()
        .map(|(kind, namespaced)| {
            json!({"name": format!("{}s", kind.to_lowercase()), "singularName": kind.to_lowercase(),
                   "namespaced": namespaced, "kind": kind, "verbs": ["create"]})
        })
        .collect()
}
