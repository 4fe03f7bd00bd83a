//! Changed objects: what an update may change, and what stays.

use std::sync::Arc;

use clock::Clock;
use http::{Response, StatusCode};
use tree::{Value, json};

use super::{
    answer, checked, expect_kind, expect_namespace, is_dry_run, known, normalise_for, object_of, parse,
    writer,
};
use crate::body::Body;
use crate::decode::is_empty;
use crate::delete::{self, stamp};
use crate::failure::Failure;
use crate::resource::{Generation, Resource};
use crate::server::{Call, State};
use crate::store::{Place, Stored};
use crate::structural::Cause;
use crate::{defaults, managed_fields};

pub(crate) fn update(state: &mut State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let place = call.place(name);
    let mut object = parse(call)?;
    expect_kind(call, &mut object)?;
    expect_namespace(call, &mut object)?;
    if object["metadata"]["name"] != *name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            object["metadata"]["name"].as_str().unwrap_or_default()
        )));
    }
    let old = state.store.get(&place).ok_or_else(|| Failure::not_found(call.resource, name))?;
    let (object, unknown) = normalise_for(call, object, Some(old))?;
    if call.resource.custom && object["metadata"]["resourceVersion"].as_str().is_none_or(str::is_empty) {
        let cause = Cause {
            reason: "FieldValueInvalid",
            message: "Invalid value: 0: must be specified for an update".to_owned(),
            field: "metadata.resourceVersion".to_owned(),
        };
        return Err(Failure::invalid(call.resource, name, &[cause]));
    }
    let subresource = call.target.subresource.as_deref().unwrap_or_default();
    let stored = replace(state, call, &place, object, subresource, clock)?;
    answer(call, StatusCode::OK, &stored, clock, &unknown.fields)
}

/// Stores a changed object: what an update or a patch of `subresource` (empty for the object itself) may change.
pub(crate) fn replace(
    state: &mut State,
    call: &Call<'_>,
    place: &Place,
    mut object: Value,
    subresource: &str,
    clock: Clock,
) -> Result<Arc<Stored>, Failure> {
    let (resource, name, now) = (call.resource, place.key.1.as_str(), clock.now());
    let old = state.store.get(place).cloned().ok_or_else(|| Failure::not_found(resource, name))?;
    let given = &object["metadata"];
    let is_given = |field: &str| given[field].as_str().is_some_and(|text| !text.is_empty());
    if is_given("resourceVersion") && given["resourceVersion"] != old.value["metadata"]["resourceVersion"] {
        return Err(Failure::stale(resource, name));
    }
    if is_given("uid") && given["uid"] != old.value["metadata"]["uid"] {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            given["uid"].as_str().unwrap_or_default(),
            old.value["metadata"]["uid"].as_str().unwrap_or_default()
        );
        return Err(Failure::conflict(resource, name, &why));
    }
    keep_parts(call, &mut object, &old.value, subresource);
    keep_metadata(&mut object, &old.value);
    let mut definition = None;
    if subresource != "status" {
        defaults::fill(&resource.group_kind(), &mut object, &old.value);
        keep_allocated(resource, &mut object, &old.value);
        definition = checked(resource, &call.target.version, name, &mut object, Some(&old), now)?;
    } else if let Some(schema) = &call.version.schema {
        let causes = schema.validate(&object, known(resource, &call.target.version, Some(&old)));
        if !causes.is_empty() {
            return Err(Failure::invalid(resource, name, &causes));
        }
    }
    // Annotations that ride along with a status are no new generation.
    if subresource != "status" && raises_generation(resource, call.version.status, &object, &old.value) {
        let generation = old.value["metadata"]["generation"].as_i64().unwrap_or(0);
        object["metadata"]["generation"] = json!(generation + 1);
    }
    if object == old.value {
        return Ok(old);
    }
    let time = stamp(now);
    managed_fields::track_update(
        &old.value,
        &mut object,
        &writer(call, &time, subresource),
        &call.version.keys,
    );
    if is_dry_run(call) {
        return Ok(Stored::new(object));
    }
    let owners_changed = object["metadata"]["ownerReferences"] != old.value["metadata"]["ownerReferences"];
    let stored = state.store.put(place, object);
    if let Some(definition) = definition {
        state.store.serve(Arc::new(definition));
    }
    if owners_changed {
        delete::collect_ownerless(&mut state.store, place, now);
    }
    delete::finish(&mut state.store, place, now);
    Ok(stored)
}

/// Takes over from the old object what the written subresource may not change.
fn keep_parts(call: &Call<'_>, object: &mut Value, old: &Value, subresource: &str) {
    match subresource {
        "status" => {
            // Annotations may ride along with the status of built-in kinds.
            let given = &object["metadata"]["annotations"];
            let rides = !call.resource.custom && given.is_object();
            let annotations = (rides && *given != old["metadata"]["annotations"]).then(|| given.clone());
            reset(object, old, |field| field != "status");
            if let Some(annotations) = annotations {
                object["metadata"]["annotations"] = annotations;
            }
            if object["status"].is_null() {
                object.as_object_mut().map(|fields| fields.remove("status"));
            }
        }
        "finalize" => {
            let finalizers = object["spec"]["finalizers"].take();
            *object = old.clone();
            object["spec"]["finalizers"] = finalizers;
        }
        _ if call.version.status => match old.get("status") {
            Some(status) => object["status"] = status.clone(),
            None => {
                object.as_object_mut().map(|fields| fields.remove("status"));
            }
        },
        _ => {}
    }
}

/// Gives the chosen fields of `object` the values that they have in `old`. Most have them already, and to see that is
/// less work than to copy.
fn reset(object: &mut Value, old: &Value, chosen: impl Fn(&str) -> bool) {
    let (Some(fields), Some(old)) = (object.as_object_mut(), old.as_object()) else { return };
    fields.retain(|field, _| !chosen(field) || old.contains_key(field));
    for (field, value) in old.iter().filter(|(field, _)| chosen(field)) {
        if fields.get(field) != Some(value) {
            fields.insert(field.clone(), value.clone());
        }
    }
}

fn keep_metadata(object: &mut Value, old: &Value) {
    const KEPT: [&str; 9] = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "name",
        "namespace",
        "managedFields",
    ];
    let metadata = object_of(object, "metadata");
    metadata.remove("selfLink");
    for field in KEPT {
        match old["metadata"].get(field) {
            Some(value) if metadata.get(field) == Some(value) => {}
            Some(value) => {
                metadata.insert(field.to_owned(), value.clone());
            }
            None => {
                metadata.remove(field);
            }
        }
    }
    metadata.retain(|_, value| !is_empty(value));
}

/// A Service keeps the address that it has when an update does not name it.
fn keep_allocated(resource: &Resource, object: &mut Value, old: &Value) {
    let is_service = resource.kind == "Service" && resource.group.is_empty();
    if !is_service || object["spec"]["type"] == "ExternalName" || object["spec"].is_shared_with(&old["spec"])
    {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if is_empty(&object["spec"][field]) || object["spec"][field] == "" {
            object["spec"][field] = old["spec"][field].clone();
        }
    }
    let old_ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in object.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let before = old_ports.iter().find(|old| old["port"] == port["port"]);
        if port["nodePort"].is_null()
            && let Some(number) = before.map(|old| &old["nodePort"]).filter(|number| !number.is_null())
        {
            port["nodePort"] = number.clone();
        }
    }
}

fn raises_generation(resource: &Resource, has_status: bool, object: &Value, old: &Value) -> bool {
    match resource.generation {
        Generation::None => false,
        Generation::Spec => object["spec"] != old["spec"],
        Generation::SpecAndAnnotations => {
            object["spec"] != old["spec"]
                || object["metadata"]["annotations"] != old["metadata"]["annotations"]
        }
        Generation::Content => {
            let counts = |field: &str| field != "metadata" && !(has_status && field == "status");
            let fields =
                |value| Value::as_object(value).into_iter().flatten().filter(|(field, _)| counts(field));
            !fields(object).eq(fields(old))
        }
    }
}
