//! One comparison of an Application: what its source wants, what its destination has.

use std::collections::{BTreeMap, BTreeSet};

use crd::{HealthStatus, ResourceStatus};
use serde_json::{Value, json};

use super::destination::Destination;
use crate::diff;
use crate::health::{self, Health};
use crate::order;

/// The label by which Argo CD before 3.0 knows its objects.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";

/// One object of the comparison.
pub(crate) struct Compared {
    /// What the source wants; `None` when the object has left the source.
    pub target: Option<Value>,
    /// What the cluster has; `None` when it is missing.
    pub live: Option<Value>,
    /// Whether the two differ.
    pub differs: bool,
    /// Why the kind cannot be asked for, e.g. its CRD is missing.
    pub error: Option<String>,
}

impl Compared {
    /// The object that names this entry.
    pub fn object(&self) -> &Value {
        self.target.as_ref().or(self.live.as_ref()).expect("an entry has a target or a live object")
    }
}

/// Compares all objects of an Application; `known` are those of its last status, so that what left the source is
/// found.
///
/// # Errors
/// The API server's words when the destination does not answer.
pub(crate) async fn compare(
    destination: &mut Destination,
    application: &str,
    namespace: &str,
    targets: Vec<Value>,
    known: &[ResourceStatus],
) -> Result<Vec<Compared>, String> {
    let known = known.iter().map(|resource| {
        let api_version = match resource.group.as_str() {
            "" => resource.version.clone(),
            group => format!("{group}/{}", resource.version),
        };
        (api_version, resource.kind.clone())
    });
    let kinds: BTreeSet<_> = targets.iter().map(kind_of).chain(known).collect();
    let mut ours = BTreeMap::new();
    for (api_version, kind) in kinds {
        if destination.kind(&api_version, &kind).await.is_err() {
            continue;
        }
        let label = format!("{INSTANCE}={application}");
        for live in destination.list(&api_version, &kind, &label).await? {
            ours.insert(identity(&live), live);
        }
    }
    let mut compared = Vec::new();
    for mut target in targets {
        let (api_version, kind) = kind_of(&target);
        match destination.kind(&api_version, &kind).await {
            Ok((_, namespaced)) => {
                if namespaced && target["metadata"]["namespace"].as_str().is_none_or(str::is_empty) {
                    target["metadata"]["namespace"] = json!(namespace);
                }
            }
            Err(error) => {
                compared.push(Compared {
                    target: Some(target),
                    live: None,
                    differs: true,
                    error: Some(error),
                });
                continue;
            }
        }
        if !target["metadata"]["labels"].is_object() {
            target["metadata"]["labels"] = json!({});
        }
        target["metadata"]["labels"][INSTANCE] = json!(application);
        let live = match ours.remove(&identity(&target)) {
            // It may be there without our label, as one that was made by hand is.
            None => destination.get(&target).await?,
            live => live,
        };
        let differs = live.as_ref().is_none_or(|live| diff::differs(&target, live));
        compared.push(Compared { target: Some(target), live, differs, error: None });
    }
    for live in ours.into_values() {
        let owned = live["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty());
        if !owned {
            compared.push(Compared { target: None, live: Some(live), differs: true, error: None });
        }
    }
    Ok(compared)
}

fn kind_of(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["apiVersion"]), text(&object["kind"]))
}

/// Group, kind, namespace and name.
fn identity(object: &Value) -> [String; 4] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let group =
        object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(g, _)| g);
    [
        group.into(),
        text(&object["kind"]),
        text(&object["metadata"]["namespace"]),
        text(&object["metadata"]["name"]),
    ]
}

/// The objects' entries of the Application's status, in the order of a sync.
pub(crate) fn resources(compared: &[Compared]) -> Vec<ResourceStatus> {
    let mut resources: Vec<ResourceStatus> = compared
        .iter()
        .map(|entry| {
            let object = entry.object();
            let [group, kind, namespace, name] = identity(object);
            let api_version = object["apiVersion"].as_str().unwrap_or_default();
            let health = match &entry.live {
                None => Some((Health::Missing, String::new())),
                Some(live) => health::assess(live),
            };
            ResourceStatus {
                version: api_version.rsplit('/').next().unwrap_or_default().into(),
                group,
                kind,
                namespace,
                name,
                status: if entry.differs { "OutOfSync" } else { "Synced" }.into(),
                health: health.map(|(health, message)| HealthStatus {
                    status: health.as_str().into(),
                    message,
                    ..HealthStatus::default()
                }),
                requires_pruning: entry.target.is_none(),
                sync_wave: order::wave(object),
                ..ResourceStatus::default()
            }
        })
        .collect();
    resources.sort_by(|a, b| {
        (&a.group, &a.kind, &a.namespace, &a.name).cmp(&(&b.group, &b.kind, &b.namespace, &b.name))
    });
    resources
}

/// The Application's health: its worst object's, missing ones left out.
pub(crate) fn health(compared: &[Compared]) -> Health {
    let assessed = compared.iter().filter(|entry| entry.target.is_some()).filter_map(|entry| {
        let live = entry.live.as_ref()?;
        health::assess(live).map(|(health, _)| health)
    });
    let missing = compared.iter().any(|entry| entry.target.is_some() && entry.live.is_none());
    assessed.max().unwrap_or(if missing { Health::Missing } else { Health::Healthy })
}

/// All images that the live objects' pod templates name, in order.
pub(crate) fn images(compared: &[Compared]) -> Vec<String> {
    let mut images = BTreeSet::new();
    for live in compared.iter().filter_map(|entry| entry.live.as_ref()) {
        let spec = &live["spec"]["template"]["spec"];
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                images.extend(container["image"].as_str().map(str::to_owned));
            }
        }
    }
    images.into_iter().collect()
}
