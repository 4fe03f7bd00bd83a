//! The HTTP API, `/api/v1`.

use std::collections::BTreeMap;

use http::StatusCode;
use program::{Request, Response, respond, respond_json};
use promql::{Evaluation, Matcher, Query, QueryError, Value, format_float, parse_duration, parse_selector};
use serde_json::{Value as Json, json};

use crate::scrape::Identity;
use crate::server::Server;

/// Parameters by name, from query and form.
struct Parameters(BTreeMap<String, Vec<String>>);

impl Parameters {
    fn of(request: &Request) -> Self {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let body = String::from_utf8_lossy(request.body());
        let form = if request.method() == http::Method::POST { body.as_ref() } else { "" };
        let query = request.uri().query().unwrap_or_default();
        for pair in query.split('&').chain(form.split('&')).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(decoded(name)).or_default().push(decoded(value));
        }
        Parameters(all)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .and_then(|values| values.first())
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let code = (bytes[index] == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) => {
                out.push(code);
                index += 3;
            }
            None => {
                out.push(if bytes[index] == b'+' { b' ' } else { bytes[index] });
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An error of the API: status, type, message.
struct Failure(StatusCode, &'static str, String);

impl Failure {
    fn bad(message: impl Into<String>) -> Self {
        Failure(StatusCode::BAD_REQUEST, "bad_data", message.into())
    }

    fn response(&self) -> Response {
        respond_json(self.0, json!({"status": "error", "errorType": self.1, "error": self.2}).to_string())
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Parse(message) => Failure::bad(format!("invalid parameter \"query\": {message}")),
            QueryError::Execution(message) => Failure(StatusCode::UNPROCESSABLE_ENTITY, "execution", message),
        }
    }
}

fn success(data: Json) -> Response {
    respond_json(StatusCode::OK, json!({"status": "success", "data": data}).to_string())
}

/// Answers a request below `/api/v1/`.
pub(crate) fn answer(server: &Server, path: &str, request: &Request) -> Response {
    let parameters = Parameters::of(request);
    let result = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["query"] => query(server, &parameters),
        ["query_range"] => query_range(server, &parameters),
        ["series"] => series(server, &parameters),
        ["labels"] => labels(server, &parameters),
        ["label", name, "values"] => label_values(server, name, &parameters),
        ["targets"] => Ok(success(targets(server))),
        ["metadata"] => Ok(success(json!({}))),
        ["rules"] => Ok(success(json!({"groups": []}))),
        ["alerts"] => Ok(success(json!({"alerts": []}))),
        ["status", "config"] => Ok(success(json!({"yaml": server.config_text()}))),
        ["status", "flags"] => Ok(success(json!(server.flags()))),
        ["status", "buildinfo"] => {
            Ok(success(json!({"version": server.version(), "revision": "", "branch": "",
            "buildUser": "", "buildDate": "", "goVersion": ""})))
        }
        ["status", "runtimeinfo"] => {
            Ok(success(json!({"storageRetention": "2h", "reloadConfigSuccess": true})))
        }
        _ => return respond(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    result.unwrap_or_else(|failure| failure.response())
}

fn query(server: &Server, parameters: &Parameters) -> Result<Response, Failure> {
    let text = parameters.get("query").unwrap_or_default();
    let at_ms = moment(parameters, "time")?.unwrap_or_else(|| server.now_ms());
    let query = Query::parse(text)?;
    let evaluation = server.with_storage(|storage| server.engine().instant(storage, &query, at_ms))?;
    Ok(result(&evaluation, at_ms))
}

fn query_range(server: &Server, parameters: &Parameters) -> Result<Response, Failure> {
    let missing = |name: &str| {
        Failure::bad(format!("invalid parameter {name:?}: cannot parse \"\" to a valid timestamp"))
    };
    let start = moment(parameters, "start")?.ok_or_else(|| missing("start"))?;
    let end = moment(parameters, "end")?.ok_or_else(|| missing("end"))?;
    if end < start {
        return Err(Failure::bad("invalid parameter \"end\": end timestamp must not be before start time"));
    }
    let step = parameters.get("step").unwrap_or_default();
    let step_ms = match step.parse::<f64>() {
        Ok(seconds) => (seconds * 1000.0) as i64,
        Err(_) => parse_duration(step).map_err(|_| {
            Failure::bad(format!("invalid parameter \"step\": cannot parse {step:?} to a valid duration"))
        })?,
    };
    if step_ms <= 0 {
        return Err(Failure::bad(
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    let query = Query::parse(parameters.get("query").unwrap_or_default())?;
    let evaluation =
        server.with_storage(|storage| server.engine().range(storage, &query, start, end, step_ms));
    let evaluation = evaluation.map_err(|error| match error {
        QueryError::Parse(message) => Failure::bad(message),
        other => Failure::from(other),
    })?;
    Ok(result(&evaluation, end))
}

fn time(at_ms: i64) -> Json {
    if at_ms % 1000 == 0 { json!(at_ms / 1000) } else { json!(at_ms as f64 / 1000.0) }
}

fn result(evaluation: &Evaluation, at_ms: i64) -> Response {
    let labels = |labels: &promql::Labels| -> Json {
        labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
    };
    let data = match &evaluation.value {
        Value::Scalar(value) => {
            json!({"resultType": "scalar", "result": [time(at_ms), format_float(*value)]})
        }
        Value::Text(text) => json!({"resultType": "string", "result": [time(at_ms), text]}),
        Value::Vector(samples) => {
            let result: Vec<Json> = samples
                .iter()
                .map(|sample| {
                    json!({"metric": labels(&sample.labels),
                                     "value": [time(sample.at_ms), format_float(sample.value)]})
                })
                .collect();
            json!({"resultType": "vector", "result": result})
        }
        Value::Matrix(series) => {
            let result: Vec<Json> = series
                .iter()
                .map(|series| {
                    let values: Vec<Json> = series
                        .points
                        .iter()
                        .map(|(at_ms, value)| json!([time(*at_ms), format_float(*value)]))
                        .collect();
                    json!({"metric": labels(&series.labels), "values": values})
                })
                .collect();
            json!({"resultType": "matrix", "result": result})
        }
    };
    success(data)
}

/// A time in milliseconds: seconds with a fraction, or RFC 3339.
fn moment(parameters: &Parameters, name: &str) -> Result<Option<i64>, Failure> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(Some((seconds * 1000.0).round() as i64));
    }
    let parsed: Result<clock::Timestamp, _> = text.parse();
    parsed.map(|at| Some(at.as_millisecond())).map_err(|_| {
        Failure::bad(format!("invalid parameter {name:?}: cannot parse {text:?} to a valid timestamp"))
    })
}

fn bounds(parameters: &Parameters) -> Result<(i64, i64), Failure> {
    let start = moment(parameters, "start")?.unwrap_or(i64::MIN);
    let end = moment(parameters, "end")?.unwrap_or(i64::MAX);
    Ok((start, end))
}

fn selectors(parameters: &Parameters) -> Result<Vec<Vec<Matcher>>, Failure> {
    let parse = |text: &String| {
        parse_selector(text).map_err(|error| Failure::bad(format!("invalid parameter \"match[]\": {error}")))
    };
    parameters.all("match[]").iter().map(parse).collect()
}

fn series(server: &Server, parameters: &Parameters) -> Result<Response, Failure> {
    let groups = selectors(parameters)?;
    if groups.is_empty() {
        return Err(Failure::bad("no match[] parameter provided"));
    }
    let (start, end) = bounds(parameters)?;
    let found = server.with_storage(|storage| {
        let labels = storage.find_series(&groups, start, end).into_iter();
        labels
            .map(|labels| labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect())
            .collect::<Vec<Json>>()
    });
    Ok(success(json!(found)))
}

fn labels(server: &Server, parameters: &Parameters) -> Result<Response, Failure> {
    let groups = selectors(parameters)?;
    let (start, end) = bounds(parameters)?;
    Ok(success(server.with_storage(|storage| json!(storage.label_names(&groups, start, end)))))
}

fn label_values(server: &Server, name: &str, parameters: &Parameters) -> Result<Response, Failure> {
    let groups = selectors(parameters)?;
    let (start, end) = bounds(parameters)?;
    Ok(success(server.with_storage(|storage| json!(storage.label_values(name, &groups, start, end)))))
}

fn targets(server: &Server) -> Json {
    let active: Vec<Json> = server
        .targets()
        .into_iter()
        .map(|(target, last)| {
            let health = match &last {
                None => "unknown",
                Some(last) if last.error.is_empty() => "up",
                Some(_) => "down",
            };
            let last = last.as_ref();
            let Identity { url, labels, .. } = &*target.identity;
            json!({
                "discoveredLabels": target.discovered, "labels": labels, "scrapePool": target.job.name,
                "scrapeUrl": url, "globalUrl": url, "health": health,
                "lastError": last.map_or("", |last| last.error.as_str()),
                "lastScrape": last.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |last| last.at.to_string()),
                "lastScrapeDuration": last.map_or(0.0, |last| last.took.as_secs_f64()),
                "scrapeInterval": promql::format_duration(target.job.interval.as_millis() as i64),
                "scrapeTimeout": promql::format_duration(target.job.timeout.as_millis() as i64),
            })
        })
        .collect();
    json!({"activeTargets": active, "droppedTargets": []})
}
