//! Deletions, of one object and of collections.

use std::sync::Arc;

use clock::{Clock, Timestamp};
use http::{Response, StatusCode};
use tree::{Value, json};

use super::{is_dry_run, parse};
use crate::body::Body;
use crate::delete::{self, Options, Propagation};
use crate::failure::Failure;
use crate::read;
use crate::resource::Resource;
use crate::server::{Call, State, answered, deleted};
use crate::store::Place;

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

pub(super) fn options(call: &Call<'_>, body: &Value) -> Result<Options, Failure> {
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
