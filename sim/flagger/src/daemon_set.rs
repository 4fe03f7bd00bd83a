//! DaemonSets as targets: the primary, how a rollout stands, and how one is scaled to zero.

use std::time::Duration;

use canary::{Dialect, Rollout, Workload};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::pods::Recipe;

/// The node selector of a DaemonSet that is to run nowhere.
const NOWHERE: (&str, &str) = ("flagger.app/scale-to-zero", "true");

impl Recipe<'_, DaemonSet> {
    /// The primary as it is first made.
    pub fn create(&self) -> DaemonSet {
        let spec = self.target.spec.clone().unwrap_or_default();
        DaemonSet {
            metadata: self.metadata(),
            spec: Some(DaemonSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                revision_history_limit: spec.revision_history_limit,
                update_strategy: spec.update_strategy,
                selector: self.label_selector(),
                template: self.template(),
            }),
            status: None,
        }
    }

    /// Brings an existing primary to the target's template.
    pub fn promote(&self, primary: &mut DaemonSet) {
        let from = self.target.spec.clone().unwrap_or_default();
        let to = primary.spec.get_or_insert_default();
        to.min_ready_seconds = from.min_ready_seconds;
        to.revision_history_limit = from.revision_history_limit;
        to.update_strategy = from.update_strategy;
        to.template = self.template();
        anywhere(&mut to.template);
        if self.dialect == Dialect::Latest {
            self.mark(&mut primary.metadata);
        }
    }
}

fn anywhere(template: &mut PodTemplateSpec) {
    if let Some(pod) = &mut template.spec {
        pod.node_selector.get_or_insert_default().remove(NOWHERE.0);
        pod.node_selector.take_if(|selector| selector.is_empty());
    }
}

/// Schedules a DaemonSet to its nodes, or to none.
pub fn schedule(target: &mut DaemonSet, somewhere: bool) {
    let template = &mut target.spec.get_or_insert_default().template;
    if somewhere {
        anywhere(template);
    } else {
        let selector = template.spec.get_or_insert_default().node_selector.get_or_insert_default();
        selector.insert(NOWHERE.0.to_owned(), NOWHERE.1.to_owned());
    }
}

/// A DaemonSet's template as far as it makes a revision: being scaled to zero does not.
pub fn revision(target: DaemonSet) -> PodTemplateSpec {
    let mut template = target.spec.unwrap_or_default().template;
    anywhere(&mut template);
    template
}

/// Why a DaemonSet cannot be a target: it must roll its updates out by itself.
pub fn refused(target: &DaemonSet) -> Option<String> {
    let strategy = target.spec.as_ref()?.update_strategy.as_ref()?.type_.as_deref()?;
    let metadata = &target.metadata;
    let (name, namespace) = (metadata.name.as_deref(), metadata.namespace.as_deref());
    (!matches!(strategy, "" | "RollingUpdate")).then(|| {
        format!(
            "daemonset {}.{} must have RollingUpdate strategy but have {strategy}",
            name.unwrap_or_default(),
            namespace.unwrap_or_default()
        )
    })
}

/// How a DaemonSet's rollout stands; `since` is how long ago the Canary's status last changed.
pub fn rollout(target: &DaemonSet, since: Option<Duration>) -> Rollout {
    let status = target.status.clone().unwrap_or_default();
    Rollout {
        workload: Workload::DaemonSet,
        name: target.metadata.name.clone().unwrap_or_default(),
        generation: target.metadata.generation.unwrap_or_default(),
        observed_generation: status.observed_generation.unwrap_or_default(),
        wanted: Some(status.desired_number_scheduled),
        replicas: status.current_number_scheduled,
        updated: status.updated_number_scheduled.unwrap_or_default(),
        available: status.number_available.unwrap_or_default(),
        progressing: None,
        unavailable_for: since,
    }
}
