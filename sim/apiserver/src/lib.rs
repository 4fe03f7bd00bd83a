//! A Kubernetes API server over an in-memory store: one function from request to answer, usable under any kube client.
//!
//! It serves the built-in kinds and whatever CustomResourceDefinitions are created, with the semantics that clients
//! rely on: optimistic concurrency, watches with history and bookmarks, all four kinds of patch, status and scale
//! subresources, defaulting, validation, garbage collection, tables. It knows nothing of meshes or canaries, and runs
//! no controller but those that live inside a request: garbage collection, namespaces, CRDs.
//!
//! Everybody is an administrator unless [`ApiServer::enforce_rbac`] is called. Request bodies may be JSON, YAML or
//! protobuf; answers are JSON.
//!
//! Not done: webhooks that are configured as objects (an [`Admission`] hook stands for them), conversion between CRD
//! versions by a webhook, CEL rules in schemas.

mod addresses;
mod autoscaling;
mod backlog;
mod body;
mod custom;
mod decode;
mod defaults;
mod delete;
mod discovery;
mod disruption;
mod events;
mod failure;
pub mod jsonpath;
pub mod managed_fields;
mod metrics;
mod openapi;
mod openapi_v2;
pub mod patch;
mod protobuf;
mod rbac;
mod read;
mod request;
mod resource;
mod review;
mod scale;
pub mod selector;
mod server;
mod shape;
mod snapshot;
mod store;
pub mod structural;
pub mod table;
mod user;
mod validate;
mod view;
mod watch;
mod write;

pub use body::Body;
pub use failure::Failure;
pub use metrics::{Measured, Metrics};
pub use server::{
    Admission, ApiServer, Asked, Broken, ClientService, Fault, Faults, LogQuery, Options, PodLogs, Purpose,
    Upgrade,
};
pub use user::User;
