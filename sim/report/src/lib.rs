//! How results are shown: the timeline of a run, its summary, JSON lines, JUnit, one line per scenario.
//!
//! Everything here is a pure function of an [`Outcome`](testbed::Outcome) and gives the same text for the same
//! outcome; wall time, which differs from run to run, is left to the caller.

mod diff;
mod json;
mod junit;
mod numbers;
mod summary;
mod timeline;
pub mod whatif;

pub use diff::unified_diff;
pub use json::json_lines;
pub use junit::junit;
pub use numbers::{latency, virtual_time};
pub use summary::{one_line, replay, summary};
pub use timeline::{flagger_log, timeline};
