//! `hey`: its command line, its summary and its CSV.
//!
//! Follows rakyll/hey 0.1.4, so that scripts which call it and parse what it prints keep working. Two of its habits
//! are not kept: it forgets all results after the first million, and it takes flags after the URL for nothing
//! without a word ([`Args::ignored`]).

mod args;
mod csv;
mod summary;

pub use args::{Args, FLAGS, Output, USAGE, UsageError};
pub use csv::{CSV_HEADER, csv_row};
pub use summary::summary;
