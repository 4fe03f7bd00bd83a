//! The Deployment controller: rolls ReplicaSets from one template to the next.
//!
//! Sizes are decided in `rollout`, revisions in `revision`, status and conditions in `status`; this file
//! reads, asks them, and writes. It follows `pkg/controller/deployment` of Kubernetes step by step, because a
//! rollout's visible order of writes comes from there.

mod revision;
mod rollout;
mod status;

use std::sync::Arc;

use clock::{Clock, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DeleteParams;
use kube::{Client, ResourceExt as _};
use program::{Api, Change, Informer, WorkQueue};

use super::event_recorder::{EventRecorder, reference};
use super::index::Index;
use super::ownership::{carry_out, claim, controller_name, controller_of, controller_reference};
use super::pod_state::phase;
use super::selector::{is_empty, selects};
use super::{Key, Reconcile};
pub(super) use revision::template_hash;
use rollout::{Limits, SetSize, Share};

/// Deployments that a change of a ReplicaSet concerns: its controllers before and after, or those that may
/// adopt it.
pub(super) fn owners_of(change: &Change<'_, ReplicaSet>, deployments: &Informer<Deployment>) -> Vec<Key> {
    let set = change.object();
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    let mut keys = Vec::new();
    let old = match change {
        Change::Applied { old, .. } => *old,
        Change::Deleted(_) => None,
    };
    for set in std::iter::once(set).chain(old) {
        if let Some(name) = controller_name(&set.metadata, "Deployment") {
            let key = Key { namespace: namespace.clone(), name: name.to_owned() };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    if matches!(change, Change::Applied { .. }) && controller_of(&set.metadata).is_none() {
        for deployment in deployments.list() {
            let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
            if deployment.metadata.namespace == set.metadata.namespace
                && selector.is_some_and(|s| !is_empty(s) && selects(s, set.metadata.labels.as_ref()))
            {
                keys.push(Key::of(deployment.as_ref()));
            }
        }
    }
    keys
}

/// The Deployment of strategy Recreate that may go on now that a pod is gone.
pub(super) fn recreate_waiting_for(
    change: &Change<'_, Pod>,
    replica_sets: &Informer<ReplicaSet>,
    deployments: &Informer<Deployment>,
) -> Option<Key> {
    let Change::Deleted(pod) = change else { return None };
    let namespace = pod.metadata.namespace.as_deref()?;
    let set = replica_sets.get(namespace, controller_name(&pod.metadata, "ReplicaSet")?)?;
    let deployment = deployments.get(namespace, controller_name(&set.metadata, "Deployment")?)?;
    let recreates = deployment.spec.as_ref().is_some_and(|spec| !rollout::is_rolling(spec));
    recreates.then(|| Key::of(deployment.as_ref()))
}

pub(super) struct DeploymentController {
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) events: EventRecorder,
    pub(super) queue: WorkQueue<Key>,
    pub(super) deployments: Informer<Deployment>,
    /// The sets and pods, by label and owner.
    pub(super) set_index: Index<ReplicaSet>,
    pub(super) pod_index: Index<Pod>,
}

impl Reconcile for DeploymentController {
    async fn sync(&mut self, key: &Key) -> Result<(), kube::Error> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else { return Ok(()) };
        let Some(spec) = deployment.spec.clone() else { return Ok(()) };
        let mut step = Step {
            controller: self,
            deployments: Api::namespaced(self.client.clone(), &key.namespace),
            sets: Api::namespaced(self.client.clone(), &key.namespace),
            limits: Limits::of(&spec),
            rolling: rollout::is_rolling(&spec),
            deployment,
            spec,
            new: None,
            old: Vec::new(),
            now: self.clock.now(),
        };
        step.run().await
    }
}

/// One sync of one Deployment.
struct Step<'a> {
    controller: &'a DeploymentController,
    deployments: Api<Deployment>,
    sets: Api<ReplicaSet>,
    deployment: Arc<Deployment>,
    spec: DeploymentSpec,
    limits: Limits,
    rolling: bool,
    /// The set of the current template.
    new: Option<Arc<ReplicaSet>>,
    /// All other sets, oldest first.
    old: Vec<Arc<ReplicaSet>>,
    now: Timestamp,
}

impl Step<'_> {
    async fn run(&mut self) -> Result<(), kube::Error> {
        if is_empty(&self.spec.selector) {
            let object = reference(&*self.deployment);
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.controller.events.warning(&object, "SelectingAll", message);
            let mut status = self.deployment.status.clone().unwrap_or_default();
            status.observed_generation = self.deployment.metadata.generation;
            return self.write_status(status).await;
        }
        let mut sets = self.owned_sets().await?;
        revision::sort_by_age(&mut sets);
        (self.new, self.old) = revision::split(&self.deployment, sets);
        if self.deployment.metadata.deletion_timestamp.is_some() {
            let status = status::calculate(&self.deployment, self.new.as_ref(), &self.old, self.now);
            return self.write_status(status).await;
        }
        if let Some(condition) = status::paused_condition(&self.deployment, self.now) {
            let mut status = self.deployment.status.clone().unwrap_or_default();
            status::set(&mut status, condition);
            self.write_status(status).await?;
        }
        let paused = self.spec.paused == Some(true);
        if paused || self.is_scaling() {
            self.adopt_revision().await?;
            self.scale().await?;
            if paused {
                self.clean_up().await?;
            }
            let status = status::calculate(&self.deployment, self.new.as_ref(), &self.old, self.now);
            return self.write_status(status).await;
        }
        if self.rolling {
            self.roll().await?
        } else {
            self.recreate().await?
        }
        self.write_step_status().await
    }

    /// The Deployment's ReplicaSets, after adopting and releasing.
    async fn owned_sets(&self) -> Result<Vec<Arc<ReplicaSet>>, kube::Error> {
        let mut owned = Vec::new();
        let meta = &self.deployment.metadata;
        let (namespace, uid) = (meta.namespace.as_deref().unwrap_or_default(), meta.uid.as_deref());
        for set in self.controller.set_index.candidates(namespace, &self.spec.selector, uid) {
            let claim = claim(&self.deployment.metadata, &self.spec.selector, &set.metadata);
            if carry_out(&self.sets, &*self.deployment, set.as_ref(), claim).await? {
                owned.push(set);
            }
        }
        Ok(owned)
    }

    /// Whether the Deployment's size differs from what its active sets were last scaled for.
    fn is_scaling(&self) -> bool {
        self.old.iter().chain(&self.new).filter(|set| replicas(set) > 0).any(|set| {
            revision::number(set, revision::DESIRED_REPLICAS)
                .is_some_and(|desired| desired != self.limits.replicas)
        })
    }

    async fn roll(&mut self) -> Result<(), kube::Error> {
        self.ensure_new().await?;
        let Some(new) = self.new.clone() else { return Ok(()) };
        let wanted = self.limits.new_set(true, replicas(&new), self.total());
        if self.resize_new(wanted).await? {
            return Ok(());
        }
        let active: Vec<usize> =
            (0..self.old.len()).filter(|&index| replicas(&self.old[index]) > 0).collect();
        let size = |set: &ReplicaSet| SetSize { replicas: replicas(set), available: status::available(set) };
        let old: Vec<SetSize> = active.iter().map(|&index| size(&self.old[index])).collect();
        let sizes = self.limits.old_sets(size(&new), &old);
        let mut shrunk = false;
        for (&index, wanted) in active.iter().zip(sizes) {
            shrunk |= self.resize_old(index, wanted).await?;
        }
        let complete = |status: &DeploymentStatus| status::is_complete(&self.deployment, status);
        if !shrunk && self.deployment.status.as_ref().is_some_and(complete) {
            self.clean_up().await?;
        }
        Ok(())
    }

    async fn recreate(&mut self) -> Result<(), kube::Error> {
        self.adopt_revision().await?;
        let mut shrunk = false;
        for index in 0..self.old.len() {
            shrunk |= self.resize_old(index, 0).await?;
        }
        if shrunk || self.old_pods_run() {
            return Ok(());
        }
        self.ensure_new().await?;
        self.resize_new(self.limits.replicas).await?;
        let complete = |status: &DeploymentStatus| status::is_complete(&self.deployment, status);
        if self.deployment.status.as_ref().is_some_and(complete) {
            self.clean_up().await?;
        }
        Ok(())
    }

    fn old_pods_run(&self) -> bool {
        if self.old.iter().any(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0)) {
            return true;
        }
        let uids = self.old.iter().filter_map(|set| set.metadata.uid.as_deref());
        let mut pods = uids.flat_map(|uid| self.controller.pod_index.owned_by(uid));
        pods.any(|pod| !matches!(phase(&pod), "Failed" | "Succeeded"))
    }

    /// Brings an existing current set's annotations and the Deployment's revision up to date.
    async fn adopt_revision(&mut self) -> Result<(), kube::Error> {
        let Some(set) = self.new.clone() else { return Ok(()) };
        let mut updated = set.as_ref().clone();
        let current = revision::next_revision(&self.old);
        let annotations = updated.metadata.annotations.get_or_insert_default();
        let changed = revision::annotate(annotations, self.deployment.annotations(), current);
        let min_ready = self.spec.min_ready_seconds.filter(|seconds| *seconds != 0);
        let spec = updated.spec.get_or_insert_default();
        if changed || spec.min_ready_seconds.filter(|seconds| *seconds != 0) != min_ready {
            spec.min_ready_seconds = self.spec.min_ready_seconds;
            let name = set.name_any();
            self.new = Some(self.sets.replace(&name, &updated).await?.read()?);
            // The set's own event leads back here.
            return Ok(());
        }
        let number = set.annotations().get(revision::REVISION).cloned().unwrap_or_default();
        let mut status = self.deployment.status.clone().unwrap_or_default();
        let known = status::find(&status, status::PROGRESSING).is_some();
        if status::deadline(&self.spec).is_some() && !known {
            let message = format!("Found new replica set {:?}", set.name_any());
            let found =
                status::condition(status::PROGRESSING, "True", "FoundNewReplicaSet", message, self.now);
            status::set(&mut status, found);
        }
        self.write_revision(number, status).await
    }

    /// Adopts the current template's set, or creates it.
    async fn ensure_new(&mut self) -> Result<(), kube::Error> {
        if self.new.is_some() {
            return self.adopt_revision().await;
        }
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = revision::template_hash(&self.spec.template, collisions);
        let number = revision::next_revision(&self.old);
        let set = self.new_set(&hash, number);
        let name = set.name_any();
        let size = replicas(&set);
        let (created, existed) = match self.sets.create(&set).await {
            Ok(created) => (created.read()?, false),
            Err(kube::Error::Api(failure)) if failure.is_already_exists() => {
                let existing = self.sets.get(&name).await?;
                let template = existing.spec.as_ref().and_then(|spec| spec.template.as_ref());
                let own = controller_of(&existing.metadata).map(|owner| &owner.uid)
                    == self.deployment.metadata.uid.as_ref();
                if own && template.is_some_and(|t| revision::same_template(t, &self.spec.template)) {
                    (existing, true)
                } else {
                    // Another template has this hash: count the collision, which changes the hash, and try
                    // again.
                    let mut status = self.deployment.status.clone().unwrap_or_default();
                    status.collision_count = Some(collisions.unwrap_or(0) + 1);
                    self.write_status(status).await?;
                    return Err(kube::Error::Api(failure));
                }
            }
            Err(error) => {
                if status::deadline(&self.spec).is_some() {
                    let message = format!("Failed to create new replica set {name:?}: {error}");
                    let mut status = self.deployment.status.clone().unwrap_or_default();
                    let reason = "ReplicaSetCreateError";
                    let failed = status::condition(status::PROGRESSING, "False", reason, message, self.now);
                    status::set(&mut status, failed);
                    self.write_status(status).await?;
                }
                return Err(error);
            }
        };
        if !existed && size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            self.controller.events.normal(&reference(&*self.deployment), "ScalingReplicaSet", message);
        }
        self.new = Some(created);
        let mut status = self.deployment.status.clone().unwrap_or_default();
        if !existed && status::deadline(&self.spec).is_some() {
            let message = format!("Created new replica set {name:?}");
            let created =
                status::condition(status::PROGRESSING, "True", "NewReplicaSetCreated", message, self.now);
            status::set(&mut status, created);
        }
        self.write_revision(number.to_string(), status).await
    }

    fn new_set(&self, hash: &str, number: i64) -> ReplicaSet {
        let mut template = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(revision::HASH_LABEL.to_owned(), hash.to_owned());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector
            .match_labels
            .get_or_insert_default()
            .insert(revision::HASH_LABEL.to_owned(), hash.to_owned());
        let mut annotations = std::collections::BTreeMap::new();
        revision::annotate(&mut annotations, self.deployment.annotations(), number);
        let max = self.limits.replicas + self.limits.max_surge;
        revision::annotate_sizes(&mut annotations, self.limits.replicas, max);
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", self.deployment.name_any())),
                namespace: self.deployment.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![controller_reference(&*self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(self.limits.new_set(self.rolling, 0, self.total())),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }

    /// Resizes a Deployment that is paused, or whose size changed in the middle of a rollout.
    async fn scale(&mut self) -> Result<(), kube::Error> {
        let active: Vec<usize> =
            (0..self.old.len()).filter(|&index| replicas(&self.old[index]) > 0).collect();
        let new_active = self.new.as_ref().is_some_and(|set| replicas(set) > 0);
        match (active.as_slice(), new_active) {
            ([], _) if self.new.is_some() => {
                self.resize_new(self.limits.replicas).await?;
            }
            ([], _) => {
                if let Some(latest) = self.old.len().checked_sub(1) {
                    self.resize_old(latest, self.limits.replicas).await?;
                }
            }
            ([only], false) => {
                self.resize_old(*only, self.limits.replicas).await?;
            }
            _ if self.is_saturated() => {
                for index in active {
                    self.resize_old(index, 0).await?;
                }
            }
            _ if self.rolling => {
                let status = self.deployment.status.as_ref();
                let fallback = status.and_then(|status| status.replicas).unwrap_or(0);
                let share = |set: &ReplicaSet| Share {
                    replicas: replicas(set),
                    max_replicas: revision::number(set, revision::MAX_REPLICAS)
                        .filter(|max| *max != 0)
                        .unwrap_or(fallback),
                };
                let new = self.new.as_deref().filter(|_| new_active);
                let shares: Vec<Share> =
                    active.iter().map(|&index| self.old[index].as_ref()).chain(new).map(share).collect();
                let sizes = rollout::proportional(self.limits, &shares);
                for (&index, &size) in active.iter().zip(&sizes) {
                    self.resize_old(index, size).await?;
                }
                if let (true, Some(&size)) = (new_active, sizes.last()) {
                    self.resize_new(size).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the current set has all the pods and they are available.
    fn is_saturated(&self) -> bool {
        self.new.as_ref().is_some_and(|set| {
            replicas(set) == self.limits.replicas
                && revision::number(set, revision::DESIRED_REPLICAS) == Some(self.limits.replicas)
                && status::available(set) == self.limits.replicas
        })
    }

    async fn resize_new(&mut self, size: i32) -> Result<bool, kube::Error> {
        let Some(set) = self.new.clone() else { return Ok(false) };
        let (set, scaled) = self.resize(set, size).await?;
        self.new = Some(set);
        Ok(scaled)
    }

    async fn resize_old(&mut self, index: usize, size: i32) -> Result<bool, kube::Error> {
        let (set, scaled) = self.resize(Arc::clone(&self.old[index]), size).await?;
        self.old[index] = set;
        Ok(scaled)
    }

    async fn resize(&self, set: Arc<ReplicaSet>, size: i32) -> Result<(Arc<ReplicaSet>, bool), kube::Error> {
        let before = replicas(&set);
        let max = self.limits.replicas + self.limits.max_surge;
        let noted = revision::number(&set, revision::DESIRED_REPLICAS) == Some(self.limits.replicas)
            && revision::number(&set, revision::MAX_REPLICAS) == Some(max);
        // Upstream notes the size on a set of the right size only while it resizes the whole Deployment.
        if before == size && (noted || !self.is_scaling()) {
            return Ok((set, false));
        }
        let mut updated = set.as_ref().clone();
        updated.spec.get_or_insert_default().replicas = Some(size);
        let annotations = updated.metadata.annotations.get_or_insert_default();
        revision::annotate_sizes(annotations, self.limits.replicas, max);
        let name = set.name_any();
        let updated = self.sets.replace(&name, &updated).await?.read()?;
        if before != size {
            let direction = if size > before { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {name} from {before} to {size}");
            self.controller.events.normal(&reference(&*self.deployment), "ScalingReplicaSet", message);
        }
        Ok((updated, before != size))
    }

    async fn clean_up(&self) -> Result<(), kube::Error> {
        let limit = self.spec.revision_history_limit.unwrap_or(10);
        for set in revision::beyond_history(&self.old, limit) {
            match self.sets.delete(&set.name_any(), &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    fn total(&self) -> i32 {
        self.old.iter().chain(&self.new).map(|set| replicas(set)).sum()
    }

    /// Writes the status after a step of a rollout; a rollout that stands still is looked at again at its
    /// deadline.
    async fn write_step_status(&mut self) -> Result<(), kube::Error> {
        let status = status::after_step(&self.deployment, self.new.as_ref(), &self.old, self.now);
        if self.deployment.status.as_ref() == Some(&status) {
            if let Some(wait) = status::recheck_in(&self.deployment, &status, self.now) {
                self.controller.queue.add_after(Key::of(&*self.deployment), wait);
            }
            return Ok(());
        }
        self.write_status(status).await
    }

    /// Writes the status, if it differs.
    async fn write_status(&mut self, status: DeploymentStatus) -> Result<(), kube::Error> {
        if self.deployment.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        Arc::make_mut(&mut self.deployment).status = Some(status);
        self.write().await
    }

    /// Writes the Deployment's revision with its status: like the real server, the status subresource takes
    /// annotations, without a new generation.
    async fn write_revision(&mut self, number: String, status: DeploymentStatus) -> Result<(), kube::Error> {
        if self.deployment.annotations().get(revision::REVISION) == Some(&number) {
            return self.write_status(status).await;
        }
        let deployment = Arc::make_mut(&mut self.deployment);
        deployment.annotations_mut().insert(revision::REVISION.to_owned(), number);
        deployment.status = Some(status);
        self.write().await
    }

    async fn write(&mut self) -> Result<(), kube::Error> {
        let name = self.deployment.name_any();
        self.deployment = self.deployments.replace_status(&name, &self.deployment).await?.read()?;
        Ok(())
    }
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}
