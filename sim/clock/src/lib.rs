//! Time and seed: what nobody may take from the operating system.
//!
//! Every component of a run sleeps on the run's [`Clock`], stamps objects with it, and draws randomness from a
//! stream of the run's [`Seed`]. In memory time is virtual ([`run_simulated`]): it jumps from timer to timer, so ten
//! virtual minutes take milliseconds. Live, the same clock follows real time, or real time sped up by a factor
//! ([`Clock::live`]).
//!
//! This crate knows nothing of Kubernetes. It is the one place (beside the load generator's sockets) that may
//! name tokio's and the standard library's clocks; `.clippy.toml` bans them elsewhere.

mod clock;
mod seed;
mod timers;

pub use clock::{Clock, Elapsed, run_simulated};
pub use seed::{Rng, Seed};
pub use timers::{GRANULARITY, tick};

pub use jiff::Timestamp;
