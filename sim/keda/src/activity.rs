//! What the operator does to a workload's size beside the autoscaler. Pure; follows `pkg/scaling/executor`.

use std::time::Duration;

use crd::ScaledObject;

use crate::hpa;

/// How long nothing must trigger before a workload is scaled down, unless the object says otherwise.
const COOLDOWN: Duration = Duration::from_secs(300);

/// The number at which an annotation holds a workload.
///
/// # Errors
/// The annotation's text, if it is no number.
pub(crate) fn paused(object: &ScaledObject) -> Result<Option<i32>, String> {
    let annotations = object.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|all| all.get(ScaledObject::PAUSED_REPLICAS)) else {
        return Ok(None);
    };
    let count = text.parse().ok().filter(|count| *count >= 0);
    count.map(Some).ok_or_else(|| {
        format!("annotation {} is {text:?}, not a number of replicas", ScaledObject::PAUSED_REPLICAS)
    })
}

/// The size that a workload of `current` replicas should have, if the operator is to change it. `idle` is how long no
/// trigger has been active; `None` while one is.
pub(crate) fn wanted(object: &ScaledObject, current: i32, idle: Option<Duration>) -> Option<i32> {
    let least = hpa::least(object);
    let at_rest = object.spec.idle_replica_count;
    match idle {
        None if current == 0 || at_rest.is_some_and(|_| current < least) => Some(least.max(1)),
        None => None,
        Some(idle) => {
            let seconds = object.spec.cooldown_period.and_then(|seconds| u64::try_from(seconds).ok());
            let is_over = idle >= seconds.map_or(COOLDOWN, Duration::from_secs);
            match at_rest {
                Some(rest) if current > rest => is_over.then_some(rest),
                None if least == 0 && current > 0 => is_over.then_some(0),
                _ if current < least && at_rest.is_none() => Some(least),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(limits: &str) -> ScaledObject {
        serde_saphyr::from_str(&format!("{{spec: {{scaleTargetRef: {{name: a}}, triggers: [], {limits}}}}}"))
            .unwrap()
    }

    #[test]
    fn only_the_ways_to_and_from_zero_are_the_operators() {
        let check = |limits: &str, current: i32, idle: Option<u64>, expected: Option<i32>| {
            let found = wanted(&object(limits), current, idle.map(Duration::from_secs));
            assert_eq!(found, expected, "{limits}, {current} replicas, idle for {idle:?}");
        };
        check("", 0, None, Some(1));
        check("minReplicaCount: 2", 0, None, Some(2));
        check("minReplicaCount: 2", 3, None, None);
        check("", 3, Some(299), None);
        check("", 3, Some(300), Some(0));
        check("cooldownPeriod: 10", 3, Some(10), Some(0));
        check("minReplicaCount: 2", 1, Some(0), Some(2));
        check("minReplicaCount: 2", 3, Some(900), None);
        check("minReplicaCount: 2, idleReplicaCount: 0", 3, Some(900), Some(0));
        check("minReplicaCount: 2, idleReplicaCount: 0", 0, Some(900), None);
        check("minReplicaCount: 2, idleReplicaCount: 0", 0, None, Some(2));
    }

    #[test]
    fn a_pause_is_a_number() {
        let with = |text: &str| -> ScaledObject {
            serde_saphyr::from_str(&format!(
                "{{metadata: {{annotations: {{autoscaling.keda.sh/paused-replicas: '{text}'}}}}}}"
            ))
            .unwrap()
        };
        assert_eq!(paused(&with("0")), Ok(Some(0)));
        assert!(paused(&with("few")).is_err());
        assert_eq!(paused(&object("")), Ok(None));
    }
}
