//! The objects of a piece of work: a ConfigMap with the input and an Indexed Job. Pure.

use serde_json::{Value, json};

/// A program that is run once per part.
#[derive(Clone, Debug)]
pub struct Work {
    /// The beginning of the objects' names.
    pub name: String,
    /// Where they are.
    pub namespace: String,
    /// The program's image.
    pub image: String,
    /// The program and its arguments; `$(JOB_COMPLETION_INDEX)` is the part's number, from 0.
    pub command: Vec<String>,
    /// Where the input is mounted.
    pub input_path: String,
    /// The input, at most [`INPUT_MAX`] bytes.
    pub input: String,
    /// The number of parts.
    pub parts: u64,
    /// Cores that each part asks for.
    pub cpus: u64,
    /// The exit code of a program that will not do better another time.
    pub hopeless: i64,
}

/// The largest content of a ConfigMap, in bytes.
pub const INPUT_MAX: usize = 1024 * 1024;
/// The container's name.
pub(crate) const CONTAINER: &str = "main";
/// How long the objects outlive the work if nobody deletes them, in seconds.
const TTL_SECONDS: u64 = 3600;
/// Pods that may fail before the work has: nodes go, and images are not always pulled at once.
const BACKOFF_LIMIT: u64 = 4;

fn labels() -> Value {
    json!({"app.kubernetes.io/name": "coalmine", "app.kubernetes.io/managed-by": "coalmine"})
}

/// The input; the API server chooses the rest of the name.
pub(crate) fn config_map(work: &Work) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"generateName": format!("{}-", work.name), "labels": labels()},
        "data": {file_name(work): work.input},
    })
}

/// The Job, under the ConfigMap's name.
pub(crate) fn job(work: &Work, name: &str) -> Value {
    let folder = work.input_path.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let mut template_labels = labels();
    // A sidecar would outlive the program, and the pod would never be done.
    template_labels["sidecar.istio.io/inject"] = "false".into();
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "labels": labels()},
        "spec": {
            "completions": work.parts, "parallelism": work.parts, "completionMode": "Indexed",
            "backoffLimit": BACKOFF_LIMIT, "ttlSecondsAfterFinished": TTL_SECONDS,
            "template": {
                "metadata": {"labels": template_labels, "annotations": {"sidecar.istio.io/inject": "false"}},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": false,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": CONTAINER, "image": work.image,
                        "command": work.command,
                        "resources": {"requests": {"cpu": work.cpus.to_string(), "memory": "256Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [{"name": "input", "mountPath": folder, "readOnly": true}],
                    }],
                    "volumes": [{"name": "input", "configMap": {"name": name}}],
                },
            },
        },
    })
}

/// Makes the input go with the Job.
pub(crate) fn owned_by(job: &Value) -> Value {
    let metadata = &job["metadata"];
    json!({"metadata": {"ownerReferences": [{
        "apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}]}})
}

fn file_name(work: &Work) -> String {
    work.input_path.rsplit('/').next().unwrap_or_default().to_owned()
}
