//! Changes of a Canary's status.

use std::collections::BTreeMap;

use crd::{CanaryCondition, CanarySpec, CanaryStatus, Phase};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::dialect::Dialect;

/// What a tick saw of the target, written down when a run starts or ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The template's hash.
    pub hash: String,
    /// The configuration's checksums, if it is tracked.
    pub configs: Option<BTreeMap<String, String>>,
}

/// One write of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// The failed checks of this run.
    FailedChecks(i32),
    /// The canary's weight.
    Weight(i32),
    /// The iterations of this run.
    Iterations(i32),
    /// What was observed, and nothing else.
    Applied(Observed),
    /// Promotion waits for approval: the phase, no weight, and the iterations to go on from.
    AwaitPromotion {
        /// One less than the run's.
        iterations: i32,
    },
    /// The phase; most phases zero weight and iterations.
    Phase(Phase, Dialect),
    /// The phase with fresh counters and what was observed: a run begins or ends.
    Begin {
        /// The phase.
        phase: Phase,
        /// The canary's weight.
        weight: i32,
        /// What was observed.
        observed: Observed,
        /// The dialect, which decides what counts as promoted.
        dialect: Dialect,
    },
}

impl StatusChange {
    /// Makes the change.
    pub fn apply(&self, status: &mut CanaryStatus, spec: &CanarySpec, now: Timestamp) {
        match self {
            StatusChange::FailedChecks(count) => status.failed_checks = *count,
            StatusChange::Weight(weight) => status.canary_weight = *weight,
            StatusChange::Iterations(count) => status.iterations = *count,
            StatusChange::Applied(observed) => {
                status.last_applied_spec.clone_from(&observed.hash);
                status.tracked_configs.clone_from(&observed.configs);
            }
            StatusChange::AwaitPromotion { iterations } => {
                status.phase = Phase::WaitingPromotion;
                status.canary_weight = 0;
                status.iterations = *iterations;
                set_condition(status, spec, Dialect::Latest, now);
            }
            StatusChange::Phase(phase, dialect) => {
                status.phase = *phase;
                let keeps = match phase {
                    Phase::Progressing | Phase::Waiting => true,
                    Phase::Promoting => *dialect == Dialect::Latest,
                    _ => false,
                };
                if !keeps {
                    status.canary_weight = 0;
                    status.iterations = 0;
                }
                promoted(status, *dialect);
                set_condition(status, spec, *dialect, now);
            }
            StatusChange::Begin { phase, weight, observed, dialect } => {
                status.phase = *phase;
                status.canary_weight = *weight;
                status.failed_checks = 0;
                status.iterations = 0;
                status.last_applied_spec.clone_from(&observed.hash);
                status.tracked_configs.clone_from(&observed.configs);
                promoted(status, *dialect);
                set_condition(status, spec, *dialect, now);
            }
        }
        status.last_transition_time = Some(Time(now));
    }
}

/// The applied template counts as promoted once a run has succeeded, in the newer dialect also at first.
fn promoted(status: &mut CanaryStatus, dialect: Dialect) {
    let is_promoted = status.phase == Phase::Succeeded
        || (status.phase == Phase::Initialized && dialect == Dialect::Latest);
    if is_promoted {
        status.last_promoted_spec.clone_from(&status.last_applied_spec);
    }
}

/// The status of a Canary that has just been seen for the first time.
pub fn initializing(status: &mut CanaryStatus, spec: &CanarySpec, now: Timestamp) {
    if status.phase == Phase::Unset {
        status.phase = Phase::Initializing;
    }
    status.last_transition_time = Some(Time(now));
    set_condition(status, spec, Dialect::Latest, now);
}

fn set_condition(status: &mut CanaryStatus, spec: &CanarySpec, dialect: Dialect, now: Timestamp) {
    let Some((verdict, message)) = verdict(status.phase, spec, dialect) else { return };
    let before = status.conditions.iter().find(|condition| condition.kind == "Promoted");
    if before.is_some_and(|before| before.status == verdict && before.reason == status.phase.as_str()) {
        return;
    }
    let since = before
        .filter(|before| before.status == verdict)
        .and_then(|before| before.last_transition_time.clone())
        .unwrap_or(Time(now));
    let condition = CanaryCondition {
        kind: "Promoted".to_owned(),
        status: verdict.to_owned(),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(since),
        reason: status.phase.as_str().to_owned(),
        message,
        ..CanaryCondition::default()
    };
    status.conditions = vec![condition];
}

/// The condition's status and message in a phase.
fn verdict(phase: Phase, spec: &CanarySpec, dialect: Dialect) -> Option<(&'static str, String)> {
    let kind = if spec.target_ref.kind.is_empty() { "Deployment" } else { &spec.target_ref.kind };
    let found = match phase {
        Phase::Unset | Phase::Initializing => {
            ("Unknown", format!("New {kind} detected, starting initialization."))
        }
        Phase::Initialized => ("True", format!("{kind} initialization completed.")),
        Phase::Waiting | Phase::WaitingPromotion => ("Unknown", "Waiting for approval.".to_owned()),
        Phase::Progressing => ("Unknown", progressing(dialect).to_owned()),
        Phase::Promoting => {
            ("Unknown", "Canary analysis completed, starting primary rolling update.".to_owned())
        }
        Phase::Finalising => {
            ("Unknown", "Canary analysis completed, routing all traffic to primary.".to_owned())
        }
        Phase::Succeeded => {
            ("True", "Canary analysis completed successfully, promotion finished.".to_owned())
        }
        Phase::Failed => ("False", format!("Canary analysis failed, {kind} scaled to zero.")),
        Phase::Terminating | Phase::Terminated => return None,
    };
    Some(found)
}

/// The sentence of a run that begins.
pub(crate) fn progressing(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Rc1 => "New revision detected, starting canary analysis.",
        Dialect::Latest => "New revision detected, progressing canary analysis.",
    }
}
