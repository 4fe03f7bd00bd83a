//! The metrics provider `prometheus`: instant queries over HTTP.

use std::time::Duration;

use canary::{Dialect, QueryError};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use program::Context;
use serde_json::Value;

use crate::http::{Answer, call};

/// The longest that a query may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A Prometheus server, and how to ask it.
#[derive(Clone, Debug)]
pub struct Prometheus {
    /// The URL without a trailing slash.
    base: String,
    headers: HeaderMap,
    dialect: Dialect,
}

impl Prometheus {
    /// The server at `address`.
    ///
    /// # Errors
    /// `prometheus address X is not a valid URL`.
    pub fn new(address: &str, dialect: Dialect) -> Result<Self, String> {
        let valid =
            address.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        if !valid {
            return Err(format!("prometheus address {address} is not a valid URL"));
        }
        let base = address.trim_end_matches('/').to_owned();
        Ok(Prometheus { base, headers: HeaderMap::new(), dialect })
    }

    /// Adds a header to all requests; one that HTTP does not allow is left out.
    pub fn header(&mut self, name: &str, value: &str) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            self.headers.append(name, value);
        }
    }

    /// Asks for the query's value now; of several the last.
    ///
    /// # Errors
    /// [`QueryError::NoValues`] for an empty answer (in the newer dialect also for NaN), else
    /// [`QueryError::Failed`].
    pub async fn query(&self, context: &Context, query: &str) -> Result<f64, QueryError> {
        let newer = self.dialect == Dialect::Latest;
        let url = format!("{}/api/v1/query?query={}", self.base, escape(&squeeze(query)));
        let answer = self.get(context, &url).await.map_err(|error| match newer {
            true => QueryError::Failed(format!("request failed: {error}")),
            false => QueryError::Failed(error),
        })?;
        let value = read(&self.accepted(answer)?, newer).map_err(QueryError::Failed)?;
        value.filter(|value| !newer || !value.is_nan()).ok_or(QueryError::NoValues)
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub async fn is_online(&self, context: &Context) -> Result<(), QueryError> {
        if self.dialect == Dialect::Rc1 {
            let url = format!("{}/api/v1/status/flags", self.base);
            let answer = self.get(context, &url).await.map_err(QueryError::Failed)?;
            return self.accepted(answer).map(drop);
        }
        let failed = |error: &str| QueryError::Failed(format!("running query failed: {error}"));
        match self.query(context, "vector(1)").await {
            Ok(1.0) => Ok(()),
            Ok(_) => Err(QueryError::Failed("value is not 1 for query: vector(1)".to_owned())),
            Err(QueryError::NoValues) => Err(failed("no values found")),
            Err(QueryError::Failed(error)) => Err(failed(&error)),
            Err(other) => Err(other),
        }
    }

    async fn get(&self, context: &Context, url: &str) -> Result<Answer, String> {
        call(context, Method::GET, url, self.headers.clone(), "", TIMEOUT).await
    }

    fn accepted(&self, answer: Answer) -> Result<String, QueryError> {
        let Answer { status, body } = answer;
        match (status.as_u16() >= 400, self.dialect) {
            (false, _) => Ok(body),
            (true, Dialect::Rc1) => Err(QueryError::Failed(format!("error response: {body}"))),
            (true, Dialect::Latest) => {
                let reason = status.canonical_reason().unwrap_or_default();
                let code = status.as_u16();
                Err(QueryError::Failed(format!("error response: Status {code} {reason}: {body}")))
            }
        }
    }
}

/// The last value of an answer.
fn read(body: &str, newer: bool) -> Result<Option<f64>, String> {
    let unreadable = |error: String| format!("error unmarshaling result: {error}, '{body}'");
    let answer: Value = serde_json::from_str(body).map_err(|error| unreadable(error.to_string()))?;
    let data = &answer["data"];
    let mut value = None;
    let parse = |text: &str| {
        let number = match text {
            "+Inf" => Some(f64::INFINITY),
            "-Inf" => Some(f64::NEG_INFINITY),
            text => text.parse().ok(),
        };
        number.ok_or_else(|| format!("strconv.ParseFloat: parsing {text:?}: invalid syntax"))
    };
    if data["resultType"] == "scalar" {
        // Flagger's own reader knows vectors only and calls this an error.
        return Err(unreadable(
            "json: cannot unmarshal number into Go struct field .data.result of type struct".to_owned(),
        ));
    }
    for sample in data["result"].as_array().into_iter().flatten() {
        if newer && sample.get("values").is_some() {
            return Err("query returned multiple values".to_owned());
        }
        if let Some(text) = sample["value"][1].as_str() {
            value = Some(parse(text)?);
        }
    }
    Ok(value)
}

/// Runs of white space become one space.
pub fn squeeze(query: &str) -> String {
    let mut text = String::with_capacity(query.len());
    for character in query.chars() {
        let space = character.is_ascii_whitespace();
        if !space {
            text.push(character);
        } else if !text.ends_with(' ') {
            text.push(' ');
        }
    }
    text
}

/// Go's `url.QueryEscape`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The value of a header that signs a request with a name and password.
pub fn basic_auth(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

fn base64(data: &[u8]) -> String {
    // Kubernetes' byte strings are written in base64.
    let value = serde_json::to_value(k8s_openapi::ByteString(data.to_vec()));
    value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_flagger_does() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{},"value":[1,"1"]},{"metric":{},"value":[1,"96.2"]}]}}"#;
        assert_eq!(read(vector, true), Ok(Some(96.2)));
        assert_eq!(read(r#"{"data":{"resultType":"vector","result":[]}}"#, false), Ok(None));
        let nan = r#"{"data":{"resultType":"vector","result":[{"value":[1,"NaN"]}]}}"#;
        assert!(read(nan, false).unwrap().unwrap().is_nan());
        assert!(read("<html>", false).unwrap_err().starts_with("error unmarshaling result: "));
    }

    #[test]
    fn queries_are_squeezed_and_escaped() {
        assert_eq!(escape(&squeeze("sum(\n  x{a=~\"b\"}) * 100")), "sum%28+x%7Ba%3D~%22b%22%7D%29+%2A+100");
        assert_eq!(base64(b"user:pass"), "dXNlcjpwYXNz");
        assert!(Prometheus::new("prometheus:9090", Dialect::Rc1).is_err());
        assert!(Prometheus::new("http://prometheus:9090", Dialect::Rc1).is_ok());
    }
}
