//! Tables as `kubectl get` shows them: the server prints the cells, kubectl only aligns them.
//!
//! Columns follow upstream's `pkg/printers/internalversion`; kinds without columns of their own show name and age.

mod columns;

use jiff::Timestamp;
use tree::{Value, json};

use crate::jsonpath::{JsonPath, text_of};

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: String,
    /// An OpenAPI format, `name` for the first column.
    pub format: String,
    /// What the column tells.
    pub description: String,
    /// 0 always, above 0 only with `-o wide`.
    pub priority: i64,
}

type Cell = fn(&Value, Timestamp) -> Value;

#[derive(Debug, Clone)]
enum Source {
    Path(JsonPath),
    Cell(Cell),
}

/// Prints the objects of one kind as rows.
#[derive(Debug, Clone)]
pub struct Printer {
    columns: Vec<Column>,
    sources: Vec<Source>,
}

impl Printer {
    /// The printer of a built-in kind (`apps/Deployment`, `/Pod`), Name and Age for kinds without columns of their own.
    pub fn built_in(group_kind: &str) -> Printer {
        let mut printer = Printer { columns: Vec::new(), sources: Vec::new() };
        if group_kind != "/Event" {
            printer.add("Name", "name", 0, |object, _| object["metadata"]["name"].clone());
        }
        let age: Cell = |object, now| json!(age(&object["metadata"]["creationTimestamp"], now));
        match group_kind {
            "/Pod" => {
                printer.add("Ready", "", 0, |pod, _| json!(pod_ready(pod)));
                printer.add("Status", "", 0, |pod, _| json!(pod_status(pod)));
                printer.add("Restarts", "", 0, |pod, _| json!(restarts(pod).to_string()));
                printer.add("Age", "", 0, age);
                printer.add("IP", "", 1, |pod, _| or_none(&pod["status"]["podIP"]));
                printer.add("Node", "", 1, |pod, _| or_none(&pod["spec"]["nodeName"]));
                printer.add("Nominated Node", "", 1, |pod, _| or_none(&pod["status"]["nominatedNodeName"]));
                printer.add("Readiness Gates", "", 1, |_, _| json!("<none>"));
            }
            "apps/Deployment" => {
                printer.add("Ready", "", 0, |d, _| {
                    json!(format!(
                        "{}/{}",
                        number(&d["status"]["readyReplicas"]),
                        number(&d["spec"]["replicas"])
                    ))
                });
                printer.add("Up-to-date", "", 0, |d, _| json!(number(&d["status"]["updatedReplicas"])));
                printer.add("Available", "", 0, |d, _| json!(number(&d["status"]["availableReplicas"])));
                printer.add("Age", "", 0, age);
                printer.wide_workload();
            }
            "apps/ReplicaSet" | "/ReplicationController" => {
                printer.add("Desired", "", 0, |set, _| json!(number(&set["spec"]["replicas"])));
                printer.add("Current", "", 0, |set, _| json!(number(&set["status"]["replicas"])));
                printer.add("Ready", "", 0, |set, _| json!(number(&set["status"]["readyReplicas"])));
                printer.add("Age", "", 0, age);
                printer.wide_workload();
            }
            "apps/DaemonSet" => {
                printer
                    .add("Desired", "", 0, |set, _| json!(number(&set["status"]["desiredNumberScheduled"])));
                printer
                    .add("Current", "", 0, |set, _| json!(number(&set["status"]["currentNumberScheduled"])));
                printer.add("Ready", "", 0, |set, _| json!(number(&set["status"]["numberReady"])));
                printer.add("Up-to-date", "", 0, |set, _| {
                    json!(number(&set["status"]["updatedNumberScheduled"]))
                });
                printer.add("Available", "", 0, |set, _| json!(number(&set["status"]["numberAvailable"])));
                printer.add("Node Selector", "", 0, |set, _| {
                    pairs(&set["spec"]["template"]["spec"]["nodeSelector"])
                });
                printer.add("Age", "", 0, age);
                printer.wide_workload();
            }
            "apps/StatefulSet" => {
                printer.add("Ready", "", 0, |set, _| {
                    json!(format!(
                        "{}/{}",
                        number(&set["status"]["readyReplicas"]),
                        number(&set["spec"]["replicas"])
                    ))
                });
                printer.add("Age", "", 0, age);
                printer.add("Containers", "", 1, |object, _| json!(container_fields(object, "name")));
                printer.add("Images", "", 1, |object, _| json!(container_fields(object, "image")));
            }
            "/Service" => {
                printer.add("Type", "", 0, |service, _| service["spec"]["type"].clone());
                printer.add("Cluster-IP", "", 0, |service, _| or_none(&service["spec"]["clusterIP"]));
                printer.add("External-IP", "", 0, |service, _| json!(external_ip(service)));
                printer.add("Port(s)", "", 0, |service, _| json!(ports(service)));
                printer.add("Age", "", 0, age);
                printer.add("Selector", "", 1, |service, _| pairs(&service["spec"]["selector"]));
            }
            "autoscaling/HorizontalPodAutoscaler" => {
                printer.add("Reference", "", 0, |hpa, _| {
                    let target = &hpa["spec"]["scaleTargetRef"];
                    json!(format!("{}/{}", text_of(&target["kind"]), text_of(&target["name"])))
                });
                printer.add("Targets", "", 0, |hpa, _| json!(hpa_targets(hpa)));
                printer
                    .add("MinPods", "", 0, |hpa, _| json!(number(&hpa["spec"]["minReplicas"]).to_string()));
                printer.add("MaxPods", "", 0, |hpa, _| json!(number(&hpa["spec"]["maxReplicas"])));
                printer.add("Replicas", "", 0, |hpa, _| json!(number(&hpa["status"]["currentReplicas"])));
                printer.add("Age", "", 0, age);
            }
            "/Endpoints" => {
                printer.add("Endpoints", "", 0, |endpoints, _| json!(endpoint_list(endpoints)));
                printer.add("Age", "", 0, age);
            }
            "/Namespace" => {
                printer.add("Status", "", 0, |namespace, _| namespace["status"]["phase"].clone());
                printer.add("Age", "", 0, age);
            }
            "/Node" => {
                printer.add("Status", "", 0, |node, _| json!(node_status(node)));
                printer.add("Roles", "", 0, |_, _| json!("<none>"));
                printer.add("Age", "", 0, age);
                printer.add("Version", "", 0, |node, _| node["status"]["nodeInfo"]["kubeletVersion"].clone());
                printer.add("Internal-IP", "", 1, |node, _| json!(node_address(node, "InternalIP")));
                printer.add("External-IP", "", 1, |node, _| json!(node_address(node, "ExternalIP")));
                printer.add("OS-Image", "", 1, |node, _| or_unknown(&node["status"]["nodeInfo"]["osImage"]));
                printer.add("Kernel-Version", "", 1, |node, _| {
                    or_unknown(&node["status"]["nodeInfo"]["kernelVersion"])
                });
                printer.add("Container-Runtime", "", 1, |node, _| {
                    or_unknown(&node["status"]["nodeInfo"]["containerRuntimeVersion"])
                });
            }
            "/ConfigMap" => {
                printer.add("Data", "", 0, |map, _| json!(count(&map["data"]) + count(&map["binaryData"])));
                printer.add("Age", "", 0, age);
            }
            "/Secret" => {
                printer.add("Type", "", 0, |secret, _| secret["type"].clone());
                printer.add("Data", "", 0, |secret, _| json!(count(&secret["data"])));
                printer.add("Age", "", 0, age);
            }
            "/Event" => {
                printer.add("Last Seen", "", 0, |event, now| json!(age_of_event(event, now)));
                printer.add("Type", "", 0, |event, _| event["type"].clone());
                printer.add("Reason", "", 0, |event, _| event["reason"].clone());
                printer.add("Object", "", 0, |event, _| {
                    let object = &event["involvedObject"];
                    json!(format!("{}/{}", text_of(&object["kind"]).to_lowercase(), text_of(&object["name"])))
                });
                printer.add("Message", "", 0, |event, _| json!(text_of(&event["message"]).trim()));
                printer.add("Name", "name", 1, |event, _| event["metadata"]["name"].clone());
            }
            "apiextensions.k8s.io/CustomResourceDefinition" => {
                printer.add("Created At", "", 0, |object, _| object["metadata"]["creationTimestamp"].clone());
            }
            _ => columns::add(&mut printer, group_kind),
        }
        printer
    }

    /// The printer of a CRD version with its `additionalPrinterColumns` (`null` for none).
    ///
    /// # Errors
    /// The column whose JSONPath is not understood.
    pub fn custom(additional: &Value) -> Result<Printer, String> {
        let mut printer = Printer { columns: Vec::new(), sources: Vec::new() };
        printer.add("Name", "name", 0, |object, _| object["metadata"]["name"].clone());
        let text = |column: &Value, field: &str| column[field].as_str().unwrap_or_default().to_owned();
        for column in additional.as_array().into_iter().flatten() {
            let path = text(column, "jsonPath");
            let path = JsonPath::parse(&path).map_err(|error| format!("jsonPath {path:?}: {error}"))?;
            printer.columns.push(Column {
                name: text(column, "name"),
                kind: text(column, "type"),
                format: text(column, "format"),
                description: text(column, "description"),
                priority: column["priority"].as_i64().unwrap_or(0),
            });
            printer.sources.push(Source::Path(path));
        }
        if additional.as_array().is_none_or(|items| items.is_empty()) {
            printer
                .add("Age", "", 0, |object, now| json!(age(&object["metadata"]["creationTimestamp"], now)));
        }
        Ok(printer)
    }

    /// The columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// `columnDefinitions` of a `meta.k8s.io/v1` Table.
    pub fn column_definitions(&self) -> Value {
        self.columns
            .iter()
            .map(|column| {
                json!({"name": column.name, "type": column.kind, "format": column.format,
                       "description": column.description, "priority": column.priority})
            })
            .collect()
    }

    /// The cells of one object. Dates are ages, as the real server prints them.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cell = |(source, column): (&Source, &Column)| match source {
            Source::Cell(cell) => cell(object, now),
            Source::Path(path) => match (path.first(object), column.kind.as_str()) {
                (None, _) => Value::Null,
                (Some(value), "date") => json!(age(value, now)),
                (Some(value), "integer" | "number" | "boolean") => value.clone(),
                (Some(_), _) => json!(path.render(object)),
            },
        };
        self.sources.iter().zip(&self.columns).map(cell).collect()
    }

    fn add(&mut self, name: &str, format: &str, priority: i64, cell: Cell) {
        self.columns.push(Column {
            name: name.to_owned(),
            kind: "string".to_owned(),
            format: format.to_owned(),
            description: String::new(),
            priority,
        });
        self.sources.push(Source::Cell(cell));
    }

    fn wide_workload(&mut self) {
        self.add("Containers", "", 1, |object, _| json!(container_fields(object, "name")));
        self.add("Images", "", 1, |object, _| json!(container_fields(object, "image")));
        self.add("Selector", "", 1, |object, _| pairs(&object["spec"]["selector"]["matchLabels"]));
    }
}

/// How long ago a timestamp was, as kubectl prints it: `119s`, `2m5s`, `10m`, `3h5m`, `2d3h`.
pub fn age(at: &Value, now: Timestamp) -> String {
    let Some(at) = at.as_str().and_then(|text| text.parse::<Timestamp>().ok()) else {
        return "<unknown>".to_owned();
    };
    let seconds = now.duration_since(at).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let with_rest = |value: i64, unit: &str, rest: i64, rest_unit: &str| {
        if rest == 0 { format!("{value}{unit}") } else { format!("{value}{unit}{rest}{rest_unit}") }
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => with_rest(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with_rest(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with_rest(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => with_rest(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn age_of_event(event: &Value, now: Timestamp) -> String {
    let seen = [&event["lastTimestamp"], &event["eventTime"], &event["firstTimestamp"]];
    age(seen.into_iter().find(|at| !at.is_null()).unwrap_or(&Value::Null), now)
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn count(value: &Value) -> usize {
    value.as_object().map_or(0, tree::Map::len)
}

fn or_none(value: &Value) -> Value {
    match value.as_str() {
        Some(text) if !text.is_empty() => value.clone(),
        _ => json!("<none>"),
    }
}

fn pairs(labels: &Value) -> Value {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", text_of(value)))
        .collect();
    json!(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") })
}

fn container_fields(workload: &Value, field: &str) -> String {
    let containers = workload["spec"]["template"]["spec"]["containers"].as_array();
    containers.into_iter().flatten().map(|container| text_of(&container[field])).collect::<Vec<_>>().join(",")
}

fn statuses(pod: &Value) -> &[Value] {
    pod["status"]["containerStatuses"].as_array().map(tree::Array::as_slice).unwrap_or_default()
}

fn pod_ready(pod: &Value) -> String {
    let all = pod["spec"]["containers"].as_array().map_or(0, |items| items.len());
    let ready = statuses(pod).iter().filter(|status| status["ready"] == true).count();
    format!("{ready}/{all}")
}

fn restarts(pod: &Value) -> i64 {
    statuses(pod).iter().map(|status| number(&status["restartCount"])).sum()
}

fn pod_status(pod: &Value) -> String {
    let mut status = text_of(&pod["status"]["phase"]);
    if let Some(reason) = pod["status"]["reason"].as_str() {
        status = reason.to_owned();
    }
    for container in pod["status"]["initContainerStatuses"].as_array().into_iter().flatten() {
        let state = &container["state"];
        if number(&state["terminated"]["exitCode"]) == 0 && state["terminated"].is_object() {
            continue;
        }
        let reason = state["terminated"]["reason"].as_str().or_else(|| state["waiting"]["reason"].as_str());
        return format!("Init:{}", reason.unwrap_or("0/1"));
    }
    for container in statuses(pod).iter().rev() {
        let state = &container["state"];
        if let Some(reason) = state["waiting"]["reason"].as_str().filter(|reason| !reason.is_empty()) {
            status = reason.to_owned();
        } else if let Some(reason) =
            state["terminated"]["reason"].as_str().filter(|reason| !reason.is_empty())
        {
            status = reason.to_owned();
        }
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        status = "Terminating".to_owned();
    }
    status
}

fn external_ip(service: &Value) -> String {
    if service["spec"]["type"] == "ExternalName" {
        return text_of(&service["spec"]["externalName"]);
    }
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    let addresses: Vec<String> = ingress.into_iter().flatten().map(|entry| text_of(&entry["ip"])).collect();
    match service["spec"]["type"].as_str() {
        Some("LoadBalancer") if addresses.is_empty() => "<pending>".to_owned(),
        _ if addresses.is_empty() => "<none>".to_owned(),
        _ => addresses.join(","),
    }
}

fn ports(service: &Value) -> String {
    let port = |port: &Value| match port["nodePort"].as_i64() {
        Some(node) => format!("{}:{node}/{}", port["port"], text_of(&port["protocol"])),
        None => format!("{}/{}", port["port"], text_of(&port["protocol"])),
    };
    let ports: Vec<String> = service["spec"]["ports"].as_array().into_iter().flatten().map(port).collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}

fn hpa_targets(hpa: &Value) -> String {
    let current = hpa["status"]["currentMetrics"].as_array();
    let target = |(index, metric): (usize, &Value)| {
        let resource = &metric["resource"];
        let now = current.and_then(|list| list.get(index)).map(|metric| &metric["resource"]["current"]);
        let (target, found, suffix) = if resource["target"]["averageUtilization"].is_null() {
            (&resource["target"]["averageValue"], now.map(|now| &now["averageValue"]), "")
        } else {
            (&resource["target"]["averageUtilization"], now.map(|now| &now["averageUtilization"]), "%")
        };
        let found = found.filter(|found| !found.is_null());
        let found =
            found.map_or_else(|| "<unknown>".to_owned(), |found| format!("{}{suffix}", text_of(found)));
        format!("{}: {found}/{}{suffix}", text_of(&resource["name"]), text_of(target))
    };
    let metrics = hpa["spec"]["metrics"].as_array();
    let targets: Vec<String> = metrics.into_iter().flatten().enumerate().map(target).collect();
    if targets.is_empty() { "<none>".to_owned() } else { targets.join(", ") }
}

fn endpoint_list(endpoints: &Value) -> String {
    const SHOWN_MAX: usize = 3;
    let mut all = Vec::new();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        for address in subset["addresses"].as_array().into_iter().flatten() {
            for port in subset["ports"].as_array().into_iter().flatten() {
                all.push(format!("{}:{}", text_of(&address["ip"]), port["port"]));
            }
        }
    }
    match all.len() {
        0 => "<none>".to_owned(),
        1..=SHOWN_MAX => all.join(","),
        more => format!("{} + {} more...", all[..SHOWN_MAX].join(","), more - SHOWN_MAX),
    }
}

fn node_address(node: &Value, kind: &str) -> String {
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let mut found =
        addresses.filter(|address| address["type"] == kind).map(|address| text_of(&address["address"]));
    found.next_back().unwrap_or_else(|| "<none>".to_owned())
}

fn or_unknown(value: &Value) -> Value {
    match value.as_str() {
        Some(text) if !text.is_empty() => value.clone(),
        _ => json!("<unknown>"),
    }
}

fn node_status(node: &Value) -> String {
    let conditions = node["status"]["conditions"].as_array();
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let ready = conditions.is_some_and(|conditions| conditions.iter().any(is_ready));
    let mut status = if ready { "Ready" } else { "NotReady" }.to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let now: Timestamp = "2020-03-20T00:00:00Z".parse().unwrap();
        let check = |seconds: i64, expected: &str| {
            let at = now - jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(&json!(at.to_string()), now), expected);
        };
        check(119, "119s");
        check(125, "2m5s");
        check(180, "3m");
        check(640, "10m");
        check(3 * 3600 + 300, "3h5m");
        check(2 * 86400 + 3 * 3600, "2d3h");
        check(30 * 86400, "30d");
    }

    #[test]
    fn custom_columns_follow_their_paths() {
        let printer = Printer::custom(&json!([
            {"name": "Status", "type": "string", "jsonPath": ".status.phase"},
            {"name": "Weight", "type": "string", "jsonPath": ".status.canaryWeight"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]))
        .unwrap();
        let object = json!({"metadata": {"name": "podinfo", "creationTimestamp": "2020-03-17T11:00:00Z"},
            "status": {"phase": "Progressing", "canaryWeight": 15}});
        let cells = printer.cells(&object, "2020-03-17T11:01:00Z".parse().unwrap());
        assert_eq!(cells, [json!("podinfo"), json!("Progressing"), json!("15"), json!("60s")]);
        assert!(Printer::custom(&json!([{"name": "a", "jsonPath": ".[["}])).is_err());
    }
}
