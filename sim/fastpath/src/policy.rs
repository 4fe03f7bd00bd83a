//! A release policy: a Canary as it is shipped, its checks understood.

use canary::{Dialect, TemplateModel, parse_duration, render};
use crd::{Canary, CanaryMetric, HookType, MetricTemplate};

use crate::load_test::LoadTest;
use crate::model::Telemetry;

/// The least time between two ticks: upstream's control loop looks for due Canaries this often.
const INTERVAL_LEAST_MS: i64 = 10_000;
/// Time between two ticks of a Canary that names none, or an unreadable one.
const INTERVAL_DEFAULT_MS: i64 = 60_000;

/// A Canary and what else its ticks depend on.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The Canary.
    pub canary: Canary,
    /// The release of Flagger that is followed.
    pub dialect: Dialect,
    /// Who routes the traffic.
    pub provider: String,
    /// Milliseconds between ticks.
    pub interval: i64,
    /// What each metric of the analysis asks.
    pub checks: Vec<Check>,
    /// The load test of each webhook of the analysis, and whom it reaches; `None` for other webhooks.
    pub load_tests: Vec<Option<(LoadTest, Reach)>>,
    /// The MetricTemplates that are known.
    pub templates: Vec<MetricTemplate>,
    /// What is assumed because the manifests do not say.
    pub assumptions: Vec<String>,
}

/// Whom a load test reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The canary alone, past the weights.
    Canary,
    /// Both versions, by the weights.
    Split,
    /// The primary alone.
    Primary,
    /// Nobody.
    Nobody,
}

/// What a metric asks, and within which bounds it passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The metric's name.
    pub name: String,
    /// The window to look back over, in milliseconds.
    pub window: i64,
    /// The question.
    pub probe: Probe,
    /// The least value that passes.
    pub min: Option<f64>,
    /// The greatest value that passes.
    pub max: Option<f64>,
}

/// A question to the metrics server.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// Percent of requests without a 5xx answer.
    SuccessRate,
    /// Percent of requests with a 5xx answer.
    ErrorRate,
    /// A quantile of the request duration.
    Quantile {
        /// The quantile, 0 to 1.
        q: f64,
        /// The histogram that is asked.
        telemetry: Telemetry,
        /// A factor from the histogram's unit to the value's.
        factor: f64,
        /// Whether the value is cut to whole milliseconds, as the builtin check does.
        whole_millis: bool,
    },
    /// Something else: the share of checks that pass.
    Assumed(f64),
    /// The query cannot be asked: what the server answers.
    Broken(String),
}

impl Policy {
    /// Understands a Canary. `templates` are the MetricTemplates that are known, `passing` gives the share of checks
    /// that pass for metrics that are not about the mesh's requests.
    pub fn new(
        canary: Canary,
        dialect: Dialect,
        templates: &[MetricTemplate],
        passing: &dyn Fn(&str) -> Option<f64>,
    ) -> Policy {
        let mut assumptions = Vec::new();
        let provider =
            if canary.spec.provider.is_empty() { "istio" } else { &canary.spec.provider }.to_owned();
        let none = crd::CanaryAnalysis::default();
        let analysis = canary.spec.analysis().unwrap_or(&none);
        let interval =
            parse_duration(&analysis.interval).map_or(INTERVAL_DEFAULT_MS, |span| span.as_millis() as i64);
        let interval = interval.max(INTERVAL_LEAST_MS);
        let checks = analysis
            .metrics
            .iter()
            .map(|metric| check(metric, &canary, dialect, templates, passing, &mut assumptions));
        let checks = checks.collect();
        let load_tests: Vec<Option<(LoadTest, Reach)>> = analysis
            .webhooks
            .iter()
            .map(|hook| {
                let test = LoadTest::of(hook)?;
                let reach = reach(&canary, &test);
                Some((test, reach))
            })
            .collect();
        for hook in &analysis.webhooks {
            let assumed = match hook.kind {
                HookType::ConfirmRollout | HookType::ConfirmPromotion | HookType::ConfirmTrafficIncrease => {
                    "opens at once"
                }
                HookType::Rollback => "never asks for a rollback",
                HookType::PreRollout | HookType::Rollout | HookType::Unset
                    if LoadTest::of(hook).is_none() =>
                {
                    "passes"
                }
                _ => continue,
            };
            assumptions.push(format!("webhook {}: {assumed}", hook.name));
        }
        if analysis.session_affinity.is_some() {
            assumptions
                .push("sessionAffinity: requests are split independently, users do not stick".to_owned());
        }
        let templates = templates.to_vec();
        Policy { dialect, provider, interval, checks, load_tests, templates, assumptions, canary }
    }

    /// Failed checks that roll back.
    pub fn threshold(&self) -> i32 {
        self.canary.spec.analysis().map_or(1, |analysis| analysis.threshold.max(1))
    }

    /// The histogram that the dialect's builtin duration check asks.
    pub fn builtin_telemetry(dialect: Dialect) -> Telemetry {
        match dialect {
            Dialect::Rc1 => Telemetry::Seconds,
            Dialect::Latest => Telemetry::Milliseconds,
        }
    }
}

/// Whom a load test reaches: by its URL's host, the Canary's Services and the VirtualService's gateways.
pub fn reach(canary: &Canary, test: &LoadTest) -> Reach {
    let spec = &canary.spec;
    let host = test.host_header.as_deref().unwrap_or(&test.host);
    let namespace = canary.namespace();
    let names = |service: &str| {
        host == service
            || host.strip_prefix(service).is_some_and(|rest| {
                let rest = rest.strip_prefix('.').unwrap_or("?");
                [namespace, &format!("{namespace}.svc"), &format!("{namespace}.svc.cluster.local")]
                    .contains(&rest)
                    || (namespace.is_empty() && !rest.contains('?'))
            })
    };
    let apex = spec.apex_name();
    if names(&format!("{apex}-canary")) {
        return Reach::Canary;
    }
    if names(&format!("{apex}-primary")) {
        return Reach::Primary;
    }
    let in_mesh =
        spec.service.gateways.is_empty() || spec.service.gateways.iter().any(|gateway| gateway == "mesh");
    if names(apex) {
        return if in_mesh { Reach::Split } else { Reach::Primary };
    }
    let serves = |pattern: &String| {
        pattern == host || pattern == "*" || pattern.strip_prefix('*').is_some_and(|end| host.ends_with(end))
    };
    if spec.service.hosts.iter().any(serves) { Reach::Split } else { Reach::Nobody }
}

fn check(
    metric: &CanaryMetric,
    canary: &Canary,
    dialect: Dialect,
    templates: &[MetricTemplate],
    passing: &dyn Fn(&str) -> Option<f64>,
    assumptions: &mut Vec<String>,
) -> Check {
    let is_template = metric.template_ref.is_some();
    let interval = if metric.interval.is_empty() && !is_template { "1m" } else { &metric.interval };
    let window = promql::parse_duration(interval).ok().filter(|window| *window > 0);
    let builtin = !is_template && matches!(metric.name.as_str(), "request-success-rate" | "request-duration");
    let bound = metric.threshold.unwrap_or(0.0);
    let (min, max) = match &metric.threshold_range {
        Some(range) => (range.min, range.max),
        None if builtin && metric.name == "request-success-rate" => (Some(bound), None),
        None => (None, Some(bound)),
    };
    let mut known = |probe: Option<Probe>, why: &str| {
        if let Some(share) = passing(&metric.name) {
            return Probe::Assumed(share);
        }
        probe.unwrap_or_else(|| {
            assumptions.push(format!("metric {}: assumed to pass always, because {why}", metric.name));
            Probe::Assumed(1.0)
        })
    };
    let probe = match (&metric.template_ref, metric.name.as_str()) {
        (Some(reference), _) => {
            let namespace =
                if reference.namespace.is_empty() { canary.namespace() } else { &reference.namespace };
            let found = templates.iter().find(|template| {
                template.name() == reference.name
                    && (template.namespace() == namespace || template.namespace().is_empty())
            });
            match found {
                None => known(
                    None,
                    &format!("MetricTemplate {namespace}/{} is not among the files", reference.name),
                ),
                Some(template) => match render(&template.spec.query, &model(metric, canary, dialect)) {
                    Err(error) => Probe::Broken(error),
                    Ok(_) if window.is_none() => Probe::Broken(format!("bad window {:?}", metric.interval)),
                    Ok(text) => known(recognise(&text, canary), "its query is not about the mesh's requests"),
                },
            }
        }
        (None, "request-success-rate") => Probe::SuccessRate,
        (None, "request-duration") => {
            let telemetry = Policy::builtin_telemetry(dialect);
            let factor = if telemetry == Telemetry::Seconds { 1000.0 } else { 1.0 };
            Probe::Quantile { q: 0.99, telemetry, factor, whole_millis: true }
        }
        (None, _) if metric.query.is_empty() => match dialect {
            // The old dialect skips it, the new one fails the check.
            Dialect::Rc1 => Probe::Assumed(1.0),
            Dialect::Latest => {
                Probe::Broken("no usable metrics template and query were configured".to_owned())
            }
        },
        (None, _) => {
            let text = match dialect {
                Dialect::Rc1 => Ok(metric.query.clone()),
                Dialect::Latest => render(&metric.query, &model(metric, canary, dialect)),
            };
            match text {
                Err(error) => Probe::Broken(error),
                Ok(text) => known(recognise(&text, canary), "its query is not about the mesh's requests"),
            }
        }
    };
    let probe = match probe {
        Probe::SuccessRate | Probe::Quantile { .. } | Probe::ErrorRate if window.is_none() => {
            Probe::Broken(format!("bad_data: invalid window {interval:?}"))
        }
        probe => probe,
    };
    Check { name: metric.name.clone(), window: window.unwrap_or(60_000), probe, min, max }
}

fn model<'a>(metric: &'a CanaryMetric, canary: &'a Canary, dialect: Dialect) -> TemplateModel<'a> {
    let target = canary.spec.target_ref.name.as_str();
    let is_new = dialect == Dialect::Latest;
    TemplateModel {
        name: canary.name(),
        namespace: canary.namespace(),
        target,
        service: canary.spec.apex_name(),
        ingress: canary.spec.ingress_ref.as_ref().map_or(target, |ingress| &ingress.name),
        route: is_new.then(|| canary.spec.route_ref.as_ref().map_or(target, |route| route.name.as_str())),
        interval: &metric.interval,
        variables: is_new.then_some(&metric.template_variables),
    }
}

/// The question of a query about the canary's requests: a quantile of the duration histogram, or a share of answers.
fn recognise(query: &str, canary: &Canary) -> Option<Probe> {
    let text: String = query.chars().filter(|c| !c.is_whitespace()).collect();
    let target = &canary.spec.target_ref.name;
    let workload =
        text.split("destination_workload=").nth(1)?.trim_start_matches('~').trim_start_matches(['"', '\'']);
    if workload.split(['"', '\'']).next()? != target {
        return None;
    }
    let factor = match text.rsplit(')').next()? {
        "" => 1.0,
        tail => {
            let (sign, number) = tail.split_at(1);
            let number: f64 = number.parse().ok()?;
            match sign {
                "*" => number,
                "/" => 1.0 / number,
                _ => return None,
            }
        }
    };
    if let Some(arguments) = text.strip_prefix("histogram_quantile(") {
        let q: f64 = arguments.split(',').next()?.parse().ok()?;
        let telemetry = if text.contains("istio_request_duration_milliseconds_bucket") {
            Telemetry::Milliseconds
        } else if text.contains("istio_request_duration_seconds_bucket") {
            Telemetry::Seconds
        } else {
            return None;
        };
        return Some(Probe::Quantile { q, telemetry, factor, whole_millis: false });
    }
    let shares = text.matches("istio_requests_total").count() == 2 && text.contains("/sum(rate(");
    if !shares || factor != 100.0 {
        return None;
    }
    match (
        text.contains("response_code!~\"5.*\""),
        text.contains("response_code=~\"5.*\""),
        text.starts_with("sum("),
    ) {
        (true, false, true) => Some(Probe::SuccessRate),
        (false, true, true) => Some(Probe::ErrorRate),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn article() -> Canary {
        serde_saphyr::from_str(include_str!("../../../fixtures/article/flagger/podinfo/canary.yaml")).unwrap()
    }

    #[test]
    fn the_articles_policy() {
        let policy = Policy::new(article(), Dialect::Latest, &[], &|_| None);
        assert_eq!((policy.interval, policy.threshold()), (30_000, 10));
        assert_eq!(policy.checks[0].min, Some(99.0));
        assert_eq!(policy.checks[1].max, Some(500.0));
        assert_eq!(policy.load_tests[0].as_ref().unwrap().1, Reach::Canary);
        assert_eq!(policy.assumptions, Vec::<String>::new());
    }

    #[test]
    fn load_tests_reach_whom_names_and_gateways_say() {
        let check = |host: &str, reached: Reach| {
            let test = LoadTest::parse("", &format!("hey -z 1m http://{host}/")).unwrap();
            assert_eq!(reach(&article(), &test), reached, "{host}");
        };
        check("podinfo-canary.test:9898", Reach::Canary);
        check("podinfo-primary.test", Reach::Primary);
        check("podinfo.test.svc.cluster.local", Reach::Primary);
        check("app.istio.example.com", Reach::Split);
        check("app.example.com", Reach::Nobody);
        check("podinfo.other", Reach::Nobody);
    }

    #[test]
    fn templates_over_the_meshs_requests_are_understood() {
        let quantile = "histogram_quantile(0.95, sum(rate(istio_request_duration_milliseconds_bucket{\
            destination_workload=~\"podinfo\"}[30s])) by (le)) / 1000";
        let Some(Probe::Quantile { q, factor, .. }) = recognise(quantile, &article()) else { panic!() };
        assert_eq!((q, factor), (0.95, 0.001));
        let errors = "sum(rate(istio_requests_total{destination_workload=\"podinfo\",response_code=~\"5.*\"}[1m])) / \
            sum(rate(istio_requests_total{destination_workload=\"podinfo\"}[1m])) * 100";
        assert_eq!(recognise(errors, &article()), Some(Probe::ErrorRate));
        assert_eq!(recognise("vector(1)", &article()), None);
    }
}
