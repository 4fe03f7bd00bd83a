//! The canary controller's decisions, pure: one tick of one Canary.
//!
//! [`advance`] does what Flagger does every analysis interval: make sure that the primary exists, notice a new
//! revision, judge it, shift weight, promote or roll back. It asks and acts only through a [`Port`] of Flagger's
//! verbs and holds no clock, no I/O and no client, so over a port that answers at once a single poll finishes it:
//! property tests and the what-if fast path run it that way, the controller program runs it over real clients.
//!
//! Two [`Dialect`]s are followed, `v1.0.0-rc.1` and `v1.44.0`: they differ in the order of steps, in what a failure
//! leads to, and in wording, all of which is in [`Message`].

mod advance;
mod alert;
mod analysis;
mod dialect;
mod ending;
mod gate;
mod go;
mod message;
mod port;
mod prepare;
mod query;
mod readiness;
mod status;
mod step;
mod strategy;
mod template;

pub use advance::{Settings, Subject, advance};
pub use alert::{Alert, Severity, reaches};
pub use dialect::Dialect;
pub use go::{duration_text, float_text, parse_duration};
pub use message::{Bound, Kind, Message, Names, What};
pub use port::{Measure, Port, QueryError, Routes, Scale, Server};
pub use query::{Check, Query};
pub use readiness::{NotReady, Role, Rollout, Workload, ready};
pub use status::{Observed, StatusChange, initializing};
pub use step::{max_weight, next_step};
pub use template::{TemplateModel, render};
