//! GitOps delivery, compatible with Argo CD: git repositories, manifest rendering, diff, sync and health.
//!
//! [`git`], [`manifests`] and [`kustomize`] are also what scenarios use to make repositories and to apply folders.
//! The controller ([`program`]) is the program behind the `argocd` images: it reads Applications from its own
//! cluster and syncs them to the clusters that its Secrets name. [`diff`], [`health`] and [`order`] are its
//! decisions, without any client.

mod controller;
pub mod diff;
pub mod git;
pub mod health;
pub mod kustomize;
pub mod manifests;
pub mod order;

pub use controller::program;
