//! Writing to the terminal. A reader that goes away early, as `head` does, ends the program quietly.

use std::io::{ErrorKind, Write as _};

/// Prints a text as it is to standard output.
pub fn text(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    if let Err(error) = written {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        problem(&format!("cannot write to standard output: {error}"));
        std::process::exit(2);
    }
}

/// Prints a line to standard output.
pub fn line(line: &str) {
    text(&format!("{line}\n"));
}

/// Prints a note for people to standard error; nobody there to read it is no problem.
pub fn note(note: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{note}");
}

/// Prints what is wrong to standard error.
pub fn problem(problem: &str) {
    note(&format!("error: {problem}"));
}
