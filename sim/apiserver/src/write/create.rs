//! New objects: names, first status, admission.

use std::sync::Arc;

use clock::{Clock, Timestamp};
use http::{Response, StatusCode};
use rand::{Rng as _, RngExt as _};
use tree::{Value, json};

use super::bootstrap::{collection_resource, furnish_namespace};
use super::{
    NAMESPACES, answer, checked, expect_kind, expect_namespace, is_dry_run, normalise, object_of, parse,
    writer,
};
use crate::body::Body;
use crate::delete::{self, stamp};
use crate::failure::Failure;
use crate::resource::{Generation, Resource};
use crate::server::{Admission, Call, State};
use crate::store::{Place, Stored};
use crate::structural::Cause;
use crate::{defaults, managed_fields};

/// The letters of generated names, as the real server draws them.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

const NAME_SUFFIX_LEN: usize = 5;

const GENERATED_BASE_MAX: usize = 58;

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
        metadata.insert("name", json!(name));
    }
    expect_namespace(call, &mut object)?;
    let (stored, warnings) = insert(state, call, object, clock, admission, "")?;
    answer(call, StatusCode::CREATED, &stored, clock, &warnings)
}

/// Takes a new object in.
pub(super) fn insert(
    state: &mut State,
    call: &Call<'_>,
    object: Value,
    clock: Clock,
    admission: Option<&dyn Admission>,
    subresource: &str,
) -> Result<(Arc<Stored>, Vec<String>), Failure> {
    let now = clock.now();
    let (mut object, unknown) = normalise(call, object, None, false)?;
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
        defaults::fill(&call.resource.group_kind(), &mut object, Value::NULL);
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
pub(super) fn prepare_new(
    state: &mut State,
    resource: &Resource,
    has_status: bool,
    object: &mut Value,
    now: Timestamp,
) {
    let uid = uid(state);
    let metadata = object_of(object, "metadata");
    for field in
        ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid", json!(uid));
    metadata.insert("creationTimestamp", json!(stamp(now)));
    metadata.remove("generation");
    if resource.generation != Generation::None {
        metadata.insert("generation", json!(1));
    }
    if has_status && let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    defaults::fill(&resource.group_kind(), object, Value::NULL);
    match resource.group_kind().as_str() {
        "/Pod" => {
            let class = quality_of_service(&object["spec"]);
            object["status"] = json!({"phase": "Pending", "qosClass": class});
        }
        "batch/Job" => {
            defaults::job_selector(object);
            object["status"] = json!({});
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
