//! PromQL over series in memory: a store of samples and the evaluation of queries at a given instant or range.
//!
//! Pure: no clock, no I/O, no client; times are milliseconds since the Unix epoch and come in as arguments. The same
//! store and query give the same answer, in the same order: nothing walks a randomly keyed map.
//!
//! - [`Storage`] holds the series; [`Storage::series`] gives a cheap reference that [`Storage::append`] takes, so a
//!   scraper need not hash labels again.
//! - [`Query::parse`] turns text into a checked tree; [`Engine`] evaluates it.
//! - Semantics follow Prometheus (lookback, staleness, extrapolation, vector matching, error texts).
//!   [`Options::closed_left`] switches range selectors between v2 (`[t-r, t]`) and v3 (`(t-r, t]`).
//!
//! Native histograms are not stored. The caller is `prometheus` (HTTP API, scraping) and the what-if fast path.

mod ast;
mod calendar;
mod error;
mod eval;
mod format;
mod functions;
mod hash;
mod labels;
mod matcher;
mod parse;
mod storage;
mod value;

pub use error::QueryError;
pub use eval::{Engine, Options};
pub use format::{format_duration, format_float, parse_duration, parse_float};
pub use functions::histogram::{Bucket, bucket_quantile};
pub use functions::rate::{Extrapolation, extrapolate};
pub use hash::FixedState;
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use matcher::{MatchKind, Matcher, MatcherError};
pub use parse::{Query, parse_selector};
pub use storage::{AppendError, STALE_MARKER, SeriesRef, Storage, is_stale_marker};
pub use value::{Annotations, Evaluation, InstantSample, RangeSeries, Value};
