//! The metrics provider `keptn` (newer dialect): values that Keptn writes into objects of the Kubernetes API.

use std::time::Duration;

use kube::api::DeleteParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use program::Api;
use serde_json::{Map, json};

use crate::kubernetes::text;
use crate::shell::Shell;

/// The longest that an Analysis may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a query asks for: `keptnmetric/NAMESPACE/NAME` or `analysis/NAMESPACE/NAME[/DURATION[/KEY=VALUE;…]]`.
#[derive(Clone, Debug, PartialEq)]
struct Question {
    is_analysis: bool,
    namespace: String,
    name: String,
    duration: String,
    arguments: Map<String, serde_json::Value>,
}

/// A KeptnMetric's value, or 1 for an Analysis that passed and 0 for one that did not.
pub async fn query(shell: &Shell, query: &str) -> Result<f64, String> {
    let question = parse(query)?;
    if question.is_analysis { analyse(shell, &question).await } else { metric(shell, &question).await }
}

fn parse(query: &str) -> Result<Question, String> {
    let text = query.to_lowercase();
    let parts: Vec<&str> = text.trim().split('/').collect();
    let [kind, namespace, name, rest @ ..] = parts.as_slice() else {
        return Err("unexpected query format. query must be in the format \
                    <keptnmetric|analysis>/<namespace>/<resourceName>/<duration>/<arguments>"
            .to_owned());
    };
    let is_analysis = match *kind {
        "keptnmetric" | "keptnmetrics" => false,
        "analysis" | "analyses" => true,
        _ => {
            return Err("unexpected resource kind provided in the query. must be one of: \
                        ['keptnmetric', 'analysis']"
                .to_owned());
        }
    };
    let pairs = rest.get(1).map_or("", |text| text).split(';');
    let arguments = pairs.filter_map(|pair| pair.split_once('=')).filter(|(_, value)| !value.contains('='));
    Ok(Question {
        is_analysis,
        namespace: (*namespace).to_owned(),
        name: (*name).to_owned(),
        duration: rest.first().map_or("1m", |text| text).to_owned(),
        arguments: arguments.map(|(key, value)| (key.to_owned(), value.into())).collect(),
    })
}

fn objects(shell: &Shell, namespace: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("metrics.keptn.sh", "v1beta1", kind);
    Api::namespaced_with(shell.client.clone(), namespace, &ApiResource::from_gvk_with_plural(&kind, plural))
}

async fn metric(shell: &Shell, question: &Question) -> Result<f64, String> {
    let name = format!("{}/{}", question.namespace, question.name);
    let found = objects(shell, &question.namespace, "KeptnMetric", "keptnmetrics").get(&question.name).await;
    let found = found.map_err(|error| format!("could not retrieve KeptnMetric {name}: {}", text(&error)))?;
    let Some(value) = found.data["status"]["value"].as_str() else {
        return Err(format!("could not retrieve KeptnMetric - no value found in resource {name}"));
    };
    value.parse().map_err(|_| {
        format!(
            "could not parse value of KeptnMetric {name} to float: strconv.ParseFloat: parsing {value:?}: invalid \
             syntax"
        )
    })
}

async fn analyse(shell: &Shell, question: &Question) -> Result<f64, String> {
    let name = format!("{}/{}", question.namespace, question.name);
    let api = objects(shell, &question.namespace, "Analysis", "analyses");
    let object = json!({
        "apiVersion": "metrics.keptn.sh/v1beta1",
        "kind": "Analysis",
        "metadata": {
            "name": format!("{}-{}", question.name, &shell.uuid()[..6]),
            "namespace": question.namespace,
        },
        "spec": {
            "analysisDefinition": {"name": question.name},
            "timeframe": {"recent": question.duration},
            "args": question.arguments,
        },
    });
    let object: DynamicObject = serde_json::from_value(object).map_err(|error| error.to_string())?;
    let made = api.create(&object).await.and_then(|made| made.read());
    let made = made.map_err(|error| format!("could not create Keptn Analysis {name}: {}", text(&error)))?;
    let made = made.metadata.name.clone().unwrap_or_default();
    let verdict = await_verdict(shell, &api, &made, &name).await;
    if let Err(error) = api.delete(&made, &DeleteParams::default()).await {
        shell.context.log.print(&format!("Could not delete Keptn Analysis '{made}': {}", text(&error)));
    }
    verdict
}

async fn await_verdict(
    shell: &Shell,
    api: &Api<DynamicObject>,
    made: &str,
    name: &str,
) -> Result<f64, String> {
    let clock = shell.context.clock;
    let start = clock.elapsed();
    loop {
        clock.sleep(Duration::from_secs(1)).await;
        if clock.elapsed() - start >= PATIENCE {
            return Err(format!(
                "encountered timeout while waiting for Keptn Analysis {name} to be finished"
            ));
        }
        let found = api.get(made).await.map_err(|error| {
            format!("could not check status of created Keptn Analysis {name}: {}", text(&error))
        })?;
        let status = &found.data["status"];
        if status["state"] == "Completed"
            && let Some(passed) = status["pass"].as_bool()
        {
            return Ok(f64::from(u8::from(passed)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_name_an_object() {
        let question = parse("Analysis/test/slo/5m/stage=dev;a=b=c\n").unwrap();
        assert!(question.is_analysis);
        assert_eq!((question.name.as_str(), question.duration.as_str()), ("slo", "5m"));
        assert_eq!(serde_json::Value::from(question.arguments), json!({"stage": "dev"}));
        assert_eq!(parse("keptnmetric/test/rate").unwrap().duration, "1m");
        assert!(parse("keptnmetric/test").unwrap_err().starts_with("unexpected query format"));
        assert!(parse("pod/a/b").unwrap_err().starts_with("unexpected resource kind"));
    }
}
