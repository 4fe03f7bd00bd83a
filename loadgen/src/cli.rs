//! The command line: `loadgen`, and `coalmine load`.

mod execute;
mod hdr;
mod json;
mod live;
mod options;
mod text;

use std::io::Write as _;

use crate::hey;

/// Exit codes.
pub mod exit {
    /// The run was made, and every assertion holds.
    pub const DONE: u8 = 0;
    /// An input or output failed, or the command line is not usable as a whole (hey's).
    pub const UNUSABLE: u8 = 1;
    /// A flag is unknown or its value cannot be read (Go's).
    pub const FLAG: u8 = 2;
    /// An assertion does not hold.
    pub const ASSERTION: u8 = 3;
}

/// Runs a command line, without the program's name, and returns the exit code. `program` is the name for messages;
/// under the name `hey`, certificates are not checked, as there.
pub fn main(program: &str, args: &[String]) -> u8 {
    if args.first().is_some_and(|arg| arg == "merge") {
        return hdr::merge(program, &args[1..]);
    }
    let as_hey = program == "hey";
    let options = match options::parse(args, as_hey) {
        Ok(options) => options,
        Err(error) if error.message == "flag: help requested" => {
            print(&usage(program));
            return exit::DONE;
        }
        Err(error) => {
            complain(program, &error.message);
            complain(program, &format!("usage: {program} [flags] URL; {program} -help lists the flags"));
            return u8::try_from(error.code).unwrap_or(exit::UNUSABLE);
        }
    };
    if let Some(file) = &options.hdr
        && let Err(error) = hdr::check(file)
    {
        complain(program, &format!("HdrHistogram log {}: {error}", file.display()));
        return exit::UNUSABLE;
    }
    for note in &options.notes {
        complain(program, note);
    }
    let executed = match execute::execute(&options) {
        Ok(executed) => executed,
        Err(error) => {
            complain(program, &error);
            return exit::UNUSABLE;
        }
    };
    report(program, &options, &executed)
}

fn report(program: &str, options: &options::Options, executed: &execute::Executed) -> u8 {
    let report = &executed.report;
    let outcomes: Vec<_> = options.assertions.iter().map(|assertion| assertion.check(report)).collect();
    let mut code = exit::DONE;
    match options.output {
        options::Output::Summary => {
            print(&hey::summary(report));
            print(&text::beyond(options, report));
        }
        options::Output::Json => print(&json::document(options, executed, &outcomes)),
        options::Output::Csv => {}
    }
    if let Some(file) = &options.hdr
        && let Err(error) = hdr::write(file, report)
    {
        complain(program, &format!("HdrHistogram log {}: {error}", file.display()));
        code = exit::UNUSABLE;
    }
    if executed.abandoned > 0 {
        complain(program, &format!("interrupted: {} requests were still on their way", executed.abandoned));
    }
    for outcome in &outcomes {
        if options.output == options::Output::Summary || !outcome.holds {
            complain(program, &outcome.to_string());
        }
        if !outcome.holds {
            code = exit::ASSERTION;
        }
    }
    code
}

fn usage(program: &str) -> String {
    format!(
        "Usage: {program} [flags] URL\n       {program} merge [-o OUT.hdr] FILE.hdr...\n\nAs hey:\n{}{}\nExit code: 0, \
         1 or 2 for a command line or file that cannot be used, 3 if an assertion\ndoes not hold. Failed requests are \
         results, not failures of the run.\n",
        hey::USAGE,
        options::USAGE
    )
}

/// Prints to standard output; whoever closed it does not want more.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(program: &str, text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{program}: {text}");
}
