//! Structural schemas of custom resources: pruning, defaulting, validation.
use serde_json::Value;

/// One reason why an object or a schema is invalid, as in `details.causes` of a Status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, ...
    pub reason: &'static str,
    /// The text after the field: `Invalid value: "x": ...`.
    pub message: String,
    /// The field's path: `spec.replicas`.
    pub field: String,
}

/// A compiled `openAPIV3Schema`.
#[derive(Debug, Clone)]
pub struct Schema {}

impl Schema {
    /// Compiles the `openAPIV3Schema` of a CRD version.
    ///
    /// # Errors
    /// What keeps the schema from being structural.
    pub fn compile(schema: &Value) -> Result<Schema, Vec<Cause>> {
        let _ = schema;
        Ok(Schema {})
    }

    /// Drops unknown fields.
    pub fn prune(&self, object: &mut Value) {
        let _ = object;
    }

    /// The paths of the fields that [`Schema::prune`] would drop, sorted: `spec.foo`.
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        let _ = object;
    }

    /// Everything that is wrong with a pruned and defaulted object.
    pub fn validate(&self, object: &Value) -> Vec<Cause> {
        let _ = object;
        Vec::new()
    }
}

/// The JSON type's name as schemas call it.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
