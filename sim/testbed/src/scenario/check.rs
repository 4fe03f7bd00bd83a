//! Questions about the system that steps and expectations share: an object's state, a canary's phase, a log's
//! lines, a PromQL query's value, a request's answer.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Located;

/// An object and what must hold of it. Without `path`, `contains` or `absent` it only has to exist.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectCheck {
    /// The cluster.
    pub cluster: String,
    /// The API version, e.g. `apps/v1`; may be left out for the kinds that everybody knows.
    pub api_version: Option<String>,
    /// The kind, e.g. `Deployment`.
    pub kind: String,
    /// The namespace, `default` without one; meaningless for kinds without namespaces.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// A JSONPath into the object; `equals`, `matches`, `min`, `max` and `exists` speak of what it finds.
    pub path: Option<Located<String>>,
    /// The value that the path must lead to.
    pub equals: Option<Value>,
    /// A regular expression that the value's text must match.
    pub matches: Option<Located<String>>,
    /// The least number that the path may lead to.
    pub min: Option<f64>,
    /// The greatest number that the path may lead to.
    pub max: Option<f64>,
    /// Whether the path must lead to something (`true`) or to nothing (`false`).
    pub exists: Option<bool>,
    /// A part that the object must contain: maps by key, lists item by item.
    pub contains: Option<Value>,
    /// The object must not exist.
    #[serde(default)]
    pub absent: bool,
}

/// A Canary and the state that it must be in. All given fields must hold at the same time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CanaryCheck {
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The Canary's name.
    pub name: String,
    /// The phase of its status, e.g. `Progressing`.
    pub phase: Option<String>,
    /// The exact weight of its status.
    pub weight: Option<i64>,
    /// The least weight of its status.
    pub min_weight: Option<i64>,
    /// The least number of failed checks.
    pub min_failed_checks: Option<i64>,
}

/// A Deployment that must have rolled out: its newest template observed, and all replicas updated and available.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutCheck {
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The Deployment's name.
    pub deployment: String,
}

/// A line of a component's log that must have been printed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogCheck {
    /// The cluster; any without one.
    pub cluster: Option<String>,
    /// The namespace; any without one.
    pub namespace: Option<String>,
    /// The workload (a Deployment's name, say) whose pods print.
    pub workload: String,
    /// The container; any without one.
    pub container: Option<String>,
    /// The message, exactly: the field `msg` of structured lines, else the line.
    pub message: Option<String>,
    /// A regular expression that the message must match.
    pub matches: Option<Located<String>>,
    /// Only lines after this mark count; without one, lines after the step's begin.
    pub since: Option<String>,
}

/// A PromQL query and the value that it must give. A query that gives several series is summed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryCheck {
    /// The cluster.
    pub cluster: String,
    /// The address of Prometheus in the cluster.
    #[serde(default = "prometheus")]
    pub server: String,
    /// The query.
    pub promql: String,
    /// The exact value.
    pub value: Option<f64>,
    /// The least value.
    pub min: Option<f64>,
    /// The greatest value.
    pub max: Option<f64>,
    /// Whether the query must give no series (`true`) or at least one (`false`).
    pub empty: Option<bool>,
}

fn prometheus() -> String {
    "http://prometheus.istio-system:9090".into()
}

/// Where a client sends requests from: exactly one of the fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Origin {
    /// Outside, to an ingress gateway's load balancer; the URL's host goes into the `Host` header.
    pub gateway: Option<GatewayOrigin>,
    /// A pod of a namespace: its DNS, and a sidecar if the namespace injects one.
    pub pod: Option<PodOrigin>,
    /// Outside the mesh, with the DNS of this cluster, as a port-forward has it.
    pub cluster: Option<String>,
}

/// An ingress gateway.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayOrigin {
    /// The cluster that the gateway runs in.
    pub cluster: String,
    /// The namespace of its Service.
    #[serde(default = "istio_system")]
    pub namespace: String,
    /// Its Service.
    #[serde(default = "ingress_gateway")]
    pub service: String,
}

fn istio_system() -> String {
    "istio-system".into()
}

fn ingress_gateway() -> String {
    "istio-ingressgateway".into()
}

/// A client pod, made for this purpose.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodOrigin {
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The pod's name.
    #[serde(default = "client")]
    pub name: String,
}

fn client() -> String {
    "client".into()
}

/// A request and the answer that it must get.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestCheck {
    /// The URL.
    pub url: Located<String>,
    /// Where the request comes from.
    pub from: Origin,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Option<String>,
    /// The status that must come back, 200 unless told; 0 for no answer at all.
    #[serde(default = "ok")]
    pub status: u16,
    /// A text that the answer's body must contain.
    pub contains: Option<String>,
}

pub(super) fn get() -> String {
    "GET".into()
}

fn ok() -> u16 {
    200
}
