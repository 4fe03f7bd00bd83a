//! Every lint rule has a scenario, and finds what it is about in the manifests that this scenario releases.
//!
//! The scenarios themselves are run by the tests in `tests/scenarios`, as all are.

use std::path::{Path, PathBuf};

use lint::{Facts, RULES, check};
use serde_json::Value;
use whatif::manifest::{self, Document};
use whatif::model::Telemetry;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn file(slug: &str) -> PathBuf {
    root().join("scenarios/lint").join(format!("{slug}.yaml"))
}

/// The scenario as plain data.
fn scenario(slug: &str) -> Value {
    let text = std::fs::read_to_string(file(slug)).unwrap_or_else(|error| panic!("{slug}: {error}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{slug}: {error}"))
}

/// The manifests of the article's folder with the scenario's changes made to them, those of its steps included.
fn manifests(scenario: &Value) -> Vec<Document> {
    let spec = &scenario["spec"];
    let of_repositories =
        spec["repositories"].as_array().into_iter().flatten().map(|repository| &repository["changes"]);
    let of_steps = spec["steps"].as_array().into_iter().flatten().map(|step| &step["git"]["changes"]);
    let changes: Vec<&Value> =
        of_repositories.chain(of_steps).filter_map(Value::as_array).flatten().collect();
    let folder = root().join("fixtures/article");
    let mut files: Vec<(String, String)> = Vec::new();
    for part in ["flagger/podinfo", "flagger/prometheus", "flagger/flagger", "istio/control-plane"] {
        for entry in std::fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{part}/{}", path.file_name().unwrap().to_string_lossy());
            files.push((name, std::fs::read_to_string(path).unwrap()));
        }
    }
    files.sort();
    for change in changes {
        let name = change["file"].as_str().unwrap();
        if let Some(content) = change["content"].as_str() {
            files.push((name.to_owned(), content.to_owned()));
        }
        if let (Some(from), Some(to)) = (change["replace"]["from"].as_str(), change["replace"]["to"].as_str())
        {
            let (_, text) = files.iter_mut().find(|(known, _)| known == name).unwrap();
            assert!(text.contains(from), "{name} has no {from:?}");
            *text = text.replace(from, to);
        }
    }
    files.iter().flat_map(|(name, text)| manifest::parse(name, text).unwrap()).collect()
}

#[test]
fn every_rule_finds_its_own_scenario() {
    for rule in &RULES {
        let scenario = scenario(rule.slug);
        let rate = scenario["spec"]["traffic"][0]["open"]["rate"].as_f64().unwrap_or(0.0);
        let telemetry = match scenario["spec"]["mesh"]["telemetry"].as_str() {
            Some("milliseconds") => Telemetry::Milliseconds,
            _ => Telemetry::Seconds,
        };
        let errors = scenario["spec"]["images"]["stefanprodan/podinfo:3.1.1"]["errorRate"].as_f64();
        let facts = Facts {
            rate,
            bad_errors: errors.unwrap_or(0.05),
            telemetry: Some(telemetry),
            ..Facts::default()
        };
        let found =
            check(&manifests(&scenario), &facts).unwrap_or_else(|error| panic!("{}: {error}", rule.slug));
        let codes: Vec<&str> = found.iter().map(|finding| finding.code).collect();
        assert!(codes.contains(&rule.code), "{} is not found in {}, only {codes:?}", rule.code, rule.slug);
        let finding = found.iter().find(|finding| finding.code == rule.code).unwrap();
        assert_eq!(finding.scenario, format!("scenarios/lint/{}.yaml", rule.slug));
    }
}

#[test]
fn every_scenario_belongs_to_a_rule() {
    let mut found: Vec<String> = std::fs::read_dir(root().join("scenarios/lint"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut wanted: Vec<String> = RULES.iter().map(|rule| format!("{}.yaml", rule.slug)).collect();
    wanted.sort();
    assert_eq!(found, wanted);
}
