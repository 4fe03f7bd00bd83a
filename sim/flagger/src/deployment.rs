//! The primary Deployment: what it takes from the target, and how a Deployment's rollout stands.

use canary::{Dialect, Rollout, Workload};
use clock::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};

use crate::pods::Recipe;

impl Recipe<'_, Deployment> {
    /// The primary as it is first made.
    pub fn create(&self) -> Deployment {
        let spec = self.target.spec.clone().unwrap_or_default();
        let replicas = spec.replicas.filter(|replicas| *replicas > 0).unwrap_or(1);
        Deployment {
            metadata: self.metadata(),
            spec: Some(DeploymentSpec {
                progress_deadline_seconds: spec.progress_deadline_seconds,
                min_ready_seconds: spec.min_ready_seconds,
                revision_history_limit: spec.revision_history_limit,
                replicas: Some(replicas),
                strategy: spec.strategy,
                selector: self.label_selector(),
                template: self.template(),
                ..Default::default()
            }),
            status: None,
        }
    }

    /// Brings an existing primary to the target's template.
    pub fn promote(&self, primary: &mut Deployment) {
        let from = self.target.spec.clone().unwrap_or_default();
        let to = primary.spec.get_or_insert_default();
        to.progress_deadline_seconds = from.progress_deadline_seconds;
        to.min_ready_seconds = from.min_ready_seconds;
        to.revision_history_limit = from.revision_history_limit;
        to.strategy = from.strategy;
        to.template = self.template();
        if self.dialect == Dialect::Latest {
            if self.canary.spec.autoscaler_ref.is_none() {
                to.replicas = from.replicas;
            }
            self.mark(&mut primary.metadata);
        }
    }
}

/// How a Deployment's rollout stands at a time.
pub fn rollout(deployment: &Deployment, now: Timestamp) -> Rollout {
    let spec = deployment.spec.as_ref();
    let status = deployment.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let unavailable = condition("Available").filter(|available| {
        available.status == "False" && available.reason.as_deref() == Some("MinimumReplicasUnavailable")
    });
    let since = unavailable.and_then(|unavailable| unavailable.last_update_time.as_ref());
    Rollout {
        workload: Workload::Deployment,
        name: deployment.metadata.name.clone().unwrap_or_default(),
        generation: deployment.metadata.generation.unwrap_or_default(),
        observed_generation: status.observed_generation.unwrap_or_default(),
        wanted: spec.and_then(|spec| spec.replicas),
        replicas: status.replicas.unwrap_or_default(),
        updated: status.updated_replicas.unwrap_or_default(),
        available: status.available_replicas.unwrap_or_default(),
        progressing: condition("Progressing")
            .map(|progressing| progressing.reason.clone().unwrap_or_default()),
        unavailable_for: since.map(|since| now.duration_since(since.0).try_into().unwrap_or_default()),
    }
}
