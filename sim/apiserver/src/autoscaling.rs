//! HorizontalPodAutoscalers in their older versions: autoscaling/v1, v2beta1 and v2beta2 to v2 and back.
//!
//! v2beta2 has v2's shape. v2beta1 spells metric targets as fields of their own; v1 knows only a CPU percentage.

use tree::{Map, Value, json};

const METRIC_SOURCES: [&str; 5] = ["resource", "containerResource", "pods", "object", "external"];

/// Turns an older version's object into v2. Fields that are not of the older version stay, for decoding to find.
pub(crate) fn to_v2(version: &str, hpa: &mut Value) -> Result<(), String> {
    match version {
        "v1" => {
            let Some(spec) = hpa.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
            if let Some(percent) =
                spec.remove("targetCPUUtilizationPercentage").filter(|value| !value.is_null())
            {
                spec.insert("metrics", json!([cpu_percent(&percent)]));
            }
            if let Some(status) = hpa.get_mut("status").and_then(Value::as_object_mut)
                && let Some(percent) = status.remove("currentCPUUtilizationPercentage")
            {
                status.insert(
                    "currentMetrics",
                    json!([{"type": "Resource",
                            "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}]),
                );
            }
        }
        "v2beta1" => {
            for metric in hpa.pointer_mut("/spec/metrics").and_then(Value::as_array_mut).into_iter().flatten()
            {
                each_source(metric, |kind, source| {
                    target_to_v2(kind, source);
                });
            }
            for metric in
                hpa.pointer_mut("/status/currentMetrics").and_then(Value::as_array_mut).into_iter().flatten()
            {
                each_source(metric, |_, source| {
                    let mut current = Map::new();
                    rename(source, "currentAverageUtilization", &mut current, "averageUtilization");
                    rename(source, "currentAverageValue", &mut current, "averageValue");
                    rename(source, "currentValue", &mut current, "value");
                    source.insert("current", current.into());
                });
            }
        }
        _ => {}
    }
    Ok(())
}

/// Turns a v2 object into an older version's.
pub(crate) fn from_v2(version: &str, hpa: &mut Value) {
    match version {
        "v1" => {
            let percent = cpu_of(&hpa["spec"]["metrics"], "target");
            let current = cpu_of(&hpa["status"]["currentMetrics"], "current");
            for (part, list, field, value) in [
                ("spec", "metrics", "targetCPUUtilizationPercentage", percent),
                ("status", "currentMetrics", "currentCPUUtilizationPercentage", current),
            ] {
                if let Some(part) = hpa.get_mut(part).and_then(Value::as_object_mut) {
                    part.remove(list);
                    if let Some(value) = value {
                        part.insert(field, value);
                    }
                }
            }
            for (part, field) in [("spec", "behavior"), ("status", "conditions")] {
                if let Some(part) = hpa.get_mut(part).and_then(Value::as_object_mut) {
                    part.remove(field);
                }
            }
        }
        "v2beta1" => {
            for metric in hpa.pointer_mut("/spec/metrics").and_then(Value::as_array_mut).into_iter().flatten()
            {
                each_source(metric, |kind, source| {
                    let Some(Value::Object(mut target)) = source.remove("target") else { return };
                    rename(&mut target, "averageUtilization", source, "targetAverageUtilization");
                    let average =
                        if matches!(kind, "object") { "averageValue" } else { "targetAverageValue" };
                    rename(&mut target, "averageValue", source, average);
                    rename(&mut target, "value", source, "targetValue");
                    if let Some(Value::Object(mut named)) = source.remove("metric") {
                        rename(&mut named, "name", source, "metricName");
                        rename(&mut named, "selector", source, selector_field(kind));
                    }
                    if kind == "object" {
                        rename_within(source, "describedObject", "target");
                    }
                });
            }
            for metric in
                hpa.pointer_mut("/status/currentMetrics").and_then(Value::as_array_mut).into_iter().flatten()
            {
                each_source(metric, |_, source| {
                    let Some(Value::Object(mut current)) = source.remove("current") else { return };
                    rename(&mut current, "averageUtilization", source, "currentAverageUtilization");
                    rename(&mut current, "averageValue", source, "currentAverageValue");
                    rename(&mut current, "value", source, "currentValue");
                });
            }
            if let Some(spec) = hpa.get_mut("spec").and_then(Value::as_object_mut) {
                spec.remove("behavior");
            }
        }
        _ => {}
    }
}

fn target_to_v2(kind: &str, source: &mut Map) {
    let mut target = Map::new();
    rename(source, "targetAverageUtilization", &mut target, "averageUtilization");
    rename(source, "targetAverageValue", &mut target, "averageValue");
    if kind == "object" {
        rename(source, "averageValue", &mut target, "averageValue");
    }
    rename(source, "targetValue", &mut target, "value");
    let form = if target.contains_key("averageUtilization") {
        "Utilization"
    } else if target.contains_key("averageValue") {
        "AverageValue"
    } else {
        "Value"
    };
    target.insert("type", json!(form));
    if kind == "object" {
        rename_within(source, "target", "describedObject");
    }
    if !target.is_empty() {
        source.insert("target", target.into());
    }
    if source.contains_key("metricName") {
        let mut metric = Map::new();
        rename(source, "metricName", &mut metric, "name");
        rename(source, selector_field(kind), &mut metric, "selector");
        source.insert("metric", metric.into());
    }
}

fn selector_field(kind: &str) -> &'static str {
    if kind == "external" { "metricSelector" } else { "selector" }
}

fn each_source(metric: &mut Value, mut take: impl FnMut(&str, &mut Map)) {
    for kind in METRIC_SOURCES {
        if let Some(source) = metric.get_mut(kind).and_then(Value::as_object_mut) {
            take(kind, source);
        }
    }
}

fn rename(from: &mut Map, old: &str, to: &mut Map, new: &str) {
    if let Some(value) = from.remove(old)
        && !value.is_null()
    {
        to.insert(new.to_owned(), value);
    }
}

fn rename_within(object: &mut Map, old: &str, new: &str) {
    if let Some(value) = object.remove(old) {
        object.insert(new.to_owned(), value);
    }
}

fn cpu_percent(percent: &Value) -> Value {
    json!({"type": "Resource",
           "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn cpu_of(metrics: &Value, part: &str) -> Option<Value> {
    let metric = metrics.as_array()?.iter().find(|metric| metric["resource"]["name"] == "cpu")?;
    Some(metric["resource"][part]["averageUtilization"].clone()).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_versions_come_back_as_they_were() {
        let check = |version: &str, old: Value, new: Value| {
            let mut hpa = old.clone();
            to_v2(version, &mut hpa).unwrap();
            assert_eq!(hpa, new, "{version}");
            from_v2(version, &mut hpa);
            assert_eq!(hpa, old, "{version}");
        };
        let v2 = json!({"spec": {"metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}]}});
        check(
            "v2beta1",
            json!({"spec": {"metrics": [{"type": "Resource",
                "resource": {"name": "cpu", "targetAverageUtilization": 99}}]}}),
            v2.clone(),
        );
        check("v1", json!({"spec": {"targetCPUUtilizationPercentage": 99}}), v2);
        check(
            "v2beta1",
            json!({"spec": {"metrics": [{"type": "Object", "object": {"metricName": "rps", "targetValue": "10",
                "target": {"kind": "Service", "name": "a"}}}]}}),
            json!({"spec": {"metrics": [{"type": "Object", "object": {"metric": {"name": "rps"},
                "target": {"type": "Value", "value": "10"}, "describedObject": {"kind": "Service", "name": "a"}}}]}}),
        );
    }
}
