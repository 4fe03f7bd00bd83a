//! The primary's ScaledObject: a copy of the target's that scales the primary, by the primary's figures.

use crd::{Canary, ScaledObject};

use crate::owner;

/// The primary's ScaledObject.
pub fn primary(canary: &Canary, target: &ScaledObject) -> ScaledObject {
    let name = format!("{}-primary", target.name());
    let mut object = ScaledObject::new(canary.namespace(), &name, target.spec.clone());
    let labels = owner::without_flux(target.metadata.labels.as_ref());
    let annotations = owner::without_flux(target.metadata.annotations.as_ref());
    object.metadata = owner::metadata(canary, &name, labels, annotations);
    let (workload, spec) = (&canary.spec.target_ref.name, &mut object.spec);
    let primary = format!("{workload}-primary");
    spec.scale_target_ref.name.clone_from(&primary);
    // As upstream, the autoscaler's settings are there even if the target names none.
    let hpa = spec.advanced.get_or_insert_default().horizontal_pod_autoscaler_config.get_or_insert_default();
    if !hpa.name.is_empty() {
        hpa.name.push_str("-primary");
    }
    let reference = canary.spec.autoscaler_ref.clone().unwrap_or_default();
    for trigger in &mut spec.triggers {
        if let Some(query) = reference.primary_scaler_queries.get(&trigger.name) {
            trigger.metadata.insert("query".to_owned(), query.clone());
        } else if reference.primary_scaler_queries.is_empty()
            && let Some(query) = trigger.metadata.get_mut("query")
        {
            *query = of_primary(query, workload, &primary);
        }
    }
    if let Some(limits) = &reference.primary_scaler_replicas {
        spec.min_replica_count = limits.min_replicas.or(spec.min_replica_count);
        spec.max_replica_count = limits.max_replicas.or(spec.max_replica_count);
    }
    object
}

/// A query about the target or its canary Service, as one about the primary.
fn of_primary(query: &str, workload: &str, primary: &str) -> String {
    let canary = format!("{workload}-canary");
    let parts = query.split(&canary).map(|part| part.replace(workload, primary));
    parts.collect::<Vec<_>>().join(primary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primary_is_scaled_by_its_own_figures() {
        let read = |text: &str| -> ScaledObject { serde_saphyr::from_str(text).unwrap() };
        let canary: Canary = serde_saphyr::from_str(
            "
metadata: {name: podinfo, namespace: test, uid: u-1}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: podinfo}
  autoscalerRef: {apiVersion: keda.sh/v1alpha1, kind: ScaledObject, name: so, primaryScalerReplicas: {maxReplicas: 9}}
  service: {port: 80}
",
        )
        .unwrap();
        let target = read(
            "
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: so
  namespace: test
  annotations: {team: a, kustomize.toolkit.fluxcd.io/name: apps}
spec:
  scaleTargetRef: {name: podinfo}
  minReplicaCount: 2
  maxReplicaCount: 5
  triggers:
    - {type: prometheus, metadata: {query: 'sum(rate(x{app=\"podinfo\"}[1m])) + sum(y{svc=\"podinfo-canary\"})'}}
",
        );
        let made = serde_json::to_value(primary(&canary, &target)).unwrap();
        let expected = read(
            "
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: so-primary
  namespace: test
  annotations: {team: a}
  ownerReferences:
    - {apiVersion: flagger.app/v1beta1, kind: Canary, name: podinfo, uid: u-1, controller: true, blockOwnerDeletion: true}
spec:
  scaleTargetRef: {name: podinfo-primary}
  minReplicaCount: 2
  maxReplicaCount: 9
  advanced: {horizontalPodAutoscalerConfig: {}}
  triggers:
    - {type: prometheus, metadata: {query: 'sum(rate(x{app=\"podinfo-primary\"}[1m])) + sum(y{svc=\"podinfo-primary\"})'}}
",
        );
        assert_eq!(made, serde_json::to_value(expected).unwrap());
    }
}
