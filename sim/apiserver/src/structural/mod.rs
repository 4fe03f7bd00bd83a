//! Structural schemas of custom resources: pruning, defaulting, validation.
//!
//! A [`Schema`] is compiled once from a CRD version's `openAPIV3Schema`. Rules in CEL (`x-kubernetes-validations`) are
//! not evaluated. Messages follow the real server's (kube-openapi's `validate` package).

mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use tree::{Map, Value};

use crate::decode::is_known;

/// One reason why an object or a schema is invalid, as in `details.causes` of a Status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, ...
    pub reason: &'static str,
    /// The text after the field: `Invalid value: "x": ...`.
    pub message: String,
    /// The field's path: `spec.replicas`.
    pub field: String,
}

/// A compiled `openAPIV3Schema`.
///
/// Its functions on objects leave out the parts that are shared with `known`: an object that has been through all of
/// them before, or null.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    kind: Option<String>,
    format: Option<String>,
    nullable: bool,
    int_or_string: bool,
    preserve_unknown: bool,
    embedded: bool,
    properties: BTreeMap<String, Schema>,
    additional: Option<Box<Schema>>,
    allows_additional: bool,
    items: Option<Box<Schema>>,
    required: Vec<String>,
    default: Option<Value>,
    choices: Vec<Value>,
    pattern: Option<(String, Regex)>,
    minimum: Option<(f64, bool)>,
    maximum: Option<(f64, bool)>,
    multiple_of: Option<f64>,
    length: (Option<u64>, Option<u64>),
    item_count: (Option<u64>, Option<u64>),
    property_count: (Option<u64>, Option<u64>),
    unique: Unique,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

/// Which items of a list may not be there twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Unique {
    #[default]
    No,
    Items,
    Keys(Vec<String>),
}

impl Schema {
    /// Compiles the `openAPIV3Schema` of a CRD version.
    ///
    /// # Errors
    /// What keeps the schema from being structural: unknown types, bad patterns.
    pub fn compile(schema: &Value) -> Result<Schema, Vec<Cause>> {
        let mut causes = Vec::new();
        let compiled = compile(schema, "", &mut causes);
        if causes.is_empty() && compiled.kind.as_deref() != Some("object") {
            causes.push(Cause {
                reason: "FieldValueInvalid",
                message: format!("Invalid value: {}: must be object at the root", schema["type"]),
                field: "type".to_owned(),
            });
        }
        if causes.is_empty() { Ok(compiled) } else { Err(causes) }
    }

    /// Drops unknown fields.
    pub fn prune(&self, object: &mut Value, known: &Value) {
        self.prune_at(object, known, true);
    }

    /// The paths of the fields that [`Schema::prune`] would drop, sorted: `spec.foo`.
    pub fn unknown_fields(&self, object: &Value, known: &Value) -> Vec<String> {
        let mut unknown = Vec::new();
        self.collect_unknown(object, known, true, "", &mut unknown);
        unknown.sort();
        unknown
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value, known: &Value) {
        if is_known(object, known) {
            return;
        }
        match object {
            Value::Object(fields) => {
                for (name, schema) in &self.properties {
                    if let Some(default) = &schema.default {
                        let missing = match fields.get(name) {
                            None => true,
                            Some(Value::Null) => !schema.nullable,
                            Some(_) => false,
                        };
                        if missing {
                            fields.insert(name.clone(), default.clone());
                        }
                    }
                    if fields.get(name).is_some_and(|value| !is_known(value, &known[name]))
                        && let Some(value) = fields.get_mut(name)
                    {
                        schema.default(value, &known[name]);
                    }
                }
                if let Some(additional) = &self.additional {
                    for (name, value) in fields.iter_mut() {
                        if !self.properties.contains_key(name.as_str()) {
                            additional.default(value, &known[name]);
                        }
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter_mut().enumerate() {
                        schema.default(item, &known[index]);
                    }
                }
            }
            _ => {}
        }
    }

    /// Everything that is wrong with a pruned and defaulted object.
    pub fn validate(&self, object: &Value, known: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        validate::check(self, object, known, "", true, &mut causes);
        causes
    }

    fn prune_at(&self, value: &mut Value, known: &Value, resource: bool) {
        if is_known(value, known) {
            return;
        }
        match value {
            Value::Object(fields) => {
                if !self.keeps_unknown() {
                    fields.retain(|name, _| {
                        self.properties.contains_key(name.as_str())
                            || ((resource || self.embedded) && is_of_resources(name))
                    });
                }
                for (name, value) in fields.iter_mut() {
                    if (resource || self.embedded) && is_of_resources(name) {
                        continue;
                    }
                    if let Some(schema) = self.properties.get(name.as_str()).or(self.additional.as_deref()) {
                        schema.prune_at(value, &known[name], false);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter_mut().enumerate() {
                        schema.prune_at(item, &known[index], false);
                    }
                }
            }
            _ => {}
        }
    }

    fn collect_unknown(
        &self,
        value: &Value,
        known: &Value,
        resource: bool,
        path: &str,
        unknown: &mut Vec<String>,
    ) {
        if is_known(value, known) {
            return;
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if (resource || self.embedded) && is_of_resources(name) {
                        continue;
                    }
                    let path = join(path, name);
                    match self.properties.get(name.as_str()).or(self.additional.as_deref()) {
                        Some(schema) => schema.collect_unknown(value, &known[name], false, &path, unknown),
                        None if self.keeps_unknown() => {}
                        None => unknown.push(path),
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.collect_unknown(
                            item,
                            &known[index],
                            false,
                            &format!("{path}[{index}]"),
                            unknown,
                        );
                    }
                }
            }
            _ => {}
        }
    }

    fn keeps_unknown(&self) -> bool {
        self.preserve_unknown || self.allows_additional || self.additional.is_some()
    }
}

fn is_of_resources(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn compile(schema: &Value, path: &str, causes: &mut Vec<Cause>) -> Schema {
    const KINDS: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    let text = |field: &str| schema[field].as_str().map(str::to_owned);
    let number = |field: &str| schema[field].as_u64();
    let is = |field: &str| schema[field] == true;
    let nested = |field: &str, causes: &mut Vec<Cause>| {
        schema[field].is_object().then(|| Box::new(compile(&schema[field], &join(path, field), causes)))
    };
    let list = |field: &str, causes: &mut Vec<Cause>| {
        let schemas = schema[field].as_array().map(tree::Array::as_slice).unwrap_or_default();
        let compiled = schemas
            .iter()
            .enumerate()
            .map(|(index, schema)| compile(schema, &format!("{}[{index}]", join(path, field)), causes));
        compiled.collect::<Vec<_>>()
    };
    let kind = text("type").filter(|kind| !kind.is_empty());
    if let Some(kind) = kind.as_deref().filter(|kind| !KINDS.contains(kind)) {
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {kind:?}: supported values: {KINDS:?}"),
            field: join(path, "type"),
        });
    }
    let pattern = text("pattern").and_then(|pattern| match Regex::new(&pattern) {
        Ok(regex) => Some((pattern, regex)),
        Err(_) => {
            causes.push(Cause {
                reason: "FieldValueInvalid",
                message: format!("Invalid value: {pattern:?}: must be a valid regular expression"),
                field: join(path, "pattern"),
            });
            None
        }
    });
    let keys = || {
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let bound = |field: &str, exclusive: &str| schema[field].as_f64().map(|bound| (bound, is(exclusive)));
    Schema {
        format: text("format"),
        nullable: is("nullable"),
        int_or_string: is("x-kubernetes-int-or-string"),
        preserve_unknown: is("x-kubernetes-preserve-unknown-fields"),
        embedded: is("x-kubernetes-embedded-resource"),
        properties: schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, schema)| {
                let path = join(&join(path, "properties"), name);
                (name.to_string(), compile(schema, &path, causes))
            })
            .collect(),
        additional: nested("additionalProperties", causes),
        allows_additional: is("additionalProperties"),
        items: nested("items", causes),
        required: schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        default: schema.get("default").cloned(),
        choices: schema["enum"].as_array().map_or_else(Vec::new, |choices| choices.to_vec()),
        pattern,
        minimum: bound("minimum", "exclusiveMinimum"),
        maximum: bound("maximum", "exclusiveMaximum"),
        multiple_of: schema["multipleOf"].as_f64(),
        length: (number("minLength"), number("maxLength")),
        item_count: (number("minItems"), number("maxItems")),
        property_count: (number("minProperties"), number("maxProperties")),
        unique: match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Unique::Items,
            Some("map") => Unique::Keys(keys()),
            _ if is("uniqueItems") => Unique::Items,
            _ => Unique::No,
        },
        all_of: list("allOf", causes),
        any_of: list("anyOf", causes),
        one_of: list("oneOf", causes),
        not: nested("not", causes),
        kind,
    }
}

/// The JSON type's name as schemas call it.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The key of a list item: the fields that tell it from the others.
fn key_of(item: &Map, keys: &[String]) -> Vec<Value> {
    keys.iter().map(|key| item.get(key).cloned().unwrap_or(Value::Null)).collect()
}
