//! Writing: create, update, patch, delete.
//!
//! Every write goes the same way: parse, bring into the storage version, decode or prune, default, admit, validate,
//! stamp, store. A write that changes nothing keeps its resourceVersion and tells no watcher.

use std::sync::Arc;

use base64::Engine as _;
use clock::{Clock, Timestamp};
use http::{Response, StatusCode, header};
use rand::{Rng as _, RngExt as _};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::delete::{self, Options, Propagation, stamp};
use crate::failure::Failure;
use crate::managed_fields::{self, Writer};
use crate::patch::{PatchError, json as json_patch, merge, strategic};
use crate::resource::{Generation, Resource};
use crate::server::{Admission, Call, State, answered, deleted};
use crate::store::{Place, Stored};
use crate::structural::Cause;
use crate::user::User;
use crate::view::{from_storage, to_storage};
use crate::{custom, decode, defaults, disruption, read, validate};

/// The letters of generated names, as the real server draws them.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_SUFFIX_LEN: usize = 5;
const GENERATED_BASE_MAX: usize = 58;

const NAMESPACES: &str = "namespaces";

/// Fields that a write found and the kind does not have.
struct Unknown {
    fields: Vec<String>,
}

/// The request's body.
pub(crate) fn parse(call: &Call<'_>) -> Result<Value, Failure> {
    crate::body::parse(call.content_type, call.body)
}

pub(crate) fn create(
    state: &mut State,
    call: &Call<'_>,
    clock: Clock,
    admission: Option<&dyn Admission>,
) -> Result<Response<Body>, Failure> {
    let mut object = parse(call)?;
    expect_kind(call, &mut object)?;
    let metadata = object_of(&mut object, "metadata");
    if metadata.get("resourceVersion").is_some_and(|version| !version.is_null() && version != "") {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if metadata.get("name").and_then(Value::as_str).is_none_or(str::is_empty)
        && let Some(base) =
            metadata.get("generateName").and_then(Value::as_str).filter(|base| !base.is_empty())
    {
        let end = base.char_indices().nth(GENERATED_BASE_MAX).map_or(base.len(), |(index, _)| index);
        let name = format!("{}{}", &base[..end], suffix(&mut state.names));
        metadata.insert("name".to_owned(), json!(name));
    }
    expect_namespace(call, &mut object)?;
    let (stored, warnings) = insert(state, call, object, clock, admission, "")?;
    answer(call, StatusCode::CREATED, &stored, clock, &warnings)
}

/// Takes a new object in.
fn insert(
    state: &mut State,
    call: &Call<'_>,
    object: Value,
    clock: Clock,
    admission: Option<&dyn Admission>,
    subresource: &str,
) -> Result<(Arc<Stored>, Vec<String>), Failure> {
    let now = clock.now();
    let (mut object, unknown) = normalise(call, object, false)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let place = Place {
        collection: Arc::clone(&call.resource.qualified),
        key: (call.target.namespace.as_deref().unwrap_or_default().to_owned(), name.clone()),
    };
    let namespace = namespace_of(state, call.resource, &place)?;
    prepare_new(state, call.resource, call.version.status, &mut object, now);
    if let Some(admission) = admission {
        let namespace = namespace.as_ref().map(|stored| &stored.value);
        admission
            .admit(&call.resource.group_kind(), &mut object, namespace)
            .map_err(|why| Failure::forbidden(call.resource, &name, &why))?;
        defaults::fill(&call.resource.group_kind(), &mut object);
    }
    let definition = checked(call.resource, &call.target.version, &name, &mut object, None, now)?;
    if state.store.get(&place).is_some() {
        return Err(Failure::already_exists(call.resource, &name));
    }
    if call.resource.group.is_empty() && call.resource.kind == "Service" {
        state.addresses.assign(&mut object).map_err(|why| {
            let cause =
                Cause { reason: "FieldValueInvalid", message: why, field: "spec.clusterIP".to_owned() };
            Failure::invalid(call.resource, &name, &[cause])
        })?;
    }
    let time = stamp(now);
    let writer = writer(call, &time, subresource);
    if state.tracks_managers && object["metadata"]["managedFields"].is_null() {
        managed_fields::track_create(&mut object, &writer, &call.version.keys);
    }
    if is_dry_run(call) {
        return Ok((Stored::new(object), unknown.fields));
    }
    let stored = state.store.put(&place, object);
    if let Some(definition) = definition {
        state.store.serve(Arc::new(definition));
    }
    if &*place.collection == NAMESPACES {
        furnish_namespace(state, &name, now);
    }
    delete::collect_ownerless(&mut state.store, &place, now);
    Ok((stored, unknown.fields))
}

/// Gives a new object its uid, times, generation and first status.
fn prepare_new(state: &mut State, resource: &Resource, has_status: bool, object: &mut Value, now: Timestamp) {
    let uid = uid(state);
    let metadata = object_of(object, "metadata");
    for field in
        ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(uid));
    metadata.insert("creationTimestamp".to_owned(), json!(stamp(now)));
    metadata.remove("generation");
    if resource.generation != Generation::None {
        metadata.insert("generation".to_owned(), json!(1));
    }
    if has_status && let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    defaults::fill(&resource.group_kind(), object);
    match resource.group_kind().as_str() {
        "/Pod" => {
            let class = quality_of_service(&object["spec"]);
            object["status"] = json!({"phase": "Pending", "qosClass": class});
        }
        "/Namespace" => object["status"] = json!({"phase": "Active"}),
        "/Service" => object["status"] = json!({"loadBalancer": {}}),
        "apps/Deployment" | "apps/DaemonSet" => object["status"] = json!({}),
        "apps/ReplicaSet" | "apps/StatefulSet" => object["status"] = json!({"replicas": 0}),
        "autoscaling/HorizontalPodAutoscaler" => {
            object["status"] = json!({"desiredReplicas": 0, "currentMetrics": Value::Null});
        }
        _ => {}
    }
}

/// Validates a whole object; a definition comes back as the resource that it makes.
fn checked(
    resource: &Resource,
    version: &str,
    name: &str,
    object: &mut Value,
    old: Option<&Value>,
    now: Timestamp,
) -> Result<Option<Resource>, Failure> {
    let mut causes = validate::validate(resource, object, old);
    if let Some(schema) = resource.version(version).and_then(|version| version.schema.as_ref()) {
        causes.extend(schema.validate(object));
    }
    let mut definition = None;
    if resource.kind == "CustomResourceDefinition" && causes.is_empty() {
        custom::complete(object, &stamp(now));
        match custom::resource(object) {
            Ok(made) => definition = Some(made),
            Err(more) => causes = more,
        }
    }
    if causes.is_empty() { Ok(definition) } else { Err(Failure::invalid(resource, name, &causes)) }
}

/// Brings an object of the request's version into the stored version, without fields that the kind does not have.
fn normalise(call: &Call<'_>, mut object: Value, is_patch: bool) -> Result<(Value, Unknown), Failure> {
    let resource = call.resource;
    let kind = &resource.kind;
    let unhandled = |why: String| {
        Failure::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: {why}",
            call.target.version
        ))
    };
    drop_nulls_of_metadata(&mut object);
    to_storage(resource, &call.target.version, &mut object).map_err(&unhandled)?;
    let mut fields = Vec::new();
    if resource.custom {
        if let Some(schema) = &call.version.schema {
            fields = schema.unknown_fields(&object);
            schema.prune(&mut object);
            schema.default(&mut object);
        }
    } else if resource.kind == "CustomResourceDefinition" {
        // Decoding checks the types; the schemas inside stay as they were written.
        decode::decode(&resource.group_kind(), &mut object.clone()).map_err(&unhandled)?;
    } else {
        fields = decode::decode(&resource.group_kind(), &mut object).map_err(&unhandled)?;
        object["apiVersion"] = json!(resource.api_version(&resource.storage));
        object["kind"] = json!(resource.kind);
    }
    let strict = call.parameters.get("fieldValidation") == Some("Strict");
    if call.parameters.get("fieldValidation") == Some("Ignore") {
        fields.clear();
    }
    if strict && !fields.is_empty() {
        let named: Vec<String> = fields.iter().map(|field| format!("unknown field {field:?}")).collect();
        let why = format!("strict decoding error: {}", named.join(", "));
        if is_patch {
            let patch = String::from_utf8_lossy(call.body);
            let message = format!(" \"\" is invalid: patch: Invalid value: {patch:?}: {why}");
            return Err(Failure::new(422, "Invalid", message));
        }
        return Err(unhandled(why));
    }
    Ok((object, Unknown { fields }))
}

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
    if state.store.get(&place).is_none() {
        return Err(Failure::not_found(call.resource, name));
    }
    let (object, unknown) = normalise_for(call, object)?;
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

/// Status writes come from controllers, which decode on their own: only the whole object is decoded here.
fn normalise_for(call: &Call<'_>, mut object: Value) -> Result<(Value, Unknown), Failure> {
    if call.target.subresource.as_deref() == Some("status") && !call.resource.custom {
        to_storage(call.resource, &call.target.version, &mut object).map_err(Failure::bad_request)?;
        return Ok((object, Unknown { fields: Vec::new() }));
    }
    normalise(call, object, false)
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
        defaults::fill(&resource.group_kind(), &mut object);
        keep_allocated(resource, &mut object, &old.value);
        definition = checked(resource, &call.target.version, name, &mut object, Some(&old.value), now)?;
    } else if let Some(schema) = &call.version.schema {
        let causes = schema.validate(&object);
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
    if resource.kind != "Service" || !resource.group.is_empty() || object["spec"]["type"] == "ExternalName" {
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
        "status" => normalise_for(call, object)?,
        _ => normalise(call, object, true)?,
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
    let (object, unknown) = normalise(call, merged, true)?;
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

pub(crate) fn delete(state: &mut State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let place = call.place(name);
    let stored = state.store.get(&place).cloned().ok_or_else(|| Failure::not_found(call.resource, name))?;
    let wanted = if call.body.is_empty() { Value::Null } else { parse(call)? };
    let preconditions = &wanted["preconditions"];
    for (field, label) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (wanted, found) = (&preconditions[field], &stored.value["metadata"][field]);
        if wanted.is_string() && wanted != found {
            let why = format!(
                "Precondition failed: {label} in precondition: {}, {label} in object meta: {}",
                wanted.as_str().unwrap_or_default(),
                found.as_str().unwrap_or_default()
            );
            return Err(Failure::conflict(call.resource, name, &why));
        }
    }
    if call.resource.kind == "Namespace" && matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(Failure::forbidden(call.resource, name, "this namespace may not be deleted"));
    }
    let uid = stored.value["metadata"]["uid"].clone();
    let options = options(call, &wanted)?;
    if is_dry_run(call) {
        return Ok(answered(StatusCode::OK, deleted(call.resource, name, &uid).to_string()));
    }
    let gone = delete_one(state, call.resource, &place, options, clock.now());
    let body = match state.store.get(&place).filter(|_| !gone) {
        Some(held) => read::view(call, clock)?.one(held),
        None => deleted(call.resource, name, &uid).to_string().into(),
    };
    Ok(answered(StatusCode::OK, body))
}

fn delete_one(
    state: &mut State,
    resource: &Resource,
    place: &Place,
    options: Options,
    now: Timestamp,
) -> bool {
    let before = state.store.get(place).cloned();
    let gone = delete::delete(&mut state.store, place, options, now);
    if gone && resource.kind == "Service" && resource.group.is_empty() {
        before.iter().for_each(|service| state.addresses.release(&service.value));
    }
    gone
}

pub(crate) fn delete_collection(
    state: &mut State,
    call: &Call<'_>,
    clock: Clock,
) -> Result<Response<Body>, Failure> {
    let wanted = if call.body.is_empty() { Value::Null } else { parse(call)? };
    let options = options(call, &wanted)?;
    let selection = read::selection(call)?;
    let collection = &call.resource.qualified;
    let places: Vec<Place> = state
        .store
        .collection(collection)
        .into_iter()
        .flat_map(|found| found.objects.iter())
        .filter(|(key, stored)| {
            call.target.namespace.as_ref().is_none_or(|namespace| key.0 == *namespace)
                && selection.matches(stored)
        })
        .map(|(key, _)| Place { collection: Arc::clone(collection), key: key.clone() })
        .collect();
    let mut items = Vec::new();
    for place in places {
        items.extend(state.store.get(&place).cloned());
        delete_one(state, call.resource, &place, options, clock.now());
    }
    let metadata = json!({"resourceVersion": state.store.version.to_string()});
    Ok(answered(StatusCode::OK, read::view(call, clock)?.list(&items, &metadata)))
}

fn options(call: &Call<'_>, body: &Value) -> Result<Options, Failure> {
    let text = |name: &str| body[name].as_str().or_else(|| call.parameters.get(name));
    let propagation = match text("propagationPolicy") {
        None if body["orphanDependents"] == true => Propagation::Orphan,
        None | Some("Background") => Propagation::Background,
        Some("Foreground") => Propagation::Foreground,
        Some("Orphan") => Propagation::Orphan,
        Some(other) => {
            return Err(Failure::new(
                422,
                "Invalid",
                format!(
                    "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: {other:?}: must be Foreground, Background, Orphan or nil"
                ),
            ));
        }
    };
    let grace = match body["gracePeriodSeconds"].as_i64() {
        Some(seconds) => Some(seconds),
        None => call.parameters.number("gracePeriodSeconds")?.and_then(|seconds| i64::try_from(seconds).ok()),
    };
    Ok(Options { grace_seconds: grace, propagation })
}

/// `pods/binding`: what a scheduler posts.
pub(crate) fn bind(state: &mut State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let place = call.place(name);
    let stored = state.store.get(&place).cloned().ok_or_else(|| Failure::not_found(call.resource, name))?;
    let binding = parse(call)?;
    let Some(node) = binding["target"]["name"].as_str().filter(|node| !node.is_empty()) else {
        return Err(Failure::bad_request("Binding: target.name: Required value"));
    };
    let mut pod = stored.value.clone();
    if let Some(bound) = pod["spec"]["nodeName"].as_str() {
        let why = format!("pod {name} is already assigned to node {bound:?}");
        return Err(Failure::conflict(call.resource, name, &why));
    }
    pod["spec"]["nodeName"] = json!(node);
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(clock.now())});
    let conditions = match pod["status"]["conditions"].as_array().cloned() {
        Some(mut conditions) => {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(condition);
            conditions
        }
        None => vec![condition],
    };
    pod["status"]["conditions"] = json!(conditions);
    state.store.put(&place, pod);
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(answered(StatusCode::CREATED, status.to_string()))
}

/// `pods/eviction`: a deletion, unless a disruption budget has none left.
pub(crate) fn evict(state: &mut State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let place = call.place(name);
    let pod = state.store.get(&place).cloned().ok_or_else(|| Failure::not_found(call.resource, name))?;
    let eviction = parse(call)?;
    disruption::check(&state.store, &pod.value)?;
    let options = options(call, &eviction["deleteOptions"])?;
    if !is_dry_run(call) && eviction["deleteOptions"]["dryRun"].as_array().is_none_or(Vec::is_empty) {
        delete::delete(&mut state.store, &place, options, clock.now());
    }
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(answered(StatusCode::CREATED, status.to_string()))
}

/// `serviceaccounts/token`: a token by which this server knows the account.
pub(crate) fn token(state: &mut State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let place = call.place(name);
    if state.store.get(&place).is_none() {
        return Err(Failure::not_found(call.resource, name));
    }
    let mut request = parse(call)?;
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    let encoded = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    // Clients look into the token's claims, so it has the form of one; its last part is what makes it unguessable.
    let subject = format!("system:serviceaccount:{}:{name}", place.key.0);
    let claims = json!({"iss": "https://kubernetes.default.svc", "sub": subject,
                        "exp": clock.now().as_second() + seconds, "iat": clock.now().as_second()});
    let mut secret = [0; 32];
    state.token_source.fill_bytes(&mut secret);
    let token = format!(
        "{}.{}.{}",
        encoded(br#"{"alg":"none"}"#),
        encoded(claims.to_string().as_bytes()),
        encoded(&secret)
    );
    state.tokens.insert(token.clone(), User::service_account(&place.key.0, name));
    request["status"] = json!({
        "token": token,
        "expirationTimestamp": stamp(clock.now() + jiff::SignedDuration::from_secs(seconds)),
    });
    Ok(answered(StatusCode::CREATED, request.to_string()))
}

/// A cluster-scoped object that exists from the start, unless somebody made one of that name.
pub(crate) fn bootstrap(state: &mut State, collection: &str, mut object: Value, now: Timestamp) {
    let resource = collection_resource(state, collection);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let place = Place { collection: collection.into(), key: (String::new(), name) };
    if state.store.get(&place).is_none() {
        prepare_new(state, &resource, false, &mut object, now);
        state.store.put(&place, object);
    }
}

/// A Namespace that exists from the start.
pub(crate) fn bootstrap_namespace(state: &mut State, name: &str, now: Timestamp) {
    let resource = collection_resource(state, NAMESPACES);
    let mut object = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
    prepare_new(state, &resource, true, &mut object, now);
    let place = Place { collection: NAMESPACES.into(), key: (String::new(), name.to_owned()) };
    state.store.put(&place, object);
    furnish_namespace(state, name, now);
}

/// The Service by which pods find their API server.
pub(crate) fn bootstrap_kubernetes_service(state: &mut State, now: Timestamp) {
    let resource = collection_resource(state, "services");
    let ip = state.addresses.kubernetes();
    let mut object = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                 "ports": [{"name": "https", "port": 443, "targetPort": 6443}]}});
    prepare_new(state, &resource, true, &mut object, now);
    let place = Place { collection: "services".into(), key: ("default".to_owned(), "kubernetes".to_owned()) };
    state.store.put(&place, object);
}

/// What every Namespace gets: the ServiceAccount `default` and the cluster's certificate.
fn furnish_namespace(state: &mut State, namespace: &str, now: Timestamp) {
    for (collection, kind, name, data) in [
        ("configmaps", "ConfigMap", "kube-root-ca.crt", Some(json!({"ca.crt": ""}))),
        ("serviceaccounts", "ServiceAccount", "default", None),
    ] {
        let resource = collection_resource(state, collection);
        let mut object = json!({"apiVersion": "v1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace}});
        if let Some(data) = data {
            object["data"] = data;
        }
        prepare_new(state, &resource, false, &mut object, now);
        let place = Place { collection: collection.into(), key: (namespace.to_owned(), name.to_owned()) };
        state.store.put(&place, object);
    }
}

fn collection_resource(state: &State, name: &str) -> Arc<Resource> {
    Arc::clone(&state.store.collection(name).expect("built-in resources are served").resource)
}

fn namespace_of(state: &State, resource: &Resource, place: &Place) -> Result<Option<Arc<Stored>>, Failure> {
    if !resource.namespaced {
        return Ok(None);
    }
    let namespace = &place.key.0;
    let at = Place { collection: NAMESPACES.into(), key: (String::new(), namespace.clone()) };
    let Some(found) = state.store.get(&at) else {
        let namespaces = collection_resource(state, NAMESPACES);
        return Err(Failure::not_found(&namespaces, namespace));
    };
    if !found.value["metadata"]["deletionTimestamp"].is_null() {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut failure = Failure::forbidden(resource, &place.key.1, &why);
        failure.details["causes"] = json!([{"reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {namespace} is being terminated")}]);
        return Err(failure);
    }
    Ok(Some(Arc::clone(found)))
}

fn expect_kind(call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
    let Some(fields) = object.as_object_mut() else {
        return Err(Failure::bad_request("the body of the request is no JSON object"));
    };
    let (kind, api_version) = (&call.resource.kind, call.resource.api_version(&call.target.version));
    let given = |field: &str| fields.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(found) = given("kind").filter(|found| found != kind) {
        return Err(Failure::bad_request(format!(
            "{found} in version {:?} cannot be handled as a {kind}: no kind {found:?} is registered for this resource",
            call.target.version
        )));
    }
    if let Some(found) = given("apiVersion").filter(|found| *found != api_version) {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version ({api_version})"
        )));
    }
    fields.insert("kind".to_owned(), json!(kind));
    fields.insert("apiVersion".to_owned(), json!(api_version));
    Ok(())
}

fn expect_namespace(call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
    let metadata = object_of(object, "metadata");
    match &call.target.namespace {
        None => {
            metadata.remove("namespace");
            if call.resource.namespaced {
                return Err(Failure::no_such_path());
            }
        }
        Some(namespace) => {
            let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
            if !given.is_empty() && given != namespace {
                return Err(Failure::bad_request(format!(
                    "the namespace of the provided object does not match the namespace sent on the request ({given} and {namespace})"
                )));
            }
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
    }
    if call.resource.kind == "Namespace" && call.resource.group.is_empty() {
        let name = metadata.get("name").cloned().unwrap_or_default();
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    }
    Ok(())
}

fn writer<'a>(call: &'a Call<'_>, time: &'a str, subresource: &'a str) -> Writer<'a> {
    Writer { manager: call.manager, time, api_version: &call.api_version, subresource }
}

fn answer(
    call: &Call<'_>,
    code: StatusCode,
    stored: &Stored,
    clock: Clock,
    warnings: &[String],
) -> Result<Response<Body>, Failure> {
    let mut answer = answered(code, read::view(call, clock)?.one(stored));
    for field in warnings {
        let warning = format!("299 - \"unknown field \\\"{field}\\\"\"");
        if let Ok(value) = header::HeaderValue::from_str(&warning) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
    Ok(answer)
}

fn is_dry_run(call: &Call<'_>) -> bool {
    call.parameters.get("dryRun") == Some("All")
}

fn object_of<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object[field].is_object() {
        object[field] = json!({});
    }
    object[field].as_object_mut().expect("it was just made one")
}

fn drop_nulls_of_metadata(object: &mut Value) {
    object_of(object, "metadata").retain(|_, value| !value.is_null());
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// A random uid in the form of version 4.
fn uid(state: &mut State) -> String {
    let (high, low) = (state.uids.next_u64(), state.uids.next_u64());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}

fn suffix(names: &mut clock::Rng) -> String {
    (0..NAME_SUFFIX_LEN)
        .map(|_| char::from(NAME_LETTERS[names.random_range(0..NAME_LETTERS.len())]))
        .collect()
}

/// `status.qosClass` of a pod.
fn quality_of_service(spec: &Value) -> &'static str {
    let containers: Vec<&Value> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| spec[*list].as_array().into_iter().flatten())
        .collect();
    let has = |container: &Value, part: &str| {
        container["resources"][part].as_object().is_some_and(|fields| !fields.is_empty())
    };
    if !containers.iter().any(|container| has(container, "requests") || has(container, "limits")) {
        return "BestEffort";
    }
    let is_guaranteed = |container: &&Value| {
        let resources = &container["resources"];
        ["cpu", "memory"].iter().all(|name| {
            !resources["limits"][*name].is_null()
                && resources["limits"][*name] == resources["requests"][*name]
        })
    };
    if containers.iter().all(is_guaranteed) { "Guaranteed" } else { "Burstable" }
}
