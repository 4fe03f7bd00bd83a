//! What the API refuses about objects of the built-in kinds, and about every object's metadata.
//!
//! The checks that people run into (upstream: `pkg/apis/*/validation`), with the real fields, reasons and wording where
//! tools show them; not all of upstream's.

use std::collections::BTreeSet;

use tree::Value;

use crate::decode::is_known;
use crate::resource::Resource;
use crate::selector::LabelSelector;
use crate::structural::Cause;

const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// Collects what is wrong.
#[derive(Default)]
pub(crate) struct Causes(pub Vec<Cause>);

impl Causes {
    fn required(&mut self, field: impl Into<String>, hint: &str) {
        let message =
            if hint.is_empty() { "Required value".to_owned() } else { format!("Required value: {hint}") };
        self.0.push(Cause { reason: "FieldValueRequired", message, field: field.into() });
    }

    fn invalid(&mut self, field: impl Into<String>, value: &Value, why: &str) {
        let message = format!("Invalid value: {value}: {why}");
        self.0.push(Cause { reason: "FieldValueInvalid", message, field: field.into() });
    }

    fn unsupported(&mut self, field: impl Into<String>, value: &Value, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        self.0.push(Cause { reason: "FieldValueNotSupported", message, field: field.into() });
    }

    fn duplicate(&mut self, field: impl Into<String>, value: &Value) {
        let message = format!("Duplicate value: {value}");
        self.0.push(Cause { reason: "FieldValueDuplicate", message, field: field.into() });
    }

    fn forbidden(&mut self, field: impl Into<String>, why: &str) {
        let message = format!("Forbidden: {why}");
        self.0.push(Cause { reason: "FieldValueForbidden", message, field: field.into() });
    }
}

/// Everything that is wrong with a defaulted object; `old` is its state before an update.
pub(crate) fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Causes::default();
    metadata(resource, object, old, &mut causes);
    if resource.custom {
        return causes.0;
    }
    let spec = &object["spec"];
    let old_spec = old.map(|old| &old["spec"]);
    // What did not change has been looked at before, but for a Job's template, which must fit the metadata.
    if old_spec.is_some_and(|old| is_known(spec, old)) && resource.group != "batch" {
        return causes.0;
    }
    match resource.group_kind().as_str() {
        "/Pod" => {
            pod_spec(spec, "spec", &mut causes);
            if let Some(old_spec) = old_spec {
                pod_update(spec, old_spec, &mut causes);
            }
        }
        "apps/Deployment" | "apps/ReplicaSet" | "apps/StatefulSet" | "apps/DaemonSet" => {
            workload(spec, old_spec, &mut causes);
            if let Some(old_spec) = old_spec
                && old_spec["selector"] != spec["selector"]
            {
                causes.invalid("spec.selector", &spec["selector"], "field is immutable");
            }
        }
        "batch/Job" => job(spec, old_spec, &object["metadata"], &mut causes),
        "/Service" => service(spec, old_spec, &mut causes),
        "autoscaling/HorizontalPodAutoscaler" => autoscaler(spec, &mut causes),
        "/ConfigMap" | "/Secret" => {
            if let Some(old) = old.filter(|old| old["immutable"] == true)
                && (old["data"] != object["data"] || old["binaryData"] != object["binaryData"])
            {
                causes.forbidden("data", "field is immutable when `immutable` is set");
            }
        }
        _ => {}
    }
    causes.0
}

fn metadata(resource: &Resource, object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let name = &object["metadata"]["name"];
    let Some(text) = name.as_str().filter(|name| !name.is_empty()) else {
        causes.required("metadata.name", "name or generateName is required");
        return;
    };
    if old.is_none() {
        let group_kind = resource.group_kind();
        match group_kind.as_str() {
            "/Namespace" if !is_label(text) => causes.invalid("metadata.name", name, DNS_LABEL),
            "/Service" if !is_label(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) => {
                causes.invalid("metadata.name", name, DNS_1035);
            }
            _ if resource.group == "rbac.authorization.k8s.io" => {}
            _ if !is_subdomain(text) => causes.invalid("metadata.name", name, DNS_SUBDOMAIN),
            _ => {}
        }
    }
    labels(&object["metadata"]["labels"], "metadata.labels", causes);
    if let Some(annotations) = object["metadata"]["annotations"].as_object() {
        let size: usize =
            annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
        if size > 256 * 1024 {
            causes.0.push(Cause {
                reason: "FieldValueTooLong",
                message: "Too long: may not be more than 262144 bytes".to_owned(),
                field: "metadata.annotations".to_owned(),
            });
        }
    }
    for (index, owner) in object["metadata"]["ownerReferences"].as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                causes.invalid(
                    format!("metadata.ownerReferences[{index}].{field}"),
                    &owner[field],
                    "must not be empty",
                );
            }
        }
    }
}

fn labels(labels: &Value, path: &str, causes: &mut Causes) {
    for (name, value) in labels.as_object().into_iter().flatten() {
        let last = name.rsplit('/').next().unwrap_or_default();
        if last.is_empty() || last.len() > 63 || !is_label_text(last) {
            causes.invalid(path, &Value::String(name.clone()), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')");
        }
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            causes.invalid(path, value, "must be no more than 63 bytes");
        } else if !text.is_empty() && !is_label_text(text) {
            causes.invalid(path, value, "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')");
        }
    }
}

fn job(spec: &Value, old: Option<&Value>, metadata: &Value, causes: &mut Causes) {
    const COUNTS: [&str; 6] = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "ttlSecondsAfterFinished",
    ];
    for field in COUNTS {
        if spec[field].as_i64().is_some_and(|count| count < 0) {
            causes.invalid(format!("spec.{field}"), &spec[field], "must be greater than or equal to 0");
        }
    }
    let modes = ["Indexed", "NonIndexed"];
    match spec["completionMode"].as_str() {
        Some("Indexed") if spec["completions"].is_null() => {
            causes.required("spec.completions", "when completion mode is Indexed");
        }
        Some("Indexed") => {
            if spec["parallelism"].as_i64().is_some_and(|parallelism| parallelism > 100_000) {
                let why = "must be less than or equal to 100000 when completion mode is Indexed";
                causes.invalid("spec.parallelism", &spec["parallelism"], why);
            }
        }
        Some("NonIndexed") => {
            if !spec["backoffLimitPerIndex"].is_null() {
                causes.invalid(
                    "spec.backoffLimitPerIndex",
                    &spec["backoffLimitPerIndex"],
                    "requires indexed completion mode",
                );
            }
        }
        _ => causes.unsupported("spec.completionMode", &spec["completionMode"], &modes),
    }
    selected(spec, causes);
    let template_labels = &spec["template"]["metadata"]["labels"];
    labels(template_labels, "spec.template.labels", causes);
    if spec["manualSelector"] != true {
        for (label, wanted) in [
            ("batch.kubernetes.io/controller-uid", &metadata["uid"]),
            ("batch.kubernetes.io/job-name", &metadata["name"]),
        ] {
            if template_labels[label] != *wanted {
                let why = format!("must be '{}'", wanted.as_str().unwrap_or_default());
                causes.invalid("spec.template.metadata.labels", template_labels, &why);
            }
        }
    }
    pod_spec(&spec["template"]["spec"], "spec.template.spec", causes);
    if !matches!(spec["template"]["spec"]["restartPolicy"].as_str(), Some("OnFailure" | "Never")) {
        let hint = "valid values: \"OnFailure\", \"Never\"";
        causes.required("spec.template.spec.restartPolicy", hint);
    }
    let Some(old) = old else { return };
    // Indexed Jobs may grow and shrink, if their parallelism does alike.
    let is_elastic = spec["completionMode"] == "Indexed" && spec["completions"] == spec["parallelism"];
    for field in ["completions", "selector", "completionMode", "template"] {
        if spec[field] != old[field] && !(field == "completions" && is_elastic) {
            causes.invalid(format!("spec.{field}"), &spec[field], "field is immutable");
        }
    }
}

fn workload(spec: &Value, old: Option<&Value>, causes: &mut Causes) {
    if spec["replicas"].as_i64().is_some_and(|replicas| replicas < 0) {
        causes.invalid("spec.replicas", &spec["replicas"], "must be greater than or equal to 0");
    }
    selected(spec, causes);
    labels(&spec["template"]["metadata"]["labels"], "spec.template.labels", causes);
    let rolling = &spec["strategy"]["rollingUpdate"];
    let kind = &spec["strategy"]["type"];
    if kind.is_string() && kind != "RollingUpdate" && kind != "Recreate" {
        causes.unsupported("spec.strategy.type", kind, &["Recreate", "RollingUpdate"]);
    }
    if kind == "Recreate" && rolling.is_object() {
        causes.forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        );
    }
    let is_zero = |value: &Value| *value == 0 || *value == "0%";
    if is_zero(&rolling["maxUnavailable"]) && is_zero(&rolling["maxSurge"]) {
        causes.invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            &rolling["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        );
    }
    let (deadline, ready) = (&spec["progressDeadlineSeconds"], &spec["minReadySeconds"]);
    if let Some(seconds) = deadline.as_i64()
        && seconds <= ready.as_i64().unwrap_or(0)
    {
        causes.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
    }
    if old.is_some_and(|old| is_known(&spec["template"], &old["template"])) {
        return;
    }
    pod_spec(&spec["template"]["spec"], "spec.template.spec", causes);
    let restart = &spec["template"]["spec"]["restartPolicy"];
    if restart.is_string() && restart != "Always" {
        causes.unsupported("spec.template.spec.restartPolicy", restart, &["Always"]);
    }
}

/// A selector that selects something, and the template's pods.
fn selected(spec: &Value, causes: &mut Causes) {
    let selector = &spec["selector"];
    let is_empty = |part: &str| {
        selector[part].as_object().is_none_or(|fields| fields.is_empty())
            && selector[part].as_array().is_none_or(|items| items.is_empty())
    };
    let template_labels = &spec["template"]["metadata"]["labels"];
    if is_empty("matchLabels") && is_empty("matchExpressions") {
        causes.required("spec.selector", "");
    } else {
        match LabelSelector::from_object(selector) {
            Err(error) => causes.invalid("spec.selector", selector, &error),
            Ok(selector) if !selector.matches_labels(template_labels) => causes.invalid(
                "spec.template.metadata.labels",
                template_labels,
                "`selector` does not match template `labels`",
            ),
            Ok(_) => {}
        }
    }
}

fn pod_spec(spec: &Value, path: &str, causes: &mut Causes) {
    if spec["containers"].as_array().is_none_or(|items| items.is_empty()) {
        causes.required(format!("{path}.containers"), "");
    }
    let volumes: BTreeSet<&str> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["name"].as_str())
        .collect();
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            match container["name"].as_str().filter(|name| !name.is_empty()) {
                None => causes.required(format!("{path}.name"), ""),
                Some(name) if !is_label(name) => {
                    causes.invalid(format!("{path}.name"), &container["name"], DNS_LABEL);
                }
                Some(name) if !names.insert(name) => {
                    causes.duplicate(format!("{path}.name"), &container["name"]);
                }
                Some(_) => {}
            }
            if container["image"].as_str().is_none_or(str::is_empty) {
                causes.required(format!("{path}.image"), "");
            }
            for (index, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
                port_number(&port["containerPort"], format!("{path}.ports[{index}].containerPort"), causes);
            }
            for (index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
                let name = mount["name"].as_str().unwrap_or_default();
                if !volumes.contains(name) {
                    let message = format!("Not found: {name:?}");
                    let field = format!("{path}.volumeMounts[{index}].name");
                    causes.0.push(Cause { reason: "FieldValueNotFound", message, field });
                }
            }
            for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
                let probe = &container[kind];
                let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
                if probe.is_object() && handlers.iter().all(|handler| probe[*handler].is_null()) {
                    causes.required(format!("{path}.{kind}"), "must specify a handler type");
                }
            }
            for (name, request) in container["resources"]["requests"].as_object().into_iter().flatten() {
                let limit = &container["resources"]["limits"][name];
                if let (Some(request_value), Some(limit_value)) = (quantity(request), quantity(limit))
                    && request_value > limit_value
                {
                    let why = format!("must be less than or equal to {name} limit of {}", text(limit));
                    causes.invalid(format!("{path}.resources.requests"), request, &why);
                }
            }
        }
    }
}

fn pod_update(spec: &Value, old: &Value, causes: &mut Causes) {
    let frozen = |spec: &Value| {
        let mut spec = spec.clone();
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            spec[field] = Value::Null;
        }
        spec
    };
    // The scheduler's binding is the one other change; it goes through a subresource.
    if old["nodeName"] == spec["nodeName"] && frozen(spec) != frozen(old) {
        causes.forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)");
    }
}

fn service(spec: &Value, old: Option<&Value>, causes: &mut Causes) {
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if spec["type"].as_str().is_none_or(|kind| !kinds.contains(&kind)) {
        causes.unsupported("spec.type", &spec["type"], &kinds);
    }
    let ports = spec["ports"].as_array().map(tree::Array::as_slice).unwrap_or_default();
    if ports.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        causes.required("spec.ports", "");
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        port_number(&port["port"], format!("{path}.port"), causes);
        let name = port["name"].as_str().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            causes.required(format!("{path}.name"), "");
        } else if !names.insert(name) {
            causes.duplicate(format!("{path}.name"), &port["name"]);
        }
        if !numbers.insert((text(&port["port"]), text(&port["protocol"]))) {
            causes.duplicate(path.clone(), port);
        }
        if port["targetPort"].is_number() {
            port_number(&port["targetPort"], format!("{path}.targetPort"), causes);
        }
    }
    if let Some(old) = old
        && spec["type"] != "ExternalName"
        && old["clusterIP"].is_string()
        && old["clusterIP"] != spec["clusterIP"]
    {
        causes.invalid("spec.clusterIP", &spec["clusterIP"], "field is immutable");
    }
    labels(&spec["selector"], "spec.selector", causes);
}

fn autoscaler(spec: &Value, causes: &mut Causes) {
    let (min, max) = (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if min < 1 {
        causes.invalid("spec.minReplicas", &spec["minReplicas"], "must be greater than or equal to 1");
    }
    if max < 1 {
        causes.invalid("spec.maxReplicas", &spec["maxReplicas"], "must be greater than 0");
    } else if max < min {
        causes.invalid(
            "spec.maxReplicas",
            &spec["maxReplicas"],
            "must be greater than or equal to `minReplicas`",
        );
    }
    for field in ["kind", "name"] {
        if spec["scaleTargetRef"][field].as_str().is_none_or(str::is_empty) {
            causes.required(format!("spec.scaleTargetRef.{field}"), "");
        }
    }
    for (index, metric) in spec["metrics"].as_array().into_iter().flatten().enumerate() {
        let known = ["ContainerResource", "External", "Object", "Pods", "Resource"];
        if metric["type"].as_str().is_none_or(|kind| !known.contains(&kind)) {
            causes.unsupported(format!("spec.metrics[{index}].type"), &metric["type"], &known);
        }
        if metric["type"] == "Resource" {
            let target = &metric["resource"]["target"];
            if target["averageUtilization"].is_null() && target["averageValue"].is_null() {
                causes.required(
                    format!("spec.metrics[{index}].resource.target.averageUtilization"),
                    "must set either a target raw value or a target utilization",
                );
            }
        }
    }
}

fn port_number(port: &Value, field: String, causes: &mut Causes) {
    match port.as_i64() {
        None | Some(0) => causes.required(field, ""),
        Some(1..=65535) => {}
        Some(_) => causes.invalid(field, port, "must be between 1 and 65535, inclusive"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A Kubernetes quantity as a number: `100m`, `64Mi`, `1.5`, `2e3`.
pub(crate) fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::String(text) => text.as_str(),
        Value::Number(number) => return number.as_f64(),
        _ => return None,
    };
    let digits =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024f64.powi(4),
        _ => return text.parse().ok(),
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        })
}

fn is_label_text(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}
