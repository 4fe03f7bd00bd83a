//! What the benchmarks beside this file share.
#![allow(clippy::disallowed_methods, reason = "benchmarks measure real processes in real time")]

pub mod process;
