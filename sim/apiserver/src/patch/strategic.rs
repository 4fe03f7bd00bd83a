//! Strategic merge patch: a merge patch that knows which lists of built-in kinds merge, and by which key.
//!
//! Follows apimachinery's `strategicpatch` package as the server runs it (unmatched nulls are dropped, lists merge in
//! parallel), with all directives: `$patch: delete|replace|merge`, `$setElementOrder/L`, `$retainKeys`,
//! `$deleteFromPrimitiveList/L`. Custom resources have no strategic merge patch: the server answers 415 before it comes
//! here.

use super::PatchError;
use crate::shape::{Cursor, Merge};
use tree::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of a built-in kind (`apps/Deployment`, `/Pod` for the core group).
///
/// # Errors
/// [`PatchError::BadRequest`] for directives that are malformed, [`PatchError::Invalid`] for lists of lists and unknown
/// `$patch` values, [`PatchError::Internal`] (as upstream) for a list item without its merge key.
pub fn apply(group_kind: &str, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(PatchError::BadRequest(
            "invalid JSON document: a strategic merge patch is an object".to_owned(),
        ));
    };
    let mut merged = current.clone();
    merge_object(&mut merged, patch, Cursor::built_in(group_kind))?;
    Ok(Value::Object(merged))
}

fn merge_object(original: &mut Map, patch: &Map, at: Cursor<'_>) -> Result<(), PatchError> {
    if let Some(directive) = patch.get(PATCH) {
        match directive.as_str() {
            Some("replace") => *original = cleaned(patch),
            Some("delete") => original.clear(),
            _ => return Err(PatchError::Invalid(format!("unknown patch type found: {directive}"))),
        }
        return Ok(());
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain(original, patch, keys)?;
    }
    for (key, order) in patch.iter().filter(|(key, _)| key.starts_with(SET_ORDER)) {
        merge_ordered(original, patch, &key[SET_ORDER.len()..], order, at)?;
    }
    for (key, change) in patch {
        if let Some(list) = key.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(original, list, change)?;
            continue;
        }
        // A list with an order was merged above.
        let ordered = key.starts_with(SET_ORDER) || patch.contains_key(&format!("{SET_ORDER}{key}"));
        if key == RETAIN_KEYS || ordered {
            continue;
        }
        let here = at.field(key);
        match (original.get_mut(key), change) {
            (_, Value::Null) => {
                original.remove(key);
            }
            (Some(Value::Object(fields)), Value::Object(change)) if here.merge() != Merge::Replace => {
                merge_object(fields, change, here)?;
            }
            (Some(Value::Array(items)), Value::Array(change)) => {
                *items = merge_list(std::mem::take(items).to_vec(), change, here, key)?.into();
            }
            (_, change) => {
                original.insert(key.clone(), cleaned_value(change));
            }
        }
    }
    Ok(())
}

/// `$retainKeys`: of a union (a volume, a deployment strategy) only the listed fields survive.
fn retain(original: &mut Map, patch: &Map, keys: &Value) -> Result<(), PatchError> {
    let malformed = || PatchError::BadRequest("invalid patch format of retainKeys".to_owned());
    let keys = keys.as_array().ok_or_else(malformed)?;
    let listed = |name: &str| keys.iter().any(|key| key == name);
    let set = patch.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    if set.into_iter().any(|(key, _)| !listed(key)) {
        return Err(malformed());
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// `$deleteFromPrimitiveList/L`: takes scalars out of a list.
fn delete_primitives(original: &mut Map, list: &str, gone: &Value) -> Result<(), PatchError> {
    let gone = gone
        .as_array()
        .filter(|gone| gone.iter().all(is_scalar))
        .ok_or_else(|| PatchError::BadRequest("invalid patch format of primitive list".to_owned()))?;
    if let Some(Value::Array(items)) = original.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// `$setElementOrder/L`: merges the list, then puts it in the given order; items that the order does not name keep their
/// place as well as they can.
fn merge_ordered(
    original: &mut Map,
    patch: &Map,
    list: &str,
    order: &Value,
    at: Cursor<'_>,
) -> Result<(), PatchError> {
    let malformed =
        || PatchError::BadRequest(format!("invalid patch format of setElementOrder list for {list:?}"));
    let order = order.as_array().ok_or_else(malformed)?;
    let here = at.field(list);
    let key = merge_key(here, order);
    if key.is_none() && !order.iter().all(is_scalar) {
        return Err(malformed());
    }
    let live = match original.get(list) {
        Some(Value::Array(items)) => Some(items.clone()),
        _ => None,
    };
    let changes = match patch.get(list) {
        Some(Value::Array(items)) => Some(items),
        Some(Value::Null) => {
            original.remove(list);
            return Ok(());
        }
        _ => None,
    };
    if let (Some(key), Some(changes)) = (key, changes) {
        for change in changes.iter().filter(|change| change.get(PATCH).is_none()) {
            let named = |item: &Value| item.get(key) == change.get(key);
            if !order.iter().any(named) {
                return Err(PatchError::BadRequest(format!(
                    "The order in patch list:\n{changes:?}\n doesn't match {SET_ORDER}{list} list:\n{order:?}"
                )));
            }
        }
    }
    let merged = match (&live, changes) {
        (None, None) => return Ok(()),
        (Some(live), None) => live.to_vec(),
        (None, Some(changes)) => without_directives(changes),
        (Some(live), Some(changes)) => merge_list(live.to_vec(), changes, here, list)?,
    };
    let arranged = arrange(merged, order, live.as_deref().unwrap_or_default(), key);
    original.insert(list.to_owned(), arranged.into());
    Ok(())
}

/// The merge key of a list, or `None` for a list of scalars or one that is replaced.
fn merge_key(here: Cursor<'_>, items: &[Value]) -> Option<&'static str> {
    match here.merge() {
        Merge::ByKey(key) if !items.iter().any(is_scalar) => Some(key),
        _ => None,
    }
}

fn merge_list(
    live: Vec<Value>,
    patch: &[Value],
    here: Cursor<'_>,
    name: &str,
) -> Result<Vec<Value>, PatchError> {
    if live.iter().chain(patch).any(Value::is_array) {
        return Err(PatchError::Invalid(format!("lists of lists are not supported: {name}")));
    }
    match here.merge() {
        Merge::Default | Merge::Replace => Ok(without_directives(patch)),
        Merge::Scalars => {
            let mut merged: Vec<Value> = Vec::with_capacity(live.len() + patch.len());
            for item in live.iter().chain(patch) {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            Ok(arrange(merged, patch, &live, None))
        }
        Merge::ByKey(key) => merge_by_key(live, patch, key, here.items()),
    }
}

fn merge_by_key(
    live: Vec<Value>,
    patch: &[Value],
    key: &str,
    at: Cursor<'_>,
) -> Result<Vec<Value>, PatchError> {
    let key_of = |item: &Value| match item.get(key) {
        Some(found) => Ok(found.clone()),
        None => Err(PatchError::Internal(format!("map: {item} does not contain declared merge key: {key}"))),
    };
    // `- $patch: replace` as an item replaces the whole list by the other items.
    if patch.iter().any(|item| item.get(PATCH).is_some_and(|directive| directive == "replace")) {
        return Ok(without_directives(patch));
    }
    let mut merged = live.clone();
    let mut changed = Vec::new();
    for item in patch {
        match item.get(PATCH).map(|directive| (directive.as_str(), directive)) {
            Some((Some("delete"), _)) => {
                let gone = key_of(item)?;
                merged.retain(|candidate| candidate.get(key) != Some(&gone));
            }
            Some((Some("merge"), _)) => {
                return Err(PatchError::Invalid(
                    "merge: merging is the default, $patch: merge is not supported in lists".to_owned(),
                ));
            }
            Some((_, directive)) => {
                return Err(PatchError::Invalid(format!("unknown patch type found: {directive}")));
            }
            None => changed.push(item),
        }
    }
    for item in &changed {
        let wanted = key_of(item)?;
        let Value::Object(change) = item else {
            return Err(PatchError::BadRequest(format!("list item {item} is not an object")));
        };
        let found = merged.iter_mut().find(|candidate| candidate.get(key) == Some(&wanted));
        match found {
            Some(Value::Object(fields)) => merge_object(fields, change, at)?,
            _ => merged.push(Value::Object(cleaned(change))),
        }
    }
    let order: Vec<Value> = changed.into_iter().cloned().collect();
    Ok(arrange(merged, &order, &live, Some(key)))
}

/// Puts a merged list in order: the items named by `order` as `order` has them, the others between them where the live
/// list has them.
fn arrange(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    };
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(live, item).unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return arranged,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(next)) => match (place(live, other), place(live, next)) {
                (Some(other), Some(next)) => other < next,
                _ => false,
            },
        };
        arranged.extend(if other_first { others.next() } else { named.next() });
    }
}

/// A patch value that becomes part of the object: without nulls and directives.
fn cleaned_value(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(cleaned(fields)),
        Value::Array(items) => without_directives(items).into(),
        scalar => scalar.clone(),
    }
}

fn cleaned(patch: &Map) -> Map {
    if patch.get(PATCH).is_some_and(|directive| directive == "delete") {
        return Map::new();
    }
    let kept = patch.iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
    kept.map(|(key, value)| (key.clone(), cleaned_value(value))).collect()
}

/// The items of a patch's list without those that only give directions.
fn without_directives(items: &[Value]) -> Vec<Value> {
    items.iter().filter(|item| item.get(PATCH).is_none()).map(cleaned_value).collect()
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_PRIMITIVES)
}

fn is_scalar(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tree::json;

    fn check(kind: &str, current: Value, patch: Value, expected: Value) {
        let patched = apply(kind, &current, &patch).unwrap_or_else(|error| panic!("{patch}: {error}"));
        assert_eq!(patched, expected, "{patch}");
    }

    fn deployment(pod: Value) -> Value {
        json!({"spec": {"template": {"spec": pod}}})
    }

    #[test]
    fn set_image_keeps_sidecars_and_fields() {
        check(
            "apps/Deployment",
            deployment(
                json!({"containers": [{"name": "app", "image": "a:1", "command": ["x"]}, {"name": "side", "image": "s"}]}),
            ),
            deployment(
                json!({"$setElementOrder/containers": [{"name": "app"}], "containers": [{"name": "app", "image": "a:2"}]}),
            ),
            deployment(
                json!({"containers": [{"name": "app", "image": "a:2", "command": ["x"]}, {"name": "side", "image": "s"}]}),
            ),
        );
    }

    #[test]
    fn each_list_merges_by_its_own_key() {
        let cases = [
            (
                "/Pod",
                "env",
                json!({"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}]}),
                json!({"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}]}]}),
                json!({"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}]}),
            ),
            (
                "/Pod",
                "ports",
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "web"}]}]}),
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "http"}]}]}),
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "name": "http"}]}]}),
            ),
            (
                "/Pod",
                "args are replaced",
                json!({"containers": [{"name": "c", "args": ["a", "b"]}]}),
                json!({"containers": [{"name": "c", "args": ["c"]}]}),
                json!({"containers": [{"name": "c", "args": ["c"]}]}),
            ),
            (
                "/Pod",
                "tolerations are replaced",
                json!({"tolerations": [{"key": "a"}]}),
                json!({"tolerations": [{"key": "b"}]}),
                json!({"tolerations": [{"key": "b"}]}),
            ),
            (
                "/Service",
                "ports",
                json!({"ports": [{"port": 80, "targetPort": 1}]}),
                json!({"ports": [{"port": 80, "targetPort": 2}]}),
                json!({"ports": [{"port": 80, "targetPort": 2}]}),
            ),
            (
                "policy/PodDisruptionBudget",
                "selector is replaced",
                json!({"selector": {"matchLabels": {"a": "1"}}}),
                json!({"selector": {"matchLabels": {"b": "2"}}}),
                json!({"selector": {"matchLabels": {"b": "2"}}}),
            ),
            (
                "apps/Deployment",
                "a selector merges",
                json!({"selector": {"matchLabels": {"a": "1"}}}),
                json!({"selector": {"matchLabels": {"b": "2"}}}),
                json!({"selector": {"matchLabels": {"a": "1", "b": "2"}}}),
            ),
        ];
        for (kind, what, current, patch, expected) in cases {
            let patched = apply(kind, &json!({"spec": current}), &json!({"spec": patch})).unwrap();
            assert_eq!(patched, json!({"spec": expected}), "{kind} {what}");
        }
    }

    #[test]
    fn directives() {
        let containers = || json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]);
        let pod = |containers: Value| json!({"spec": {"containers": containers}});
        check(
            "/Pod",
            pod(containers()),
            pod(json!([{"name": "a", "$patch": "delete"}])),
            pod(json!([{"name": "b", "image": "2"}])),
        );
        check(
            "/Pod",
            pod(containers()),
            pod(json!([{"$patch": "replace"}, {"name": "c"}])),
            pod(json!([{"name": "c"}])),
        );
        check(
            "/Pod",
            json!({"spec": {"securityContext": {"runAsUser": 1, "fsGroup": 2}}}),
            json!({"spec": {"securityContext": {"runAsUser": 3, "$patch": "replace"}}}),
            json!({"spec": {"securityContext": {"runAsUser": 3}}}),
        );
        check(
            "/Pod",
            json!({"spec": {"securityContext": {"runAsUser": 1}}}),
            json!({"spec": {"securityContext": {"$patch": "delete"}}}),
            json!({"spec": {"securityContext": {}}}),
        );
        check(
            "apps/Deployment",
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
        check(
            "/Pod",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}}),
        );
        check(
            "/Pod",
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}}),
            json!({"metadata": {"finalizers": ["a", "c"]}}),
        );
        check(
            "/Pod",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$setElementOrder/finalizers": ["c", "b", "a"], "finalizers": ["c"]}}),
            json!({"metadata": {"finalizers": ["c", "b", "a"]}}),
        );
    }

    #[test]
    fn order_is_that_of_the_patch_with_live_items_between() {
        let containers = |names: &str| -> Value {
            json!({"spec": {"containers": names.chars().map(|name| json!({"name": name.to_string()})).collect::<Vec<_>>()}})
        };
        let patch = |order: &str, names: &str| {
            let mut patch = containers(names);
            patch["spec"]["$setElementOrder/containers"] = containers(order)["spec"]["containers"].clone();
            patch
        };
        let cases = [
            ("abc", "cba", "", "cba"),
            ("abcd", "db", "", "acdb"),
            ("ab", "bxa", "x", "bxa"),
            ("", "xy", "yx", "xy"),
            ("axb", "ba", "", "xba"),
        ];
        for (live, order, changed, expected) in cases {
            let patched = apply("/Pod", &containers(live), &patch(order, changed)).unwrap();
            let names: String = patched["spec"]["containers"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|item| item["name"].as_str())
                .collect();
            assert_eq!(names.len(), expected.len(), "{live} {order} {changed}: {names}");
            let listed: String = names.chars().filter(|name| order.contains(*name)).collect();
            assert_eq!(listed, order, "{live} {order} {changed}: {names}");
            if live == "abc" || changed == "x" {
                assert_eq!(names, expected);
            }
        }
    }

    #[test]
    fn nulls_delete_and_leave_no_trace() {
        check(
            "apps/Deployment",
            json!({"spec": {"paused": true, "replicas": 1}}),
            json!({"spec": {"paused": null, "gone": null, "template": {"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}}}}),
            json!({"spec": {"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}}}}),
        );
    }

    #[test]
    fn refusals() {
        let current = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}], "strategy": {}}});
        let refuse = |patch: Value| apply("/Pod", &current, &patch).unwrap_err();
        let missing = refuse(json!({"spec": {"containers": [{"image": "x"}]}}));
        assert_eq!(missing.code(), 500);
        assert_eq!(missing.to_string(), "map: {\"image\":\"x\"} does not contain declared merge key: name");
        assert_eq!(refuse(json!([])).code(), 400);
        assert_eq!(refuse(json!({"spec": {"$patch": "smash"}})).code(), 422);
        assert_eq!(refuse(json!({"spec": {"strategy": {"$retainKeys": ["type"], "other": 1}}})).code(), 400);
        assert_eq!(refuse(json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}})).code(), 400);
        assert_eq!(refuse(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}})).code(), 400);
    }

    /// Containers as a map from name to image, in one order.
    fn containers(images: &[(String, u8)]) -> Value {
        json!(images.iter().map(|(name, image)| json!({"name": name, "image": image})).collect::<Vec<_>>())
    }

    fn images() -> impl Strategy<Value = Vec<(String, u8)>> {
        prop::collection::btree_map("[a-e]", 0..3u8, 0..5)
            .prop_map(|images| images.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
    }

    proptest! {
        /// What kubectl computes on the client: changed and new items, deletions, and the wanted order.
        #[test]
        fn applying_the_difference_gives_the_target(from in images(), to in images()) {
            let mut items: Vec<Value> = containers(&to).as_array().unwrap().iter().zip(&to).filter(|(_, item)| !from.contains(item)).map(|(value, _)| value.clone()).collect();
            for (name, _) in from.iter().filter(|(name, _)| !to.iter().any(|(other, _)| other == name)) {
                items.push(json!({"name": name, "$patch": "delete"}));
            }
            let order: Vec<Value> = to.iter().map(|(name, _)| json!({"name": name})).collect();
            let patch = json!({"spec": {"$setElementOrder/containers": order, "containers": items}});
            let patched = apply("/Pod", &json!({"spec": {"containers": containers(&from)}}), &patch).unwrap();
            prop_assert_eq!(patched, json!({"spec": {"containers": containers(&to)}}));
        }

        #[test]
        fn without_lists_it_is_a_merge_patch(current in prop::collection::btree_map("[a-c]", 0..3u8, 0..3), patch in prop::collection::btree_map("[a-d]", prop::option::of(0..3u8), 0..4)) {
            let (current, patch) = (json!({"data": current}), json!({"data": patch}));
            prop_assert_eq!(apply("/ConfigMap", &current, &patch).unwrap(), crate::patch::merge::apply(current, &patch));
        }
    }
}
