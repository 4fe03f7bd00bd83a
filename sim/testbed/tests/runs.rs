//! Runs of small scenarios: what steps do to the API, and what is said when they cannot.

use std::path::Path;

use testbed::scenario::Loaded;
use testbed::{FailureKind, Outcome, RunOptions, Status, run};

fn outcome(rest: &str) -> Outcome {
    let head = "\
apiVersion: coalmine.dev/v1alpha1
kind: Scenario
metadata: {name: sample}
spec:
  clusters: [{name: mesh01}, {name: mesh02}]
  repositories:
    - url: https://git.example.com/samples.git
      files: {app.yaml: 'image: podinfo:1'}
";
    let text = format!("{head}{rest}");
    let loaded = Loaded::parse("s.yaml", Path::new(""), &text).unwrap_or_else(|error| panic!("{error}"));
    run(&loaded, &RunOptions::default())
}

#[track_caller]
fn passes(rest: &str) -> Outcome {
    let outcome = outcome(rest);
    assert!(outcome.passed(), "{:?} {:?}", outcome.status, outcome.expectations);
    outcome
}

#[track_caller]
fn fails(rest: &str, kind: FailureKind, expected: &[&str]) {
    let outcome = outcome(rest);
    let Status::Failed(failure) = &outcome.status else { panic!("the run did not fail") };
    let text = format!("{}: {}", failure.place, failure.message);
    assert_eq!(failure.kind, kind, "{text}");
    for part in expected {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }
}

const CONFIG: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {colour: red}}";

#[test]
fn objects_are_applied_patched_asserted_and_deleted() {
    passes(&format!(
        "  steps:
    - apply: {{cluster: mesh01, namespace: test, objects: [{{apiVersion: v1, kind: Namespace, metadata: {{name: test}}}}, {CONFIG}]}}
    - assert: {{cluster: mesh01, kind: ConfigMap, namespace: test, name: c, path: .data.colour, equals: red}}
    - patch: {{cluster: mesh01, kind: ConfigMap, namespace: test, name: c, patch: {{data: {{colour: blue}}}}}}
    - patch: {{cluster: mesh01, kind: ConfigMap, namespace: test, name: c, type: json, patch: [{{op: add, path: /data/x, value: z}}]}}
    - wait: {{object: {{cluster: mesh01, kind: ConfigMap, namespace: test, name: c, contains: {{data: {{colour: blue, x: z}}}}}}}}
    - {{get: {{cluster: mesh01, kind: cm, namespace: test}}}}
    - delete: {{cluster: mesh01, kind: ConfigMap, namespace: test, name: c}}
    - delete: {{cluster: mesh01, kind: ConfigMap, namespace: test, name: c, ignoreMissing: true}}
  expect:
    - object: {{cluster: mesh01, kind: ConfigMap, namespace: test, name: c, absent: true}}
    - object: {{cluster: mesh02, kind: Namespace, name: test, absent: true}}
"
    ));
}

#[test]
fn moments_count_from_the_start_and_from_marks() {
    let outcome = passes(
        "  steps:
    - {at: 10s, mark: release}
    - {at: release+5s, mark: later}
    - {after: 2s, sleep: 3s}
  expect:
    - duration: {from: release, until: later, min: 5s, max: 5s}
    - duration: {max: 20s, min: 20s}
",
    );
    assert_eq!(outcome.virtual_time.as_secs(), 20);
}

#[test]
fn a_wait_that_never_comes_true_shows_the_last_state() {
    let wait = "wait: {object: {cluster: mesh01, kind: ConfigMap, name: c, path: .data.colour, equals: blue}, timeout: 30s}";
    fails(
        &format!("  steps:\n    - apply: {{cluster: mesh01, objects: [{CONFIG}]}}\n    - {wait}\n"),
        FailureKind::Unmet,
        &[
            "s.yaml:11:7: step 2 (wait): after 30s of virtual time",
            ".data.colour is \"red\", not \"blue\"",
            "colour: red",
        ],
    );
    fails(
        "  timeout: 1m\n  steps:\n    - wait: {canary: {cluster: mesh01, namespace: test, name: p, phase: Failed}}\n",
        FailureKind::Unmet,
        &["after 1m0s of virtual time", "Canary"],
    );
    fails("  timeout: 1m\n  steps:\n    - sleep: 2m\n", FailureKind::Unmet, &["has not ended after 1m0s"]);
    fails(
        "  steps:\n    - wait: {log: {workload: flagger, message: hello}, timeout: 10s}\n",
        FailureKind::Unmet,
        &["flagger has not printed \"hello\"; it printed nothing"],
    );
}

#[test]
fn what_the_api_or_git_refuses_is_unusable_input() {
    let apply = |object: &str| format!("  steps:\n    - apply: {{cluster: mesh01, objects: [{object}]}}\n");
    fails(
        &apply("{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}}"),
        FailureKind::Unusable,
        &["step 1 (apply)", "no matches for kind \"Widget\" in version \"example.com/v1\" in cluster mesh01"],
    );
    fails(
        &apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: nowhere}}"),
        FailureKind::Unusable,
        &["ConfigMap nowhere/c in cluster mesh01", "namespaces \"nowhere\" not found"],
    );
    let git = |rest: &str| {
        format!("  steps:\n    - git: {{repository: 'https://git.example.com/samples.git', {rest}}}\n")
    };
    fails(
        &git("branch: release, from: latest"),
        FailureKind::Unusable,
        &["unable to resolve 'latest' to a commit SHA: the repository has the branches main"],
    );
    fails(
        &git("branch: main, changes: [{file: ap.yaml, image: 'podinfo:2'}]"),
        FailureKind::Unusable,
        &["there is no file \"ap.yaml\" in the repository; did you mean \"app.yaml\"?"],
    );
    fails(
        &git("branch: main, changes: [{file: app.yaml, image: 'podinf:2'}]"),
        FailureKind::Unusable,
        &["app.yaml: no line `image: podinf:…` to change"],
    );
}

#[test]
fn faults_of_the_api_strike_as_told() {
    passes(
        "  steps:
    - fault: {api: {cluster: mesh01, status: 503, users: [coalmine], verbs: [get], resources: [configmaps], duration: 10s}}
    - wait: {object: {cluster: mesh01, kind: ConfigMap, name: c, absent: true}, timeout: 20s}
    - sleep: 20s
    - assert: {cluster: mesh01, kind: ConfigMap, name: c, absent: true}
",
    );
}
