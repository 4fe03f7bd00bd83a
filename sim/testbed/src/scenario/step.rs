//! What a scenario does: its steps, one after another.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    CanaryCheck, Located, LogCheck, Moment, ObjectCheck, QueryCheck, RequestCheck, RolloutCheck, Span,
};

/// One step: exactly one action (or only a `mark`), and when. Steps run in order; each begins when the one before
/// has ended, or later if `at` says so.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// What the step is for; shown in the timeline.
    pub name: Option<String>,
    /// Not before this moment.
    pub at: Option<Moment>,
    /// A wait before the step, counted from the end of the step before.
    pub after: Option<Span>,
    /// Names the moment at which the step begins (after `at` and `after`), for other steps and expectations.
    pub mark: Option<String>,
    /// Creates or changes objects.
    pub apply: Option<Apply>,
    /// Deletes objects.
    pub delete: Option<Delete>,
    /// Patches an object.
    pub patch: Option<PatchStep>,
    /// Checks an object now.
    pub assert: Option<ObjectCheck>,
    /// Waits for something.
    pub wait: Option<Wait>,
    /// Waits for a while.
    pub sleep: Option<Span>,
    /// Changes a git repository.
    pub git: Option<GitStep>,
    /// Changes how an image behaves.
    pub image: Option<ImageStep>,
    /// Starts, stops or changes traffic.
    pub traffic: Option<TrafficStep>,
    /// Breaks something, or mends it.
    pub fault: Option<FaultStep>,
    /// Prints a table of objects into the timeline, as `kubectl get` does.
    pub get: Option<GetStep>,
    /// Asks Prometheus.
    pub query: Option<QueryCheck>,
    /// Sends a request.
    pub request: Option<RequestCheck>,
}

impl Step {
    /// The names of the actions that are given.
    pub(super) fn actions(&self) -> Vec<&'static str> {
        let given = [
            ("apply", self.apply.is_some()),
            ("delete", self.delete.is_some()),
            ("patch", self.patch.is_some()),
            ("assert", self.assert.is_some()),
            ("wait", self.wait.is_some()),
            ("sleep", self.sleep.is_some()),
            ("git", self.git.is_some()),
            ("image", self.image.is_some()),
            ("traffic", self.traffic.is_some()),
            ("fault", self.fault.is_some()),
            ("get", self.get.is_some()),
            ("query", self.query.is_some()),
            ("request", self.request.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// The step's action, `mark` for a step that only marks a moment.
    pub fn action(&self) -> &'static str {
        self.actions().first().copied().unwrap_or("mark")
    }
}

/// Objects to apply: from exactly one of `file`, `files`, `folder`, `kustomize`, `objects`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Apply {
    /// The cluster.
    pub cluster: Option<String>,
    /// Several clusters, one after another.
    #[serde(default)]
    pub clusters: Vec<String>,
    /// The namespace of objects that name none.
    pub namespace: Option<String>,
    /// A YAML file, relative to the scenario.
    pub file: Option<String>,
    /// YAML files, relative to the scenario.
    #[serde(default)]
    pub files: Vec<String>,
    /// A folder of YAML files, relative to the scenario; a kustomization if it has one.
    pub folder: Option<String>,
    /// A folder with a kustomization, relative to the scenario. It may refer to files outside itself.
    pub kustomize: Option<String>,
    /// Objects, written right here.
    #[serde(default)]
    pub objects: Vec<Value>,
}

/// Objects to delete.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delete {
    /// The cluster.
    pub cluster: String,
    /// The API version; may be left out for the kinds that everybody knows.
    pub api_version: Option<String>,
    /// The kind.
    pub kind: String,
    /// The namespace, `default` without one.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: Option<String>,
    /// A label selector instead of a name: `app=podinfo`.
    pub selector: Option<String>,
    /// Not an error if there is no such object.
    #[serde(default)]
    pub ignore_missing: bool,
}

/// A patch of one object.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchStep {
    /// The cluster.
    pub cluster: String,
    /// The API version; may be left out for the kinds that everybody knows.
    pub api_version: Option<String>,
    /// The kind.
    pub kind: String,
    /// The namespace, `default` without one.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
    /// The kind of patch.
    #[serde(default)]
    pub r#type: PatchType,
    /// `status` or `scale`.
    pub subresource: Option<String>,
    /// The patch: an object, or a list of operations for `json`.
    pub patch: Value,
}

/// Kinds of patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PatchType {
    /// JSON merge patch (RFC 7386).
    #[default]
    Merge,
    /// Kubernetes' strategic merge patch.
    Strategic,
    /// JSON patch (RFC 6902).
    Json,
}

/// Something to wait for: exactly one of `object`, `canary`, `rollout`, `log`, `query`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wait {
    /// An object's state.
    pub object: Option<ObjectCheck>,
    /// A Canary's state.
    pub canary: Option<CanaryCheck>,
    /// A finished rollout.
    pub rollout: Option<RolloutCheck>,
    /// A log line.
    pub log: Option<LogCheck>,
    /// A PromQL query's value, asked every 5 seconds.
    pub query: Option<QueryCheck>,
    /// How long to wait at most, in virtual time.
    #[serde(default = "patience")]
    pub timeout: Span,
}

fn patience() -> Span {
    Span(std::time::Duration::from_secs(300))
}

/// A change of a git repository. In this order: `create` a branch, commit `changes`, `merge`, `notify`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitStep {
    /// The repository's URL.
    pub repository: String,
    /// The branch that is worked on.
    pub branch: String,
    /// Creates the branch from this branch or commit.
    pub from: Option<String>,
    /// Changes to commit on the branch.
    #[serde(default)]
    pub changes: Vec<Located<GitChange>>,
    /// The commit's message.
    pub message: Option<String>,
    /// `Name <address>` of who commits.
    pub author: Option<String>,
    /// Merges the branch into this one afterwards.
    pub merge_into: Option<String>,
    /// Tells a server of the push, as a git host's webhook does.
    pub notify: Option<Notify>,
}

/// A change of one file: exactly one of `content`, `replace`, `image`, `remove`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitChange {
    /// The file's path in the repository.
    pub file: String,
    /// The file's new content.
    pub content: Option<String>,
    /// Replaces a text that must occur.
    pub replace: Option<Replace>,
    /// Sets the tag of an image: `stefanprodan/podinfo:3.1.1`. The file must use that image.
    pub image: Option<String>,
    /// Removes the file or folder.
    #[serde(default)]
    pub remove: bool,
}

/// A replacement of text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Replace {
    /// The text as it is; every occurrence is replaced.
    pub from: String,
    /// The text that takes its place.
    pub to: String,
}

/// A push webhook.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Notify {
    /// The cluster whose DNS knows the server.
    pub cluster: String,
    /// The webhook's URL.
    #[serde(default = "argocd")]
    pub url: String,
}

fn argocd() -> String {
    "http://argocd-server.argocd/api/webhook".into()
}

/// A new behaviour of an image from now on.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageStep {
    /// The image with its tag.
    pub name: String,
    /// How it behaves.
    pub behaviour: super::Behaviour,
}

/// A change of traffic: exactly one of `start`, `stop`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficStep {
    /// Starts the traffic of this name.
    pub start: Option<String>,
    /// Stops the traffic of this name.
    pub stop: Option<String>,
}

/// A table of objects.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GetStep {
    /// The cluster.
    pub cluster: String,
    /// The kind or its plural: `canaries`, `pods`, `deployments`.
    pub kind: String,
    /// The API version; may be left out for the kinds that everybody knows.
    pub api_version: Option<String>,
    /// The namespace; all without one.
    pub namespace: Option<String>,
}

/// A fault: exactly one of the fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultStep {
    /// Cuts the network between two clusters, both ways.
    pub cut: Option<Cut>,
    /// Mends a cut.
    pub heal: Option<Cut>,
    /// Makes requests to a cluster's API server fail.
    pub api: Option<ApiFault>,
    /// Kills a container of pods: it exits with an error and the kubelet restarts it.
    pub crash: Option<Crash>,
    /// Deletes pods: their controller makes new ones.
    pub evict: Option<Crash>,
}

/// Two clusters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cut {
    /// The two clusters' names; `outside` stands for everything outside the clusters.
    pub between: [String; 2],
}

/// Requests to an API server that fail.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiFault {
    /// The cluster.
    pub cluster: String,
    /// The HTTP status of the failure.
    #[serde(default = "unavailable")]
    pub status: u16,
    /// Only these verbs (`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`).
    #[serde(default)]
    pub verbs: Vec<String>,
    /// Only these resources (`virtualservices`).
    #[serde(default)]
    pub resources: Vec<String>,
    /// Only requests of these users.
    #[serde(default)]
    pub users: Vec<String>,
    /// How many requests fail; without it, all that match.
    pub count: Option<u32>,
    /// For how long; without it, until the end.
    pub duration: Option<Span>,
}

fn unavailable() -> u16 {
    503
}

/// Pods to hit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Crash {
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// A label selector.
    pub selector: String,
    /// Only the first so many pods by name; all without it.
    pub count: Option<usize>,
    /// The container to crash; the first without it.
    pub container: Option<String>,
}
