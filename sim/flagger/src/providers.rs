//! The metrics providers that MetricTemplates name besides `prometheus`: what each is asked over HTTP, and how its
//! answer is read.

use std::collections::BTreeMap;
use std::time::Duration;

use canary::{Dialect, QueryError};
use crd::MetricProvider;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use crate::annotated_csv;
use crate::http::{Answer, call};
use crate::keptn;
use crate::prometheus::{Prometheus, basic_auth, escape, squeeze};
use crate::shell::Shell;

/// The longest that most providers may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that InfluxDB may take.
const INFLUX_TIMEOUT: Duration = Duration::from_secs(15);

/// The key-value pairs of a template's Secret.
pub type Credentials = BTreeMap<String, String>;

/// A metrics server.
pub enum Provider {
    /// Prometheus, or what speaks like it.
    Prometheus(Prometheus),
    /// KeptnMetrics and Analyses, which are objects of the Kubernetes API.
    Keptn,
    /// One of the others.
    Http(Http),
}

/// A provider that is asked over HTTP.
pub struct Http {
    kind: Kind,
    /// The URL, or as much of it as the provider's own paths are added to.
    address: String,
    headers: HeaderMap,
    /// The window to look back over.
    interval: Duration,
    dialect: Dialect,
    /// InfluxDB's organisation.
    organisation: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Datadog,
    NewRelic,
    Graphite,
    InfluxDb,
    Dynatrace,
}

impl Provider {
    /// The provider that a template names. `interval` is the metric's window; without one, it is not judged.
    ///
    /// # Errors
    /// Flagger's words for an unusable address, missing credentials, or a window that is none;
    /// `provider X is not supported` for those that need a cloud's own client.
    pub fn new(
        provider: &MetricProvider,
        credentials: &Credentials,
        interval: Option<&str>,
        dialect: Dialect,
    ) -> Result<Self, String> {
        let kind = match (provider.kind.as_str(), dialect) {
            ("datadog", _) => Kind::Datadog,
            ("newrelic", Dialect::Latest) => Kind::NewRelic,
            ("graphite", Dialect::Latest) => Kind::Graphite,
            ("influxdb", Dialect::Latest) => Kind::InfluxDb,
            ("dynatrace", Dialect::Latest) => Kind::Dynatrace,
            ("keptn", Dialect::Latest) => return Ok(Provider::Keptn),
            ("cloudwatch", _) | ("stackdriver" | "splunk" | "externalmetrics", Dialect::Latest) => {
                return Err(format!("provider {} is not supported", provider.kind));
            }
            // As upstream: what a release does not know is Prometheus.
            _ => return prometheus(provider, credentials, dialect).map(Provider::Prometheus),
        };
        let mut http = Http {
            kind,
            address: provider.address.clone(),
            headers: HeaderMap::new(),
            interval: Duration::ZERO,
            dialect,
            organisation: String::new(),
        };
        http.configure(provider, credentials)?;
        let windowed = matches!(kind, Kind::Datadog | Kind::NewRelic | Kind::Dynatrace);
        if let Some(text) = interval.filter(|_| windowed) {
            http.interval = canary::parse_duration(text)
                .ok_or_else(|| format!("error parsing metric interval: time: invalid duration {text:?}"))?;
        }
        Ok(Provider::Http(http))
    }

    /// Asks for a query's value.
    ///
    /// # Errors
    /// [`QueryError`] with the provider's words.
    pub async fn query(&self, shell: &Shell, query: &str) -> Result<f64, QueryError> {
        match self {
            Provider::Prometheus(prometheus) => prometheus.query(&shell.context, query).await,
            Provider::Keptn => keptn::query(shell, query).await.map_err(QueryError::Failed),
            Provider::Http(http) => http.query(shell, query).await,
        }
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// As [`Provider::query`].
    pub async fn is_online(&self, shell: &Shell) -> Result<(), QueryError> {
        match self {
            Provider::Prometheus(prometheus) => prometheus.is_online(&shell.context).await,
            Provider::Keptn => Ok(()),
            Provider::Http(http) => http.is_online(shell).await,
        }
    }
}

fn prometheus(
    provider: &MetricProvider,
    credentials: &Credentials,
    dialect: Dialect,
) -> Result<Prometheus, String> {
    let mut prometheus = Prometheus::new(&provider.address, dialect)?;
    if dialect == Dialect::Latest {
        for (name, values) in &provider.headers {
            values.iter().for_each(|value| prometheus.header(name, value));
        }
    }
    if provider.secret_ref.is_none() {
        return Ok(prometheus);
    }
    match (dialect, credentials.get("token")) {
        (Dialect::Latest, Some(token)) => prometheus.header("authorization", &format!("Bearer {token}")),
        _ => {
            let (user, password) = login(&provider.kind, credentials)?;
            prometheus.header("authorization", &basic_auth(user, password));
        }
    }
    Ok(prometheus)
}

fn login<'a>(kind: &str, credentials: &'a Credentials) -> Result<(&'a str, &'a str), String> {
    let part = |name: &str| {
        let missing = || format!("{kind} credentials does not contain a {name}");
        credentials.get(name).map(String::as_str).ok_or_else(missing)
    };
    Ok((part("username")?, part("password")?))
}

impl Http {
    fn configure(&mut self, provider: &MetricProvider, credentials: &Credentials) -> Result<(), String> {
        let kind = provider.kind.as_str();
        let key = |name: &str, missing: String| credentials.get(name).ok_or(missing);
        let default = |address: &mut String, host: &str| {
            if address.is_empty() {
                host.clone_into(address);
            }
        };
        match self.kind {
            Kind::Datadog => {
                default(&mut self.address, "https://api.datadoghq.com");
                for (name, header) in
                    [("datadog_api_key", "dd-api-key"), ("datadog_application_key", "dd-application-key")]
                {
                    let value = key(name, format!("datadog credentials does not contain {name}"))?;
                    self.header(header, value);
                }
            }
            Kind::NewRelic => {
                default(&mut self.address, "https://insights-api.newrelic.com");
                let missing = |name: &str| format!("newrelic credentials does not contain the key '{name}'");
                let account = key("newrelic_account_id", missing("newrelic_account_id"))?;
                self.address = format!("{}/v1/accounts/{account}/query", self.address);
                // Quoted as upstream.
                let missing = "newrelic credentials does not contain the key ''newrelic_query_key";
                let value = key("newrelic_query_key", missing.to_owned())?;
                self.header("x-query-key", value);
            }
            Kind::Graphite | Kind::InfluxDb => {
                if self.address.parse::<http::Uri>().is_err() {
                    return Err(format!("{kind} address {} is not a valid URL", self.address));
                }
                if provider.secret_ref.is_none() {
                    return Ok(());
                }
                if self.kind == Kind::Graphite {
                    let (user, password) = login(kind, credentials)?;
                    self.header("authorization", &basic_auth(user, password));
                } else {
                    let missing = |what: &str| format!("{kind} credentials does not contain an {what}");
                    let token = key("token", missing("authentication token"))?;
                    self.header("authorization", &format!("Token {token}"));
                    self.organisation = key("org", missing("organisation"))?.clone();
                }
            }
            Kind::Dynatrace => {
                if self.address.is_empty() {
                    return Err("dynatrace endpoint is not set".to_owned());
                }
                let missing = "dynatrace credentials does not contain dynatrace_token";
                let token = key("dynatrace_token", missing.to_owned())?;
                self.header("authorization", &format!("Api-Token {token}"));
            }
        }
        Ok(())
    }

    /// Adds a header to all requests; one that HTTP does not allow is left out.
    fn header(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.headers.append(HeaderName::from_static(name), value);
        }
    }

    async fn query(&self, shell: &Shell, query: &str) -> Result<f64, QueryError> {
        let now = shell.context.clock.now();
        let seconds = now.as_second();
        // Ten windows back, of which the first counts: the newest is rarely complete.
        let back = self.interval.as_secs() as i64;
        let url = match self.kind {
            Kind::Datadog => {
                let from = seconds - 10 * back;
                let query = escape(query);
                format!("{}/api/v1/query?from={from}&query={query}&to={seconds}", self.address)
            }
            Kind::NewRelic => {
                format!("{}?nrql={}", self.address, escape(&format!("{query} SINCE {back} seconds ago")))
            }
            Kind::Graphite => render_url(&self.address, &squeeze(query)),
            Kind::InfluxDb => return self.query_influx(shell, query).await,
            Kind::Dynatrace => {
                let (to, window) = (seconds * 1000, self.interval.as_millis() as i64);
                format!(
                    "{}/api/v2/metrics/query?from={}&metricSelector={}&resolution=Inf&to={to}",
                    self.address,
                    to - 10 * window,
                    escape(query)
                )
            }
        };
        let answer = self.get(shell, &url).await?;
        let body = self.accepted(answer).map_err(QueryError::Failed)?;
        let document: Value = serde_json::from_str(&body)
            .map_err(|error| QueryError::Failed(format!("error unmarshaling result: {error}, '{body}'")))?;
        let value = match (self.kind, self.dialect) {
            (Kind::Datadog, Dialect::Rc1) => {
                let points = document["series"][0]["pointlist"].as_array();
                points.and_then(|points| points.last()).and_then(|point| point[1].as_f64())
            }
            (Kind::Datadog, Dialect::Latest) => document["series"][0]["pointlist"][0][1].as_f64(),
            (Kind::NewRelic, _) => {
                let results = document["results"].as_array();
                results.filter(|results| results.len() == 1).and_then(|results| results[0]["result"].as_f64())
            }
            (Kind::Graphite, _) => return last_point(&document).ok_or(QueryError::NoValues),
            _ => {
                let data = document["result"][0]["data"].as_array();
                data.and_then(|data| data.last()).and_then(|series| series["values"][0].as_f64())
            }
        };
        value.ok_or_else(|| {
            QueryError::NoValuesIn(match self.dialect {
                Dialect::Rc1 => format!("no values found in response: {body}"),
                Dialect::Latest => format!("invalid response: {body}: no values found"),
            })
        })
    }

    async fn query_influx(&self, shell: &Shell, query: &str) -> Result<f64, QueryError> {
        let failed =
            |error: String| QueryError::Failed(format!("error accessing influxdb query api: {error}"));
        let answer = self.post_flux(shell, query).await.map_err(failed)?;
        match annotated_csv::first_value(&answer).map_err(failed)? {
            // As upstream: an answer without a record is a zero.
            None => Ok(0.0),
            Some(annotated_csv::Field::Double(value)) => Ok(value),
            Some(annotated_csv::Field::Null(record)) => {
                Err(QueryError::NoValuesIn(format!("invalid response: {record}: no values found")))
            }
            Some(annotated_csv::Field::Other(record)) => {
                Err(QueryError::Failed(format!("invalid response: {record}")))
            }
        }
    }

    async fn post_flux(&self, shell: &Shell, query: &str) -> Result<String, String> {
        let base = self.address.trim_end_matches('/');
        let url = format!("{base}/api/v2/query?org={}", escape(&self.organisation));
        let dialect =
            json!({"annotations": ["datatype", "group", "default"], "delimiter": ",", "header": true});
        let body = json!({"dialect": dialect, "query": query, "type": "flux"}).to_string();
        let mut headers = self.headers.clone();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = call(&shell.context, Method::POST, &url, headers, body, INFLUX_TIMEOUT).await?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let told: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let message = told["message"].as_str().unwrap_or(&answer.body);
        Err(match told["code"].as_str() {
            Some(code) => format!("{code}: {message}"),
            None => format!("{}: {message}", answer.status),
        })
    }

    async fn get(&self, shell: &Shell, url: &str) -> Result<Answer, QueryError> {
        let answer = call(&shell.context, Method::GET, url, self.headers.clone(), "", TIMEOUT).await;
        answer.map_err(|error| match self.dialect {
            Dialect::Rc1 => QueryError::Failed(error),
            Dialect::Latest => QueryError::Failed(format!("request failed: {error}")),
        })
    }

    /// The body of a good answer.
    fn accepted(&self, answer: Answer) -> Result<String, String> {
        let Answer { status, body } = answer;
        let good = if self.kind == Kind::Graphite { status.as_u16() < 400 } else { status.as_u16() == 200 };
        if good {
            return Ok(body);
        }
        Err(match (self.kind, self.dialect) {
            (Kind::Datadog, Dialect::Latest) => format!("error response: {body}: {status}"),
            // Upstream wraps an error that is none.
            (Kind::NewRelic | Kind::Dynatrace, _) => format!("error response: {body}: %!w(<nil>)"),
            _ => format!("error response: {body}"),
        })
    }

    async fn is_online(&self, shell: &Shell) -> Result<(), QueryError> {
        let url = match self.kind {
            Kind::Datadog => format!("{}/api/v1/validate", self.address),
            Kind::NewRelic => {
                let query = format!("SELECT * FROM Metric SINCE {} seconds ago", self.interval.as_secs());
                format!("{}?nrql={}", self.address, escape(&query))
            }
            Kind::Dynatrace => format!("{}/api/v2/metrics?pageSize=1", self.address),
            Kind::Graphite => {
                return match self.query(shell, "target=test").await {
                    Ok(_) | Err(QueryError::NoValues) => Ok(()),
                    Err(QueryError::Failed(error)) => {
                        Err(QueryError::Failed(format!("running query failed: {error}")))
                    }
                    Err(other) => Err(other),
                };
            }
            Kind::InfluxDb => {
                let asked = self.post_flux(shell, "from(bucket: \"default\") |> range(start: -2h)").await;
                return asked.map(drop).map_err(|error| {
                    QueryError::Failed(format!("error accessing influxdb query api: {error}"))
                });
            }
        };
        let Answer { status, body } = self.get(shell, &url).await?;
        if status.as_u16() == 200 {
            return Ok(());
        }
        Err(QueryError::Failed(format!("error response: {body}")))
    }
}

/// The last value that is not null, of all series.
fn last_point(document: &Value) -> Option<f64> {
    let series = document.as_array().into_iter().flatten();
    let points = series.flat_map(|series| series["datapoints"].as_array().into_iter().flatten());
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    points.filter_map(|point| number(&point[0])).next_back()
}

/// Graphite's render URL: the query's own parameters, in order of their names, with the format.
fn render_url(address: &str, query: &str) -> String {
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let escaped = (byte == b'%').then(|| rest.clone()).and_then(|mut ahead| {
                let mut digit = || char::from(ahead.next()?).to_digit(16);
                let value = digit()? * 16 + digit()?;
                Some((value as u8, ahead))
            });
            match (byte, escaped) {
                (_, Some((value, ahead))) => {
                    bytes.push(value);
                    rest = ahead;
                }
                (b'+', _) => bytes.push(b' '),
                (other, _) => bytes.push(other),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = query.trim().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .filter(|(name, _)| name != "format")
        .collect();
    pairs.push(("format".to_owned(), "json".to_owned()));
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    let encoded = pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    format!("{}/render?{}", address.trim_end_matches('/'), encoded.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphites_render_urls_are_gos() {
        assert_eq!(
            render_url("http://graphite/sub/", "target=sum(a.b.*)&from=-2min"),
            "http://graphite/sub/render?format=json&from=-2min&target=sum%28a.b.%2A%29"
        );
        let document = json!([{"datapoints": [[1.0, 1], [2.5, 2], [null, 3]]}]);
        assert_eq!(last_point(&document), Some(2.5));
        assert_eq!(last_point(&json!([])), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |kind: &str, secret: &[&str], interval, dialect, expected: &str| {
            let provider = MetricProvider {
                kind: kind.to_owned(),
                address: "http://server".to_owned(),
                secret_ref: Some(Default::default()),
                ..Default::default()
            };
            let secret = secret.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
            let made = Provider::new(&provider, &secret, Some(interval), dialect);
            assert_eq!(made.err().as_deref(), Some(expected).filter(|text| !text.is_empty()), "{kind}");
        };
        use Dialect::{Latest, Rc1};
        check("datadog", &[], "1m", Latest, "datadog credentials does not contain datadog_api_key");
        check(
            "datadog",
            &["datadog_api_key", "datadog_application_key"],
            "",
            Latest,
            "error parsing metric interval: time: invalid duration \"\"",
        );
        let missing = "newrelic credentials does not contain the key 'newrelic_account_id'";
        check("newrelic", &[], "1m", Latest, missing);
        check("influxdb", &["token"], "1m", Latest, "influxdb credentials does not contain an organisation");
        check("dynatrace", &[], "1m", Latest, "dynatrace credentials does not contain dynatrace_token");
        check("graphite", &["username"], "1m", Latest, "graphite credentials does not contain a password");
        for kind in ["cloudwatch", "stackdriver", "splunk"] {
            check(kind, &[], "1m", Latest, &format!("provider {kind} is not supported"));
        }
        check("cloudwatch", &[], "1m", Rc1, "provider cloudwatch is not supported");
        // The older release takes what it does not know for Prometheus.
        check("graphite", &["username", "password"], "1m", Rc1, "");
        check("keptn", &[], "", Latest, "");
    }
}
