//! One tick of `canary`'s core over a port whose answers come from an oracle.
//!
//! The port does in memory what the controller's shell does over the API: it keeps status and weights, and knows
//! whether the primary runs the new template. All that depends on the world is asked of the [`Oracle`]; one that has
//! no answer yet stops the tick there, which is how [`crate::automaton`] finds out what a tick asks next.

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use canary::{
    Alert, Check as Asked, Kind, Measure, Message, Port, Query, QueryError, Rollout, Routes, Scale, Server,
    Settings, Severity, StatusChange, Subject, What, Workload, advance,
};
use crd::{CanaryStatus, CanaryWebhook, HookType, MetricTemplate, Phase};
use jiff::Timestamp;

use crate::policy::{Policy, Probe};

/// The hash of the template that runs when the release begins.
const OLD: &str = "old";
/// The hash of the released template.
const NEW: &str = "new";

/// What the world is asked in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// Has the primary rolled the new template out?
    PrimaryReady,
    /// Is the canary ready?
    CanaryReady,
    /// A webhook that starts a load test is called: its index.
    LoadTest(u8),
    /// What does a metric read: its index.
    Check(u8),
}

/// What the world answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// Yes; a load test's webhook always agrees.
    Yes,
    /// Not yet.
    NotYet,
    /// Not in time.
    TooLate,
    /// A value.
    Value(f64),
    /// No series.
    Empty,
}

/// Who answers.
pub trait Oracle: Send {
    /// The answer, or `None` if it is not known yet.
    fn answer(&mut self, question: Question) -> Option<Answer>;

    /// A message of the controller.
    fn hear(&mut self, kind: Kind, message: &Message<'_>) {
        let _ = (kind, message);
    }
}

/// What a Canary's status says, as far as the core reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// The phase.
    pub phase: Phase,
    /// Failed checks of this run.
    pub failed_checks: i32,
    /// The weight.
    pub weight: i32,
    /// Iterations of this run.
    pub iterations: i32,
    /// The primary's weight in the mesh.
    pub primary: i32,
    /// The canary's weight in the mesh.
    pub canary: i32,
    /// Whether requests are mirrored.
    pub mirrored: bool,
    /// Whether the new template was seen.
    pub seen: bool,
    /// Whether the new template was promoted.
    pub promoted: bool,
    /// Whether the primary was given the new template.
    pub copied: bool,
}

impl State {
    /// At the release: the primary serves the old version.
    pub const START: State = State {
        phase: Phase::Initialized,
        failed_checks: 0,
        weight: 0,
        iterations: 0,
        primary: 100,
        canary: 0,
        mirrored: false,
        seen: false,
        promoted: false,
        copied: false,
    };

    fn status(self) -> CanaryStatus {
        let hash = |new: bool| if new { NEW } else { OLD }.to_owned();
        CanaryStatus {
            phase: self.phase,
            failed_checks: self.failed_checks,
            canary_weight: self.weight,
            iterations: self.iterations,
            last_applied_spec: hash(self.seen),
            last_promoted_spec: hash(self.promoted),
            ..CanaryStatus::default()
        }
    }
}

/// Why a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// A metric's value crossed its bound.
    Bound,
    /// A metric had no values.
    NoValues,
    /// The query failed.
    Query,
    /// A webhook refused.
    Webhook,
}

/// Why a run was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Too many checks failed.
    Threshold,
    /// The canary was not ready in time.
    Deadline,
    /// Something else.
    Other,
}

/// What a tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effects {
    /// The weights that it set.
    pub routes: Option<(i32, i32, bool)>,
    /// It scaled the canary up.
    pub scaled_up: bool,
    /// It gave the primary the new template.
    pub copied: bool,
    /// A check failed: the metric's index, and why.
    pub failed: Option<(u8, Failure)>,
    /// It rolled back.
    pub rolled_back: Option<Reason>,
    /// The run ended; whether the new version was promoted.
    pub ended: Option<bool>,
}

/// Runs a tick. `None` if the oracle had no answer.
pub fn tick<O: Oracle>(policy: &Policy, state: State, now: i64, oracle: &mut O) -> Option<(State, Effects)> {
    let status = state.status();
    let spec = &policy.canary.spec;
    let mut port = Desk {
        policy,
        status: status.clone(),
        state,
        now: Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH),
        asking: None,
        effects: Effects::default(),
        oracle,
    };
    let subject =
        Subject { name: policy.canary.name(), namespace: policy.canary.namespace(), spec, status: &status };
    let settings = Settings { dialect: policy.dialect, provider: &policy.provider };
    let answered = {
        let mut future = pin!(advance(subject, settings, &mut port));
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    if answered == Poll::Pending {
        return None;
    }
    let status = &port.status;
    let state = State {
        phase: status.phase,
        failed_checks: status.failed_checks,
        weight: status.canary_weight,
        iterations: status.iterations,
        seen: status.last_applied_spec == NEW,
        promoted: status.last_promoted_spec == NEW,
        ..port.state
    };
    let mut effects = port.effects;
    match state.phase {
        Phase::Succeeded => effects.ended = Some(true),
        Phase::Failed => {
            effects.ended = Some(false);
            effects.rolled_back = effects.rolled_back.or(Some(Reason::Other));
        }
        _ => {}
    }
    Some((state, effects))
}

/// The port.
struct Desk<'a, O> {
    policy: &'a Policy,
    status: CanaryStatus,
    state: State,
    now: Timestamp,
    /// The metric that was asked last.
    asking: Option<u8>,
    effects: Effects,
    oracle: &'a mut O,
}

impl<O: Oracle> Desk<'_, O> {
    async fn ask(&mut self, question: Question) -> Answer {
        match self.oracle.answer(question) {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    fn rollout(&self, name: String, answer: Answer) -> Rollout {
        let ready = answer == Answer::Yes;
        let late = answer == Answer::TooLate;
        Rollout {
            workload: Workload::default(),
            name,
            generation: 1,
            observed_generation: 1,
            wanted: Some(1),
            replicas: 1,
            updated: 1,
            available: i32::from(ready),
            progressing: Some(if late { "ProgressDeadlineExceeded" } else { "ReplicaSetUpdated" }.to_owned()),
            unavailable_for: None,
        }
    }
}

impl<O: Oracle> Port for Desk<'_, O> {
    async fn read_target(&mut self) -> Result<(), String> {
        Ok(())
    }

    async fn reconcile_services(&mut self) -> Result<(), String> {
        Ok(())
    }

    async fn create_primary(&mut self) -> Result<(), String> {
        Ok(())
    }

    async fn reconcile_scaler(&mut self, _only_create: bool) -> Result<(), String> {
        Ok(())
    }

    async fn reconcile_apex(&mut self) -> Result<(), String> {
        Ok(())
    }

    async fn reconcile_routes(&mut self) -> Result<(), String> {
        Ok(())
    }

    async fn routes(&mut self) -> Result<Routes, String> {
        let State { primary, canary, mirrored, .. } = self.state;
        Ok(Routes { primary, canary, mirrored })
    }

    async fn set_routes(&mut self, routes: Routes) -> Result<(), String> {
        (self.state.primary, self.state.canary) = (routes.primary, routes.canary);
        self.state.mirrored = routes.mirrored;
        self.effects.routes = Some((routes.primary, routes.canary, routes.mirrored));
        Ok(())
    }

    async fn primary_rollout(&mut self) -> Result<Rollout, String> {
        // Nothing happens to the primary before it is given the new template.
        let answer = if self.state.copied { self.ask(Question::PrimaryReady).await } else { Answer::Yes };
        Ok(self.rollout(format!("{}-primary", self.policy.canary.spec.target_ref.name), answer))
    }

    async fn canary_rollout(&mut self) -> Result<Rollout, String> {
        let answer = self.ask(Question::CanaryReady).await;
        Ok(self.rollout(self.policy.canary.spec.target_ref.name.clone(), answer))
    }

    async fn scale_target(&mut self, scale: Scale) -> Result<(), String> {
        self.effects.scaled_up |= scale == Scale::Up;
        Ok(())
    }

    async fn target_hash(&mut self) -> Result<String, String> {
        Ok(NEW.to_owned())
    }

    async fn target_configs(&mut self) -> Result<Option<BTreeMap<String, String>>, String> {
        Ok(None)
    }

    async fn promote(&mut self) -> Result<(), String> {
        self.state.copied = true;
        self.effects.copied = true;
        Ok(())
    }

    async fn call_webhook(&mut self, hook: &CanaryWebhook, _phase: Phase) -> Result<(), String> {
        let hooks = self.policy.canary.spec.analysis().map_or(&[][..], |analysis| &analysis.webhooks);
        let index = hooks.iter().position(|known| std::ptr::eq(known, hook)).unwrap_or(usize::MAX);
        match self.policy.load_tests.get(index) {
            Some(Some(_)) => {
                self.ask(Question::LoadTest(index as u8)).await;
                Ok(())
            }
            _ if hook.kind == HookType::Rollback => Err("403".to_owned()),
            _ => Ok(()),
        }
    }

    async fn metric_template(&mut self, namespace: &str, name: &str) -> Result<MetricTemplate, String> {
        let mut template = MetricTemplate::new(namespace, name, Default::default());
        template.spec.provider.kind = "prometheus".to_owned();
        Ok(template)
    }

    async fn query(&mut self, query: &Query<'_>) -> Result<f64, QueryError> {
        let metrics = self.policy.canary.spec.analysis().map_or(&[][..], |analysis| &analysis.metrics);
        let index = metrics.iter().position(|metric| std::ptr::eq(metric, query.metric)).unwrap_or(0);
        self.asking = Some(index as u8);
        if let Some(Probe::Broken(error)) = self.policy.checks.get(index).map(|check| &check.probe) {
            return Err(QueryError::Failed(error.clone()));
        }
        match self.ask(Question::Check(index as u8)).await {
            // The newer dialect takes what is not a number for no value.
            Answer::Value(value) if value.is_nan() && self.policy.dialect == canary::Dialect::Latest => {
                Err(QueryError::NoValues)
            }
            Answer::Value(value) => Ok(match (query.check, &self.policy.checks[index].probe) {
                // The core itself turns the histogram's unit into milliseconds.
                (Asked::Duration, Probe::Quantile { factor, .. }) => value / factor,
                _ => value,
            }),
            _ => Err(QueryError::NoValues),
        }
    }

    async fn is_online(&mut self, _server: Server<'_>) -> Result<(), QueryError> {
        Ok(())
    }

    async fn write_status(&mut self, change: StatusChange) -> Result<(), String> {
        change.apply(&mut self.status, &self.policy.canary.spec, self.now);
        Ok(())
    }

    async fn read_status(&mut self) -> Result<CanaryStatus, String> {
        Ok(self.status.clone())
    }

    async fn record(&mut self, message: &Message<'_>, _phase: Phase) {
        self.oracle.hear(message.kind(), message);
        let failure = match message.what {
            What::SuccessRate(..) | What::Duration(..) | What::Value(..) => Some(Failure::Bound),
            What::NoValues(..) | What::NoCustomValues(..) | What::NoInlineValues(_) => {
                Some(Failure::NoValues)
            }
            What::QueryFailed(_)
            | What::InlineQueryFailed(..)
            | What::TemplateQueryFailed(..)
            | What::NoUsableMetric
            | What::TemplateMissing(..)
            | What::TemplateSecret(..)
            | What::TemplateProvider(..)
            | What::TemplateUnrendered(..) => Some(Failure::Query),
            What::CheckFailed(..) | What::PreRolloutFailed(..) => Some(Failure::Webhook),
            What::ThresholdReached(_) => {
                self.effects.rolled_back = Some(Reason::Threshold);
                None
            }
            What::DeadlineExceeded(_) => {
                self.effects.rolled_back = Some(Reason::Deadline);
                None
            }
            // The newer dialect rolls back without a word of why.
            What::Failed if self.effects.rolled_back.is_none() => {
                self.effects.rolled_back = Some(Reason::Deadline);
                None
            }
            _ => None,
        };
        if let Some(failure) = failure {
            self.effects.failed = Some((self.asking.unwrap_or(0), failure));
        }
    }

    async fn alert(&mut self, _alert: &Alert<'_>, _severity: Severity) {}

    fn log(&mut self, kind: Kind, message: &Message<'_>) {
        self.oracle.hear(kind, message);
    }

    fn measure(&mut self, _measure: Measure<'_>) {}
}
