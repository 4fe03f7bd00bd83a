//! Rollouts of a release policy, many a second: `canary`'s core without clusters, sockets or a clock.
//!
//! A [`Policy`] (the Canary as shipped) and a [`ServiceModel`] (users, versions, metrics server) make a [`Setting`], and a
//! rollout is a few ticks over a [`world`](mod@world) whose counters are drawn only where a verdict needs them. It is pure
//! and repeatable: seed, model and index give the rollout, whatever thread runs it.
//!
//! - [`automaton`]: the core's decisions as a table, so that a tick costs nanoseconds;
//! - [`draws`], [`counts`]: random numbers by what they are for, counts by inversion (common random numbers);
//! - [`tally`], [`statistics`]: what many rollouts say, with confidence intervals, mergeable;
//! - [`run`]: all cores.
//!
//! It is a crate of its own because it is compiled for speed, which the rest of `whatif` need not be.

pub mod arrivals;
pub mod automaton;
pub mod counts;
pub mod draws;
pub mod latency;
mod law;
pub mod load_test;
pub mod model;
pub mod policy;
pub mod reading;
pub mod rollout;
pub mod run;
pub mod setting;
pub mod span;
pub mod statistics;
pub mod tally;
pub mod tick;
pub mod world;

pub use model::ServiceModel;
pub use policy::Policy;
pub use rollout::{End, Outcome};
pub use setting::Setting;
pub use span::Span;

#[cfg(test)]
mod theory;
