//! The scheduler: binds pods to nodes.
//!
//! Pods go, in the order of their creation, to the node that fits and has the fewest pods of the same owner, then the
//! least of its CPU and memory requested, then the first name: the default scheduler's spreading and
//! LeastAllocated, without its randomness among equals.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{Container, Node as NodeObject, Pod, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::Patch;
use program::{Api, Change, Informer, Selection, Tasks, WorkQueue};
use serde_json::{Value, json};

use crate::Node;
use crate::controllers::milli_value;
use crate::controllers::{EventRecorder, reference};
use crate::node_affinity::admits;

/// Pods that a node takes, as the kubelet's default.
pub(crate) const PODS_MAX: usize = 110;

/// The scheduler of pods that name none.
const NAME: &str = "default-scheduler";

type Key = (String, String);

/// What a pod asks of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Requests {
    cpu_millis: u64,
    memory_bytes: u64,
}

/// What the nodes bear: pods that are bound to them, and those that are about to be.
#[derive(Default)]
struct Loads {
    nodes: BTreeMap<String, Load>,
    counted: BTreeMap<Key, Counted>,
}

/// A pod that a node bears.
struct Counted {
    uid: Option<String>,
    node: String,
    requests: Requests,
    owner: String,
}

impl Loads {
    fn observe(&mut self, change: &Change<'_, Pod>) {
        let pod = change.object();
        let key = key_of(pod);
        let is_same = |counted: &Counted| counted.uid == pod.metadata.uid;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        match (change, node) {
            // The cache does not show the binding yet.
            (Change::Applied { .. }, None) if self.counted.get(&key).is_none_or(is_same) => {}
            (Change::Applied { .. }, Some(node)) if !has_ended(pod) => {
                let is_known = |counted: &Counted| is_same(counted) && counted.node == node;
                if !self.counted.get(&key).is_some_and(is_known) {
                    self.forget(&key);
                    self.count(key, pod, node);
                }
            }
            _ => self.forget(&key),
        }
    }

    fn count(&mut self, key: Key, pod: &Pod, node: &str) {
        let counted = Counted {
            uid: pod.metadata.uid.clone(),
            node: node.to_owned(),
            requests: requests(pod),
            owner: owner(pod),
        };
        let load = self.nodes.entry(counted.node.clone()).or_default();
        load.requests.cpu_millis += counted.requests.cpu_millis;
        load.requests.memory_bytes += counted.requests.memory_bytes;
        load.pods += 1;
        *load.by_owner.entry(counted.owner.clone()).or_default() += 1;
        self.counted.insert(key, counted);
    }

    fn forget(&mut self, key: &Key) {
        let Some(counted) = self.counted.remove(key) else { return };
        let Some(load) = self.nodes.get_mut(&counted.node) else { return };
        load.requests.cpu_millis -= counted.requests.cpu_millis;
        load.requests.memory_bytes -= counted.requests.memory_bytes;
        load.pods -= 1;
        if let Some(count) = load.by_owner.get_mut(&counted.owner) {
            *count -= 1;
            if *count == 0 {
                load.by_owner.remove(&counted.owner);
            }
        }
    }
}

#[derive(Debug, Default)]
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
    let loads: Arc<Mutex<Loads>> = Arc::default();
    let on_loads = Arc::clone(&loads);
    let pods = Informer::start(tasks, clock, Api::all(client.clone()), Selection::default(), move |change| {
        on_loads.lock().expect("no holder of this lock panics").observe(&change);
        let wants_node = |pod: &Pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.spec.as_ref().is_some_and(|spec| {
                    spec.node_name.is_none() && spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
                })
        };
        let frees_room = match &change {
            Change::Applied { old: Some(old), new } => has_ended(new) && !has_ended(old),
            Change::Applied { old: None, .. } => false,
            Change::Deleted(_) => true,
        };
        match change {
            Change::Applied { old: None, new } if wants_node(new) => on_queue.add(key_of(new)),
            // Those who wait are tried again.
            _ if frees_room => {
                for key in on_waiting.lock().expect("no holder of this lock panics").drain(..) {
                    on_queue.add(key);
                }
            }
            _ => {}
        }
    });
    let on_nodes = (queue.clone(), Arc::clone(&waiting));
    // A node's labels may change; its size does not.
    let objects: Informer<NodeObject> =
        Informer::start(tasks, clock, Api::all(client.clone()), Selection::default(), move |_| {
            for key in on_nodes.1.lock().expect("no holder of this lock panics").drain(..) {
                on_nodes.0.add(key);
            }
        });
    let events = events.component(NAME, None);
    tasks.spawn(async move {
        pods.synced().await;
        objects.synced().await;
        loop {
            let key = queue.next().await;
            let Some(pod) = pods.get(&key.0, &key.1) else { continue };
            if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_some()) {
                continue;
            }
            let lock = || loads.lock().expect("no holder of this lock panics");
            let labels = |node: &Node| {
                let object = objects.get("", &node.name);
                object.and_then(|object| object.metadata.labels.clone()).unwrap_or_default()
            };
            let chosen = choose(&nodes, labels, &lock().nodes, &pod);
            match chosen {
                Ok(node) => {
                    lock().count(key.clone(), &pod, node);
                    if bind(&client, &key, &pod, node).await.is_err() {
                        lock().forget(&key);
                        queue.retry(key);
                        continue;
                    }
                    queue.forget(&key);
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

/// The best node for a pod.
///
/// # Errors
/// The scheduler's message when none fits.
fn choose<'a>(
    nodes: &'a [Node],
    labels: impl Fn(&Node) -> BTreeMap<String, String>,
    loads: &BTreeMap<String, Load>,
    pod: &Pod,
) -> Result<&'a str, String> {
    let wants = requests(pod);
    // Most pods go anywhere: then nobody looks at labels.
    let chooses = |spec: &&PodSpec| spec.node_selector.is_some() || spec.affinity.is_some();
    let choosy = pod.spec.as_ref().filter(chooses);
    let unloaded = Load::default();
    let own = owner(pod);
    let [mut no_cpu, mut no_memory, mut no_match, mut no_place] = [0; 4];
    let mut best: Option<(usize, u64, &str)> = None;
    for node in nodes {
        let load = loads.get(&node.name).unwrap_or(&unloaded);
        if choosy.is_some_and(|spec| !admits(spec, &node.name, &labels(node))) {
            no_match += 1;
            continue;
        }
        let cpu = load.requests.cpu_millis + wants.cpu_millis;
        let memory = load.requests.memory_bytes + wants.memory_bytes;
        let (lacks_cpu, lacks_memory) = (
            wants.cpu_millis > 0 && cpu > node.cpu_millis,
            wants.memory_bytes > 0 && memory > node.memory_bytes,
        );
        let is_full = load.pods >= PODS_MAX;
        no_cpu += usize::from(lacks_cpu);
        no_memory += usize::from(lacks_memory);
        no_place += usize::from(is_full);
        if !(lacks_cpu || lacks_memory || is_full) {
            // Shares in thousandths: the same on every machine.
            let share = cpu * 1000 / node.cpu_millis.max(1) + memory * 1000 / node.memory_bytes.max(1);
            let same_owner = load.by_owner.get(&own).copied().unwrap_or(0);
            let rank = (same_owner, share, node.name.as_str());
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
            }
        }
    }
    best.map(|(_, _, node)| node).ok_or_else(|| {
        if nodes.is_empty() {
            return "no nodes available to schedule pods".to_owned();
        }
        let told = |mut reasons: Vec<(usize, &str)>| {
            reasons.retain(|(count, _)| *count > 0);
            let mut texts: Vec<String> =
                reasons.iter().map(|(count, text)| format!("{count} {text}")).collect();
            texts.sort_unstable();
            format!("0/{} nodes are available: {}.", nodes.len(), texts.join(", "))
        };
        let filtered = told(vec![
            (no_cpu, "Insufficient cpu"),
            (no_memory, "Insufficient memory"),
            (no_place, "Too many pods"),
            (no_match, "node(s) didn't match Pod's node affinity/selector"),
        ]);
        let preempted = told(vec![
            (nodes.len() - no_match, "No preemption victims found for incoming pod"),
            (no_match, "Preemption is not helpful for scheduling"),
        ]);
        format!("{filtered} preemption: {preempted}")
    })
}

fn owner(pod: &Pod) -> String {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    owners.first().map_or_else(|| pod.metadata.uid.clone().unwrap_or_default(), |owner| owner.uid.clone())
}

/// What a pod asks for: all that runs together, or its largest init container with the sidecars before it.
fn requests(pod: &Pod) -> Requests {
    let of = |container: &Container| {
        let requested = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let amount = |name: &str| {
            requested.and_then(|all| all.get(name)).and_then(milli_value).unwrap_or(0).max(0) as u64
        };
        Requests { cpu_millis: amount("cpu"), memory_bytes: amount("memory") / 1000 }
    };
    let plus = |one: Requests, other: Requests| Requests {
        cpu_millis: one.cpu_millis + other.cpu_millis,
        memory_bytes: one.memory_bytes + other.memory_bytes,
    };
    let (mut sidecars, mut most) = (Requests::default(), Requests::default());
    let Some(spec) = &pod.spec else { return sidecars };
    for container in spec.init_containers.iter().flatten() {
        let at_its_time = plus(sidecars, of(container));
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = at_its_time;
        }
        most.cpu_millis = most.cpu_millis.max(at_its_time.cpu_millis);
        most.memory_bytes = most.memory_bytes.max(at_its_time.memory_bytes);
    }
    let together = spec.containers.iter().map(of).fold(sidecars, plus);
    Requests {
        cpu_millis: most.cpu_millis.max(together.cpu_millis),
        memory_bytes: most.memory_bytes.max(together.memory_bytes),
    }
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
    let _ = api.patch_status(&key.1, &Patch::Merge(patch)).await;
}
