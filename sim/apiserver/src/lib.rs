//! A Kubernetes API server over an in-memory store: one function from request to answer, usable under any kube client.
//!
//! It serves the built-in kinds and whatever CustomResourceDefinitions are created, with the semantics that clients
//! rely on: optimistic concurrency, watches with history and bookmarks, all four kinds of patch, status and scale
//! subresources, defaulting, validation, garbage collection, tables. It knows nothing of meshes or canaries, and runs
//! no controller but those that live inside a request: garbage collection, namespaces, CRDs.
//!
//! Not done: authorization (everybody is an administrator), webhooks that are configured as objects (an
//! [`Admission`] hook stands for them), conversion between CRD versions, protobuf.

mod addresses;
mod autoscaling;
mod body;
mod custom;
mod decode;
mod defaults;
mod delete;
mod discovery;
mod failure;
pub mod jsonpath;
pub mod managed_fields;
pub mod patch;
mod read;
mod request;
mod resource;
mod review;
mod scale;
pub mod selector;
mod server;
mod shape;
mod store;
pub mod structural;
pub mod table;
mod validate;
mod view;
mod watch;
mod write;

pub use body::Body;
pub use failure::Failure;
pub use server::{Admission, ApiServer, Asked, Broken, ClientService, Fault, Faults, Options, PodLogs};
