//! What all rollouts of one policy, service model and version share.

use crate::latency::Latency;
use crate::load_test::{LoadTest, Pace};
use crate::model::{PRIOR_STEPS, Rate, ServiceModel, Telemetry};
use crate::policy::{Check, Policy, Probe, Reach};

/// Latency bounds that verdicts may depend on: two for each quantile's bounds, one for the timeout.
pub const CUTS: usize = 4;
/// Scrapes have one of so many phases against the release, and ticks too: windows repeat, so their tables do.
pub const PHASES: i64 = 16;
/// A rollout that has not ended by now never will: milliseconds.
pub const HORIZON_MS: i64 = 24 * 3600 * 1000;

/// One policy under one service model, for one version.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The service model.
    pub model: &'a ServiceModel,
    /// The version's name.
    pub version: &'a str,
    /// The MetricTemplates that the policy may refer to.
    pub templates: &'a [crd::MetricTemplate],
    /// Milliseconds between scrapes.
    pub scrape: i64,
    /// Whether windows include their left edge.
    pub closed_left: bool,
    /// The distinct windows of all checks that look at requests, in milliseconds.
    pub windows: Vec<i64>,
    /// The histogram that the mesh exports.
    pub telemetry: Telemetry,
    /// Latencies in seconds from which on answers are counted apart, greatest first.
    pub cuts: Vec<f64>,
    /// Which of the cuts is the client's timeout.
    pub timeout: Option<usize>,
    /// For each check, the cuts below and above its bound, if it is a quantile that has one; and the bound.
    pub edges: Vec<Option<Edges>>,
    /// For each check, what share of a window's requests may be failed or slow at most, against those that are
    /// neither, for it to pass; `None` where that decides nothing.
    pub slack: Vec<Option<f64>>,
    /// The share of requests that fail, by the prior's step; one if there is none.
    pub error_rates: Vec<f64>,
    /// Whether failed requests count as failures to Prometheus.
    pub errors_show: bool,
    /// How long answers take.
    pub latency: &'a Latency,
    /// A factor on the latency.
    pub slowdown: f64,
    /// The mean latency in seconds.
    pub mean_latency: f64,
    /// How each load test's requests come, by webhook.
    pub paces: Vec<Option<Pace>>,
    /// Whether requests meet other circumstances with time than their weight and their sender give them.
    pub varies: bool,
    /// Whether only the weight matters to independent users, and only time to the load test: there is one at most, past
    /// the weights.
    pub is_plain: bool,
    /// The most requests of a load test in an interval.
    pub tests_most: f64,
    /// What is drawn only at the end: requests between windows, where no window reaches beyond a tick.
    pub defers: bool,
    /// The share of a window's increase that a counter must have shown before, for it not to be cut at zero.
    pub cut_ratio: f64,
    /// The share of the users' requests in percent that is mirrored.
    pub mirrored: u32,
    /// The share of the users' requests in percent that an A/B test's conditions match, if it is one.
    pub matching: Option<u32>,
    /// Milliseconds until the canary is ready; never if absent.
    pub startup: Option<i64>,
    /// Milliseconds until the primary has rolled the new version out.
    pub promotion: i64,
    /// Milliseconds after scaling up from which on the canary is too late.
    pub deadline: i64,
    /// What is assumed beyond what model and policy say.
    pub assumptions: Vec<String>,
}

/// The buckets around a quantile's bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edges {
    /// The cut of the bucket's lower edge; `None` for 0.
    pub low: Option<usize>,
    /// The cut of the bucket's upper edge; `None` beyond the last finite bound.
    pub high: Option<usize>,
    /// The lower edge in the histogram's unit.
    pub from: f64,
    /// The upper edge in the histogram's unit; the lower one beyond the last finite bound.
    pub to: f64,
    /// Values from here on are above the bound, in the histogram's unit.
    pub limit: f64,
    /// Whether a value equal to the limit is above it.
    pub includes: bool,
}

impl<'a> Setting<'a> {
    /// The setting of a version of the model.
    ///
    /// # Errors
    /// A sentence on what the fast path does not model.
    pub fn new(policy: &'a Policy, model: &'a ServiceModel, version: &'a str) -> Result<Setting<'a>, String> {
        let found = model.versions.get(version).ok_or_else(|| {
            let known: Vec<&str> = model.versions.keys().map(String::as_str).collect();
            format!("service model {}: no version {version:?} (there are {})", model.name, known.join(", "))
        })?;
        let mut assumptions = Vec::new();
        let telemetry = model.telemetry.unwrap_or(Policy::builtin_telemetry(policy.dialect));
        let mut windows: Vec<i64> = policy
            .checks
            .iter()
            .filter(|check| {
                matches!(check.probe, Probe::SuccessRate | Probe::ErrorRate | Probe::Quantile { .. })
            })
            .map(|check| check.window)
            .collect();
        windows.sort_unstable();
        windows.dedup();
        let mut cuts: Vec<f64> = Vec::new();
        let raw: Vec<Option<Bucket>> = policy.checks.iter().map(|check| bucket(check, telemetry)).collect();
        for bucket in raw.iter().flatten() {
            cuts.extend(bucket.low.iter().chain(&bucket.high).map(|bound| telemetry.beyond(*bound)));
        }
        let timeout = canary::parse_duration(&policy.canary.spec.service.timeout)
            .map(|timeout| timeout.as_secs_f64())
            .filter(|timeout| *timeout > 0.0);
        cuts.extend(timeout);
        cuts.sort_by(|a, b| b.total_cmp(a));
        cuts.dedup();
        if cuts.len() > CUTS {
            return Err(format!(
                "canary {}: its quantile checks need {} latency bounds, the fast path keeps {CUTS}: use --engine full",
                policy.canary.name(),
                cuts.len()
            ));
        }
        let place = |bound: f64| cuts.iter().position(|cut| *cut == telemetry.beyond(bound));
        let edges = raw
            .iter()
            .map(|bucket| {
                bucket.as_ref().map(|bucket| Edges {
                    low: bucket.low.and_then(place),
                    high: bucket.high.and_then(place),
                    from: bucket.low.unwrap_or(0.0),
                    to: bucket.high.or(bucket.low).unwrap_or(0.0),
                    limit: bucket.limit,
                    includes: bucket.includes,
                })
            })
            .collect();
        let errors_show = found.error_status.unwrap_or(500) >= 500;
        let slack = policy.checks.iter().zip(&raw).map(|(check, bucket)| {
            match (&check.probe, check.min, check.max) {
                (Probe::SuccessRate, Some(min), None) if errors_show => Some((100.0 - min) / min),
                // As many may be slower as the quantile leaves.
                (Probe::Quantile { q, .. }, _, Some(_)) => bucket.as_ref()?.low.map(|_| 1.0 - q),
                _ => None,
            }
        });
        let slack = slack.collect();
        let baseline = Rate::Fixed(model.baseline.error_rate);
        let rate = found.error_rate.as_ref().unwrap_or(&baseline);
        let steps = if matches!(rate, Rate::Fixed(_)) { 1 } else { PRIOR_STEPS };
        let spec = &policy.canary.spec;
        let startup = found.startup.unwrap_or(model.startup).millis();
        if policy.provider != "istio" && policy.provider != "kubernetes" {
            assumptions.push(format!("provider {}: routed and measured as Istio does", policy.provider));
        }
        let latency = found.latency.as_ref().unwrap_or(&model.baseline.latency);
        let slowdown = found.slowdown.unwrap_or(1.0);
        let mean_latency = latency.mean() * slowdown;
        let scrape = model.prometheus.scrape_interval.millis().max(1);
        let samples = windows.first().map_or(1, |shortest| shortest / scrape);
        let is_poisson = model.traffic.arrivals == crate::model::Arrivals::Poisson;
        let varies = model.cold_start.is_some() || model.bursts.is_some() || model.capacity.is_some();
        let mut tests = policy.load_tests.iter().flatten();
        let is_plain = !varies
            && is_poisson
            && model.traffic.diurnal.is_none()
            && model.traffic.series.is_empty()
            && tests.next().is_none_or(|(_, reach)| *reach != Reach::Split)
            && tests.next().is_none();
        let analysis = spec.analysis();
        let is_ab = analysis.is_some_and(|analysis| !analysis.matches.is_empty() && analysis.iterations > 0);
        let mirrored = match analysis.map_or(0, |analysis| analysis.mirror_weight) {
            weight if weight > 0 && policy.dialect == canary::Dialect::Latest => weight.clamp(0, 100) as u32,
            _ => 100,
        };
        Ok(Setting {
            is_plain,
            tests_most: policy
                .load_tests
                .iter()
                .flatten()
                .map(|(test, _)| {
                    test.rate(mean_latency) * policy.interval as f64 / 1000.0 + f64::from(test.batch)
                })
                .fold(0.0, f64::max),
            varies,
            paces: policy.load_tests.iter().map(|test| Some(test.as_ref()?.0.pace(mean_latency))).collect(),
            defers: is_poisson && windows.last().is_none_or(|longest| *longest <= policy.interval),
            cut_ratio: 1.1 / (samples - 1).max(1) as f64,
            mean_latency,
            policy,
            model,
            version,
            templates: &policy.templates,
            scrape,
            closed_left: model.prometheus.version == 2,
            windows,
            mirrored,
            matching: (is_ab && policy.provider != "kubernetes")
                .then(|| (model.match_share * 100.0).round() as u32),
            telemetry,
            timeout: timeout.and_then(|timeout| cuts.iter().position(|cut| *cut == timeout)),
            cuts,
            edges,
            error_rates: (0..steps).map(|step| rate.at(step)).collect(),
            errors_show,
            slack,
            latency,
            slowdown,
            startup: (!found.never_ready).then_some(startup),
            promotion: model.promotion.millis(),
            deadline: i64::from(spec.progress_deadline_seconds().max(0)) * 1000,
            assumptions,
        })
    }

    /// The load tests and whom they reach, by webhook.
    pub fn load_test(&self, hook: usize) -> Option<&'a (LoadTest, Reach)> {
        self.policy.load_tests.get(hook)?.as_ref()
    }
}

/// A histogram bucket that holds a check's bound, in the histogram's unit.
struct Bucket {
    low: Option<f64>,
    high: Option<f64>,
    limit: f64,
    includes: bool,
}

/// The bucket that decides a quantile check. Values are compared after the conversions that the check makes.
fn bucket(check: &Check, telemetry: Telemetry) -> Option<Bucket> {
    let Probe::Quantile { factor, whole_millis, telemetry: asked, .. } = check.probe else { return None };
    if asked != telemetry {
        return None;
    }
    // The least value in the histogram's unit that is above the bound, or that no longer is below it.
    let (limit, includes) = match (check.max, check.min) {
        (Some(max), _) if whole_millis => ((max as i64 as f64 + 1.0) / factor, true),
        (Some(max), _) => (max / factor, false),
        (None, Some(min)) if whole_millis => (min as i64 as f64 / factor, true),
        (None, Some(min)) => (min / factor, true),
        (None, None) => return None,
    };
    let bounds = telemetry.bounds();
    // The bucket (low, high] with low < limit <= high.
    let above = bounds.iter().position(|bound| *bound >= limit);
    let (low, high) = match above {
        Some(0) => (None, Some(bounds[0])),
        Some(index) => (Some(bounds[index - 1]), Some(bounds[index])),
        None => (bounds.last().copied(), None),
    };
    Some(Bucket { low, high, limit, includes })
}
