//! Defaults of the built-in kinds, filled in once when an object is written (upstream: `pkg/apis/*/v1/defaults.go`).
//!
//! Clients depend on them: Flagger hashes `spec.template` as the server returns it, and controllers do arithmetic on
//! `maxSurge`.

use tree::{Map, Value, json};

use crate::decode::is_known;

/// Fills in what is missing. `known` is an object that has been filled in before, or null: what is shared with it is
/// left as it is.
pub(crate) fn fill(group_kind: &str, object: &mut Value, known: &Value) {
    // A Job's labels may come from its template.
    if group_kind != "batch/Job" && has_content_of(known, object) {
        return;
    }
    match group_kind {
        "/Pod" => {
            pod_spec(&mut object["spec"]);
            set(&mut object["spec"], "enableServiceLinks", json!(true));
        }
        "apps/Deployment" => {
            let spec = &mut object["spec"];
            set(spec, "replicas", json!(1));
            set(spec, "revisionHistoryLimit", json!(10));
            set(spec, "progressDeadlineSeconds", json!(600));
            set(spec, "strategy", json!({}));
            let strategy = &mut spec["strategy"];
            set(strategy, "type", json!("RollingUpdate"));
            if strategy["type"] == "RollingUpdate" {
                set(strategy, "rollingUpdate", json!({}));
                set(&mut strategy["rollingUpdate"], "maxUnavailable", json!("25%"));
                set(&mut strategy["rollingUpdate"], "maxSurge", json!("25%"));
            }
            pod_template(spec, known);
        }
        "apps/ReplicaSet" | "/ReplicationController" => {
            set(&mut object["spec"], "replicas", json!(1));
            if object["spec"]["template"].is_object() {
                pod_template(&mut object["spec"], known);
            }
        }
        "apps/DaemonSet" => {
            let spec = &mut object["spec"];
            set(spec, "revisionHistoryLimit", json!(10));
            set(
                spec,
                "updateStrategy",
                json!({"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
            );
            pod_template(spec, known);
        }
        "apps/StatefulSet" => {
            let spec = &mut object["spec"];
            set(spec, "replicas", json!(1));
            set(spec, "revisionHistoryLimit", json!(10));
            set(spec, "podManagementPolicy", json!("OrderedReady"));
            set(spec, "updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
            pod_template(spec, known);
        }
        "batch/Job" => {
            let own_labels =
                object["metadata"]["labels"].as_object().is_some_and(|labels| !labels.is_empty());
            let template_labels = object["spec"]["template"]["metadata"]["labels"].clone();
            if !own_labels && template_labels.is_object() {
                object["metadata"]["labels"] = template_labels;
            }
            job_spec(&mut object["spec"]);
        }
        "/Service" => service(&mut object["spec"]),
        "/Secret" => {
            set(object, "type", json!("Opaque"));
            fold_string_data(object);
        }
        "/Namespace" => set(&mut object["spec"], "finalizers", json!(["kubernetes"])),
        "autoscaling/HorizontalPodAutoscaler" => {
            let spec = &mut object["spec"];
            set(spec, "minReplicas", json!(1));
            if spec["metrics"].as_array().is_none_or(|items| items.is_empty()) {
                spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 80}}}]);
            }
            for direction in ["scaleUp", "scaleDown"] {
                if spec["behavior"].is_object() {
                    scaling_rules(&mut spec["behavior"], direction);
                }
            }
        }
        "discovery.k8s.io/EndpointSlice" => {
            for port in object.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                set(port, "protocol", json!("TCP"));
                set(port, "name", json!(""));
            }
        }
        _ => {}
    }
}

/// Whether an object shares all its fields but metadata and status with `known`.
fn has_content_of(known: &Value, object: &Value) -> bool {
    let Some((known, object)) = known.as_object().zip(object.as_object()) else { return false };
    let is_content = |(name, _): &(&tree::Text, &Value)| !matches!(name.as_str(), "metadata" | "status");
    let mut pairs = known.iter().filter(is_content).zip(object.iter().filter(is_content));
    known.iter().filter(is_content).count() == object.iter().filter(is_content).count()
        && pairs.all(|((name, known), (other, value))| name == other && value.is_shared_with(known))
}

fn job_spec(spec: &mut Value) {
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, "completions", json!(1));
    }
    set(spec, "parallelism", json!(1));
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    set(spec, "backoffLimit", if per_index { json!(i32::MAX) } else { json!(6) });
    set(spec, "completionMode", json!("NonIndexed"));
    set(spec, "suspend", json!(false));
    set(spec, "manualSelector", json!(false));
    let has_policy = !spec["podFailurePolicy"].is_null();
    set(spec, "podReplacementPolicy", json!(if has_policy { "Failed" } else { "TerminatingOrFailed" }));
    pod_spec(&mut spec["template"]["spec"]);
}

/// Gives a new Job the selector and the labels that set its pods apart, unless it brings a selector of its own.
pub(crate) fn job_selector(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (name, uid) = (job["metadata"]["name"].clone(), job["metadata"]["uid"].clone());
    let spec = &mut job["spec"];
    set(&mut spec["template"], "metadata", json!({}));
    set(&mut spec["template"]["metadata"], "labels", json!({}));
    let labels = &mut spec["template"]["metadata"]["labels"];
    for prefix in ["", "batch.kubernetes.io/"] {
        set(labels, &format!("{prefix}job-name"), name.clone());
        set(labels, &format!("{prefix}controller-uid"), uid.clone());
    }
    set(spec, "selector", json!({}));
    set(&mut spec["selector"], "matchLabels", json!({}));
    set(&mut spec["selector"]["matchLabels"], "batch.kubernetes.io/controller-uid", uid);
}

fn set(object: &mut Value, field: &str, value: Value) {
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    if let Some(fields) = object.as_object_mut()
        && fields.get(field).is_none_or(Value::is_null)
    {
        fields.insert(field, value);
    }
}

/// The template in the spec of an object; `known` is the whole object before.
fn pod_template(spec: &mut Value, known: &Value) {
    if !is_known(&spec["template"], &known["spec"]["template"]) {
        pod_spec(&mut spec["template"]["spec"]);
    }
}

fn pod_spec(spec: &mut Value) {
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "schedulerName", json!("default-scheduler"));
    set(spec, "securityContext", json!({}));
    if let Some(account) = spec["serviceAccountName"].as_str().map(str::to_owned) {
        set(spec, "serviceAccount", json!(account));
    }
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            self::container(container);
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            if volume[source].is_object() {
                set(&mut volume[source], "defaultMode", json!(0o644));
            }
        }
    }
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit('/').next().unwrap_or_default();
    let latest = !tag.contains('@') && tag.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    set(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
    set(container, "terminationMessagePath", json!("/dev/termination-log"));
    set(container, "terminationMessagePolicy", json!("File"));
    set(container, "resources", json!({}));
    let limits = container["resources"]["limits"].clone();
    for (name, limit) in limits.as_object().into_iter().flatten() {
        set(&mut container["resources"], "requests", json!({}));
        set(&mut container["resources"]["requests"], name, limit.clone());
    }
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        set(port, "protocol", json!("TCP"));
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[kind].is_object() {
            let probe = &mut container[kind];
            set(probe, "timeoutSeconds", json!(1));
            set(probe, "periodSeconds", json!(10));
            set(probe, "successThreshold", json!(1));
            set(probe, "failureThreshold", json!(3));
            if probe["httpGet"].is_object() {
                set(&mut probe["httpGet"], "path", json!("/"));
                set(&mut probe["httpGet"], "scheme", json!("HTTP"));
            }
        }
    }
    for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        if variable["valueFrom"]["fieldRef"].is_object() {
            set(&mut variable["valueFrom"]["fieldRef"], "apiVersion", json!("v1"));
        }
    }
}

fn service(spec: &mut Value) {
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if kind != "ExternalName" {
        set(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        set(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        if port["targetPort"] == 0 || port["targetPort"] == "" {
            port["targetPort"] = Value::Null;
        }
        set(port, "targetPort", number);
    }
}

fn fold_string_data(secret: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|fields| fields.remove("stringData"))
    else {
        return;
    };
    set(secret, "data", json!({}));
    for (name, text) in texts {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        secret["data"][&name] = json!(encoded);
    }
}

/// `spec.behavior` of an HPA; what is absent is the controller's own default.
fn scaling_rules(behavior: &mut Value, direction: &str) {
    let up = direction == "scaleUp";
    let policies = if up {
        json!([{"type": "Pods", "value": 4, "periodSeconds": 15},
               {"type": "Percent", "value": 100, "periodSeconds": 15}])
    } else {
        json!([{"type": "Percent", "value": 100, "periodSeconds": 15}])
    };
    set(behavior, direction, json!({}));
    let rules = &mut behavior[direction];
    set(rules, "selectPolicy", json!("Max"));
    set(rules, "policies", policies);
    if up {
        set(rules, "stabilizationWindowSeconds", json!(0));
    }
}
