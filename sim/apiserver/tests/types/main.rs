//! The table of structs is that of the Rust types, and reading by it is reading as them. `BLESS=1 cargo test -p apiserver --test types` writes it.

#[path = "../../src/decode/mod.rs"]
mod decode;
mod trace;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v2 as autoscaling,
    batch::v1 as batch, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
    storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use serde_json::{Value, json};
use trace::{Struct, Trace};

/// Reads and writes an object as its type.
fn through<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<Value, String> {
    let typed = K::deserialize(object).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(typed).expect("plain data"))
}

type Through = fn(&Value) -> Result<Value, String>;
type Kinds = Vec<(&'static str, BTreeMap<String, Struct>, Through)>;

macro_rules! kinds {
    ($($group_kind:literal => $kind:ty,)*) => {
        fn kinds() -> Kinds {
            vec![$(($group_kind, Trace::of::<$kind>(), through::<$kind>)),*]
        }
    };
}

kinds! {
    "/ConfigMap" => core::ConfigMap,
    "/Endpoints" => core::Endpoints,
    "/Event" => core::Event,
    "/LimitRange" => core::LimitRange,
    "/Namespace" => core::Namespace,
    "/Node" => core::Node,
    "/PersistentVolume" => core::PersistentVolume,
    "/PersistentVolumeClaim" => core::PersistentVolumeClaim,
    "/Pod" => core::Pod,
    "/ReplicationController" => core::ReplicationController,
    "/ResourceQuota" => core::ResourceQuota,
    "/Secret" => core::Secret,
    "/Service" => core::Service,
    "/ServiceAccount" => core::ServiceAccount,
    "admissionregistration.k8s.io/MutatingWebhookConfiguration" => admission::MutatingWebhookConfiguration,
    "admissionregistration.k8s.io/ValidatingWebhookConfiguration" => admission::ValidatingWebhookConfiguration,
    "apiextensions.k8s.io/CustomResourceDefinition" => apiextensions::CustomResourceDefinition,
    "apps/ControllerRevision" => apps::ControllerRevision,
    "apps/DaemonSet" => apps::DaemonSet,
    "apps/Deployment" => apps::Deployment,
    "apps/ReplicaSet" => apps::ReplicaSet,
    "apps/StatefulSet" => apps::StatefulSet,
    "autoscaling/HorizontalPodAutoscaler" => autoscaling::HorizontalPodAutoscaler,
    "batch/CronJob" => batch::CronJob,
    "batch/Job" => batch::Job,
    "coordination.k8s.io/Lease" => coordination::Lease,
    "discovery.k8s.io/EndpointSlice" => discovery::EndpointSlice,
    "networking.k8s.io/Ingress" => networking::Ingress,
    "networking.k8s.io/IngressClass" => networking::IngressClass,
    "networking.k8s.io/NetworkPolicy" => networking::NetworkPolicy,
    "policy/PodDisruptionBudget" => policy::PodDisruptionBudget,
    "rbac.authorization.k8s.io/ClusterRole" => rbac::ClusterRole,
    "rbac.authorization.k8s.io/ClusterRoleBinding" => rbac::ClusterRoleBinding,
    "rbac.authorization.k8s.io/Role" => rbac::Role,
    "rbac.authorization.k8s.io/RoleBinding" => rbac::RoleBinding,
    "scheduling.k8s.io/PriorityClass" => scheduling::PriorityClass,
    "storage.k8s.io/StorageClass" => storage::StorageClass,
}

/// The struct at the path after reading and writing an object that has nothing but what must be there, and the names of
/// the struct's fields that must be there. Those are times, as they have no zero.
fn written(through: Through, path: &[String]) -> (Value, Vec<String>) {
    let mut needed = Vec::new();
    let object = loop {
        let inner: Value =
            needed.iter().map(|name: &String| (name.clone(), json!("2020-03-17T11:00:00Z"))).collect();
        let object = path.iter().rev().fold(inner, |inner, step| match step.as_str() {
            "[]" => json!([inner]),
            "{}" => json!({"key": inner}),
            field => json!({field: inner}),
        });
        match through(&object) {
            Ok(object) => break object,
            Err(error) => {
                let name = error.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
                needed.push(name.unwrap_or_else(|| panic!("{path:?}: {error}")).to_owned());
            }
        }
    };
    let found = path.iter().fold(&object, |at, step| match step.as_str() {
        "[]" => &at[0],
        "{}" => &at["key"],
        field => &at[field],
    });
    (found.clone(), needed)
}

fn table() -> String {
    let mut text = "# The Go structs of the built-in kinds: see types.rs. Made by `BLESS=1 cargo test -p apiserver --test types`.\n".to_owned();
    let mut structs: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (group_kind, found, through) in kinds() {
        let kind = group_kind.rsplit('/').next().unwrap_or_default();
        let _ = writeln!(text, "kind {group_kind} {kind}");
        let mut own: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (name, Struct { path, fields }) in found {
            let (always, needed) = written(through, &path);
            let lines = fields.into_iter().map(|(field, shape)| {
                // What names the type of a whole object, the server sets itself.
                let is_type = matches!(field.as_str(), "apiVersion" | "kind") && always["kind"] == *name;
                let mark = match always.get(&field) {
                    Some(_) if needed.contains(&field) => "+",
                    Some(_) if !is_type => "!",
                    _ => "",
                };
                (format!("{field}{mark}"), shape)
            });
            let lines = lines.collect();
            own.insert(name, lines);
        }
        // Two groups may have structs of one name.
        let differs = |name: &String| structs.get(name).is_some_and(|other| *other != own[name]);
        let renamed: Vec<String> = own.keys().filter(|name| differs(name)).cloned().collect();
        for (name, mut fields) in own {
            for shape in fields.values_mut() {
                let of = shape.trim_start_matches("[]").trim_start_matches("{}").to_owned();
                if renamed.contains(&of) {
                    *shape = shape.replace(&of, &format!("{kind}.{of}"));
                }
            }
            let name = if renamed.contains(&name) { format!("{kind}.{name}") } else { name };
            if let Some(other) = structs.insert(name.clone(), fields.clone()) {
                assert_eq!(other, fields, "two structs are called {name}");
            }
        }
    }
    for (name, fields) in structs {
        let _ = writeln!(text, "struct {name}");
        for (field, shape) in fields {
            let _ = writeln!(text, "  {field} {shape}");
        }
    }
    text
}

#[test]
fn the_table_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/decode/types.txt");
    let table = table();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &table).expect("the table is written");
    }
    let kept = std::fs::read_to_string(&path).expect("the table");
    let differs = kept.lines().zip(table.lines()).find(|(kept, made)| kept != made);
    assert_eq!(differs, None, "types.txt is out of date: run with BLESS=1");
    assert_eq!(kept.len(), table.len(), "types.txt is out of date: run with BLESS=1");
}

/// A value of a shape, with every field of every struct once.
fn sample(structs: &BTreeMap<String, Struct>, shape: &str, open: &mut Vec<String>) -> Value {
    if let Some(of) = shape.strip_prefix("[]") {
        return json!([sample(structs, of, open)]);
    }
    if let Some(of) = shape.strip_prefix("{}") {
        return json!({"key": sample(structs, of, open)});
    }
    match shape {
        "bool" | "JSONSchemaPropsOrBool" => json!(true),
        "i32" | "i64" | "IntOrString" => json!(7),
        "f64" => json!(7),
        "ByteString" => json!("YQ=="),
        "Quantity" => json!("250m"),
        "MicroTime" => json!("2020-03-17T11:00:00.5Z"),
        "Time" => json!("2020-03-17T12:00:00.5+01:00"),
        "JSON" | "RawExtension" | "FieldsV1" => json!({"any": [null, 1]}),
        "JSONSchemaPropsOrStringArray" => json!(["a"]),
        "JSONSchemaPropsOrArray" => json!([{"type": "string"}]),
        _ if open.iter().any(|name| name == shape) => json!({}),
        _ => match structs.get(shape) {
            None => json!("text"),
            Some(Struct { fields, .. }) => {
                open.push(shape.to_owned());
                let fields: serde_json::Map<String, Value> = fields
                    .iter()
                    .filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind"))
                    .map(|(name, shape)| (name.clone(), sample(structs, shape, open)))
                    .collect();
                open.pop();
                Value::Object(fields)
            }
        },
    }
}

/// Without what names the types of whole objects, which reading as a type writes.
fn without_types(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            let is_whole = fields.contains_key("metadata");
            fields.retain(|name, _| !(is_whole && matches!(name.as_str(), "apiVersion" | "kind")));
            for field in fields.values_mut() {
                *field = without_types(field.take());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_types(item.take())),
        _ => {}
    }
    value
}

#[test]
fn reading_by_the_table_is_reading_as_the_type() {
    for (group_kind, structs, through) in kinds() {
        let kind = group_kind.rsplit('/').next().unwrap_or_default();
        let full = sample(&structs, kind, &mut Vec::new());
        for object in [json!({}), json!({"metadata": null}), full.clone()] {
            let mut decoded = tree::Value::from(&object);
            let unknown = decode::decode(group_kind, &mut decoded, tree::Value::NULL);
            let unknown = unknown.unwrap_or_else(|error| panic!("{group_kind}: {error}"));
            assert_eq!(unknown, Vec::<String>::new(), "{group_kind}");
            let typed = through(&object).unwrap_or_else(|error| panic!("{group_kind}: {error}"));
            assert_eq!(without_types((&decoded).into()), without_types(typed), "{group_kind}");
        }
        // What a type refuses, the table refuses, and says where.
        let mut pointers = Vec::new();
        leaves(&full, "", &mut pointers);
        // Pods' specs in templates are of the type that Pods have, and the sample has shown that they are read. So one
        // kind stands for all that have templates.
        if kind != "Deployment" {
            pointers.retain(|pointer| !pointer.contains("template/spec/"));
        }
        for pointer in pointers {
            let mut object = full.clone();
            for wrong in
                [json!([[]]), json!({"a": {"b": 1}}), json!(1.5), json!("two words"), json!(u64::MAX)]
            {
                *object.pointer_mut(&pointer).expect("a leaf") = wrong.clone();
                let (decoded, typed) =
                    (decode::decode(group_kind, &mut (&object).into(), tree::Value::NULL), through(&object));
                let place = format!("{group_kind} {pointer}: {wrong}: {:?}", typed.as_ref().err());
                assert_eq!(decoded.is_ok(), typed.is_ok(), "{place}");
                if let Err(error) = decoded {
                    assert!(error.contains(": "), "{place}: {error}");
                }
            }
        }
    }
}

/// The pointers of everything that is neither an object nor a list.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| leaves(value, &format!("{at}/{index}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}
