//! Webhooks: what is posted, and what counts as a yes.

use std::collections::BTreeMap;
use std::time::Duration;

use canary::Dialect;
use clock::Timestamp;
use crd::{Canary, CanaryWebhook, Phase};
use http::{Method, StatusCode};
use program::Context;
use serde::Serialize;

use crate::http::{call, json_headers};
use crate::pods;

/// What is posted. Keys in Flagger's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Payload {
    /// The Canary's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its phase.
    pub phase: Phase,
    /// What identifies the revision (newer dialect).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// What the webhook's definition adds, or the event.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl Payload {
    /// The payload of a webhook that is asked something.
    pub fn question(canary: &Canary, hook: &CanaryWebhook, phase: Phase, dialect: Dialect) -> Self {
        Payload {
            name: canary.name().to_owned(),
            namespace: canary.namespace().to_owned(),
            phase,
            checksum: (dialect == Dialect::Latest).then(|| checksum(canary)),
            metadata: hook.metadata.clone().unwrap_or_default(),
        }
    }

    /// The payload of a webhook that is told an event of type `kind` (`Normal` or `Warning`).
    pub fn event(
        canary: &Canary,
        hook: &CanaryWebhook,
        phase: Phase,
        message: &str,
        kind: &str,
        at: Timestamp,
        dialect: Dialect,
    ) -> Self {
        let mut payload = Payload::question(canary, hook, phase, dialect);
        if dialect == Dialect::Rc1 {
            payload.metadata.clear();
        }
        payload.metadata.insert("eventMessage".to_owned(), message.to_owned());
        payload.metadata.insert("eventType".to_owned(), kind.to_owned());
        payload.metadata.insert("timestamp".to_owned(), at.as_millisecond().to_string());
        payload
    }
}

/// What identifies the revision and configuration that a Canary is at.
fn checksum(canary: &Canary) -> String {
    let status = canary.status.clone().unwrap_or_default();
    pods::hash(&(status.tracked_configs, status.last_applied_spec))
}

/// Posts a payload. The newer dialect tries again after connection errors, 5xx and 429, as often as the
/// webhook says.
///
/// # Errors
/// The body of an answer above 202, or why there was none.
pub async fn post(
    context: &Context,
    hook: &CanaryWebhook,
    payload: &Payload,
    limit: Option<Duration>,
    dialect: Dialect,
) -> Result<(), String> {
    let limit = match limit {
        Some(limit) => limit,
        None if hook.timeout.len() < 2 => Duration::from_secs(10),
        None => canary::parse_duration(&hook.timeout)
            .ok_or_else(|| format!("time: invalid duration {:?}", hook.timeout))?,
    };
    let body = serde_json::to_string(payload).expect("a payload is always JSON");
    let retries = if dialect == Dialect::Latest { hook.retries.max(0) } else { 0 };
    let mut attempt = 0;
    loop {
        let answer = call(context, Method::POST, &hook.url, json_headers(), body.clone(), limit).await;
        let status = answer.as_ref().ok().map(|answer| answer.status);
        let lost = status.is_none_or(|status| {
            status == StatusCode::TOO_MANY_REQUESTS
                || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
        });
        if dialect == Dialect::Rc1 || !lost {
            let answer = answer?;
            return if answer.status.as_u16() > 202 { Err(answer.body) } else { Ok(()) };
        }
        if attempt == retries {
            let attempts = attempt + 1;
            let reason = answer.err().map_or(String::new(), |error| format!(": {error}"));
            return Err(format!("POST {} giving up after {attempts} attempt(s){reason}", hook.url));
        }
        // Exponential backoff from one second to thirty.
        context.clock.sleep(Duration::from_secs(30.min(1 << attempt.min(5)))).await;
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_flaggers() {
        let canary: Canary = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "podinfo", "namespace": "test"},
            "status": {"lastAppliedSpec": "x"},
        }))
        .unwrap();
        let hook = CanaryWebhook {
            metadata: Some(BTreeMap::from([("cmd".to_owned(), "hey".to_owned())])),
            ..Default::default()
        };
        let json = |payload: &Payload| serde_json::to_string(payload).unwrap();
        let question = Payload::question(&canary, &hook, Phase::Progressing, Dialect::Rc1);
        assert_eq!(
            json(&question),
            r#"{"name":"podinfo","namespace":"test","phase":"Progressing","metadata":{"cmd":"hey"}}"#
        );
        let newer = Payload::question(&canary, &hook, Phase::Progressing, Dialect::Latest);
        assert!(newer.checksum.is_some_and(|sum| sum.chars().all(|c| "456789bcdf".contains(c))));
        let at = "2020-03-17T11:44:13.123Z".parse().unwrap();
        let event = Payload::event(&canary, &hook, Phase::Failed, "m", "Warning", at, Dialect::Rc1);
        assert_eq!(
            json(&event),
            "{\"name\":\"podinfo\",\"namespace\":\"test\",\"phase\":\"Failed\",\"metadata\":\
             {\"eventMessage\":\"m\",\"eventType\":\"Warning\",\"timestamp\":\"1584445453123\"}}"
        );
    }
}
