//! Two engines, one truth: the what-if fast path against the whole testbed.
//!
//! Where a model is deterministic, both say the same, message by message. Where it is not, the numbers of failed checks
//! and the ends are of one distribution, as far as a chi-square test of this many rollouts can tell.

use std::path::Path;

use canary::Dialect;
use clock::Seed;
use crd::Canary;
use testbed::RunOptions;
use testbed::scenario::Loaded;
use testbed::timeline::Event;
use whatif::latency::Latency;
use whatif::model::{Arrivals, Rate, Traffic, VersionModel};
use whatif::run::replay;
use whatif::scenario::{RELEASE, scenario};
use whatif::statistics::chi_square;
use whatif::{Policy, ServiceModel, Setting, Span};

fn article() -> Canary {
    let text = include_str!("../../../fixtures/article/flagger/podinfo/canary.yaml");
    serde_saphyr::from_str(text).expect("the fixture is a Canary")
}

/// What Flagger says in the testbed from the release on, without waits for pods, whose number is the testbed's own.
fn full(setting: &Setting<'_>, seed: u64) -> Vec<String> {
    let text = scenario(setting, seed).unwrap();
    let loaded =
        Loaded::parse("differential.yaml", Path::new("."), &text).unwrap_or_else(|error| panic!("{error}"));
    let run = testbed::run(&loaded, &RunOptions { seed: None, until: None });
    let release = run.timeline.iter().position(|entry| entry.event == Event::Mark(RELEASE.to_owned()));
    let after = &run.timeline[release.expect("the run came to the release")..];
    let flagger = after
        .iter()
        .filter(|entry| matches!(&entry.event, Event::Line { source, .. } if source.workload == "flagger"));
    flagger
        .filter_map(|entry| entry.message())
        .map(|message| message.into_owned())
        .filter(|m| is_compared(m))
        .collect()
}

/// What the fast path says.
fn fast(setting: &Setting<'_>, index: u64) -> Vec<String> {
    let (_, lines) = replay(setting, Seed::new(9), index);
    lines.into_iter().map(|line| line.message).filter(|message| is_compared(message)).collect()
}

fn is_compared(message: &str) -> bool {
    !message.contains("waiting for rollout to finish") && !message.ends_with("uses HTTP service")
}

/// Users in even distances, answers that all take the same time.
fn deterministic(latency: u64, errors: f64) -> ServiceModel {
    let traffic = Traffic { rate: 20.0, arrivals: Arrivals::Constant, ..Traffic::default() };
    let mut model = ServiceModel { traffic, ..ServiceModel::default() };
    model.baseline.latency = Latency::Constant(Span::from_millis(20));
    model.baseline.error_rate = 0.0;
    let version = VersionModel {
        latency: Some(Latency::Constant(Span::from_millis(latency))),
        error_rate: Some(Rate::Fixed(errors)),
        ..VersionModel::default()
    };
    model.versions = [("new".to_owned(), version)].into();
    model
}

#[test]
fn deterministic_models_give_equal_logs() {
    let mut seed = 0;
    for dialect in [Dialect::Rc1, Dialect::Latest] {
        for (latency, errors) in [(20, 0.0), (612, 0.0), (20, 1.0)] {
            for (step, most, threshold) in [(5, 50, 10), (20, 50, 2), (60, 50, 1)] {
                seed += 1;
                // All combinations of a few, not of all: each takes a second.
                if seed % 3 != 1 && errors < 1.0 {
                    continue;
                }
                let mut canary = article();
                let analysis = canary.spec.analysis.as_mut().unwrap();
                (analysis.step_weight, analysis.max_weight, analysis.threshold) = (step, most, threshold);
                let policy = Policy::new(canary, dialect, &[], &|_| None);
                let model = deterministic(latency, errors);
                let setting = Setting::new(&policy, &model, "new").unwrap();
                assert_eq!(
                    full(&setting, seed),
                    fast(&setting, seed),
                    "{dialect:?}, answers in {latency} ms, {errors} of them failed, steps of {step} to {most}, threshold {threshold}"
                );
            }
        }
    }
}

#[test]
fn random_models_give_equal_distributions() {
    // A version at the edge of the threshold: about half of its checks fail.
    let mut canary = article();
    let analysis = canary.spec.analysis.as_mut().unwrap();
    (analysis.step_weight, analysis.max_weight, analysis.threshold) = (25, 50, 3);
    analysis.interval = "20s".to_owned();
    let policy = Policy::new(canary, Dialect::Latest, &[], &|_| None);
    let mut model = ServiceModel::default();
    model.versions.get_mut("bad").unwrap().error_rate = Some(Rate::Fixed(0.011));
    let setting = Setting::new(&policy, &model, "bad").unwrap();
    // Failed checks of a rollout, and whether it was promoted: 0 to 2 and promoted, 3 and rolled back.
    let kind =
        |messages: &[String]| messages.iter().filter(|message| message.starts_with("Halt ")).count().min(3);
    let (mut by_full, mut by_fast) = ([0u64; 4], [0u64; 4]);
    for seed in 0..RUNS {
        by_full[kind(&full(&setting, seed))] += 1;
    }
    for index in 0..4_000 {
        by_fast[kind(&fast(&setting, index))] += 1;
    }
    let (statistic, freedom) = chi_square(&by_full, &by_fast);
    // The 99.9 % points of the chi-square distribution: a sound pair of engines fails here once in a thousand seeds,
    // and these are fixed. With this many runs a difference of 0.5 in the share of promoted rollouts is seen with a
    // probability of 0.9.
    let limit = [0.0, 10.83, 13.82, 16.27][freedom];
    assert!(freedom >= 1 && statistic < limit, "{by_full:?} {by_fast:?}: {statistic} of {freedom}");
}

/// Rollouts of the whole testbed: each takes about a second without optimisation.
const RUNS: u64 = 30;
