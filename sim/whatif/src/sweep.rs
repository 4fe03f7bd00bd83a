//! Many policies under several service models.

use canary::Dialect;
use clock::Seed;
use crd::Canary;
use serde_json::{Map, Value};

use crate::automaton;
use crate::draws::Draws;
use crate::experiment::{Experiment, Variation};
use crate::field::Field;
use crate::model::{Rate, ServiceModel, VersionModel};
use crate::policy::Policy;
use crate::results::{Curve, CurvePoint, ModelResult, PolicyResult, Results, VersionResult};
use crate::run::{Plan, run};
use crate::setting::Setting;
use crate::tally::Tally;

/// Shares of failed requests that are tried besides the model's versions.
const ERROR_RATES: [f64; 9] = [0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5];
/// Factors on the latency that are tried besides the model's versions.
const SLOWDOWNS: [f64; 7] = [1.2, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0];
/// The most policies of a sweep.
const POLICIES: usize = 20_000;

/// A point of a sweep: a Canary and what is different in it.
#[derive(Clone, Debug)]
pub struct Point {
    /// The changes.
    pub changes: Vec<(Field, Value)>,
    /// The Canary.
    pub canary: Canary,
}

/// The policies to try: all combinations of the variations, or random ones; without variations the one as shipped.
///
/// # Errors
/// A sentence that names the field.
pub fn points(experiment: &Experiment) -> Result<Vec<Point>, String> {
    let default;
    let vary: &[Variation] = if experiment.vary.is_empty() && experiment.goal.is_some() {
        default = suggestions(&experiment.canary);
        &default
    } else {
        &experiment.vary
    };
    let size = vary.iter().try_fold(1usize, |size, variation| size.checked_mul(variation.values.len()));
    let choices: Vec<Vec<usize>> = match experiment.random {
        Some(number) => {
            let draws = Draws::new(Seed::new(experiment.seed), "sweep", 0);
            let mut chosen: Vec<Vec<usize>> = (0..number.min(POLICIES as u64))
                .map(|point| {
                    let choose = |(index, variation): (usize, &Variation)| {
                        let uniform = draws.uniform(point * 64 + index as u64);
                        (uniform * variation.values.len() as f64) as usize
                    };
                    vary.iter().enumerate().map(choose).collect()
                })
                .collect();
            chosen.sort();
            chosen.dedup();
            chosen
        }
        None => {
            let size = size.filter(|size| *size <= POLICIES).ok_or_else(|| {
                format!("the variations have more than {POLICIES} combinations: try some at random with --random 500")
            })?;
            (0..size)
                .map(|mut number| {
                    let mut choice: Vec<usize> = vary
                        .iter()
                        .rev()
                        .map(|variation| {
                            let index = number % variation.values.len();
                            number /= variation.values.len();
                            index
                        })
                        .collect();
                    choice.reverse();
                    choice
                })
                .collect()
        }
    };
    choices
        .into_iter()
        .map(|choice| {
            let mut object = experiment.document.value.clone();
            let mut changes = Vec::new();
            for (variation, index) in vary.iter().zip(choice) {
                let value = variation.values[index].clone();
                let place = |error: String| format!("{}: {error}", experiment.document.file);
                if variation.field.get(&object).map_err(place)? != &value {
                    variation.field.set(&mut object, value.clone()).map_err(place)?;
                    changes.push((variation.field.clone(), value));
                }
            }
            let canary = serde_path_to_error::deserialize(&object).map_err(|error| {
                format!(
                    "{}: with these variations: {}: {}",
                    experiment.document.file,
                    error.path(),
                    error.inner()
                )
            })?;
            for (field, _) in &changes {
                if let Some(key) = unknown(&canary, field) {
                    return Err(format!("{}: a Canary has no field {key:?}", field.text));
                }
            }
            Ok(Point { changes, canary })
        })
        .collect()
}

/// The key of a path that no Canary has: such fields are kept, and mean nothing.
fn unknown<'f>(canary: &Canary, field: &'f Field) -> Option<&'f str> {
    let keys = field.keys();
    let spec = &canary.spec;
    let none = crd::CanaryAnalysis::default();
    let analysis = spec.analysis().unwrap_or(&none);
    let known = |extra: &Map<String, Value>, place: usize| {
        keys.get(place).copied().filter(|key| extra.contains_key(*key))
    };
    known(&spec.extra, 0).or_else(|| match keys.first().copied() {
        Some("service") => known(&spec.service.extra, 1),
        Some("analysis" | "canaryAnalysis") => known(&analysis.extra, 1).or_else(|| {
            let metrics = analysis.metrics.iter().map(|metric| &metric.extra);
            let webhooks = analysis.webhooks.iter().map(|hook| &hook.extra);
            let mut items = metrics.chain(webhooks);
            items.find_map(|extra| known(extra, keys.len() - 1))
        }),
        _ => None,
    })
}

/// What to try when nobody says: the fields that decide how fast and how strict a release is.
fn suggestions(canary: &Canary) -> Vec<Variation> {
    let none = crd::CanaryAnalysis::default();
    let analysis = canary.spec.analysis().unwrap_or(&none);
    let field = |path: &str| Field::parse(path).expect("a path of this table is a field");
    let list = |path: &str, mut values: Vec<Value>, own: Value| {
        if !values.contains(&own) {
            values.push(own);
        }
        Variation { field: field(path), values }
    };
    let numbers = |values: &[i32]| values.iter().map(|value| Value::from(*value)).collect();
    let mut vary = vec![
        list(
            "analysis.interval",
            vec!["30s".into(), "1m".into(), "2m".into()],
            analysis.interval.clone().into(),
        ),
        list("analysis.threshold", numbers(&[1, 2, 3, 5, 10]), analysis.threshold.into()),
    ];
    if analysis.iterations > 0 {
        vary.push(list("analysis.iterations", numbers(&[3, 5, 10, 20]), analysis.iterations.into()));
    } else {
        vary.push(list("analysis.stepWeight", numbers(&[2, 5, 10, 20]), analysis.step_weight.into()));
        vary.push(list("analysis.maxWeight", numbers(&[20, 50]), analysis.max_weight.into()));
    }
    vary
}

/// How to run an experiment.
pub struct Options<'p> {
    /// Rollouts of each version under each policy.
    pub rollouts: u64,
    /// The part to run: which, of how many.
    pub shard: (u64, u64),
    /// Whether other sizes of defects are tried too.
    pub curves: bool,
    /// Runs the rollouts of a setting with these indices: the fast path's [`fast`], or a full simulation.
    pub simulate: &'p Simulate<'p>,
    /// What simulates, for results.
    pub engine: &'static str,
}

/// Runs the rollouts of a setting with these indices.
pub type Simulate<'s> = dyn Fn(&Setting<'_>, std::ops::Range<u64>) -> Result<Tally, String> + Sync + 's;

/// The fast path, run as planned.
pub fn fast<'p>(
    plan: Plan<'p>,
) -> impl Fn(&Setting<'_>, std::ops::Range<u64>) -> Result<Tally, String> + Sync + 'p {
    move |setting, indices| {
        automaton::fits(setting.policy)?;
        Ok(run(setting, indices, &plan))
    }
}

impl Options<'_> {
    /// The rollouts of this part.
    pub fn part(&self) -> std::ops::Range<u64> {
        let (shard, of) = self.shard;
        let at = |shard: u64| (u128::from(self.rollouts) * u128::from(shard) / u128::from(of.max(1))) as u64;
        at(shard)..at(shard + 1)
    }
}

/// The policy of a point under a model.
pub fn policy(experiment: &Experiment, canary: &Canary, model: &ServiceModel) -> Policy {
    let passing = |metric: &str| model.metrics.get(metric).copied();
    Policy::new(canary.clone(), experiment.dialect, &experiment.templates, &passing)
}

/// Runs an experiment.
///
/// # Errors
/// A sentence on what is not modelled, or is wrong.
pub fn sweep(experiment: &Experiment, points: &[Point], options: &Options<'_>) -> Result<Results, String> {
    let part = options.part();
    let mut assumptions = experiment.assumptions.clone();
    let mut policies = Vec::new();
    let mut rollouts_run = 0;
    for point in points {
        let mut models = Vec::new();
        for model in &experiment.models {
            let policy = policy(experiment, &point.canary, model);
            let mut versions = Vec::new();
            for (name, version) in &model.versions {
                let setting = Setting::new(&policy, model, name)?;
                let tally = (options.simulate)(&setting, part.clone())?;
                rollouts_run += tally.rollouts;
                for assumption in policy.assumptions.iter().chain(&setting.assumptions) {
                    if !assumptions.contains(assumption) {
                        assumptions.push(assumption.clone());
                    }
                }
                versions.push(VersionResult::new(name, version.is_bad(name), version.share, tally));
            }
            let mut curves = Vec::new();
            if options.curves {
                for (defect, sizes) in [("errors", &ERROR_RATES[..]), ("slowdown", &SLOWDOWNS[..])] {
                    let mut points = Vec::new();
                    for size in sizes {
                        let with = with_defect(model, defect, *size);
                        let setting = Setting::new(&policy, &with, "bad")?;
                        let few = part.start / 10..part.end / 10;
                        let tally = (options.simulate)(&setting, few)?;
                        rollouts_run += tally.rollouts;
                        points.push(CurvePoint::new(*size, tally));
                    }
                    curves.push(Curve { defect: defect.to_owned(), points });
                }
            }
            models.push(ModelResult::new(&model.name, versions, curves));
        }
        let changes: Map<String, Value> =
            point.changes.iter().map(|(field, value)| (field.text.clone(), value.clone())).collect();
        policies.push(PolicyResult { changes, on_front: false, models });
    }
    let mut results = Results {
        api_version: "coalmine.dev/v1alpha1".to_owned(),
        kind: "WhatIfResult".to_owned(),
        name: experiment.name.clone(),
        command: String::new(),
        engine: options.engine.to_owned(),
        fingerprint: fingerprint(experiment, points),
        seed: experiment.seed,
        rollouts: options.rollouts,
        parts: vec![(part.start, part.end)],
        rollouts_run,
        seconds: 0.0,
        rollouts_per_second: 0.0,
        assumptions,
        goal: experiment.goal.as_ref().map(|goal| goal.text.clone()),
        best: None,
        policies,
    };
    results.compare(experiment.goal.as_ref());
    Ok(results)
}

/// How many rollouts an experiment runs at most.
pub fn size(experiment: &Experiment, points: &[Point], options: &Options<'_>) -> u64 {
    let part = options.part();
    let rollouts = part.end - part.start;
    let few = if options.curves {
        (ERROR_RATES.len() + SLOWDOWNS.len()) as u64 * (part.end / 10 - part.start / 10)
    } else {
        0
    };
    let models = experiment.models.iter().map(|model| model.versions.len() as u64 * rollouts + few);
    points.len() as u64 * models.sum::<u64>()
}

/// The model with one bad version: like the baseline, but for one defect.
fn with_defect(model: &ServiceModel, defect: &str, size: f64) -> ServiceModel {
    let version = match defect {
        "errors" => VersionModel { error_rate: Some(Rate::Fixed(size)), ..VersionModel::default() },
        _ => VersionModel { slowdown: Some(size), ..VersionModel::default() },
    };
    let mut with = model.clone();
    with.versions = [("bad".to_owned(), version)].into();
    with
}

/// A text that differs when the results may.
pub fn fingerprint(experiment: &Experiment, points: &[Point]) -> String {
    let dialect = if experiment.dialect == Dialect::Rc1 { "rc1" } else { "latest" };
    let mut seed = Seed::new(0).child(dialect);
    let templates = experiment.templates.iter().map(|template| &template.spec.query);
    let models = experiment.models.iter().map(|model| format!("{model:?}"));
    let canaries = points.iter().map(|point| serde_json::to_string(&point.canary.spec).unwrap_or_default());
    for text in templates.cloned().chain(models).chain(canaries) {
        seed = seed.child(&text);
    }
    seed = seed.child(&format!("{:?}", experiment.precision));
    format!("{:016x}", seed.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_no_canary_has_are_named() {
        let mut object: Value =
            serde_saphyr::from_str(include_str!("../../../fixtures/article/flagger/podinfo/canary.yaml"))
                .unwrap();
        for (path, key) in [
            ("analysis.stepWeight", None),
            ("analysis.stepWieght", Some("stepWieght")),
            ("analysis.metrics[0].treshold", Some("treshold")),
            ("analysis.metrics.request-duration.threshold", None),
            ("progressDeadline", Some("progressDeadline")),
        ] {
            let field = Field::parse(path).unwrap();
            field.set(&mut object, 7.into()).unwrap();
            let canary: Canary = serde_json::from_value(object.clone()).unwrap();
            assert_eq!(unknown(&canary, &field), key, "{path}");
        }
    }
}
