//! Failed requests: the `Status` object that a real API server answers with.

use std::time::Duration;

use tree::{Value, json};

use crate::patch::PatchError;
use crate::rbac::Attributes;
use crate::resource::Resource;
use crate::structural::Cause;
use crate::user::User;

/// Why a request failed. Wording, codes and reasons follow apimachinery's `api/errors`.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The HTTP status code.
    pub code: u16,
    /// The machine-readable reason, e.g. `NotFound`; empty where the real server gives none.
    pub reason: String,
    /// The message for people.
    pub message: String,
    /// `details` of the Status; null without.
    pub details: Value,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// A failure without details.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Failure { code, reason: reason.to_owned(), message: message.into(), details: Value::Null }
    }

    /// The Status object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }

    /// The seconds after which the client should try again, if it should.
    pub fn retry_after(&self) -> Option<Duration> {
        self.details["retryAfterSeconds"].as_u64().map(Duration::from_secs)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Failure::new(400, "BadRequest", message)
    }

    pub(crate) fn no_such_path() -> Self {
        let mut failure = Failure::new(404, "NotFound", "the server could not find the requested resource");
        failure.details = json!({});
        failure
    }

    pub(crate) fn method_not_allowed() -> Self {
        let mut failure = Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        failure.details = json!({});
        failure
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified);
        Failure::new(404, "NotFound", message).about(resource, name)
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified);
        Failure::new(409, "AlreadyExists", message).about(resource, name)
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified);
        Failure::new(409, "Conflict", message).about(resource, name)
    }

    pub(crate) fn stale(resource: &Resource, name: &str) -> Self {
        Failure::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified);
        Failure::new(403, "Forbidden", message).about(resource, name)
    }

    /// What role-based access control answers.
    pub(crate) fn unauthorized_for(wanted: &Attributes<'_>, user: &User) -> Self {
        if wanted.resource.is_empty() {
            let mut failure = Failure::new(403, "Forbidden", format!("forbidden: {}", wanted.refusal(user)));
            failure.details = json!({});
            return failure;
        }
        let what = crate::resource::qualified(wanted.resource, wanted.group);
        let name = if wanted.name.is_empty() { String::new() } else { format!(" {:?}", wanted.name) };
        let message = format!("{what}{name} is forbidden: {}", wanted.refusal(user));
        let mut failure = Failure::new(403, "Forbidden", message);
        failure.details = json!({"kind": wanted.resource});
        for (field, value) in [("name", wanted.name), ("group", wanted.group)] {
            if !value.is_empty() {
                failure.details[field] = json!(value);
            }
        }
        failure
    }

    /// A request without credentials, or with unknown ones.
    pub fn unauthenticated() -> Self {
        Failure::new(401, "Unauthorized", "Unauthorized")
    }

    /// A body that is larger than the server takes.
    pub fn too_large() -> Self {
        Failure::new(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Failure::new(410, "Expired", message)
    }

    /// An object that validation refuses; all causes are told.
    pub(crate) fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Self {
        let told: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let told = match told.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let kind = resource.qualified_kind();
        let mut failure = Failure::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {told}"));
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field}))
            .collect();
        failure.details =
            json!({"name": name, "group": resource.group, "kind": resource.kind, "causes": causes});
        failure
    }

    pub(crate) fn patch(resource: &Resource, name: &str, error: &PatchError) -> Self {
        let message = match error {
            PatchError::Invalid(text) if text.is_empty() => {
                format!("{} \"{name}\" is invalid", resource.qualified_kind())
            }
            _ => error.to_string(),
        };
        Failure::new(error.code(), error.reason(), message)
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        let mut details = json!({"name": name, "kind": resource.plural});
        if !resource.group.is_empty() {
            details["group"] = json!(resource.group);
        }
        self.details = details;
        self
    }
}
