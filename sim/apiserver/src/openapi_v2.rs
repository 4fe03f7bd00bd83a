//! OpenAPI version 2, for clients older than 1.27: what they check manifests, explain fields, compute patches and decide
//! about dry runs with.
//!
//! It is the documents of version 3 in another shape. Such clients ask for protobuf (the messages of
//! `gnostic/openapiv2/OpenAPIv2.proto`), which only holds what they read: definitions with their merge keys, and the
//! query parameters of operations.

use std::collections::BTreeMap;

use http::{Response, StatusCode, header};
use tree::{Map, Value, json};

use crate::body::Body;
use crate::openapi::{self, GROUP_VERSION_KIND, schema_name};
use crate::protobuf::schema::{Kind, Presence, Schema};
use crate::server::answered;
use crate::shape::{Cursor, Merge};
use crate::store::Store;

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const MERGE_KEY: &str = "x-kubernetes-patch-merge-key";
const STRATEGY: &str = "x-kubernetes-patch-strategy";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// Unions, of which a patch names the fields that stay.
const UNIONS: [(&str, &str, &str); 2] = [
    ("io.k8s.api.core.v1.PodSpec", "volumes", "merge,retainKeys"),
    ("io.k8s.api.apps.v1.DeploymentSpec", "strategy", "retainKeys"),
];

/// `/openapi/v2`.
pub(crate) fn answer(store: &Store, accept: &str) -> Response<Body> {
    let (paths, schemas) = openapi::all(store);
    let mut definitions: BTreeMap<String, Value> = BTreeMap::new();
    for (name, schema) in &schemas {
        // Kinds whose fields are not known are left out, and not checked.
        if schema[PRESERVE] != true {
            definitions.insert(name.clone(), definition(schema));
        }
    }
    for ((owner, field), (key, strategy)) in merges(store) {
        let property = definitions.get_mut(&owner).and_then(|schema| schema["properties"].get_mut(&field));
        if let Some(property) = property {
            property[STRATEGY] = json!(strategy);
            if let Some(key) = key {
                property[MERGE_KEY] = json!(key);
            }
        }
    }
    if !accept.contains("protobuf") {
        let document = json!({"swagger": "2.0", "definitions": definitions,
            "info": {"title": "Kubernetes", "version": crate::discovery::GIT_VERSION},
            "paths": paths.iter().map(|(path, item)| (path.clone(), path_item(item))).collect::<Map>()});
        return answered(StatusCode::OK, document.to_string());
    }
    let mut answer = answered(StatusCode::OK, document(&paths, &definitions).0);
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(PROTOBUF));
    answer
}

/// How lists and unions of built-in kinds merge: by schema and field, the key and the strategy.
fn merges(store: &Store) -> BTreeMap<(String, String), (Option<&'static str>, &'static str)> {
    let mut found = BTreeMap::new();
    let resources = store.collections.values().map(|collection| &collection.resource);
    for resource in resources.filter(|resource| !resource.custom) {
        for version in &resource.versions {
            let api_version = resource.api_version(&version.name);
            if let Some(message) = Schema::kubernetes().name_of(&api_version, &resource.kind) {
                walk(&message, &message, Cursor::built_in(&resource.group_kind()), &mut found);
            }
        }
    }
    for (schema, field, strategy) in UNIONS {
        found.entry((schema.to_owned(), field.to_owned())).or_insert((None, strategy)).1 = strategy;
    }
    found
}

fn walk(
    owner: &str,
    message: &str,
    at: Cursor<'static>,
    found: &mut BTreeMap<(String, String), (Option<&'static str>, &'static str)>,
) {
    let Some(fields) = Schema::kubernetes().message(message).map(|message| message.fields.values()) else {
        return;
    };
    for field in fields {
        if let (Presence::Inline, Kind::Message(embedded)) = (field.presence, &field.kind) {
            walk(owner, embedded, at, found);
            continue;
        }
        let here = at.field(&field.name);
        if matches!(here, Cursor::Unlisted) {
            continue;
        }
        let merge = match here.merge() {
            Merge::Default => None,
            Merge::ByKey(key) => Some((Some(key), "merge")),
            Merge::Scalars => Some((None, "merge")),
            Merge::Replace => Some((None, "replace")),
        };
        if let Some(merge) = merge {
            found.insert((schema_name(owner), field.name.clone()), merge);
        }
        if let Kind::Message(of) = &field.kind {
            let next = if field.presence == Presence::Repeated { here.items() } else { here };
            walk(of, of, next, found);
        }
    }
}

/// A schema of version 3 as one of version 2, which knows less: what it cannot say may be anything.
fn definition(schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return json!({"$ref": reference.replace("#/components/schemas/", "#/definitions/")});
    }
    let mut made = json!({});
    let anything =
        [PRESERVE, "nullable", "x-kubernetes-int-or-string"].iter().any(|flag| schema[*flag] == true);
    let kept: &[&str] =
        if anything { &["description"] } else { &["description", "type", "format", "required", "enum"] };
    for field in kept {
        if let Some(value) = schema.get(*field) {
            made[*field] = value.clone();
        }
    }
    if anything {
        return made;
    }
    // A quantity, or a number or text.
    if schema["type"].is_null() && schema["oneOf"].is_array() {
        made["type"] = json!("string");
    }
    if let Some(items) = schema.get("items") {
        made["items"] = definition(items);
    }
    match schema.get("additionalProperties") {
        Some(values @ Value::Object(_)) => made["additionalProperties"] = definition(values),
        Some(flag @ Value::Bool(_)) => made["additionalProperties"] = flag.clone(),
        _ => {}
    }
    if let Some(properties) = schema["properties"].as_object() {
        let properties = properties.iter().map(|(name, schema)| (name.clone(), definition(schema)));
        made["properties"] = Value::Object(properties.collect());
    }
    if let Some(kinds) = schema.get(GROUP_VERSION_KIND) {
        made[GROUP_VERSION_KIND] = kinds.clone();
    }
    made
}

const METHODS: [(&str, u32); 5] = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)];

fn path_item(item: &Value) -> Value {
    let methods = METHODS.iter().filter_map(|(method, _)| Some((*method, item.get(*method)?)));
    let operation = |operation: &Value| {
        let parameters: Vec<Value> = query_parameters(operation)
            .map(|name| json!({"name": name, "in": "query", "type": "string"}))
            .collect();
        json!({"parameters": parameters, "responses": {"200": {"description": "OK"}},
               GROUP_VERSION_KIND: operation[GROUP_VERSION_KIND]})
    };
    Value::Object(methods.map(|(method, found)| (method.to_owned(), operation(found))).collect())
}

fn query_parameters(operation: &Value) -> impl Iterator<Item = &str> {
    operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|parameter| parameter["name"].as_str())
}

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.number(u64::from(field) << 3 | 2);
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(mut self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes());
        self
    }

    fn nested(mut self, field: u32, message: &Message) -> Self {
        self.bytes(field, &message.0);
        self
    }

    fn flag(mut self, field: u32, flag: bool) -> Self {
        self.number(u64::from(field) << 3);
        self.number(u64::from(flag));
        self
    }

    /// A named value, as YAML, which JSON is.
    fn extension(self, field: u32, name: &str, value: &Value) -> Self {
        self.nested(field, &Message::default().text(1, name).nested(2, &any(value)))
    }
}

fn any(value: &Value) -> Message {
    Message::default().text(2, &value.to_string())
}

fn document(paths: &BTreeMap<String, Value>, definitions: &BTreeMap<String, Value>) -> Message {
    let info = Message::default().text(1, "Kubernetes").text(2, crate::discovery::GIT_VERSION);
    let mut items = Message::default();
    for (path, item) in paths {
        let mut encoded = Message::default();
        for (method, number) in METHODS {
            if let Some(operation) = item.get(method) {
                encoded = encoded.nested(number, &encode_operation(operation));
            }
        }
        items = items.nested(2, &Message::default().text(1, path).nested(2, &encoded));
    }
    let mut schemas = Message::default();
    for (name, schema) in definitions {
        schemas = schemas.nested(1, &Message::default().text(1, name).nested(2, &encode_schema(schema)));
    }
    Message::default().text(1, "2.0").nested(2, &info).nested(8, &items).nested(9, &schemas)
}

fn encode_operation(operation: &Value) -> Message {
    let mut encoded = Message::default();
    for name in query_parameters(operation) {
        let query = Message::default().text(2, "query").text(4, name).text(6, "string");
        let parameter = Message::default().nested(2, &Message::default().nested(3, &query));
        encoded = encoded.nested(8, &Message::default().nested(1, &parameter));
    }
    encoded.extension(13, GROUP_VERSION_KIND, &operation[GROUP_VERSION_KIND])
}

fn encode_schema(schema: &Value) -> Message {
    let mut encoded = Message::default();
    for (field, number) in [("$ref", 1), ("format", 2), ("description", 4)] {
        if let Some(text) = schema[field].as_str() {
            encoded = encoded.text(number, text);
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        encoded = encoded.text(19, name);
    }
    for value in schema["enum"].as_array().into_iter().flatten() {
        encoded = encoded.nested(20, &any(value));
    }
    match &schema["additionalProperties"] {
        Value::Bool(flag) => encoded = encoded.nested(21, &Message::default().flag(2, *flag)),
        values @ Value::Object(_) => {
            encoded = encoded.nested(21, &Message::default().nested(1, &encode_schema(values)));
        }
        _ => {}
    }
    if let Some(kind) = schema["type"].as_str() {
        encoded = encoded.nested(22, &Message::default().text(1, kind));
    }
    if schema["items"].is_object() {
        encoded = encoded.nested(23, &Message::default().nested(1, &encode_schema(&schema["items"])));
    }
    if let Some(properties) = schema["properties"].as_object() {
        let mut all = Message::default();
        for (name, schema) in properties {
            all = all.nested(1, &Message::default().text(1, name).nested(2, &encode_schema(schema)));
        }
        encoded = encoded.nested(25, &all);
    }
    for name in [GROUP_VERSION_KIND, STRATEGY, MERGE_KEY] {
        if let Some(value) = schema.get(name) {
            encoded = encoded.extension(31, name, value);
        }
    }
    encoded
}
