//! The examples of docs/scenario.md are scenarios that can be read.

use testbed::scenario::Loaded;

use crate::root;

/// The YAML blocks of the document.
fn blocks() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/scenario.md")).expect("the document exists");
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(str::to_owned).collect()
}

#[track_caller]
fn check(yaml: &str) {
    let folder = root().join("scenarios");
    Loaded::parse("docs/scenario.md", &folder, yaml).unwrap_or_else(|error| panic!("{error}\nin:\n{yaml}"));
}

const HEAD: &str = "\
apiVersion: coalmine.dev/v1alpha1
kind: Scenario
metadata: {name: example}
";

#[test]
fn the_whole_scenario_is_one() {
    let blocks = blocks();
    let whole = blocks.iter().find(|block| block.starts_with("apiVersion: coalmine.dev"));
    check(whole.expect("the document shows a whole scenario"));
}

#[test]
fn the_parts_of_a_spec_fit_into_one() {
    let blocks = blocks();
    let spec = blocks.iter().filter(|block| block.starts_with("spec:\n"));
    let mut seen = 0;
    for block in spec {
        check(&format!("{HEAD}{block}"));
        seen += 1;
    }
    for block in blocks.iter().filter(|block| block.starts_with("images:\n")) {
        let indented: String = block.lines().map(|line| format!("  {line}\n")).collect();
        check(&format!("{HEAD}spec:\n  clusters: [{{name: mesh01}}]\n{indented}"));
        seen += 1;
    }
    assert!(seen >= 2, "the document shows a testbed and images");
}
