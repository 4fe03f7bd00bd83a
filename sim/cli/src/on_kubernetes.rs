//! `coalmine whatif --on kubernetes`: the shards as the pods of an Indexed Job.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use ::whatif::request::Request;
use ::whatif::results::Results;
use clap::{Args, ValueEnum};
use clock::Clock;
use remote::{Cluster, Parts, Work};
use tokio::signal::unix::{SignalKind, signal};

use crate::output;

/// The shards, unless told.
const SHARDS: u64 = 4;
/// Where the pods find the request.
const REQUEST: &str = "/etc/coalmine/request.json";
/// The image that holds this very version.
const IMAGE: &str = concat!("ghcr.io/coalmine/coalmine:", env!("CARGO_PKG_VERSION"));

/// Which cluster, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Beyond this machine")]
pub struct OnArguments {
    /// Run the shards elsewhere and merge their results: as an Indexed Job on a Kubernetes cluster.
    #[arg(long, value_enum, value_name = "WHERE", conflicts_with_all = ["shard", "replay"])]
    pub on: Option<Where>,
    /// Into how many shards the rollouts are split (4). Changes no result.
    #[arg(long, value_name = "N", requires = "on", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    shards: Option<u64>,
    /// The image that the shards run; it must hold the same version of coalmine.
    #[arg(long, value_name = "IMAGE", requires = "on", default_value = IMAGE)]
    image: String,
    /// The kubeconfig, instead of those that KUBECONFIG names or ~/.kube/config.
    #[arg(long, value_name = "FILE", requires = "on")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context, instead of its current one.
    #[arg(long, value_name = "NAME", requires = "on")]
    context: Option<String>,
    /// The namespace of the Job, instead of the context's.
    #[arg(long, value_name = "NAME", requires = "on")]
    namespace: Option<String>,
    /// Leave the Job and its ConfigMap behind; the cluster deletes them an hour after the end.
    #[arg(long, requires = "on")]
    keep: bool,
}

/// Where shards run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Where {
    /// On the cluster of a kubeconfig.
    Kubernetes,
}

impl OnArguments {
    /// The number of shards.
    pub fn shards(&self) -> u64 {
        self.shards.unwrap_or(SHARDS)
    }
}

/// Runs the shards of a request and merges their results into `merged`, which has none yet. `false` if somebody has
/// interrupted it. Each shard runs `jobs` threads, one unless told.
///
/// # Errors
/// A sentence that names the context, pod or shard and what is wrong with it.
pub fn run(
    arguments: &OnArguments,
    request: &Request,
    jobs: Option<NonZeroUsize>,
    quiet: bool,
    merged: &mut Results,
) -> Result<bool, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let logs = runtime.block_on(logs(arguments, request, jobs.unwrap_or(NonZeroUsize::MIN), quiet))?;
    let Some(logs) = logs else { return Ok(false) };
    for (index, log) in logs.iter().enumerate() {
        let place = |error: String| format!("shard {} of {}: {error}", index + 1, logs.len());
        merged.merge(&results(log).map_err(place)?).map_err(|error| {
            place(format!("{error}; does {} hold coalmine {}?", arguments.image, env!("CARGO_PKG_VERSION")))
        })?;
    }
    Ok(true)
}

/// What the shards print; nothing if somebody has interrupted it.
async fn logs(
    arguments: &OnArguments,
    request: &Request,
    threads: NonZeroUsize,
    quiet: bool,
) -> Result<Option<Vec<String>>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
    let mut interrupted = listen(SignalKind::interrupt())?;
    let mut terminated = listen(SignalKind::terminate())?;
    let told = |line: &str| {
        if !quiet {
            output::note(line);
        }
    };
    let clock = Clock::live(1.0);
    let cluster = Cluster::find(arguments.kubeconfig.as_deref(), arguments.context.as_deref(), clock).await?;
    let words = ["coalmine", "whatif", "shard", REQUEST, "--index", "$(JOB_COMPLETION_INDEX)", "--jobs"];
    let work = Work {
        name: "coalmine-whatif".to_owned(),
        namespace: arguments.namespace.clone().unwrap_or_else(|| cluster.namespace().to_owned()),
        image: arguments.image.clone(),
        command: words.map(str::to_owned).into_iter().chain([threads.to_string()]).collect(),
        input_path: REQUEST.to_owned(),
        input: serde_json::to_string(request).expect("a request is plain data"),
        parts: request.shards,
        cpus: threads.get() as u64,
        hopeless: i64::from(crate::whatif::UNUSABLE),
    };
    let parts = Parts::start(&cluster, &work, clock).await?;
    told(&format!(
        "context {}: Job {}/{} with {} shards",
        cluster.context(),
        work.namespace,
        parts.name(),
        work.parts
    ));
    let logs = {
        let mut told = told;
        tokio::select! { biased;
            _ = interrupted.recv() => None,
            _ = terminated.recv() => None,
            logs = parts.collect(&mut told) => Some(logs),
        }
    };
    if arguments.keep {
        output::note(&format!("kept: Job and ConfigMap {}/{}", work.namespace, parts.name()));
    } else {
        if logs.is_none() {
            output::note(&format!(
                "interrupted: deleting Job and ConfigMap {}/{}",
                work.namespace,
                parts.name()
            ));
        }
        tokio::select! { biased;
            _ = interrupted.recv() => output::note("interrupted again: they may be left behind"),
            removed = parts.remove() => {
                if let Err(left) = removed {
                    output::note(&left);
                }
            }
        }
    }
    logs.transpose()
}

/// The results in a shard's log.
fn results(log: &str) -> Result<Results, String> {
    let line = log.lines().rev().find(|line| line.starts_with('{'));
    let line = line.ok_or_else(|| {
        let begin: String = log.chars().take(200).collect();
        format!("its log holds no results; it begins with {begin:?}")
    })?;
    serde_json::from_str(line).map_err(|error| {
        format!(
            "the results in its log are not whole ({} bytes: {error}): nodes cut logs, most at 10 MiB: try fewer policies",
            log.len()
        )
    })
}
