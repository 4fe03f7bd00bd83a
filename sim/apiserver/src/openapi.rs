//! OpenAPI documents: what `kubectl apply` checks with and `kubectl explain` prints.
//!
//! Version 3 has a document per group and version: the built-in kinds' schemas are made from their messages (see
//! [`crate::protobuf`]), custom ones are those of their definitions. Version 2 is made from it: [`crate::openapi_v2`].

use std::collections::{BTreeMap, BTreeSet};

use tree::{Map, Value, json};

use crate::protobuf::schema::{Kind, Presence, Schema};
use crate::resource::{Resource, Version};
use crate::store::Store;

pub(crate) const GROUP_VERSION_KIND: &str = "x-kubernetes-group-version-kind";
const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// `/openapi/v3`: the documents' addresses. Their hashes change with their content.
pub(crate) fn v3_index(store: &Store) -> Value {
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for resource in store.collections.values().map(|collection| &collection.resource) {
        for version in resource.versions.iter().filter(|version| version.served) {
            let (group, version) = resource.served_as(version);
            let path = path_of(group, version);
            let hash = hash(store, &resource.group);
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// `/openapi/v3/PATH`; `None` for an unknown group or version.
pub(crate) fn v3(store: &Store, path: &[&str]) -> Option<Value> {
    let (group, version) = match path {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return None,
    };
    let mut document = Document::default();
    for resource in store.collections.values().map(|collection| &collection.resource) {
        if let Some(version) = resource.serving(group, version) {
            document.add(store, resource, version);
        }
    }
    (!document.paths.is_empty()).then(|| document.finish())
}

/// Paths and schemas of everything that is served.
pub(crate) fn all(store: &Store) -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
    let mut document = Document::default();
    for resource in store.collections.values().map(|collection| &collection.resource) {
        for version in resource.versions.iter().filter(|version| version.served) {
            document.add(store, resource, version);
        }
    }
    (document.paths, document.schemas)
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Built-in groups never change; a custom one changes with its definitions.
fn hash(store: &Store, group: &str) -> String {
    let definitions = store.collection(DEFINITIONS).into_iter().flat_map(|found| found.objects.values());
    let newest = definitions
        .filter(|stored| stored.value["spec"]["group"] == group)
        .filter_map(|stored| stored.value["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok())
        .max();
    format!("{:016X}", newest.unwrap_or(0))
}

#[derive(Default)]
struct Document {
    paths: BTreeMap<String, Value>,
    schemas: BTreeMap<String, Value>,
    /// Messages that a schema refers to and that have none yet.
    open: BTreeSet<String>,
}

impl Document {
    fn add(&mut self, store: &Store, resource: &Resource, version: &Version) {
        let (group, proper) = resource.served_as(version);
        let identity = json!({"group": group, "version": proper, "kind": resource.kind});
        let prefix = format!("/{}", path_of(group, proper));
        let collection = if resource.namespaced {
            format!("{prefix}/namespaces/{{namespace}}/{}", resource.plural)
        } else {
            format!("{prefix}/{}", resource.plural)
        };
        let name = self.schema(store, resource, version, &identity);
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        self.paths.insert(collection.clone(), collection_operations(&identity, &reference));
        self.paths.insert(format!("{collection}/{{name}}"), operations(&identity, &reference, resource));
    }

    /// Adds the kind's schema and returns its name.
    fn schema(&mut self, store: &Store, resource: &Resource, version: &Version, identity: &Value) -> String {
        if !resource.custom {
            let api_version = resource.api_version(&version.name);
            if let Some(message) = Schema::kubernetes().name_of(&api_version, &resource.kind) {
                self.refer(&message);
                self.close();
                let name = schema_name(&message);
                if let Some(schema) = self.schemas.get_mut(&name) {
                    for field in ["apiVersion", "kind"] {
                        schema["properties"][field] = json!({"type": "string"});
                    }
                    schema[GROUP_VERSION_KIND] = json!([identity]);
                }
                return name;
            }
        }
        let reversed: Vec<&str> = resource.group.rsplit('.').collect();
        let name = format!("{}.{}.{}", reversed.join("."), version.name, resource.kind);
        let mut schema = definition_schema(store, resource, &version.name)
            .unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
        for field in ["apiVersion", "kind"] {
            schema["properties"][field] = json!({"type": "string"});
        }
        let metadata = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        schema["properties"]["metadata"] = self.reference(metadata);
        schema[GROUP_VERSION_KIND] = json!([identity]);
        self.close();
        self.schemas.insert(name.clone(), schema);
        name
    }

    fn refer(&mut self, message: &str) {
        if !self.schemas.contains_key(&schema_name(message)) {
            self.open.insert(message.to_owned());
        }
    }

    fn reference(&mut self, message: &str) -> Value {
        self.refer(message);
        json!({"$ref": format!("#/components/schemas/{}", schema_name(message))})
    }

    fn close(&mut self) {
        while let Some(message) = self.open.pop_first() {
            let schema = self.message(&message);
            self.schemas.insert(schema_name(&message), schema);
        }
    }

    fn message(&mut self, name: &str) -> Value {
        if let Some(special) = special(name) {
            return special;
        }
        let mut properties = Map::new();
        self.properties(name, &mut properties);
        json!({"type": "object", "properties": properties})
    }

    fn properties(&mut self, name: &str, properties: &mut tree::Map) {
        let Some(message) = Schema::kubernetes().message(name) else { return };
        for field in message.fields.values() {
            if let (Presence::Inline, Kind::Message(embedded)) = (field.presence, &field.kind) {
                self.properties(embedded, properties);
                continue;
            }
            let of = self.kind(&field.kind);
            let schema = match field.presence {
                Presence::Repeated => json!({"type": "array", "items": of}),
                _ => of,
            };
            properties.insert(field.name.clone(), schema);
        }
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Message(name) => self.reference(name),
            Kind::Map(values) => json!({"type": "object", "additionalProperties": self.kind(values)}),
            Kind::Scalar(scalar) => match scalar.as_str() {
                "bool" => json!({"type": "boolean"}),
                "bytes" => json!({"type": "string", "format": "byte"}),
                "double" => json!({"type": "number", "format": "double"}),
                "int32" | "int64" => json!({"type": "integer", "format": scalar}),
                _ => json!({"type": "string"}),
            },
        }
    }

    fn finish(self) -> Value {
        json!({"openapi": "3.0.0",
               "info": {"title": "Kubernetes", "version": crate::discovery::GIT_VERSION},
               "paths": self.paths, "components": {"schemas": self.schemas}})
    }
}

/// `k8s.io.api.apps.v1.Deployment` as OpenAPI documents name it: `io.k8s.api.apps.v1.Deployment`.
pub(crate) fn schema_name(message: &str) -> String {
    match message.strip_prefix("k8s.io.") {
        Some(rest) => format!("io.k8s.{rest}"),
        None => message.to_owned(),
    }
}

/// Messages whose JSON is not an object of their fields.
fn special(message: &str) -> Option<Value> {
    Some(match message.rsplit('.').next()? {
        "Time" | "MicroTime" if message.contains(".meta.v1.") => {
            json!({"type": "string", "format": "date-time"})
        }
        "Quantity" => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        "IntOrString" => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        "FieldsV1" | "RawExtension" => json!({"type": "object"}),
        "Verbs" | "ExtraValue" => json!({"type": "array", "items": {"type": "string"}}),
        "JSON" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => {
            json!({})
        }
        _ => return None,
    })
}

fn definition_schema(store: &Store, resource: &Resource, version: &str) -> Option<Value> {
    let definition =
        store.collection(DEFINITIONS)?.objects.get(&(String::new(), resource.qualified.to_string()))?;
    let versions = definition.value["spec"]["versions"].as_array()?;
    let found = versions.iter().find(|found| found["name"] == version)?;
    let schema = &found["schema"]["openAPIV3Schema"];
    schema.is_object().then(|| schema.clone())
}

fn parameter(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
}

fn operation(action: &str, identity: &Value, reference: &Value, parameters: &[&str]) -> Value {
    let parameters: Vec<Value> = parameters.iter().map(|name| parameter(name)).collect();
    json!({"parameters": parameters, "x-kubernetes-action": action, GROUP_VERSION_KIND: identity,
           "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}}})
}

const WRITE_PARAMETERS: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];

fn collection_operations(identity: &Value, reference: &Value) -> Value {
    let mut create = operation("post", identity, reference, &WRITE_PARAMETERS);
    create["requestBody"] = json!({"content": {"application/json": {"schema": reference}}});
    json!({"get": operation("list", identity, reference, &["labelSelector", "fieldSelector", "limit", "continue"]),
           "post": create})
}

fn operations(identity: &Value, reference: &Value, resource: &Resource) -> Value {
    let mut replace = operation("put", identity, reference, &WRITE_PARAMETERS);
    replace["requestBody"] = json!({"content": {"application/json": {"schema": reference}}});
    let mut patch =
        operation("patch", identity, reference, &["dryRun", "fieldManager", "fieldValidation", "force"]);
    // Strategic merge patches are not named: clients then compute them from the types that they know themselves,
    // which these schemas, without merge keys, could not replace.
    let mut content = json!({});
    for media in
        ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]
    {
        content[media] = json!({"schema": {"type": "object"}});
    }
    patch["requestBody"] = json!({"content": content});
    let parameters = if resource.namespaced { &["name", "namespace"][..] } else { &["name"] };
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    json!({"get": operation("get", identity, reference, &[]), "put": replace, "patch": patch,
           "delete": operation("delete", identity, reference, &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
           "parameters": parameters})
}
