//! One outcome, and every way in which it is shown.

use std::sync::Arc;
use std::time::Duration;

use testbed::timeline::{CanaryState, Entry, Event};
use testbed::{CanaryOutcome, ExpectationResult, Mismatch, Outcome, Status, TrafficSummary, VersionSummary};

fn outcome() -> Outcome {
    let start = "2020-03-17T11:00:00Z".parse().unwrap();
    let source = Arc::new(program::LogSource {
        cluster: "mesh02".into(),
        namespace: "istio-system".into(),
        pod: "flagger-1".into(),
        workload: "flagger".into(),
        container: "flagger".into(),
        run: 0,
    });
    let at = |seconds: &str| format!("2020-03-17T11:{seconds}Z").parse().unwrap();
    let line = r#"{"level":"info","msg":"Advance podinfo.test canary weight 10","canary":"podinfo.test"}"#;
    let state = CanaryState {
        cluster: "mesh02".into(),
        namespace: "test".into(),
        name: "podinfo".into(),
        phase: "Progressing".into(),
        weight: 10,
        failed_checks: 1,
        served: vec![("3.1.0".into(), 90), ("3.1.1".into(), 10)],
    };
    Outcome {
        scenario: "sample".into(),
        file: "my scenarios/sample.yaml".into(),
        seed: 7,
        start,
        virtual_time: Duration::from_secs(259),
        wall_time: None,
        status: Status::Finished,
        canaries: vec![CanaryOutcome {
            cluster: "mesh02".into(),
            namespace: "test".into(),
            name: "podinfo".into(),
            phase: "Failed".into(),
            weight: 0,
        }],
        traffic: vec![TrafficSummary {
            name: "users".into(),
            requests: 101,
            errors: 1,
            error_texts: [("503 Service Unavailable".to_owned(), 1)].into(),
            versions: vec![VersionSummary {
                version: "3.1.0".into(),
                requests: 90,
                p50: Duration::from_micros(2_130),
                p90: Duration::from_micros(12_340),
                p99: Duration::from_millis(40),
                errors: 0,
            }],
            by_mark: std::collections::BTreeMap::new(),
        }],
        expectations: vec![
            ExpectationResult {
                place: "my scenarios/sample.yaml:9:7".into(),
                name: "errors of users".into(),
                passed: true,
                explanation: "1 of 101 requests".into(),
                mismatch: None,
            },
            ExpectationResult {
                place: "my scenarios/sample.yaml:10:7".into(),
                name: "log of flagger".into(),
                passed: false,
                explanation: "the log differs".into(),
                mismatch: Some(Mismatch {
                    expected: vec!["a".into(), "b <&>".into()],
                    found: vec!["a".into(), "c".into()],
                }),
            },
        ],
        golden: None,
        timeline: vec![
            Entry { at: start, event: Event::Mark("release".into()) },
            Entry { at: at("01:00.25"), event: Event::Line { source, text: line.into() } },
            Entry { at: at("01:00.25"), event: Event::Canary(state) },
            Entry { at: at("04:19"), event: Event::Table("NAME\npodinfo".into()) },
        ],
    }
}

#[test]
fn the_timeline_has_a_line_per_event() {
    let expected = "\
sample started at 2020-03-17T11:00:00Z, seed 7
     time  cluster  component  message
0:00:00.0           mark       ── release ──
0:01:00.3  mesh02   flagger    Advance podinfo.test canary weight 10
0:01:00.3  mesh02   canary     test/podinfo Progressing ██░░░░░░░░░░░░░░░░░░ weight 10, 1 failed checks \
(answers since: 3.1.0: 90, 3.1.1: 10)
0:04:19.0                      NAME
                               podinfo
";
    assert_eq!(report::timeline(&outcome()), expected);
}

#[test]
fn the_summary_fits_a_screen() {
    let expected = "\
FAIL sample
  canary         test/podinfo in mesh02: Failed, weight 0
  virtual time   4m19s
  seed           7
  traffic        users: 101 requests, 1 errors
    1 × 503 Service Unavailable
    version   answers  errors      p50      p90      p99
    3.1.0          90       0   2.13ms   12.3ms   40.0ms
  expectations   1 of 2 hold
    pass  errors of users: 1 of 101 requests
    FAIL  log of flagger: the log differs
      at my scenarios/sample.yaml:10:7
      --- expected
      +++ found
      @@ -1,2 +1,2 @@
       a
      -b <&>
      +c
  replay         coalmine run 'my scenarios/sample.yaml' --seed 7
";
    assert_eq!(report::summary(&outcome()), expected);
    let line = report::one_line(&outcome());
    assert!(
        line.starts_with("FAIL sample ") && line.ends_with("(log of flagger: the log differs)"),
        "{line}"
    );
}

#[test]
fn machines_get_json_lines_the_plain_log_and_junit() {
    let outcome = outcome();
    let lines: Vec<serde_json::Value> =
        report::json_lines(&outcome).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[1]["message"], "Advance podinfo.test canary weight 10");
    assert_eq!(lines[2]["served"]["3.1.1"], 10);
    assert_eq!(lines[3]["elapsed"], 259.0);
    assert_eq!(report::flagger_log(&outcome).lines().count(), 1);
    assert!(report::flagger_log(&outcome).starts_with("{\"level\":\"info\""));
    let junit = report::junit(&[outcome]);
    assert!(junit.contains("tests=\"3\" failures=\"1\""), "{junit}");
    assert!(junit.contains("-b &lt;&amp;&gt;"), "{junit}");
}
