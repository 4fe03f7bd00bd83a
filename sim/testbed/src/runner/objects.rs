//! Objects of any kind, through the clusters' APIs as a user would reach them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};
use serde_json::Value;

use crate::World;
use crate::scenario::api_version_of;

/// Who the runner is in `metadata.managedFields`.
const MANAGER: &str = "coalmine";

/// The clusters' objects, with a memory of what kinds there are.
#[derive(Default)]
pub(super) struct Objects {
    kinds: Mutex<BTreeMap<KindKey, (ApiResource, bool)>>,
}

/// Cluster, version, kind.
type KindKey = (String, String, String);

impl Objects {
    /// The API of a kind in a namespace (`None`: all namespaces, or the kind has none).
    pub(super) async fn api(
        &self,
        world: &World,
        cluster: &str,
        (api_version, kind): (Option<&str>, &str),
        namespace: Option<&str>,
    ) -> Result<Api<DynamicObject>, String> {
        let (client, resource, namespaced) = self.kind(world, cluster, api_version, kind).await?;
        Ok(match namespace {
            Some(namespace) if namespaced => Api::namespaced_with(client, namespace, &resource),
            _ => Api::all_with(client, &resource),
        })
    }

    /// The API of one named object: in the namespace `default` if none is given.
    pub(super) async fn api_of_object(
        &self,
        world: &World,
        cluster: &str,
        kind: (Option<&str>, &str),
        namespace: Option<&str>,
    ) -> Result<Api<DynamicObject>, String> {
        self.api(world, cluster, kind, Some(namespace.unwrap_or("default"))).await
    }

    async fn kind(
        &self,
        world: &World,
        cluster: &str,
        api_version: Option<&str>,
        kind: &str,
    ) -> Result<(Client, ApiResource, bool), String> {
        let client = world.client(cluster).ok_or_else(|| format!("there is no cluster {cluster:?}"))?;
        let api_version = api_version.or_else(|| api_version_of(kind)).ok_or_else(|| {
            format!("the kind {kind:?} is not one of the well-known ones: add its apiVersion")
        })?;
        let key = (cluster.to_owned(), api_version.to_owned(), kind.to_owned());
        let known = self.kinds.lock().expect("no holder of this lock panics").get(&key).cloned();
        if let Some((resource, namespaced)) = known {
            return Ok((client, resource, namespaced));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let (resource, capabilities) = pinned_kind(&client, &GroupVersionKind::gvk(group, version, kind))
            .await
            .map_err(|_| {
                format!(
                    "no matches for kind {kind:?} in version {api_version:?} in cluster {cluster}: is the name \
                     right, and is its CustomResourceDefinition installed?"
                )
            })?;
        let namespaced = capabilities.scope == Scope::Namespaced;
        let kind = (resource.clone(), namespaced);
        self.kinds.lock().expect("no holder of this lock panics").insert(key, kind);
        Ok((client, resource, namespaced))
    }

    /// Applies an object, as `kubectl apply --server-side --force-conflicts` does; returns `Kind namespace/name`.
    pub(super) async fn apply(
        &self,
        world: &World,
        cluster: &str,
        namespace: Option<&str>,
        object: &Value,
    ) -> Result<String, String> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let api_version = object["apiVersion"].as_str();
        let name = object["metadata"]["name"].as_str();
        let namespace = object["metadata"]["namespace"].as_str().or(namespace).unwrap_or("default");
        let (client, resource, namespaced) = self.kind(world, cluster, api_version, kind).await?;
        let api: Api<DynamicObject> = if namespaced {
            Api::namespaced_with(client, namespace, &resource)
        } else {
            Api::all_with(client, &resource)
        };
        let what = match (namespaced, name) {
            (true, name) => format!("{kind} {namespace}/{}", name.unwrap_or("(generated)")),
            (false, name) => format!("{kind} {}", name.unwrap_or("(generated)")),
        };
        let name = name.ok_or_else(|| format!("{what} has no metadata.name: an applied object needs one"))?;
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = api.patch(name, &parameters, &Patch::Apply(object)).await;
        applied.map_err(|error| format!("{what} in cluster {cluster}: {}", reason(&error)))?;
        Ok(what)
    }

    /// The table that `kubectl get` prints.
    pub(super) async fn table(
        &self,
        world: &World,
        cluster: &str,
        kind: (Option<&str>, &str),
        namespace: Option<&str>,
    ) -> Result<String, String> {
        let (client, resource, namespaced) = self.kind(world, cluster, kind.0, kind.1).await?;
        let base = if resource.group.is_empty() {
            format!("/api/{}", resource.version)
        } else {
            format!("/apis/{}/{}", resource.group, resource.version)
        };
        let path = match namespace {
            Some(namespace) if namespaced => format!("{base}/namespaces/{namespace}/{}", resource.plural),
            _ => format!("{base}/{}", resource.plural),
        };
        let request = http::Request::get(path)
            .header(http::header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        let table: Value = client.request(request).await.map_err(|error| reason(&error))?;
        Ok(columns(&table, namespaced && namespace.is_none()))
    }
}

/// What an API server said.
pub(super) fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.reason.is_empty() => {
            format!("{} ({} {})", status.message, status.code, status.reason)
        }
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// A `meta.k8s.io/v1` Table as text: three spaces between columns, as kubectl has it.
fn columns(table: &Value, namespaces: bool) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let definitions = list(&table["columnDefinitions"]);
    let shown: Vec<usize> = (0..definitions.len())
        .filter(|index| definitions[*index]["priority"].as_i64().unwrap_or_default() == 0)
        .collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut head: Vec<String> = shown
        .iter()
        .map(|index| definitions[*index]["name"].as_str().unwrap_or_default().to_uppercase())
        .collect();
    if namespaces {
        head.insert(0, "NAMESPACE".into());
    }
    lines.push(head);
    for row in list(&table["rows"]) {
        let mut cells: Vec<String> = shown
            .iter()
            .map(|index| match &row["cells"][*index] {
                Value::Null => "<none>".into(),
                value => apiserver::jsonpath::text_of(&value.into()),
            })
            .collect();
        if namespaces {
            cells.insert(0, row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
        }
        lines.push(cells);
    }
    if lines.len() == 1 {
        return "No resources found".into();
    }
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    let line = |cells: &Vec<String>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("   ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_look_as_kubectl_prints_them() {
        let table = serde_json::json!({
            "columnDefinitions": [
                {"name": "Name"}, {"name": "Status"}, {"name": "Wide", "priority": 1}, {"name": "Weight"},
            ],
            "rows": [{
                "cells": ["podinfo", "Progressing", "x", 10],
                "object": {"metadata": {"namespace": "test"}},
            }],
        });
        let expected = "NAMESPACE   NAME      STATUS        WEIGHT\ntest        podinfo   Progressing   10";
        assert_eq!(columns(&table, true), expected);
    }
}
