//! Values behave as `serde_json`'s do, and share what they should.

use proptest::prelude::*;
use tree::{Value, json};

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        (-9999..9999i32).prop_map(|eighths| (f64::from(eighths) / 8.0).into()),
        "[a-zäß\"\\\\\n]{0,24}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-c]{1,3}", inner, 0..6)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn reading_and_printing_are_those_of_serde_json(plain in value()) {
        let text = plain.to_string();
        let parsed = Value::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(parsed.to_string(), text);
        prop_assert_eq!(&serde_json::Value::from(&parsed), &plain);
        prop_assert_eq!(&Value::from(plain), &parsed);
    }

    #[test]
    fn values_are_equal_when_serde_jsons_are(one in value(), other in value()) {
        prop_assert_eq!(Value::from(&one) == Value::from(&other), one == other);
    }

    #[test]
    fn sharing_changes_no_value_and_is_thorough(one in value(), other in value()) {
        let (before, other) = (Value::from(one), Value::from(other));
        let mut shared = before.clone();
        let equal = shared.share_with(&other);
        prop_assert_eq!(&shared, &before);
        prop_assert_eq!(equal, before == other);
        assert_shares(&shared, &other);
    }
}

/// Whatever is equal at the same place is the same.
fn assert_shares(one: &Value, other: &Value) {
    assert_eq!(one.is_shared_with(other), one == other, "{one} and {other}");
    match (one, other) {
        (Value::Object(fields), Value::Object(others)) => {
            for (name, value) in fields {
                if let Some(other) = others.get(name) {
                    assert_shares(value, other);
                }
            }
        }
        (Value::Array(items), Value::Array(others)) => {
            items.iter().zip(others).for_each(|(item, other)| assert_shares(item, other));
        }
        _ => {}
    }
}

#[test]
fn fields_are_sorted_and_the_last_of_a_name_counts() {
    let parsed = Value::parse(br#"{"b": 1, "a": 2, "b": 3, "a": {"x": [], "x": [1]}, "c": null}"#).unwrap();
    assert_eq!(parsed.to_string(), r#"{"a":{"x":[1]},"b":3,"c":null}"#);
}

#[test]
fn a_change_touches_one_copy_and_leaves_the_rest_shared() {
    let before = json!({"metadata": {"name": "web"}, "spec": {"list": [{"a": 1}, {"b": 2}]}});
    let mut after = before.clone();
    assert!(after.is_shared_with(&before));
    after["metadata"]["labels"]["app"] = json!("web");
    assert_eq!(before["metadata"], json!({"name": "web"}));
    assert_eq!(after["metadata"], json!({"labels": {"app": "web"}, "name": "web"}));
    assert!(after["spec"].is_shared_with(&before["spec"]));
    after["spec"]["list"][1]["b"] = json!(3);
    assert_eq!(before["spec"]["list"][1]["b"], 2);
    assert!(after["spec"]["list"][0].is_shared_with(&before["spec"]["list"][0]));
}

#[test]
fn what_is_missing_reads_as_null_and_is_made_when_written() {
    let mut value = json!({"list": [1, 2, 3]});
    assert!(value["no"]["such"]["field"].is_null());
    assert!(value["list"][7].is_null());
    value["new"]["field"] = json!(true);
    assert_eq!(value.pointer("/new/field"), Some(&json!(true)));
    assert_eq!(value.pointer("/list/2"), Some(&json!(3)));
    assert_eq!(value.pointer("/list/02"), None);
    *value.pointer_mut("/list/0").unwrap() = json!({"a/b": {"~": 1}});
    assert_eq!(value.pointer("/list/0/a~1b/~0"), Some(&json!(1)));
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| name != "list");
        assert_eq!(fields.insert("new", json!(1)), Some(json!({"field": true})));
        assert_eq!(fields.remove("new"), Some(json!(1)));
        assert_eq!(fields.remove("new"), None);
        *fields.entry("count").or_insert(json!(1)) = json!(2);
        *fields.entry("count").or_insert(json!(1)) = json!(3);
    }
    assert_eq!(value, json!({"count": 3}));
}
