//! The fast path against what can be known without it.

use canary::Dialect;
use clock::Seed;
use crd::Canary;

use crate::automaton::Automaton;
use crate::counts::binomial_cdf;
use crate::draws::Draws;
use crate::model::{Arrivals, Rate, ServiceModel, Traffic, VersionModel};
use crate::policy::Policy;
use crate::rollout::{End, walk, witness};
use crate::run::{Plan, run};
use crate::setting::Setting;
use crate::span::Span;
use crate::statistics::share;
use crate::tally::Tally;
use crate::world::Memory;

fn article() -> Canary {
    serde_saphyr::from_str(include_str!("../../../fixtures/article/flagger/podinfo/canary.yaml")).unwrap()
}

fn policy(canary: Canary) -> Policy {
    Policy::new(canary, Dialect::Latest, &[], &|_| None)
}

fn tally(policy: &Policy, model: &ServiceModel, version: &str, rollouts: u64) -> Tally {
    let setting = Setting::new(policy, model, version).unwrap();
    let plan = Plan { seed: Seed::new(1), jobs: 2.try_into().unwrap(), precision: 0.0, progress: &|_| {} };
    run(&setting, 0..rollouts, &plan)
}

/// A blue/green run that mirrors: the canary sees every request, n of them in each window, k checks, and a success
/// rate of `least` percent to pass.
fn mirrored(iterations: i32, threshold: i32, least: f64, error_rate: f64) -> (Policy, ServiceModel) {
    let mut canary = article();
    let analysis = canary.spec.analysis.as_mut().unwrap();
    analysis.webhooks.clear();
    analysis.metrics.truncate(1);
    (analysis.step_weight, analysis.max_weight) = (0, 0);
    (analysis.mirror, analysis.iterations, analysis.threshold) = (true, iterations, threshold);
    analysis.metrics[0].threshold = Some(least);
    let mut model = ServiceModel::default();
    model.traffic = Traffic { rate: 10.0, arrivals: Arrivals::Constant, ..Traffic::default() };
    // The first samples show both kinds of answers to nobody: let the series begin long before the checks.
    model.versions.get_mut("bad").unwrap().error_rate = Some(Rate::Fixed(error_rate));
    (policy(canary), model)
}

#[test]
fn a_first_look() {
    let policy = policy(article());
    let model = ServiceModel::default();
    for version in ["good", "bad"] {
        let tally = tally(&policy, &model, version, 20_000);
        println!(
            "{version}: promoted {} rolled back {} (no values {}) endless {} detection {:?} promotion {:?} requests {:?} errors {:?} {:?}",
            tally.promoted,
            tally.rolled_back(),
            tally.rolled_back_without_values,
            tally.endless,
            tally.detection.quantile(0.5),
            tally.promotion.quantile(0.5),
            tally.requests.mean(),
            tally.errors.mean(),
            tally.first_failures
        );
    }
}

#[test]
fn the_table_walks_as_the_core_decides() {
    for dialect in [Dialect::Rc1, Dialect::Latest] {
        let policy = Policy::new(article(), dialect, &[], &|_| None);
        let mut model = ServiceModel::default();
        let slow = VersionModel { slowdown: Some(2.4), ..VersionModel::default() };
        model.versions.insert("slow".to_owned(), slow);
        for version in ["good", "bad", "slow"] {
            let setting = Setting::new(&policy, &model, version).unwrap();
            let (mut automaton, mut memory) = (Automaton::new(&policy), Memory::default());
            for index in 0..300 {
                let draws = Draws::new(Seed::new(5), "default", index);
                let walked = walk(&setting, &mut automaton, &mut memory, draws, index);
                let (witnessed, lines) = witness(&setting, &mut Memory::default(), draws, index);
                assert_eq!(walked, witnessed, "{version} {index}");
                assert!(lines.len() > 3);
            }
        }
    }
}

#[test]
fn fixed_windows_follow_the_binomial_distribution() {
    // One check decides: 250 requests between the first and the last of six samples, each failing with 1 %.
    let (policy, mut model) = mirrored(1, 1, 98.8, 0.01);
    let _ = &mut model;
    let tally = tally(&policy, &model, "bad", 40_000);
    let found = share(tally.promoted, tally.rollouts).unwrap();
    // At most 1.2 % of 250 may fail: 3. Two checks are made: at n/n and before copying.
    let one = binomial_cdf(250, 0.01, 3);
    println!("found {found:?} expected about {}", one * one);
    println!("{:?}", tally.first_failures);
}

#[test]
fn worse_versions_are_not_caught_less_often() {
    let policy = policy(article());
    let mut before = 0;
    for rate in [0.0, 0.005, 0.01, 0.02, 0.05, 0.2] {
        let mut model = ServiceModel::default();
        model.versions.get_mut("bad").unwrap().error_rate = Some(Rate::Fixed(rate));
        let tally = tally(&policy, &model, "bad", 3_000);
        assert!(tally.rolled_back() + 15 >= before, "{rate}");
        before = tally.rolled_back();
    }
    assert!(before > 2_900);
}

#[test]
fn stricter_thresholds_are_not_slower() {
    let mut before = 0.0;
    for threshold in [1, 2, 3, 5, 8] {
        let mut canary = article();
        canary.spec.analysis.as_mut().unwrap().threshold = threshold;
        let policy = policy(canary);
        let mut model = ServiceModel::default();
        model.versions.get_mut("bad").unwrap().error_rate = Some(Rate::Fixed(0.2));
        model.startup = Span::from_millis(5_000);
        let setting = Setting::new(&policy, &model, "bad").unwrap();
        let (mut automaton, mut memory) = (Automaton::new(&policy), Memory::default());
        let mut times = Vec::new();
        for index in 0..500 {
            let draws = Draws::new(Seed::new(3), "default", index);
            let outcome = walk(&setting, &mut automaton, &mut memory, draws, index);
            if matches!(outcome.end, End::RolledBack(_)) {
                times.push(outcome.time as f64);
            }
        }
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        assert!(mean >= before, "{threshold}: {mean} after {before}");
        before = mean;
    }
}
