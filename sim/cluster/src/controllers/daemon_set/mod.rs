//! The DaemonSet controller: a pod on every node that the template's selector and affinity admit.
//!
//! Which pods come and go is decided in `placement`, the numbers in `status`. Revisions are kept as
//! ControllerRevisions, so that `kubectl rollout history` has something to tell.

mod placement;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use clock::{Rng, Seed};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use program::{Api, Change, Informer, WorkQueue};
use serde_json::json;

use super::deployment::template_hash;
use super::event_recorder::reference;
use super::index::Index;
use super::ownership::{self, carry_out, claim, controller_reference};
use super::pod_control::PodControl;
use super::pod_state::available_in;
use super::selector::is_empty;
use super::{Key, Reconcile};
use crate::node_affinity::admits;
use placement::{HASH_LABEL, Limits, Moves, Place, Policy};

/// Pods created or deleted in one go at most.
const BURST: usize = 250;
/// Node conditions that a daemon's pod stays through.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// DaemonSets that a change of a pod concerns.
pub(super) fn owners_of(change: &Change<'_, Pod>, daemon_sets: &Informer<DaemonSet>) -> Vec<Key> {
    let selector = |set: &DaemonSet| set.spec.as_ref().map(|spec| spec.selector.clone());
    ownership::owners_of(change, "DaemonSet", daemon_sets, selector)
}

/// Whether a change of a node may move pods.
pub(super) fn concerns(change: &Change<'_, Node>) -> bool {
    match change {
        Change::Applied { old: Some(old), new } => old.metadata.labels != new.metadata.labels,
        _ => true,
    }
}

pub(super) struct DaemonSetController {
    pub(super) control: PodControl,
    pub(super) names: Seed,
    pub(super) queue: WorkQueue<Key>,
    pub(super) daemon_sets: Informer<DaemonSet>,
    pub(super) nodes: Informer<Node>,
    /// The pods and revisions, by label and owner.
    pub(super) pod_index: Index<Pod>,
    pub(super) revision_index: Index<ControllerRevision>,
    /// The name stream of each live DaemonSet.
    pub(super) drawn: BTreeMap<Key, Rng>,
}

impl Reconcile for DaemonSetController {
    async fn sync(&mut self, key: &Key) -> Result<(), kube::Error> {
        let Some(set) = self.daemon_sets.get(&key.namespace, &key.name) else {
            self.control.expectations.forget(key);
            self.drawn.remove(key);
            return Ok(());
        };
        let Some(spec) = set.spec.as_ref().filter(|_| set.metadata.deletion_timestamp.is_none()) else {
            return Ok(());
        };
        if is_empty(&spec.selector) {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.control.events.warning(&reference(set.as_ref()), "SelectingAll", message.to_owned());
            return Ok(());
        }
        let settled = self.control.expectations.settled(key, self.control.clock.elapsed());
        let hash =
            template_hash(&spec.template, set.status.as_ref().and_then(|status| status.collision_count));
        self.record_revision(key, &set, spec, &hash).await?;
        let places = self.places(&set, spec).await?;
        let wanted = places.iter().filter(|place| place.is_wanted).count();
        let min_ready_seconds = spec.min_ready_seconds.unwrap_or(0);
        let (limits, now) = (Limits::of(spec, wanted), self.control.clock.now());
        let policy = Policy { hash: &hash, min_ready_seconds, limits, now };
        let mut moved = Ok(());
        if settled {
            moved = self.make(key, &set, spec, &hash, policy.manage(&places)).await;
            let strategy = spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
            // A rollout begins from a settled picture.
            if moved.is_ok()
                && strategy != Some("OnDelete")
                && self.control.expectations.settled(key, self.control.clock.elapsed())
            {
                moved = self.make(key, &set, spec, &hash, policy.roll(&places)).await;
            }
        }
        let mut status = status::calculate(&set, &places, &policy);
        if !settled {
            // This generation has not been acted on yet.
            status.observed_generation = set.status.as_ref().and_then(|status| status.observed_generation);
        }
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.as_ref().clone();
            updated.status = Some(status);
            let api: Api<DaemonSet> = Api::namespaced(self.control.client.clone(), &key.namespace);
            match api.replace_status(&key.name, &updated).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                result => drop(result?),
            }
        }
        let waits = places
            .iter()
            .flat_map(|place| &place.pods)
            .filter_map(|pod| available_in(pod, min_ready_seconds, now).filter(|wait| !wait.is_zero()));
        if let Some(wait) = waits.min() {
            self.queue.add_after(key.clone(), wait);
        }
        moved
    }
}

impl DaemonSetController {
    /// Keeps the template as a ControllerRevision, the newest with the highest number.
    async fn record_revision(
        &self,
        key: &Key,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        hash: &str,
    ) -> Result<(), kube::Error> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut known = self.revision_index.owned_by(uid);
        known.sort_by_key(|revision| revision.revision);
        let newest = known.last().map_or(0, |revision| revision.revision);
        let api: Api<ControllerRevision> = Api::namespaced(self.control.client.clone(), &key.namespace);
        let name = format!("{}-{hash}", key.name);
        match known.iter().find(|revision| revision.name_any() == name) {
            Some(current) if current.revision == newest => {}
            Some(current) => {
                let mut current = current.as_ref().clone();
                current.revision = newest + 1;
                api.replace(&name, &current).await?;
            }
            None => {
                let mut labels = template_labels(spec);
                labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
                let mut template = json!(spec.template);
                template["$patch"] = "replace".into();
                let revision = ControllerRevision {
                    metadata: ObjectMeta {
                        name: Some(name),
                        namespace: Some(key.namespace.clone()),
                        labels: Some(labels),
                        annotations: set.metadata.annotations.clone(),
                        owner_references: Some(vec![controller_reference(set)]),
                        ..ObjectMeta::default()
                    },
                    data: Some(RawExtension(json!({"spec": {"template": template}}))),
                    revision: newest + 1,
                };
                match api.create(&revision).await {
                    // The cache has not seen the last sync's yet.
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                    result => drop(result?),
                }
            }
        }
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let pods = self.pod_index.owned_by(uid);
        let is_live = |revision: &ControllerRevision| {
            let hash_of =
                |meta: &ObjectMeta| meta.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).cloned();
            let hash_of_revision = hash_of(&revision.metadata);
            hash_of_revision.as_deref() == Some(hash)
                || pods.iter().any(|pod| hash_of(&pod.metadata) == hash_of_revision)
        };
        let dead: Vec<_> = known.iter().filter(|revision| !is_live(revision)).collect();
        for revision in dead.iter().take(dead.len().saturating_sub(limit)) {
            match api.delete(&revision.name_any(), &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    /// Every node with the set's pods on it, after adopting and releasing.
    async fn places(&self, set: &DaemonSet, spec: &DaemonSetSpec) -> Result<Vec<Place>, kube::Error> {
        let namespace = set.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.control.client.clone(), &namespace);
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in self.pod_index.candidates(&namespace, &spec.selector, set.metadata.uid.as_deref()) {
            let claim = claim(&set.metadata, &spec.selector, &pod.metadata);
            if carry_out(&api, set, pod.as_ref(), claim).await?
                && let Some(node) = node_of(&pod)
            {
                by_node.entry(node).or_default().push(pod);
            }
        }
        let template = spec.template.spec.clone().unwrap_or_default();
        let place = |node: &Arc<Node>| {
            let name = node.name_any();
            let mut pods = by_node.remove(&name).unwrap_or_default();
            let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            pods.sort_by(|one, other| {
                age(one).cmp(&age(other)).then_with(|| one.metadata.name.cmp(&other.metadata.name))
            });
            Place { is_wanted: admits(&template, &name, node.labels()), node: name, pods }
        };
        Ok(self.nodes.list().iter().map(place).collect())
    }

    /// Carries moves out.
    async fn make(
        &mut self,
        key: &Key,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        hash: &str,
        moves: Moves,
    ) -> Result<(), kube::Error> {
        let purpose = || format!("{}/{}/{}", key.namespace, key.name, set.uid().unwrap_or_default());
        let names = self.drawn.entry(key.clone()).or_insert_with(|| self.names.stream(&purpose()));
        for node in moves.create.iter().take(BURST) {
            let name = self.control.name(&key.namespace, &format!("{}-", key.name), names);
            if self.control.create(key, set, &pod_of(set, spec, hash, node, name)).await?.is_none() {
                return Ok(());
            }
        }
        for name in moves.delete.iter().take(BURST) {
            let pod = self.control.pods.get(&key.namespace, name);
            let uid = pod.and_then(|pod| pod.metadata.uid.clone());
            self.control.delete(key, set, name, uid).await?;
        }
        Ok(())
    }
}

/// The node that a pod is on, or that it was made for.
fn node_of(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = &spec.node_name {
        return Some(node.clone());
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields.into_iter().find(|field| field.key == "metadata.name")?.values.as_ref()?.first().cloned()
}

fn template_labels(spec: &DaemonSetSpec) -> BTreeMap<String, String> {
    spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default()
}

/// A pod that the scheduler can put on one node only.
fn pod_of(set: &DaemonSet, spec: &DaemonSetSpec, hash: &str, node: &str, name: String) -> Pod {
    let meta = spec.template.metadata.as_ref();
    let mut labels = template_labels(spec);
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    let mut pod: PodSpec = spec.template.spec.clone().unwrap_or_default();
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        ..NodeSelectorTerm::default()
    };
    // The template's own terms have chosen the node already.
    let affinity = pod.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_default()
        .node_selector_terms = vec![term];
    let tolerations = pod.tolerations.get_or_insert_default();
    tolerations.extend(TOLERATED.iter().map(|(key, effect)| Toleration {
        key: Some((*key).to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some((*effect).to_owned()),
        ..Toleration::default()
    }));
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{}-", set.name_any())),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: meta.and_then(|meta| meta.annotations.clone()),
            finalizers: meta.and_then(|meta| meta.finalizers.clone()),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod),
        status: None,
    }
}
