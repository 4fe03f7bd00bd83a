//! The HorizontalPodAutoscaler that a ScaledObject comes to. Pure.

use crd::ScaledObject;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

use crate::figures::SCALED_OBJECT;
use crate::trigger::{Target, Trigger};

/// The most replicas of a ScaledObject that names no number.
const MAX_DEFAULT: i32 = 100;

/// Its name.
pub(crate) fn name(object: &ScaledObject) -> String {
    let advanced = object.spec.advanced.as_ref();
    let config = advanced.and_then(|advanced| advanced.horizontal_pod_autoscaler_config.as_ref());
    match config.map(|config| config.name.as_str()).filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => format!("keda-hpa-{}", object.name()),
    }
}

/// The least replicas that a ScaledObject asks for.
pub(crate) fn least(object: &ScaledObject) -> i32 {
    object.spec.min_replica_count.unwrap_or(0)
}

/// The autoscaler. It cannot scale to zero: that part is the operator's.
///
/// # Errors
/// What of the ScaledObject makes none.
pub(crate) fn made(object: &ScaledObject, triggers: &[Trigger]) -> Result<HorizontalPodAutoscaler, String> {
    let (min, max) = (least(object), object.spec.max_replica_count.unwrap_or(MAX_DEFAULT));
    if min > max {
        return Err(format!("spec.minReplicaCount={min} must be less than spec.maxReplicaCount={max}"));
    }
    if let Some(idle) = object.spec.idle_replica_count.filter(|idle| *idle >= min) {
        return Err(format!("spec.idleReplicaCount={idle} must be less than spec.minReplicaCount={min}"));
    }
    let target = &object.spec.scale_target_ref;
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let advanced = object.spec.advanced.as_ref();
    let config = advanced.and_then(|advanced| advanced.horizontal_pod_autoscaler_config.as_ref());
    let mut hpa = json!({
        "metadata": {
            "name": name(object),
            "namespace": object.namespace(),
            "labels": {
                "app.kubernetes.io/managed-by": "keda-operator",
                "app.kubernetes.io/name": name(object),
                "app.kubernetes.io/part-of": object.name(),
                SCALED_OBJECT: object.name(),
            },
            "ownerReferences": [{
                "apiVersion": "keda.sh/v1alpha1", "kind": ScaledObject::KIND, "name": object.name(),
                "uid": object.metadata.uid, "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "scaleTargetRef": {
                "apiVersion": or(&target.api_version, "apps/v1"),
                "kind": or(&target.kind, "Deployment"),
                "name": target.name,
            },
            "minReplicas": min.max(1),
            "maxReplicas": max,
            "metrics": triggers.iter().map(|trigger| metric(object, trigger)).collect::<Vec<_>>(),
        },
    });
    if let Some(behaviour) = config.and_then(|config| config.behavior.as_ref()) {
        hpa["spec"]["behavior"] = behaviour.clone();
    }
    serde_json::from_value(hpa).map_err(|error| format!("spec makes no HorizontalPodAutoscaler: {error}"))
}

fn metric(object: &ScaledObject, trigger: &Trigger) -> Value {
    match trigger {
        Trigger::Resource { name, container, target } => {
            let target = match target {
                Target::Utilization(percent) => json!({"type": "Utilization", "averageUtilization": percent}),
                Target::AverageValue(amount) => json!({"type": "AverageValue", "averageValue": amount}),
            };
            match container {
                None => json!({"type": "Resource", "resource": {"name": name, "target": target}}),
                Some(container) => json!({
                    "type": "ContainerResource",
                    "containerResource": {"name": name, "container": container, "target": target},
                }),
            }
        }
        Trigger::Prometheus { metric, threshold, is_average, .. } => {
            let amount = format!("{}m", (threshold * 1000.0).round());
            let target = match is_average {
                true => json!({"type": "AverageValue", "averageValue": amount}),
                false => json!({"type": "Value", "value": amount}),
            };
            let selector = json!({"matchLabels": {SCALED_OBJECT: object.name()}});
            json!({"type": "External", "external": {"metric": {"name": metric, "selector": selector}, "target": target}})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger;

    fn object(spec: &str) -> ScaledObject {
        serde_saphyr::from_str(&format!(
            "{{metadata: {{name: so, namespace: test, uid: u-1}}, spec: {spec}}}"
        ))
        .unwrap()
    }

    #[test]
    fn triggers_become_metrics() {
        let object = object(
            "{scaleTargetRef: {name: podinfo}, maxReplicaCount: 4, triggers: [
               {type: cpu, metricType: Utilization, metadata: {value: '80'}},
               {type: prometheus, metadata: {serverAddress: 'http://p', query: up, threshold: '2.5'}}]}",
        );
        let triggers: Vec<Trigger> = object
            .spec
            .triggers
            .iter()
            .enumerate()
            .map(|(index, one)| trigger::read(index, one).unwrap())
            .collect();
        let made = serde_json::to_value(made(&object, &triggers).unwrap()).unwrap();
        assert_eq!(made["metadata"]["name"], "keda-hpa-so");
        assert_eq!(made["spec"]["minReplicas"], 1);
        assert_eq!(made["spec"]["scaleTargetRef"]["kind"], "Deployment");
        assert_eq!(
            made["spec"]["metrics"],
            json!([
                {"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 80}}},
                {"type": "External", "external": {
                    "metric": {"name": "s1-prometheus", "selector": {"matchLabels": {SCALED_OBJECT: "so"}}},
                    "target": {"type": "AverageValue", "averageValue": "2500m"}}},
            ])
        );
    }

    #[test]
    fn limits_that_exclude_one_another_are_refused() {
        let check = |limits: &str, expected: &str| {
            let object = object(&format!("{{scaleTargetRef: {{name: a}}, triggers: [], {limits}}}"));
            assert_eq!(made(&object, &[]).unwrap_err(), expected);
        };
        check(
            "minReplicaCount: 5, maxReplicaCount: 2",
            "spec.minReplicaCount=5 must be less than spec.maxReplicaCount=2",
        );
        check("idleReplicaCount: 0", "spec.idleReplicaCount=0 must be less than spec.minReplicaCount=0");
    }
}
