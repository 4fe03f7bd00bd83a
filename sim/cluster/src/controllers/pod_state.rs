//! What controllers read off a pod: active, ready, available.

use std::time::Duration;

use clock::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// Whether the pod counts as a replica: neither finished nor being deleted.
pub(super) fn is_active(pod: &Pod) -> bool {
    !matches!(phase(pod), "Succeeded" | "Failed") && pod.metadata.deletion_timestamp.is_none()
}

/// The pod's phase, or nothing.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The pod's Ready condition.
pub(super) fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")
}

/// Whether the pod is ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|condition| condition.status == "True")
}

/// When the pod became ready; `None` if it is not.
pub(super) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = ready_condition(pod).filter(|condition| condition.status == "True")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// How long until the pod has been ready for `min_ready_seconds`: zero if it is available, `None` if it is
/// not ready.
pub(super) fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if min_ready_seconds == 0 {
        return is_ready(pod).then_some(Duration::ZERO);
    }
    let due = ready_since(pod)? + SignedDuration::from_secs(i64::from(min_ready_seconds));
    Some(Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO))
}
