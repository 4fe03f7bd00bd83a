//! The `scale` subresource: replicas of any kind that has them, as an autoscaling/v1 Scale.

use clock::Clock;
use http::{Method, Response, StatusCode};
use tree::{Map, Value, json};

use crate::body::Body;
use crate::failure::Failure;
use crate::resource::ScalePaths;
use crate::selector::LabelSelector;
use crate::server::{Call, State, answered};
use crate::write;

pub(crate) fn serve(
    state: &mut State,
    call: &Call<'_>,
    method: &Method,
    clock: Clock,
) -> Result<Response<Body>, Failure> {
    let paths = call.version.scale.as_ref().ok_or_else(Failure::no_such_path)?;
    let name = call.name()?;
    let place = call.place(name);
    let stored = state.store.get(&place).cloned().ok_or_else(|| Failure::not_found(call.resource, name))?;
    let current = scale_of(&stored.value, paths);
    let wanted = match *method {
        Method::GET => return Ok(answered(StatusCode::OK, current.to_string())),
        Method::PUT => write::parse(call)?,
        Method::PATCH => write::patched(call, "autoscaling/Scale", current)?,
        _ => return Err(Failure::method_not_allowed()),
    };
    let version = &wanted["metadata"]["resourceVersion"];
    if version.is_string() && *version != stored.value["metadata"]["resourceVersion"] {
        return Err(Failure::stale(call.resource, name));
    }
    let replicas = &wanted["spec"]["replicas"];
    let replicas = if replicas.is_null() { json!(0) } else { replicas.clone() };
    if replicas.as_i64().is_none_or(|replicas| replicas < 0) {
        return Err(Failure::new(
            422,
            "Invalid",
            format!(
                "Scale.autoscaling \"{name}\" is invalid: spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0"
            ),
        ));
    }
    let mut changed = stored.value.clone();
    set(&mut changed, &paths.spec_replicas, replicas);
    let stored = write::replace(state, call, &place, changed, "scale", clock)?;
    Ok(answered(StatusCode::OK, scale_of(&stored.value, paths).to_string()))
}

fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let replicas = |path: &[String]| at(object, path).as_i64().unwrap_or(0);
    let selector = match &paths.selector {
        Some(path) => at(object, path).as_str().unwrap_or_default().to_owned(),
        None => {
            let selector = &object["spec"]["selector"];
            let selector = if selector["matchLabels"].is_object() || selector["matchExpressions"].is_array() {
                LabelSelector::from_object(selector)
            } else {
                Ok(LabelSelector::from_labels(selector))
            };
            selector.map(|selector| selector.to_string()).unwrap_or_default()
        }
    };
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !object["metadata"][field].is_null() {
            metadata.insert(field.to_owned(), object["metadata"][field].clone());
        }
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": replicas(&paths.spec_replicas)},
        "status": {"replicas": replicas(&paths.status_replicas), "selector": selector},
    })
}

fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |value, field| &value[field.as_str()])
}

fn set(object: &mut Value, path: &[String], value: Value) {
    let mut place = object;
    for field in path {
        place = &mut place[field.as_str()];
    }
    *place = value;
}
