//! The command line: parse, call, print.

mod find;
mod full;
mod lint;
#[cfg(feature = "live")]
mod on_kubernetes;
mod output;
mod run;
#[cfg(feature = "live")]
mod up;
mod whatif;

use std::process::ExitCode;

use allocator as _;
use clap::{Parser, Subcommand};

/// GitOps progressive delivery across Kubernetes clusters, simulated in one process on a virtual clock.
#[derive(Debug, Parser)]
#[command(name = "coalmine", version, arg_required_else_help = true, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios and check what they expect.
    ///
    /// One file prints its timeline and a summary. Several files, or folders, run in parallel and print a line each.
    ///
    /// Exit code: 0 if all expectations hold, 1 if one fails, 2 if the input is unusable.
    Run(run::RunArguments),
    /// Find what makes a release policy lie, with no simulation.
    ///
    /// Exit code: 0, 1 if something is found that is at least a warning, 2 if the input is unusable.
    Lint(lint::LintArguments),
    /// Tell what a release policy does before production does it.
    ///
    /// Simulates many releases of good and bad versions under a Canary as it is shipped: how often bad ones are
    /// promoted and good ones rolled back, after how long, and what users see meanwhile.
    ///
    /// Exit code: 0, 1 if no policy meets the goal of --optimize, 2 if the input is unusable or a shard elsewhere fails.
    Whatif(Box<whatif::WhatIfArguments>),
    /// Bring a testbed up on sockets of this machine, in real time, for kubectl and other real tools.
    ///
    /// Runs until Ctrl-C, and leaves nothing behind.
    #[cfg(feature = "live")]
    Up(up::UpArguments),
    /// Show the addresses of a running testbed.
    #[cfg(feature = "live")]
    Status(up::DirArguments),
    /// Save the state of a running testbed, for `coalmine up --from`.
    #[cfg(feature = "live")]
    Snapshot(up::SnapshotArguments),
    /// End a running testbed.
    #[cfg(feature = "live")]
    Down(up::DirArguments),
    /// Print the JSON Schema of scenario files.
    Schema,
    /// Send load to an HTTP server: hey's flags and more (see `coalmine load -help`).
    ///
    /// Exit code: 0, 1 or 2 for an unusable command line, 3 if an --assert does not hold.
    #[cfg(feature = "load")]
    #[command(disable_help_flag = true)]
    Load {
        /// hey's flags, then the URL.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Whatif(arguments) => whatif::run(&arguments),
        #[cfg(feature = "live")]
        Command::Up(arguments) => up::up(&arguments),
        #[cfg(feature = "live")]
        Command::Status(arguments) => up::status(&arguments),
        #[cfg(feature = "live")]
        Command::Snapshot(arguments) => up::snapshot(&arguments),
        #[cfg(feature = "live")]
        Command::Down(arguments) => up::down(&arguments),
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&testbed::scenario::schema());
            output::line(&schema.expect("a schema's keys are strings"));
            ExitCode::SUCCESS
        }
        #[cfg(feature = "load")]
        Command::Load { arguments } => ExitCode::from(loadgen::cli::main("coalmine load", &arguments)),
    }
}
