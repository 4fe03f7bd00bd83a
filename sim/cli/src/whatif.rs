//! `coalmine whatif`.

use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::whatif::experiment::{Experiment, Overrides, Variation};
use ::whatif::field;
use ::whatif::goal::Goal;
use ::whatif::request::{self, Question, Request};
use ::whatif::results::Results;
use ::whatif::rollout::{End, Outcome};
use ::whatif::run::{self, Plan};
use ::whatif::scenario;
use ::whatif::source::{Copying, Disk};
use ::whatif::sweep::{self, Options, Point};
use ::whatif::{Setting, Span};
use clap::{Args, Subcommand, ValueEnum};
use clock::Seed;
use report::whatif::Example;

#[cfg(feature = "live")]
use crate::on_kubernetes::{self, OnArguments};
use crate::{full, output};

/// The exit code when no policy meets the goal.
const UNMET: u8 = 1;
/// The exit code of unusable input.
pub const UNUSABLE: u8 = 2;
/// The exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;
/// Rollouts of each version when there is one policy.
const ROLLOUTS: u64 = 100_000;
/// Rollouts of each version when there are several policies.
const ROLLOUTS_SWEEP: u64 = 20_000;

/// Rollouts of each version in the full simulation.
const ROLLOUTS_FULL: u64 = 20;

/// What is found out, and how.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct WhatIfArguments {
    #[command(subcommand)]
    command: Option<WhatIfCommand>,
    /// The Canary's manifest or an Experiment; more files or folders may hold MetricTemplates, the Deployment,
    /// Flagger's Deployment, and Prometheus' configuration.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Rollouts of each version under each policy (100000; 20000 with several policies).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rollouts: Option<u64>,
    /// The seed of all randomness (1).
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads; as many as there are cores unless told. Changes no result.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// How to print the results.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// The Canary, if the files hold several: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME")]
    canary: Option<String>,
    /// Flagger's version: 1.0.0-rc.1 and before behave as the old dialect, all others as the new one.
    #[arg(long, value_name = "VERSION")]
    dialect: Option<String>,
    /// Users' requests per second (20).
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<f64>,
    /// The share of its requests that a bad version fails (5%).
    #[arg(long, value_name = "SHARE", value_parser = share)]
    bad_errors: Option<f64>,
    /// How many times as long a bad version takes.
    #[arg(long, value_name = "FACTOR", value_parser = rate)]
    bad_slowdown: Option<f64>,
    /// Time between two scrapes of a proxy, e.g. 15s (5s, or as the Prometheus configuration among the files says).
    #[arg(long, value_name = "DURATION")]
    scrape_interval: Option<Span>,
    /// Try these values of a field of the Canary, e.g. analysis.stepWeight=5,10,20 or, with --random, 5..50.
    #[arg(long, value_name = "FIELD=VALUES", value_parser = variation)]
    vary: Vec<String>,
    /// Try this many random points of the variations instead of all combinations.
    #[arg(long, value_name = "N")]
    random: Option<u64>,
    /// Find the best policy, e.g. "false alarms < 1%, release < 15m, least user errors". Without --vary, the interval,
    /// threshold and steps are varied.
    #[arg(long, value_name = "GOAL", value_parser = goal)]
    optimize: Option<String>,
    /// Stop when the shares of promoted versions are known to within this much, e.g. 0.5%.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    precision: Option<f64>,
    /// Write the Canary with the best policy to this file.
    #[arg(long, value_name = "FILE", requires = "optimize")]
    write: Option<PathBuf>,
    /// Write a self-contained HTML report.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the results as JSON, for `coalmine whatif merge`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the results as a table, a row for each policy, service model and version: FILE.csv or FILE.parquet.
    #[arg(long, value_name = "FILE", value_parser = table)]
    table: Option<PathBuf>,
    /// Run only this part of the rollouts, e.g. 3/16.
    #[arg(long, value_name = "PART", value_parser = shard)]
    shard: Option<(u64, u64)>,
    /// Print this rollout, message by message, instead.
    #[arg(long, value_name = "N")]
    replay: Option<u64>,
    /// The version whose rollout is printed: of the service model, `good` or `bad` by default.
    #[arg(long, value_name = "NAME", requires = "replay", default_value = "bad")]
    of: String,
    /// Write the rollout that --replay names as a scenario file, for `coalmine run`.
    #[arg(long, value_name = "FILE", requires = "replay")]
    scenario: Option<PathBuf>,
    /// What simulates: the fast path, or the whole testbed (a few rollouts a second).
    #[arg(long, value_enum, default_value_t, value_name = "ENGINE")]
    engine: Engine,
    /// Print no progress.
    #[arg(short, long)]
    quiet: bool,
    #[cfg(feature = "live")]
    #[command(flatten)]
    on: OnArguments,
}

#[derive(Debug, Subcommand)]
enum WhatIfCommand {
    /// Merge the results of shards, written with --out.
    Merge(MergeArguments),
    /// Run one shard of a request and print its results as JSON: what the pods of --on kubernetes do.
    Shard(ShardArguments),
}

/// A shard of a request.
#[derive(Debug, Args)]
struct ShardArguments {
    /// The request, as --on kubernetes writes it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The shard's number, from 0.
    #[arg(long, value_name = "N")]
    index: u64,
    /// Threads; as many as there are cores unless told.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// Results to merge.
#[derive(Debug, Args)]
struct MergeArguments {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to print the results.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Write a self-contained HTML report.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the merged results as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the merged results as a table: FILE.csv or FILE.parquet.
    #[arg(long, value_name = "FILE", value_parser = table)]
    table: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables and small charts.
    #[default]
    Text,
    /// Every figure.
    Json,
    /// A row for each policy, service model and version.
    Csv,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Windows drawn directly.
    #[default]
    Fast,
    /// Clusters, mesh, Prometheus and Flagger in memory.
    Full,
}

impl Engine {
    /// Its name in results.
    fn name(self) -> &'static str {
        match self {
            Engine::Fast => "fast",
            Engine::Full => "full",
        }
    }
}

/// A file whose name says which kind of table it is.
fn table(text: &str) -> Result<PathBuf, String> {
    match Path::new(text).extension().and_then(|ending| ending.to_str()) {
        Some("csv" | "parquet") => Ok(PathBuf::from(text)),
        _ => Err("the file's name must end with .csv or .parquet".to_owned()),
    }
}

/// A variation, as it was written.
fn variation(text: &str) -> Result<String, String> {
    Variation::parse(text).map(|_| text.to_owned())
}

/// A goal, as it was written.
fn goal(text: &str) -> Result<String, String> {
    Goal::parse(text).map(|_| text.to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    number
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "write a share between 0 and 1, or a percentage such as 5%".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|rate| *rate >= 0.0 && rate.is_finite());
    number.ok_or_else(|| "write a number that is not negative".to_owned())
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text
        .split_once('/')
        .and_then(|(part, of)| Some((part.parse::<u64>().ok()?, of.parse::<u64>().ok()?)));
    match parts {
        Some((part, of)) if (1..=of).contains(&part) => Ok((part - 1, of)),
        _ => Err("write PART/PARTS, from 1/16 to 16/16".to_owned()),
    }
}

/// Runs the command.
pub fn run(arguments: &WhatIfArguments) -> ExitCode {
    let done = match &arguments.command {
        Some(WhatIfCommand::Merge(merging)) => merge(merging),
        Some(WhatIfCommand::Shard(part)) => shard_of_request(part),
        None => find_out(arguments),
    };
    done.unwrap_or_else(|problem| {
        output::problem(&problem);
        ExitCode::from(UNUSABLE)
    })
}

fn find_out(arguments: &WhatIfArguments) -> Result<ExitCode, String> {
    let question = question(arguments);
    let copying = Copying::new(&Disk);
    let experiment = question.experiment(&copying, &arguments.files)?;
    let parts = arguments.shard.map(|_| "--shard").or(elsewhere(arguments).map(|_| "--on"));
    if let Some(parts) = parts
        && experiment.precision.is_some_and(|precision| precision > 0.0)
    {
        return Err(format!(
            "{parts} and --precision: a part that stops early cannot be merged; leave one of them out"
        ));
    }
    if let Some(index) = arguments.replay {
        return replay(&experiment, index, &arguments.of, arguments.scenario.as_deref());
    }
    let points = sweep::points(&experiment)?;
    let default = match (arguments.engine, points.len()) {
        (Engine::Full, _) => ROLLOUTS_FULL,
        (Engine::Fast, 1) => ROLLOUTS,
        (Engine::Fast, _) => ROLLOUTS_SWEEP,
    };
    let rollouts = arguments.rollouts.or(experiment.rollouts).unwrap_or(default);
    let bar = Progress::new(arguments.quiet);
    let engine = arguments.engine;
    let mut results = match elsewhere(arguments) {
        None => {
            let shard = arguments.shard.unwrap_or((0, 1));
            simulate(&experiment, &points, engine, (rollouts, shard), arguments.jobs, &bar)?
        }
        Some(shards) => {
            let request = Request {
                api_version: request::KIND.0.to_owned(),
                kind: request::KIND.1.to_owned(),
                paths: arguments.files.iter().map(|file| file.display().to_string()).collect(),
                source: copying.copied(),
                question,
                engine: engine.name().to_owned(),
                rollouts,
                shards,
            };
            // No rollouts yet, and all that does not come from them.
            let none = (rollouts, (0, u64::MAX));
            let mut results =
                simulate(&experiment, &points, engine, none, arguments.jobs, &Progress::new(true))?;
            if !run_elsewhere(arguments, &request, &mut results)? {
                return Ok(ExitCode::from(INTERRUPTED));
            }
            results.compare(experiment.goal.as_ref());
            results
        }
    };
    if engine == Engine::Full {
        results.assumptions.extend(full::differences(&experiment, &points)?);
    }
    results.seconds = bar.finish();
    results.rollouts_per_second = results.rollouts_run as f64 / results.seconds.max(1e-9);
    results.command = command_line();
    let patch = best(&experiment, &points, &results)?;
    if let Some(path) = &arguments.report {
        let examples = examples(&experiment, &points, &results, arguments)?;
        let diff = patch.as_ref().map(|(_, diff)| diff.as_str());
        write(path, report::whatif::html(&results, &examples, diff))?;
    }
    if let Some(path) = &arguments.out {
        write(path, json(&results))?;
    }
    if let Some(path) = &arguments.table {
        write_table(path, &results)?;
    }
    print(&results, arguments.format);
    if arguments.format == Format::Text {
        remarks(&experiment);
    }
    if let Some((text, diff)) = &patch {
        if arguments.format == Format::Text {
            output::line(diff);
        }
        if let Some(path) = &arguments.write {
            write(path, text)?;
        }
    }
    if arguments.format == Format::Text && points.len() == 1 {
        output::line("");
        output::line("Next");
        let file = arguments.files[0].display();
        output::line(&format!(
            "  coalmine whatif {file} --replay 0                  one rollout, message by message"
        ));
        output::line(&format!(
            "  coalmine whatif {file} --rate 200 --bad-errors 2%  your own traffic, your own defect"
        ));
        output::line(&format!(
            "  coalmine whatif {file} --optimize \"false alarms < 1%, release < 15m, least user errors\""
        ));
        output::line(&format!("  coalmine lint {file}                               what makes it lie"));
    }
    let unmet = results.goal.is_some() && results.best.is_none();
    Ok(if unmet { ExitCode::from(UNMET) } else { ExitCode::SUCCESS })
}

fn question(arguments: &WhatIfArguments) -> Question {
    Question {
        overrides: Overrides {
            dialect: arguments.dialect.clone(),
            canary: arguments.canary.clone(),
            rate: arguments.rate,
            bad_errors: arguments.bad_errors,
            bad_slowdown: arguments.bad_slowdown,
            scrape_interval: arguments.scrape_interval,
        },
        seed: arguments.seed,
        random: arguments.random,
        optimize: arguments.optimize.clone(),
        precision: arguments.precision,
        vary: arguments.vary.clone(),
    }
}

/// The number of shards, if they are to run on another machine.
#[cfg(feature = "live")]
fn elsewhere(arguments: &WhatIfArguments) -> Option<u64> {
    arguments.on.on.map(|on_kubernetes::Where::Kubernetes| arguments.on.shards())
}

#[cfg(feature = "live")]
fn run_elsewhere(
    arguments: &WhatIfArguments,
    request: &Request,
    results: &mut Results,
) -> Result<bool, String> {
    on_kubernetes::run(&arguments.on, request, arguments.jobs, arguments.quiet, results)
}

#[cfg(not(feature = "live"))]
fn elsewhere(_: &WhatIfArguments) -> Option<u64> {
    None
}

#[cfg(not(feature = "live"))]
fn run_elsewhere(_: &WhatIfArguments, _: &Request, _: &mut Results) -> Result<bool, String> {
    unreachable!("without the feature, nothing runs elsewhere")
}

/// Runs a part of the rollouts on this machine: `extent` is their number and the part.
fn simulate(
    experiment: &Experiment,
    points: &[Point],
    engine: Engine,
    extent: (u64, (u64, u64)),
    jobs: Option<NonZeroUsize>,
    bar: &Progress,
) -> Result<Results, String> {
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let report = |done: u64| bar.add(done);
    let fast = sweep::fast(Plan {
        seed: Seed::new(experiment.seed),
        jobs,
        precision: experiment.precision.unwrap_or(0.0),
        progress: &report,
    });
    let full = full::engine(experiment.seed, jobs, &report);
    let is_fast = engine == Engine::Fast;
    let options = Options {
        rollouts: extent.0,
        shard: extent.1,
        curves: points.len() == 1 && is_fast,
        simulate: if is_fast { &fast } else { &full },
        engine: engine.name(),
    };
    bar.expect(sweep::size(experiment, points, &options));
    sweep::sweep(experiment, points, &options)
}

fn shard_of_request(arguments: &ShardArguments) -> Result<ExitCode, String> {
    let file = arguments.file.display();
    let place = |error: String| format!("{file}: {error}");
    let text = std::fs::read_to_string(&arguments.file).map_err(|error| place(error.to_string()))?;
    let request = Request::parse(&text).map_err(place)?;
    let engine =
        Engine::from_str(&request.engine, false).map_err(|_| place(format!("engine: {}", request.engine)))?;
    let shard = request.part(arguments.index).map_err(place)?;
    let experiment = request.experiment()?;
    let points = sweep::points(&experiment)?;
    let bar = Progress::new(true);
    let mut results =
        simulate(&experiment, &points, engine, (request.rollouts, shard), arguments.jobs, &bar)?;
    results.seconds = bar.finish();
    results.rollouts_per_second = results.rollouts_run as f64 / results.seconds.max(1e-9);
    results.command = command_line();
    output::text(&json(&results));
    Ok(ExitCode::SUCCESS)
}

/// What lint says of the policy as shipped: policies that cannot do what they say explain themselves here.
fn remarks(experiment: &Experiment) {
    let rate = experiment.models.first().map_or(20.0, |model| model.traffic.rate);
    let facts = ::lint::Facts { rate, ..::lint::Facts::default() };
    let Ok(findings) = ::lint::check(&experiment.documents, &facts) else { return };
    let object = experiment.document.title();
    let serious =
        findings.iter().filter(|finding| finding.object == object && finding.level > ::lint::Level::Note);
    let serious: Vec<_> = serious.collect();
    if serious.is_empty() {
        return;
    }
    output::line("");
    output::line("What makes it lie (coalmine lint says more)");
    for finding in serious {
        output::line(&format!("  {} {}: {}", finding.code, finding.field, finding.why));
    }
}

/// The command as it was typed, for reports.
fn command_line() -> String {
    let quoted = |word: String| {
        let plain =
            word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=,:%".contains(c)) && !word.is_empty();
        if plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    let words: Vec<String> = std::env::args().skip(1).map(quoted).collect();
    format!("coalmine {}", words.join(" "))
}

fn json(results: &Results) -> String {
    serde_json::to_string(results).expect("results are plain data") + "\n"
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), String> {
    std::fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}

fn write_table(path: &Path, results: &Results) -> Result<(), String> {
    match path.extension() {
        Some(ending) if ending == "csv" => write(path, report::whatif::csv(results)),
        _ => write(path, report::whatif::parquet(results)),
    }
}

fn print(results: &Results, format: Format) {
    output::text(&match format {
        Format::Text => report::whatif::text(results),
        Format::Json => json(results),
        Format::Csv => report::whatif::csv(results),
    });
}

/// The Canary with the best policy, and what differs.
fn best(
    experiment: &Experiment,
    points: &[Point],
    results: &Results,
) -> Result<Option<(String, String)>, String> {
    let Some(best) = results.best else { return Ok(None) };
    let document = &experiment.document;
    let (text, is_rewritten) = field::patch(&document.text, &points[best].changes)?;
    if is_rewritten {
        output::note(&format!("{}: written anew: its comments are lost", document.file));
    }
    let file = Path::new(&document.file)
        .file_name()
        .map_or(document.file.clone(), |name| name.to_string_lossy().into_owned());
    let names = (format!("a/{file}"), format!("b/{file}"));
    let diff = report::unified_diff((&names.0, &names.1), &document.text, &text);
    Ok(Some((text, diff)))
}

fn replay(
    experiment: &Experiment,
    index: u64,
    version: &str,
    file: Option<&Path>,
) -> Result<ExitCode, String> {
    let points = sweep::points(experiment)?;
    if points.len() > 1 {
        return Err(format!(
            "--replay shows one policy, these variations make {}: give each one value",
            points.len()
        ));
    }
    for model in &experiment.models {
        let policy = sweep::policy(experiment, &points[0].canary, model);
        let setting = Setting::new(&policy, model, version)?;
        let (outcome, lines) = run::replay(&setting, Seed::new(experiment.seed), index);
        let title = format!(
            "Rollout {index} of a {version} version (service model {}, seed {})",
            model.name, experiment.seed
        );
        output::text(&report::whatif::timeline(&title, &outcome, &lines));
        if let Some(path) = file {
            write(path, &scenario::scenario(&setting, index)?)?;
            output::note(&format!("{}: run it with: coalmine run {}", path.display(), path.display()));
            for difference in scenario::differences(&setting)? {
                output::note(&format!("  {difference}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Rollouts for the report: quick, typical and slow ones of each version.
fn examples(
    experiment: &Experiment,
    points: &[Point],
    results: &Results,
    arguments: &WhatIfArguments,
) -> Result<Vec<Example>, String> {
    let shown = results.best.unwrap_or(0);
    let mut examples = Vec::new();
    let files: Vec<String> = arguments.files.iter().map(|file| file.display().to_string()).collect();
    for model in &experiment.models {
        let policy = sweep::policy(experiment, &points[shown].canary, model);
        for (name, version) in &model.versions {
            let setting = Setting::new(&policy, model, name)?;
            let is_bad = version.is_bad(name);
            let seed = Seed::new(experiment.seed);
            // For users a bad version's rollout is the worse the more failures it shows, a good one's the longer it takes.
            let cost = |outcome: &Outcome| {
                let missed = u64::from(is_bad == (outcome.end == End::Promoted)) << 40;
                missed + if is_bad { outcome.user_errors } else { outcome.time.max(0) as u64 }
            };
            let some = 0..results.rollouts.min(5_000);
            let Some(found) = run::examples(&setting, some, seed, cost) else { continue };
            for (title, index) in ["best", "typical", "worst"].into_iter().zip(found) {
                let (outcome, lines) = run::replay(&setting, seed, index);
                let mut command = format!(
                    "coalmine whatif {} --replay {index} --of {name} --seed {}",
                    files.join(" "),
                    experiment.seed
                );
                for (field, value) in &points[shown].changes {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    command.push_str(&format!(" --vary {}={value}", field.text));
                }
                let title = format!("{title} rollout of {name} (service model {})", model.name);
                examples.push(Example { title, command, outcome, lines });
            }
        }
    }
    Ok(examples)
}

fn merge(arguments: &MergeArguments) -> Result<ExitCode, String> {
    let mut merged: Option<Results> = None;
    for path in &arguments.files {
        let place = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| place(error.to_string()))?;
        let results: Results = serde_json::from_str(&text)
            .map_err(|error| place(format!("no results of `coalmine whatif --out`: {error}")))?;
        match &mut merged {
            None => merged = Some(results),
            Some(merged) => merged.merge(&results).map_err(place)?,
        }
    }
    let mut results = merged.ok_or("name at least one file")?;
    let goal = results.goal.as_deref().map(Goal::parse).transpose()?;
    results.compare(goal.as_ref());
    let missing = results.parts.as_slice() != [(0, results.rollouts)];
    if missing {
        let have: Vec<String> =
            results.parts.iter().map(|(from, to)| format!("{from} to {}", to - 1)).collect();
        output::note(&format!(
            "note: only rollouts {} of {} are in these files",
            have.join(", "),
            results.rollouts
        ));
    }
    if let Some(path) = &arguments.report {
        write(path, report::whatif::html(&results, &[], None))?;
    }
    if let Some(path) = &arguments.out {
        write(path, json(&results))?;
    }
    if let Some(path) = &arguments.table {
        write_table(path, &results)?;
    }
    print(&results, arguments.format);
    Ok(ExitCode::SUCCESS)
}

/// A progress bar on standard error, if that is a terminal, and the stopwatch.
struct Progress {
    started: Instant,
    all: AtomicU64,
    done: AtomicU64,
    /// Milliseconds since the start at which the bar was last drawn.
    drawn: AtomicU64,
    shows: bool,
}

impl Progress {
    #[allow(clippy::disallowed_methods, reason = "the stopwatch for the user: nothing simulated reads it")]
    fn new(quiet: bool) -> Self {
        Progress {
            started: Instant::now(),
            all: AtomicU64::new(0),
            done: AtomicU64::new(0),
            drawn: AtomicU64::new(0),
            shows: !quiet && std::io::stderr().is_terminal(),
        }
    }

    fn expect(&self, all: u64) {
        self.all.store(all.max(1), Ordering::Relaxed);
    }

    fn add(&self, rollouts: u64) {
        let done = self.done.fetch_add(rollouts, Ordering::Relaxed) + rollouts;
        if !self.shows {
            return;
        }
        let elapsed = self.started.elapsed().as_millis() as u64;
        let drawn = self.drawn.load(Ordering::Relaxed);
        let due = elapsed >= drawn + 100
            && self.drawn.compare_exchange(drawn, elapsed, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if due {
            let share = (done as f64 / self.all.load(Ordering::Relaxed) as f64).min(1.0);
            let left =
                Duration::from_secs_f64((elapsed as f64 / 1000.0 * (1.0 / share.max(1e-6) - 1.0)).min(1e6));
            let full = (share * 30.0) as usize;
            let bar = "#".repeat(full) + &"-".repeat(30 - full);
            eprint!("\r[{bar}] {:3.0}%  {done} rollouts, {}s left ", share * 100.0, left.as_secs());
        }
    }

    /// Clears the bar; seconds since the start.
    fn finish(&self) -> f64 {
        if self.shows && self.drawn.load(Ordering::Relaxed) > 0 {
            eprint!("\r{:78}\r", "");
        }
        self.started.elapsed().as_secs_f64()
    }
}
