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
use testbed::timeline::{Entry, Event};
use whatif::draws::Draws;
use whatif::latency::Latency;
use whatif::model::{Arrivals, Rate, Traffic, VersionModel};
use whatif::run::replay;
use whatif::scenario::{mark, sequence};
use whatif::statistics::chi_square;
use whatif::{Policy, ServiceModel, Setting, Span};

fn article() -> Canary {
    let text = include_str!("../../../fixtures/article/flagger/podinfo/canary.yaml");
    serde_saphyr::from_str(text).expect("the fixture is a Canary")
}

/// What Flagger says in the testbed from the release on, without waits for pods, whose number is the testbed's own.
fn full(setting: &Setting<'_>, seed: u64) -> Vec<String> {
    full_of(setting, &[seed]).remove(0)
}

/// What it says of each release of a world.
fn full_of(setting: &Setting<'_>, seeds: &[u64]) -> Vec<Vec<String>> {
    let text = sequence(setting, seeds).unwrap();
    let loaded =
        Loaded::parse("differential.yaml", Path::new("."), &text).unwrap_or_else(|error| panic!("{error}"));
    let run = testbed::run(&loaded, &RunOptions { seed: None, until: None });
    let said = |entry: &Entry| match &entry.event {
        Event::Line { source, .. } if source.workload == "flagger" => Some(entry.message()?.into_owned()),
        _ => None,
    };
    let is_release = |entry: &Entry, release: usize| entry.event == Event::Mark(mark(release));
    let releases = (0..seeds.len()).map(|release| {
        let after = run.timeline.iter().skip_while(|entry| !is_release(entry, release));
        let lines = after.take_while(|entry| !is_release(entry, release + 1)).filter_map(said);
        lines.filter(|message| is_compared(message)).collect()
    });
    releases.collect()
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

/// The 99th percentile of answers that all fall between 500 ms and 1 s is 995 ms. A float misses it by its last bit for one in
/// seven request rates, which scrape phases decide, and Flagger cuts off what is behind the point.
fn rounded(messages: Vec<String>) -> Vec<String> {
    messages.into_iter().map(|message| message.replace(" 994ms ", " 995ms ")).collect()
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
                    rounded(full(&setting, seed)),
                    rounded(fast(&setting, seed)),
                    "{dialect:?}, answers in {latency} ms, {errors} of them failed, steps of {step} to {most}, threshold {threshold}"
                );
            }
        }
    }
}

#[test]
fn releases_that_share_a_world_are_like_the_first() {
    for (latency, errors) in [(20, 0.0), (612, 0.0), (20, 1.0)] {
        let mut canary = article();
        let analysis = canary.spec.analysis.as_mut().unwrap();
        (analysis.step_weight, analysis.max_weight, analysis.threshold) = (25, 50, 2);
        let policy = Policy::new(canary, Dialect::Latest, &[], &|_| None);
        let model = deterministic(latency, errors);
        let setting = Setting::new(&policy, &model, "new").unwrap();
        for said in full_of(&setting, &[1, 2, 3]) {
            assert_eq!(said, fast(&setting, 1), "answers in {latency} ms, {errors} of them failed");
        }
    }
}

/// Any policy of steps, and how long the new version's answers take and how many of them fail: all or none, so that
/// what the controller says does not depend on luck. Answers are in buckets whose quantile is no whole number of
/// milliseconds, where the last bit of a sum could decide what is printed.
fn any_policy(number: u64) -> (Policy, u64, f64) {
    let draws = Draws::new(Seed::new(6), "policies", number);
    let mut question = 0;
    let mut draw = |most: usize| {
        question += 1;
        (draws.uniform(question) * most as f64) as usize
    };
    let mut canary = article();
    let analysis = canary.spec.analysis.as_mut().unwrap();
    let is_new = draw(2) == 0;
    analysis.interval = ["20s", "30s", "45s"][draw(3)].to_owned();
    analysis.threshold = 1 + draw(4) as i32;
    (analysis.step_weight, analysis.max_weight) = (10 + draw(41) as i32, 30 + draw(71) as i32);
    if is_new && draw(3) == 0 {
        (analysis.step_weight, analysis.step_weights) =
            (0, vec![5 + draw(20) as i32, 30, 31 + draw(60) as i32]);
    }
    if draw(2) == 0 {
        analysis.webhooks.clear();
    }
    analysis.metrics[0].threshold = Some(90.0 + draw(10) as f64);
    analysis.metrics[1].threshold = Some([150.0, 300.0, 400.0, 499.0][draw(4)]);
    for metric in &mut analysis.metrics {
        metric.interval = ["20s", "30s", "1m"][draw(3)].to_owned();
    }
    match draw(4) {
        0 => analysis.metrics.truncate(1),
        1 => drop(analysis.metrics.remove(0)),
        2 => analysis.metrics.reverse(),
        _ => {}
    }
    let dialect = if is_new { Dialect::Latest } else { Dialect::Rc1 };
    let (latency, errors) = ([20, 180, 320][draw(3)], [0.0, 0.0, 1.0][draw(3)]);
    (Policy::new(canary, dialect, &[], &|_| None), latency, errors)
}

#[test]
fn random_policies_give_equal_logs() {
    let mut promoted = 0;
    for number in 0..POLICIES {
        let (policy, latency, errors) = any_policy(number);
        let model = deterministic(latency, errors);
        let setting = Setting::new(&policy, &model, "new").unwrap();
        let said = fast(&setting, number);
        assert_eq!(
            full(&setting, number),
            said,
            "policy {number}: {:?}, {:?}, answers in {latency} ms, {errors} of them failed",
            policy.dialect,
            policy.canary.spec.analysis
        );
        promoted += usize::from(said.iter().any(|message| message.starts_with("Promotion completed!")));
    }
    // Both ends are among them.
    assert!((2..POLICIES as usize - 2).contains(&promoted), "{promoted} of {POLICIES} policies promote");
}

/// Random policies, each run once by both engines.
const POLICIES: u64 = 10;

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
