//! `metrics.k8s.io`: what `kubectl top` reads. The figures come from a hook; without one the group is not served.

use tree::{Value, json};

use crate::delete::stamp;
use crate::failure::Failure;
use crate::request::{Parameters, Target};
use crate::selector::LabelSelector;
use crate::store::{Place, Store};

/// What somebody uses right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The container's name.
    pub container: String,
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// Where the figures come from.
pub trait Metrics: Send + Sync {
    /// The usage of a pod's containers; `None` while nothing is measured.
    fn pod(&self, namespace: &str, pod: &str) -> Option<Vec<Measured>>;
}

pub(crate) const GROUP: &str = "metrics.k8s.io";
pub(crate) const VERSION: &str = "v1beta1";
/// The window that the figures are an average of.
const WINDOW: &str = "15s";

/// Answers a GET below the group.
pub(crate) fn answer(
    store: &Store,
    metrics: &dyn Metrics,
    target: &Target<'_>,
    parameters: &Parameters,
    now: clock::Timestamp,
) -> Result<Value, Failure> {
    if target.version != VERSION || target.subresource.is_some() {
        return Err(Failure::no_such_path());
    }
    let kind = match &*target.plural {
        "pods" => "PodMetrics",
        "nodes" => "NodeMetrics",
        _ => return Err(Failure::no_such_path()),
    };
    let labels = match parameters.get("labelSelector") {
        Some(text) => LabelSelector::parse(text).map_err(|error| Failure::bad_request(error.to_string()))?,
        None => LabelSelector::everything(),
    };
    let time = stamp(now);
    let of = |object: &Value| match kind {
        "PodMetrics" => pod(metrics, object, &time),
        _ => Some(node(store, metrics, object, &time)),
    };
    if let Some(name) = &target.name {
        let place = Place {
            collection: (&*target.plural).into(),
            key: (target.namespace.as_deref().unwrap_or_default().to_owned(), name.to_string()),
        };
        let found = store.get(&place).and_then(|stored| of(&stored.value));
        return found.ok_or_else(|| {
            let message = format!("{}.{GROUP} \"{name}\" not found", target.plural);
            let mut failure = Failure::new(404, "NotFound", message);
            failure.details = json!({"name": name, "group": GROUP, "kind": target.plural});
            failure
        });
    }
    let items: Vec<Value> = store
        .collection(&target.plural)
        .into_iter()
        .flat_map(|collection| collection.objects.iter())
        .filter(|(key, stored)| {
            target.namespace.as_ref().is_none_or(|namespace| key.0 == *namespace)
                && labels.matches(&stored.value)
        })
        .filter_map(|(_, stored)| of(&stored.value))
        .collect();
    Ok(json!({"kind": format!("{kind}List"), "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {},
              "items": items}))
}

fn pod(metrics: &dyn Metrics, pod: &Value, time: &str) -> Option<Value> {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    let containers: Vec<Value> = metrics
        .pod(text("namespace"), text("name"))?
        .iter()
        .map(|measured| json!({"name": measured.container, "usage": usage(measured.cpu_millis, measured.memory_bytes)}))
        .collect();
    let mut metadata =
        json!({"name": text("name"), "namespace": text("namespace"), "creationTimestamp": time});
    if pod["metadata"]["labels"].is_object() {
        metadata["labels"] = pod["metadata"]["labels"].clone();
    }
    Some(json!({"kind": "PodMetrics", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata,
                "timestamp": time, "window": WINDOW, "containers": containers}))
}

/// A node uses what its pods use.
fn node(store: &Store, metrics: &dyn Metrics, node: &Value, time: &str) -> Value {
    let name = &node["metadata"]["name"];
    let measured = store
        .collection("pods")
        .into_iter()
        .flat_map(|pods| pods.objects.iter())
        .filter(|(_, stored)| stored.value["spec"]["nodeName"] == *name)
        .filter_map(|(key, _)| metrics.pod(&key.0, &key.1))
        .flatten();
    let (cpu, memory) = measured
        .fold((0, 0), |(cpu, memory), measured| (cpu + measured.cpu_millis, memory + measured.memory_bytes));
    let mut metadata = json!({"name": name, "creationTimestamp": time});
    if node["metadata"]["labels"].is_object() {
        metadata["labels"] = node["metadata"]["labels"].clone();
    }
    json!({"kind": "NodeMetrics", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata,
           "timestamp": time, "window": WINDOW, "usage": usage(cpu, memory)})
}

fn usage(cpu_millis: u64, memory_bytes: u64) -> Value {
    json!({"cpu": format!("{cpu_millis}m"), "memory": format!("{}Ki", memory_bytes / 1024)})
}

/// The group's entries in discovery: plural, kind, namespaced.
pub(crate) const RESOURCES: [(&str, &str, bool); 2] =
    [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)];
