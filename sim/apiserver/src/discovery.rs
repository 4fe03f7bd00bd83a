//! Discovery: which groups, versions and resources there are, and the server's version and health.

use std::collections::BTreeMap;

use http::{Response, StatusCode, header};
use serde_json::{Value, json};

use crate::body::Body;
use crate::resource::{Resource, Version};
use crate::server::answered;
use crate::store::Store;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The answer to a path outside the resources; `None` if there is nothing there.
pub(crate) fn answer(store: &Store, path: &str) -> Option<Response<Body>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
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
                groups(store).iter().map(|(name, versions)| group(name, versions)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] => {
            let groups = groups(store);
            let mut found = group(name, groups.get(*name)?);
            found["kind"] = json!("APIGroup");
            found["apiVersion"] = json!("v1");
            found
        }
        ["api", version] => resources(store, "", version)?,
        ["apis", group, version] => resources(store, group, version)?,
        _ => return None,
    };
    Some(answered(StatusCode::OK, body.to_string()))
}

fn version() -> Value {
    json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0+coalmine", "gitCommit": "", "gitTreeState": "clean",
           "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64"})
}

/// Groups with their served versions, preferred first.
fn groups(store: &Store) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for collection in store.collections.values().filter(|found| !found.resource.group.is_empty()) {
        let versions = groups.entry(collection.resource.group.clone()).or_default();
        for version in collection.resource.versions.iter().filter(|version| version.served) {
            if !versions.contains(&version.name) {
                versions.push(version.name.clone());
            }
        }
    }
    for group in ["authentication.k8s.io", "authorization.k8s.io"] {
        groups.insert(group.to_owned(), vec!["v1".to_owned()]);
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

fn resources(store: &Store, group: &str, version: &str) -> Option<Value> {
    let mut entries = Vec::new();
    for collection in store.collections.values() {
        let resource = &collection.resource;
        if resource.group == group
            && let Some(version) = resource.version(version).filter(|version| version.served)
        {
            entries.extend(entries_of(resource, version));
        }
    }
    entries.extend(reviews(group, version));
    if entries.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}),
    )
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
