//! Three-way comparison and patch: what git wants, what was applied last, what the cluster has.
//!
//! As `kubectl apply` does, and Argo CD on top of it: fields that git never set are nobody's business here, fields
//! that git no longer sets are removed.

use serde_json::{Map, Value, json};

/// The annotation that keeps what was applied last.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Keys by which Kubernetes merges lists of objects, in the order in which they are looked for.
const MERGE_KEYS: [&str; 4] = ["name", "containerPort", "mountPath", "port"];

/// Whether `live` differs from `target` in a field that git sets, or still has a field that git used to set.
pub fn differs(target: &Value, live: &Value) -> bool {
    let mut target = target.clone();
    forget_server_fields(&mut target);
    let last = last_applied(live).unwrap_or(Value::Null);
    !covers(&target, live) || removals(&last, &target).is_some_and(|gone| touches(&gone, live))
}

/// The patch that brings `live` to `target`; the annotation of what was applied is part of it. `merge_lists` says
/// that the API merges lists by key (built-in kinds: a strategic merge patch), not whole (custom resources: a JSON
/// merge patch).
pub fn patch(target: &Value, live: &Value, merge_lists: bool) -> Value {
    let target = annotated(target);
    let last = last_applied(live).unwrap_or(Value::Null);
    let mut patch = target.clone();
    if let Some(gone) = removals(&last, &target) {
        add_removals(&mut patch, &gone, merge_lists);
    }
    patch
}

/// `target` with the annotation of what was applied, as it is created.
pub fn annotated(target: &Value) -> Value {
    let mut object = target.clone();
    forget_server_fields(&mut object);
    let mut applied = object.to_string();
    applied.push('\n');
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = Value::Object(Map::new());
    }
    object["metadata"]["annotations"][LAST_APPLIED] = Value::String(applied);
    object
}

fn forget_server_fields(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("creationTimestamp");
    }
}

fn last_applied(live: &Value) -> Option<Value> {
    serde_json::from_str(live["metadata"]["annotations"][LAST_APPLIED].as_str()?).ok()
}

/// Whether everything in `wanted` is in `found`, which may hold more (defaults, other controllers' fields).
fn covers(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            wanted.iter().all(|(key, wanted)| match found.get(key) {
                Some(found) => covers(wanted, found),
                None => is_nothing(wanted),
            })
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len()
                && wanted.iter().zip(found).all(|(wanted, found)| covers(wanted, found))
        }
        (wanted, found) => wanted == found || same_quantity(wanted, found),
    }
}

/// Values that an API server drops: they are no difference.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_nothing),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Whether two values are the same Kubernetes quantity or number written differently (`1000m` and `1`).
fn same_quantity(wanted: &Value, found: &Value) -> bool {
    quantity(wanted).zip(quantity(found)).is_some_and(|(wanted, found)| wanted == found)
}

/// A quantity in thousandths.
fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::Number(number) => return number.as_f64().map(|number| number * 1000.0),
        Value::String(text) => text,
        _ => return None,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor = match &text[digits..] {
        "m" => 1.0,
        "" => 1e3,
        "k" => 1e6,
        "M" => 1e9,
        "G" => 1e12,
        "Ki" => 1024.0 * 1e3,
        "Mi" => 1024.0 * 1024.0 * 1e3,
        "Gi" => 1024.0 * 1024.0 * 1024.0 * 1e3,
        _ => return None,
    };
    Some(text[..digits].parse::<f64>().ok()? * factor)
}

/// What `last` set and `target` no longer sets, as a tree of maps whose leaves are `null`. An element that left a keyed
/// list stands there by its key alone; one that stayed but lost fields is marked `$kept`.
fn removals(last: &Value, target: &Value) -> Option<Value> {
    match (last, target) {
        (Value::Object(last), Value::Object(target)) => {
            let mut gone = Map::new();
            for (key, last) in last {
                match target.get(key) {
                    None => {
                        gone.insert(key.clone(), Value::Null);
                    }
                    Some(target) => {
                        if let Some(below) = removals(last, target) {
                            gone.insert(key.clone(), below);
                        }
                    }
                }
            }
            (!gone.is_empty()).then_some(Value::Object(gone))
        }
        (Value::Array(last), Value::Array(target)) => {
            let key = merge_key(last)?;
            let mut elements = Vec::new();
            for element in last {
                match target.iter().find(|candidate| candidate[key] == element[key]) {
                    None => elements.push(json!({ key: element[key].clone() })),
                    Some(target) => {
                        if let Some(Value::Object(mut below)) = removals(element, target) {
                            below.insert(key.to_owned(), element[key].clone());
                            below.insert("$kept".to_owned(), Value::Bool(true));
                            elements.push(Value::Object(below));
                        }
                    }
                }
            }
            (!elements.is_empty()).then_some(Value::Array(elements))
        }
        _ => None,
    }
}

/// The key by which all elements of a list can be told apart.
fn merge_key(list: &[Value]) -> Option<&'static str> {
    MERGE_KEYS.into_iter().find(|key| !list.is_empty() && list.iter().all(|element| !element[*key].is_null()))
}

/// Whether something to be removed is there.
fn touches(gone: &Value, live: &Value) -> bool {
    match (gone, live) {
        (Value::Null, live) => !live.is_null(),
        (Value::Object(gone), Value::Object(live)) => {
            gone.iter().any(|(key, gone)| live.get(key).is_some_and(|live| touches(gone, live)))
        }
        (Value::Array(gone), Value::Array(live)) => gone.iter().any(|element| {
            let Some(key) = merge_key(std::slice::from_ref(element)) else { return false };
            live.iter().filter(|candidate| candidate[key] == element[key]).any(|live| {
                element["$kept"].is_null() || {
                    let mut below = element.clone();
                    if let Some(below) = below.as_object_mut() {
                        below.remove(key);
                        below.remove("$kept");
                    }
                    touches(&below, live)
                }
            })
        }),
        _ => false,
    }
}

fn add_removals(patch: &mut Value, gone: &Value, merge_lists: bool) {
    match (patch, gone) {
        (Value::Object(patch), Value::Object(gone)) => {
            for (key, gone) in gone {
                if gone.is_null() {
                    patch.insert(key.clone(), Value::Null);
                } else if let Some(below) = patch.get_mut(key) {
                    add_removals(below, gone, merge_lists);
                }
            }
        }
        // A JSON merge patch carries the whole new list, so its elements need no removal.
        (Value::Array(patch), Value::Array(gone)) if merge_lists => {
            for element in gone {
                let Some(key) = merge_key(std::slice::from_ref(element)) else { continue };
                let kept = !element["$kept"].is_null();
                match patch.iter_mut().find(|candidate| kept && candidate[key] == element[key]) {
                    Some(target) => {
                        let mut below = element.clone();
                        if let Some(below) = below.as_object_mut() {
                            below.remove(key);
                            below.remove("$kept");
                        }
                        add_removals(target, &below, merge_lists);
                    }
                    None => {
                        let mut delete = element.clone();
                        delete["$patch"] = json!("delete");
                        patch.push(delete);
                    }
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(object: Value, live: impl FnOnce(&mut Value)) -> Value {
        let mut created = annotated(&object);
        live(&mut created);
        created
    }

    #[test]
    fn defaults_and_other_controllers_fields_are_no_difference() {
        let target =
            json!({"metadata": {"name": "a"}, "spec": {"template": {"cpu": "1000m"}}, "status": {"x": 1}});
        let live = applied(target.clone(), |live| {
            live["spec"]["replicas"] = json!(0);
            live["spec"]["template"]["cpu"] = json!("1");
            live["status"] = json!({"y": 2});
        });
        assert!(!differs(&target, &live));
        let mut other = target.clone();
        other["spec"]["replicas"] = json!(2);
        assert!(differs(&other, &live));
    }

    #[test]
    fn what_git_no_longer_sets_is_removed() {
        let before = json!({"metadata": {"name": "a"}, "spec": {"x": 1, "list": [{"name": "p", "v": 1}, {"name": "q"}]}});
        let live = applied(before, |live| {
            live["spec"]["list"].as_array_mut().unwrap().push(json!({"name": "other"}))
        });
        let target = json!({"metadata": {"name": "a"}, "spec": {"list": [{"name": "p"}]}});
        assert!(differs(&target, &live));
        let strategic = patch(&target, &live, true);
        assert_eq!(
            strategic["spec"],
            json!({"x": null, "list": [{"name": "p", "v": null}, {"name": "q", "$patch": "delete"}]})
        );
        assert_eq!(patch(&target, &live, false)["spec"], json!({"x": null, "list": [{"name": "p"}]}));
    }
}
