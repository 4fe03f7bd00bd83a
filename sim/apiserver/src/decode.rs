//! Checks that an object of a built-in kind has the fields and types of its Go struct, and drops the fields it has not.

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v2 as autoscaling,
    batch::v1 as batch, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
    storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use serde_json::Value;

/// An object without its unknown fields, and the paths of those.
pub(crate) struct Decoded {
    pub object: Value,
    pub unknown: Vec<String>,
}

macro_rules! kinds {
    ($($group_kind:literal => $kind:ty,)*) => {
        fn round_trip(group_kind: &str, object: &Value) -> Option<Result<Value, String>> {
            match group_kind {
                $($group_kind => Some(through::<$kind>(object)),)*
                _ => None,
            }
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

fn through<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<Value, String> {
    let typed = K::deserialize(object).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// The path of the field that keeps an object from decoding: the one without which the error goes away. Asked only when
/// decoding has failed, so that a decoder that keeps track of paths need not be compiled for every kind.
fn culprit(group_kind: &str, object: &Value) -> String {
    let (mut pointer, mut path) = (String::new(), String::new());
    loop {
        let Some(here) = object.pointer(&pointer) else { return path };
        let children: Vec<String> = match here {
            Value::Object(fields) => fields.keys().cloned().collect(),
            Value::Array(items) => (0..items.len()).map(|index| index.to_string()).collect(),
            _ => return path,
        };
        let is_list = here.is_array();
        let is_guilty = |child: &String| {
            let child = format!("{pointer}/{}", child.replace('~', "~0").replace('/', "~1"));
            let mut without = object.clone();
            // An item of a list cannot be left out without shifting the others: an empty one stands in for it.
            let stand_in = match without.pointer(&child) {
                Some(Value::Object(_)) if is_list => Value::Object(serde_json::Map::new()),
                Some(Value::String(_)) if is_list => Value::from(0),
                _ => Value::Null,
            };
            if let Some(value) = without.pointer_mut(&child) {
                *value = stand_in;
            }
            matches!(round_trip(group_kind, &without), Some(Ok(_)))
        };
        let Some(child) = children.into_iter().find(is_guilty) else { return path };
        if is_list {
            path.push_str(&format!("[{child}]"));
        } else {
            path.push_str(&format!("{}{child}", if path.is_empty() { "" } else { "." }));
        }
        pointer = format!("{pointer}/{}", child.replace('~', "~0").replace('/', "~1"));
    }
}

/// Decodes an object of a built-in kind.
///
/// # Errors
/// The field whose type is wrong, and what was found there.
pub(crate) fn decode(group_kind: &str, object: &Value) -> Result<Decoded, String> {
    match round_trip(group_kind, object) {
        None => Ok(Decoded { object: object.clone(), unknown: Vec::new() }),
        Some(Err(error)) => match culprit(group_kind, object).as_str() {
            "" => Err(error),
            path => Err(format!("{path}: {error}")),
        },
        Some(Ok(decoded)) => {
            let mut unknown = Vec::new();
            missing(object, &decoded, "", &mut unknown);
            Ok(Decoded { object: decoded, unknown })
        }
    }
}

/// Collects the paths of `given` that decoding lost. Nulls and empty values may go: Go's encoder drops them too.
fn missing(given: &Value, decoded: &Value, path: &str, lost: &mut Vec<String>) {
    match (given, decoded) {
        (Value::Object(given), Value::Object(decoded)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match decoded.get(name) {
                    Some(decoded) => missing(value, decoded, &path, lost),
                    None if is_empty(value) => {}
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(decoded)) => {
            for (index, (given, decoded)) in given.iter().zip(decoded).enumerate() {
                missing(given, decoded, &format!("{path}[{index}]"), lost);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
