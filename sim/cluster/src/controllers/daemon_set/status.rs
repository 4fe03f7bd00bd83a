//! The status of a DaemonSet. Pure.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use super::super::pod_state::is_ready;
use super::placement::{HASH_LABEL, Place, Policy};

/// Counts nodes by the state of their (oldest) pod.
pub(super) fn calculate(set: &DaemonSet, places: &[Place], policy: &Policy<'_>) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: set.status.as_ref().and_then(|status| status.collision_count),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for place in places {
        if !place.is_wanted {
            status.number_misscheduled += i32::from(!place.pods.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = place.pods.first() else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(is_ready(pod));
        available += i32::from(policy.is_available(pod));
        let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL));
        updated += i32::from(hash.map(String::as_str) == Some(policy.hash));
    }
    // Zero counts are left out, as the API's omitempty does.
    let some = |count: i32| (count != 0).then_some(count);
    status.number_available = some(available);
    status.updated_number_scheduled = some(updated);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status
}
