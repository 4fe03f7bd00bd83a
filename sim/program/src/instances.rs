//! Code for the kinds that many programs handle, compiled once.
//!
//! Clients and caches are generic over their kind, and the code that reads a Pod from JSON is large. Instances that a
//! crate has already are shared with those that build on it (in profiles up to `opt-level = 1`): the ones made here spare
//! half a minute of compiling in each crate of controllers.

use clock::Clock;
use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Api, Informer, Selection, Tasks};

/// Names the instances; nothing calls it.
pub fn instances(client: &Client, clock: Clock, tasks: &Tasks) -> Vec<BoxFuture<'static, ()>> {
    vec![
        of::<ConfigMap>(client, clock, tasks),
        of::<Deployment>(client, clock, tasks),
        of::<Endpoints>(client, clock, tasks),
        of::<EndpointSlice>(client, clock, tasks),
        of::<HorizontalPodAutoscaler>(client, clock, tasks),
        of::<Pod>(client, clock, tasks),
        of::<Secret>(client, clock, tasks),
        of::<Service>(client, clock, tasks),
    ]
}

fn of<K>(client: &Client, clock: Clock, tasks: &Tasks) -> BoxFuture<'static, ()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static,
{
    let (all, one) = (Api::<K>::all(client.clone()), Api::<K>::namespaced(client.clone(), ""));
    let informer = Informer::start_boxed(tasks, clock, all, Selection::default(), Box::new(|_| {}));
    Box::pin(async move {
        let patch = Patch::Merge(serde_json::Value::Null);
        drop(one.get_opt("").await);
        drop(one.patch("", &patch).await);
        drop(one.patch_status("", &patch).await);
        if let Ok(list) = one.list(&ListParams::default()).await
            && let Some(object) = list.first()
        {
            drop(one.create(object).await);
            drop(one.replace("", object).await);
            drop(one.replace_status("", object).await);
        }
        drop(informer.list());
    })
}
