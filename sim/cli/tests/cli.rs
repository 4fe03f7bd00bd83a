//! The program as a user meets it: exit codes, what goes where, and what is said.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GOOD: &str = "\
apiVersion: coalmine.dev/v1alpha1
kind: Scenario
metadata: {name: good}
description: Waits, and is content.
spec:
  clusters: [{name: mesh01}]
  steps: [{mark: begin, sleep: 90s}]
  expect: [{duration: {from: begin, min: 90s}}]
";

fn folder(test: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, content) in files {
        std::fs::write(folder.join(name), content).unwrap();
    }
    folder
}

fn coalmine(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_coalmine")).args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_run_prints_its_timeline_and_summary() {
    let folder = folder("single", &[("good.yaml", GOOD)]);
    let (code, stdout, stderr) = coalmine(&folder, &["run", "good.yaml"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("0:00:00.0           sleep      1m30s"), "{stdout}");
    assert!(stdout.contains("pass  duration from begin to end: 1m30s"), "{stdout}");
    assert!(
        !stdout.contains("wall time") && stderr.contains("wall time"),
        "wall time differs from run to run"
    );
    let (code, stdout, _) = coalmine(&folder, &["run", "good.yaml", "--until", "10s", "-q"]);
    assert_eq!((code, stdout.lines().next()), (0, Some("STOP good")));
}

#[test]
fn a_failed_expectation_gives_1_and_the_command_to_replay() {
    let failing = GOOD.replace("min: 90s", "max: 10s").replace("name: good", "name: failing");
    let folder = folder("failing", &[("a.yaml", GOOD), ("b.yaml", &failing), ("other.yaml", "kind: Pod\n")]);
    let (code, stdout, _) = coalmine(&folder, &["run", ".", "--seed", "7", "--junit", "results.xml"]);
    assert_eq!(code, 1, "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].starts_with("PASS good") && lines[1].starts_with("FAIL failing"), "{stdout}");
    assert!(stdout.contains("1m30s, longer than 10s"), "{stdout}");
    assert!(stdout.contains("replay         coalmine run ./b.yaml --seed 7"), "{stdout}");
    assert!(stdout.ends_with("2 scenarios, 1 failed\n"), "{stdout}");
    let junit = std::fs::read_to_string(folder.join("results.xml")).unwrap();
    assert!(junit.contains("<testsuites tests=\"4\" failures=\"1\">"), "{junit}");
}

#[test]
fn unusable_input_gives_2_and_the_place() {
    let broken = GOOD.replace("steps:", "stepps:");
    let folder = folder("broken", &[("broken.yaml", &broken), ("good.yaml", GOOD)]);
    let (code, _, stderr) = coalmine(&folder, &["run", "broken.yaml"]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("error: broken.yaml:7:3: unknown field \"stepps\": did you mean \"steps\"?"),
        "{stderr}"
    );
    assert_eq!(coalmine(&folder, &["run", "missing.yaml"]).0, 2);
    assert_eq!(coalmine(&folder, &["run", "good.yaml", "--until", "soon"]).0, 2);
    assert_eq!(coalmine(&folder, &["run"]).0, 2);
}

#[test]
fn scenarios_are_listed_and_the_schema_is_json() {
    let folder = folder("list", &[("good.yaml", GOOD)]);
    let (code, stdout, _) = coalmine(&folder, &["run", ".", "--list"]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("good ") && stdout.contains("Waits, and is content."), "{stdout}");
    let (code, stdout, _) = coalmine(&folder, &["schema"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["title"], "Coalmine");
}

#[test]
fn goldens_are_blessed_and_compared() {
    let golden = GOOD.replace("spec:", "spec:\n  golden: {file: good.golden.log, cluster: mesh01}");
    let folder = folder("golden", &[("good.yaml", &golden)]);
    let (code, stdout, _) = coalmine(&folder, &["run", "good.yaml", "-q"]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("--bless writes it"), "{stdout}");
    assert_eq!(coalmine(&folder, &["run", "good.yaml", "-q", "--bless"]).0, 0);
    std::fs::write(folder.join("good.golden.log"), "another line\n").unwrap();
    let (code, stdout, _) = coalmine(&folder, &["run", "good.yaml", "-q"]);
    assert_eq!(code, 1);
    assert!(stdout.contains("-another line"), "{stdout}");
}

/// Reads both files as notebooks would, and compares them cell by cell.
const COMPARE: &str = r#"
import csv
import pyarrow.parquet
table = pyarrow.parquet.read_table('r.parquet')
rows = list(csv.DictReader(open('r.csv')))
assert table.num_rows == len(rows) == 4 and table.column_names == list(rows[0]), table.schema
assert str(table.schema.field('rollouts').type) == 'int64' and str(table.schema.field('best').type) == 'bool'
for row, cells in enumerate(rows):
    for name, text in cells.items():
        value = table[name][row].as_py()
        same = (text == '' if value is None else text == str(value).lower() if isinstance(value, bool)
                else float(text) == value if isinstance(value, float) else text == str(value))
        assert same, (row, name, text, value)
assert any(table[name].null_count for name in table.column_names)
"#;

#[test]
fn tables_are_the_same_in_csv_and_in_parquet() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let canary = std::fs::read_to_string(root.join("fixtures/article/flagger/podinfo/canary.yaml")).unwrap();
    let folder = folder("tables", &[("canary.yaml", &canary)]);
    for table in ["r.csv", "r.parquet"] {
        let sweep = ["--rollouts", "200", "--vary", "analysis.stepWeight=5,10", "--table", table, "-q"];
        let (code, _, stderr) = coalmine(&folder, &[["whatif", "canary.yaml"].as_slice(), &sweep].concat());
        assert_eq!(code, 0, "{stderr}");
    }
    let (code, _, stderr) = coalmine(&folder, &["whatif", "canary.yaml", "--table", "r.txt"]);
    assert!(code == 2 && stderr.contains(".csv or .parquet"), "{code} {stderr}");

    let python = root.join("target/tools/python/bin/python");
    let has_pyarrow =
        || Command::new(&python).args(["-c", "import pyarrow"]).output().unwrap().status.success();
    if !python.exists() || !has_pyarrow() {
        let missing = "pyarrow is missing: run .ci/tools to install it";
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
        eprintln!("skipped: {missing}");
        return;
    }
    let read = Command::new(&python).args(["-c", COMPARE]).current_dir(&folder).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}
