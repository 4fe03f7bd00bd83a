//! `coalmine run`.

use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use testbed::scenario::{Loaded, Span};
use testbed::{Outcome, RunOptions};

use crate::{find, output};

/// The exit code of unusable input.
const UNUSABLE: u8 = 2;
/// The exit code of a defect of this program, as Rust's own.
const DEFECT: u8 = 101;

/// What is run, and how.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Scenario files, or folders of them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The seed of all randomness, instead of the scenario's own.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Stop at this virtual time, e.g. 5m, and check nothing.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    until: Option<Duration>,
    /// What to print of a single run.
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    output: Output,
    /// Print no timeline; of several runs, only those that fail.
    #[arg(short, long)]
    quiet: bool,
    /// Write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Rewrite the golden logs of the scenarios from these runs.
    #[arg(long, conflicts_with = "until")]
    bless: bool,
    /// Print the scenarios' names and descriptions, and run nothing.
    #[arg(long)]
    list: bool,
    /// How many scenarios run at the same time; as many as there are cores unless told.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// What a single run prints to standard output. With `flagger` and `json` the summary goes to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A readable timeline and a summary.
    #[default]
    Timeline,
    /// The canary controller's own log, alone.
    Flagger,
    /// The timeline as JSON lines.
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    Span::parse(text).map(|span| span.0)
}

/// Runs the command.
pub fn run(arguments: &RunArguments) -> ExitCode {
    let files = match find::scenarios(&arguments.paths) {
        Ok(files) => files,
        Err(error) => {
            output::problem(&error);
            return ExitCode::from(UNUSABLE);
        }
    };
    let single = match arguments.paths.as_slice() {
        [only] => only.is_file(),
        _ => false,
    };
    let mut scenarios = Vec::new();
    let mut code = 0;
    for file in &files {
        match Loaded::read(file) {
            Ok(loaded) => scenarios.push(loaded),
            Err(error) => {
                error.problems.iter().for_each(|problem| output::problem(problem));
                code = UNUSABLE;
            }
        }
    }
    if arguments.list {
        scenarios.iter().for_each(list);
        return ExitCode::from(code);
    }
    let results = if single {
        scenarios.iter().map(|loaded| one(loaded, arguments)).collect()
    } else {
        all(&scenarios, arguments)
    };
    let mut outcomes = Vec::new();
    for result in results {
        match result {
            Ok(outcome) => {
                code = code.max(outcome.exit_code());
                outcomes.push(outcome);
            }
            Err(problem) => {
                output::problem(&problem);
                code = DEFECT;
            }
        }
    }
    if let Some(path) = &arguments.junit
        && let Err(error) = std::fs::write(path, report::junit(&outcomes))
    {
        output::problem(&format!("{}: {error}", path.display()));
        code = code.max(UNUSABLE);
    }
    ExitCode::from(code)
}

fn list(loaded: &Loaded) {
    let scenario = &loaded.scenario;
    let description = scenario.description.split_whitespace().collect::<Vec<_>>().join(" ");
    output::line(&format!("{:32} {} ({})", scenario.metadata.name, description, loaded.file));
}

/// Runs one scenario and prints all about it.
fn one(loaded: &Loaded, arguments: &RunArguments) -> Result<Outcome, String> {
    let outcome = simulate(loaded, arguments)?;
    let summary = report::summary(&outcome);
    match arguments.output {
        Output::Timeline => {
            if !arguments.quiet {
                output::text(&report::timeline(&outcome));
                output::line("");
            }
            output::text(&summary);
        }
        Output::Flagger | Output::Json => {
            output::text(&match arguments.output {
                Output::Json => report::json_lines(&outcome),
                _ => report::flagger_log(&outcome),
            });
            if !arguments.quiet || !outcome.passed() {
                output::note(summary.trim_end());
            }
        }
    }
    let wall = outcome.wall_time.unwrap_or_default();
    if !arguments.quiet {
        output::note(&format!("  wall time      {}", report::latency(wall)));
    }
    Ok(outcome)
}

/// Runs scenarios in parallel, each in a thread at a time, and prints a line for each, in order.
fn all(scenarios: &[Loaded], arguments: &RunArguments) -> Vec<Result<Outcome, String>> {
    let jobs = arguments.jobs.or_else(|| std::thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZeroUsize::get).min(scenarios.len());
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Results { done: scenarios.iter().map(|_| None).collect(), printed: 0 });
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((index, loaded)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    scenarios.get(index).map(|loaded| (index, loaded))
                } {
                    let result = simulate(loaded, arguments).map(|mut outcome| {
                        // Nobody asks for it any more, and there may be many runs.
                        outcome.timeline = Vec::new();
                        outcome
                    });
                    let mut results = results.lock().expect("a thread that prints does not panic");
                    results.done[index] = Some(result);
                    results.print(arguments.quiet);
                }
            });
        }
    });
    let results = results.into_inner().expect("a thread that prints does not panic").done;
    let results: Vec<_> = results.into_iter().flatten().collect();
    let failed: Vec<&Outcome> = results
        .iter()
        .filter_map(|result| result.as_ref().ok())
        .filter(|outcome| !outcome.passed())
        .collect();
    for outcome in &failed {
        output::line("");
        output::text(&report::summary(outcome));
    }
    if !arguments.quiet {
        output::line("");
        output::line(&format!("{} scenarios, {} failed", results.len(), failed.len()));
    }
    results
}

struct Results {
    done: Vec<Option<Result<Outcome, String>>>,
    printed: usize,
}

impl Results {
    /// Prints what is next in order and done.
    fn print(&mut self, quiet: bool) {
        while let Some(Some(result)) = self.done.get(self.printed) {
            if let Ok(outcome) = result
                && !(quiet && outcome.passed())
            {
                output::line(&report::one_line(outcome));
            }
            self.printed += 1;
        }
    }
}

/// Runs a scenario; the error is a defect of this program, with the command that shows it again.
#[allow(clippy::disallowed_methods, reason = "the stopwatch for the user: nothing simulated reads it")]
fn simulate(loaded: &Loaded, arguments: &RunArguments) -> Result<Outcome, String> {
    let options = RunOptions { seed: arguments.seed, until: arguments.until };
    let started = std::time::Instant::now();
    let run = std::panic::catch_unwind(AssertUnwindSafe(|| testbed::run(loaded, &options)));
    let mut outcome = run.map_err(|_| {
        let seed = arguments.seed.unwrap_or(loaded.scenario.spec.seed);
        let file = Path::new(&loaded.file).display();
        format!("a defect of coalmine ended this run; to see it again: coalmine run {file} --seed {seed}")
    })?;
    outcome.wall_time = Some(started.elapsed());
    if let Err(error) = outcome.check_golden(loaded, arguments.bless) {
        output::problem(&error);
    }
    Ok(outcome)
}
