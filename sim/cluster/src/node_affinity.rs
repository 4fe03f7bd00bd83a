//! Which nodes a pod may run on by its own word: node selector and required node affinity. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// Whether a pod's selector and required affinity admit a node.
pub(crate) fn admits(pod: &PodSpec, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let selected = pod.node_selector.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    let required = pod
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required
            .is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, node, labels)))
}

/// Whether a term holds; one that asks for nothing never does.
fn holds(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |name: &str| (name == "metadata.name").then_some(node);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|one| meets(one, labels.get(&one.key).map(String::as_str)))
        && fields.iter().all(|one| meets(one, field(&one.key)))
}

fn meets(wanted: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let listed = found.is_some_and(|found| values.iter().any(|value| value == found));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let limit = number(values.first().map(String::as_str));
    match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => number(found).zip(limit).is_some_and(|(found, limit)| found > limit),
        "Lt" => number(found).zip(limit).is_some_and(|(found, limit)| found < limit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn selectors_and_terms_choose_nodes() {
        let labels =
            BTreeMap::from([("disk".to_owned(), "ssd".to_owned()), ("cores".to_owned(), "8".to_owned())]);
        let check = |spec: Value, expected: bool| {
            let pod: PodSpec = serde_json::from_value(spec.clone()).unwrap();
            assert_eq!(admits(&pod, "node-1", &labels), expected, "{spec}");
        };
        let terms = |terms: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        check(json!({"containers": []}), true);
        check(json!({"containers": [], "nodeSelector": {"disk": "ssd"}}), true);
        check(json!({"containers": [], "nodeSelector": {"disk": "tape"}}), false);
        let named = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        check(terms(json!([named("node-1")])), true);
        check(terms(json!([named("node-2")])), false);
        check(terms(json!([named("node-2"), named("node-1")])), true);
        check(terms(json!([{}])), false);
        let label = |operator: &str, values: Value| json!([{"matchExpressions": [{"key": "cores", "operator": operator, "values": values}]}]);
        check(terms(label("Gt", json!(["4"]))), true);
        check(terms(label("Lt", json!(["4"]))), false);
        check(terms(label("NotIn", json!(["4"]))), true);
        check(terms(label("DoesNotExist", json!([]))), false);
    }
}
