//! What does a release policy do before production does it: many rollouts of one Canary under a model of its service.
//!
//! The rollouts are those of `fastpath`, whose modules are named here too. Around them:
//!
//! - [`source`]: its files; [`manifest`]: the Canary as shipped, and what else they say; [`experiment`]: what is asked;
//!   [`request`]: the same as text, for shards on other machines;
//! - [`sweep`], [`goal`]: many policies, the Pareto front, the best one; [`field`]: its manifest; [`results`];
//! - [`scenario`]: the same setting for the whole testbed.
//!
//! It knows neither the testbed nor how results are shown.

pub mod experiment;
pub mod field;
pub mod goal;
pub mod manifest;
pub mod request;
pub mod results;
pub mod scenario;
pub mod source;
pub mod sweep;

pub use fastpath::{
    End, Outcome, Policy, ServiceModel, Setting, Span, automaton, counts, draws, latency, load_test, model,
    policy, rollout, run, setting, span, statistics, tally, tick, world,
};
