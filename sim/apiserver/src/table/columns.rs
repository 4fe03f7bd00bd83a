//! The columns of the built-in kinds that [`super::Printer::built_in`] does not list itself.

use jiff::Timestamp;
use tree::{Value, json};

use super::{Cell, Printer, age, container_fields, number, or_none, pairs};
use crate::jsonpath::text_of;

/// Adds the columns after the name; a kind without columns of its own shows its age.
pub(super) fn add(printer: &mut Printer, group_kind: &str) {
    let age_column: Cell = |object, now| json!(age(&object["metadata"]["creationTimestamp"], now));
    let created: Cell = |object, _| object["metadata"]["creationTimestamp"].clone();
    match group_kind {
        "/ServiceAccount" => {
            printer.add("Secrets", "", 0, |account, _| json!(length(&account["secrets"]).to_string()));
            printer.add("Age", "", 0, age_column);
        }
        "/PersistentVolumeClaim" => {
            printer.add("Status", "", 0, |claim, _| claim["status"]["phase"].clone());
            printer.add("Volume", "", 0, |claim, _| json!(text_of(&claim["spec"]["volumeName"])));
            printer
                .add("Capacity", "", 0, |claim, _| json!(text_of(&claim["status"]["capacity"]["storage"])));
            printer
                .add("Access Modes", "", 0, |claim, _| json!(access_modes(&claim["status"]["accessModes"])));
            printer.add("StorageClass", "", 0, |claim, _| json!(text_of(&claim["spec"]["storageClassName"])));
            printer.add("VolumeAttributesClass", "", 0, |_, _| json!("<unset>"));
            printer.add("Age", "", 0, age_column);
            printer.add("VolumeMode", "", 1, |claim, _| claim["spec"]["volumeMode"].clone());
        }
        "/PersistentVolume" => {
            printer
                .add("Capacity", "", 0, |volume, _| json!(text_of(&volume["spec"]["capacity"]["storage"])));
            printer
                .add("Access Modes", "", 0, |volume, _| json!(access_modes(&volume["spec"]["accessModes"])));
            printer.add("Reclaim Policy", "", 0, |volume, _| {
                volume["spec"]["persistentVolumeReclaimPolicy"].clone()
            });
            printer.add("Status", "", 0, |volume, _| volume["status"]["phase"].clone());
            printer.add("Claim", "", 0, |volume, _| {
                let claim = &volume["spec"]["claimRef"];
                let name = || format!("{}/{}", text_of(&claim["namespace"]), text_of(&claim["name"]));
                json!(if claim.is_null() { String::new() } else { name() })
            });
            printer
                .add("StorageClass", "", 0, |volume, _| json!(text_of(&volume["spec"]["storageClassName"])));
            printer.add("VolumeAttributesClass", "", 0, |_, _| json!("<unset>"));
            printer.add("Reason", "", 0, |volume, _| json!(text_of(&volume["status"]["reason"])));
            printer.add("Age", "", 0, age_column);
            printer.add("VolumeMode", "", 1, |volume, _| volume["spec"]["volumeMode"].clone());
        }
        "/ResourceQuota" => {
            printer.add("Request", "", 0, |quota, _| {
                json!(quota_part(quota, |name| !name.starts_with("limits.")))
            });
            printer
                .add("Limit", "", 0, |quota, _| json!(quota_part(quota, |name| name.starts_with("limits."))));
            printer.add("Age", "", 0, age_column);
        }
        "/LimitRange" | "rbac.authorization.k8s.io/Role" | "rbac.authorization.k8s.io/ClusterRole" => {
            printer.add("Created At", "", 0, created);
        }
        "rbac.authorization.k8s.io/RoleBinding" | "rbac.authorization.k8s.io/ClusterRoleBinding" => {
            printer.add("Role", "", 0, |binding, _| {
                let role = &binding["roleRef"];
                json!(format!("{}/{}", text_of(&role["kind"]), text_of(&role["name"])))
            });
            printer.add("Age", "", 0, age_column);
            printer.add("Users", "", 1, |binding, _| json!(subjects(binding, "User")));
            printer.add("Groups", "", 1, |binding, _| json!(subjects(binding, "Group")));
            printer.add("ServiceAccounts", "", 1, |binding, _| json!(subjects(binding, "ServiceAccount")));
        }
        "batch/Job" => {
            printer.add("Status", "", 0, |job, _| json!(job_status(job)));
            printer.add("Completions", "", 0, |job, _| json!(completions(job)));
            printer.add("Duration", "", 0, |job, now| json!(duration(job, now)));
            printer.add("Age", "", 0, age_column);
            printer.wide_workload();
        }
        "batch/CronJob" => {
            printer.add("Schedule", "", 0, |job, _| job["spec"]["schedule"].clone());
            printer.add("Timezone", "", 0, |job, _| or_none(&job["spec"]["timeZone"]));
            printer.add("Suspend", "", 0, |job, _| {
                json!(if job["spec"]["suspend"] == true { "True" } else { "False" })
            });
            printer.add("Active", "", 0, |job, _| json!(length(&job["status"]["active"])));
            printer.add("Last Schedule", "", 0, |job, now| match &job["status"]["lastScheduleTime"] {
                Value::Null => json!("<none>"),
                at => json!(age(at, now)),
            });
            printer.add("Age", "", 0, age_column);
            printer.add("Containers", "", 1, |job, _| {
                json!(container_fields(&job["spec"]["jobTemplate"], "name"))
            });
            printer
                .add("Images", "", 1, |job, _| json!(container_fields(&job["spec"]["jobTemplate"], "image")));
            printer.add("Selector", "", 1, |job, _| {
                pairs(&job["spec"]["jobTemplate"]["spec"]["selector"]["matchLabels"])
            });
        }
        "coordination.k8s.io/Lease" => {
            printer.add("Holder", "", 0, |lease, _| json!(text_of(&lease["spec"]["holderIdentity"])));
            printer.add("Age", "", 0, age_column);
        }
        "discovery.k8s.io/EndpointSlice" => {
            printer.add("AddressType", "", 0, |slice, _| slice["addressType"].clone());
            printer.add("Ports", "", 0, |slice, _| {
                json!(listed(&slice["ports"], |port| text_of(&port["port"])))
            });
            printer.add("Endpoints", "", 0, |slice, _| {
                json!(listed(&slice["endpoints"], |endpoint| text_of(&endpoint["addresses"][0])))
            });
            printer.add("Age", "", 0, age_column);
        }
        "networking.k8s.io/Ingress" => {
            printer.add("Class", "", 0, |ingress, _| or_none(&ingress["spec"]["ingressClassName"]));
            printer.add("Hosts", "", 0, |ingress, _| {
                let hosts = listed(&ingress["spec"]["rules"], |rule| text_of(&rule["host"]));
                json!(if hosts == "<unset>" { "*" } else { &hosts })
            });
            printer.add("Address", "", 0, |ingress, _| {
                let addresses = ingress["status"]["loadBalancer"]["ingress"].as_array();
                let ips: Vec<String> =
                    addresses.into_iter().flatten().map(|address| text_of(&address["ip"])).collect();
                json!(ips.join(","))
            });
            printer.add("Ports", "", 0, |ingress, _| {
                json!(if length(&ingress["spec"]["tls"]) > 0 { "80, 443" } else { "80" })
            });
            printer.add("Age", "", 0, age_column);
        }
        "networking.k8s.io/IngressClass" => {
            printer.add("Controller", "", 0, |class, _| class["spec"]["controller"].clone());
            printer.add("Parameters", "", 0, |class, _| or_none(&class["spec"]["parameters"]["name"]));
            printer.add("Age", "", 0, age_column);
        }
        "networking.k8s.io/NetworkPolicy" => {
            printer
                .add("Pod-Selector", "", 0, |policy, _| pairs(&policy["spec"]["podSelector"]["matchLabels"]));
            printer.add("Age", "", 0, age_column);
        }
        "policy/PodDisruptionBudget" => {
            printer
                .add("Min Available", "", 0, |budget, _| or_not_applicable(&budget["spec"]["minAvailable"]));
            printer.add("Max Unavailable", "", 0, |budget, _| {
                or_not_applicable(&budget["spec"]["maxUnavailable"])
            });
            printer.add("Allowed Disruptions", "", 0, |budget, _| {
                json!(number(&budget["status"]["disruptionsAllowed"]))
            });
            printer.add("Age", "", 0, age_column);
        }
        "apps/ControllerRevision" => {
            printer.add("Controller", "", 0, |revision, _| {
                let owners = revision["metadata"]["ownerReferences"].as_array();
                let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
                json!(owner.map_or_else(
                    || "<none>".to_owned(),
                    |owner| format!("{}/{}", text_of(&owner["kind"]).to_lowercase(), text_of(&owner["name"]))
                ))
            });
            printer.add("Revision", "", 0, |revision, _| json!(number(&revision["revision"])));
            printer.add("Age", "", 0, age_column);
        }
        "scheduling.k8s.io/PriorityClass" => {
            printer.add("Value", "", 0, |class, _| json!(number(&class["value"])));
            printer.add("Global-Default", "", 0, |class, _| json!(class["globalDefault"] == true));
            printer.add("Age", "", 0, age_column);
            printer.add("PreemptionPolicy", "", 0, |class, _| json!(text_of(&class["preemptionPolicy"])));
        }
        "storage.k8s.io/StorageClass" => {
            printer.add("Provisioner", "", 0, |class, _| class["provisioner"].clone());
            printer.add("ReclaimPolicy", "", 0, |class, _| class["reclaimPolicy"].clone());
            printer.add("VolumeBindingMode", "", 0, |class, _| class["volumeBindingMode"].clone());
            printer
                .add("AllowVolumeExpansion", "", 0, |class, _| json!(class["allowVolumeExpansion"] == true));
            printer.add("Age", "", 0, age_column);
        }
        "admissionregistration.k8s.io/MutatingWebhookConfiguration"
        | "admissionregistration.k8s.io/ValidatingWebhookConfiguration" => {
            printer.add("Webhooks", "", 0, |configuration, _| json!(length(&configuration["webhooks"])));
            printer.add("Age", "", 0, age_column);
        }
        _ => printer.add("Age", "", 0, age_column),
    }
}

fn length(list: &Value) -> usize {
    list.as_array().map_or(0, |items| items.len())
}

fn or_not_applicable(value: &Value) -> Value {
    if value.is_null() { json!("N/A") } else { json!(text_of(value)) }
}

/// Up to three items, and how many more there are.
fn listed(list: &Value, text: impl Fn(&Value) -> String) -> String {
    const SHOWN_MAX: usize = 3;
    let texts: Vec<String> =
        list.as_array().into_iter().flatten().map(text).filter(|text| !text.is_empty()).collect();
    match texts.len() {
        0 => "<unset>".to_owned(),
        1..=SHOWN_MAX => texts.join(","),
        more => format!("{} + {} more...", texts[..SHOWN_MAX].join(","), more - SHOWN_MAX),
    }
}

fn access_modes(modes: &Value) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO".to_owned(),
        Some("ReadOnlyMany") => "ROX".to_owned(),
        Some("ReadWriteMany") => "RWX".to_owned(),
        Some("ReadWriteOncePod") => "RWOP".to_owned(),
        _ => text_of(mode),
    };
    modes.as_array().into_iter().flatten().map(short).collect::<Vec<_>>().join(",")
}

fn quota_part(quota: &Value, belongs: impl Fn(&str) -> bool) -> String {
    let hard = quota["spec"]["hard"].as_object().into_iter().flatten();
    let parts: Vec<String> = hard
        .filter(|(name, _)| belongs(name))
        .map(|(name, hard)| {
            let used = &quota["status"]["used"][name.as_str()];
            let used = if used.is_null() { "0".to_owned() } else { text_of(used) };
            format!("{name}: {used}/{}", text_of(hard))
        })
        .collect();
    parts.join(", ")
}

fn subjects(binding: &Value, kind: &str) -> String {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    let names: Vec<String> = subjects
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| match subject["namespace"].as_str() {
            Some(namespace) if kind == "ServiceAccount" => {
                format!("{namespace}/{}", text_of(&subject["name"]))
            }
            _ => text_of(&subject["name"]),
        })
        .collect();
    names.join(", ")
}

fn job_status(job: &Value) -> &'static str {
    let conditions = job["status"]["conditions"].as_array().map(tree::Array::as_slice).unwrap_or_default();
    let has = |kind: &str| conditions.iter().any(|found| found["type"] == kind && found["status"] == "True");
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !job["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let done = number(&job["status"]["succeeded"]);
    match (job["spec"]["completions"].as_i64(), job["spec"]["parallelism"].as_i64()) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, Some(parallel)) if parallel > 1 => format!("{done}/1 of {parallel}"),
        _ => format!("{done}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let start = &job["status"]["startTime"];
    if start.is_null() {
        return String::new();
    }
    let end = job["status"]["completionTime"].as_str().and_then(|text| text.parse().ok());
    age(start, end.unwrap_or(now))
}
