//! What holds for every policy, whatever the checks say, whatever fails, and wherever the controller is killed.

use canary::{Dialect, QueryError, Rollout, Routes};
use crd::Phase;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{World, metrics, ready_rollout, stuck_rollout};

/// A policy, as a Canary spells it.
#[derive(Clone, Debug)]
struct Policy {
    analysis: Value,
    dialect: Dialect,
    provider: &'static str,
    threshold: i32,
    skip: bool,
}

impl Policy {
    fn world(&self) -> World {
        let mut world = World::new(self.analysis.clone(), self.dialect);
        world.provider = self.provider;
        world.spec.skip_analysis = self.skip;
        world
    }

    fn is_weighted(&self) -> bool {
        self.provider == "istio" && self.analysis.get("iterations").is_none()
    }

    /// The share of the traffic that a new version is given before its first check, in percent.
    fn first_weight(&self) -> i32 {
        let field = |name: &str| self.analysis[name].as_i64().unwrap_or_default() as i32;
        if self.provider == "kubernetes" || self.analysis["mirror"] == true {
            0
        } else if self.analysis.get("match").is_some() {
            100
        } else if self.analysis.get("iterations").is_some() {
            // Blue/green: none before the last check.
            0
        } else if self.analysis.get("stepWeights").is_some() {
            self.analysis["stepWeights"][0].as_i64().unwrap_or_default() as i32
        } else {
            field("stepWeight").min(100)
        }
    }
}

fn strategies() -> impl Strategy<Value = (Value, &'static str)> {
    prop_oneof![
        (1i32..60, 1i32..=100, any::<bool>(), 0i32..40).prop_map(|(step, max, mirror, back)| (
            json!({"stepWeight": step, "maxWeight": max, "mirror": mirror, "stepWeightPromotion": back}),
            "istio"
        )),
        proptest::collection::btree_set(1i32..=100, 1..5)
            .prop_map(|steps| (json!({"stepWeights": steps.into_iter().collect::<Vec<_>>()}), "istio")),
        (1i32..5).prop_map(|iterations| (
            json!({"iterations": iterations, "match": [{"headers": {"x-user": {"exact": "a"}}}]}),
            "istio"
        )),
        (1i32..5, any::<bool>())
            .prop_map(|(iterations, mirror)| (json!({"iterations": iterations, "mirror": mirror}), "istio")),
        (0i32..4).prop_map(|iterations| {
            let analysis = if iterations == 0 {
                json!({"stepWeight": 10})
            } else {
                json!({"iterations": iterations, "match": [{"headers": {"x-user": {"exact": "a"}}}]})
            };
            (analysis, "kubernetes")
        }),
    ]
}

const HOOKS: [&str; 7] = [
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "rollback",
    "post-rollout",
];

/// Policies that survive faults: a promotion in steps may stick half-way upstream (see the last test).
fn robust_policies() -> impl Strategy<Value = Policy> {
    policies(true).prop_map(|mut policy| {
        policy.analysis["stepWeightPromotion"] = 0.into();
        policy
    })
}

/// Policies of all strategies, in both dialects.
fn policies(hooks: bool) -> impl Strategy<Value = Policy> {
    let hooks = if hooks { any::<u8>().boxed() } else { Just(0).boxed() };
    (strategies(), any::<bool>(), 1i32..5, hooks, proptest::bool::weighted(0.1)).prop_map(
        |((mut analysis, provider), newest, threshold, hooks, skip)| {
            // The older dialect knows no lists of steps.
            let steps = analysis.get("stepWeights").is_some();
            let dialect = if newest || steps { Dialect::Latest } else { Dialect::Rc1 };
            analysis["threshold"] = threshold.into();
            analysis["metrics"] = metrics();
            let chosen = HOOKS.iter().enumerate().filter(|(bit, _)| hooks & (1 << bit) != 0);
            let hook = |kind: &str| json!({"name": kind, "url": "http://gate/", "type": kind});
            analysis["webhooks"] = chosen.map(|(_, kind)| hook(kind)).collect();
            Policy { analysis, dialect, provider, threshold, skip }
        },
    )
}

fn is_over(world: &World) -> bool {
    matches!(world.status.phase, Phase::Succeeded | Phase::Failed)
}

/// Ticks until the run is over; gives the number of ticks.
fn finish(world: &mut World, limit: u32) -> Result<u32, TestCaseError> {
    for tick in 1..=limit {
        world.tick();
        if is_over(world) {
            return Ok(tick);
        }
    }
    Err(TestCaseError::fail(format!("not over after {limit} ticks: {:?}\n{:#?}", world.status, world.log)))
}

/// Initialized, with a new revision that passes `good` queries and fails from then on.
fn released(policy: &Policy, good: u32) -> World {
    let mut world = policy.world();
    world.tick();
    world.tick();
    assert_eq!(world.status.phase, Phase::Initialized);
    world.hash = "two".into();
    world.log.clear();
    world.values = Box::new(move |check, asked| {
        let passes = if check == canary::Check::SuccessRate { 100.0 } else { 0.0 };
        if asked <= good { Ok(passes) } else { Err(QueryError::NoValues) }
    });
    // A rollback hook that agrees would end the run.
    world.hooks =
        Box::new(|hook| if hook.kind == crd::HookType::Rollback { Err("no".into()) } else { Ok(()) });
    world
}

const FOREVER: u32 = u32::MAX;

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn weights_are_whole_and_who_is_done_gets_nothing(
        policy in policies(true),
        weather in proptest::collection::vec(any::<[u8; 4]>(), 60),
        faults in proptest::collection::hash_set(0u32..1200, 0..40),
    ) {
        let mut world = policy.world();
        world.fails = Box::new(move |call| faults.contains(&call));
        for (index, [value, gate, ready, event]) in weather.into_iter().enumerate() {
            world.values = Box::new(move |_, _| match value {
                0..40 => Err(QueryError::NoValues),
                40..60 => Err(QueryError::Failed("error response: x".into())),
                60..90 => Ok(f64::NAN),
                _ => Ok(100.0),
            });
            world.hooks = Box::new(move |hook| match hook.kind {
                crd::HookType::Rollback if gate < 240 => Err("no".into()),
                _ if gate % 4 == 0 => Err("shut".into()),
                _ => Ok(()),
            });
            world.canary.clear();
            if ready < 25 {
                world.canary.push_back(stuck_rollout("podinfo"));
            }
            if event < 20 {
                world.hash = format!("revision {index}");
            } else if event < 24 {
                world.hash = "one".into();
            }
            world.tick();
            let Routes { primary, canary, mirrored } = world.routes;
            prop_assert!((0..=100).contains(&primary) && (0..=100).contains(&canary));
            prop_assert_eq!(primary + canary, 100);
            prop_assert!(world.status.failed_checks <= policy.threshold);
            if matches!(world.status.phase, Phase::Succeeded | Phase::Failed | Phase::Initialized) {
                prop_assert!(canary == 0 && !mirrored, "{:?} {:?}", world.status, world.routes);
            }
        }
    }

    #[test]
    fn a_bad_version_is_rolled_back_in_time_and_meets_few_requests(
        policy in policies(false).prop_filter("must be judged", |policy| !policy.skip),
        good in 0u32..12,
    ) {
        let mut world = released(&policy, good);
        // A version whose checks all pass in time is promoted: only what is judged bad counts.
        let mut first_failure = None;
        let (mut exposure, mut most) = (0, 0);
        for tick in 1..200 {
            world.tick();
            exposure += world.routes.canary;
            most = most.max(world.routes.canary);
            if first_failure.is_none() && world.status.failed_checks > 0 {
                first_failure = Some(tick);
            }
            if is_over(&world) {
                break;
            }
        }
        prop_assert!(is_over(&world), "{:?}", world.status);
        if world.status.phase == Phase::Succeeded {
            return Ok(());
        }
        let first_failure = first_failure.unwrap();
        // As many failing checks as the threshold allows, then the tick that rolls back.
        let ticks = world.now.duration_since("2020-03-17T11:01:00Z".parse().unwrap()).as_secs() / 30;
        prop_assert_eq!(ticks, i64::from(first_failure + policy.threshold));
        prop_assert_eq!(&world.primary_hash, "one");
        if good == 0 {
            // The weight of the first step, from the tick that sets it to the one that rolls back.
            prop_assert_eq!(exposure, policy.first_weight() * (policy.threshold + 1));
        }
        if policy.is_weighted() && policy.analysis.get("stepWeight").is_some() {
            let field = |name: &str| policy.analysis[name].as_i64().unwrap() as i32;
            prop_assert!(most < field("maxWeight") + field("stepWeight"));
        }
    }

    #[test]
    fn nothing_is_said_twice(policy in policies(true), good in prop_oneof![Just(FOREVER), 0u32..12]) {
        let mut world = released(&policy, good);
        finish(&mut world, 200)?;
        let mut said = std::collections::BTreeMap::<&str, u32>::new();
        for message in &world.log {
            *said.entry(message).or_default() += 1;
        }
        for (message, count) in said {
            // These are told on every tick that they are true of; a blue/green run asks its gate at both of its
            // last transitions.
            let repeats = message.starts_with("Halt ")
                || message.starts_with("Rollback hook")
                || message.starts_with("Confirm-traffic-increase")
                || message.starts_with("Confirm-promotion")
                || message.contains("kubernetes provider")
                || message.starts_with("Setting canaryAnalysis.iterations")
                || (policy.dialect == Dialect::Rc1 && message.starts_with("Confirm-rollout"));
            prop_assert!(repeats || count == 1, "{count} times: {message}\n{:#?}", world.log);
        }
        world.log.clear();
        (0..5).for_each(|_| world.tick());
        prop_assert_eq!(&world.log, &Vec::<String>::new());
    }

    #[test]
    fn a_controller_killed_anywhere_ends_up_in_the_same_place(
        policy in robust_policies(),
        good in prop_oneof![3 => Just(FOREVER), 2 => 0u32..6],
        share in 0.0f64..1.0,
    ) {
        let mut calm = released(&policy, good);
        let before = calm.calls;
        finish(&mut calm, 200)?;
        let end = |world: &World| {
            (world.status.phase, world.routes, world.replicas, world.primary_hash.clone(),
             world.status.last_applied_spec.clone(), world.paused)
        };
        let call = before + 1 + (f64::from(calm.calls - before) * share) as u32;
        let mut world = released(&policy, good);
        world.dies_at = Some(call);
        // Checks that a killed tick asked for count: let the version fail at the same check as before.
        finish(&mut world, 220)?;
        // With a version that turns bad half-way, the lost check may have been one of its last good ones.
        if good != FOREVER && good != 0 && world.status.phase != calm.status.phase {
            return Ok(());
        }
        prop_assert_eq!(end(&world), end(&calm), "killed at call {}", call - before);
    }

    #[test]
    fn after_the_faults_a_run_ends_as_it_would_have(
        policy in robust_policies(),
        is_good in any::<bool>(),
        faults in proptest::collection::hash_set(30u32..400, 0..30),
    ) {
        let good = if is_good { FOREVER } else { 0 };
        let mut world = released(&policy, good);
        world.hooks = Box::new(|hook| if hook.kind == crd::HookType::Rollback { Err("no".into()) } else { Ok(()) });
        // Failing webhooks and queries are checks that fail, and in the older dialect a skip that fails is followed
        // by checks: give room for all of them.
        if is_good || policy.skip {
            world.spec.analysis.as_mut().unwrap().threshold = 1000;
        }
        world.fails = Box::new(move |call| faults.contains(&call));
        finish(&mut world, 400)?;
        let skipped_or_good = is_good || policy.skip;
        let expected = if skipped_or_good { Phase::Succeeded } else { Phase::Failed };
        // A blue/green run of a bad version has no check before its first iterations; all have one at last.
        prop_assert_eq!(world.status.phase, expected);
        prop_assert_eq!((world.routes, world.replicas), (Routes::PRIMARY, 0));
        prop_assert_eq!(&world.primary_hash, if skipped_or_good { "two" } else { "one" });
    }
}

/// Three places where upstream's own order makes a kill matter, kept here so that a change of them is noticed.
#[test]
fn upstream_loses_its_way_when_killed_in_three_places() {
    let killed = |analysis: &Value, prepare: fn(&mut World), ticks: usize| {
        let start = |dies_at| {
            let mut world = World::new(analysis.clone(), Dialect::Latest);
            world.run(2);
            world.hash = "two".into();
            prepare(&mut world);
            world.dies_at = dies_at;
            world.run(ticks);
            world
        };
        let calls = start(None).calls;
        (0..calls).map(|call| start(Some(call)).status.phase).collect::<Vec<_>>()
    };

    // A late canary that was scaled to zero looks ready again: without checks it is promoted.
    let late = json!({"threshold": 2, "stepWeight": 50});
    let phases = killed(
        &late,
        |world| {
            world.run(1);
            world.canary.push_back(stuck_rollout("podinfo"));
        },
        12,
    );
    assert!(phases.contains(&Phase::Failed) && phases.contains(&Phase::Succeeded), "{phases:?}");

    // A promotion in steps whose last step was routed but not written waits for ever.
    let stepwise = json!({"threshold": 2, "stepWeight": 50, "maxWeight": 50, "stepWeightPromotion": 50});
    let phases = killed(&stepwise, |_| (), 30);
    assert!(phases.contains(&Phase::Succeeded) && phases.contains(&Phase::Promoting), "{phases:?}");

    // After a failure a revision is noted before anything is done about it: killed or halted in between, it is
    // lost.
    let mut world =
        World::new(json!({"threshold": 1, "stepWeight": 50, "metrics": metrics()}), Dialect::Latest);
    world.run(2);
    world.hash = "two".into();
    world.values = Box::new(|_, _| Err(QueryError::NoValues));
    world.run(4);
    assert_eq!(world.status.phase, Phase::Failed);
    world.hash = "three".into();
    world.primary.push_back(Rollout { available: 0, ..ready_rollout("podinfo-primary") });
    world.run(1);
    assert_eq!(world.run(3), "");
    assert_eq!((world.status.phase, world.status.last_applied_spec.as_str()), (Phase::Failed, "three"));
}
