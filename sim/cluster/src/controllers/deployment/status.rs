//! The status of a Deployment: counts, the Available condition, and Progressing with its deadline. Pure;
//! follows `pkg/controller/deployment/{progress,sync}.go`.

use std::sync::Arc;
use std::time::Duration;

use clock::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::rollout::Limits;

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// A condition that starts now.
pub(super) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// A condition of a status.
pub(super) fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// Sets a condition, unless one of the same status and reason stands; the transition time moves with the
/// status only.
pub(super) fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(current) = find(status, &condition.type_) {
        if current.status == condition.status && current.reason == condition.reason {
            return;
        }
        if current.status == condition.status {
            condition.last_transition_time = current.last_transition_time.clone();
        }
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}

/// Removes a condition.
pub(super) fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// The deadline for progress, if the Deployment has one.
pub(super) fn deadline(spec: &DeploymentSpec) -> Option<SignedDuration> {
    let seconds = spec.progress_deadline_seconds.unwrap_or(600);
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(i64::from(seconds)))
}

/// A paused Deployment's Progressing condition: paused, resumed, or nothing to change.
pub(super) fn paused_condition(deployment: &Deployment, now: Timestamp) -> Option<DeploymentCondition> {
    let spec = deployment.spec.as_ref()?;
    deadline(spec)?;
    let current = deployment.status.as_ref().and_then(|status| find(status, PROGRESSING));
    let reason = current.and_then(|condition| condition.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return None;
    }
    match (spec.paused == Some(true), reason == Some(PAUSED)) {
        (true, false) => Some(condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now)),
        (false, true) => {
            Some(condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now))
        }
        _ => None,
    }
}

/// Counts and availability over all of a Deployment's ReplicaSets; other conditions are kept.
pub(super) fn calculate(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> DeploymentStatus {
    let Some(spec) = &deployment.spec else { return DeploymentStatus::default() };
    let all = || old.iter().chain(new).map(Arc::as_ref);
    let wanted: i32 = all().map(|set| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)).sum();
    let replicas = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let available: i32 = all().map(available).sum();
    let ready: i32 =
        all().filter_map(|set| set.status.as_ref()).map(|status| status.ready_replicas.unwrap_or(0)).sum();
    // Zero counts are left out, as the API's omitempty does.
    let some = |count: i32| (count != 0).then_some(count);
    let previous = deployment.status.as_ref();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(all().map(replicas).sum()),
        updated_replicas: some(new.map_or(0, |set| replicas(set))),
        ready_replicas: some(ready),
        available_replicas: some(available),
        unavailable_replicas: some((wanted - available).max(0)),
        collision_count: previous.and_then(|status| status.collision_count),
        conditions: previous.and_then(|status| status.conditions.clone()),
        terminating_replicas: None,
    };
    let availability = if available >= Limits::of(spec).min_available() {
        condition(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    } else {
        condition(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            now,
        )
    };
    set(&mut status, availability);
    status
}

/// A set's available pods.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// Whether all pods are of the current template and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1));
    let count = |count: Option<i32>| Some(count.unwrap_or(0));
    count(status.updated_replicas) == wanted
        && count(status.replicas) == wanted
        && count(status.available_replicas) == wanted
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Whether the rollout moved between two statuses.
fn is_progressing(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old_pods =
        |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    let grew = |before: Option<i32>, after: Option<i32>| after.unwrap_or(0) > before.unwrap_or(0);
    grew(before.updated_replicas, after.updated_replicas)
        || old_pods(after) < old_pods(before)
        || grew(before.ready_replicas, after.ready_replicas)
        || grew(before.available_replicas, after.available_replicas)
}

/// Whether the last progress is longer ago than the deadline allows.
fn is_timed_out(spec: &DeploymentSpec, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(deadline), Some(progress)) = (deadline(spec), find(status, PROGRESSING)) else { return false };
    match progress.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => progress.last_update_time.as_ref().is_some_and(|from| from.0 + deadline < now),
    }
}

/// The status after a step of a rollout: counts, Available, Progressing, ReplicaFailure.
pub(super) fn after_step(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = calculate(deployment, new, old, now);
    let Some(spec) = &deployment.spec else { return status };
    let none = DeploymentStatus::default();
    let before = deployment.status.as_ref().unwrap_or(&none);
    let current = find(before, PROGRESSING).cloned();
    if deadline(spec).is_none() {
        remove(&mut status, PROGRESSING);
    }
    let rests = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|current| current.reason.as_deref() == Some(NEW_SET_AVAILABLE));
    if deadline(spec).is_some() && !rests {
        let subject = match new {
            Some(set) => format!("ReplicaSet {:?}", set.name_any()),
            None => format!("Deployment {:?}", deployment.name_any()),
        };
        if is_complete(deployment, &status) {
            let message = format!("{subject} has successfully progressed.");
            set(&mut status, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, message, now));
        } else if is_progressing(before, &status) {
            let message = format!("{subject} is progressing.");
            let mut progress = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
            // Progress moves the update time even if the reason stays.
            if let Some(current) = current {
                if current.status == "True" {
                    progress.last_transition_time = current.last_transition_time;
                }
                remove(&mut status, PROGRESSING);
            }
            set(&mut status, progress);
        } else if is_timed_out(spec, &status, now) {
            let message = format!("{subject} has timed out progressing.");
            set(&mut status, condition(PROGRESSING, "False", TIMED_OUT, message, now));
        }
    }
    match replica_failure(new, old) {
        Some(failure) => set(
            &mut status,
            DeploymentCondition {
                type_: REPLICA_FAILURE.to_owned(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time.clone(),
            },
        ),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    status
}

fn replica_failure<'a>(
    new: Option<&'a Arc<ReplicaSet>>,
    old: &'a [Arc<ReplicaSet>],
) -> Option<&'a ReplicaSetCondition> {
    let failure = |set: &'a Arc<ReplicaSet>| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == REPLICA_FAILURE)
    };
    new.and_then(failure).or_else(|| old.iter().find_map(failure))
}

/// How long until a rollout that stands still must be looked at again for its deadline.
pub(super) fn recheck_in(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = deadline(deployment.spec.as_ref()?)?;
    let progress = find(status, PROGRESSING)?;
    if is_complete(deployment, status) || progress.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let due = progress.last_update_time.as_ref()?.0 + deadline + SignedDuration::from_secs(1);
    // What is due already is looked at again soon, but not at this very moment: time must pass in between.
    let soon = Duration::from_secs(1);
    Some(Duration::try_from(due.duration_since(now)).unwrap_or(soon).max(soon))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        "2020-03-17T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
    }

    fn set_of(replicas: i32, ready: i32, available: i32) -> Arc<ReplicaSet> {
        let set = json!({
            "metadata": {"name": "podinfo-abc"},
            "spec": {"replicas": replicas, "selector": {}},
            "status": {"replicas": replicas, "readyReplicas": ready, "availableReplicas": available},
        });
        Arc::new(serde_json::from_value(set).unwrap())
    }

    /// Type, status, reason and seconds of the last update and transition of each condition.
    fn conditions(status: &DeploymentStatus) -> Vec<(String, String, String, i64, i64)> {
        let seconds = |time: &Option<Time>| time.as_ref().unwrap().0.duration_since(at(0)).as_secs();
        status
            .conditions
            .iter()
            .flatten()
            .map(|c| {
                let reason = c.reason.clone().unwrap();
                let (update, transition) = (seconds(&c.last_update_time), seconds(&c.last_transition_time));
                (c.type_.clone(), c.status.clone(), reason, update, transition)
            })
            .collect()
    }

    #[test]
    fn conditions_through_a_rollout_and_past_its_deadline() {
        let mut deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "podinfo", "generation": 1},
            "spec": {"replicas": 2, "selector": {}, "template": {}, "progressDeadlineSeconds": 60},
        }))
        .unwrap();
        let mut status = DeploymentStatus::default();
        set(&mut status, condition(PROGRESSING, "True", "NewReplicaSetCreated", "Created", at(0)));
        deployment.status = Some(status);
        let step = |deployment: &mut Deployment, set: Arc<ReplicaSet>, seconds| {
            let status = after_step(deployment, Some(&set), &[], at(seconds));
            deployment.status = Some(status.clone());
            conditions(&status)
        };
        let line = |type_: &str, status: &str, reason: &str, update, transition| {
            (type_.to_owned(), status.to_owned(), reason.to_owned(), update, transition)
        };
        assert_eq!(
            step(&mut deployment, set_of(2, 0, 0), 1),
            [
                line("Available", "False", "MinimumReplicasUnavailable", 1, 1),
                line("Progressing", "True", "ReplicaSetUpdated", 1, 0),
            ]
        );
        assert_eq!(step(&mut deployment, set_of(2, 1, 1), 9)[1].3, 9);
        let status = deployment.status.clone().unwrap();
        assert_eq!(recheck_in(&deployment, &status, at(9)), Some(Duration::from_secs(61)));
        for due_or_late in [70, 71] {
            assert_eq!(recheck_in(&deployment, &status, at(due_or_late)), Some(Duration::from_secs(1)));
        }
        assert_eq!(
            step(&mut deployment, set_of(2, 1, 1), 70)[1],
            line("Progressing", "False", "ProgressDeadlineExceeded", 70, 70)
        );
        let done = step(&mut deployment, set_of(2, 2, 2), 80);
        assert_eq!(
            done,
            [
                line("Available", "True", "MinimumReplicasAvailable", 80, 80),
                line("Progressing", "True", "NewReplicaSetAvailable", 80, 80),
            ]
        );
        let status = deployment.status.clone().unwrap();
        assert!(is_complete(&deployment, &status));
        let message = find(&status, PROGRESSING).unwrap().message.clone().unwrap();
        assert_eq!(message, "ReplicaSet \"podinfo-abc\" has successfully progressed.");
        // A finished rollout that loses a pod keeps its Progressing condition and never times out.
        assert_eq!(step(&mut deployment, set_of(2, 1, 1), 900)[0].2, "NewReplicaSetAvailable");
        assert_eq!(deployment.status.unwrap().unavailable_replicas, Some(1));
    }
}
