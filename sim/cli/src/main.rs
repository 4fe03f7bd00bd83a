//! The command line: parse, call, print.

mod find;
mod output;
mod run;
#[cfg(feature = "live")]
mod up;

use std::process::ExitCode;

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
    /// Bring a testbed up on sockets of this machine, in real time, for kubectl and other real tools.
    ///
    /// Runs until Ctrl-C, and leaves nothing behind.
    #[cfg(feature = "live")]
    Up(up::UpArguments),
    /// Show the addresses of a running testbed.
    #[cfg(feature = "live")]
    Status(up::DirArguments),
    /// End a running testbed.
    #[cfg(feature = "live")]
    Down(up::DirArguments),
    /// Print the JSON Schema of scenario files.
    Schema,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        #[cfg(feature = "live")]
        Command::Up(arguments) => up::up(&arguments),
        #[cfg(feature = "live")]
        Command::Status(arguments) => up::status(&arguments),
        #[cfg(feature = "live")]
        Command::Down(arguments) => up::down(&arguments),
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&testbed::scenario::schema());
            output::line(&schema.expect("a schema's keys are strings"));
            ExitCode::SUCCESS
        }
    }
}
