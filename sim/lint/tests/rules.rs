//! Each rule finds what it is about, and not its remedy.

use lint::{Facts, Finding, Level, RULES, check, reference};
use whatif::manifest::{Document, parse};

const CANARY: &str = "\
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: podinfo, namespace: test}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: podinfo}
  progressDeadlineSeconds: 60
  service:
    port: 9898
    gateways: [public-gateway.istio-system, mesh]
    hosts: [app.example.com]
  analysis:
    interval: 1m
    threshold: 3
    maxWeight: 50
    stepWeight: 10
    metrics:
      - {name: request-success-rate, interval: 1m, thresholdRange: {min: 99}}
      - {name: request-duration, interval: 1m, thresholdRange: {max: 500}}
    webhooks:
      - name: load-test
        url: http://loadtester.test/
        metadata: {cmd: \"hey -z 59s -q 10 -c 2 http://app.example.com/\"}
";

const DEPLOYMENT: &str = "\
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: podinfo, namespace: test}
spec: {minReadySeconds: 5, template: {spec: {containers: [{name: a, readinessProbe: {initialDelaySeconds: 5}}]}}}
";

fn documents(text: &str) -> Vec<Document> {
    parse("canary.yaml", text).unwrap()
}

fn findings(text: &str) -> Vec<Finding> {
    // Enough users for the thresholds, so that each test is about its own rule.
    check(&documents(text), &Facts { rate: 200.0, ..Facts::default() }).unwrap()
}

fn codes(text: &str) -> Vec<&'static str> {
    let mut codes: Vec<_> = findings(text).into_iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// `code` is found in the Canary with `from` replaced by `to`, at that field, and its words hold `part`.
fn expect(code: &str, from: &str, to: &str, field: &str, part: &str) {
    assert!(CANARY.contains(from), "{from}");
    let text = CANARY.replace(from, to);
    let found = findings(&text);
    let Some(finding) = found.iter().find(|finding| finding.code == code) else {
        panic!("{code} in {found:#?}")
    };
    assert_eq!(finding.field, field, "{code}");
    assert!(finding.why.contains(part), "{code}: {:?} has no {part:?}", finding.why);
    assert!(!codes(CANARY).contains(&finding.code), "{code} is found in the sound Canary too");
}

#[test]
fn a_sound_canary_has_notes_at_most() {
    let found = findings(CANARY);
    assert!(found.iter().all(|finding| finding.level == Level::Note), "{found:#?}");
}

#[test]
fn requests_and_load_tests() {
    let few = CANARY.replace("hey -z 59s -q 10 -c 2 http://app.example.com/", "true");
    let found = check(&documents(&few), &Facts { rate: 2.0, ..Facts::default() }).unwrap();
    let finding = found.iter().find(|finding| finding.code == "CM001").unwrap();
    assert!(
        finding.why.contains("at weight 10 the canary gets about 12 requests in 1m0s"),
        "{}",
        finding.why
    );
    expect("CM003", "-z 59s", "-z 20s", "spec.analysis.webhooks[0].metadata", "then nothing for 39s");
    expect(
        "CM003",
        "-z 59s",
        "-z 1m",
        "spec.analysis.webhooks[0].metadata",
        "still runs at 1 of its next calls",
    );
    expect(
        "CM004",
        "//app.example.com",
        "//podinfo-canary.test",
        "spec.analysis.webhooks[0].metadata",
        "synthetic",
    );
    expect(
        "CM005",
        "//app.example.com",
        "//www.example.com",
        "spec.analysis.webhooks[0].metadata",
        "no request reaches",
    );
    let inside = CANARY.replace(", mesh]", "]").replace("//app.example.com", "//podinfo.test");
    let found = findings(&inside);
    let finding = found.iter().find(|finding| finding.code == "CM006").unwrap();
    assert_eq!((finding.level, finding.line), (Level::Error, 9), "{finding:?}");
    let gateway = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: public-gateway, namespace: istio-system}\n\
                   spec: {servers: [{hosts: [\"*.example.org\"]}]}\n";
    assert!(codes(&format!("{CANARY}{gateway}")).contains(&"CM005"));
    assert!(!codes(&format!("{CANARY}{}", gateway.replace("org", "com"))).contains(&"CM005"));
}

#[test]
fn metrics() {
    let prometheus = |scrape: &str| {
        format!(
            "{CANARY}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: p}}\ndata:\n  prometheus.yml: |\n    scrape_configs:\n      - {{job_name: envoy, scrape_interval: {scrape}}}\n"
        )
    };
    let found = findings(&prometheus("45s"));
    let finding = found.iter().find(|finding| finding.code == "CM002").unwrap();
    assert!(finding.level == Level::Error && finding.why.contains("33.3% of the time"), "{finding:?}");
    assert!(codes(&prometheus("30s")).contains(&"CM002"));
    assert!(!codes(&prometheus("15s")).contains(&"CM002"));
    expect("CM007", "max: 500", "max: 300", "spec.analysis.metrics[1].thresholdRange", "from 250 to 500");
    expect(
        "CM010",
        "port: 9898",
        "port: 9898\n    timeout: 200ms",
        "spec.service.timeout",
        "504 after 200ms",
    );
    let old = Facts { dialect: Some("1.0.0-rc.1".to_owned()), rate: 200.0, ..Facts::default() };
    let found = check(&documents(CANARY), &old).unwrap();
    assert!(found.iter().any(|finding| finding.code == "CM008"), "{found:?}");
    let template = "---\napiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nmetadata: {name: latency, namespace: test}\n\
        spec: {provider: {type: prometheus}, query: 'histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket\
        {destination_workload=~\"{{ target }}\"}[{{ interval }}])) by (le))'}\n";
    let uses = "{name: latency, interval: 1m, thresholdRange: {max: 0.5}, templateRef: {name: latency}}";
    let seconds = CANARY.replace("{name: request-duration, interval: 1m, thresholdRange: {max: 500}}", uses);
    let found = findings(&format!("{seconds}{template}"));
    let finding = found.iter().find(|finding| finding.code == "CM008").unwrap();
    assert!(finding.fix.contains("500"), "{finding:?}");
    assert!(codes(CANARY).contains(&"CM009"));
}

#[test]
fn steps() {
    expect(
        "CM011",
        "stepWeight: 10",
        "stepWeight: 20",
        "spec.analysis.maxWeight",
        "20, 40, 60: 10 points past 50",
    );
    expect("CM012", "threshold: 3", "threshold: 10", "spec.analysis.threshold", "promoted in 91%");
    expect("CM013", "min: 99", "min: 95.05", "spec.analysis.threshold", "of its releases");
    expect("CM020", "stepWeight: 10", "stepWeight: 0", "spec.analysis.stepWeight", "never ends");
    expect(
        "CM021",
        "stepWeight: 10",
        "stepWeight: 60",
        "spec.analysis.stepWeight",
        "one passed check promotes",
    );
    expect("CM022", "threshold: 3", "threshold: -1", "spec.analysis.threshold", "counts as 1");
    expect(
        "CM023",
        "  interval: 1m\n    threshold",
        "  interval: 5s\n    threshold",
        "spec.analysis.interval",
        "every 10s",
    );
    expect(
        "CM024",
        "stepWeight: 10",
        "stepWeight: 10\n    iterations: 5",
        "spec.analysis.iterations",
        "refuses the Canary",
    );
    let metrics = &CANARY[CANARY.find("    metrics:").unwrap()..CANARY.find("    webhooks:").unwrap()];
    expect("CM025", metrics, "", "spec.analysis.metrics", "fails every request");
}

#[test]
fn objects_around() {
    let replicas = format!("{CANARY}{}", DEPLOYMENT.replace("spec: {min", "spec: {replicas: 2, min"));
    let found = findings(&replicas);
    let finding = found.iter().find(|finding| finding.code == "CM014").unwrap();
    assert!(finding.level == Level::Warning && finding.object == "Deployment test/podinfo", "{finding:?}");
    let heals = "---\nkind: Application\nmetadata: {name: podinfo}\nspec: {syncPolicy: {automated: {selfHeal: true}}}\n";
    let found = findings(&format!("{replicas}{heals}"));
    assert!(found.iter().any(|finding| finding.code == "CM014" && finding.level == Level::Error));
    assert!(!codes(&format!("{CANARY}{DEPLOYMENT}{heals}")).contains(&"CM014"));

    let scaled = CANARY
        .replace("  service:", "  autoscalerRef: {kind: HorizontalPodAutoscaler, name: podinfo}\n  service:");
    let autoscaler = "---\nkind: HorizontalPodAutoscaler\nmetadata: {name: podinfo, namespace: test}\nspec: {maxReplicas: 40}\n";
    let slow = DEPLOYMENT
        .replace("spec: {min", "spec: {strategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 0}}, min");
    let found = findings(&format!("{scaled}{slow}{autoscaler}"));
    let finding = found.iter().find(|finding| finding.code == "CM016").unwrap();
    assert!(finding.why.contains("8 ticks of 1m0s"), "{}", finding.why);
    assert!(!codes(&format!("{scaled}{DEPLOYMENT}{}", autoscaler.replace("40", "4"))).contains(&"CM016"));
    expect(
        "CM017",
        "  progressDeadlineSeconds: 60\n",
        "",
        "spec.progressDeadlineSeconds",
        "10 ticks of 1m0s",
    );

    let moved = [
        ("k/kustomization.yaml", "kind: Kustomization\nnamespace: test\nresources: [latency.yaml]\n"),
        (
            "k/latency.yaml",
            "kind: MetricTemplate\nmetadata: {name: latency, namespace: istio-system}\nspec: {query: vector(1)}\n",
        ),
    ];
    let uses = "{name: latency, interval: 1m, templateRef: {name: latency, namespace: istio-system}}";
    let canary = CANARY.replace("{name: request-duration, interval: 1m, thresholdRange: {max: 500}}", uses);
    let mut all = documents(&canary);
    all.extend(moved.iter().flat_map(|(file, text)| parse(file, text).unwrap()));
    let found = check(&all, &Facts::default()).unwrap();
    let finding = found.iter().find(|finding| finding.code == "CM015").unwrap();
    assert!(finding.why.contains("ends up in test"), "{finding:?}");
}

#[test]
fn who_is_told_and_asked() {
    let analysis = "  analysis:\n";
    expect(
        "CM018",
        analysis,
        "  analysis:\n    alerts: [{name: on-call, providerRef: {name: slack}}]\n",
        "spec.analysis.alerts[0].severity",
        "nothing is ever sent",
    );
    expect(
        "CM019",
        "    webhooks:\n",
        "    webhooks:\n      - {name: gate, type: confirm-rollout, url: \"http://ci.example.com/\"}\n",
        "spec.analysis.webhooks[0].url",
        "never opens",
    );
}

#[test]
fn every_rule_has_a_code_of_its_own_and_the_reference_is_up_to_date() {
    let mut codes: Vec<_> = RULES.iter().map(|rule| rule.code).collect();
    codes.dedup();
    assert_eq!(codes.len(), RULES.len());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lint.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == reference(), "docs/lint.md is not what the rules say: BLESS=1 cargo test -p lint");
}
