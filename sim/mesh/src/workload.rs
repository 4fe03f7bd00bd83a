//! Who a proxy speaks for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::Pod;

/// A pod's identity in telemetry and rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The workload that owns the pod, e.g. the Deployment's name.
    pub name: String,
    /// The label `app`, `unknown` without one.
    pub app: String,
    /// The label `version`, `unknown` without one.
    pub version: String,
    /// The service account.
    pub account: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// The identity of a pod.
    pub fn of(cluster: &str, pod: &Pod) -> Arc<Workload> {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
        Arc::new(Workload::new(
            cluster,
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            &owner(pod),
            account.unwrap_or("default"),
            labels,
        ))
    }

    /// An identity from its parts.
    pub fn new(
        cluster: &str,
        namespace: &str,
        name: &str,
        account: &str,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
        Workload {
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            app: label("app"),
            version: label("version"),
            account: account.to_owned(),
            labels,
        }
    }

    /// Nobody that the mesh knows.
    pub fn unknown() -> &'static Arc<Workload> {
        static UNKNOWN: OnceLock<Arc<Workload>> = OnceLock::new();
        let unknown = || "unknown".to_owned();
        UNKNOWN.get_or_init(|| {
            Arc::new(Workload {
                cluster: unknown(),
                namespace: unknown(),
                name: unknown(),
                app: unknown(),
                version: unknown(),
                account: unknown(),
                labels: BTreeMap::new(),
            })
        })
    }
}

/// The workload that owns a pod: a ReplicaSet's Deployment is its name without the template's hash.
fn owner(pod: &Pod) -> String {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else {
        return pod.metadata.name.clone().unwrap_or_default();
    };
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
    deployment.unwrap_or(&owner.name).to_owned()
}
