//! Habits that no compiler checks.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root;

/// The longest source file: one that outgrows it holds more than one concept.
const LINES_MAX: usize = 1000;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "common", "helpers", "misc"];

fn sources() -> Vec<(PathBuf, String)> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .expect("git lists the sources");
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let files: Vec<(PathBuf, String)> = listing
        .lines()
        .filter_map(|file| Some((PathBuf::from(file), std::fs::read_to_string(root().join(file)).ok()?)))
        .collect();
    assert!(files.len() > 50, "only {} sources found", files.len());
    files
}

fn complain(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let problems: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(file, _)| format!("{}: starts without a //! header", file.display()))
        .collect();
    complain(&problems);
}

#[test]
fn files_hold_one_concept_under_a_name_that_says_which() {
    let mut problems = Vec::new();
    for (file, text) in sources() {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            problems.push(format!(
                "{}: {lines} lines, more than {LINES_MAX}: split it by concept",
                file.display()
            ));
        }
        let empty = |part: &Path| {
            EMPTY_NAMES.contains(&part.file_stem().and_then(|stem| stem.to_str()).unwrap_or(""))
        };
        if file.ancestors().any(empty) {
            problems.push(format!("{}: a name that says nothing", file.display()));
        }
    }
    complain(&problems);
}

#[test]
fn nothing_is_left_open() {
    let open =
        ["todo!(", "unimplemented!(", concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[ig", "nore")];
    let mut problems = Vec::new();
    for (file, text) in sources() {
        if file.ends_with("tidy.rs") {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            if let Some(found) = open.iter().find(|mark| line.contains(**mark)) {
                problems.push(format!("{}:{}: {found}", file.display(), index + 1));
            }
        }
    }
    complain(&problems);
}
