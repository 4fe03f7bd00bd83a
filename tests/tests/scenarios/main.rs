//! A test per scenario file: it passes, it looks like its golden log, and it is the same every time: over and over in
//! this process, for several seeds, and in another process, whose hash keys differ.
//!
//! `BLESS=1` rewrites the golden logs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use testbed::scenario::Loaded;
use testbed::{Outcome, RunOptions};

/// Seeds that every scenario must pass with, beside its own.
const SEEDS: [u64; 3] = [2, 3, 5];
/// How often a scenario of the main folder runs with each seed.
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
    let mut trials = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&folder).unwrap_or(&file).with_extension("");
        let name = inside.to_string_lossy().replace('\\', "/");
        // The folder's own scenarios are the thorough ones; those below show one feature each, and there are many.
        let is_main = !name.contains('/');
        let (same, passing) = (file.clone(), file);
        trials.push(Trial::test(format!("{name}/passes"), move || passes(&passing)));
        trials.push(Trial::test(format!("{name}/is_the_same_every_time"), move || {
            is_the_same_every_time(&same, is_main)
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
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

fn passes(file: &Path) -> Result<(), Failed> {
    let loaded = load(file)?;
    let mut outcome = run(&loaded, None);
    outcome.check_golden(&loaded, std::env::var_os("BLESS").is_some())?;
    passed(&outcome)
}

fn is_the_same_every_time(file: &Path, is_main: bool) -> Result<(), Failed> {
    let loaded = load(file)?;
    let (seeds, repeats) = if is_main { (SEEDS.as_slice(), REPEATS) } else { (&SEEDS[..1], 1) };
    for seed in std::iter::once(None).chain(seeds.iter().copied().map(Some)) {
        let first = run(&loaded, seed);
        passed(&first)?;
        let first = shown(&first);
        for _ in 1..repeats {
            same(&first, &shown(&run(&loaded, seed)), "another run")?;
        }
        if seed.is_none() {
            same(&first, &shown_by_a_child(file)?, "another process")?;
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
