//! AppProject (`argoproj.io/v1alpha1`): what Applications may do.

use serde_json::Value;

use crate::version::ArgoVersion;
use crate::wire::{object, wire};

object! {
    /// Limits on sources, destinations and kinds.
    struct AppProject("AppProject", "appprojects", "argoproj.io", ArgoVersion) {
        spec: AppProjectSpec, status: Value,
    }
}

wire! {
    /// What is allowed; the project `default` allows all.
    struct AppProjectSpec {
        optional {
            /// Repositories, globs.
            source_repos: Vec<String>,
            /// Clusters and namespaces.
            destinations: Vec<ProjectDestination>,
            /// A sentence for people.
            description: String,
            /// Cluster-scoped kinds that are allowed.
            cluster_resource_whitelist: Vec<GroupKind>,
            /// Cluster-scoped kinds that are forbidden.
            cluster_resource_blacklist: Vec<GroupKind>,
            /// Namespaced kinds that are allowed.
            namespace_resource_whitelist: Vec<GroupKind>,
            /// Namespaced kinds that are forbidden.
            namespace_resource_blacklist: Vec<GroupKind>,
            /// Warnings about objects that no Application owns.
            orphaned_resources: Option<OrphanedResources>,
            /// Times in which syncs are allowed, as written.
            sync_windows: Vec<Value>,
            /// Roles, as written.
            roles: Vec<Value>,
            /// Namespaces that Applications may live in.
            source_namespaces: Vec<String>,
        }
    }
}

wire! {
    /// A cluster and namespace, globs.
    struct ProjectDestination {
        optional {
            /// The API server's URL.
            server: String,
            /// The cluster's name.
            name: String,
            /// The namespace.
            namespace: String,
        }
    }
}

wire! {
    /// A kind, globs.
    struct GroupKind {
        optional {
            /// Its group.
            group: String,
            /// Its kind.
            kind: String,
        }
    }
}

wire! {
    /// Warnings about objects that no Application owns.
    struct OrphanedResources {
        optional {
            /// Whether to warn.
            warn: Option<bool>,
        }
    }
}
