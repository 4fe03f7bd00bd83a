//! A cluster, a mesh and a metrics server that answer at once, may fail, and may outlive the controller.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use canary::{
    Alert, Check, Dialect, Kind, Measure, Message, Port, Query, QueryError, Rollout, Routes, Scale, Server,
    Settings, Severity, StatusChange, Subject, Workload, advance,
};
use crd::{CanarySpec, CanaryStatus, CanaryWebhook, MetricTemplate, Phase};
use jiff::Timestamp;
use serde_json::{Value, json};

pub type Values = Box<dyn FnMut(Check, u32) -> Result<f64, QueryError> + Send>;
pub type Hooks = Box<dyn FnMut(&CanaryWebhook) -> Result<(), String> + Send>;

pub struct World {
    pub spec: CanarySpec,
    pub status: CanaryStatus,
    pub provider: &'static str,
    /// The target's template.
    pub hash: String,
    /// The primary's template.
    pub primary_hash: String,
    pub routes: Routes,
    pub replicas: i32,
    pub primary: VecDeque<Rollout>,
    pub canary: VecDeque<Rollout>,
    pub values: Values,
    pub hooks: Hooks,
    pub asked: u32,
    pub dialect: Dialect,
    pub log: Vec<String>,
    /// Phases that events were told with.
    pub told: Vec<Phase>,
    pub notes: Vec<String>,
    pub alerts: Vec<String>,
    pub paused: bool,
    pub now: Timestamp,
    /// Verbs called so far.
    pub calls: u32,
    /// The verb at which the controller is killed: it and what follows in the tick never happens.
    pub dies_at: Option<u32>,
    /// Which verbs fail, by their number.
    pub fails: Box<dyn Fn(u32) -> bool + Send>,
    /// Whether the last tick was cut short.
    pub died: bool,
}

pub fn ready_rollout(name: &str) -> Rollout {
    Rollout {
        workload: Workload::Deployment,
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

/// A rollout that has made no progress for longer than the deadline of these tests.
pub fn stuck_rollout(name: &str) -> Rollout {
    Rollout {
        available: 0,
        progressing: Some("ReplicaSetUpdated".into()),
        unavailable_for: Some(std::time::Duration::from_secs(90)),
        ..ready_rollout(name)
    }
}

impl World {
    pub fn new(analysis: Value, dialect: Dialect) -> World {
        let spec = json!({"targetRef": {"kind": "Deployment", "name": "podinfo"}, "service": {"port": 9898},
            "progressDeadlineSeconds": 60, "analysis": analysis});
        let mut world = World {
            spec: serde_json::from_value(spec).unwrap(),
            status: CanaryStatus::default(),
            provider: "istio",
            hash: "one".into(),
            primary_hash: String::new(),
            routes: Routes::PRIMARY,
            replicas: 2,
            primary: VecDeque::new(),
            canary: VecDeque::new(),
            values: Box::new(|check, _| Ok(if check == Check::SuccessRate { 100.0 } else { 0.0 })),
            hooks: Box::new(|_| Ok(())),
            asked: 0,
            dialect,
            log: Vec::new(),
            told: Vec::new(),
            notes: Vec::new(),
            alerts: Vec::new(),
            paused: false,
            now: "2020-03-17T11:00:00Z".parse().unwrap(),
            calls: 0,
            dies_at: None,
            fails: Box::new(|_| false),
            died: false,
        };
        canary::initializing(&mut world.status, &world.spec, world.now);
        world
    }

    /// One tick; a single poll must finish it, unless the controller is killed in it.
    pub fn tick(&mut self) {
        self.now += jiff::SignedDuration::from_secs(30);
        let (spec, status) = (self.spec.clone(), self.status.clone());
        let subject = Subject { name: "podinfo", namespace: "test", spec: &spec, status: &status };
        let settings = Settings { dialect: self.dialect, provider: self.provider };
        self.died = false;
        let polled = {
            let tick = pin!(advance(subject, settings, self));
            tick.poll(&mut Context::from_waker(Waker::noop()))
        };
        assert_eq!(
            matches!(polled, Poll::Pending),
            self.died,
            "a port that answers at once leaves nothing to wait for"
        );
    }

    /// Ticks and gives what was told meanwhile.
    pub fn run(&mut self, ticks: usize) -> String {
        (0..ticks).for_each(|_| self.tick());
        std::mem::take(&mut self.log).join("\n")
    }

    /// A verb is about to act: the place where controllers are killed and calls fail.
    async fn act(&mut self) -> Result<(), String> {
        self.calls += 1;
        if self.dies_at == Some(self.calls) {
            self.dies_at = None;
            self.died = true;
            std::future::pending::<()>().await;
        }
        if (self.fails)(self.calls) { Err(format!("call {} failed", self.calls)) } else { Ok(()) }
    }
}

impl Port for World {
    async fn read_target(&mut self) -> Result<(), String> {
        self.act().await
    }
    async fn reconcile_services(&mut self) -> Result<(), String> {
        self.act().await
    }
    async fn create_primary(&mut self) -> Result<(), String> {
        self.act().await?;
        if self.primary_hash.is_empty() {
            self.primary_hash.clone_from(&self.hash);
        }
        Ok(())
    }
    async fn reconcile_scaler(&mut self, _: bool) -> Result<(), String> {
        self.act().await
    }
    async fn reconcile_apex(&mut self) -> Result<(), String> {
        self.act().await
    }
    async fn reconcile_routes(&mut self) -> Result<(), String> {
        self.act().await
    }
    async fn routes(&mut self) -> Result<Routes, String> {
        self.act().await?;
        let switched = self.provider == "kubernetes" && self.status.iterations > 0;
        Ok(if switched { Routes::CANARY } else { self.routes })
    }
    async fn set_routes(&mut self, routes: Routes) -> Result<(), String> {
        self.act().await?;
        if self.provider != "kubernetes" {
            self.routes = routes;
        }
        Ok(())
    }
    async fn primary_rollout(&mut self) -> Result<Rollout, String> {
        self.act().await?;
        Ok(self.primary.pop_front().unwrap_or_else(|| ready_rollout("podinfo-primary")))
    }
    async fn canary_rollout(&mut self) -> Result<Rollout, String> {
        self.act().await?;
        Ok(self.canary.pop_front().unwrap_or_else(|| ready_rollout("podinfo")))
    }
    async fn pause_scaler(&mut self) -> Result<(), String> {
        self.act().await?;
        self.paused = true;
        Ok(())
    }
    async fn resume_scaler(&mut self) -> Result<(), String> {
        self.act().await?;
        self.paused = false;
        Ok(())
    }
    async fn scale_target(&mut self, scale: Scale) -> Result<(), String> {
        self.act().await?;
        self.replicas = if scale == Scale::Zero { 0 } else { self.replicas.max(1) };
        Ok(())
    }
    async fn target_hash(&mut self) -> Result<String, String> {
        self.act().await?;
        Ok(self.hash.clone())
    }
    async fn target_configs(&mut self) -> Result<Option<BTreeMap<String, String>>, String> {
        self.act().await?;
        Ok(None)
    }
    async fn promote(&mut self) -> Result<(), String> {
        self.act().await?;
        self.primary_hash.clone_from(&self.hash);
        Ok(())
    }
    async fn call_webhook(&mut self, hook: &CanaryWebhook, _: Phase) -> Result<(), String> {
        self.act().await?;
        (self.hooks)(hook)
    }
    async fn metric_template(&mut self, _: &str, name: &str) -> Result<MetricTemplate, String> {
        self.act().await?;
        Err(format!("metrictemplate.flagger.app {name:?} not found"))
    }
    async fn query(&mut self, query: &Query<'_>) -> Result<f64, QueryError> {
        self.act().await.map_err(QueryError::Failed)?;
        let text = query.text().unwrap();
        assert!(text.contains("podinfo"), "{text}");
        self.asked += 1;
        (self.values)(query.check, self.asked)
    }
    async fn is_online(&mut self, _: Server<'_>) -> Result<(), QueryError> {
        self.act().await.map_err(QueryError::Failed)
    }
    async fn write_status(&mut self, change: StatusChange) -> Result<(), String> {
        self.act().await?;
        change.apply(&mut self.status, &self.spec, self.now);
        Ok(())
    }
    async fn read_status(&mut self) -> Result<CanaryStatus, String> {
        Ok(self.status.clone())
    }
    async fn record(&mut self, message: &Message<'_>, phase: Phase) {
        let fails = std::mem::replace(&mut self.fails, Box::new(|_| false));
        let _ = self.act().await;
        self.fails = fails;
        self.log.push(message.to_string());
        self.told.push(phase);
    }
    async fn alert(&mut self, alert: &Alert<'_>, severity: Severity) {
        self.alerts.push(format!("{severity:?}: {}", alert.message));
    }
    fn log(&mut self, _: Kind, message: &Message<'_>) {
        self.notes.push(message.to_string());
    }
    fn measure(&mut self, _: Measure<'_>) {}
}

pub fn metrics() -> Value {
    json!([{"name": "request-success-rate", "threshold": 99, "interval": "30s"},
           {"name": "request-duration", "threshold": 500, "interval": "30s"}])
}
