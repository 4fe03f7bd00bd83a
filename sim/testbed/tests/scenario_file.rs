//! What is said about scenario files that are wrong: the place, the problem, and the way out.

use std::path::Path;

use testbed::scenario::{Loaded, schema};

const HEAD: &str = "\
apiVersion: coalmine.dev/v1alpha1
kind: Scenario
metadata: {name: sample}
spec:
  clusters:
    - {name: asm, role: controlPlane}
    - {name: mesh01}
  repositories:
    - url: https://git.example.com/samples.git
      files: {app/deployment.yaml: \"image: stefanprodan/podinfo:3.1.0\"}
  traffic:
    - {name: users, url: 'http://app.example.com/', from: {gateway: {cluster: mesh01}}, open: {rate: 10}}
";

fn parse(rest: &str) -> Result<Loaded, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    Loaded::parse("s.yaml", folder, &format!("{HEAD}{rest}")).map_err(|error| error.to_string())
}

#[track_caller]
fn check(rest: &str, expected: &str) {
    let error = parse(rest).map(drop).expect_err("the scenario is wrong");
    assert!(error.contains(expected), "expected {expected:?} in:\n{error}");
}

#[test]
fn a_whole_scenario_is_read() {
    let rest = "
  steps:
    - apply:
        cluster: mesh01
        objects: [{apiVersion: v1, kind: Namespace, metadata: {name: test}}]
    - wait: {rollout: {cluster: mesh01, namespace: test, deployment: podinfo}, timeout: 2m}
    - mark: release
      git:
        repository: https://git.example.com/samples.git
        branch: release
        from: main
        changes: [{file: app/deployment.yaml, image: 'stefanprodan/podinfo:3.1.1'}]
        mergeInto: main
    - {at: release+4m19s, sleep: 1s}
    - {get: {cluster: mesh01, kind: canaries}}
  until: {canary: {cluster: mesh01, namespace: test, name: podinfo, phase: Succeeded}}
  expect:
    - log: {cluster: mesh01, workload: flagger, from: release, lines: [a, b]}
    - share: {version: 3.1.1, min: 0.1}
    - errors: {traffic: users, max: 0}
";
    let loaded = parse(rest).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.scenario.spec.steps.len(), 5);
    assert_eq!(loaded.scenario.spec.steps[3].value.at.as_ref().unwrap().to_string(), "release+4m19s");
}

#[test]
fn unknown_fields_name_the_place_and_the_nearest_field() {
    check(
        "  steps:\n    - {aply: {cluster: mesh01}}\n",
        "s.yaml:14:8: unknown field \"aply\": did you mean \"apply\"?",
    );
    check("  sed: 3\n", "s.yaml:13:3: unknown field \"sed\": did you mean \"seed\"?");
    check(
        "  steps:\n    - wait: {canary: {cluster: mesh01, name: p}}\n",
        "the field \"namespace\" is missing",
    );
}

#[test]
fn scalars_say_how_they_are_written() {
    check("  timeout: 5 minutes\n", "\"5 minutes\" is no duration: write e.g. 30s, 1m30s or 250ms");
    check("  steps: [{sleep: fast}]\n", "s.yaml:13:19: \"fast\" is no duration");
    check("  steps: 3\n", "s.yaml:13:10:");
    check("  steps:\n   - a: [\n", "s.yaml:1");
}

#[test]
fn names_that_nothing_has_are_all_found() {
    let error = parse(
        "  steps:
    - {get: {cluster: mesh1, kind: pods}}
    - {traffic: {start: user}}
    - {at: relase+1s, sleep: 1s}
    - {git: {repository: 'https://git.example.com/sample.git', branch: b, from: main}}
    - {mark: release}
  expect:
    - {canary: {cluster: mesh02, namespace: test, name: podinfo, phase: Suceeded}}
    - {object: {cluster: mesh01, kind: Pod, name: p, path: '{.a', equals: 1}}
    - {log: {workload: w, mode: regex, lines: ['(']}}
",
    )
    .map(drop)
    .unwrap_err();
    for expected in [
        "s.yaml:14:7: there is no cluster \"mesh1\"; did you mean \"mesh01\"?",
        "s.yaml:15:7: there is no traffic \"user\"; did you mean \"users\"?",
        "s.yaml:16:7: no step has the mark \"relase\"; did you mean \"release\"?",
        "there is no repository \"https://git.example.com/sample.git\"; did you mean",
        "there is no cluster \"mesh02\"; did you mean \"mesh01\"?",
        "a Canary has no phase \"Suceeded\"; did you mean \"Succeeded\"?",
        "JSONPath \"{.a\"",
        "the regular expression \"(\": unclosed group",
    ] {
        assert!(error.contains(expected), "expected {expected:?} in:\n{error}");
    }
    assert_eq!(error.lines().count(), 8, "{error}");
}

#[test]
fn files_and_changes_are_tried_before_the_run() {
    check("  steps: [{apply: {cluster: mesh01, file: none.yaml}}]\n", "apply: none.yaml: No such file");
    check("  steps: [{apply: {cluster: mesh01, folder: none}}]\n", "apply: none:");
    check(
        "  steps: [{apply: {cluster: mesh01, objects: [{kind: Pod, metadata: {name: p}}]}}]\n",
        "objects[0]: document 1: Pod: apiVersion is missing",
    );
    check(
        "  steps: [{apply: {cluster: mesh01}}]\n",
        "apply needs one of file, files, folder, kustomize, objects",
    );
    check("  steps: [{name: nothing}]\n", "the step does nothing");
    check("  steps: [{sleep: 1s, traffic: {start: users}}]\n", "a step has one action, not sleep, traffic");
}

#[test]
fn the_schema_names_every_field() {
    let schema = schema();
    assert_eq!(schema["title"], "Coalmine");
    let step = &schema["$defs"]["Step"]["properties"];
    for field in ["at", "apply", "wait", "git", "fault", "request"] {
        assert!(step[field].is_object(), "{field} is missing in {step}");
    }
    assert_eq!(schema["$defs"]["Step"]["additionalProperties"], false);
}
