//! What a trigger says. Pure.

use crd::ScaleTrigger;

/// A trigger, read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trigger {
    /// A resource that the kubelet measures.
    Resource {
        /// `cpu` or `memory`.
        name: String,
        /// The container that counts; all if none.
        container: Option<String>,
        /// What the pods should use.
        target: Target,
    },
    /// A PromQL query.
    Prometheus {
        /// The metric's name among the ScaledObject's.
        metric: String,
        /// The server.
        server: String,
        /// The query.
        query: String,
        /// The figure that the pods should have: each, or all together.
        threshold: f64,
        /// Whether the threshold is each pod's.
        is_average: bool,
        /// The figure above which there is something to do.
        activation: f64,
        /// Whether an empty answer is zero.
        ignores_nothing: bool,
    },
}

/// What a resource trigger aims at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Per cent of the requests.
    Utilization(i32),
    /// An amount per pod.
    AverageValue(String),
}

/// Reads the trigger at a place of a ScaledObject's list.
///
/// # Errors
/// What is wrong with it, naming the field.
pub(crate) fn read(index: usize, trigger: &ScaleTrigger) -> Result<Trigger, String> {
    let at = format!("spec.triggers[{index}]");
    let field = |name: &str| trigger.metadata.get(name).filter(|value| !value.is_empty());
    let need = |name: &str| {
        field(name).cloned().ok_or_else(|| {
            format!("error parsing {} metadata: {at}.metadata.{name} is missing", trigger.kind)
        })
    };
    let number = |name: &str, text: &str| {
        text.parse::<f64>().map_err(|_| {
            format!("error parsing {} metadata: {at}.metadata.{name} is {text:?}, not a number", trigger.kind)
        })
    };
    match trigger.kind.as_str() {
        "cpu" | "memory" => {
            let value = need("value")?;
            let kind = match trigger.metric_type.as_str() {
                "" => field("type").map_or("", String::as_str),
                kind => kind,
            };
            let target = match kind {
                "Utilization" => Target::Utilization(value.parse().map_err(|_| {
                    format!(
                        "error parsing {} metadata: {at}.metadata.value is {value:?}, not a percentage",
                        trigger.kind
                    )
                })?),
                "AverageValue" => Target::AverageValue(value),
                other => {
                    return Err(format!(
                        "unsupported metric type {other:?} in {at}: use Utilization or AverageValue"
                    ));
                }
            };
            Ok(Trigger::Resource {
                name: trigger.kind.clone(),
                container: field("containerName").cloned(),
                target,
            })
        }
        "prometheus" => {
            let is_average = match trigger.metric_type.as_str() {
                "" | "AverageValue" => true,
                "Value" => false,
                other => {
                    return Err(format!(
                        "unsupported metric type {other:?} in {at}: use AverageValue or Value"
                    ));
                }
            };
            if trigger.authentication_ref.is_some() {
                return Err(format!("{at}.authenticationRef is not simulated: remove it"));
            }
            Ok(Trigger::Prometheus {
                metric: format!("s{index}-prometheus"),
                server: need("serverAddress")?,
                query: need("query")?,
                threshold: number("threshold", &need("threshold")?)?,
                is_average,
                activation: field("activationThreshold")
                    .map_or(Ok(0.0), |text| number("activationThreshold", text))?,
                ignores_nothing: field("ignoreNullValues").is_none_or(|text| text != "false"),
            })
        }
        other => {
            Err(format!("no scaler found for type: {other} ({at}; simulated are cpu, memory and prometheus)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_their_field() {
        let check = |text: &str, expected: &str| {
            let trigger: ScaleTrigger = serde_saphyr::from_str(text).unwrap();
            assert_eq!(read(1, &trigger).unwrap_err(), expected);
        };
        check(
            "{type: kafka, metadata: {}}",
            "no scaler found for type: kafka (spec.triggers[1]; simulated are cpu, memory and prometheus)",
        );
        check(
            "{type: prometheus, metadata: {serverAddress: 'http://p', query: up, threshold: many}}",
            "error parsing prometheus metadata: spec.triggers[1].metadata.threshold is \"many\", not a number",
        );
        check(
            "{type: cpu, metricType: Utilization, metadata: {}}",
            "error parsing cpu metadata: spec.triggers[1].metadata.value is missing",
        );
        check(
            "{type: cpu, metadata: {value: '60'}}",
            "unsupported metric type \"\" in spec.triggers[1]: use Utilization or AverageValue",
        );
    }
}
