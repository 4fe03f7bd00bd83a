//! The controller as a program.

mod harness;
mod providers;
mod release;
mod routers;
mod targets;
