//! The testbed: clusters, mesh and programs put together into a [`World`], scenario files ([`scenario`]), and the
//! runner that carries a scenario out on a world ([`run`]).
//!
//! This crate knows all the others and how they fit; it does not know how results are shown.

mod golden;
mod runner;
pub mod scenario;
pub mod timeline;
pub mod world;

pub use runner::{
    Answers, CanaryOutcome, ExpectationResult, FailureKind, Mismatch, Outcome, RunFailure, RunOptions,
    Session, SessionOptions, Status, TrafficSummary, VersionSummary, run,
};
pub use timeline::Timeline;
pub use world::World;
