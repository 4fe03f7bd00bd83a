//! Why a query has no answer.

use std::fmt;

/// A query's failure, in Prometheus' words. The HTTP API answers `bad_data` (400) for the first kind and `execution`
/// (422) for the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// The text is no valid query, e.g. `1:5: parse error: unexpected end of input`.
    Parse(String),
    /// The query is valid but cannot be answered over these series.
    Execution(String),
}

impl QueryError {
    pub(crate) fn execution(message: impl Into<String>) -> Self {
        QueryError::Execution(message.into())
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::Parse(message) | QueryError::Execution(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for QueryError {}
