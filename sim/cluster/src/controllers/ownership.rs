//! Controller references: who owns an object, and adoption of objects without an owner (client-go's
//! `controller_ref_manager`).

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;
use kube::api::Patch;
use program::{Api, Change, Informer, Kind};
use serde_json::json;

use super::Key;
use super::selector::{is_empty, selects};

/// The owner that controls an object.
pub(super) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The name of the controlling owner, if it is of this kind.
pub(super) fn controller_name<'a>(meta: &'a ObjectMeta, kind: &str) -> Option<&'a str> {
    controller_of(meta).filter(|owner| owner.kind == kind).map(|owner| owner.name.as_str())
}

/// A reference that makes `owner` the controller.
pub(super) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Owners of a kind that a change of a pod concerns: its controllers before and after, or those that may adopt it.
pub(super) fn owners_of<K>(
    change: &Change<'_, Pod>,
    kind: &str,
    owners: &Informer<K>,
    selector: impl Fn(&K) -> Option<LabelSelector>,
) -> Vec<Key>
where
    K: Kind + Resource,
{
    let pod = change.object();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut keys = Vec::new();
    if let Some(name) = controller_name(&pod.metadata, kind) {
        keys.push(Key { namespace: namespace.clone(), name: name.to_owned() });
    }
    if let Change::Applied { old: Some(old), .. } = change
        && let Some(name) = controller_name(&old.metadata, kind)
        && keys.first().is_none_or(|key| key.name != name)
    {
        keys.push(Key { namespace: namespace.clone(), name: name.to_owned() });
    }
    if matches!(change, Change::Applied { .. }) && controller_of(&pod.metadata).is_none() {
        let orphan_may_join = |owner: &Arc<K>| {
            owner.meta().namespace.as_deref() == Some(namespace.as_str())
                && selector(owner).is_some_and(|selector| {
                    !is_empty(&selector) && selects(&selector, pod.metadata.labels.as_ref())
                })
        };
        keys.extend(
            owners.list().iter().filter(|owner| orphan_may_join(owner)).map(|owner| Key::of(owner.as_ref())),
        );
    }
    keys
}

/// What a controller does about an object that its selector or its uid leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is the controller's own.
    Keep,
    /// It has no controller and matches.
    Adopt,
    /// It is the controller's, but matches no more.
    Release,
    /// It is another's, or no match.
    Leave,
}

/// Decides on one object.
pub(super) fn claim(owner: &ObjectMeta, selector: &LabelSelector, object: &ObjectMeta) -> Claim {
    let matches = selects(selector, object.labels.as_ref());
    match controller_of(object) {
        Some(reference) if Some(&reference.uid) != owner.uid.as_ref() => Claim::Leave,
        Some(_) if matches => Claim::Keep,
        Some(_) if owner.deletion_timestamp.is_some() => Claim::Leave,
        Some(_) => Claim::Release,
        None if matches && owner.deletion_timestamp.is_none() && object.deletion_timestamp.is_none() => {
            Claim::Adopt
        }
        None => Claim::Leave,
    }
}

/// Writes an adoption or release and returns whether the object is now the owner's. An object that has gone
/// or changed hands meanwhile is not an error.
pub(super) async fn carry_out<K, O>(
    api: &Api<O>,
    owner: &K,
    object: &O,
    claim: Claim,
) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = ()> + Sync,
    O: Kind + Resource,
{
    let mut owners = object.meta().owner_references.clone().unwrap_or_default();
    match claim {
        Claim::Keep => return Ok(true),
        Claim::Leave => return Ok(false),
        Claim::Adopt => owners.push(controller_reference(owner)),
        Claim::Release => owners.retain(|reference| Some(&reference.uid) != owner.meta().uid.as_ref()),
    }
    let patch = json!({"metadata": {
        "uid": object.meta().uid,
        "resourceVersion": object.meta().resource_version,
        "ownerReferences": owners,
    }});
    let name = object.meta().name.as_deref().unwrap_or_default();
    match api.patch(name, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(claim == Claim::Adopt),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
