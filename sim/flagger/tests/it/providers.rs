//! The metrics providers, each against a server that speaks its protocol.

use crd::Phase;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{Run, canary};

/// A provider: its type, the Secret's keys, its query, an answer with the value 4, an answer without a value, and what
/// the latter leads to.
struct Case {
    kind: &'static str,
    keys: &'static [&'static str],
    query: &'static str,
    good: String,
    empty: String,
    /// What is asked, without the scheme.
    asked: &'static str,
    halt: &'static str,
}

fn influx(value: &str) -> String {
    format!(
        "#datatype,string,long,double\r\n#group,false,false,false\r\n#default,_result,,\r\n,result,table,_value\r\n\
         ,,0,{value}\r\n\r\n"
    )
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            kind: "prometheus",
            keys: &["username", "password"],
            query: "errors{app=\"{{ target }}\"}",
            good: json!({"data": {"resultType": "vector", "result": [{"value": [0, "4"]}]}}).to_string(),
            empty: json!({"data": {"resultType": "vector", "result": []}}).to_string(),
            asked: "GET http://prometheus.test/api/v1/query?query=errors%7Bapp%3D%22podinfo%22%7D Basic dXNlcm5hbWU6cGFzc3dvcmQ=",
            halt: "no values found",
        },
        Case {
            kind: "datadog",
            keys: &["datadog_api_key", "datadog_application_key"],
            query: "avg:errors{service:{{ service }}}",
            good: json!({"series": [{"pointlist": [[1577232000000.0, 4.0], [1577318400000.0, 9.0]]}]})
                .to_string(),
            empty: json!({"series": []}).to_string(),
            asked: "&query=avg%3Aerrors%7Bservice%3Apodinfo%7D&to=",
            halt: "invalid response: {\"series\":[]}: no values found",
        },
        Case {
            kind: "newrelic",
            keys: &["newrelic_account_id", "newrelic_query_key"],
            query: "SELECT max(errors) FROM Metric WHERE app = '{{ target }}'",
            good: json!({"results": [{"result": 4.0}]}).to_string(),
            empty: json!({"results": []}).to_string(),
            asked: "/v1/accounts/newrelic_account_id/query?nrql=SELECT+max%28errors%29+FROM+Metric+WHERE+app+%3D+%27podinfo%27+SINCE+60+seconds+ago newrelic_query_key",
            halt: "invalid response: {\"results\":[]}: no values found",
        },
        Case {
            kind: "graphite",
            keys: &["username", "password"],
            query: "target=errors.{{ target }}&from=-{{ interval }}",
            good: json!([{"target": "errors", "datapoints": [[9.0, 1], [4.0, 2], [null, 3]]}]).to_string(),
            empty: "[]".to_owned(),
            asked: "GET http://graphite.test/render?format=json&from=-1m&target=errors.podinfo Basic",
            halt: "no values found",
        },
        Case {
            kind: "influxdb",
            keys: &["token", "org"],
            query: "from(bucket: \"{{ namespace }}\") |> last()",
            good: influx("4"),
            empty: influx(""),
            asked: "POST http://influxdb.test/api/v2/query?org=org Token token",
            halt: "invalid response: result:,table:0,_value:: no values found",
        },
        Case {
            kind: "dynatrace",
            keys: &["dynatrace_token"],
            query: "builtin:errors:filter(eq(app,{{ target }}))",
            good: json!({"result": [{"data": [{"timestamps": [1], "values": [4.0]}]}]}).to_string(),
            empty: json!({"result": []}).to_string(),
            asked: "&metricSelector=builtin%3Aerrors%3Afilter%28eq%28app%2Cpodinfo%29%29&resolution=Inf&to=",
            halt: "invalid response: {\"result\":[]}: no values found",
        },
    ]
}

fn template(name: &str, kind: &str, query: &str, has_secret: bool) -> Value {
    let mut provider = json!({"type": kind, "address": format!("http://{kind}.test")});
    if has_secret {
        provider["secretRef"] = json!({"name": name});
    }
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "MetricTemplate",
           "metadata": {"name": name, "namespace": "test"}, "spec": {"provider": provider, "query": query}})
}

/// A deployed podinfo whose only metric is that of a template.
async fn deploy(run: &Run, template: &str) {
    run.create(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "podinfo", "namespace": "test"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "podinfo"}}, "template": {
                "metadata": {"labels": {"app": "podinfo"}},
                "spec": {"containers": [{"name": "podinfod", "image": "podinfo:3.1.0"}]}}}}))
        .await;
    let metric = json!({"name": "errors", "interval": "1m", "thresholdRange": {"max": 5}, "templateRef": {"name": template}});
    let analysis =
        json!({"interval": "10s", "threshold": 1, "stepWeight": 50, "maxWeight": 50, "metrics": [metric]});
    run.create(canary(json!({"analysis": analysis}))).await;
    run.until(Phase::Initialized).await;
}

#[test]
fn each_provider_is_asked_in_its_own_words() {
    for case in cases() {
        clock::run_simulated("2026-03-17T11:00:00Z".parse().unwrap(), |clock| async move {
            let run = Run::start(clock, "1.44.0", &[]).await;
            let secret: serde_json::Map<_, _> =
                case.keys.iter().map(|key| ((*key).to_owned(), json!(key))).collect();
            run.create(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "errors", "namespace": "test"},
                              "type": "Opaque", "stringData": secret}))
                .await;
            run.create(template("errors", case.kind, case.query, true)).await;
            let host = format!("{}.test", case.kind);
            run.world.answers(&host, 200, &case.good);
            deploy(&run, "errors").await;
            run.release("podinfo:3.1.1").await;
            run.until(Phase::Succeeded).await;
            let asked = run.world.details.lock().unwrap().clone();
            assert!(asked.iter().any(|line| line.contains(case.asked)), "{}: {asked:#?}", case.kind);
            if case.kind == "datadog" {
                let signed = asked.iter().find(|line| line.contains(case.asked)).unwrap();
                assert!(signed.ends_with(" datadog_api_key datadog_application_key"), "{signed}");
            }

            run.world.answers(&host, 200, &case.empty);
            run.release("podinfo:3.1.2").await;
            run.until(Phase::Failed).await;
            let halt = format!("Halt advancement no values found for custom metric: errors: {}", case.halt);
            assert!(run.last_run().contains(&halt), "{halt}\n{:#?}", run.last_run());

            run.world.answers(&host, 500, "down");
            run.release("podinfo:3.1.3").await;
            let failed = "Metric query failed for errors: ";
            for _ in 0..60 {
                run.clock.sleep(std::time::Duration::from_secs(1)).await;
            }
            let told = run.last_run();
            let told = told.iter().find(|message| message.starts_with(failed));
            assert!(told.is_some_and(|told| told.contains("down")), "{}: {:#?}", case.kind, run.last_run());
            run.tasks.abort_all();
        });
    }
}

#[test]
fn keptn_is_asked_through_the_kubernetes_api() {
    clock::run_simulated("2026-03-17T11:00:00Z".parse().unwrap(), |clock| async move {
        let run = Run::start(clock, "1.44.0", &[]).await;
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        run.create(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "keptnmetrics.metrics.keptn.sh"},
            "spec": {"group": "metrics.keptn.sh", "scope": "Namespaced",
                "names": {"kind": "KeptnMetric", "listKind": "KeptnMetricList", "plural": "keptnmetrics", "singular": "keptnmetric"},
                "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}]},
        }))
        .await;
        run.create(json!({"apiVersion": "metrics.keptn.sh/v1beta1", "kind": "KeptnMetric",
            "metadata": {"name": "errors", "namespace": "test"}, "status": {"value": "4.5"}}))
            .await;
        run.create(template("errors", "keptn", "keptnmetric/{{ namespace }}/errors", false)).await;
        deploy(&run, "errors").await;
        run.release("podinfo:3.1.1").await;
        run.until(Phase::Succeeded).await;
        run.tasks.abort_all();
    });
}

#[test]
fn clouds_are_not_supported_and_templates_name_what_is_wrong() {
    clock::run_simulated("2026-03-17T11:00:00Z".parse().unwrap(), |clock| async move {
        let run = Run::start(clock, "1.44.0", &[]).await;
        run.create(template("cloud", "cloudwatch", "[]", false)).await;
        run.create(template("broken", "prometheus", "{{ nothing }}", false)).await;
        deploy(&run, "cloud").await;
        let api: Api<crd::Canary> = Api::namespaced(run.client.clone(), "test");
        let mut image = 0;
        for (name, expected) in [
            (
                "cloud",
                "Metric template cloud.test provider cloudwatch error: provider cloudwatch is not supported",
            ),
            ("absent", "Metric template absent.test error: metrictemplate.flagger.app \"absent\" not found"),
            (
                "broken",
                "Metric template broken.test query render error: template parsing failed: template: tmpl:1: function \
                 \"nothing\" not defined",
            ),
        ] {
            let metric = json!({"name": "errors", "interval": "1m", "templateRef": {"name": name}});
            let patch = json!({"spec": {"analysis": {"metrics": [metric]}}});
            api.patch("podinfo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            image += 1;
            run.release(&format!("podinfo:4.0.{image}")).await;
            run.until(Phase::Progressing).await;
            run.until(Phase::Failed).await;
            assert!(run.last_run().contains(&expected.to_owned()), "{expected}\n{:#?}", run.last_run());
        }
        run.tasks.abort_all();
    });
}
