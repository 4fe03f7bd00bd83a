//! The ReplicaSet controller: keeps as many pods as asked for.
//!
//! Which pods go first is in `delete_ranking`, what the status says in `status`. `expectations` keeps the
//! controller from counting on a cache that has not seen its own writes yet.

mod delete_ranking;
mod expectations;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use clock::{Clock, Rng, Seed};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use program::{Change, Informer, WorkQueue};

use super::event_recorder::{EventRecorder, reference};
use super::name_suffix::generated_name;
use super::ownership::{carry_out, claim, controller_name, controller_of, controller_reference};
use super::pod_state::{available_in, is_active};
use super::selector::{is_empty, selects};
use super::{Key, Reconcile, api_message};

pub(super) use expectations::Expectations;

/// Pods created or deleted in one go at most.
const BURST: usize = 500;

/// ReplicaSets that a change of a pod concerns: its controllers before and after, or those that may adopt it.
pub(super) fn owners_of(change: &Change<'_, Pod>, replica_sets: &Informer<ReplicaSet>) -> Vec<Key> {
    let pod = change.object();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut keys = Vec::new();
    if let Some(name) = controller_name(&pod.metadata, "ReplicaSet") {
        keys.push(Key { namespace: namespace.clone(), name: name.to_owned() });
    }
    if let Change::Applied { old: Some(old), .. } = change
        && let Some(name) = controller_name(&old.metadata, "ReplicaSet")
        && keys.first().is_none_or(|key| key.name != name)
    {
        keys.push(Key { namespace: namespace.clone(), name: name.to_owned() });
    }
    if matches!(change, Change::Applied { .. }) && controller_of(&pod.metadata).is_none() {
        let orphan_may_join = |set: &Arc<ReplicaSet>| {
            set.metadata.namespace.as_deref() == Some(namespace.as_str())
                && set.spec.as_ref().is_some_and(|spec| {
                    !is_empty(&spec.selector) && selects(&spec.selector, pod.metadata.labels.as_ref())
                })
        };
        keys.extend(
            replica_sets.list().iter().filter(|set| orphan_may_join(set)).map(|set| Key::of(set.as_ref())),
        );
    }
    keys
}

pub(super) struct ReplicaSetController {
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) events: EventRecorder,
    pub(super) names: Seed,
    pub(super) queue: WorkQueue<Key>,
    pub(super) replica_sets: Informer<ReplicaSet>,
    pub(super) pods: Informer<Pod>,
    pub(super) expectations: Expectations,
    /// The name stream of each live ReplicaSet.
    pub(super) drawn: BTreeMap<Key, Rng>,
}

impl Reconcile for ReplicaSetController {
    async fn sync(&mut self, key: &Key) -> Result<(), kube::Error> {
        let Some(set) = self.replica_sets.get(&key.namespace, &key.name) else {
            self.expectations.forget(key);
            self.drawn.remove(key);
            return Ok(());
        };
        let Some(spec) = &set.spec else { return Ok(()) };
        let settled = self.expectations.settled(key, self.clock.elapsed());
        let pods = self.claimed_pods(&set).await?;
        let managed = if settled && set.metadata.deletion_timestamp.is_none() {
            self.manage(key, &set, &pods).await
        } else {
            Ok(())
        };
        let now = self.clock.now();
        let failure = managed.as_ref().err().map(|(reason, error)| (*reason, api_message(error)));
        let status = status::calculate(&set, &pods, failure, now);
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.as_ref().clone();
            updated.status = Some(status);
            let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &key.namespace);
            match api.replace_status(&key.name, &PostParams::default(), &updated).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                result => drop(result?),
            }
        }
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let next = pods
            .iter()
            .filter_map(|pod| available_in(pod, min_ready, now))
            .filter(|wait| !wait.is_zero())
            .min();
        if let Some(wait) = next {
            self.queue.add_after(key.clone(), wait);
        }
        managed.map_err(|(_, error)| error)
    }
}

impl ReplicaSetController {
    /// The active pods that belong to the set, after adopting and releasing.
    async fn claimed_pods(&self, set: &ReplicaSet) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let namespace = set.namespace().unwrap_or_default();
        let Some(spec) = &set.spec else { return Ok(Vec::new()) };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let mut claimed = Vec::new();
        for pod in self.pods.list() {
            if pod.metadata.namespace.as_deref() != Some(namespace.as_str()) || !is_active(&pod) {
                continue;
            }
            let claim = claim(&set.metadata, &spec.selector, &pod.metadata);
            if carry_out(&api, set, pod.as_ref(), claim).await? {
                claimed.push(pod);
            }
        }
        Ok(claimed)
    }

    async fn manage(
        &mut self,
        key: &Key,
        set: &ReplicaSet,
        pods: &[Arc<Pod>],
    ) -> Result<(), (&'static str, kube::Error)> {
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        if pods.len() < wanted {
            self.create(key, set, (wanted - pods.len()).min(BURST))
                .await
                .map_err(|error| ("FailedCreate", error))
        } else if pods.len() > wanted {
            let surplus = (pods.len() - wanted).min(BURST);
            self.delete(key, set, pods, surplus).await.map_err(|error| ("FailedDelete", error))
        } else {
            Ok(())
        }
    }

    async fn create(&mut self, key: &Key, set: &ReplicaSet, count: usize) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let object = reference(set);
        // The uid sets a set apart from one that had its name before.
        let purpose = || format!("{}/{}/{}", key.namespace, key.name, set.uid().unwrap_or_default());
        let names = self.drawn.entry(key.clone()).or_insert_with(|| self.names.stream(&purpose()));
        for _ in 0..count {
            let mut name = generated_name(&format!("{}-", key.name), names);
            // A restarted controller draws the same names again.
            while self.pods.get(&key.namespace, &name).is_some() {
                name = generated_name(&format!("{}-", key.name), names);
            }
            let pod = pod_of(set, name);
            let name = pod.name_any();
            self.expectations.creating(key, &name, self.clock.elapsed());
            match api.create(&PostParams::default(), &pod).await {
                Ok(_) => self.events.normal(&object, "SuccessfulCreate", format!("Created pod: {name}")),
                Err(error) => {
                    self.expectations.failed(key, &name);
                    if is_namespace_terminating(&error) {
                        return Ok(());
                    }
                    let message = format!("Error creating: {}", api_message(&error));
                    self.events.warning(&object, "FailedCreate", message);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn delete(
        &self,
        key: &Key,
        set: &ReplicaSet,
        pods: &[Arc<Pod>],
        surplus: usize,
    ) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let object = reference(set);
        let related = self.pods_of_siblings(set);
        let doomed = delete_ranking::first_to_go(pods, &related, surplus, self.clock.now());
        let mut first_error = None;
        for pod in doomed {
            let name = pod.name_any();
            self.expectations.deleting(key, &name, self.clock.elapsed());
            let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
            match api.delete(&name, &DeleteParams::default().preconditions(same)).await {
                Ok(_) => self.events.normal(&object, "SuccessfulDelete", format!("Deleted pod: {name}")),
                Err(error) => {
                    self.expectations.failed(key, &name);
                    if !matches!(&error, kube::Error::Api(status) if status.is_not_found()) {
                        let message = format!("Error deleting: {}", api_message(&error));
                        self.events.warning(&object, "FailedDelete", message);
                        first_error.get_or_insert(error);
                    }
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Active pods of all ReplicaSets of the same Deployment: they decide which nodes are doubled up.
    fn pods_of_siblings(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let owner = controller_of(&set.metadata).map(|owner| &owner.uid);
        let siblings: Vec<_> = self
            .replica_sets
            .list()
            .into_iter()
            .filter(|other| {
                other.metadata.uid == set.metadata.uid
                    || owner.is_some() && controller_of(&other.metadata).map(|owner| &owner.uid) == owner
            })
            .filter_map(|other| other.metadata.uid.clone())
            .collect();
        let of_sibling =
            |pod: &Pod| controller_of(&pod.metadata).is_some_and(|owner| siblings.contains(&owner.uid));
        self.pods.list().into_iter().filter(|pod| is_active(pod) && of_sibling(pod)).collect()
    }
}

fn pod_of(set: &ReplicaSet, name: String) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let meta = template.and_then(|template| template.metadata.as_ref());
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{}-", set.name_any())),
            namespace: set.metadata.namespace.clone(),
            labels: meta.and_then(|meta| meta.labels.clone()),
            annotations: meta.and_then(|meta| meta.annotations.clone()),
            finalizers: meta.and_then(|meta| meta.finalizers.clone()),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.and_then(|template| template.spec.clone()),
        status: None,
    }
}

fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .any(|cause| cause.reason == "NamespaceTerminating")
}
