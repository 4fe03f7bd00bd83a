//! Deletion: grace, finalizers, garbage collection by owner references, namespaces and CRDs that take their contents
//! along.
//!
//! A real cluster's garbage collector and namespace controller work in the background; here they do their work within
//! the request that gave them cause, which is a state that a real cluster reaches a moment later.

use clock::Timestamp;
use jiff::SignedDuration;
use tree::{Value, json};

use crate::store::{Place, Store, owners};

const FOREGROUND: &str = "foregroundDeletion";

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

/// How to delete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub grace_seconds: Option<i64>,
    pub propagation: Propagation,
}

/// A timestamp as objects carry it.
pub(crate) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Deletes an object, or marks it for deletion while somebody still has to let go of it. Returns whether it is gone.
pub(crate) fn delete(store: &mut Store, place: &Place, options: Options, now: Timestamp) -> bool {
    let Some(stored) = store.get(place).cloned() else { return true };
    let object = &stored.value;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let mut changed = object.clone();

    if options.propagation == Propagation::Orphan {
        orphan(store, &uid);
    }
    if options.propagation == Propagation::Foreground
        && !store.dependents(&uid).is_empty()
        && !has_finalizer(&changed, FOREGROUND)
    {
        add_finalizer(&mut changed, FOREGROUND);
    }
    let grace = grace_seconds(place, object, options);
    let is_namespace = &*place.collection == "namespaces";
    let is_definition = &*place.collection == "customresourcedefinitions.apiextensions.k8s.io";
    let held = grace > 0 || has_finalizers(&changed) || is_namespace || is_definition;
    if !held {
        remove(store, place, now);
        return true;
    }
    mark(&mut changed, grace, now);
    if is_namespace {
        changed["status"]["phase"] = json!("Terminating");
    }
    if changed != *object {
        store.put(place, changed);
    }
    if is_namespace {
        empty_namespace(store, &place.key.1, now);
    } else if is_definition {
        empty_definition(store, object, now);
    } else if options.propagation == Propagation::Foreground {
        for dependent in store.dependents(&uid) {
            delete(store, &dependent, Options { grace_seconds: None, ..options }, now);
        }
    }
    finish(store, place, now)
}

/// Removes an object that is marked for deletion if nobody holds it any more. Returns whether it is gone.
pub(crate) fn finish(store: &mut Store, place: &Place, now: Timestamp) -> bool {
    let Some(stored) = store.get(place).cloned() else { return true };
    let object = &stored.value;
    if object["metadata"]["deletionTimestamp"].is_null() {
        return false;
    }
    if has_finalizer(object, FOREGROUND) && !is_blocked(store, object) {
        let mut changed = object.clone();
        remove_finalizer(&mut changed, FOREGROUND);
        store.put(place, changed);
        return finish(store, place, now);
    }
    let contents_left = match &*place.collection {
        "namespaces" => holds_objects(store, &place.key.1),
        "customresourcedefinitions.apiextensions.k8s.io" => {
            let name = definition_target(object);
            store.collection(&name).is_some_and(|collection| !collection.objects.is_empty())
        }
        _ => false,
    };
    let waits_for_kubelet = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    if has_finalizers(object) || contents_left || waits_for_kubelet {
        return false;
    }
    remove(store, place, now);
    true
}

/// Deletes an object that names owners of which none exists. Owners of kinds that this server does not serve cannot be
/// looked up, so their dependents stay, as a real garbage collector leaves them.
pub(crate) fn collect_ownerless(store: &mut Store, place: &Place, now: Timestamp) {
    let Some(stored) = store.get(place).cloned() else { return };
    let references = stored.value["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    let is_absent = |reference: &Value| {
        let group = reference["apiVersion"].as_str().and_then(|text| text.split_once('/'));
        let group = group.map_or("", |(group, _)| group);
        let kind = reference["kind"].as_str().unwrap_or_default();
        let owner = store.by_uid(reference["uid"].as_str().unwrap_or_default());
        let lives_elsewhere =
            owner.is_some_and(|owner| !owner.key.0.is_empty() && owner.key.0 != place.key.0);
        store.serves_kind(group, kind) && (owner.is_none() || lives_elsewhere)
    };
    if !references.is_empty() && references.iter().all(is_absent) {
        delete(store, place, Options { grace_seconds: None, propagation: Propagation::Background }, now);
    }
}

fn remove(store: &mut Store, place: &Place, now: Timestamp) {
    let Some(last) = store.remove(place) else { return };
    let object = &last.value;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    for dependent in store.dependents(uid) {
        release(store, &dependent, uid, now);
    }
    let waiting: Vec<Place> = owners(object).filter_map(|owner| store.by_uid(owner).cloned()).collect();
    for owner in waiting {
        finish(store, &owner, now);
    }
    if !place.key.0.is_empty() {
        let namespace = Place { collection: "namespaces".into(), key: (String::new(), place.key.0.clone()) };
        finish(store, &namespace, now);
    }
    match &*place.collection {
        "customresourcedefinitions.apiextensions.k8s.io" => store.withdraw(&definition_target(object)),
        collection => {
            let definition = Place {
                collection: "customresourcedefinitions.apiextensions.k8s.io".into(),
                key: (String::new(), collection.to_owned()),
            };
            finish(store, &definition, now);
        }
    }
}

/// An owner of `place` is gone: without any other the object goes too, else it loses the reference.
fn release(store: &mut Store, place: &Place, gone: &str, now: Timestamp) {
    let Some(stored) = store.get(place).cloned() else { return };
    if owners(&stored.value).any(|owner| owner != gone && store.by_uid(owner).is_some()) {
        let mut changed = stored.value.clone();
        drop_owner(&mut changed, gone);
        store.put(place, changed);
    } else {
        delete(store, place, Options { grace_seconds: None, propagation: Propagation::Background }, now);
    }
}

fn orphan(store: &mut Store, uid: &str) {
    for dependent in store.dependents(uid) {
        let Some(stored) = store.get(&dependent).cloned() else { continue };
        let mut changed = stored.value.clone();
        drop_owner(&mut changed, uid);
        store.put(&dependent, changed);
    }
}

fn drop_owner(object: &mut Value, uid: &str) {
    let metadata = &mut object["metadata"];
    if let Some(references) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) {
        references.retain(|reference| reference["uid"] != uid);
        if references.is_empty() {
            metadata.as_object_mut().map(|fields| fields.remove("ownerReferences"));
        }
    }
}

fn is_blocked(store: &Store, owner: &Value) -> bool {
    let uid = owner["metadata"]["uid"].as_str().unwrap_or_default();
    store.dependents(uid).iter().filter_map(|place| store.get(place)).any(|dependent| {
        dependent.value["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|reference| reference["uid"] == uid && reference["blockOwnerDeletion"] == true)
    })
}

fn grace_seconds(place: &Place, object: &Value, options: Options) -> i64 {
    if &*place.collection != "pods" {
        return 0;
    }
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !object["spec"]["nodeName"].is_string() || ended {
        return 0;
    }
    let wanted = options
        .grace_seconds
        .or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30)
        .max(0);
    // A second deletion can only shorten the first one's grace.
    object["metadata"]["deletionGracePeriodSeconds"].as_i64().map_or(wanted, |before| before.min(wanted))
}

fn mark(object: &mut Value, grace: i64, now: Timestamp) {
    let metadata = &mut object["metadata"];
    let first = metadata["deletionTimestamp"].is_null();
    if !first && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) <= grace {
        return;
    }
    metadata["deletionTimestamp"] = json!(stamp(now + SignedDuration::from_secs(grace)));
    metadata["deletionGracePeriodSeconds"] = json!(grace);
    if first && let Some(generation) = metadata["generation"].as_i64() {
        metadata["generation"] = json!(generation + 1);
    }
}

fn empty_namespace(store: &mut Store, namespace: &str, now: Timestamp) {
    for place in objects_in(store, namespace) {
        delete(store, &place, Options { grace_seconds: None, propagation: Propagation::Background }, now);
    }
}

fn objects_in(store: &Store, namespace: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for (name, collection) in &store.collections {
        if collection.resource.namespaced {
            let keys = collection.objects.keys().filter(|key| key.0 == namespace);
            places.extend(keys.map(|key| Place { collection: name.clone(), key: key.clone() }));
        }
    }
    places
}

fn holds_objects(store: &Store, namespace: &str) -> bool {
    store.collections.values().any(|collection| {
        collection.resource.namespaced && collection.objects.keys().any(|key| key.0 == namespace)
    })
}

fn empty_definition(store: &mut Store, definition: &Value, now: Timestamp) {
    let name = definition_target(definition);
    let keys: Vec<_> =
        store.collection(&name).map(|found| found.objects.keys().cloned().collect()).unwrap_or_default();
    for key in keys {
        let place = Place { collection: name.as_str().into(), key };
        delete(store, &place, Options { grace_seconds: None, propagation: Propagation::Background }, now);
    }
}

/// The collection of a CRD's objects.
fn definition_target(definition: &Value) -> String {
    definition["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
}

fn add_finalizer(object: &mut Value, name: &str) {
    match object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        Some(finalizers) => finalizers.push(json!(name)),
        None => object["metadata"]["finalizers"] = json!([name]),
    }
}

fn remove_finalizer(object: &mut Value, name: &str) {
    if let Some(finalizers) = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|one| one != name);
    }
}
