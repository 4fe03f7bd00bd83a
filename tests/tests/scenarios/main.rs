//! A test per scenario file: it passes, it looks like its golden log, and it is the same every time: over and over in
//! this process, for several seeds, and in another process, whose hash keys differ.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::scenario::Loaded;
use testbed::{Outcome, RunOptions};

/// Seeds that every scenario must pass with, beside its own.
const SEEDS: [u64; 3] = [2, 3, 5];
/// How often a scenario runs with each seed.
const REPEATS: usize = 5;

/// The variables by which a child process is told what to run, and where its output goes.
const CHILD_SCENARIO: &str = "COALMINE_TEST_SCENARIO";
const CHILD_OUTPUT: &str = "COALMINE_TEST_OUTPUT";

macro_rules! scenarios {
    ($($test:ident: $file:literal,)*) => {
        /// The files that have a test.
        const FILES: &[&str] = &[$($file),*];

        $(
            mod $test {
                #[test]
                fn passes() {
                    super::passes($file);
                }

                #[test]
                fn is_the_same_every_time() {
                    super::is_the_same_every_time($file);
                }
            }
        )*
    };
}

scenarios! {
    article_no_values: "article-no-values.yaml",
    article_success: "article-success.yaml",
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn load(file: &str) -> Loaded {
    Loaded::read(&folder().join(file)).unwrap_or_else(|error| panic!("{error}"))
}

fn run(loaded: &Loaded, seed: Option<u64>) -> Outcome {
    testbed::run(loaded, &RunOptions { seed, until: None })
}

/// Everything that a user can see of a run.
fn shown(outcome: &Outcome) -> String {
    [report::timeline(outcome), report::json_lines(outcome), report::summary(outcome)].concat()
}

#[track_caller]
fn assert_passed(outcome: &Outcome) {
    assert!(outcome.passed(), "\n{}", report::summary(outcome));
}

fn passes(file: &str) {
    let loaded = load(file);
    let mut outcome = run(&loaded, None);
    let bless = std::env::var_os("BLESS").is_some();
    outcome.check_golden(&loaded, bless).unwrap_or_else(|error| panic!("{error}"));
    assert_passed(&outcome);
}

fn is_the_same_every_time(file: &str) {
    let loaded = load(file);
    for seed in std::iter::once(None).chain(SEEDS.into_iter().map(Some)) {
        let first = run(&loaded, seed);
        assert_passed(&first);
        let first = shown(&first);
        for _ in 1..REPEATS {
            assert_same(&first, &shown(&run(&loaded, seed)), "another run");
        }
        if seed.is_none() {
            assert_same(&first, &shown_by_a_child(file), "another process");
        }
    }
}

#[track_caller]
fn assert_same(first: &str, other: &str, what: &str) {
    if first == other {
        return;
    }
    let differing = first.lines().zip(other.lines()).enumerate().find(|(_, (first, other))| first != other);
    match differing {
        Some((line, (first, other))) => {
            panic!("{what} differs in line {}:\n first: {first}\n other: {other}", line + 1)
        }
        None => panic!("{what} has {} lines, the first {}", other.lines().count(), first.lines().count()),
    }
}

/// Runs the scenario in a child of this very test binary.
fn shown_by_a_child(file: &str) -> String {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{file}.shown"));
    let status = Command::new(std::env::current_exe().expect("this binary has a path"))
        .args(["--exact", "child"])
        .env(CHILD_SCENARIO, file)
        .env(CHILD_OUTPUT, &output)
        .output()
        .expect("this binary can be started again");
    assert!(status.status.success(), "the child failed: {}", String::from_utf8_lossy(&status.stdout));
    std::fs::read_to_string(&output).expect("the child wrote its output")
}

/// Not a test of its own: what a child process runs.
#[test]
fn child() {
    let (Ok(file), Some(output)) = (std::env::var(CHILD_SCENARIO), std::env::var_os(CHILD_OUTPUT)) else {
        return;
    };
    std::fs::write(output, shown(&run(&load(&file), None))).expect("the parent's folder is writable");
}

#[test]
fn every_scenario_file_has_a_test() {
    let names = std::fs::read_dir(folder())
        .expect("the folder scenarios/ exists")
        .map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".yaml"));
    let found: BTreeSet<String> = names.collect();
    let listed: BTreeSet<String> = FILES.iter().map(|file| (*file).to_owned()).collect();
    assert_eq!(found, listed, "list every file of scenarios/ in tests/tests/scenarios/main.rs");
}
