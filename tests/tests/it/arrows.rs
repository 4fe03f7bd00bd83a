//! The crates' arrows: who may depend on whom, and what the pure crates must not know.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::root;

/// Every edge between crates of this workspace. A new one is a design decision: change this list on purpose, and
/// say why in the commit.
const ARROWS: &str = "\
apiserver -> clock tree
canary -> crd
cluster -> clock program
coalmine -> allocator clock lint loadgen local remote report testbed whatif
crd -> kinds
fastpath -> canary clock crd promql
fixtures -> clock loadgen program
flagger -> canary clock crd program
gitops -> clock crd program yaml
keda -> clock crd program
lint -> canary crd whatif
live -> apiserver
local -> apiserver clock live program testbed tree
mesh -> clock crd program tree
program -> clock kinds
prometheus -> clock program promql yaml
remote -> clock
report -> testbed whatif
testbed -> apiserver clock cluster crd fixtures flagger gitops keda loadgen mesh program prometheus tree whatif yaml
whatif -> canary clock crd fastpath promql
";

/// Crates that decide without doing: no runtime, no sockets, no client, no entropy in their dependency trees.
const PURE: [&str; 4] = ["canary", "crd", "kinds", "promql"];

/// What a pure crate's tree must not hold.
const IMPURE: [&str; 7] = ["tokio", "hyper", "kube-client", "kube-runtime", "getrandom", "rand", "mio"];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs: it runs this test");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Name by package id, and normal dependencies (ids) by package id.
fn graph(metadata: &Value) -> (BTreeMap<&str, &str>, BTreeMap<&str, Vec<&str>>) {
    let packages = metadata["packages"].as_array().expect("packages");
    let names = packages
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let edges = nodes
        .iter()
        .map(|node| {
            let normal = |dependency: &&Value| {
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null())
            };
            let dependencies = node["deps"].as_array().unwrap().iter().filter(normal);
            (node["id"].as_str().unwrap(), dependencies.map(|found| found["pkg"].as_str().unwrap()).collect())
        })
        .collect();
    (names, edges)
}

#[test]
fn the_arrows_between_crates_are_the_agreed_ones() {
    let metadata = metadata();
    let (names, edges) = graph(&metadata);
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let mut found = String::new();
    let mut lines: Vec<(&str, BTreeSet<&str>)> = members
        .iter()
        .map(|id| {
            let inside = edges[id].iter().filter(|dependency| members.contains(*dependency));
            (names[id], inside.map(|dependency| names[dependency]).collect())
        })
        .collect();
    lines.sort();
    for (name, dependencies) in lines {
        // Benches and tests may know every crate.
        if !dependencies.is_empty() && !["benches", "tests"].contains(&name) {
            let dependencies: Vec<&str> = dependencies.into_iter().collect();
            found.push_str(&format!("{name} -> {}\n", dependencies.join(" ")));
        }
    }
    assert_eq!(found, ARROWS, "the crates' arrows changed: see ARROWS in this file");
}

#[test]
fn pure_crates_know_no_runtime_client_or_entropy() {
    let metadata = metadata();
    let (names, edges) = graph(&metadata);
    for pure in PURE {
        let start =
            names.iter().find(|(_, name)| **name == pure).map(|(id, _)| *id).expect("the crate exists");
        let (mut seen, mut open) = (BTreeSet::new(), vec![(start, pure.to_owned())]);
        while let Some((id, path)) = open.pop() {
            assert!(
                !IMPURE.contains(&names[id]),
                "{pure} must stay pure, but depends on {} by {path}",
                names[id]
            );
            for next in &edges[id] {
                if seen.insert(*next) {
                    open.push((next, format!("{path} -> {}", names[next])));
                }
            }
        }
    }
}
