//! Disruption budgets: whether a pod may be evicted now.
//!
//! A real cluster's disruption controller keeps the count in the budget's status; here it is taken when somebody asks.

use tree::{Value, json};

use crate::failure::Failure;
use crate::selector::LabelSelector;
use crate::store::Store;

const BUDGETS: &str = "poddisruptionbudgets.policy";

/// Whether all budgets allow the pod's eviction.
///
/// # Errors
/// 429 by the first that does not.
pub(crate) fn check(store: &Store, pod: &Value) -> Result<(), Failure> {
    let finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if finished || !pod["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let of_namespace = |collection: &str| -> Vec<&Value> {
        let objects = store.collection(collection).into_iter().flat_map(|found| found.objects.iter());
        objects.filter(|(key, _)| key.0 == namespace).map(|(_, stored)| &stored.value).collect()
    };
    for budget in of_namespace(BUDGETS) {
        let Ok(selector) = LabelSelector::from_object(&budget["spec"]["selector"]) else { continue };
        if !selector.matches(pod) {
            continue;
        }
        let guarded: Vec<&Value> =
            of_namespace("pods").into_iter().filter(|pod| selector.matches(pod)).collect();
        let healthy = guarded.iter().filter(|pod| is_healthy(pod)).count();
        let needed = needed(&budget["spec"], guarded.len());
        // A pod that is not ready does not lower the count.
        let left = if is_healthy(pod) { healthy.saturating_sub(1) } else { healthy };
        if left < needed {
            return Err(refusal(budget, needed, healthy));
        }
    }
    Ok(())
}

fn is_healthy(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(tree::Array::as_slice).unwrap_or_default();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// How many of `expected` pods must be healthy; percentages round up.
fn needed(spec: &Value, expected: usize) -> usize {
    let scaled = |value: &Value| match value {
        Value::Number(number) => usize::try_from(number.as_u64().unwrap_or(0)).unwrap_or(usize::MAX),
        Value::String(text) => {
            let percent = text.trim_end_matches('%').parse::<usize>().unwrap_or(0);
            (expected * percent).div_ceil(100)
        }
        _ => 0,
    };
    if spec["maxUnavailable"].is_null() {
        scaled(&spec["minAvailable"])
    } else {
        expected.saturating_sub(scaled(&spec["maxUnavailable"]))
    }
}

fn refusal(budget: &Value, needed: usize, healthy: usize) -> Failure {
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut failure = Failure::new(429, "TooManyRequests", message);
    failure.details = json!({"causes": [{"reason": "DisruptionBudget", "message":
        format!("The disruption budget {name} needs {needed} healthy pods and has {healthy} currently")}]});
    failure
}
