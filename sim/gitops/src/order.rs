//! The order in which a sync applies objects: wave, then kind, then name (Argo CD's `sync_tasks.go`).

use serde_json::Value;

/// Kinds in the order in which they are applied; all others come last.
const KINDS: [&str; 26] = [
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicationController",
    "ReplicaSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "Job",
    "Ingress",
];

/// The sync wave that an object's annotation names, 0 without one.
pub fn wave(object: &Value) -> i64 {
    object["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"]
        .as_str()
        .and_then(|wave| wave.parse().ok())
        .unwrap_or(0)
}

/// Sorts objects into the order of their application.
pub fn sort(objects: &mut [Value]) {
    objects.sort_by_cached_key(|object| {
        let kind = object["kind"].as_str().unwrap_or_default();
        let rank = KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len());
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (wave(object), rank, kind.to_owned(), name)
    });
}
