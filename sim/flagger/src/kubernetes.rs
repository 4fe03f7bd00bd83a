//! API calls in client-go's terms: what "not found" is, and an error's text.

use kube::core::Status;

/// The error's text as client-go prints it: the API server's message.
pub fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the API server has no such object.
pub fn is_not_found(error: &kube::Error) -> bool {
    status(error).is_some_and(|status| status.code == 404)
}

/// Whether the object has changed since it was read.
pub fn is_conflict(error: &kube::Error) -> bool {
    status(error).is_some_and(|status| status.code == 409 && status.reason != "AlreadyExists")
}

fn status(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// Writes that are tried again when they meet a conflict, each time on a fresh read.
pub const ATTEMPTS: usize = 5;
