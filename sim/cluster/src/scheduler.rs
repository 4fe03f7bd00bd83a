//! The scheduler: binds pods to nodes.
//!
//! Pods go, in the order of their creation, to the node that fits and has the fewest pods of the same owner, then the
//! least of its CPU and memory requested, then the first name: the default scheduler's spreading and
//! LeastAllocated, without its randomness among equals.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use program::{Change, Informer, Tasks, WorkQueue};
use serde_json::{Value, json};

use crate::Node;
use crate::controllers::milli_value;
use crate::controllers::{EventRecorder, reference};

type Key = (String, String);

/// What a pod asks of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Requests {
    cpu_millis: u64,
    memory_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Load {
    requests: Requests,
    pods: usize,
    by_owner: BTreeMap<String, usize>,
}

/// Starts to schedule.
pub(crate) fn start(
    client: Client,
    clock: clock::Clock,
    tasks: &Tasks,
    nodes: Vec<Node>,
    events: &EventRecorder,
) {
    let queue: WorkQueue<Key> = WorkQueue::new(clock);
    let waiting: Arc<Mutex<Vec<Key>>> = Arc::default();
    let (on_queue, on_waiting) = (queue.clone(), Arc::clone(&waiting));
    let pods =
        Informer::start(tasks, clock, Api::all(client.clone()), watcher::Config::default(), move |change| {
            let wants_node = |pod: &Pod| {
                pod.metadata.deletion_timestamp.is_none()
                    && pod.spec.as_ref().is_some_and(|spec| {
                        spec.node_name.is_none()
                            && spec.scheduler_name.as_deref() == Some("default-scheduler")
                    })
            };
            match change {
                Change::Applied { old: None, new } if wants_node(new) => on_queue.add(key_of(new)),
                // Room may have come free: those who wait are tried again.
                Change::Deleted(_) => {
                    for key in on_waiting.lock().expect("no holder of this lock panics").drain(..) {
                        on_queue.add(key);
                    }
                }
                Change::Applied { .. } => {}
            }
        });
    let events = events.component("default-scheduler", None);
    tasks.spawn(async move {
        pods.synced().await;
        // Bindings that the cache does not show yet.
        let mut assumed: BTreeMap<Key, (Arc<Pod>, String)> = BTreeMap::new();
        loop {
            let key = queue.next().await;
            let Some(pod) = pods.get(&key.0, &key.1) else { continue };
            if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_some()) {
                continue;
            }
            let all = pods.list();
            assumed.retain(|key, (pod, _)| {
                pods.get(&key.0, &key.1).is_some_and(|found| {
                    found.metadata.uid == pod.metadata.uid
                        && found.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())
                })
            });
            let mut loads: BTreeMap<&str, Load> =
                nodes.iter().map(|node| (node.name.as_str(), Load::default())).collect();
            let bound = all.iter().filter_map(|pod| Some((pod, pod.spec.as_ref()?.node_name.as_deref()?)));
            let assumed_pods = assumed.values().map(|(pod, node)| (pod, node.as_str()));
            for (pod, node) in bound.chain(assumed_pods) {
                if let Some(load) = loads.get_mut(node).filter(|_| !has_ended(pod)) {
                    load.add(pod);
                }
            }
            match choose(&nodes, &loads, &pod) {
                Ok(node) => {
                    assumed.insert(key.clone(), (Arc::clone(&pod), node.to_owned()));
                    if bind(&client, &key, &pod, node).await.is_err() {
                        assumed.remove(&key);
                        queue.retry(key);
                        continue;
                    }
                    let text = format!("Successfully assigned {}/{} to {node}", key.0, key.1);
                    events.normal(&reference(&*pod), "Scheduled", text);
                }
                Err(why) => {
                    mark_unschedulable(&client, clock.now(), &key, &pod, &why).await;
                    events.warning(&reference(&*pod), "FailedScheduling", why);
                    waiting.lock().expect("no holder of this lock panics").push(key);
                }
            }
        }
    });
}

fn key_of(pod: &Pod) -> Key {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

impl Load {
    fn add(&mut self, pod: &Pod) {
        let wants = requests(pod);
        self.requests.cpu_millis += wants.cpu_millis;
        self.requests.memory_bytes += wants.memory_bytes;
        self.pods += 1;
        *self.by_owner.entry(owner(pod)).or_default() += 1;
    }
}

/// The best node for a pod.
///
/// # Errors
/// The scheduler's message when none fits.
fn choose<'a>(nodes: &'a [Node], loads: &BTreeMap<&str, Load>, pod: &Pod) -> Result<&'a str, String> {
    let wants = requests(pod);
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.clone()).unwrap_or_default();
    let (mut no_cpu, mut no_memory, mut no_match) = (0, 0, 0);
    let mut best: Option<(usize, u64, &str)> = None;
    for node in nodes {
        let load = &loads[node.name.as_str()];
        if !selector.iter().all(|(name, value)| name == "kubernetes.io/hostname" && *value == node.name) {
            no_match += 1;
            continue;
        }
        let cpu = load.requests.cpu_millis + wants.cpu_millis;
        let memory = load.requests.memory_bytes + wants.memory_bytes;
        if cpu > node.cpu_millis {
            no_cpu += 1;
        } else if memory > node.memory_bytes {
            no_memory += 1;
        } else {
            // Shares in thousandths: the same on every machine.
            let share = cpu * 1000 / node.cpu_millis.max(1) + memory * 1000 / node.memory_bytes.max(1);
            let same_owner = load.by_owner.get(&owner(pod)).copied().unwrap_or(0);
            let rank = (same_owner, share, node.name.as_str());
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
            }
        }
    }
    best.map(|(_, _, node)| node).ok_or_else(|| {
        let reasons = [
            (no_cpu, "Insufficient cpu"),
            (no_memory, "Insufficient memory"),
            (no_match, "node(s) didn't match Pod's node affinity/selector"),
        ];
        let told: Vec<String> = reasons
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, text)| format!("{count} {text}"))
            .collect();
        if nodes.is_empty() {
            "no nodes available to schedule pods".to_owned()
        } else {
            format!("0/{} nodes are available: {}.", nodes.len(), told.join(", "))
        }
    })
}

fn owner(pod: &Pod) -> String {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    owners.first().map_or_else(|| pod.metadata.uid.clone().unwrap_or_default(), |owner| owner.uid.clone())
}

fn requests(pod: &Pod) -> Requests {
    let mut sum = Requests::default();
    for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
        let requested = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let amount = |name: &str| {
            requested.and_then(|all| all.get(name)).and_then(milli_value).unwrap_or(0).max(0) as u64
        };
        sum.cpu_millis += amount("cpu");
        sum.memory_bytes += amount("memory") / 1000;
    }
    sum
}

async fn bind(client: &Client, key: &Key, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": key.1, "namespace": key.0, "uid": pod.metadata.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let request = http::Request::post(format!("/api/v1/namespaces/{}/pods/{}/binding", key.0, key.1))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .expect("names of stored objects are valid in a path");
    client.request::<Value>(request).await.map(|_| ())
}

async fn mark_unschedulable(client: &Client, now: clock::Timestamp, key: &Key, pod: &Pod, why: &str) {
    let condition = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("Unschedulable".into()),
        message: Some(why.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    };
    let known = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    if known
        .into_iter()
        .flatten()
        .any(|known| known.type_ == "PodScheduled" && known.message == condition.message)
    {
        return;
    }
    let patch = json!({"status": {"conditions": [condition]}});
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.0);
    // The pod may be gone by now; then there is nothing to mark.
    let _ = api.patch_status(&key.1, &PatchParams::default(), &Patch::Merge(patch)).await;
}
