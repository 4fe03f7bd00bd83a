//! A load generator whose core does no I/O: a schedule, a recorder, and the command lines and outputs of the tools
//! that people use.
//!
//! The scheduler ([`run`]) is generic over a [`Target`], which sends one request and says what came of it, and over
//! [`Time`]. The `loadgen` binary runs it over sockets on real time (feature `net`); a simulation runs the very same
//! code over its own network on virtual time, where the latency of a response is data and no timer rounds it.
//!
//! It understands `hey`'s command line in full and prints its summary and CSV ([`hey`]), and knows as much of `wrk`
//! ([`wrk`]) and `curl` ([`curl`]) as load tests in the wild use, wrapped in as much shell ([`shell`]) as they are
//! wrapped in.
//!
//! ```
//! use std::time::Duration;
//! use loadgen::{Answer, Exchange, Plan, Recorder, Target, Time};
//!
//! /// Answers everything with 200 after 3 ms, on a clock that stands still.
//! struct Fixed;
//! impl Target for Fixed {
//!     type Connection = ();
//!     fn connection(&self, _index: usize) {}
//!     async fn send(&self, _connection: &mut (), _sent: Duration) -> Exchange {
//!         Exchange::answered(Answer::status(200), Duration::from_millis(3))
//!     }
//! }
//! struct Frozen;
//! impl Time for Frozen {
//!     fn now(&self) -> Duration {
//!         Duration::ZERO
//!     }
//!     async fn sleep_until(&self, _at: Duration) {}
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let recorder = Recorder::default();
//! let plan = Plan { connections: 2, requests: Some(10), ..Plan::default() };
//! loadgen::run(&plan, &Fixed, &Frozen, &recorder).await;
//! assert_eq!(recorder.finish().all.statuses[&200], 10);
//! # }
//! ```

pub mod assertion;
#[cfg(feature = "cli")]
pub mod cli;
pub mod compare;
pub mod curl;
mod distribution;
mod go_duration;
pub mod go_flag;
pub mod hey;
mod mix;
#[cfg(feature = "net")]
pub mod net;
mod pace;
mod plan;
mod record;
pub mod redirect;
mod request;
mod run;
pub mod shell;
mod target;
mod time;
pub mod wrk;

pub use distribution::{Distribution, Spread};
pub use go_duration::{format_duration, parse_duration};
pub use mix::Mix;
pub use pace::{Arrivals, Profile, Stage, Ticker};
pub use plan::{Pace, Plan};
pub use record::{Progress, Recorder, Report, Sample, Tally};
pub use request::RequestSpec;
pub use run::{Share, StopSignal, run, run_until};
pub use target::{Answer, Exchange, Failure, FailureKind, Phases, Target};
pub use time::Time;
