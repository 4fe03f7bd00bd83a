//! Which pods of a DaemonSet are made and deleted, node by node. Pure; follows `pkg/controller/daemon`
//! (`daemon_controller.go` and `update.go`).

use std::sync::Arc;
use std::time::Duration;

use clock::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSetSpec;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::pod_state::{available_in, is_ready, phase};

/// The label with a pod's revision.
pub(super) const HASH_LABEL: &str = "controller-revision-hash";

/// A node's place in the picture.
pub(super) struct Place {
    /// Its name.
    pub(super) node: String,
    /// Whether the DaemonSet wants a pod here.
    pub(super) is_wanted: bool,
    /// The DaemonSet's pods here, oldest first, those that go away included.
    pub(super) pods: Vec<Arc<Pod>>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    /// Pods to delete, by name.
    pub(super) delete: Vec<String>,
}

/// What a rollout may do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Pods above one per node.
    pub(super) max_surge: usize,
    /// Nodes without an available pod.
    pub(super) max_unavailable: usize,
}

impl Limits {
    /// The limits of a spec when so many nodes are wanted; never none at all.
    pub(super) fn of(spec: &DaemonSetSpec, wanted: usize) -> Limits {
        let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let max_surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()), wanted, 0);
        let max_unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), wanted, 1);
        let is_stuck = max_surge == 0 && max_unavailable == 0;
        Limits { max_surge, max_unavailable: if is_stuck { 1 } else { max_unavailable } }
    }
}

fn scaled(value: Option<&IntOrString>, wanted: usize, default: usize) -> usize {
    match value {
        None => default,
        Some(IntOrString::Int(count)) => usize::try_from(*count).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
            (percent * wanted).div_ceil(100)
        }
    }
}

/// A DaemonSet's rules for its pods.
pub(super) struct Policy<'a> {
    /// The current revision.
    pub(super) hash: &'a str,
    /// How long a pod must be ready to be available.
    pub(super) min_ready_seconds: i32,
    /// The rollout's limits.
    pub(super) limits: Limits,
    /// Now.
    pub(super) now: Timestamp,
}

impl Policy<'_> {
    fn is_current(&self, pod: &Pod) -> bool {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).map(String::as_str)
            == Some(self.hash)
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        available_in(pod, self.min_ready_seconds, self.now) == Some(Duration::ZERO)
    }

    /// One pod where one is wanted, none elsewhere.
    pub(super) fn manage(&self, places: &[Place]) -> Moves {
        let mut moves = Moves::default();
        for place in places {
            let staying = || place.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            if !place.is_wanted {
                moves.delete.extend(staying().map(|pod| name(pod)));
                continue;
            }
            if place.pods.is_empty() {
                moves.create.push(place.node.clone());
                continue;
            }
            let (ended, running): (Vec<_>, Vec<_>) =
                staying().partition(|pod| matches!(phase(pod), "Failed" | "Succeeded"));
            moves.delete.extend(ended.into_iter().map(|pod| name(pod)));
            if self.limits.max_surge == 0 {
                moves.delete.extend(running.iter().skip(1).map(|pod| name(pod)));
            } else if running.len() > 1 {
                moves.delete.extend(self.superfluous(&running));
            }
        }
        moves
    }

    /// Of a node's pods during a surge: all but the oldest of either revision, and the old one once it is not needed.
    fn superfluous(&self, running: &[&Arc<Pod>]) -> Vec<String> {
        let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
            running.iter().partition(|pod| self.is_current(pod));
        let mut names: Vec<String> =
            new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| name(pod)).collect();
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!is_ready(old) || self.is_available(new))
        {
            names.push(name(old));
        }
        names
    }

    /// The next part of a rolling update.
    pub(super) fn roll(&self, places: &[Place]) -> Moves {
        let mut moves = Moves::default();
        let (mut unavailable, mut surging) = (0, 0);
        let (mut candidates, mut candidate_nodes) = (Vec::new(), Vec::new());
        for place in places.iter().filter(|place| !place.pods.is_empty() || place.is_wanted) {
            let Some((new, old)) = self.pair(place) else {
                // More pods than there should be: a place that is not settled.
                (unavailable, surging) = (unavailable + 1, surging + 1);
                continue;
            };
            if self.limits.max_surge == 0 {
                match (new, old) {
                    (None, None) | (Some(_), Some(_)) => unavailable += 1,
                    (Some(new), None) => unavailable += usize::from(!self.is_available(new)),
                    // What is down anyway is replaced at no cost.
                    (None, Some(old)) if !self.is_available(old) => {
                        unavailable += 1;
                        moves.delete.push(name(old));
                    }
                    (None, Some(old)) => candidates.push(name(old)),
                }
            } else {
                match (new, old) {
                    (_, None) => {}
                    (None, Some(old)) if !self.is_available(old) => moves.create.push(place.node.clone()),
                    (None, Some(_)) => candidate_nodes.push(place.node.clone()),
                    (Some(new), Some(old)) if self.is_available(new) => moves.delete.push(name(old)),
                    (Some(_), Some(_)) => surging += 1,
                }
            }
        }
        let room = self.limits.max_unavailable.saturating_sub(unavailable);
        moves.delete.extend(candidates.into_iter().take(room));
        let room = self.limits.max_surge.saturating_sub(surging);
        moves.create.extend(candidate_nodes.into_iter().take(room));
        moves
    }

    /// A place's pods of the current and of another revision; `None` if there are several of either.
    #[expect(clippy::type_complexity, reason = "a pair of the same, named at its uses")]
    fn pair<'p>(&self, place: &'p Place) -> Option<(Option<&'p Arc<Pod>>, Option<&'p Arc<Pod>>)> {
        let staying = place.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let (new, old): (Vec<_>, Vec<_>) = staying.partition(|pod| self.is_current(pod));
        (new.len() <= 1 && old.len() <= 1).then(|| (new.first().copied(), old.first().copied()))
    }
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {HASH_LABEL: hash}},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
            }))
            .unwrap(),
        )
    }

    fn place(node: &str, is_wanted: bool, pods: &[Arc<Pod>]) -> Place {
        Place { node: node.to_owned(), is_wanted, pods: pods.to_vec() }
    }

    fn policy(max_surge: usize, max_unavailable: usize) -> Policy<'static> {
        let limits = Limits { max_surge, max_unavailable };
        Policy { hash: "new", min_ready_seconds: 0, limits, now: Timestamp::UNIX_EPOCH }
    }

    fn moves(create: &[&str], delete: &[&str]) -> Moves {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Moves { create: owned(create), delete: owned(delete) }
    }

    #[test]
    fn every_wanted_node_has_one_pod() {
        let places = [
            place("n1", true, &[]),
            place("n2", true, &[pod("a", "new", true), pod("b", "new", true)]),
            place("n3", false, &[pod("c", "new", true)]),
            place("n4", true, &[pod("d", "new", true)]),
        ];
        assert_eq!(policy(0, 1).manage(&places), moves(&["n1"], &["b", "c"]));
        let surged = [place("n1", true, &[pod("a", "old", true), pod("b", "new", true)])];
        assert_eq!(policy(1, 0).manage(&surged), moves(&[], &["a"]));
    }

    #[test]
    fn a_rollout_keeps_to_its_limits() {
        let fresh = [
            place("n1", true, &[pod("a", "old", true)]),
            place("n2", true, &[pod("b", "old", true)]),
            place("n3", true, &[pod("c", "old", true)]),
        ];
        assert_eq!(policy(0, 1).roll(&fresh), moves(&[], &["a"]));
        assert_eq!(policy(0, 2).roll(&fresh), moves(&[], &["a", "b"]));
        assert_eq!(policy(1, 0).roll(&fresh), moves(&["n1"], &[]));
        let starting = [
            place("n1", true, &[pod("d", "new", false)]),
            place("n2", true, &[pod("b", "old", true)]),
            place("n3", true, &[pod("c", "old", false)]),
        ];
        assert_eq!(policy(0, 1).roll(&starting), moves(&[], &["c"]), "one is down: only what is down too");
        let surged = [
            place("n1", true, &[pod("a", "old", true), pod("d", "new", false)]),
            place("n2", true, &[pod("b", "old", true)]),
        ];
        assert_eq!(policy(1, 0).roll(&surged), moves(&[], &[]));
        let done = [
            place("n1", true, &[pod("a", "old", true), pod("d", "new", true)]),
            place("n2", true, &[pod("b", "old", true)]),
        ];
        assert_eq!(policy(1, 0).roll(&done), moves(&["n2"], &["a"]));
    }
}
