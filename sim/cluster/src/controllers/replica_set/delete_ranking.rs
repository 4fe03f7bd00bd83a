//! Which pods a shrinking ReplicaSet, or a Job, gives up first (upstream's `ActivePodsWithRanks`). Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use clock::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::super::pod_state::{is_ready, phase, ready_since};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete. `related` are the active pods of the same workload, which tell the crowded
/// nodes.
pub(in super::super) fn first_to_go(
    pods: &[Arc<Pod>],
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut per_node: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in related {
        *per_node.entry(node(pod)).or_default() += 1;
    }
    let crowd = |pod: &Pod| per_node.get(node(pod)).copied().unwrap_or(0);
    let mut ranked = pods.to_vec();
    ranked.sort_by(|a, b| {
        (!node(a).is_empty())
            .cmp(&!node(b).is_empty())
            .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
            .then_with(|| is_ready(a).cmp(&is_ready(b)))
            .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
            .then_with(|| crowd(b).cmp(&crowd(a)))
            .then_with(|| younger_first(ready_since(a), ready_since(b), now, a, b))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| younger_first(created(a), created(b), now, a, b))
    });
    ranked.truncate(count);
    ranked
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    annotation.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).max().unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Ages differ only by their order of magnitude (upstream's LogarithmicScaleDown), so that the youngest zone
/// does not always lose; within one magnitude the uid decides.
fn younger_first(
    a: Option<Timestamp>,
    b: Option<Timestamp>,
    now: Timestamp,
    pod_a: &Pod,
    pod_b: &Pod,
) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else {
        // A pod without a time counts as the youngest.
        return a.is_some().cmp(&b.is_some());
    };
    if a == b {
        return Ordering::Equal;
    }
    magnitude(a, now).cmp(&magnitude(b, now)).then_with(|| pod_a.metadata.uid.cmp(&pod_b.metadata.uid))
}

fn magnitude(since: Timestamp, now: Timestamp) -> i64 {
    let age = now.duration_since(since).as_nanos();
    if age > 0 { i64::from(age.ilog2()) } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, ready: Option<&str>, age: i64) -> Arc<Pod> {
        let created = now() - jiff::SignedDuration::from_secs(age);
        let conditions =
            ready.map(|since| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]));
        let pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": created.to_string()},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase, "conditions": conditions},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn now() -> Timestamp {
        "2020-03-17T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn unassigned_pending_unready_crowded_then_young_pods_go_first() {
        let old = Some("2020-03-17T09:00:00Z");
        let young = Some("2020-03-17T11:59:30Z");
        let pods = [
            pod("old-ready", "node-b", "Running", old, 10_800),
            pod("young-ready", "node-b", "Running", young, 60),
            pod("crowded", "node-a", "Running", old, 10_800),
            pod("unready", "node-b", "Running", None, 10_800),
            pod("pending", "node-b", "Pending", None, 10_800),
            pod("unassigned", "", "Pending", None, 10_800),
        ];
        let mut related = pods.to_vec();
        related.extend((0..5).map(|n| pod(&format!("sibling-{n}"), "node-a", "Running", old, 100)));
        let order: Vec<_> = first_to_go(&pods, &related, 6, now())
            .iter()
            .map(|pod| pod.metadata.name.clone().unwrap())
            .collect();
        assert_eq!(order, ["unassigned", "pending", "unready", "crowded", "young-ready", "old-ready"]);
        assert_eq!(first_to_go(&pods, &related, 2, now()).len(), 2);
    }
}
