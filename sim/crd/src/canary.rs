//! Canary (`flagger.app/v1beta1`): a workload to release progressively.
//!
//! The fields of all releases from `v1.0.0-rc.1` on. What Flagger only copies into Istio's objects has Istio's types.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::destination_rule::TrafficPolicy;
use crate::http_route::ParentReference;
use crate::version::FlaggerVersion;
use crate::virtual_service::{CorsPolicy, Headers, HttpMatchRequest, HttpRetry, HttpRewrite};
use crate::wire::{object, wire};

object! {
    /// A workload to release progressively, and how.
    struct Canary("Canary", "canaries", "flagger.app", FlaggerVersion) {
        spec: CanarySpec, status: CanaryStatus,
    }
}

wire! {
    /// What to release and how to judge it.
    struct CanarySpec {
        required {
            /// The workload.
            target_ref: LocalReference,
            /// The Services and routes to make for it.
            service: CanaryService,
        }
        optional {
            /// The mesh provider, in place of the controller's own.
            provider: String,
            /// The metrics server, in place of the controller's own.
            metrics_server: String,
            /// The workload's autoscaler.
            autoscaler_ref: Option<AutoscalerReference>,
            /// An ingress to route through.
            ingress_ref: Option<LocalReference>,
            /// A route to change.
            route_ref: Option<LocalReference>,
            /// An upstream to change.
            upstream_ref: Option<CrossNamespaceReference>,
            /// How to judge a new revision; without it analysis is skipped.
            analysis: Option<CanaryAnalysis>,
            /// Old name of `analysis`.
            canary_analysis: Option<CanaryAnalysis>,
            /// Seconds that a rollout may make no progress (600).
            progress_deadline_seconds: Option<i32>,
            /// Promotes without analysis.
            skip_analysis: bool,
            /// Restores the workload when the Canary is deleted.
            revert_on_deletion: bool,
            /// Does nothing while set.
            suspend: bool,
        }
    }
}

wire! {
    /// The Services and routes of a release.
    struct CanaryService {
        required {
            /// The Services' port.
            port: i32,
        }
        optional {
            /// The apex Service's name; the target's if empty.
            name: String,
            /// The port's name (`http`).
            port_name: String,
            /// The pods' port; the same as `port` if absent.
            target_port: Option<IntOrString>,
            /// The port's application protocol.
            app_protocol: String,
            /// Adds the container's other ports.
            port_discovery: bool,
            /// Makes the Services headless.
            headless: bool,
            /// The Services' traffic distribution.
            traffic_distribution: String,
            /// Time limit for requests.
            timeout: String,
            /// Time limit for a request to a backend (Gateway API).
            backend_timeout: String,
            /// Gateways of the HTTPRoute (Gateway API).
            gateway_refs: Vec<ParentReference>,
            /// Where copies of all requests go (Gateway API).
            mirror: Vec<Value>,
            /// Gateways of the VirtualService; `mesh` if none.
            gateways: Vec<String>,
            /// Hosts of the VirtualService, besides the Service.
            hosts: Vec<String>,
            /// Makes a VirtualService without hosts and gateways, for delegation.
            delegation: bool,
            /// Policy of both DestinationRules.
            traffic_policy: Option<TrafficPolicy>,
            /// Conditions of the HTTP rule.
            #[serde(rename = "match")]
            matches: Vec<HttpMatchRequest>,
            /// Rewrite of the HTTP rule.
            rewrite: Option<HttpRewrite>,
            /// Retries of the HTTP rule.
            retries: Option<HttpRetry>,
            /// Header changes of the HTTP rule.
            headers: Option<Headers>,
            /// Cross-origin rules of the HTTP rule.
            cors_policy: Option<CorsPolicy>,
            /// The App Mesh name.
            mesh_name: String,
            /// App Mesh backends.
            backends: Vec<String>,
            /// Labels and annotations of the apex Service.
            apex: Option<CustomMetadata>,
            /// Labels and annotations of the primary Service.
            primary: Option<CustomMetadata>,
            /// Labels and annotations of the canary Service.
            canary: Option<CustomMetadata>,
            /// Labels and annotations of Services that others set.
            unmanaged_metadata: Option<UnmanagedMetadata>,
        }
    }
}

wire! {
    /// Extra labels and annotations.
    struct CustomMetadata {
        optional {
            /// Labels.
            labels: BTreeMap<String, String>,
            /// Annotations.
            annotations: BTreeMap<String, String>,
        }
    }
}

wire! {
    /// Names of labels and annotations that are left alone.
    struct UnmanagedMetadata {
        optional {
            /// Labels.
            labels: Vec<String>,
            /// Annotations.
            annotations: Vec<String>,
        }
    }
}

wire! {
    /// How a new revision is judged.
    struct CanaryAnalysis {
        optional {
            /// Time between checks, a Go duration (60 s; at least 10 s).
            interval: String,
            /// Checks of a run without weights (A/B, blue/green).
            iterations: i32,
            /// Mirrors traffic before shifting it.
            mirror: bool,
            /// The share to mirror, in percent.
            mirror_weight: i32,
            /// The weight at which promotion starts (100).
            max_weight: i32,
            /// The weight added per passed check.
            step_weight: i32,
            /// The weights to walk through.
            step_weights: Vec<i32>,
            /// The weight walked back per check while promoting.
            step_weight_promotion: i32,
            /// Failed checks that roll back (1).
            threshold: i32,
            /// The share of the primary's replicas that must be available, in percent (100).
            primary_ready_threshold: Option<i32>,
            /// The share of the canary's replicas that must be available, in percent (100).
            canary_ready_threshold: Option<i32>,
            /// Who is told.
            alerts: Vec<CanaryAlert>,
            /// What is measured.
            metrics: Vec<CanaryMetric>,
            /// Who is asked.
            webhooks: Vec<CanaryWebhook>,
            /// Conditions of requests that reach the canary in A/B tests.
            #[serde(rename = "match")]
            matches: Vec<HttpMatchRequest>,
            /// Keeps users on the version that they met.
            session_affinity: Option<SessionAffinity>,
        }
    }
}

wire! {
    /// Sticky sessions during a run.
    struct SessionAffinity {
        optional {
            /// The canary's cookie.
            cookie_name: String,
            /// The primary's cookie.
            primary_cookie_name: String,
            /// The canary cookie's lifetime in seconds (86400).
            max_age: i64,
            /// The cookie's domain.
            domain: String,
            /// The cookie's path.
            path: String,
            /// The cookie's SameSite attribute.
            same_site: String,
            /// Hides the cookie from scripts.
            http_only: bool,
            /// The cookie's Partitioned attribute.
            partitioned: bool,
            /// Sends the cookie over TLS only.
            secure: bool,
        }
    }
}

wire! {
    /// A metric and its bounds.
    struct CanaryMetric {
        required {
            /// A builtin's name, or any.
            name: String,
        }
        optional {
            /// The window to look back over.
            interval: String,
            /// One bound: a minimum for the success rate, a maximum for others.
            threshold: Option<f64>,
            /// Both bounds; replaces `threshold`.
            threshold_range: Option<ThresholdRange>,
            /// An inline query.
            query: String,
            /// A MetricTemplate.
            template_ref: Option<CrossNamespaceReference>,
            /// Values for the template's `variables`.
            template_variables: BTreeMap<String, String>,
        }
    }
}

wire! {
    /// Bounds that still pass.
    struct ThresholdRange {
        optional {
            /// The least.
            min: Option<f64>,
            /// The most.
            max: Option<f64>,
        }
    }
}

wire! {
    /// Somebody to tell.
    struct CanaryAlert {
        required {
            /// A name.
            name: String,
        }
        optional {
            /// `info`, `warn` or `error`: what is told.
            severity: String,
            /// The AlertProvider.
            provider_ref: CrossNamespaceReference,
        }
    }
}

wire! {
    /// Somebody to ask over HTTP.
    struct CanaryWebhook {
        required {
            /// A name for logs.
            name: String,
            /// Where to post.
            url: String,
        }
        optional {
            /// When it is asked.
            #[serde(rename = "type")]
            kind: HookType,
            /// Sends no alert when it refuses.
            mute_alert: bool,
            /// Time limit, a Go duration (10 s).
            timeout: String,
            /// Sent along.
            metadata: Option<BTreeMap<String, String>>,
            /// Retries on connection errors, 5xx and 429.
            retries: i32,
            /// Skips the check of the server's certificate.
            #[serde(rename = "disableTLS")]
            disable_tls: bool,
        }
    }
}

/// When a webhook is asked. Unset and unknown types are asked as [`HookType::Rollout`] and never, respectively.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookType {
    /// No type given: asked in each analysis.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// In each analysis.
    Rollout,
    /// Before traffic is sent to the canary.
    PreRollout,
    /// After the end.
    PostRollout,
    /// Before the canary is scaled up.
    ConfirmRollout,
    /// Before promotion.
    ConfirmPromotion,
    /// Before each step.
    ConfirmTrafficIncrease,
    /// On every event.
    Event,
    /// In each tick: whether to roll back.
    Rollback,
    /// A type that no release knows.
    #[serde(other)]
    Unknown,
}

wire! {
    /// An object in the Canary's namespace.
    struct LocalReference {
        required {
            /// Its name.
            name: String,
        }
        optional {
            /// Its API group and version.
            api_version: String,
            /// Its kind.
            kind: String,
        }
    }
}

wire! {
    /// An object that may live in another namespace.
    struct CrossNamespaceReference {
        required {
            /// Its name.
            name: String,
        }
        optional {
            /// Its API group and version.
            api_version: String,
            /// Its kind.
            kind: String,
            /// Its namespace; the Canary's if empty.
            namespace: String,
        }
    }
}

wire! {
    /// The autoscaler of the workload.
    struct AutoscalerReference {
        required {
            /// Its name.
            name: String,
        }
        optional {
            /// Its API group and version.
            api_version: String,
            /// Its kind: HorizontalPodAutoscaler or ScaledObject.
            kind: String,
            /// Queries of the primary's ScaledObject.
            primary_scaler_queries: BTreeMap<String, String>,
            /// Limits of the primary's autoscaler, in place of the target's.
            primary_scaler_replicas: Option<ScalerReplicas>,
        }
    }
}

wire! {
    /// Limits of an autoscaler.
    struct ScalerReplicas {
        optional {
            /// The least.
            min_replicas: Option<i32>,
            /// The most.
            max_replicas: Option<i32>,
        }
    }
}

/// Where a Canary stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Not seen by the controller yet.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// The primary is being made.
    Initializing,
    /// The primary serves; nothing was released yet.
    Initialized,
    /// Waits for approval to roll out.
    Waiting,
    /// A new revision is judged.
    Progressing,
    /// Waits for approval to promote.
    WaitingPromotion,
    /// The primary takes over the new revision.
    Promoting,
    /// Traffic went back to the primary.
    Finalising,
    /// The new revision was promoted.
    Succeeded,
    /// The new revision was rolled back.
    Failed,
    /// The Canary is being deleted.
    Terminating,
    /// The Canary was deleted.
    Terminated,
}

impl Phase {
    /// The phase as it is written, empty if unset.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Unset => "",
            Phase::Initializing => "Initializing",
            Phase::Initialized => "Initialized",
            Phase::Waiting => "Waiting",
            Phase::Progressing => "Progressing",
            Phase::WaitingPromotion => "WaitingPromotion",
            Phase::Promoting => "Promoting",
            Phase::Finalising => "Finalising",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::Terminating => "Terminating",
            Phase::Terminated => "Terminated",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

wire! {
    /// Where a release stands.
    struct CanaryStatus {
        required {
            /// The phase.
            phase: Phase,
            /// Failed checks of this run.
            failed_checks: i32,
            /// The weight last set, or 0 where a phase write zeroed it.
            canary_weight: i32,
            /// Iterations of this run.
            iterations: i32,
        }
        optional {
            /// The last run's canary cookie.
            previous_session_affinity_cookie: String,
            /// This run's canary cookie.
            session_affinity_cookie: String,
            /// This run's primary cookie.
            primary_session_affinity_cookie: String,
            /// Checksums of ConfigMaps and Secrets, by `configmap/NAME` or `secret/NAME`.
            tracked_configs: Option<BTreeMap<String, String>>,
            /// Hash of the template last seen.
            last_applied_spec: String,
            /// Hash of the template last promoted.
            last_promoted_spec: String,
            /// When the status was last written.
            last_transition_time: Option<Time>,
            /// The condition `Promoted`.
            conditions: Vec<CanaryCondition>,
        }
    }
}

wire! {
    /// A condition of a Canary.
    struct CanaryCondition {
        required {
            /// `Promoted`.
            #[serde(rename = "type")]
            kind: String,
            /// `True`, `False` or `Unknown`.
            status: String,
        }
        optional {
            /// When it was last written.
            last_update_time: Option<Time>,
            /// When its status or reason last changed.
            last_transition_time: Option<Time>,
            /// The phase.
            reason: String,
            /// A sentence for people.
            message: String,
        }
    }
}

impl CanarySpec {
    /// The apex Service's name; the primary's and the canary's add `-primary` and `-canary`.
    pub fn apex_name(&self) -> &str {
        if self.service.name.is_empty() { &self.target_ref.name } else { &self.service.name }
    }

    /// The analysis, under either of its names.
    pub fn analysis(&self) -> Option<&CanaryAnalysis> {
        self.analysis.as_ref().or(self.canary_analysis.as_ref())
    }

    /// Whether promotion happens without analysis: asked for, or no analysis given.
    pub fn skips_analysis(&self) -> bool {
        self.skip_analysis || self.analysis().is_none()
    }

    /// Seconds that a rollout may make no progress.
    pub fn progress_deadline_seconds(&self) -> i32 {
        self.progress_deadline_seconds.unwrap_or(600)
    }
}
