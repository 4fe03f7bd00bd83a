//! Strategic merge patch for built-in kinds.
use super::PatchError;
use serde_json::Value;

/// Applies a strategic merge patch to an object of a built-in kind (`apps/Deployment`, `/Pod` for the core group).
///
/// # Errors
/// [`PatchError`] with the status that the real server answers.
pub fn apply(group_kind: &str, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let _ = group_kind;
    Ok(super::merge::apply(current, patch))
}
