//! The report as JSON; times in seconds.

use serde_json::{Map, Value, json};

use crate::assertion::Outcome;
use crate::cli::execute::Executed;
use crate::cli::options::Options;
use crate::cli::text::compared;
use crate::compare::Comparison;
use crate::{Distribution, Pace, Spread, Tally};

const QUANTILES: [(&str, f64); 9] = [
    ("p10", 0.10),
    ("p25", 0.25),
    ("p50", 0.50),
    ("p75", 0.75),
    ("p90", 0.90),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// The document with a line break at its end.
pub(crate) fn document(options: &Options, executed: &Executed, outcomes: &[Outcome]) -> String {
    let report = &executed.report;
    let mut document = tally(&report.all);
    let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
    put("version", json!(env!("CARGO_PKG_VERSION")));
    put("urls", options.mix.requests().map(|request| json!(request.typed_url)).collect());
    put("connections", json!(options.plan.connections));
    put("open_model", json!(matches!(options.plan.pace, Pace::Open(_))));
    put("interrupted", json!(executed.interrupted));
    put("abandoned", json!(executed.abandoned));
    put("total_seconds", json!(report.total.as_secs_f64()));
    put("requests_per_second", finite(report.rate()));
    put("errors", json!(report.errors));
    put("declared_body_bytes", json!(report.bytes));
    put("received_body_bytes", json!(report.body_bytes));
    put("requests_by_second", json!(report.per_second));
    let phases = [
        ("connect", &report.connect),
        ("lookup", &report.lookup),
        ("write", &report.write),
        ("wait", &report.wait),
        ("read", &report.read),
    ];
    put("phases", phases.iter().map(|(name, of)| ((*name).to_owned(), Value::Object(spread(of)))).collect());
    let groups = report.groups.iter().map(|(name, of)| (name.to_string(), Value::Object(tally(of))));
    put("groups", Value::Object(groups.collect()));
    if let Some(compared) = compared(report, options.baseline.as_deref()) {
        put("baseline", json!(compared.baseline));
        let others = compared.others.iter().map(|(name, of)| ((*name).to_owned(), comparison(of)));
        put("comparisons", Value::Object(others.collect()));
    }
    let outcomes = outcomes.iter().map(|outcome| {
        json!({"assertion": outcome.assertion, "holds": outcome.holds, "measured": outcome.measured})
    });
    put("assertions", outcomes.collect());
    format!("{:#}\n", Value::Object(document))
}

/// JSON knows no infinity.
fn finite(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}

fn tally(of: &Tally) -> Map<String, Value> {
    let statuses: Map<_, _> =
        of.statuses.iter().map(|(status, count)| (status.to_string(), json!(count))).collect();
    let failures: Map<_, _> =
        of.failures.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count))).collect();
    let mut map = Map::new();
    let mut put = |name: &str, value| map.insert(name.to_owned(), value);
    put("requests", json!(of.requests));
    put("succeeded", json!(of.succeeded()));
    put("success", json!(of.success()));
    put("statuses", Value::Object(statuses));
    put("failures", Value::Object(failures));
    put("latency", distribution(&of.latency));
    put("latency_from_due", distribution(of.latency_from_due()));
    map
}

fn spread(of: &Spread) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("count".to_owned(), json!(of.count()));
    map.insert("mean".to_owned(), json!(of.mean().map(|mean| mean.as_secs_f64())));
    map.insert("min".to_owned(), json!(of.least().as_secs_f64()));
    map.insert("max".to_owned(), json!(of.most().as_secs_f64()));
    map
}

fn distribution(of: &Distribution) -> Value {
    let mut map = spread(of.spread());
    map.insert("deviation".to_owned(), json!(of.deviation().as_secs_f64()));
    for (name, at) in QUANTILES {
        map.insert(name.to_owned(), json!(of.quantile(at).as_secs_f64()));
    }
    Value::Object(map)
}

fn comparison(of: &Comparison) -> Value {
    let quantiles = of.quantiles.iter().map(|quantile| {
        json!({
            "quantile": quantile.quantile,
            "baseline": quantile.baseline.as_secs_f64(),
            "other": quantile.other.as_secs_f64(),
            "difference": quantile.difference(),
            "interval_99": [quantile.interval.0, quantile.interval.1],
            "significant": quantile.is_significant(),
        })
    });
    json!({
        "verdict": of.verdict.text(),
        "errors_baseline": of.errors.0,
        "errors_other": of.errors.1,
        "errors_p": of.errors_p,
        "quantiles": quantiles.collect::<Value>(),
    })
}
