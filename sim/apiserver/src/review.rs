//! Reviews: questions that are posted like objects and answered at once.

use tree::{Value, json};

use crate::failure::Failure;
use crate::rbac::{self, Attributes};
use crate::request::Target;
use crate::server::State;
use crate::user::User;

/// Whether this is a review's address.
pub(crate) fn is_review(target: &Target<'_>) -> bool {
    matches!(
        (&*target.group, &*target.plural),
        (
            "authorization.k8s.io",
            "selfsubjectaccessreviews"
                | "subjectaccessreviews"
                | "localsubjectaccessreviews"
                | "selfsubjectrulesreviews"
        ) | ("authentication.k8s.io", "selfsubjectreviews" | "tokenreviews")
    )
}

/// The review with its status filled in.
pub(crate) fn answer(
    state: &State,
    enforced: bool,
    user: &User,
    target: &Target<'_>,
    mut review: Value,
) -> Result<Value, Failure> {
    if !review.is_object() {
        return Err(Failure::bad_request("the body of the request is no JSON object"));
    }
    let spec = &review["spec"];
    let status = match &*target.plural {
        "selfsubjectaccessreviews" => access(state, enforced, user, spec),
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let groups = spec["groups"].as_array().into_iter().flatten().map(text).collect();
            access(state, enforced, &User { name: text(&spec["user"]), groups }, spec)
        }
        "selfsubjectrulesreviews" => {
            rules(state, enforced, user, spec["namespace"].as_str().unwrap_or_default())
        }
        "selfsubjectreviews" => json!({"userInfo": {"username": user.name, "groups": user.groups}}),
        _ => match spec["token"].as_str().and_then(|token| state.tokens.get(token)) {
            Some(user) => {
                json!({"authenticated": true, "user": {"username": user.name, "groups": user.groups}})
            }
            None => json!({"authenticated": false, "error": "the token is not one of this server's"}),
        },
    };
    review["status"] = status;
    Ok(review)
}

fn access(state: &State, enforced: bool, user: &User, spec: &Value) -> Value {
    if !enforced {
        return json!({"allowed": true, "reason": "every user is an administrator"});
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (wanted, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let verb = text(if path.is_object() { &path["verb"] } else { &wanted["verb"] });
    let (group, resource) = (text(&wanted["group"]), text(&wanted["resource"]));
    let (part, namespace, name) =
        (text(&wanted["subresource"]), text(&wanted["namespace"]), text(&wanted["name"]));
    let attributes = Attributes {
        verb: &verb,
        group: &group,
        resource: &resource,
        subresource: &part,
        namespace: &namespace,
        name: &name,
        path: path["path"].as_str().unwrap_or_default(),
    };
    match rbac::allows(&state.store, user, &attributes) {
        Some(reason) => json!({"allowed": true, "reason": reason}),
        None => json!({"allowed": false}),
    }
}

fn rules(state: &State, enforced: bool, user: &User, namespace: &str) -> Value {
    let (mut resources, mut others) = (Vec::new(), Vec::new());
    if enforced && !user.is_in(crate::user::MASTERS) {
        for (_, rule) in rbac::rules_of(&state.store, user, namespace) {
            let list = if rule["nonResourceURLs"].is_array() { &mut others } else { &mut resources };
            list.push(rule);
        }
    } else {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        others.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    json!({"incomplete": false, "resourceRules": resources, "nonResourceRules": others})
}
