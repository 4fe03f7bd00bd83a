//! Creating and deleting an owner's pods: names, expectations, events, and which failures are none (client-go's
//! `PodControl`).

use std::fmt::Debug;
use std::sync::Arc;

use clock::{Clock, Rng};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::{Client, Resource, ResourceExt as _};
use program::{Api, Informer};

use super::event_recorder::{EventRecorder, reference};
use super::expectations::Expectations;
use super::name_suffix::generated_name;
use super::{Key, api_message, is_namespace_terminating};

/// What a controller of pods works with.
pub(super) struct PodControl {
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) events: EventRecorder,
    pub(super) pods: Informer<Pod>,
    pub(super) expectations: Expectations,
}

impl PodControl {
    /// A name that no pod has: a restarted controller draws the same ones again.
    pub(super) fn name(&self, namespace: &str, base: &str, names: &mut Rng) -> String {
        let mut name = generated_name(base, names);
        while self.pods.get(namespace, &name).is_some() {
            name = generated_name(base, names);
        }
        name
    }

    /// Creates a pod of an owner; nothing if their namespace goes away.
    pub(super) async fn create<K>(
        &self,
        key: &Key,
        owner: &K,
        pod: &Pod,
    ) -> Result<Option<Arc<Pod>>, kube::Error>
    where
        K: Resource<DynamicType = ()> + Debug,
    {
        let name = pod.name_any();
        self.expectations.creating(key, &name, self.clock.elapsed());
        match self.api(key).create(pod).await {
            Ok(created) => {
                self.events.normal(&reference(owner), "SuccessfulCreate", format!("Created pod: {name}"));
                created.read().map(Some)
            }
            Err(error) => {
                self.expectations.failed(key, &name);
                if is_namespace_terminating(&error) {
                    return Ok(None);
                }
                self.failed(&reference(owner), "FailedCreate", "creating", &error);
                Err(error)
            }
        }
    }

    /// Deletes the pod with a name and uid of an owner. That it has gone meanwhile is no failure.
    pub(super) async fn delete<K>(
        &self,
        key: &Key,
        owner: &K,
        name: &str,
        uid: Option<String>,
    ) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = ()> + Debug,
    {
        self.expectations.deleting(key, name, self.clock.elapsed());
        let same = Preconditions { uid, resource_version: None };
        match self.api(key).delete(name, &DeleteParams::default().preconditions(same)).await {
            Ok(_) => {
                self.events.normal(&reference(owner), "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) => {
                self.expectations.failed(key, name);
                if matches!(&error, kube::Error::Api(status) if status.is_not_found()) {
                    return Ok(());
                }
                self.failed(&reference(owner), "FailedDelete", "deleting", &error);
                Err(error)
            }
        }
    }

    /// Deletes pods of an owner; the first failure is told when all were tried.
    pub(super) async fn delete_all<K>(
        &self,
        key: &Key,
        owner: &K,
        pods: &[Arc<Pod>],
    ) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = ()> + Debug,
    {
        let mut first = Ok(());
        for pod in pods {
            let deleted = self.delete(key, owner, &pod.name_any(), pod.metadata.uid.clone()).await;
            first = first.and(deleted);
        }
        first
    }

    fn failed(&self, owner: &ObjectReference, reason: &str, doing: &str, error: &kube::Error) {
        self.events.warning(owner, reason, format!("Error {doing}: {}", api_message(error)));
    }

    fn api(&self, key: &Key) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}
