//! Names and marks that all objects made for a Canary share.

use std::collections::BTreeMap;

use crd::Canary;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Labels and annotations by name.
pub type Labels = BTreeMap<String, String>;

/// The Canary as it is called in logs and events: `NAME.NAMESPACE`.
pub fn key(canary: &Canary) -> String {
    format!("{}.{}", canary.name(), canary.namespace())
}

/// The reference by which the Canary owns an object.
pub fn reference(canary: &Canary) -> OwnerReference {
    OwnerReference {
        api_version: "flagger.app/v1beta1".to_owned(),
        kind: Canary::KIND.to_owned(),
        name: canary.name().to_owned(),
        uid: canary.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Metadata of an object that the Canary owns, in its namespace.
pub fn metadata(canary: &Canary, name: &str, labels: Labels, annotations: Labels) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(canary.namespace().to_owned()),
        labels: (!labels.is_empty()).then_some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        owner_references: Some(vec![reference(canary)]),
        ..Default::default()
    }
}

/// Whether an object is controlled by a Canary, and if so, by the one of this name.
pub fn owned(object: &ObjectMeta, canary: &str) -> Option<bool> {
    let owners = object.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    (controller.kind == Canary::KIND).then_some(controller.name == canary)
}

/// What is left of labels or annotations without Flux's own, which would hand the copy to Flux.
pub fn without_flux(labels: Option<&Labels>) -> Labels {
    let labels = labels.into_iter().flatten();
    labels.filter(|(key, _)| !is_flux(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The labels or annotations whose names begin with one of `prefixes`, `*` for all; Flux's own never.
pub fn included(labels: Option<&Labels>, prefixes: &[String]) -> Labels {
    let fits = |key: &str| {
        let mut prefixes = prefixes.iter();
        prefixes.any(|prefix| prefix == "*" || (!prefix.is_empty() && key.starts_with(prefix.as_str())))
    };
    let labels = labels.into_iter().flatten().filter(|(key, _)| !is_flux(key) && fits(key));
    labels.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Whether a label or annotation is Flux's.
pub fn is_flux(key: &str) -> bool {
    key.contains("toolkit.fluxcd.io")
}
