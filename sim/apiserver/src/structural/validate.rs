//! Validation against a [`Schema`].

use tree::{Value, json};

use super::{Cause, Schema, Unique, is_of_resources, join, key_of, type_of};
use crate::decode::is_known;

/// Adds everything that is wrong with `value` at `path`.
pub(super) fn check(
    schema: &Schema,
    value: &Value,
    known: &Value,
    path: &str,
    resource: bool,
    causes: &mut Vec<Cause>,
) {
    if is_known(value, known) {
        return;
    }
    if value.is_null() && schema.nullable {
        return;
    }
    let invalid = |value: &Value, why: String| Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {value}: {why}"),
        field: path.to_owned(),
    };
    if let Some(expected) = mismatch(schema, value) {
        let why = format!("{path} in body must be of type {expected}: {:?}", type_of(value));
        causes.push(Cause {
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: {:?}: {why}", type_of(value)),
            field: path.to_owned(),
        });
        return;
    }
    if !schema.choices.is_empty() && !schema.choices.contains(value) {
        let choices: Vec<String> = schema.choices.iter().map(Value::to_string).collect();
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {value}: supported values: {}", choices.join(", ")),
            field: path.to_owned(),
        });
    }
    match value {
        Value::Object(fields) => {
            for name in schema.required.iter().filter(|name| !fields.contains_key(name)) {
                let field = join(path, name);
                causes.push(Cause {
                    reason: "FieldValueRequired",
                    message: "Required value".to_owned(),
                    field,
                });
            }
            between(fields.len() as u64, schema.property_count, "properties", path, value, causes);
            for (name, value) in fields {
                if (resource || schema.embedded) && is_of_resources(name) {
                    continue;
                }
                if let Some(schema) = schema.properties.get(name.as_str()).or(schema.additional.as_deref()) {
                    check(schema, value, &known[name], &join(path, name), false, causes);
                }
            }
        }
        Value::Array(items) => {
            between(items.len() as u64, schema.item_count, "items", path, value, causes);
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if let Some(schema) = &schema.items {
                    check(schema, item, &known[index], &path, false, causes);
                }
                let repeats = match (&schema.unique, item) {
                    (Unique::Items, item) => items[..index].contains(item).then(|| item.clone()),
                    (Unique::Keys(keys), Value::Object(fields)) => {
                        let key = key_of(fields, keys);
                        let is_same =
                            |other: &Value| other.as_object().is_some_and(|other| key_of(other, keys) == key);
                        items[..index]
                            .iter()
                            .any(is_same)
                            .then(|| json!(keys.iter().cloned().zip(key).collect::<tree::Map>()))
                    }
                    _ => None,
                };
                if let Some(repeated) = repeats {
                    let message = format!("Duplicate value: {repeated}");
                    causes.push(Cause { reason: "FieldValueDuplicate", message, field: path });
                }
            }
        }
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let (Some(min), _) = schema.length
                && length < min
            {
                causes.push(invalid(value, format!("{path} in body should be at least {min} chars long")));
            }
            if let (_, Some(max)) = schema.length
                && length > max
            {
                let message = format!("Too long: may not be more than {max} bytes");
                causes.push(Cause { reason: "FieldValueTooLong", message, field: path.to_owned() });
            }
            if let Some((pattern, regex)) = &schema.pattern
                && !regex.is_match(text)
            {
                causes.push(invalid(value, format!("{path} in body should match '{pattern}'")));
            }
            if schema.format.as_deref() == Some("date-time") && text.parse::<jiff::Timestamp>().is_err() {
                causes.push(invalid(value, format!("{path} in body must be of type date-time: {text:?}")));
            }
        }
        Value::Number(number) => {
            let found = number.as_f64().unwrap_or(0.0);
            if let Some((minimum, exclusive)) = schema.minimum
                && (found < minimum || (exclusive && found == minimum))
            {
                let than = if exclusive { "greater than" } else { "greater than or equal to" };
                causes.push(invalid(value, format!("{path} in body should be {than} {minimum}")));
            }
            if let Some((maximum, exclusive)) = schema.maximum
                && (found > maximum || (exclusive && found == maximum))
            {
                let than = if exclusive { "less than" } else { "less than or equal to" };
                causes.push(invalid(value, format!("{path} in body should be {than} {maximum}")));
            }
            if let Some(factor) = schema.multiple_of
                && (found / factor).fract() != 0.0
            {
                causes.push(invalid(value, format!("{path} in body should be a multiple of {factor}")));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    for part in &schema.all_of {
        check(part, value, Value::NULL, path, false, causes);
    }
    let matching = |parts: &[Schema]| parts.iter().filter(|part| is_valid(part, value)).count();
    if !schema.any_of.is_empty() && matching(&schema.any_of) == 0 {
        causes.push(invalid(value, format!("{path} in body must validate at least one schema (anyOf)")));
    }
    if !schema.one_of.is_empty() && matching(&schema.one_of) != 1 {
        causes.push(invalid(value, format!("{path} in body must validate one and only one schema (oneOf)")));
    }
    if schema.not.as_ref().is_some_and(|not| is_valid(not, value)) {
        causes.push(invalid(value, format!("{path} in body must not validate the schema (not)")));
    }
}

fn is_valid(schema: &Schema, value: &Value) -> bool {
    let mut causes = Vec::new();
    check(schema, value, Value::NULL, "", false, &mut causes);
    causes.is_empty()
}

/// The type that a value should have and has not.
fn mismatch<'a>(schema: &'a Schema, value: &Value) -> Option<&'a str> {
    let found = type_of(value);
    if schema.int_or_string {
        return (!matches!(found, "integer" | "string")).then_some("integer or string");
    }
    let expected = schema.kind.as_deref()?;
    let fits = match expected {
        "number" => matches!(found, "number" | "integer"),
        // JSON knows no integers: 1.0 is one.
        "integer" => found == "integer" || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        expected => found == expected,
    };
    (!fits).then_some(expected)
}

fn between(
    count: u64,
    bounds: (Option<u64>, Option<u64>),
    what: &str,
    path: &str,
    value: &Value,
    causes: &mut Vec<Cause>,
) {
    let problem = match bounds {
        (Some(min), _) if count < min => format!("{path} in body should have at least {min} {what}"),
        (_, Some(max)) if count > max => format!("{path} in body should have at most {max} {what}"),
        _ => return,
    };
    causes.push(Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {value}: {problem}"),
        field: path.to_owned(),
    });
}
