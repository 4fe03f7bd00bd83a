//! The patch formats an API server takes, as pure functions from the stored object and a patch to the new object.
//!
//! - [`merge`]: JSON merge patch (`application/merge-patch+json`, RFC 7386);
//! - [`json`]: JSON patch (`application/json-patch+json`, RFC 6902);
//! - [`strategic`]: strategic merge patch (`application/strategic-merge-patch+json`), built-in kinds only.
//!
//! Server-side apply is not a patch of values alone; it lives in [`crate::managed_fields`].

pub mod json;
pub mod merge;
pub mod strategic;

use thiserror::Error;

/// Why a patch was refused. The variant says which status the request gets; [`Display`](std::fmt::Display) is the detail.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400 `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// The patch is well-formed and does not fit this object: 422 `Invalid`.
    #[error("{0}")]
    Invalid(String),
    /// The patch has too many operations: 413 `RequestEntityTooLarge`.
    #[error("{0}")]
    TooLarge(String),
    /// What the real server reports as an internal error: 500 without a reason (a list item without its merge key).
    #[error("{0}")]
    Internal(String),
}

impl PatchError {
    /// The HTTP status code of the answer.
    pub fn code(&self) -> u16 {
        match self {
            PatchError::BadRequest(_) => 400,
            PatchError::Invalid(_) => 422,
            PatchError::TooLarge(_) => 413,
            PatchError::Internal(_) => 500,
        }
    }

    /// The `reason` of the Status body; empty where the real server sends none.
    pub fn reason(&self) -> &'static str {
        match self {
            PatchError::BadRequest(_) => "BadRequest",
            PatchError::Invalid(_) => "Invalid",
            PatchError::TooLarge(_) => "RequestEntityTooLarge",
            PatchError::Internal(_) => "",
        }
    }
}
