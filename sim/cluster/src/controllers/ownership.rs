//! Controller references: who owns an object, and adoption of objects without an owner (client-go's
//! `controller_ref_manager`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::selector::selects;

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
    O: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug + Sync,
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
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(claim == Claim::Adopt),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
