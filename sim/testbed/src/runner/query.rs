//! PromQL queries of a scenario: asked of the cluster's Prometheus over its HTTP API.

use std::collections::BTreeMap;

use serde_json::Value;

use super::client::Client;
use crate::World;
use crate::scenario::{Origin, QueryCheck};

/// The value of a query now: the sum over its series, `None` if it gives none.
pub(super) async fn ask(world: &World, check: &QueryCheck) -> Result<Option<f64>, String> {
    let origin = Origin { cluster: Some(check.cluster.clone()), ..Origin::default() };
    let client = Client::at(world, &origin).await?;
    let url = format!("{}/api/v1/query?query={}", check.server.trim_end_matches('/'), escaped(&check.promql));
    let request = client.request("GET", &url, &BTreeMap::new(), None)?;
    let what = format!("Prometheus at {} in {}", check.server, check.cluster);
    let response = client.network().send(request).await.map_err(|error| format!("{what}: {error}"))?;
    let status = response.status();
    let answer: Value = serde_json::from_slice(response.body())
        .map_err(|_| format!("{what} answered {status}, and not in JSON"))?;
    if answer["status"] != "success" {
        let error = answer["error"].as_str().unwrap_or("unknown error");
        return Err(format!("{what}: {}: {error}", check.promql));
    }
    let data = &answer["data"];
    let number = |pair: &Value| pair[1].as_str().and_then(|text| text.parse::<f64>().ok());
    match data["resultType"].as_str() {
        Some("scalar") => Ok(number(&data["result"])),
        Some("vector") => {
            let series = data["result"].as_array().map(Vec::as_slice).unwrap_or_default();
            let values: Vec<f64> = series.iter().filter_map(|series| number(&series["value"])).collect();
            Ok((!values.is_empty()).then(|| values.iter().sum()))
        }
        other => Err(format!(
            "{what}: {} gives a {}: ask for an instant vector or a scalar",
            check.promql,
            other.unwrap_or("result of unknown type")
        )),
    }
}

/// A query as a URL's parameter.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}
