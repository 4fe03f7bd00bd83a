//! Writing: create, update, patch, delete.
//!
//! Every write goes the same way: parse, bring into the storage version, decode or prune, default, admit, validate,
//! stamp, store. A write that changes nothing keeps its resourceVersion and tells no watcher.

mod bootstrap;
mod create;
mod patch;
mod remove;
mod subresource;
mod update;

use clock::{Clock, Timestamp};
use http::{Response, StatusCode, header};
use tree::{Map, Value, json};

use crate::body::Body;
use crate::delete::stamp;
use crate::failure::Failure;
use crate::managed_fields::Writer;
use crate::resource::Resource;
use crate::server::{Call, answered};
use crate::store::Stored;
use crate::view::to_storage;
use crate::{custom, decode, read, validate};

pub(crate) use bootstrap::{bootstrap, bootstrap_kubernetes_service, bootstrap_namespace};
pub(crate) use create::create;
pub(crate) use patch::{patch, patched};
pub(crate) use remove::{delete, delete_collection};
pub(crate) use subresource::{bind, evict, token};
pub(crate) use update::{replace, update};

const NAMESPACES: &str = "namespaces";

/// Fields that a write found and the kind does not have.
struct Unknown {
    fields: Vec<String>,
}

/// The request's body.
pub(crate) fn parse(call: &Call<'_>) -> Result<Value, Failure> {
    crate::body::parse(call.content_type, call.body)
}

/// Validates a whole object; a definition comes back as the resource that it makes.
fn checked(
    resource: &Resource,
    version: &str,
    name: &str,
    object: &mut Value,
    old: Option<&Stored>,
    now: Timestamp,
) -> Result<Option<Resource>, Failure> {
    let mut causes = validate::validate(resource, object, old.map(|old| &old.value));
    if let Some(schema) = resource.version(version).and_then(|version| version.schema.as_ref()) {
        causes.extend(schema.validate(object, known(resource, version, old)));
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

/// The stored state of an object, whose parts need not be looked at again; null if there is none, or if the request
/// speaks another version than the stored one.
fn known<'a>(resource: &Resource, version: &str, old: Option<&'a Stored>) -> &'a Value {
    match old {
        Some(old) if version == resource.storage => &old.value,
        _ => Value::NULL,
    }
}

/// Brings an object of the request's version into the stored version, without fields that the kind does not have. What
/// it has in common with the stored state `old` is shared with it from here on.
fn normalise(
    call: &Call<'_>,
    mut object: Value,
    old: Option<&Stored>,
    is_patch: bool,
) -> Result<(Value, Unknown), Failure> {
    let resource = call.resource;
    let kind = &resource.kind;
    let unhandled = |why: String| {
        Failure::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: {why}",
            call.target.version
        ))
    };
    drop_nulls_of_metadata(&mut object);
    let known = known(resource, &call.target.version, old);
    object.share_with(known);
    to_storage(resource, &call.target.version, &mut object).map_err(&unhandled)?;
    let mut fields = Vec::new();
    if resource.custom {
        if let Some(schema) = &call.version.schema {
            fields = schema.unknown_fields(&object, known);
            schema.prune(&mut object, known);
            schema.default(&mut object, known);
        }
    } else if resource.kind == "CustomResourceDefinition" {
        // Decoding checks the types; the schemas inside stay as they were written.
        decode::decode(&resource.group_kind(), &mut object.clone(), known).map_err(&unhandled)?;
    } else {
        fields = decode::decode(&resource.group_kind(), &mut object, known).map_err(&unhandled)?;
        object["apiVersion"] = resource.api_version(&resource.storage).into();
        object["kind"] = (&resource.kind).into();
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

/// Status writes come from controllers, which decode on their own: only the whole object is decoded here.
fn normalise_for(
    call: &Call<'_>,
    mut object: Value,
    old: Option<&Stored>,
) -> Result<(Value, Unknown), Failure> {
    if call.target.subresource.as_deref() == Some("status") && !call.resource.custom {
        object.share_with(known(call.resource, &call.target.version, old));
        to_storage(call.resource, &call.target.version, &mut object).map_err(Failure::bad_request)?;
        return Ok((object, Unknown { fields: Vec::new() }));
    }
    normalise(call, object, old, false)
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
    fields.insert("kind", kind.into());
    fields.insert("apiVersion", api_version.into());
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
            metadata.insert("namespace", (&**namespace).into());
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

fn object_of<'a>(object: &'a mut Value, field: &str) -> &'a mut Map {
    if !object[field].is_object() {
        object[field] = json!({});
    }
    object[field].as_object_mut().expect("it was just made one")
}

fn drop_nulls_of_metadata(object: &mut Value) {
    object_of(object, "metadata").retain(|_, value| !value.is_null());
}
