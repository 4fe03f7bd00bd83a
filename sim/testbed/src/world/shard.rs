//! Coalmine's own image: runs a shard of `coalmine whatif --on kubernetes`, with the library that the real one runs.

use std::num::NonZeroUsize;
use std::time::Duration;

use clock::Seed;
use program::{Context, ExitCode, Main};
use whatif::request::Request;
use whatif::results::Results;
use whatif::run::Plan;
use whatif::sweep::{self, Options};

/// The image's repository.
pub(super) const REPOSITORY: &str = "coalmine/coalmine";
/// Rollouts per second of a simulated node's core.
const PACE: u64 = 300_000;
/// About so many rollouts are run at a time: the world stands still meanwhile.
const SLICE: u64 = 20_000;
/// The exit code of unusable input.
const UNUSABLE: ExitCode = ExitCode(2);
/// The exit code of a process that ends on SIGTERM.
const TERMINATED: ExitCode = ExitCode(143);

/// The image's program.
pub(super) fn program() -> Main {
    program::program(|context: Context| async move {
        match shard(&context).await {
            Ok(Some(results)) => {
                context.log.print(&serde_json::to_string(&results).expect("results are plain data"));
                ExitCode::SUCCESS
            }
            Ok(None) => TERMINATED,
            Err(problem) => {
                context.log.print(&format!("error: {problem}"));
                UNUSABLE
            }
        }
    })
}

/// The results of the shard that the arguments name; nothing if the container is to end before.
async fn shard(context: &Context) -> Result<Option<Results>, String> {
    let arguments: Vec<&str> = context.args.iter().map(String::as_str).collect();
    let ["whatif", "shard", file, "--index", index, ..] = arguments[..] else {
        return Err(format!(
            "the simulated image runs `coalmine whatif shard FILE --index N` only, not `coalmine {}`",
            arguments.join(" ")
        ));
    };
    let index = index.parse().map_err(|_| format!("--index {index}: write a number"))?;
    let request =
        Request::parse(&context.files.read_to_string(file)?).map_err(|error| format!("{file}: {error}"))?;
    if request.engine != "fast" {
        return Err(format!(
            "{file}: engine: the simulated image runs the fast engine only, not {}",
            request.engine
        ));
    }
    let (shard, of) = request.part(index)?;
    let experiment = request.experiment()?;
    let points = sweep::points(&experiment)?;
    let simulate = sweep::fast(Plan {
        seed: Seed::new(experiment.seed),
        jobs: NonZeroUsize::MIN,
        precision: 0.0,
        progress: &|_| {},
    });
    let options = |shard: (u64, u64)| Options {
        rollouts: request.rollouts,
        shard,
        curves: points.len() == 1,
        simulate: &simulate,
        engine: "fast",
    };
    let slices = sweep::size(&experiment, &points, &options((shard, of))).div_ceil(SLICE).max(1);
    let started = context.clock.elapsed();
    let mut merged: Option<Results> = None;
    for slice in 0..slices {
        let part = sweep::sweep(&experiment, &points, &options((shard * slices + slice, of * slices)))?;
        let took = Duration::from_secs_f64(part.rollouts_run as f64 / PACE as f64);
        context.cpu.add(took);
        context.clock.sleep(took).await;
        if context.termination.is_requested() {
            return Ok(None);
        }
        match &mut merged {
            None => merged = Some(part),
            Some(merged) => merged.merge(&part)?,
        }
    }
    let mut results = merged.expect("there is at least one slice");
    results.seconds = (context.clock.elapsed() - started).as_secs_f64();
    results.rollouts_per_second = results.rollouts_run as f64 / results.seconds.max(1e-9);
    Ok(Some(results))
}
