//! The status of a ReplicaSet. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clock::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::pod_state::{available_in, is_ready};

/// The condition that tells of a failed creation or deletion.
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Counts the set's active pods. `failure` is the reason and message of a write that was refused just now.
pub(super) fn calculate(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let empty = BTreeMap::new();
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref())
        .unwrap_or(&empty);
    let fully_labeled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
        template.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(pods.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let replicas = count(&|_| true);
    // Zero counts are left out, as the API's omitempty does.
    let some = |count: i32| (count != 0).then_some(count);
    ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: some(count(&fully_labeled)),
        ready_replicas: some(count(&is_ready)),
        available_replicas: some(count(&|pod| available_in(pod, min_ready, now) == Some(Duration::ZERO))),
        observed_generation: set.metadata.generation,
        conditions: conditions(set.status.as_ref(), failure, now),
        terminating_replicas: None,
    }
}

fn conditions(
    status: Option<&ReplicaSetStatus>,
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let known = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        Some((reason, message)) if !known => conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }),
        None if known => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
        _ => {}
    }
    (!conditions.is_empty()).then_some(conditions)
}
