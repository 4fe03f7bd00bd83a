//! The program as a user meets it: exit codes, what goes where, and what is said.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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

const TESTBED: &str = "\
apiVersion: coalmine.dev/v1alpha1
kind: Testbed
metadata: {name: one}
spec: {clusters: [{name: mesh01, nodes: 2}]}
";

/// A testbed on sockets that goes with the test.
struct Up<'f>(&'f Path);

impl<'f> Up<'f> {
    fn start(folder: &'f Path) -> Self {
        std::fs::write(folder.join("testbed.yaml"), TESTBED).unwrap();
        let up = Up(folder);
        let (code, _, stderr) =
            coalmine(folder, &["up", "testbed.yaml", "--dir", "up", "--detach", "--speed", "20"]);
        assert_eq!(code, 0, "{stderr}");
        up
    }

    /// The ConfigMaps and Jobs that the program made in the cluster.
    fn leftovers(&self) -> Vec<serde_json::Value> {
        let (code, stdout, stderr) = coalmine(self.0, &["snapshot", "--dir", "up", "state.json"]);
        assert_eq!(code, 0, "{stdout}{stderr}");
        let state = std::fs::read_to_string(self.0.join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        let objects = state["clusters"][0]["state"]["objects"].as_array().unwrap();
        let is_ours = |object: &&serde_json::Value| {
            (object["kind"] == "Job" || object["kind"] == "ConfigMap")
                && object["metadata"]["name"].as_str().unwrap().starts_with("coalmine-whatif-")
        };
        objects.iter().filter(is_ours).cloned().collect()
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        coalmine(self.0, &["down", "--dir", "up"]);
    }
}

/// What differs from run to run.
fn without_time(json: &str) -> serde_json::Value {
    let mut results: serde_json::Value = serde_json::from_str(json).unwrap();
    for field in ["command", "seconds", "rolloutsPerSecond"] {
        assert!(!results[field].is_null(), "{field}");
        results[field] = serde_json::Value::Null;
    }
    results
}

#[test]
fn shards_on_a_cluster_give_the_figures_of_one_machine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let canary = std::fs::read_to_string(root.join("fixtures/article/flagger/podinfo/canary.yaml")).unwrap();
    let experiment = "\
apiVersion: coalmine.dev/v1alpha1
kind: Experiment
metadata: {name: podinfo}
spec:
  canary: ../canary.yaml
  rollouts: 600
  models: [{name: day, traffic: {rate: 123.4}, versions: {good: {share: 0.9}, bad: {errorRate: 0.0333}}}]
";
    let folder = folder("on-kubernetes", &[("canary.yaml", &canary)]);
    std::fs::create_dir_all(folder.join("experiments")).unwrap();
    std::fs::write(folder.join("experiments/day.yaml"), experiment).unwrap();
    let up = Up::start(&folder);
    let on = ["--on", "kubernetes", "--kubeconfig", "up/kubeconfig", "--context", "mesh01"];
    for (what, shards) in [
        (vec!["whatif", "canary.yaml", "--rollouts", "3000", "--bad-errors", "3.3%"], "3"),
        (
            vec![
                "whatif",
                "experiments/day.yaml",
                "--vary",
                "analysis.stepWeight=5,10",
                "--optimize",
                "misses < 50%, least release",
            ],
            "1",
        ),
    ] {
        let here = coalmine(&folder, &[&what[..], &["--format", "json"]].concat());
        let there = coalmine(&folder, &[&what[..], &on, &["--shards", shards, "--format", "json"]].concat());
        assert_eq!((here.0, there.0), (0, 0), "{}{}", here.2, there.2);
        assert_eq!(without_time(&here.1), without_time(&there.1), "{what:?}");
        let done = format!("{shards} of {shards} shards done, 0 running");
        assert!(
            there.2.contains(&done) && there.2.contains("context mesh01: Job default/coalmine-whatif-"),
            "{}",
            there.2
        );
    }
    assert_eq!(up.leftovers(), Vec::<serde_json::Value>::new());

    let fails = |arguments: &[&str]| {
        let (code, stdout, stderr) =
            coalmine(&folder, &[&["whatif", "canary.yaml", "-q"], arguments].concat());
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        stderr
    };
    let said = fails(&[&on[..], &["--image", "no such image"]].concat());
    assert!(
        said.contains("cannot start: ImagePullBackOff: Back-off pulling image \"no such image\""),
        "{said}"
    );
    let said = fails(&[&on[..], &["--engine", "full"]].concat());
    assert!(
        said.contains(
            "failed: exit code 2; the end of its log:\n  error: /etc/coalmine/request.json: engine:"
        ),
        "{said}"
    );
    let said = fails(&[&on[..], &["--namespace", "nowhere"]].concat());
    assert!(said.contains("namespaces \"nowhere\" not found"), "{said}");
    let said = fails(&[&on[..5], &["mesh09"]].concat());
    assert!(said.contains("up/kubeconfig: no context \"mesh09\": there are mesh01"), "{said}");
    let said = fails(&[&on[..], &["--precision", "1%"]].concat());
    assert!(said.contains("--on and --precision"), "{said}");
    assert_eq!(up.leftovers(), Vec::<serde_json::Value>::new());

    // The image's command is the program's own.
    let few = ["whatif", "canary.yaml", "--rollouts", "300"];
    let kept = coalmine(&folder, &[&few[..], &on, &["--shards", "2", "--keep", "-q"]].concat());
    assert_eq!(kept.0, 0, "{}", kept.2);
    let left = up.leftovers();
    assert_eq!(left.iter().map(|object| &object["kind"]).collect::<Vec<_>>(), ["ConfigMap", "Job"]);
    assert_eq!(left[1]["status"]["completedIndexes"], "0,1");
    std::fs::write(folder.join("request.json"), left[0]["data"]["request.json"].as_str().unwrap()).unwrap();
    let shard = coalmine(&folder, &["whatif", "shard", "request.json", "--index", "1", "--jobs", "1"]);
    let same = coalmine(&folder, &[&few[..], &["--shard", "2/2", "--format", "json"]].concat());
    assert_eq!(without_time(&shard.1), without_time(&same.1), "{}", shard.2);

    drop(up);
    std::fs::write(folder.join("gone"), "").unwrap();
    let said = fails(&["--on", "kubernetes", "--kubeconfig", "gone"]);
    assert!(said.contains("gone: no current-context"), "{said}");
    let elsewhere = "{clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], \
        contexts: [{name: c, context: {cluster: c, user: c}}], users: [{name: c, user: {}}], current-context: c}";
    std::fs::write(folder.join("gone"), elsewhere).unwrap();
    let said = fails(&["--on", "kubernetes", "--kubeconfig", "gone"]);
    assert!(said.contains("context c: cannot reach https://127.0.0.1:1: Connection refused"), "{said}");
}

#[test]
fn an_interrupted_run_on_a_cluster_leaves_nothing_behind() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let canary = std::fs::read_to_string(root.join("fixtures/article/flagger/podinfo/canary.yaml")).unwrap();
    let folder = folder("on-kubernetes-interrupted", &[("canary.yaml", &canary)]);
    let up = Up::start(&folder);
    // Long enough to be interrupted: a simulated core takes minutes for each of its shards.
    let arguments = [
        "whatif",
        "canary.yaml",
        "--rollouts",
        "100000000",
        "--on",
        "kubernetes",
        "--kubeconfig",
        "up/kubeconfig",
    ];
    let mut child = Command::new(env!("CARGO_BIN_EXE_coalmine"))
        .args(arguments)
        .current_dir(&folder)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("4 running")));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let said: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
    assert!(
        said.iter().any(|line| line.starts_with("interrupted: deleting Job and ConfigMap default/")),
        "{said:?}"
    );
    assert_eq!(up.leftovers(), Vec::<serde_json::Value>::new());
}
