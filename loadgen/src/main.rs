//! The `loadgen` binary.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let program = Path::new(&program).file_name().map_or("loadgen".into(), |name| name.to_string_lossy());
    ExitCode::from(loadgen::cli::main(&program, &args.collect::<Vec<_>>()))
}
