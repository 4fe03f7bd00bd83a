//! What is posted to an object's subresource: bindings and evictions of pods, tokens of ServiceAccounts.

use base64::Engine as _;
use clock::Clock;
use http::{Response, StatusCode};
use rand::Rng as _;
use tree::json;

use super::remove::options;
use super::{is_dry_run, parse};
use crate::body::Body;
use crate::delete::{self, stamp};
use crate::disruption;
use crate::failure::Failure;
use crate::server::{Call, State, answered};
use crate::user::User;

/// `pods/binding`: what a scheduler posts.
pub(crate) fn bind(state: &mut State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let place = call.place(name);
    let stored = state.store.get(&place).cloned().ok_or_else(|| Failure::not_found(call.resource, name))?;
    let binding = parse(call)?;
    let Some(node) = binding["target"]["name"].as_str().filter(|node| !node.is_empty()) else {
        return Err(Failure::bad_request("Binding: target.name: Required value"));
    };
    let mut pod = stored.value.clone();
    if let Some(bound) = pod["spec"]["nodeName"].as_str() {
        let why = format!("pod {name} is already assigned to node {bound:?}");
        return Err(Failure::conflict(call.resource, name, &why));
    }
    pod["spec"]["nodeName"] = json!(node);
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(clock.now())});
    let conditions = match pod["status"]["conditions"].as_array().cloned() {
        Some(mut conditions) => {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(condition);
            conditions
        }
        None => vec![condition].into(),
    };
    pod["status"]["conditions"] = json!(conditions);
    state.store.put(&place, pod);
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(answered(StatusCode::CREATED, status.to_string()))
}

/// `pods/eviction`: a deletion, unless a disruption budget has none left.
pub(crate) fn evict(state: &mut State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let place = call.place(name);
    let pod = state.store.get(&place).cloned().ok_or_else(|| Failure::not_found(call.resource, name))?;
    let eviction = parse(call)?;
    disruption::check(&state.store, &pod.value)?;
    let options = options(call, &eviction["deleteOptions"])?;
    if !is_dry_run(call)
        && eviction["deleteOptions"]["dryRun"].as_array().is_none_or(|items| items.is_empty())
    {
        delete::delete(&mut state.store, &place, options, clock.now());
    }
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(answered(StatusCode::CREATED, status.to_string()))
}

/// `serviceaccounts/token`: a token by which this server knows the account.
pub(crate) fn token(state: &mut State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let place = call.place(name);
    if state.store.get(&place).is_none() {
        return Err(Failure::not_found(call.resource, name));
    }
    let mut request = parse(call)?;
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    let encoded = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    // Clients look into the token's claims, so it has the form of one; its last part is what makes it unguessable.
    let subject = format!("system:serviceaccount:{}:{name}", place.key.0);
    let claims = json!({"iss": "https://kubernetes.default.svc", "sub": subject,
                        "exp": clock.now().as_second() + seconds, "iat": clock.now().as_second()});
    let mut secret = [0; 32];
    state.token_source.fill_bytes(&mut secret);
    let token = format!(
        "{}.{}.{}",
        encoded(br#"{"alg":"none"}"#),
        encoded(claims.to_string().as_bytes()),
        encoded(&secret)
    );
    state.tokens.insert(token.clone(), User::service_account(&place.key.0, name));
    request["status"] = json!({
        "token": token,
        "expirationTimestamp": stamp(clock.now() + jiff::SignedDuration::from_secs(seconds)),
    });
    Ok(answered(StatusCode::CREATED, request.to_string()))
}
