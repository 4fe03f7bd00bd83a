//! How a Job stands: what it still wants, and whether it has come to an end. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use clock::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::pod::index_of;
use crate::controllers::pod_state::phase;

/// Whether a Job's pods have completion indexes.
pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether a Job is to have no pods for now.
pub(super) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

/// The Job's condition of this type that holds.
pub(super) fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition with which a Job has come to its end.
pub(super) fn finish(job: &Job) -> Option<&JobCondition> {
    condition(job, "Complete").or_else(|| condition(job, "Failed"))
}

/// A condition.
pub(super) fn make(kind: &str, holds: bool, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// What is known of a Job's pods.
pub(super) struct Pods<'a> {
    /// Neither ended nor going.
    pub active: &'a [Arc<Pod>],
    /// How many ended well.
    pub succeeded: usize,
    /// How many failed.
    pub failed: usize,
}

/// Why a Job fails, if it does: a reason and a sentence.
pub(super) fn failure(
    spec: &JobSpec,
    started: Option<Timestamp>,
    pods: &Pods<'_>,
    now: Timestamp,
) -> Option<(&'static str, &'static str)> {
    let limit = usize::try_from(spec.backoff_limit.unwrap_or(6)).unwrap_or(0);
    if pods.failed > limit || restarts_exceed(spec, pods.active, limit) {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let left = deadline(spec, started)?.duration_since(now);
    (left <= SignedDuration::ZERO)
        .then_some(("DeadlineExceeded", "Job was active longer than specified deadline"))
}

/// When the Job has to be done; a suspended one has time.
pub(super) fn deadline(spec: &JobSpec, started: Option<Timestamp>) -> Option<Timestamp> {
    let seconds = spec.active_deadline_seconds.filter(|_| !is_suspended(spec))?;
    started?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Whether containers that are restarted in their pods have been so too often.
fn restarts_exceed(spec: &JobSpec, active: &[Arc<Pod>], limit: usize) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let running = active.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let restarts = running.flat_map(|pod| {
        let status = pod.status.iter();
        status.flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        })
    });
    let sum: usize = restarts.map(|status| usize::try_from(status.restart_count).unwrap_or(0)).sum();
    if limit == 0 { sum > 0 } else { sum >= limit }
}

/// Whether everything is done that was asked for.
pub(super) fn is_complete(spec: &JobSpec, pods: &Pods<'_>) -> bool {
    match spec.completions {
        // A queue of work: the first pod that finds nothing left to do says so by its end, the others follow.
        None => pods.succeeded > 0 && pods.active.is_empty(),
        Some(completions) => {
            pods.succeeded >= usize::try_from(completions).unwrap_or(0) && pods.active.is_empty()
        }
    }
}

/// How many pods should be active.
pub(super) fn wanted(spec: &JobSpec, pods: &Pods<'_>) -> usize {
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    match spec.completions {
        _ if is_suspended(spec) => 0,
        // No new ones once one has ended well.
        None if pods.succeeded > 0 => pods.active.len().min(parallelism),
        None => parallelism,
        Some(completions) => {
            let left = usize::try_from(completions).unwrap_or(0).saturating_sub(pods.succeeded);
            left.min(parallelism)
        }
    }
}

/// The indexes of the next `count` pods: the lowest that are neither done nor worked on.
pub(super) fn next_indexes(
    completions: i32,
    done: &BTreeSet<i32>,
    active: &[Arc<Pod>],
    count: usize,
) -> Vec<i32> {
    let taken: BTreeSet<i32> = active.iter().filter_map(|pod| index_of(pod)).collect();
    (0..completions).filter(|index| !done.contains(index) && !taken.contains(index)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(fields: Value) -> JobSpec {
        let mut spec = json!({"template": {"spec": {"containers": [], "restartPolicy": "Never"}}});
        for (name, value) in fields.as_object().unwrap() {
            spec[name] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        let pod = |number: usize| json!({"metadata": {"annotations": {"batch.kubernetes.io/job-completion-index": number.to_string()}}});
        (0..count).map(|number| Arc::new(serde_json::from_value(pod(number)).unwrap())).collect()
    }

    #[test]
    fn as_many_pods_are_wanted_as_there_is_work() {
        for (fields, active, succeeded, expected) in [
            (json!({"parallelism": 3, "completions": 5}), 0, 0, 3),
            (json!({"parallelism": 3, "completions": 5}), 1, 4, 1),
            (json!({"parallelism": 3, "completions": 5}), 0, 5, 0),
            (json!({"parallelism": 3, "completions": 5, "suspend": true}), 2, 1, 0),
            (json!({"parallelism": 3}), 0, 0, 3),
            (json!({"parallelism": 3}), 2, 1, 2),
            (json!({"parallelism": 0, "completions": 5}), 0, 0, 0),
        ] {
            let active = pods(active);
            let state = Pods { active: &active, succeeded, failed: 0 };
            assert_eq!(wanted(&spec(fields.clone()), &state), expected, "{fields}");
        }
        assert_eq!(next_indexes(6, &[0, 2].into(), &pods(2), 2), [3, 4]);
    }

    #[test]
    fn jobs_fail_by_their_limits_only() {
        let started: Timestamp = "2020-03-17T12:00:00Z".parse().unwrap();
        let check = |fields: Value, failed: usize, seconds: i64, expected: Option<&str>| {
            let state = Pods { active: &[], succeeded: 0, failed };
            let now = started + SignedDuration::from_secs(seconds);
            let found = failure(&spec(fields.clone()), Some(started), &state, now);
            assert_eq!(found.map(|(reason, _)| reason), expected, "{fields} {failed} {seconds}");
        };
        check(json!({"backoffLimit": 1}), 1, 0, None);
        check(json!({"backoffLimit": 1}), 2, 0, Some("BackoffLimitExceeded"));
        check(json!({"activeDeadlineSeconds": 60}), 0, 59, None);
        check(json!({"activeDeadlineSeconds": 60}), 0, 60, Some("DeadlineExceeded"));
        check(json!({"activeDeadlineSeconds": 60, "suspend": true}), 0, 90, None);
    }
}
