//! Whole runs of the core over a port that answers at once.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use canary::{
    Alert, Check, Dialect, Kind, Measure, Message, Port, Query, QueryError, Rollout, Routes, Scale, Server,
    Settings, Severity, StatusChange, Subject, advance,
};
use crd::{CanarySpec, CanaryStatus, CanaryWebhook, MetricTemplate, Phase};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

type Values = Box<dyn FnMut(Check, u32) -> Result<f64, QueryError> + Send>;
type Hooks = Box<dyn FnMut(&CanaryWebhook) -> Result<(), String> + Send>;

/// A cluster, a mesh and a metrics server that always answer.
struct World {
    spec: CanarySpec,
    status: CanaryStatus,
    hash: String,
    routes: Routes,
    replicas: i32,
    primary: VecDeque<Rollout>,
    canary: VecDeque<Rollout>,
    values: Values,
    hooks: Hooks,
    asked: u32,
    dialect: Dialect,
    log: Vec<String>,
    alerts: Vec<String>,
    now: Timestamp,
}

fn ready_rollout(name: &str) -> Rollout {
    Rollout {
        name: name.into(),
        generation: 1,
        observed_generation: 1,
        wanted: Some(2),
        replicas: 2,
        updated: 2,
        available: 2,
        progressing: Some("NewReplicaSetAvailable".into()),
        unavailable_for: None,
    }
}

impl World {
    fn new(analysis: Value, dialect: Dialect) -> World {
        let spec = json!({"targetRef": {"kind": "Deployment", "name": "podinfo"}, "service": {"port": 9898},
            "progressDeadlineSeconds": 60, "analysis": analysis});
        let mut world = World {
            spec: serde_json::from_value(spec).unwrap(),
            status: CanaryStatus::default(),
            hash: "one".into(),
            routes: Routes::PRIMARY,
            replicas: 2,
            primary: VecDeque::new(),
            canary: VecDeque::new(),
            values: Box::new(|check, _| Ok(if check == Check::SuccessRate { 100.0 } else { 0.0 })),
            hooks: Box::new(|_| Ok(())),
            asked: 0,
            dialect,
            log: Vec::new(),
            alerts: Vec::new(),
            now: "2020-03-17T11:00:00Z".parse().unwrap(),
        };
        canary::initializing(&mut world.status, &world.spec, world.now);
        world
    }

    /// One tick; a single poll must finish it.
    fn tick(&mut self) {
        self.now += jiff::SignedDuration::from_secs(30);
        let (spec, status) = (self.spec.clone(), self.status.clone());
        let subject = Subject { name: "podinfo", namespace: "test", spec: &spec, status: &status };
        let settings = Settings { dialect: self.dialect, provider: "istio" };
        let tick = pin!(advance(subject, settings, self));
        let polled = tick.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(())), "a port that answers at once leaves nothing to wait for");
    }

    fn run(&mut self, ticks: usize) -> String {
        (0..ticks).for_each(|_| self.tick());
        std::mem::take(&mut self.log).join("\n")
    }
}

impl Port for World {
    async fn read_target(&mut self) -> Result<(), String> {
        Ok(())
    }
    async fn reconcile_services(&mut self) -> Result<(), String> {
        Ok(())
    }
    async fn create_primary(&mut self) -> Result<(), String> {
        Ok(())
    }
    async fn reconcile_scaler(&mut self, _: bool) -> Result<(), String> {
        Ok(())
    }
    async fn reconcile_apex(&mut self) -> Result<(), String> {
        Ok(())
    }
    async fn reconcile_routes(&mut self) -> Result<(), String> {
        Ok(())
    }
    async fn routes(&mut self) -> Result<Routes, String> {
        Ok(self.routes)
    }
    async fn set_routes(&mut self, routes: Routes) -> Result<(), String> {
        self.routes = routes;
        Ok(())
    }
    async fn primary_rollout(&mut self) -> Result<Rollout, String> {
        Ok(self.primary.pop_front().unwrap_or_else(|| ready_rollout("podinfo-primary")))
    }
    async fn canary_rollout(&mut self) -> Result<Rollout, String> {
        Ok(self.canary.pop_front().unwrap_or_else(|| ready_rollout("podinfo")))
    }
    async fn scale_target(&mut self, scale: Scale) -> Result<(), String> {
        self.replicas = if scale == Scale::Zero { 0 } else { self.replicas.max(1) };
        Ok(())
    }
    async fn target_hash(&mut self) -> Result<String, String> {
        Ok(self.hash.clone())
    }
    async fn target_configs(&mut self) -> Result<Option<BTreeMap<String, String>>, String> {
        Ok(None)
    }
    async fn promote(&mut self) -> Result<(), String> {
        Ok(())
    }
    async fn call_webhook(&mut self, hook: &CanaryWebhook, _: Phase) -> Result<(), String> {
        (self.hooks)(hook)
    }
    async fn metric_template(&mut self, _: &str, name: &str) -> Result<MetricTemplate, String> {
        Err(format!("metrictemplate.flagger.app {name:?} not found"))
    }
    async fn query(&mut self, query: &Query<'_>) -> Result<f64, QueryError> {
        let text = query.text().unwrap();
        assert!(text.contains("destination_workload=~\"podinfo\""), "{text}");
        self.asked += 1;
        (self.values)(query.check, self.asked)
    }
    async fn is_online(&mut self, _: Server<'_>) -> Result<(), QueryError> {
        Ok(())
    }
    async fn write_status(&mut self, change: StatusChange) -> Result<(), String> {
        change.apply(&mut self.status, &self.spec, self.now);
        Ok(())
    }
    async fn read_status(&mut self) -> Result<CanaryStatus, String> {
        Ok(self.status.clone())
    }
    async fn record(&mut self, message: &Message<'_>, _: Phase) {
        self.log.push(message.to_string());
    }
    async fn alert(&mut self, alert: &Alert<'_>, severity: Severity) {
        self.alerts.push(format!("{severity:?}: {}", alert.message));
    }
    fn log(&mut self, kind: Kind, _: &Message<'_>) {
        assert_eq!(kind, Kind::Log);
    }
    fn measure(&mut self, _: Measure<'_>) {}
}

fn metrics() -> Value {
    json!([{"name": "request-success-rate", "threshold": 99, "interval": "30s"},
           {"name": "request-duration", "threshold": 500, "interval": "30s"}])
}

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
    let stuck = || Rollout {
        available: 0,
        progressing: Some("ReplicaSetUpdated".into()),
        unavailable_for: Some(std::time::Duration::from_secs(90)),
        ..ready_rollout("podinfo")
    };
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
        world.canary.push_back(stuck());
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

proptest! {
    #[test]
    fn whatever_the_answers_weights_and_counts_stay_in_bounds(
        answers in proptest::collection::vec((0u8..4, 0u8..3), 40),
        step in 1i32..60,
        max in 1i32..=100,
        threshold in 1i32..6,
        newest in any::<bool>(),
    ) {
        let dialect = if newest { Dialect::Latest } else { Dialect::Rc1 };
        let mut world = World::new(json!({"threshold": threshold, "stepWeight": step, "maxWeight": max, "metrics": metrics()}), dialect);
        world.run(1);
        world.hash = "two".into();
        for (index, (value, event)) in answers.into_iter().enumerate() {
            world.values = Box::new(move |_, _| match value { 0 => Err(QueryError::NoValues), 1 => Ok(f64::NAN), _ => Ok(100.0) });
            if event == 2 && index % 7 == 0 {
                world.hash = format!("revision {index}");
            }
            let before = world.routes.canary;
            world.tick();
            prop_assert_eq!(world.routes.primary + world.routes.canary, 100);
            prop_assert!(world.routes.canary <= before + step && world.routes.canary <= max + step);
            prop_assert!(world.status.failed_checks <= threshold);
            if matches!(world.status.phase, Phase::Succeeded | Phase::Failed | Phase::Initialized) {
                prop_assert_eq!(world.routes.canary, 0);
            }
        }
    }
}
