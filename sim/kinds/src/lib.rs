//! Kubernetes' kinds as JSON.
//!
//! The code that reads a Pod is large, and every crate that reads one through serde gets its own copy, as generic code is
//! compiled where it is used. [`Kind`] has that code behind plain functions, which are compiled once, here, and can be
//! compiled for speed: the clients and caches that all controllers share read and print objects through it.

use std::any::Any;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::DynamicObject;

pub use serde_json::Error;

/// A kind of objects that an API server has.
pub trait Kind: Any + Send + Sync + Sized {
    /// Reads an object.
    ///
    /// # Errors
    /// What of the text is no such object.
    fn from_json(text: &[u8]) -> Result<Self, Error>;

    /// Prints an object.
    ///
    /// # Errors
    /// As serde's, which has none for these types.
    fn to_json(&self) -> Result<Vec<u8>, Error>;
}

/// Makes types [`Kind`]s by their serde implementations.
#[macro_export]
macro_rules! kinds {
    ($($kind:ty),+ $(,)?) => {$(
        impl $crate::Kind for $kind {
            // Inlined, it would be compiled where it is called.
            #[inline(never)]
            fn from_json(text: &[u8]) -> Result<Self, $crate::Error> {
                serde_json::from_slice(text)
            }

            #[inline(never)]
            fn to_json(&self) -> Result<Vec<u8>, $crate::Error> {
                serde_json::to_vec(self)
            }
        }
    )+};
}

kinds!(
    ConfigMap,
    ControllerRevision,
    CustomResourceDefinition,
    DaemonSet,
    Deployment,
    DynamicObject,
    EndpointSlice,
    Endpoints,
    Event,
    HorizontalPodAutoscaler,
    Job,
    Lease,
    Namespace,
    Node,
    Pod,
    ReplicaSet,
    Secret,
    Service,
);
