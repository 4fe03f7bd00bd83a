//! The ReplicaSet controller: keeps as many pods as asked for.
//!
//! Which pods go first is in `delete_ranking`, what the status says in `status`.

mod delete_ranking;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use clock::{Rng, Seed};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use program::{Api, Change, Informer, WorkQueue};

use super::index::Index;
use super::ownership::{self, carry_out, claim, controller_of, controller_reference};
use super::pod_control::PodControl;
use super::pod_state::{available_in, is_active};
use super::{Key, Reconcile, api_message};

pub(super) use delete_ranking::first_to_go;

/// Pods created or deleted in one go at most.
const BURST: usize = 500;

/// ReplicaSets that a change of a pod concerns: its controllers before and after, or those that may adopt it.
pub(super) fn owners_of(change: &Change<'_, Pod>, replica_sets: &Informer<ReplicaSet>) -> Vec<Key> {
    let selector = |set: &ReplicaSet| set.spec.as_ref().map(|spec| spec.selector.clone());
    ownership::owners_of(change, "ReplicaSet", replica_sets, selector)
}

pub(super) struct ReplicaSetController {
    pub(super) control: PodControl,
    pub(super) names: Seed,
    pub(super) queue: WorkQueue<Key>,
    pub(super) replica_sets: Informer<ReplicaSet>,
    /// The same sets and pods, by label and owner.
    pub(super) set_index: Index<ReplicaSet>,
    pub(super) pod_index: Index<Pod>,
    /// The name stream of each live ReplicaSet.
    pub(super) drawn: BTreeMap<Key, Rng>,
}

impl Reconcile for ReplicaSetController {
    async fn sync(&mut self, key: &Key) -> Result<(), kube::Error> {
        let Some(set) = self.replica_sets.get(&key.namespace, &key.name) else {
            self.control.expectations.forget(key);
            self.drawn.remove(key);
            return Ok(());
        };
        let Some(spec) = &set.spec else { return Ok(()) };
        let settled = self.control.expectations.settled(key, self.control.clock.elapsed());
        let pods = self.claimed_pods(&set).await?;
        let managed = if settled && set.metadata.deletion_timestamp.is_none() {
            self.manage(key, &set, &pods).await
        } else {
            Ok(())
        };
        let now = self.control.clock.now();
        let failure = managed.as_ref().err().map(|(reason, error)| (*reason, api_message(error)));
        let status = status::calculate(&set, &pods, failure, now);
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.as_ref().clone();
            updated.status = Some(status);
            let api: Api<ReplicaSet> = Api::namespaced(self.control.client.clone(), &key.namespace);
            match api.replace_status(&key.name, &updated).await {
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
        let api: Api<Pod> = Api::namespaced(self.control.client.clone(), &namespace);
        let mut claimed = Vec::new();
        let uid = set.metadata.uid.as_deref();
        for pod in self.pod_index.candidates(&namespace, &spec.selector, uid) {
            if !is_active(&pod) {
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
        // The uid sets a set apart from one that had its name before.
        let purpose = || format!("{}/{}/{}", key.namespace, key.name, set.uid().unwrap_or_default());
        let names = self.drawn.entry(key.clone()).or_insert_with(|| self.names.stream(&purpose()));
        for _ in 0..count {
            let name = self.control.name(&key.namespace, &format!("{}-", key.name), names);
            if self.control.create(key, set, &pod_of(set, name)).await?.is_none() {
                break;
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
        let related = self.pods_of_siblings(set);
        let doomed = first_to_go(pods, &related, surplus, self.control.clock.now());
        self.control.delete_all(key, set, &doomed).await
    }

    /// Active pods of all ReplicaSets of the same Deployment: they decide which nodes are doubled up.
    fn pods_of_siblings(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let siblings = match controller_of(&set.metadata) {
            Some(owner) => self.set_index.owned_by(&owner.uid),
            None => Vec::new(),
        };
        let mut uids: Vec<&str> =
            siblings.iter().filter_map(|sibling| sibling.metadata.uid.as_deref()).collect();
        if let Some(own) = set.metadata.uid.as_deref().filter(|own| !uids.contains(own)) {
            uids.push(own);
        }
        let mut pods: Vec<Arc<Pod>> = uids.into_iter().flat_map(|uid| self.pod_index.owned_by(uid)).collect();
        pods.retain(|pod| is_active(pod));
        pods.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        pods
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
