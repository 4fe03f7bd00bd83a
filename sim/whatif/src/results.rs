//! What was found out: figures with their intervals, and the sums behind them, so that results can be merged.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::goal::Figure;
use crate::statistics::{Estimate, share};
use crate::tally::{Sketch, Tally};

/// Results of an experiment, or of a part of its rollouts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// `coalmine.dev/v1alpha1`.
    pub api_version: String,
    /// `WhatIfResult`.
    pub kind: String,
    /// The experiment's name.
    pub name: String,
    /// The command that gives these results.
    pub command: String,
    /// `fast` or `full`.
    pub engine: String,
    /// What the results depend on, besides the seed: only equal ones can be merged.
    pub fingerprint: String,
    /// The seed.
    pub seed: u64,
    /// Rollouts of each version under each policy, of all parts.
    pub rollouts: u64,
    /// The parts that are in here, each the first rollout and the one after its last.
    pub parts: Vec<(u64, u64)>,
    /// Rollouts that were run.
    pub rollouts_run: u64,
    /// Seconds that they took.
    pub seconds: f64,
    /// Rollouts per second.
    pub rollouts_per_second: f64,
    /// What was assumed.
    pub assumptions: Vec<String>,
    /// The goal, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<String>,
    /// The best policy's place, if there is a goal that one meets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<usize>,
    /// The policies.
    pub policies: Vec<PolicyResult>,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyResult {
    /// What is different from the Canary as shipped, by field.
    pub changes: Map<String, Value>,
    /// Whether no other policy is better in one of detection time, user errors, false alarms and release duration
    /// without being worse in another.
    pub on_front: bool,
    /// By service model.
    pub models: Vec<ModelResult>,
}

impl PolicyResult {
    /// A name for people: `as shipped`, or its changes.
    pub fn title(&self) -> String {
        if self.changes.is_empty() {
            return "as shipped".to_owned();
        }
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let short =
            |field: &str| field.trim_start_matches("spec.").trim_start_matches("analysis.").to_owned();
        let changes: Vec<String> =
            self.changes.iter().map(|(field, value)| format!("{}={}", short(field), text(value))).collect();
        changes.join(" ")
    }
}

/// One policy under one service model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelResult {
    /// The model's name.
    pub name: String,
    /// The share of good versions that are rolled back.
    pub false_alarms: Option<Estimate>,
    /// The share of bad versions that are promoted.
    pub misses: Option<Estimate>,
    /// Median seconds from release to rollback of a bad version.
    pub detection: Option<Estimate>,
    /// Median seconds from release to promotion of a good version.
    pub release: Option<Estimate>,
    /// Failed requests that the release of a bad version shows to users, on average.
    pub user_errors: Option<Estimate>,
    /// Requests of users that a bad version answers before its end, on average.
    pub user_requests: Option<Estimate>,
    /// By version.
    pub versions: Vec<VersionResult>,
    /// How likely it is that versions of other kinds are caught.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<Curve>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionResult {
    /// Its name.
    pub name: String,
    /// Whether it should be rolled back.
    pub bad: bool,
    /// How common it is, against the others.
    pub share: f64,
    /// The share that is promoted.
    pub promoted: Option<Estimate>,
    /// The share that is rolled back.
    pub rolled_back: Option<Estimate>,
    /// The share that is rolled back because of a check without values.
    pub rolled_back_without_values: Option<Estimate>,
    /// The share that is rolled back because it was not ready in time.
    pub rolled_back_by_deadline: Option<Estimate>,
    /// The share that never ends.
    pub endless: Option<Estimate>,
    /// Seconds from release to rollback.
    pub detection_seconds: Spread,
    /// Seconds from release to promotion.
    pub promotion_seconds: Spread,
    /// Requests of users that it answers.
    pub user_requests: Spread,
    /// Those that fail.
    pub user_errors: Spread,
    /// How often each check was the first to fail.
    pub first_failures: Vec<(String, Option<Estimate>)>,
    /// The sums.
    pub tally: Tally,
}

/// A distribution in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean: Option<Estimate>,
    /// The tenth percentile.
    pub p10: Option<Estimate>,
    /// The median.
    pub p50: Option<Estimate>,
    /// The ninetieth percentile.
    pub p90: Option<Estimate>,
    /// The ninety-ninth percentile.
    pub p99: Option<Estimate>,
}

/// How a policy answers to a kind of defect, by its size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Curve {
    /// `errors` (share of failed requests) or `slowdown` (factor on the latency).
    pub defect: String,
    /// Its points, the size ascending.
    pub points: Vec<CurvePoint>,
}

/// One size of a defect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CurvePoint {
    /// The size.
    pub size: f64,
    /// The share that is rolled back.
    pub caught: Option<Estimate>,
    /// Median seconds to rollback.
    pub detection: Option<Estimate>,
    /// Failed requests that users see, on average.
    pub user_errors: Option<Estimate>,
    /// The sums.
    pub tally: Tally,
}

fn scaled(estimate: Option<Estimate>, factor: f64) -> Option<Estimate> {
    estimate.map(|e| Estimate { value: e.value * factor, low: e.low * factor, high: e.high * factor })
}

fn spread(sketch: &Sketch, factor: f64) -> Spread {
    let at = |q: f64| scaled(sketch.quantile(q), factor);
    Spread { mean: scaled(sketch.mean(), factor), p10: at(0.1), p50: at(0.5), p90: at(0.9), p99: at(0.99) }
}

impl VersionResult {
    /// The figures of a version's sums.
    pub fn new(name: &str, bad: bool, weight: f64, tally: Tally) -> Self {
        let of = |part: u64| share(part, tally.rollouts);
        let mut first_failures: Vec<(String, Option<Estimate>)> =
            tally.first_failures.iter().map(|(name, count)| (name.clone(), of(*count))).collect();
        first_failures.sort_by(|a, b| {
            let value = |entry: &(String, Option<Estimate>)| entry.1.map_or(0.0, |estimate| estimate.value);
            value(b).total_cmp(&value(a)).then(a.0.cmp(&b.0))
        });
        VersionResult {
            name: name.to_owned(),
            bad,
            share: weight,
            promoted: of(tally.promoted),
            rolled_back: of(tally.rolled_back()),
            rolled_back_without_values: of(tally.rolled_back_without_values),
            rolled_back_by_deadline: of(tally.rolled_back_by_deadline),
            endless: of(tally.endless),
            detection_seconds: spread(&tally.detection, 1e-3),
            promotion_seconds: spread(&tally.promotion, 1e-3),
            user_requests: spread(&tally.requests, 1.0),
            user_errors: spread(&tally.errors, 1.0),
            first_failures,
            tally,
        }
    }
}

impl CurvePoint {
    /// The figures of a point's sums.
    pub fn new(size: f64, tally: Tally) -> Self {
        CurvePoint {
            size,
            caught: share(tally.rolled_back(), tally.rollouts),
            detection: scaled(tally.detection.quantile(0.5), 1e-3),
            user_errors: tally.errors.mean(),
            tally,
        }
    }
}

impl ModelResult {
    /// The figures over a model's versions, each weighted by its share.
    pub fn new(name: &str, versions: Vec<VersionResult>, curves: Vec<Curve>) -> Self {
        let over = |bad: bool, of: &dyn Fn(&VersionResult) -> Option<Estimate>| -> Option<Estimate> {
            let found: Vec<(f64, Estimate)> = versions
                .iter()
                .filter(|version| version.bad == bad)
                .filter_map(|version| Some((version.share, of(version)?)))
                .collect();
            let equal = found.iter().all(|(weight, _)| *weight == 0.0);
            let weight = |weight: f64| if equal { 1.0 } else { weight };
            let all: f64 = found.iter().map(|(share, _)| weight(*share)).sum();
            (!found.is_empty()).then(|| {
                let value = found.iter().map(|(share, e)| weight(*share) * e.value).sum::<f64>() / all;
                let half = |end: &dyn Fn(&Estimate) -> f64| {
                    found
                        .iter()
                        .map(|(share, e)| (weight(*share) * (end(e) - e.value)).powi(2))
                        .sum::<f64>()
                        .sqrt()
                        / all
                };
                Estimate { value, low: (value - half(&|e| e.low)).max(0.0), high: value + half(&|e| e.high) }
            })
        };
        ModelResult {
            name: name.to_owned(),
            false_alarms: over(false, &|version| version.rolled_back),
            misses: over(true, &|version| version.promoted),
            detection: over(true, &|version| version.detection_seconds.p50),
            release: over(false, &|version| version.promotion_seconds.p50),
            user_errors: over(true, &|version| version.user_errors.mean),
            user_requests: over(true, &|version| version.user_requests.mean),
            versions,
            curves,
        }
    }
}

impl Results {
    /// Marks the Pareto front and the best policy.
    pub fn compare(&mut self, goal: Option<&crate::goal::Goal>) {
        const FIGURES: [Figure; 4] =
            [Figure::Detection, Figure::UserErrors, Figure::FalseAlarms, Figure::Release];
        let figures: Vec<[f64; 4]> =
            self.policies.iter().map(|policy| FIGURES.map(|figure| figure.worst(policy).value)).collect();
        let misses: Vec<f64> =
            self.policies.iter().map(|policy| Figure::Misses.worst(policy).value).collect();
        for (index, policy) in self.policies.iter_mut().enumerate() {
            let beaten = figures.iter().enumerate().any(|(other, values)| {
                let mine = figures[index];
                let no_worse = values.iter().zip(mine).all(|(theirs, mine)| *theirs <= mine)
                    && misses[other] <= misses[index];
                let better = values.iter().zip(mine).any(|(theirs, mine)| *theirs < mine)
                    || misses[other] < misses[index];
                no_worse && better
            });
            policy.on_front = !beaten;
        }
        self.best = goal.and_then(|goal| goal.best(&self.policies));
    }

    /// Merges results of parts of the same rollouts.
    ///
    /// # Errors
    /// A sentence on what does not fit.
    pub fn merge(&mut self, other: &Results) -> Result<(), String> {
        if self.fingerprint != other.fingerprint || self.seed != other.seed || self.rollouts != other.rollouts
        {
            return Err("the results are of different experiments: files, flags, --seed and --rollouts must be the same".to_owned());
        }
        for part in &other.parts {
            if let Some(twice) = self.parts.iter().find(|known| known.0 < part.1 && part.0 < known.1) {
                return Err(format!(
                    "rollouts {} to {} are in both: give each shard once",
                    part.0.max(twice.0),
                    part.1.min(twice.1) - 1
                ));
            }
        }
        self.parts.extend(&other.parts);
        self.parts.sort_unstable();
        // Neighbours become one.
        self.parts = self.parts.iter().fold(Vec::new(), |mut parts: Vec<(u64, u64)>, part| {
            match parts.last_mut() {
                Some(last) if last.1 == part.0 => last.1 = part.1,
                _ => parts.push(*part),
            }
            parts
        });
        self.rollouts_run += other.rollouts_run;
        self.seconds = self.seconds.max(other.seconds);
        self.rollouts_per_second += other.rollouts_per_second;
        for (mine, theirs) in self.policies.iter_mut().zip(&other.policies) {
            for (mine, theirs) in mine.models.iter_mut().zip(&theirs.models) {
                let versions = mine.versions.iter().zip(&theirs.versions).map(|(mine, theirs)| {
                    let mut tally = mine.tally.clone();
                    tally.merge(&theirs.tally);
                    VersionResult::new(&mine.name, mine.bad, mine.share, tally)
                });
                let curves = mine.curves.iter().zip(&theirs.curves).map(|(mine, theirs)| {
                    let points = mine.points.iter().zip(&theirs.points).map(|(mine, theirs)| {
                        let mut tally = mine.tally.clone();
                        tally.merge(&theirs.tally);
                        CurvePoint::new(mine.size, tally)
                    });
                    Curve { defect: mine.defect.clone(), points: points.collect() }
                });
                *mine = ModelResult::new(&mine.name, versions.collect(), curves.collect());
            }
        }
        Ok(())
    }
}
