//! Whole runs of the core over a port that answers at once.

use canary::{Check, Dialect, QueryError, Routes};
use crd::Phase;
use serde_json::{Value, json};

use crate::world::{World, metrics, ready_rollout, stuck_rollout};

#[test]
fn the_articles_promotion() {
    let analysis = json!({"threshold": 10, "maxWeight": 50, "stepWeight": 5, "metrics": metrics()});
    let mut world = World::new(analysis, Dialect::Rc1);
    assert_eq!(world.run(2), "Initialization done! podinfo.test");
    world.hash = "two".into();
    let mut rolling = ready_rollout("podinfo-primary");
    (rolling.wanted, rolling.replicas, rolling.updated, rolling.available) = (Some(4), 4, 4, 3);
    let advance: String =
        (1..=10).map(|step| format!("Advance podinfo.test canary weight {}\n", step * 5)).collect();
    let before = world.run(12);
    assert_eq!(
        before,
        format!(
            "New revision detected! Scaling up podinfo.test\nStarting canary analysis for podinfo.test\n{advance}\
             Copying podinfo.test template spec to podinfo-primary.test"
        )
    );
    world.primary.push_back(rolling);
    assert_eq!(
        world.run(3),
        "Halt advancement podinfo-primary.test waiting for rollout to finish: 3 of 4 updated replicas are available\n\
         Routing all traffic to primary\nPromotion completed! Scaling down podinfo.test"
    );
    assert_eq!((world.status.phase, world.routes, world.replicas), (Phase::Succeeded, Routes::PRIMARY, 0));
    assert_eq!(world.status.last_promoted_spec, "two");
    assert_eq!(world.status.conditions[0].status, "True");
    assert_eq!(world.run(3), "", "a finished run says nothing");
}

#[test]
fn the_articles_rollback() {
    let analysis = json!({"threshold": 5, "maxWeight": 50, "stepWeight": 10, "metrics": metrics()});
    let mut world = World::new(analysis, Dialect::Rc1);
    world.run(2);
    world.hash = "two".into();
    world.values = Box::new(|check, asked| match check {
        Check::SuccessRate if asked > 1 => Ok(100.0),
        _ => Err(QueryError::NoValues),
    });
    let no_values = |metric: &str| {
        format!(
            "Halt advancement no values found for istio metric {metric} probably podinfo.test is not receiving traffic\n"
        )
    };
    assert_eq!(
        world.run(8),
        format!(
            "New revision detected! Scaling up podinfo.test\nStarting canary analysis for podinfo.test\n\
             Advance podinfo.test canary weight 10\n{}{}\
             Rolling back podinfo.test failed checks threshold reached 5\nCanary failed! Scaling down podinfo.test",
            no_values("request-success-rate"),
            no_values("request-duration").repeat(4),
        )
    );
    assert_eq!(world.status.phase, Phase::Failed);
    assert_eq!(world.status.last_applied_spec, "two", "the failed revision is not tried again");
    assert_eq!(world.run(3), "");
    world.hash = "three".into();
    assert_eq!(world.run(1), "New revision detected! Scaling up podinfo.test");
}

#[test]
fn verdicts_are_worded_per_metric_and_bound() {
    let check = |dialect, metrics: Value, value: f64, expected: &str| {
        let mut world = World::new(json!({"threshold": 5, "stepWeight": 10, "metrics": metrics}), dialect);
        world.run(1);
        world.hash = "two".into();
        world.run(2);
        world.values = Box::new(move |_, _| Ok(value));
        let said = world.run(1);
        assert_eq!(said, expected);
    };
    let advance = "Advance podinfo.test canary weight 20";
    let rate = json!([{"name": "request-success-rate", "threshold": 99}]);
    check(Dialect::Rc1, rate.clone(), 96.2, "Halt podinfo.test advancement success rate 96.20% < 99%");
    check(Dialect::Rc1, rate, 99.0, advance);
    let duration = json!([{"name": "request-duration", "threshold": 500}]);
    check(
        Dialect::Rc1,
        duration.clone(),
        0.6124,
        "Halt podinfo.test advancement request duration 612ms > 500ms",
    );
    check(
        Dialect::Latest,
        duration.clone(),
        612.4,
        "Halt podinfo.test advancement request duration 612ms > 500ms",
    );
    check(Dialect::Rc1, duration, 0.5, advance);
    let range = json!([{"name": "request-success-rate", "thresholdRange": {"min": 10, "max": 50}}]);
    check(Dialect::Latest, range, 60.0, "Halt podinfo.test advancement success rate 60.00% > 50%");
}

#[test]
fn a_new_revision_restarts_a_run_and_counts_from_zero() {
    let mut world = World::new(json!({"threshold": 2, "stepWeight": 20, "metrics": metrics()}), Dialect::Rc1);
    world.run(1);
    world.hash = "two".into();
    world.run(3);
    world.values = Box::new(|_, _| Err(QueryError::NoValues));
    world.run(1);
    assert_eq!((world.status.failed_checks, world.routes.canary), (1, 40));
    world.hash = "three".into();
    assert_eq!(world.run(1), "New revision detected! Restarting analysis for podinfo.test");
    assert_eq!(
        (world.status.failed_checks, world.routes, world.status.canary_weight),
        (0, Routes::PRIMARY, 0)
    );
    assert!(world.run(1).starts_with("Starting canary analysis"));
}

#[test]
fn a_canary_that_never_becomes_ready_is_given_up() {
    for (dialect, expected) in [
        (
            Dialect::Rc1,
            "Rolling back podinfo.test progress deadline exceeded deployment does not have minimum availability for more than 60s\n\
             Canary failed! Scaling down podinfo.test",
        ),
        (
            Dialect::Latest,
            "canary deployment podinfo.test not ready: waiting for rollout to finish: 0 of 2 (readyThreshold 100%) updated replicas are available\n\
             Canary failed! Scaling down podinfo.test",
        ),
    ] {
        let mut world = World::new(json!({"threshold": 5, "stepWeight": 10}), dialect);
        world.run(1);
        world.hash = "two".into();
        world.run(1);
        world.canary.push_back(stuck_rollout("podinfo"));
        assert_eq!(world.run(1), expected);
        assert_eq!(world.status.phase, Phase::Failed);
    }
}

#[test]
fn gates_hold_and_hooks_fail_checks() {
    let hook = |kind: &str| json!({"name": kind, "url": "http://gate/", "type": kind});
    let mut world = World::new(
        json!({"threshold": 5, "stepWeight": 50, "maxWeight": 50, "webhooks": [hook("confirm-promotion"), hook("rollout")]}),
        Dialect::Latest,
    );
    world.run(1);
    world.hash = "two".into();
    world.run(2);
    world.hooks = Box::new(|hook| if hook.name == "rollout" { Err("exit 1".into()) } else { Ok(()) });
    assert_eq!(world.run(1), "Halt podinfo.test advancement external check rollout failed exit 1");
    world.hooks = Box::new(|hook| if hook.name == "rollout" { Ok(()) } else { Err("no".into()) });
    assert_eq!(
        world.run(2),
        "Halt podinfo.test advancement waiting for promotion approval confirm-promotion"
    );
    assert_eq!(world.status.phase, Phase::WaitingPromotion);
    world.hooks = Box::new(|_| Ok(()));
    let said = world.run(3);
    assert!(
        said.starts_with("Confirm-promotion check confirm-promotion passed\nCopying podinfo.test"),
        "{said}"
    );
    assert_eq!(world.status.phase, Phase::Succeeded);
    assert!(
        world.alerts.contains(&"Warn: Canary promotion is waiting for approval.".to_owned()),
        "{:?}",
        world.alerts
    );
}

#[test]
fn runs_without_weights_iterate_then_switch() {
    let mut world = World::new(json!({"threshold": 5, "iterations": 2}), Dialect::Rc1);
    world.run(1);
    world.hash = "two".into();
    assert_eq!(
        world.run(7),
        "New revision detected! Scaling up podinfo.test\nStarting canary analysis for podinfo.test\n\
         Advance podinfo.test canary iteration 1/2\nAdvance podinfo.test canary iteration 2/2\n\
         Routing all traffic to canary\nCopying podinfo.test template spec to podinfo-primary.test\n\
         Routing all traffic to primary\nPromotion completed! Scaling down podinfo.test"
    );
    let mut world = World::new(
        json!({"threshold": 5, "iterations": 2, "match": [{"headers": {"x-canary": {"exact": "insider"}}}]}),
        Dialect::Latest,
    );
    world.run(1);
    world.hash = "two".into();
    world.run(2);
    assert_eq!(world.routes, Routes::CANARY, "matched requests all go to the canary");
}

#[test]
fn without_an_analysis_a_revision_is_promoted_at_once() {
    let mut world = World::new(json!({"stepWeight": 5}), Dialect::Rc1);
    world.spec.skip_analysis = true;
    world.run(1);
    world.hash = "two".into();
    assert_eq!(
        world.run(2),
        "New revision detected! Scaling up podinfo.test\nCopying podinfo.test template spec to podinfo-primary.test\n\
         Promotion completed! Canary analysis was skipped for podinfo.test"
    );
}

/// Initialized, with a new revision; then what `ticks` ticks say.
fn release(world: &mut World, ticks: usize) -> Vec<String> {
    world.run(2);
    assert_eq!(world.status.phase, Phase::Initialized);
    world.hash = "two".into();
    world.run(ticks).lines().map(str::to_owned).collect()
}

const NEW: &str = "New revision detected! Scaling up podinfo.test";
const START: &str = "Starting canary analysis for podinfo.test";
const COPY: &str = "Copying podinfo.test template spec to podinfo-primary.test";
const BACK: &str = "Routing all traffic to primary";
const DONE: &str = "Promotion completed! Scaling down podinfo.test";

#[test]
fn mirrored_runs_mirror_for_one_check_before_they_shift() {
    let analysis =
        json!({"threshold": 2, "stepWeight": 30, "maxWeight": 50, "mirror": true, "metrics": metrics()});
    let mut world = World::new(analysis.clone(), Dialect::Latest);
    let said = release(&mut world, 2);
    assert_eq!(said, [NEW, START, "Advance podinfo.test canary weight 0"]);
    assert_eq!(world.routes, Routes { mirrored: true, ..Routes::PRIMARY });
    let said = world.run(6);
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["Advance podinfo.test canary weight 30", "Advance podinfo.test canary weight 60", COPY, BACK, DONE]
    );
    assert_eq!(
        world.notes,
        [
            "Scaling down Deployment podinfo.test",
            "Running mirror step 100/0/true",
            "Running mirror step 70/30/false"
        ]
    );

    let mut world = World::new(analysis, Dialect::Rc1);
    world.values = Box::new(|_, _| Err(QueryError::NoValues));
    release(&mut world, 5);
    assert_eq!((world.status.phase, world.routes), (Phase::Failed, Routes::PRIMARY));
}

#[test]
fn blue_green_runs_end_with_all_traffic_on_the_canary() {
    let mut world = World::new(json!({"threshold": 2, "iterations": 2, "mirror": true}), Dialect::Latest);
    let said = release(&mut world, 3);
    let iterations = [1, 2].map(|done| format!("Advance podinfo.test canary iteration {done}/2"));
    assert_eq!(said, [NEW, START, &iterations[0], &iterations[1]]);
    assert_eq!(world.routes, Routes { mirrored: true, ..Routes::PRIMARY });
    assert_eq!(world.run(1), "Stop traffic mirroring and route all traffic to canary");
    assert_eq!((world.routes, world.status.iterations), (Routes::CANARY, 3));
    assert_eq!(world.run(4).lines().collect::<Vec<_>>(), [COPY, BACK, DONE]);
}

#[test]
fn the_kubernetes_provider_switches_services_only() {
    for dialect in [Dialect::Rc1, Dialect::Latest] {
        let analysis =
            json!({"threshold": 2, "stepWeight": 10, "match": [{"headers": {"a": {"exact": "b"}}}]});
        let mut world = World::new(analysis, dialect);
        world.provider = "kubernetes";
        let said = release(&mut world, 2);
        assert_eq!(
            said,
            [
                NEW,
                START,
                "A/B testing is not supported when using the kubernetes provider",
                "Progressive traffic is not supported when using the kubernetes provider",
                "Setting canaryAnalysis.iterations: 10",
                "Advance podinfo.test canary iteration 1/10",
            ]
        );
        let said = world.run(14);
        let steps: Vec<_> =
            said.lines().filter(|line| !line.contains("kubernetes") && !line.contains("Setting")).collect();
        assert_eq!(steps[8..], ["Advance podinfo.test canary iteration 10/10", COPY, DONE]);
        assert_eq!(world.status.phase, Phase::Succeeded);
    }
}

#[test]
fn the_newer_release_walks_listed_steps_there_and_one_step_back() {
    let analysis = json!({"threshold": 2, "stepWeights": [5, 40], "stepWeightPromotion": 30});
    let mut world = World::new(analysis, Dialect::Latest);
    let said = release(&mut world, 8);
    assert_eq!(
        said,
        [
            NEW,
            START,
            "Advance podinfo.test canary weight 5",
            "Advance podinfo.test canary weight 40",
            COPY,
            "Advance podinfo.test primary weight 90",
            "Advance podinfo.test primary weight 100",
            DONE,
        ]
    );
}

#[test]
fn a_shut_promotion_gate_keeps_the_weight_and_judges_on() {
    let hook = json!([{"name": "gate", "url": "http://gate/", "type": "confirm-promotion"}]);
    let shut = |analysis: Value, provider, dialect| {
        let mut world = World::new(analysis, dialect);
        world.provider = provider;
        world.spec.analysis.as_mut().unwrap().webhooks = serde_json::from_value(hook.clone()).unwrap();
        world.hooks = Box::new(|_| Err("closed".into()));
        release(&mut world, 5);
        world
    };
    let wait = "Halt podinfo.test advancement waiting for promotion approval gate";
    let mut world =
        shut(json!({"threshold": 2, "stepWeight": 50, "maxWeight": 50}), "istio", Dialect::Latest);
    let status = &world.status;
    assert_eq!((status.phase, status.canary_weight, status.iterations), (Phase::WaitingPromotion, 0, -1));
    assert_eq!(world.routes, Routes { primary: 50, canary: 50, mirrored: false });
    assert_eq!(world.run(3), "", "told once");
    let mut world = shut(json!({"threshold": 2, "iterations": 2}), "istio", Dialect::Latest);
    assert_eq!((world.status.phase, world.status.iterations), (Phase::WaitingPromotion, 2));
    assert_eq!(
        world.run(2),
        "Advance podinfo.test canary iteration 2/2",
        "one iteration, then the gate again"
    );
    // Ten iterations by default: the gate goes back to the ninth.
    let mut world = shut(json!({"threshold": 2, "stepWeight": 10}), "kubernetes", Dialect::Latest);
    world.run(7);
    assert_eq!((world.status.phase, world.status.iterations), (Phase::WaitingPromotion, 9));

    let mut world = shut(json!({"threshold": 2, "stepWeight": 50, "maxWeight": 50}), "istio", Dialect::Rc1);
    assert_eq!(world.status.phase, Phase::Progressing);
    assert_eq!(world.run(2), [wait; 2].join("\n"), "the older release tells it in each tick");
}

#[test]
fn gates_before_a_run_and_before_each_step() {
    let hooks = json!([{"name": "go", "url": "http://gate/", "type": "confirm-rollout"},
                       {"name": "more", "url": "http://gate/", "type": "confirm-traffic-increase"}]);
    let analysis = json!({"threshold": 2, "stepWeight": 50, "maxWeight": 50, "webhooks": hooks});
    let mut world = World::new(analysis.clone(), Dialect::Latest);
    world.hooks = Box::new(|_| Err("closed".into()));
    assert_eq!(release(&mut world, 3), ["Halt podinfo.test advancement waiting for approval go"]);
    assert_eq!((world.status.phase, world.replicas), (Phase::Waiting, 0));
    world.hooks = Box::new(|hook| if hook.name == "go" { Ok(()) } else { Err("closed".into()) });
    assert_eq!(
        world.run(3).lines().collect::<Vec<_>>(),
        [
            "Confirm-rollout check go passed",
            NEW,
            START,
            "Halt podinfo.test advancement waiting for traffic increase approval more",
            START,
            "Halt podinfo.test advancement waiting for traffic increase approval more",
        ]
    );
    world.hooks = Box::new(|_| Ok(()));
    let passed = "Confirm-traffic-increase check more passed";
    assert_eq!(
        world.run(3).lines().collect::<Vec<_>>(),
        [START, passed, "Advance podinfo.test canary weight 50", passed, COPY, BACK]
    );

    // The older release asks on every tick, the first of all among them, and does not scale up on opening.
    let mut world = World::new(analysis, Dialect::Rc1);
    world.hooks = Box::new(|_| Err("closed".into()));
    world.run(2);
    assert_eq!(world.status.phase, Phase::Waiting);
}

#[test]
fn a_rollback_tells_why_and_what_it_is_told_with() {
    let hooks = json!([{"name": "undo", "url": "http://gate/", "type": "rollback"},
                       {"name": "after", "url": "http://gate/", "type": "post-rollout"}]);
    let mut world = World::new(json!({"threshold": 2, "stepWeight": 50, "webhooks": hooks}), Dialect::Latest);
    world.hooks = Box::new(|hook| if hook.name == "undo" { Err("no".into()) } else { Ok(()) });
    release(&mut world, 2);
    world.hooks = Box::new(|_| Ok(()));
    world.told.clear();
    assert_eq!(
        world.run(1).lines().collect::<Vec<_>>(),
        [
            "Rollback check undo passed",
            "Rolling back podinfo.test manual webhook invoked",
            "Canary failed! Scaling down podinfo.test",
            "Post-rollout check after passed",
        ]
    );
    assert_eq!(world.told, [Phase::Progressing, Phase::Progressing, Phase::Failed, Phase::Progressing]);
    assert_eq!(world.alerts.last().unwrap(), "Warn: Rolling back manual webhook invoked");
}

#[test]
fn a_primary_that_dies_in_promotion_leaves_the_canary_serving() {
    let mut world = World::new(json!({"threshold": 2, "stepWeight": 50, "maxWeight": 50}), Dialect::Latest);
    release(&mut world, 3);
    assert_eq!(world.status.phase, Phase::Promoting);
    world.primary.push_back(stuck_rollout("podinfo-primary"));
    let reason = "podinfo-primary.test not ready: waiting for rollout to finish: 0 of 2 (readyThreshold 100%) updated replicas are available";
    let failed = format!("Promotion of podinfo.test failed, primary not ready: {reason}");
    assert_eq!(world.run(1).lines().collect::<Vec<_>>(), [reason, &failed]);
    assert_eq!((world.status.phase, world.status.canary_weight), (Phase::Failed, 100));
    assert_eq!((world.routes, world.replicas), (Routes::CANARY, 1));
}

#[test]
fn builtin_names_and_queries_are_both_asked() {
    let metric = json!([{"name": "request-success-rate", "threshold": 99, "query": "podinfo_errors"}]);
    let mut world = World::new(json!({"threshold": 2, "stepWeight": 50, "metrics": metric}), Dialect::Rc1);
    world.values = Box::new(|check, _| Ok(if check == Check::Inline { 120.0 } else { 100.0 }));
    release(&mut world, 2);
    assert_eq!(world.run(1), "Halt podinfo.test advancement request-success-rate 120.00 > 99");
    let metric = json!([{"name": "errors"}]);
    let mut world = World::new(json!({"threshold": 2, "stepWeight": 50, "metrics": metric}), Dialect::Latest);
    release(&mut world, 2);
    assert_eq!(world.run(1), "Metric query failed for no usable metrics template and query were configured");
}

#[test]
fn a_suspended_canary_rests() {
    let mut world = World::new(json!({"threshold": 2, "stepWeight": 50}), Dialect::Latest);
    world.spec.suspend = true;
    assert_eq!(world.run(2), ["skipping canary run as object is suspended"; 2].join("\n"));
    assert_eq!(world.status.phase, Phase::Initializing);
}
