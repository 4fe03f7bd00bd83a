//! How many replicas a figure from outside of the cluster asks for; follows
//! `pkg/controller/podautoscaler/replica_calculator.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricSource, ExternalMetricStatus, MetricStatus, MetricValueStatus,
};
use k8s_openapi::api::core::v1::Pod;

use super::super::ExternalMetrics;
use super::super::pod_state::is_ready;
use super::super::quantity::{from_milli, milli_value};
use super::replica_calculator::{rounded_up, tolerable};

/// Replicas wanted, the metric's name for conditions, and its status.
type Answer = Result<(i32, String, MetricStatus), (&'static str, String)>;

/// Replicas wanted by one metric for a workload of `current` replicas with these pods.
///
/// # Errors
/// The Event's reason, and why nothing can be said, in upstream's words.
pub(super) fn propose(
    source: &ExternalMetricSource,
    metrics: Option<&dyn ExternalMetrics>,
    namespace: &str,
    current: i32,
    pods: &[Arc<Pod>],
) -> Answer {
    let reason = "FailedGetExternalMetric";
    let labels = source.metric.selector.as_ref().and_then(|selector| selector.match_labels.clone());
    let labels: BTreeMap<String, String> = labels.unwrap_or_default();
    let shown: Vec<String> = labels.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let name = format!(
        "external metric {}(&LabelSelector{{MatchLabels:map[string]string{{{},}},MatchExpressions:\
         []LabelSelectorRequirement{{}},}})",
        source.metric.name,
        shown.join(",")
    );
    let values = metrics.and_then(|metrics| metrics.values(namespace, &source.metric.name, &labels));
    let Some(values) = values.filter(|values| !values.is_empty()) else {
        let missing = "unable to fetch metrics from external metrics API: the server could not find the requested resource";
        return Err((
            reason,
            format!(
                "unable to get external metric {namespace}/{}/{}: {missing}",
                source.metric.name,
                shown.join(",")
            ),
        ));
    };
    // Quantities have a thousandth as their smallest part.
    let usage = (values.iter().sum::<f64>() * 1000.0).ceil() as i64;
    let target = |amount| milli_value(amount).filter(|milli| *milli > 0);
    let (replicas, value) = if let Some(each) = source.target.average_value.as_ref().and_then(target) {
        let ratio = usage as f64 / (each as f64 * f64::from(current));
        let wanted = if tolerable(ratio) { current } else { rounded_up(usage as f64 / each as f64) };
        let average = usage as f64 / f64::from(current.max(1));
        (
            wanted,
            MetricValueStatus {
                average_value: Some(from_milli(average.ceil() as i64)),
                ..Default::default()
            },
        )
    } else if let Some(all) = source.target.value.as_ref().and_then(target) {
        let ratio = usage as f64 / all as f64;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        let wanted = if tolerable(ratio) { current } else { rounded_up(ratio * ready as f64) };
        (wanted, MetricValueStatus { value: Some(from_milli(usage)), ..Default::default() })
    } else {
        let invalid =
            "invalid external metric source: neither a value target nor an average value target was set";
        return Err((reason, invalid.to_owned()));
    };
    let status = MetricStatus {
        type_: "External".to_owned(),
        external: Some(ExternalMetricStatus { current: value, metric: source.metric.clone() }),
        ..MetricStatus::default()
    };
    Ok((replicas, name, status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Flat(f64);

    impl ExternalMetrics for Flat {
        fn values(&self, _: &str, metric: &str, _: &BTreeMap<String, String>) -> Option<Vec<f64>> {
            (metric == "queue").then(|| vec![self.0])
        }
    }

    #[test]
    fn a_figure_per_pod_or_for_all_asks_for_replicas() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}
        }))
        .unwrap();
        let pod = Arc::new(pod);
        let pods = vec![Arc::clone(&pod), pod];
        let check = |target: serde_json::Value, figure: f64, expected: i32| {
            let source = json!({"metric": {"name": "queue"}, "target": target});
            let source: ExternalMetricSource = serde_json::from_value(source).unwrap();
            let found = propose(&source, Some(&Flat(figure)), "test", 2, &pods).unwrap();
            assert_eq!(found.0, expected, "{target} of {figure}");
        };
        let each = json!({"type": "AverageValue", "averageValue": "10"});
        check(each.clone(), 45.0, 5);
        check(each.clone(), 21.0, 2);
        check(each, 3.0, 1);
        check(json!({"type": "Value", "value": "10"}), 30.0, 6);
        let source = json!({"metric": {"name": "other"}, "target": {"type": "Value", "value": "1"}});
        let source: ExternalMetricSource = serde_json::from_value(source).unwrap();
        let (reason, message) = propose(&source, Some(&Flat(1.0)), "test", 2, &pods).unwrap_err();
        assert_eq!(reason, "FailedGetExternalMetric");
        assert!(
            message.starts_with("unable to get external metric test/other/: unable to fetch"),
            "{message}"
        );
    }
}
