//! The load generator through its public interface.

mod command_lines;
mod hey;
mod schedule;
