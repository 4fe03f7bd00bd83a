//! Clusters that a kubeconfig names, and work on them: a program's parts as the pods of an Indexed Job.
//!
//! Knows nothing of what the parts compute: [`Parts`] hands each pod's log back, by completion index.

mod connection;
mod kubeconfig;
mod objects;
mod outlook;
mod parts;
mod tls;

pub use kubeconfig::Cluster;
pub use objects::Work;
pub use parts::Parts;
