//! `prometheus.yml`.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;
use serde::de::Error as _;

/// A configuration file, understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub evaluation_interval: Duration,
    pub jobs: Vec<Job>,
    /// Files with rules, which are not evaluated.
    pub rule_files: Vec<String>,
}

/// One scrape configuration with its defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub name: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub path: String,
    pub scheme: String,
    pub params: BTreeMap<String, Vec<String>>,
    pub honor_labels: bool,
    pub honor_timestamps: bool,
    pub sample_limit: u64,
    pub static_groups: Vec<StaticGroup>,
    pub kubernetes: Vec<Kubernetes>,
    pub relabel: Vec<Rule>,
    pub metric_relabel: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StaticGroup {
    #[serde(default)]
    pub targets: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Pod,
    Endpoints,
    EndpointSlice,
    Service,
    Node,
    Ingress,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kubernetes {
    pub role: Role,
    pub namespaces: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    #[default]
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

/// One relabelling rule with its defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub source_labels: Vec<String>,
    pub separator: String,
    pub regex: Regex,
    pub modulus: u64,
    pub target_label: String,
    pub replacement: String,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ms = promql::parse_duration(&text).map_err(D::Error::custom)?;
        Ok(Span(Duration::from_millis(u64::try_from(ms).unwrap_or(0))))
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    global: Global,
    rule_files: Vec<String>,
    scrape_configs: Vec<ScrapeConfig>,
    // Accepted without effect.
    #[allow(dead_code, reason = "accepted without effect")]
    alerting: serde_json::Value,
    #[allow(dead_code, reason = "accepted without effect")]
    remote_write: serde_json::Value,
    #[allow(dead_code, reason = "accepted without effect")]
    remote_read: serde_json::Value,
    #[allow(dead_code, reason = "accepted without effect")]
    storage: serde_json::Value,
    #[allow(dead_code, reason = "accepted without effect")]
    tracing: serde_json::Value,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Global {
    scrape_interval: Option<Span>,
    scrape_timeout: Option<Span>,
    evaluation_interval: Option<Span>,
    // Accepted without effect: they matter to alerts and federation only.
    #[allow(dead_code, reason = "accepted without effect")]
    external_labels: BTreeMap<String, String>,
    #[allow(dead_code, reason = "accepted without effect")]
    query_log_file: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScrapeConfig {
    job_name: String,
    scrape_interval: Option<Span>,
    scrape_timeout: Option<Span>,
    metrics_path: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    honor_labels: bool,
    honor_timestamps: Option<bool>,
    #[serde(default)]
    sample_limit: u64,
    #[serde(default)]
    static_configs: Vec<StaticGroup>,
    #[serde(default)]
    kubernetes_sd_configs: Vec<KubernetesConfig>,
    #[serde(default)]
    relabel_configs: Vec<RuleConfig>,
    #[serde(default)]
    metric_relabel_configs: Vec<RuleConfig>,
    // Accepted without effect: nothing here speaks TLS or checks who asks.
    #[serde(default)]
    #[allow(dead_code, reason = "accepted without effect")]
    tls_config: serde_json::Value,
    #[serde(default)]
    #[allow(dead_code, reason = "accepted without effect")]
    bearer_token_file: serde_json::Value,
    #[serde(default)]
    #[allow(dead_code, reason = "accepted without effect")]
    authorization: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KubernetesConfig {
    role: Role,
    namespaces: Option<Namespaces>,
    #[serde(default)]
    api_server: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Namespaces {
    names: Vec<String>,
    own_namespace: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleConfig {
    #[serde(default)]
    source_labels: Vec<String>,
    separator: Option<String>,
    regex: Option<String>,
    #[serde(default)]
    modulus: u64,
    #[serde(default)]
    target_label: String,
    replacement: Option<String>,
    #[serde(default)]
    action: Action,
}

/// Reads a configuration file; `namespace` is the pod's own.
///
/// # Errors
/// What is wrong with it and where.
pub(crate) fn parse(text: &str, namespace: &str) -> Result<Config, String> {
    let file: File = if text.trim().is_empty() {
        File::default()
    } else {
        yaml::parse(text).map_err(|error| error.to_string())?
    };
    let interval = file.global.scrape_interval.map_or(Duration::from_secs(60), |span| span.0);
    let timeout = file.global.scrape_timeout.map_or(Duration::from_secs(10), |span| span.0);
    if file.global.scrape_timeout.is_some() && timeout > interval {
        return Err("global scrape timeout greater than scrape interval".to_owned());
    }
    let mut jobs: Vec<Job> = Vec::new();
    for config in file.scrape_configs {
        if config.job_name.is_empty() {
            return Err("job_name is empty".to_owned());
        }
        if jobs.iter().any(|job| job.name == config.job_name) {
            return Err(format!("found multiple scrape configs with job name {:?}", config.job_name));
        }
        jobs.push(job(config, interval, timeout, namespace)?);
    }
    Ok(Config {
        evaluation_interval: file.global.evaluation_interval.map_or(Duration::from_secs(60), |span| span.0),
        jobs,
        rule_files: file.rule_files,
    })
}

fn job(config: ScrapeConfig, interval: Duration, timeout: Duration, namespace: &str) -> Result<Job, String> {
    let name = config.job_name;
    let own_interval = config.scrape_interval.map_or(interval, |span| span.0);
    if own_interval.is_zero() {
        return Err(format!("scrape interval is 0 for scrape config with job name {name:?}"));
    }
    let own_timeout = config.scrape_timeout.map_or(timeout.min(own_interval), |span| span.0);
    if own_timeout > own_interval {
        return Err(format!(
            "scrape timeout greater than scrape interval for scrape config with job name {name:?}"
        ));
    }
    let rules = |configs: Vec<RuleConfig>| {
        let rules = configs.into_iter().map(rule).collect::<Result<Vec<_>, _>>();
        rules.map_err(|error| format!("scrape config with job name {name:?}: {error}"))
    };
    let mut kubernetes = Vec::new();
    for found in config.kubernetes_sd_configs {
        if found.api_server.is_some() {
            return Err(format!(
                "scrape config with job name {name:?}: api_server is not simulated: leave it out"
            ));
        }
        let namespaces = found.namespaces.unwrap_or_default();
        let own = namespaces.own_namespace.then(|| namespace.to_owned());
        kubernetes.push(Kubernetes {
            role: found.role,
            namespaces: namespaces.names.into_iter().chain(own).collect(),
        });
    }
    Ok(Job {
        interval: own_interval,
        timeout: own_timeout,
        path: config.metrics_path.unwrap_or_else(|| "/metrics".to_owned()),
        scheme: config.scheme.unwrap_or_else(|| "http".to_owned()),
        params: config.params,
        honor_labels: config.honor_labels,
        honor_timestamps: config.honor_timestamps.unwrap_or(true),
        sample_limit: config.sample_limit,
        static_groups: config.static_configs,
        kubernetes,
        relabel: rules(config.relabel_configs)?,
        metric_relabel: rules(config.metric_relabel_configs)?,
        name,
    })
}

fn rule(config: RuleConfig) -> Result<Rule, String> {
    let pattern = config.regex.unwrap_or_else(|| "(.*)".to_owned());
    let regex = Regex::new(&format!("^(?s:{pattern})$"))
        .map_err(|_| format!("relabel_configs: regex: error parsing regexp: {pattern:?}"))?;
    let needs_target =
        matches!(config.action, Action::Replace | Action::HashMod | Action::Lowercase | Action::Uppercase);
    if needs_target && config.target_label.is_empty() {
        return Err(format!(
            "relabel configuration for {:?} action requires 'target_label' value",
            config.action
        )
        .to_lowercase());
    }
    if config.action == Action::HashMod && config.modulus == 0 {
        return Err("relabel configuration for hashmod requires non-zero modulus".to_owned());
    }
    Ok(Rule {
        source_labels: config.source_labels,
        separator: config.separator.unwrap_or_else(|| ";".to_owned()),
        regex,
        modulus: config.modulus,
        target_label: config.target_label,
        replacement: config.replacement.unwrap_or_else(|| "$1".to_owned()),
        action: config.action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_articles_file_and_its_defaults() {
        let map = include_str!("../../../fixtures/article/flagger/prometheus/config.yaml");
        let map: serde_json::Value = yaml::parse(map).unwrap();
        let config = parse(map["data"]["prometheus.yml"].as_str().unwrap(), "istio-system").unwrap();
        assert_eq!(config.jobs.len(), 2);
        let job = &config.jobs[0];
        assert_eq!(
            (job.name.as_str(), job.interval, job.timeout),
            ("envoy-stats", Duration::from_secs(5), Duration::from_secs(5))
        );
        assert_eq!(job.relabel[1].replacement, "$1:15090");
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, part: &str| {
            let error = parse(text, "default").unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check("scrape_configs:\n  - job_name: a\n    scrape_intervall: 5s\n", "scrape_intervall");
        check(
            "scrape_configs: [{job_name: a}, {job_name: a}]",
            "multiple scrape configs with job name \"a\"",
        );
        check(
            "scrape_configs: [{job_name: a, scrape_interval: 5s, scrape_timeout: 9s}]",
            "timeout greater than",
        );
        check(
            "scrape_configs: [{job_name: a, relabel_configs: [{action: keep, regex: '('}]}]",
            "error parsing regexp",
        );
        check("global: {scrape_interval: soon}", "soon");
    }
}
