//! GitOps delivery, compatible with Argo CD: git repositories, manifest rendering, diff, sync and health.
//!
//! [`git`], [`manifests`] and [`kustomize`] are also what scenarios use to make repositories and to apply folders.
//! The controller ([`program`]) is the program behind the `argocd` images: it reads Applications from its own
//! cluster and syncs them to the clusters that its Secrets name.

pub mod git;
pub mod kustomize;
pub mod manifests;
