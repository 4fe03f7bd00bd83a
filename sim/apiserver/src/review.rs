//! Reviews: questions that are posted like objects and answered at once. Everybody may do everything here.

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::request::Target;

/// The answer to a review; `None` for other resources.
pub(crate) fn answer(target: &Target, body: &[u8]) -> Option<Result<Value, Failure>> {
    let status = match (target.group.as_str(), target.plural.as_str()) {
        (
            "authorization.k8s.io",
            "selfsubjectaccessreviews" | "subjectaccessreviews" | "localsubjectaccessreviews",
        ) => {
            json!({"allowed": true, "reason": "every user is an administrator"})
        }
        ("authorization.k8s.io", "selfsubjectrulesreviews") => json!({
            "incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }),
        ("authentication.k8s.io", "selfsubjectreviews") => {
            json!({"userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]}})
        }
        ("authentication.k8s.io", "tokenreviews") => {
            json!({"authenticated": true, "user": {"username": "admin", "groups": ["system:masters"]}})
        }
        _ => return None,
    };
    Some(serde_json::from_slice::<Value>(body).map_err(|error| Failure::bad_request(error.to_string())).map(
        |mut review| {
            review["status"] = status;
            review
        },
    ))
}
