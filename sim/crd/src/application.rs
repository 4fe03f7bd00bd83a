//! Application (`argoproj.io/v1alpha1`): a folder of a git repository, and the cluster that follows it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use crate::version::ArgoVersion;
use crate::wire::{object, wire};

object! {
    /// A source of manifests and the cluster that follows it.
    struct Application("Application", "applications", "argoproj.io", ArgoVersion) {
        spec: ApplicationSpec, status: ApplicationStatus,
        /// A sync that somebody asked for; removed once it has started.
        operation: Option<Operation>,
    }
}

wire! {
    /// What follows what, and how.
    struct ApplicationSpec {
        required {
            /// Where manifests go.
            destination: ApplicationDestination,
            /// The AppProject that allows it.
            project: String,
        }
        optional {
            /// Where manifests come from.
            source: Option<ApplicationSource>,
            /// Several sources, in place of one.
            sources: Vec<ApplicationSource>,
            /// Whether and how to sync without being asked.
            sync_policy: Option<SyncPolicy>,
            /// Differences that do not count.
            ignore_differences: Vec<IgnoreDifference>,
            /// Links and notes for people, as written.
            info: Vec<Value>,
            /// Entries of the history that are kept (10).
            revision_history_limit: Option<i64>,
        }
    }
}

wire! {
    /// A folder at a revision of a repository.
    struct ApplicationSource {
        required {
            /// The repository.
            #[serde(rename = "repoURL")]
            repo_url: String,
        }
        optional {
            /// The folder.
            path: String,
            /// Branch, tag or commit; `HEAD` if empty.
            target_revision: String,
            /// A chart's name, for Helm repositories.
            chart: String,
            /// Helm's options.
            helm: Option<ApplicationSourceHelm>,
            /// Kustomize's options.
            kustomize: Option<ApplicationSourceKustomize>,
            /// Options of a plain folder.
            directory: Option<ApplicationSourceDirectory>,
            /// A name that other sources refer to.
            #[serde(rename = "ref")]
            reference: String,
        }
    }
}

wire! {
    /// Helm's options.
    struct ApplicationSourceHelm {
        optional {
            /// The release's name; the Application's if empty.
            release_name: String,
            /// Files of values, later ones win.
            value_files: Vec<String>,
            /// Values as YAML text.
            values: String,
            /// Values as an object.
            values_object: Option<Value>,
            /// Single values.
            parameters: Vec<HelmParameter>,
        }
    }
}

wire! {
    /// A single value.
    struct HelmParameter {
        optional {
            /// Its path.
            name: String,
            /// The value.
            value: String,
            /// Takes the value as a string.
            force_string: bool,
        }
    }
}

wire! {
    /// Kustomize's options, as `kustomize edit` would set them.
    struct ApplicationSourceKustomize {
        optional {
            /// Put before each name.
            name_prefix: String,
            /// Put after each name.
            name_suffix: String,
            /// Sets each namespace.
            namespace: String,
            /// `[old=]new[:tag][@digest]`.
            images: Vec<String>,
            /// Added to all objects.
            common_labels: BTreeMap<String, String>,
            /// Added to all objects.
            common_annotations: BTreeMap<String, String>,
            /// Replica counts, as written.
            replicas: Vec<Value>,
            /// Patches, as written.
            patches: Vec<Value>,
        }
    }
}

wire! {
    /// Options of a plain folder.
    struct ApplicationSourceDirectory {
        optional {
            /// Looks into subfolders.
            recurse: bool,
            /// Files to take, a glob.
            include: String,
            /// Files to leave out, a glob.
            exclude: String,
        }
    }
}

wire! {
    /// A cluster by server or name, and a namespace for objects that name none.
    struct ApplicationDestination {
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
    /// Whether and how to sync.
    struct SyncPolicy {
        optional {
            /// Syncs without being asked.
            automated: Option<SyncPolicyAutomated>,
            /// `CreateNamespace=true` and others.
            sync_options: Vec<String>,
            /// What to do when a sync fails.
            retry: Option<RetryStrategy>,
        }
    }
}

wire! {
    /// How to sync without being asked.
    struct SyncPolicyAutomated {
        optional {
            /// Deletes what left the source.
            prune: bool,
            /// Undoes changes in the cluster.
            self_heal: bool,
            /// Allows a source without any object.
            allow_empty: bool,
            /// Switches it off while the rest stays.
            enabled: Option<bool>,
        }
    }
}

wire! {
    /// What to do when a sync fails.
    struct RetryStrategy {
        optional {
            /// Most retries; negative for no limit (5).
            limit: i64,
            /// Time between them.
            backoff: Option<RetryBackoff>,
        }
    }
}

wire! {
    /// Time between retries.
    struct RetryBackoff {
        optional {
            /// The first (5s).
            duration: String,
            /// Growth (2).
            factor: Option<i64>,
            /// The longest (3m).
            max_duration: String,
        }
    }
}

wire! {
    /// Differences that do not count.
    struct IgnoreDifference {
        optional {
            /// The objects' group.
            group: String,
            /// The objects' kind.
            kind: String,
            /// One object's name.
            name: String,
            /// One namespace.
            namespace: String,
            /// Fields by JSON pointer.
            json_pointers: Vec<String>,
            /// Fields by jq path.
            jq_path_expressions: Vec<String>,
            /// Fields that these managers own.
            managed_fields_managers: Vec<String>,
        }
    }
}

wire! {
    /// What the controller found and did.
    struct ApplicationStatus {
        optional {
            /// The objects, each with its own status.
            resources: Vec<ResourceStatus>,
            /// Whether the cluster agrees with the source.
            sync: SyncStatus,
            /// The worst health among the objects.
            health: HealthStatus,
            /// What was deployed when.
            history: Vec<RevisionHistory>,
            /// Errors and warnings.
            conditions: Vec<ApplicationCondition>,
            /// When the cluster was last compared.
            reconciled_at: Option<Time>,
            /// The last or current sync.
            operation_state: Option<OperationState>,
            /// Old name of `reconciledAt`.
            observed_at: Option<Time>,
            /// `Kustomize`, `Helm` or `Directory`.
            source_type: String,
            /// The same, for several sources.
            source_types: Vec<String>,
            /// Images and links.
            summary: ApplicationSummary,
        }
    }
}

wire! {
    /// One object of an Application.
    struct ResourceStatus {
        optional {
            /// Its group.
            group: String,
            /// Its version.
            version: String,
            /// Its kind.
            kind: String,
            /// Its namespace.
            namespace: String,
            /// Its name.
            name: String,
            /// `Synced` or `OutOfSync`.
            status: String,
            /// Its health.
            health: Option<HealthStatus>,
            /// Whether it is a hook.
            hook: bool,
            /// Whether a sync would delete it.
            requires_pruning: bool,
            /// Its sync wave.
            sync_wave: i64,
        }
    }
}

wire! {
    /// Whether the cluster agrees with the source.
    struct SyncStatus {
        required {
            /// `Synced`, `OutOfSync` or `Unknown`.
            status: String,
        }
        optional {
            /// What was compared.
            compared_to: Option<ComparedTo>,
            /// The commit.
            revision: String,
            /// The commits, for several sources.
            revisions: Vec<String>,
        }
    }
}

wire! {
    /// The source and destination of a comparison.
    struct ComparedTo {
        optional {
            /// The source.
            source: Option<ApplicationSource>,
            /// Several sources.
            sources: Vec<ApplicationSource>,
            /// The destination.
            destination: ApplicationDestination,
        }
    }
}

wire! {
    /// Health of an object or an Application.
    struct HealthStatus {
        optional {
            /// `Healthy`, `Suspended`, `Progressing`, `Missing`, `Degraded` or `Unknown`.
            status: String,
            /// Why.
            message: String,
            /// Since when.
            last_transition_time: Option<Time>,
        }
    }
}

wire! {
    /// One deployment of the past.
    struct RevisionHistory {
        required {
            /// Its number, from 0.
            id: i64,
        }
        optional {
            /// The commit.
            revision: String,
            /// When it ended.
            deployed_at: Option<Time>,
            /// When it started.
            deploy_started_at: Option<Time>,
            /// The source as it was.
            source: ApplicationSource,
            /// Who asked for it.
            initiated_by: Option<OperationInitiator>,
        }
    }
}

wire! {
    /// An error or warning.
    struct ApplicationCondition {
        required {
            /// `ComparisonError`, `SyncError` and others.
            #[serde(rename = "type")]
            kind: String,
            /// A sentence for people.
            message: String,
        }
        optional {
            /// Since when.
            last_transition_time: Option<Time>,
        }
    }
}

wire! {
    /// Images and links.
    struct ApplicationSummary {
        optional {
            /// All images that the objects name.
            images: Vec<String>,
            /// Addresses of ingresses and load balancers.
            #[serde(rename = "externalURLs")]
            external_urls: Vec<String>,
        }
    }
}

wire! {
    /// A sync, as asked for.
    struct Operation {
        optional {
            /// What to sync.
            sync: Option<SyncOperation>,
            /// Who asked.
            initiated_by: Option<OperationInitiator>,
            /// What to do when it fails.
            retry: Option<RetryStrategy>,
            /// Notes, as written.
            info: Vec<Value>,
        }
    }
}

wire! {
    /// Who asked for a sync.
    struct OperationInitiator {
        optional {
            /// A user's name.
            username: String,
            /// Whether the controller did.
            automated: bool,
        }
    }
}

wire! {
    /// What to sync.
    struct SyncOperation {
        optional {
            /// The revision; the source's if empty.
            revision: String,
            /// Deletes what left the source.
            prune: bool,
            /// Changes nothing.
            dry_run: bool,
            /// Only these objects.
            resources: Vec<SyncOperationResource>,
            /// Another source.
            source: Option<ApplicationSource>,
            /// Options, as in the sync policy.
            sync_options: Vec<String>,
            /// `hook` or `apply` with their options, as written.
            sync_strategy: Option<Value>,
        }
    }
}

wire! {
    /// An object to sync.
    struct SyncOperationResource {
        optional {
            /// Its group.
            group: String,
            /// Its kind.
            kind: String,
            /// Its name.
            name: String,
            /// Its namespace.
            namespace: String,
        }
    }
}

wire! {
    /// How a sync goes or went.
    struct OperationState {
        required {
            /// What was asked.
            operation: Operation,
            /// `Running`, `Terminating`, `Failed`, `Error` or `Succeeded`.
            phase: String,
        }
        optional {
            /// A sentence for people.
            message: String,
            /// When it started.
            started_at: Option<Time>,
            /// When it ended.
            finished_at: Option<Time>,
            /// Retries so far.
            retry_count: i64,
            /// What became of each object.
            sync_result: Option<SyncOperationResult>,
        }
    }
}

wire! {
    /// What became of each object.
    struct SyncOperationResult {
        optional {
            /// The objects.
            resources: Vec<ResourceResult>,
            /// The commit.
            revision: String,
            /// The source as it was.
            source: Option<ApplicationSource>,
        }
    }
}

wire! {
    /// What became of one object.
    struct ResourceResult {
        optional {
            /// Its group.
            group: String,
            /// Its version.
            version: String,
            /// Its kind.
            kind: String,
            /// Its namespace.
            namespace: String,
            /// Its name.
            name: String,
            /// `Synced`, `SyncFailed`, `Pruned` or `PruneSkipped`.
            status: String,
            /// What the API server said.
            message: String,
            /// `PreSync` and others, for hooks.
            hook_type: String,
            /// How the hook stands.
            hook_phase: String,
            /// The phase of the sync that it belongs to.
            sync_phase: String,
        }
    }
}
