//! Patches, server-side apply among them.

use std::sync::Arc;

use clock::Clock;
use http::{Response, StatusCode};
use tree::{Value, json};

use super::create::insert;
use super::update::replace;
use super::{answer, expect_kind, expect_namespace, is_dry_run, normalise, normalise_for, parse, writer};
use crate::body::Body;
use crate::delete::stamp;
use crate::failure::Failure;
use crate::managed_fields;
use crate::patch::{PatchError, json as json_patch, merge, strategic};
use crate::server::{Admission, Call, State};
use crate::store::{Place, Stored};
use crate::structural::Cause;
use crate::view::from_storage;

pub(crate) fn patch(
    state: &mut State,
    call: &Call<'_>,
    clock: Clock,
    admission: Option<&dyn Admission>,
) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let place = call.place(name);
    let old = state.store.get(&place).cloned();
    let subresource = call.target.subresource.as_deref().unwrap_or_default();
    if call.content_type == "application/apply-patch+yaml" {
        return apply(state, call, &place, old, subresource, clock, admission);
    }
    let old = old.ok_or_else(|| Failure::not_found(call.resource, name))?;
    let current = from_storage(call.resource, &call.target.version, &old.value);
    let object = patched(call, &call.resource.group_kind(), current)?;
    if object["metadata"]["name"] != *name {
        let cause = Cause {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: field is immutable", object["metadata"]["name"]),
            field: "metadata.name".to_owned(),
        };
        return Err(Failure::invalid(call.resource, name, &[cause]));
    }
    let (object, unknown) = match subresource {
        "status" => normalise_for(call, object, Some(&old))?,
        _ => normalise(call, object, Some(&old), true)?,
    };
    let stored = replace(state, call, &place, object, subresource, clock)?;
    answer(call, StatusCode::OK, &stored, clock, &unknown.fields)
}

/// The object after the patch in the request's body.
pub(crate) fn patched(call: &Call<'_>, group_kind: &str, current: Value) -> Result<Value, Failure> {
    let name = call.name()?;
    let patch = parse(call)?;
    let result = match call.content_type {
        "application/json-patch+json" => json_patch::apply(&current, &patch),
        "application/merge-patch+json" => {
            if !patch.is_object() {
                return Err(Failure::bad_request("the merge patch is no JSON object"));
            }
            Ok(merge::apply(current, &patch))
        }
        "application/strategic-merge-patch+json" if !call.resource.custom => {
            strategic::apply(group_kind, &current, &patch)
        }
        other => {
            let accepted = if call.resource.custom {
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            } else {
                "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
            };
            return Err(Failure::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format - accepted media types include: {accepted}; got {other:?}"
                ),
            ));
        }
    };
    let patched = result.map_err(|error: PatchError| Failure::patch(call.resource, name, &error))?;
    if !patched["metadata"].is_object() {
        return Err(Failure::bad_request("the patched object has no metadata"));
    }
    Ok(patched)
}

/// Server-side apply: creates the object if it is missing.
fn apply(
    state: &mut State,
    call: &Call<'_>,
    place: &Place,
    old: Option<Arc<Stored>>,
    subresource: &str,
    clock: Clock,
    admission: Option<&dyn Admission>,
) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    if call.parameters.get("fieldManager").is_none() {
        return Err(Failure::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let mut applied = parse(call)?;
    expect_kind(call, &mut applied)?;
    expect_namespace(call, &mut applied)?;
    if applied["metadata"]["managedFields"].as_array().is_some_and(|fields| !fields.is_empty()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    if applied["metadata"]["name"].is_null() {
        applied["metadata"]["name"] = json!(name);
    }
    let time = stamp(clock.now());
    let writer = writer(call, &time, subresource);
    let live = old.as_ref().map(|stored| from_storage(call.resource, &call.target.version, &stored.value));
    let force = call.parameters.is_true("force");
    let merged = managed_fields::apply(live.as_ref(), &applied, &writer, force, &call.version.keys).map_err(
        |conflicts| {
            let mut failure = Failure::new(409, "Conflict", managed_fields::conflict_message(&conflicts));
            let causes: Vec<Value> = conflicts
                .iter()
                .map(|conflict| {
                    json!({"reason": "FieldManagerConflict", "field": conflict.field,
                           "message": format!("conflict with {}", conflict.manager)})
                })
                .collect();
            failure.details = json!({"causes": causes});
            failure
        },
    )?;
    if old.is_none() {
        let managed = merged["metadata"]["managedFields"].clone();
        let (stored, warnings) = insert(state, call, merged, clock, admission, subresource)?;
        let mut object = stored.value.clone();
        if object["metadata"]["managedFields"] != managed && !is_dry_run(call) {
            object["metadata"]["managedFields"] = managed;
            let stored = state.store.put(place, object);
            return answer(call, StatusCode::CREATED, &stored, clock, &warnings);
        }
        return answer(call, StatusCode::CREATED, &stored, clock, &warnings);
    }
    let managed = merged["metadata"]["managedFields"].clone();
    let (object, unknown) = normalise(call, merged, old.as_deref(), true)?;
    let stored = replace(state, call, place, object, subresource, clock)?;
    let stored = if stored.value["metadata"]["managedFields"] == managed || is_dry_run(call) {
        stored
    } else {
        let mut object = stored.value.clone();
        object["metadata"]["managedFields"] = managed;
        state.store.put(place, object)
    };
    answer(call, StatusCode::OK, &stored, clock, &unknown.fields)
}
