//! JSON patch (RFC 6902), with the limits and the refusals of a Kubernetes API server.

use super::PatchError;
use tree::Value;

/// The most operations one JSON patch may have, as in the real server.
pub const OPERATIONS_MAX: usize = 10_000;

/// Applies a JSON patch given as the parsed body.
///
/// # Errors
/// [`PatchError::BadRequest`] for a body that is not a list of operations, [`PatchError::TooLarge`] for more than
/// [`OPERATIONS_MAX`] of them, [`PatchError::Invalid`] when a path does not exist or a `test` does not hold.
pub fn apply(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::BadRequest(format!(
            "a JSON patch is a list of operations, got {}",
            crate::structural::type_of(patch)
        )));
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    let mut parsed = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        let operation: json_patch::PatchOperation =
            serde::Deserialize::deserialize(serde_json::Value::from(operation)).map_err(|error| {
                PatchError::BadRequest(format!("operation {index} of the JSON patch: {error}"))
            })?;
        parsed.push(operation);
    }
    let mut patched = serde_json::Value::from(current);
    json_patch::patch(&mut patched, &parsed).map_err(|error| {
        let operation = &operations[error.operation]["op"];
        PatchError::Invalid(format!(
            "operation {} ({}) of the JSON patch failed at {:?}: {}",
            error.operation,
            operation.as_str().unwrap_or("unknown"),
            error.path.as_str(),
            error.kind
        ))
    })?;
    Ok(patched.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tree::json;

    #[test]
    fn rollout_undo_replaces_template_and_annotations() {
        let current =
            json!({"metadata": {"annotations": {"a": "1"}}, "spec": {"template": {"x": 1}, "replicas": 2}});
        let patch = json!([
            {"op": "replace", "path": "/spec/template", "value": {"x": 0}},
            {"op": "replace", "path": "/metadata/annotations", "value": {"b~c/d": "2"}},
            {"op": "test", "path": "/metadata/annotations/b~0c~1d", "value": "2"},
        ]);
        let patched = apply(&current, &patch).unwrap();
        assert_eq!(
            patched,
            json!({"metadata": {"annotations": {"b~c/d": "2"}}, "spec": {"template": {"x": 0}, "replicas": 2}})
        );
    }

    #[test]
    fn refusals_say_whose_fault_it_is() {
        let current = json!({"spec": {"replicas": 2}});
        let refuse = |patch: Value| apply(&current, &patch).unwrap_err();
        assert_eq!(refuse(json!({"spec": {}})).code(), 400);
        assert_eq!(refuse(json!([{"op": "smash", "path": "/spec"}])).code(), 400);
        assert_eq!(refuse(json!([{"op": "add", "path": "spec", "value": 1}])).code(), 400);
        let missing = refuse(json!([{"op": "remove", "path": "/spec/paused"}]));
        assert_eq!((missing.code(), missing.reason()), (422, "Invalid"));
        assert!(missing.to_string().contains("/spec/paused"), "{missing}");
        let test = refuse(json!([{"op": "test", "path": "/spec/replicas", "value": 3}]));
        assert_eq!(test.code(), 422);
        let many = vec![json!({"op": "test", "path": "/spec/replicas", "value": 2}); OPERATIONS_MAX + 1];
        assert_eq!(refuse(many.into()).code(), 413);
    }
}
