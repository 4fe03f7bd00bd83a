//! The service model: who calls, how the versions behave, how they are measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::latency::Latency;
use crate::span::Span;

/// A service, its users and its metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceModel {
    /// Its name in results.
    pub name: String,
    /// The requests of users, all of which the canary's weight applies to.
    pub traffic: Traffic,
    /// How the metrics server sees it.
    pub prometheus: PrometheusModel,
    /// The unit of the mesh's duration histogram; the dialect's own unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// How the version behaves that runs now.
    pub baseline: Baseline,
    /// The versions that may be released, by name. What a version does not say it shares with the baseline.
    pub versions: BTreeMap<String, VersionModel>,
    /// Times at which everything fails together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bursts: Option<Bursts>,
    /// What is different in a new pod's first moments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// Requests per second that the canary's pods can answer together: latency grows as 1 / (1 - load). No limit
    /// without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// Time from scaling up until the canary is ready and available.
    pub startup: Span,
    /// Time that the primary takes to roll the new version out.
    pub promotion: Span,
    /// The share of users that an A/B test's conditions match.
    pub match_share: f64,
    /// The share of checks that pass, by metric: for queries that are not about the mesh's requests.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

impl Default for ServiceModel {
    fn default() -> Self {
        let bad = VersionModel { error_rate: Some(Rate::Fixed(0.05)), share: 0.1, ..VersionModel::default() };
        let good = VersionModel { share: 0.9, ..VersionModel::default() };
        ServiceModel {
            name: "default".to_owned(),
            traffic: Traffic::default(),
            prometheus: PrometheusModel::default(),
            telemetry: None,
            baseline: Baseline::default(),
            versions: BTreeMap::from([("good".to_owned(), good), ("bad".to_owned(), bad)]),
            bursts: None,
            cold_start: None,
            capacity: None,
            startup: Span::from_millis(15_000),
            promotion: Span::from_millis(30_000),
            match_share: 0.1,
            metrics: BTreeMap::new(),
        }
    }
}

/// Requests of users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Traffic {
    /// Requests per second, on average.
    pub rate: f64,
    /// How they arrive.
    pub arrivals: Arrivals,
    /// A rate that goes up and down in the course of a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diurnal: Option<Diurnal>,
    /// A rate as measured: the file with Prometheus' JSON answer to a range query. Releases start anywhere in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<String>,
    /// The measured rate, read from that file: seconds and requests per second.
    #[serde(skip)]
    pub series: Vec<(f64, f64)>,
}

impl Default for Traffic {
    fn default() -> Self {
        Traffic { rate: 20.0, arrivals: Arrivals::Poisson, diurnal: None, replay: None, series: Vec::new() }
    }
}

/// How requests arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Independently.
    #[default]
    Poisson,
    /// Evenly spaced.
    Constant,
}

/// A daily cycle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Diurnal {
    /// How far the rate goes above and below its mean, as a share of it: 0 to 1.
    pub amplitude: f64,
    /// The cycle's length (24h).
    #[serde(default = "day")]
    pub period: Span,
    /// When releases start, from the cycle's busiest moment on; anywhere unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_at: Option<Span>,
}

fn day() -> Span {
    Span::from_millis(86_400_000)
}

/// The metrics server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PrometheusModel {
    /// Time between scrapes of a proxy.
    pub scrape_interval: Span,
    /// The major version: 2 includes a window's left edge, 3 does not.
    pub version: u8,
    /// The scrapes' phase against the release; random unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Span>,
    /// Time from the release to the controller's next tick; random within the interval unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_tick: Option<Span>,
}

impl Default for PrometheusModel {
    fn default() -> Self {
        PrometheusModel {
            scrape_interval: Span::from_millis(5_000),
            version: 3,
            phase: None,
            first_tick: None,
        }
    }
}

/// The unit, and the name, of the request duration histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Telemetry {
    /// `istio_request_duration_seconds`, as Mixer made it.
    Seconds,
    /// `istio_request_duration_milliseconds`, as the proxies make it since Istio 1.5.
    Milliseconds,
}

impl Telemetry {
    /// The histogram's finite upper bounds, in its unit.
    pub fn bounds(self) -> &'static [f64] {
        match self {
            Telemetry::Seconds => &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            Telemetry::Milliseconds => &[
                0.5,
                1.0,
                5.0,
                10.0,
                25.0,
                50.0,
                100.0,
                250.0,
                500.0,
                1000.0,
                2500.0,
                5000.0,
                10_000.0,
                30_000.0,
                60_000.0,
                300_000.0,
                600_000.0,
                1_800_000.0,
                3_600_000.0,
            ],
        }
    }

    /// The latency in seconds from which on an answer counts above a bound: proxies measure whole milliseconds.
    pub fn beyond(self, bound: f64) -> f64 {
        match self {
            Telemetry::Seconds => bound * (1.0 + 1e-12),
            Telemetry::Milliseconds => (bound.floor() + 1.0) / 1000.0,
        }
    }
}

/// The version that runs now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Baseline {
    /// The share of requests that fail, 0 to 1.
    pub error_rate: f64,
    /// How long answers take.
    pub latency: Latency,
}

impl Default for Baseline {
    fn default() -> Self {
        let latency = Latency::Percentiles { p50: Span::from_millis(30), p99: Span::from_millis(200) };
        Baseline { error_rate: 0.001, latency }
    }
}

/// A version that may be released.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VersionModel {
    /// How common it is among all releases, against the other versions' shares.
    pub share: f64,
    /// Whether it should be rolled back; so unless its name begins with `good`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad: Option<bool>,
    /// The share of requests that fail, 0 to 1, or a prior of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<Rate>,
    /// The status of failed requests (500); those below 500 are successes to the builtin check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_status: Option<u16>,
    /// How long answers take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// A factor on the latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowdown: Option<f64>,
    /// Time from scaling up until it is ready and available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Span>,
    /// It never becomes ready.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub never_ready: bool,
}

impl VersionModel {
    /// Whether a version of this name should be rolled back.
    pub fn is_bad(&self, name: &str) -> bool {
        self.bad.unwrap_or(!name.starts_with("good"))
    }
}

/// A share, or how it is distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rate {
    /// Known.
    Fixed(f64),
    /// Any in a range, all as likely.
    Uniform {
        /// The range.
        uniform: Between,
    },
    /// Any in a range, all orders of magnitude as likely.
    LogUniform {
        /// The range.
        #[serde(rename = "logUniform")]
        log_uniform: Between,
    },
}

/// A range of shares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Between {
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

/// How many quantiles stand for a prior: rollout i takes quantile i modulo this, so that each is met equally often.
pub const PRIOR_STEPS: usize = 64;

impl Rate {
    /// The rate at a step of the prior.
    pub fn at(&self, step: usize) -> f64 {
        let share = (step % PRIOR_STEPS) as f64 + 0.5;
        let share = share / PRIOR_STEPS as f64;
        match self {
            Rate::Fixed(rate) => *rate,
            Rate::Uniform { uniform } => uniform.min + (uniform.max - uniform.min) * share,
            Rate::LogUniform { log_uniform } => {
                (log_uniform.min.ln() + (log_uniform.max.ln() - log_uniform.min.ln()) * share).exp()
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let is_share = |value: f64| (0.0..=1.0).contains(&value);
        let fine = match self {
            Rate::Fixed(rate) => is_share(*rate),
            Rate::Uniform { uniform } => {
                is_share(uniform.min) && is_share(uniform.max) && uniform.min <= uniform.max
            }
            Rate::LogUniform { log_uniform: range } => {
                range.min > 0.0 && is_share(range.max) && range.min <= range.max
            }
        };
        if fine {
            Ok(())
        } else {
            Err("must be between 0 and 1 (above 0 for logUniform), min not above max".to_owned())
        }
    }
}

/// Times at which everything fails together, as when a dependency is away.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bursts {
    /// Mean time between them.
    pub every: Span,
    /// How long each lasts.
    pub lasts: Span,
    /// The share of requests that fail meanwhile.
    pub error_rate: f64,
}

/// A new pod's first moments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ColdStart {
    /// How long they last, from being ready on.
    pub lasts: Span,
    /// The share of requests that fail meanwhile, if it is more than the version's.
    #[serde(default)]
    pub error_rate: f64,
    /// A factor on the latency meanwhile (1).
    #[serde(default = "one")]
    pub slowdown: f64,
}

fn one() -> f64 {
    1.0
}

impl ServiceModel {
    /// Reads the files that it names, through `read`.
    ///
    /// # Errors
    /// The field and what is wrong.
    pub fn load(&mut self, read: &dyn Fn(&str) -> Result<String, String>) -> Result<(), String> {
        if let Some(file) = &self.traffic.replay {
            self.traffic.series =
                series(&read(file)?).map_err(|error| format!("traffic.replay: {file}: {error}"))?;
        }
        self.baseline.latency.load(read).map_err(|error| format!("baseline.latency: {error}"))?;
        for (name, version) in &mut self.versions {
            if let Some(latency) = &mut version.latency {
                latency.load(read).map_err(|error| format!("versions.{name}.latency: {error}"))?;
            }
        }
        self.check()
    }

    /// What the types cannot say.
    fn check(&self) -> Result<(), String> {
        let share = |field: &str, value: f64| {
            let fine = (0.0..=1.0).contains(&value);
            if fine { Ok(()) } else { Err(format!("{field}: {value} must be between 0 and 1")) }
        };
        let positive = |field: &str, value: f64| {
            let fine = value > 0.0 && value.is_finite();
            if fine { Ok(()) } else { Err(format!("{field}: {value} must be above 0")) }
        };
        let rate = self.traffic.rate;
        if !(0.0..=1e7).contains(&rate) {
            return Err(format!("traffic.rate: {rate} must be between 0 and 10000000 requests per second"));
        }
        if let Some(diurnal) = &self.traffic.diurnal {
            share("traffic.diurnal.amplitude", diurnal.amplitude)?;
            positive("traffic.diurnal.period", diurnal.period.seconds())?;
        }
        positive("prometheus.scrapeInterval", self.prometheus.scrape_interval.seconds())?;
        if !matches!(self.prometheus.version, 2 | 3) {
            return Err(format!("prometheus.version: {} must be 2 or 3", self.prometheus.version));
        }
        share("baseline.errorRate", self.baseline.error_rate)?;
        share("matchShare", self.match_share)?;
        for (name, passing) in &self.metrics {
            share(&format!("metrics.{name}"), *passing)?;
        }
        if let Some(bursts) = &self.bursts {
            positive("bursts.every", bursts.every.seconds())?;
            share("bursts.errorRate", bursts.error_rate)?;
        }
        if let Some(cold) = &self.cold_start {
            share("coldStart.errorRate", cold.error_rate)?;
            positive("coldStart.slowdown", cold.slowdown)?;
        }
        if let Some(capacity) = self.capacity {
            positive("capacity", capacity)?;
        }
        if self.versions.is_empty() {
            return Err("versions: name at least one version to release".to_owned());
        }
        for (name, version) in &self.versions {
            let rate = version.error_rate.iter().try_for_each(Rate::check);
            rate.map_err(|error| format!("versions.{name}.errorRate: {error}"))?;
            if let Some(slowdown) = version.slowdown {
                positive(&format!("versions.{name}.slowdown"), slowdown)?;
            }
            if version.share < 0.0 || !version.share.is_finite() {
                return Err(format!("versions.{name}.share: {} must not be negative", version.share));
            }
            if version.error_status.is_some_and(|status| !(400..=599).contains(&status)) {
                return Err(format!("versions.{name}.errorStatus: must be between 400 and 599"));
            }
        }
        Ok(())
    }
}

/// A rate from Prometheus' JSON answer to a range query: the sum of its series.
fn series(text: &str) -> Result<Vec<(f64, f64)>, String> {
    let answer: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let results =
        answer["data"]["result"].as_array().ok_or("no data.result: expected a range query's JSON answer")?;
    let mut rates: BTreeMap<i64, f64> = BTreeMap::new();
    for sample in results.iter().filter_map(|result| result["values"].as_array()).flatten() {
        let at = sample[0].as_f64().ok_or("a sample without a time")?;
        let value: f64 =
            sample[1].as_str().and_then(|text| text.parse().ok()).ok_or("a sample without a value")?;
        if value.is_finite() && value >= 0.0 {
            *rates.entry((at * 1000.0) as i64).or_default() += value;
        }
    }
    let first = rates.keys().next().copied().unwrap_or(0);
    let series: Vec<(f64, f64)> =
        rates.iter().map(|(at, rate)| ((at - first) as f64 / 1000.0, *rate)).collect();
    if series.len() < 2 { Err("fewer than two samples".to_owned()) } else { Ok(series) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let check = |yaml: &str, part: &str| {
            let error = serde_saphyr::from_str::<ServiceModel>(yaml)
                .map_err(|error| error.to_string())
                .and_then(|mut model| model.load(&|file| Err(format!("no {file}"))))
                .unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check("baseline: {errorRate: 2}", "baseline.errorRate: 2 must be between 0 and 1");
        check("versions: {bad: {errorRate: {uniform: {min: 0.5, max: 0.1}}}}", "versions.bad.errorRate");
        check("traffic: {rates: 5}", "rates");
        check("baseline: {latency: {file: x.hdr}}", "no x.hdr");
        check("startup: soon", "no duration");
    }

    #[test]
    fn rates_come_from_prometheus() {
        let answer = r#"{"data":{"result":[{"values":[[100,"1"],[115,"3"]]},{"values":[[100,"2"]]}]}}"#;
        assert_eq!(series(answer), Ok(vec![(0.0, 3.0), (15.0, 3.0)]));
    }
}
