//! The fast path against what can be known without it.

use canary::Dialect;
use clock::Seed;
use crd::Canary;
use proptest::prelude::*;

use crate::automaton::Automaton;
use crate::counts::binomial_cdf;
use crate::draws::Draws;
use crate::model::{Arrivals, Rate, ServiceModel, Traffic, VersionModel};
use crate::policy::Policy;
use crate::rollout::{End, Outcome, walk, witness};
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

/// A blue/green run that mirrors: every check sees `REQUESTS` requests, of which a share of 1 % fails. The window is
/// shorter than the interval and the rate high, so that both series are old and no window is cut at a counter's zero.
fn mirrored(iterations: i32, threshold: i32, least: f64) -> (Policy, ServiceModel) {
    let mut canary = article();
    let analysis = canary.spec.analysis.as_mut().unwrap();
    analysis.webhooks.clear();
    analysis.metrics.truncate(1);
    (analysis.step_weight, analysis.max_weight) = (0, 0);
    (analysis.mirror, analysis.iterations, analysis.threshold) = (true, iterations, threshold);
    analysis.metrics[0].threshold = Some(least);
    analysis.metrics[0].interval = "20s".to_owned();
    let traffic = Traffic { rate: 1000.0, arrivals: Arrivals::Constant, ..Traffic::default() };
    let mut model = ServiceModel { traffic, ..ServiceModel::default() };
    model.versions.get_mut("bad").unwrap().error_rate = Some(Rate::Fixed(0.01));
    (policy(canary), model)
}

/// Requests between the first and the last of the four samples in 20 seconds.
const REQUESTS: u32 = 15_000;
/// At least 98.97 % must be answered: at most this many may fail.
const ALLOWED: u32 = 154;

#[test]
fn fixed_windows_follow_the_binomial_distribution() {
    // Two iterations: a check before the second, one at n/n, one before copying; threshold 1.
    let (policy, model) = mirrored(2, 1, 98.97);
    let tally = tally(&policy, &model, "bad", 40_000);
    let passes = binomial_cdf(REQUESTS, 0.01, ALLOWED);
    let expected = passes.powi(3);
    let found = share(tally.promoted, tally.rollouts).unwrap();
    assert!((0.3..0.9).contains(&passes), "{passes}");
    assert!(
        found.low <= expected && expected <= found.high,
        "{found:?}, expected {expected} of {passes} a check"
    );
}

#[test]
fn detection_follows_the_negative_binomial_distribution() {
    // A run so long that it never gets through: the rollback comes with the third failed check.
    let (policy, model) = mirrored(400, 3, 98.97);
    let setting = Setting::new(&policy, &model, "bad").unwrap();
    let (mut automaton, mut memory) = (Automaton::new(&policy), Memory::default());
    let fails = 1.0 - binomial_cdf(REQUESTS, 0.01, ALLOWED);
    let mut found = [0u64; 12];
    let rollouts = 10_000;
    for index in 0..rollouts {
        let draws = Draws::new(Seed::new(11), "default", index);
        let outcome = walk(&setting, &mut automaton, &mut memory, draws, index);
        assert_eq!(outcome.failed_checks, 3);
        // The rollback is on the tick after the third failed check.
        let (_, _, first) = outcome.first_failure.unwrap();
        let checks = (outcome.time - first) / policy.interval;
        found[(checks as usize).min(11)] += 1;
    }
    // From the first failed check to the third: two failures among `checks - 1` more checks, the last of them one.
    for checks in 3..=8 {
        let more = checks - 1;
        let expected = f64::from(more - 1) * fails.powi(2) * (1.0 - fails).powi(more - 2);
        let share = share(found[checks as usize], rollouts).unwrap();
        // Six intervals of 95 %: one of them may just miss.
        let slack = (share.high - share.low) * 0.3;
        let fits = share.low - slack <= expected && expected <= share.high + slack;
        assert!(fits, "{checks}: {share:?} {expected} {found:?}");
    }
}

#[test]
fn a_window_reads_what_promql_computes() {
    // The factor that a series is extrapolated by is that of the promql crate, for any place of the samples.
    for phase in [0, 1_300, 4_900] {
        for (first, grown) in [(0.0, 40.0), (3.0, 40.0), (500.0, 40.0)] {
            let times: Vec<i64> = (0..5).map(|sample| phase + 1 + sample * 5_000).collect();
            let values: Vec<f64> = (0..5).map(|sample| first + grown * f64::from(sample) / 4.0).collect();
            let (start, end) = (0, 25_000);
            let kind = promql::Extrapolation::Increase;
            let expected = promql::extrapolate(kind, &times, &values, start, end).unwrap();
            let (to_start, to_end) = (times[0] as f64, (end - times[4]) as f64);
            let found = grown * crate::reading::factor(5_000.0, 20_000.0, to_start, to_end, first, grown);
            assert!((found - expected).abs() < 1e-9, "{phase} {first}: {found} {expected}");
        }
    }
}

#[test]
fn deterministic_models_say_what_the_controller_says() {
    let policy = policy(article());
    let traffic = Traffic { rate: 20.0, arrivals: Arrivals::Constant, ..Traffic::default() };
    let mut model = ServiceModel { traffic, ..ServiceModel::default() };
    model.baseline.latency = crate::latency::Latency::Constant(Span::from_millis(612));
    model.baseline.error_rate = 0.0;
    let setting = Setting::new(&policy, &model, "good").unwrap();
    let draws = Draws::new(Seed::new(1), "default", 0);
    let (outcome, lines) = witness(&setting, &mut Memory::default(), draws, 0);
    assert_eq!(outcome.end, End::RolledBack(crate::tick::Reason::Threshold));
    let said: Vec<&str> = lines.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(said[0], "New revision detected! Scaling up podinfo.test");
    assert_eq!(said[1], "Starting canary analysis for podinfo.test");
    // All answers are in the bucket from 500 to 1000: the quantile is 99 % of the way through it.
    assert_eq!(said[3], "Halt podinfo.test advancement request duration 995ms > 500ms");
    assert_eq!(said.iter().filter(|message| message.starts_with("Halt")).count(), 10);
    assert_eq!(said[said.len() - 1], "Canary failed! Scaling down podinfo.test");
}

#[test]
fn a_version_that_fails_everything_has_no_values() {
    let mut canary = article();
    canary.spec.analysis.as_mut().unwrap().webhooks.clear();
    let policy = policy(canary);
    let mut model = ServiceModel::default();
    model.versions.get_mut("bad").unwrap().error_rate = Some(Rate::Fixed(1.0));
    let tally = tally(&policy, &model, "bad", 500);
    assert_eq!(tally.rolled_back_without_values, 500);
    assert_eq!(tally.first_failures.keys().collect::<Vec<_>>(), ["request-success-rate: no values"]);
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
fn shortcuts_change_nothing() {
    let policy = policy(article());
    let mut model = ServiceModel::default();
    let slow = VersionModel { slowdown: Some(2.4), ..VersionModel::default() };
    let edge = VersionModel { error_rate: Some(Rate::Fixed(0.011)), ..VersionModel::default() };
    model.versions.extend([("slow".to_owned(), slow), ("edge".to_owned(), edge)]);
    for arrivals in [Arrivals::Poisson, Arrivals::Constant] {
        model.traffic.arrivals = arrivals;
        for version in ["good", "bad", "slow", "edge"] {
            let quick = Setting::new(&policy, &model, version).unwrap();
            assert_eq!(quick.is_plain, arrivals == Arrivals::Poisson);
            assert!(quick.slack.iter().all(Option::is_some));
            // Every check is read to the end; and every stretch of time is looked at for what may change in it.
            let mut thorough = quick.clone();
            thorough.slack.fill(None);
            let mut general = thorough.clone();
            general.is_plain = false;
            let rollouts = 1000;
            let walks = |setting: &Setting<'_>| -> Vec<Outcome> {
                let (mut automaton, mut memory) = (Automaton::new(setting.policy), Memory::default());
                let draws = |index| Draws::new(Seed::new(8), "default", index);
                (0..rollouts)
                    .map(|index| walk(setting, &mut automaton, &mut memory, draws(index), index))
                    .collect()
            };
            let found = walks(&quick);
            assert_eq!(found, walks(&thorough), "{arrivals:?} {version}");
            for (index, (one, other)) in found.iter().zip(walks(&general)).enumerate() {
                assert_eq!((one.end, one.time), (other.end, other.time), "{arrivals:?} {version} {index}");
                assert_eq!(one.failed_checks, other.failed_checks, "{arrivals:?} {version} {index}");
            }
        }
    }
}

/// Rollouts per case of the properties below.
const CASE: u64 = 500;

/// Any policy of steps over the two builtin checks, its load test gone, and a service that it is for.
fn any_policy() -> impl Strategy<Value = (Canary, ServiceModel)> {
    let steps = (1..40i32, 40..=100i32, 1..8i32);
    let checks = (prop::sample::select(vec!["20s", "45s", "1m", "2m"]), 90.0..99.9, 100.0..900.0);
    let traffic = (2.0..400.0, any::<bool>());
    (steps, checks, traffic, 10..100u64).prop_map(|(steps, checks, (rate, constant), interval)| {
        let mut canary = article();
        let analysis = canary.spec.analysis.as_mut().unwrap();
        analysis.webhooks.clear();
        (analysis.step_weight, analysis.max_weight, analysis.threshold) = steps;
        analysis.interval = format!("{interval}s");
        for metric in &mut analysis.metrics {
            metric.interval = checks.0.to_owned();
        }
        analysis.metrics[0].threshold = Some(checks.1);
        analysis.metrics[1].threshold = Some(checks.2);
        let arrivals = if constant { Arrivals::Constant } else { Arrivals::Poisson };
        let traffic = Traffic { rate, arrivals, ..Traffic::default() };
        (canary, ServiceModel { traffic, ..ServiceModel::default() })
    })
}

/// Rollouts of the bad version, one after the other, under the same luck for all policies and versions.
fn outcomes(canary: &Canary, model: &ServiceModel) -> Vec<Outcome> {
    let policy = policy(canary.clone());
    let setting = Setting::new(&policy, model, "bad").unwrap();
    let (mut automaton, mut memory) = (Automaton::new(&policy), Memory::default());
    (0..CASE)
        .map(|index| {
            let draws = Draws::new(Seed::new(3), "default", index);
            walk(&setting, &mut automaton, &mut memory, draws, index)
        })
        .collect()
}

fn rolled_back(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| matches!(outcome.end, End::RolledBack(_))).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn worse_versions_are_not_caught_less_often(
        (canary, mut model) in any_policy(),
        better in 0.0..0.3,
        more in 0.01..0.5,
    ) {
        let mut caught = |rate: f64| {
            model.versions.get_mut("bad").unwrap().error_rate = Some(Rate::Fixed(rate));
            rolled_back(&outcomes(&canary, &model))
        };
        let (before, after) = (caught(better), caught(better + more));
        // The same luck does not make it exact: errors that come earlier are the first sample of their series earlier.
        prop_assert!(after + CASE as usize / 50 >= before, "{before}, then {after} of {CASE}");
    }

    #[test]
    fn slower_versions_are_not_caught_less_often(
        (canary, mut model) in any_policy(),
        better in 1.0..4.0,
        more in 0.1..4.0,
    ) {
        let mut caught = |slowdown: f64| {
            model.versions.get_mut("bad").unwrap().slowdown = Some(slowdown);
            rolled_back(&outcomes(&canary, &model))
        };
        let (before, after) = (caught(better), caught(better + more));
        prop_assert!(after + CASE as usize / 50 >= before, "{before}, then {after} of {CASE}");
    }

    /// Exact, rollout by rollout: until the stricter policy gives up, both have done the same.
    #[test]
    fn stricter_thresholds_are_never_later(
        (mut canary, mut model) in any_policy(),
        rate in 0.0..0.4,
        more in 1..6i32,
    ) {
        model.versions.get_mut("bad").unwrap().error_rate = Some(Rate::Fixed(rate));
        let strict = outcomes(&canary, &model);
        canary.spec.analysis.as_mut().unwrap().threshold += more;
        for (strict, lenient) in strict.iter().zip(outcomes(&canary, &model)) {
            if matches!(lenient.end, End::RolledBack(_)) {
                prop_assert!(matches!(strict.end, End::RolledBack(_)), "{strict:?}, {lenient:?}");
                prop_assert!(strict.time <= lenient.time, "{strict:?}, {lenient:?}");
            }
        }
    }
}
