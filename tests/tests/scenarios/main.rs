//! A test per scenario file: it passes, it looks like its golden log, and it is the same every time: over and over in
//! this process, for several seeds, and in another process, whose hash keys differ.
//!
//! `BLESS=1` rewrites the golden logs, and runs each scenario once.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use allocator as _;
use libtest_mimic::{Arguments, Failed, Trial};
use testbed::scenario::Loaded;
use testbed::{Outcome, RunOptions};

/// Seeds that a scenario of the main folder must pass with, beside its own; the others pass with the first of them.
const SEEDS: [u64; 3] = [2, 3, 5];
/// How often a scenario of the main folder runs with each seed, the child process' run included.
const REPEATS: usize = 5;

/// The variables by which a child process is told what to run, and where its output goes.
const CHILD_SCENARIO: &str = "COALMINE_TEST_SCENARIO";
const CHILD_OUTPUT: &str = "COALMINE_TEST_OUTPUT";

fn main() -> ExitCode {
    if let (Some(file), Some(output)) = (std::env::var_os(CHILD_SCENARIO), std::env::var_os(CHILD_OUTPUT)) {
        let shown = load(Path::new(&file)).map(|loaded| shown(&run(&loaded, None)));
        std::fs::write(output, shown.unwrap_or_else(|error| error)).expect("the parent's folder is writable");
        return ExitCode::SUCCESS;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut files = Vec::new();
    collect(&folder, &mut files);
    files.sort();
    // The folder's own scenarios are the thorough ones; those below show one feature each, and there are many. The long
    // tests begin first, so that none is left alone at the end.
    let (main, features): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| file.parent() == Some(folder.as_path()));
    let main = main.into_iter().map(|file| trial(&folder, file, &SEEDS, REPEATS));
    let features = features.into_iter().map(|file| trial(&folder, file, &SEEDS[..1], 1));
    let trials = main.chain(features).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The test of one scenario, named by its path below the folder.
fn trial(folder: &Path, file: PathBuf, seeds: &'static [u64], repeats: usize) -> Trial {
    let inside = file.strip_prefix(folder).unwrap_or(&file).with_extension("");
    let name = inside.to_string_lossy().replace('\\', "/");
    Trial::test(name, move || passes_the_same_every_time(&file, seeds, repeats))
}

/// The scenario files below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder scenarios/ is readable") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.lines().any(|line| line == "kind: Scenario") {
                files.push(path);
            }
        }
    }
}

fn load(file: &Path) -> Result<Loaded, String> {
    Loaded::read(file).map_err(|error| error.to_string())
}

fn run(loaded: &Loaded, seed: Option<u64>) -> Outcome {
    testbed::run(loaded, &RunOptions { seed, until: None })
}

/// Everything that a user can see of a run.
fn shown(outcome: &Outcome) -> String {
    [report::timeline(outcome), report::json_lines(outcome), report::summary(outcome)].concat()
}

fn passed(outcome: &Outcome) -> Result<(), Failed> {
    if outcome.passed() { Ok(()) } else { Err(format!("\n{}", report::summary(outcome)).into()) }
}

fn passes_the_same_every_time(file: &Path, seeds: &[u64], repeats: usize) -> Result<(), Failed> {
    let loaded = load(file)?;
    let mut outcome = run(&loaded, None);
    let shown_first = shown(&outcome);
    let blesses = std::env::var_os("BLESS").is_some();
    outcome.check_golden(&loaded, blesses)?;
    passed(&outcome)?;
    if blesses {
        return Ok(());
    }
    same(&shown_first, &shown_by_a_child(file)?, "another process")?;
    for _ in 2..repeats {
        same(&shown_first, &shown(&run(&loaded, None)), "another run")?;
    }
    for seed in seeds.iter().copied().map(Some) {
        let first = run(&loaded, seed);
        passed(&first)?;
        let first = shown(&first);
        for _ in 1..repeats {
            same(&first, &shown(&run(&loaded, seed)), "another run")?;
        }
    }
    Ok(())
}

fn same(first: &str, other: &str, what: &str) -> Result<(), Failed> {
    if first == other {
        return Ok(());
    }
    let differing = first.lines().zip(other.lines()).enumerate().find(|(_, (first, other))| first != other);
    Err(match differing {
        Some((line, (first, other))) => {
            format!("{what} differs in line {}:\n first: {first}\n other: {other}", line + 1)
        }
        None => format!("{what} has {} lines, the first {}", other.lines().count(), first.lines().count()),
    }
    .into())
}

/// Runs the scenario in a child of this very test binary.
fn shown_by_a_child(file: &Path) -> Result<String, Failed> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.shown", std::process::id()));
    let status = Command::new(std::env::current_exe()?)
        .env(CHILD_SCENARIO, file)
        .env(CHILD_OUTPUT, &output)
        .status()?;
    if !status.success() {
        return Err(format!("the child ended with {status}").into());
    }
    let shown = std::fs::read_to_string(&output)?;
    std::fs::remove_file(&output)?;
    Ok(shown)
}
