//! The primary's HorizontalPodAutoscaler: a copy of the target's under another name.

use crd::Canary;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Map, Value};

use canary::Dialect;

use crate::owner::{self, Labels};

/// The kind under the version that the dialect speaks. `v1.0.0-rc.1` knows only `autoscaling/v2beta1`.
pub fn resource(dialect: Dialect) -> ApiResource {
    let version = match dialect {
        Dialect::Rc1 => "v2beta1",
        Dialect::Latest => "v2",
    };
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("autoscaling", version, "HorizontalPodAutoscaler"),
        "horizontalpodautoscalers",
    )
}

/// The primary's autoscaler as it is first made.
pub fn create(canary: &Canary, target: &DynamicObject, dialect: Dialect) -> DynamicObject {
    let name = format!("{}-primary", target.metadata.name.as_deref().unwrap_or_default());
    let labels = match dialect {
        Dialect::Rc1 => target.metadata.labels.clone().unwrap_or_default(),
        Dialect::Latest => owner::without_flux(target.metadata.labels.as_ref()),
    };
    let metadata = owner::metadata(canary, &name, labels, Labels::new());
    let mut object = DynamicObject::new(&name, &resource(dialect));
    object.metadata = metadata;
    let mut spec = spec(canary, target, dialect);
    let mut reference = target.data["spec"]["scaleTargetRef"].clone();
    reference["name"] = format!("{}-primary", canary.spec.target_ref.name).into();
    spec.insert("scaleTargetRef".into(), reference);
    object.data = serde_json::json!({ "spec": spec });
    object
}

/// Brings an existing autoscaler of the primary to the target's figures; `None` if nothing differs.
pub fn correct(
    canary: &Canary,
    target: &DynamicObject,
    existing: &DynamicObject,
    dialect: Dialect,
) -> Option<DynamicObject> {
    let wanted = spec(canary, target, dialect);
    let mut corrected = existing.clone();
    let old = corrected.data.get_mut("spec")?.as_object_mut()?;
    // As upstream: the newer release sees a difference in labels and annotations, and corrects neither.
    let marks = |object: &DynamicObject| {
        let metadata = &object.metadata;
        (metadata.labels.clone().unwrap_or_default(), metadata.annotations.clone().unwrap_or_default())
    };
    let mut differs = dialect == Dialect::Latest && marks(target) != marks(existing);
    for field in fields(dialect) {
        let (new, current) = (wanted.get(*field), old.get(*field));
        // An absent minimum is 1.
        let minimum = Value::from(1);
        let default = (*field == "minReplicas").then_some(&minimum);
        if new.or(default) != current.or(default) {
            differs = true;
            match new {
                Some(value) => old.insert((*field).to_owned(), value.clone()),
                None => old.remove(*field),
            };
        }
    }
    differs.then_some(corrected)
}

fn fields(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Rc1 => &["minReplicas", "maxReplicas", "metrics"],
        Dialect::Latest => &["minReplicas", "maxReplicas", "metrics", "behavior"],
    }
}

fn spec(canary: &Canary, target: &DynamicObject, dialect: Dialect) -> Map<String, Value> {
    let mut spec = Map::new();
    for field in fields(dialect) {
        if let Some(value) = target.data["spec"].get(*field) {
            spec.insert((*field).to_owned(), value.clone());
        }
    }
    let limits =
        canary.spec.autoscaler_ref.as_ref().and_then(|scaler| scaler.primary_scaler_replicas.as_ref());
    if let (Dialect::Latest, Some(limits)) = (dialect, limits) {
        for (field, value) in [("minReplicas", limits.min_replicas), ("maxReplicas", limits.max_replicas)] {
            if let Some(value) = value {
                spec.insert(field.to_owned(), value.into());
            }
        }
    }
    spec
}

/// The least number of replicas that an autoscaler asks for.
pub fn least(scaler: &DynamicObject) -> Option<i32> {
    scaler.data["spec"]["minReplicas"].as_i64().and_then(|least| i32::try_from(least).ok())
}
