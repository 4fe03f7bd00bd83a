//! One tick, in the order of each dialect (upstream: `pkg/controller/scheduler.go`).

use crd::{CanaryAnalysis, CanarySpec, CanaryStatus, Phase};

use crate::alert::{Alert, Severity};
use crate::analysis;
use crate::dialect::Dialect;
use crate::gate;
use crate::message::{Kind, Message, Names, What};
use crate::port::{Measure, Port, Routes, Scale};
use crate::readiness::{NotReady, Role, Rollout, ready};
use crate::status::{Observed, StatusChange, progressing};
use crate::strategy;

/// What does not change from tick to tick.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The release that is followed.
    pub dialect: Dialect,
    /// Who routes the traffic, with the Canary's own choice already applied.
    pub provider: &'a str,
}

/// The Canary as read at the tick's start.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its spec.
    pub spec: &'a CanarySpec,
    /// Its status.
    pub status: &'a CanaryStatus,
}

/// What a tick knows, and the port that it works through.
pub(crate) struct Tick<'a, P> {
    pub subject: Subject<'a>,
    pub settings: Settings<'a>,
    pub names: Names<'a>,
    pub analysis: &'a CanaryAnalysis,
    pub port: &'a mut P,
    /// The status as of the last write.
    pub status: CanaryStatus,
    /// The phase that events are told: what the Canary was in when it was read, not what the tick has made of it.
    pub told_phase: Phase,
}

/// A tick that ends here: everything has been said.
pub(crate) struct Halt;

pub(crate) type Step<T = ()> = Result<T, Halt>;

/// Runs one tick: makes what is missing, notices a new revision, judges it, shifts weight, promotes or rolls back. Over
/// a port that answers at once, a single poll finishes it.
pub async fn advance<P: Port>(subject: Subject<'_>, settings: Settings<'_>, port: &mut P) {
    let none = CanaryAnalysis::default();
    let mut tick = Tick {
        names: Names {
            name: subject.name,
            namespace: subject.namespace,
            target: &subject.spec.target_ref.name,
            kind: &subject.spec.target_ref.kind,
            provider: settings.provider,
        },
        analysis: subject.spec.analysis().unwrap_or(&none),
        status: subject.status.clone(),
        told_phase: subject.status.phase,
        subject,
        settings,
        port,
    };
    // A halt has told its reason.
    let _ = tick.run().await;
}

impl<P: Port> Tick<'_, P> {
    pub(crate) fn dialect(&self) -> Dialect {
        self.settings.dialect
    }

    pub(crate) fn is_latest(&self) -> bool {
        self.settings.dialect == Dialect::Latest
    }

    /// Whether nobody routes traffic: the provider can only switch between Services.
    pub(crate) fn switches(&self) -> bool {
        self.settings.provider == "kubernetes"
    }

    /// Tells something: log, Event, webhooks.
    pub(crate) async fn say(&mut self, what: What<'_>) {
        self.say_in(what, self.told_phase).await;
    }

    /// Tells something with a phase that is not the Canary's own.
    pub(crate) async fn say_in(&mut self, what: What<'_>, phase: Phase) {
        let message = Message { what, names: &self.names, dialect: self.settings.dialect };
        self.port.record(&message, phase).await;
    }

    /// Logs something without an Event.
    pub(crate) fn note(&mut self, what: What<'_>) {
        let message = Message { what, names: &self.names, dialect: self.settings.dialect };
        self.port.log(message.kind(), &message);
    }

    /// Ends the tick with a warning if a verb failed.
    pub(crate) async fn demand<T>(&mut self, result: Result<T, String>) -> Step<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                self.say(What::Warning(&error)).await;
                Err(Halt)
            }
        }
    }

    /// Ends the tick with a line in the log if a verb failed, where upstream makes no Event of it.
    pub(crate) fn demand_quietly<T>(&mut self, result: Result<T, String>) -> Step<T> {
        result.map_err(|error| {
            let what = What::Warning(&error);
            let message = Message { what, names: &self.names, dialect: self.settings.dialect };
            self.port.log(Kind::Error, &message);
            Halt
        })
    }

    pub(crate) async fn alert(&mut self, message: impl Into<String>, with_fields: bool, severity: Severity) {
        let alert = Alert { message: message.into().into(), with_fields };
        self.port.alert(&alert, severity).await;
    }

    /// Writes the status and reads it back.
    pub(crate) async fn write(&mut self, change: StatusChange) -> Step {
        let written = self.try_write(change).await;
        self.demand(written).await
    }

    pub(crate) async fn try_write(&mut self, change: StatusChange) -> Result<(), String> {
        self.port.write_status(change).await?;
        self.status = self.port.read_status().await?;
        Ok(())
    }

    pub(crate) async fn enter(&mut self, phase: Phase) -> Step {
        let dialect = self.dialect();
        self.write(StatusChange::Phase(phase, dialect)).await?;
        self.port.measure(Measure::Status(phase));
        Ok(())
    }

    /// Hash and configuration of the target as they are now.
    async fn observe(&mut self) -> Result<Observed, String> {
        let hash = self.port.target_hash().await?;
        let configs = self.port.target_configs().await?;
        Ok(Observed { hash, configs })
    }

    /// Writes a phase with fresh counters.
    pub(crate) async fn begin(&mut self, phase: Phase, weight: i32) -> Result<(), String> {
        let observed = self.observe().await?;
        let dialect = self.dialect();
        self.try_write(StatusChange::Begin { phase, weight, observed, dialect }).await?;
        self.port.measure(Measure::Status(phase));
        Ok(())
    }

    pub(crate) async fn route(&mut self, routes: Routes) -> Step {
        let set = self.port.set_routes(routes).await;
        self.demand(set).await?;
        self.port.measure(Measure::Weight(routes));
        Ok(())
    }

    pub(crate) async fn pause_scaler(&mut self) -> Step {
        let done = self.port.pause_scaler().await;
        self.demand(done).await
    }

    async fn run(&mut self) -> Step {
        match self.dialect() {
            Dialect::Rc1 => self.prepare_rc1().await?,
            Dialect::Latest => self.prepare_latest().await?,
        }
        if !self.should_advance().await? {
            self.port.measure(Measure::Status(self.status.phase));
            return Ok(());
        }
        if !self.is_latest() {
            gate::confirm_rollout_rc1(self).await?;
        }
        if !self.subject.spec.skips_analysis() {
            self.judge_primary().await?;
        }
        let routes = self.port.routes().await;
        let routes = self.demand(routes).await?;
        self.port.measure(Measure::Weight(routes));
        self.start_or_go_on().await?;
        if self.revision_changed().await {
            self.say(What::Restart).await;
            self.route(Routes::PRIMARY).await?;
            let begun = self.begin(Phase::Progressing, 0).await;
            return self.demand(begun).await;
        }
        self.judge_canary(routes).await
    }

    pub(crate) fn is_initial(&self) -> bool {
        matches!(self.status.phase, Phase::Unset | Phase::Initializing)
    }

    pub(crate) async fn tell_initialized(&mut self) {
        self.say(What::Initialized).await;
        let kind = self.names.kind;
        self.alert(format!("New {kind} detected, initialization completed."), true, Severity::Info).await;
    }

    /// Whether the phase is one of a run.
    fn is_busy(&self) -> bool {
        match self.status.phase {
            Phase::Progressing | Phase::Waiting | Phase::Promoting | Phase::Finalising => true,
            Phase::WaitingPromotion => self.is_latest(),
            _ => false,
        }
    }

    async fn should_advance(&mut self) -> Step<bool> {
        let fresh = self.status.last_applied_spec.is_empty() || self.status.phase == Phase::Initializing;
        if self.is_busy() || (fresh && !self.is_latest()) {
            return Ok(true);
        }
        if self.is_latest() && self.status.phase == Phase::Failed {
            // The revision counts as applied from here on, whatever becomes of this tick: one that halts loses it.
            let observed = self.observe().await;
            let observed = self.demand(observed).await?;
            let written = self.port.write_status(StatusChange::Applied(observed)).await;
            self.demand(written).await?;
        }
        let changed = self.target_changed().await;
        self.demand(changed).await
    }

    /// Whether template or configuration differ from what was last seen. A template that was promoted before is no
    /// change: somebody went back by hand.
    async fn target_changed(&mut self) -> Result<bool, String> {
        if self.status.last_applied_spec.is_empty() {
            return Ok(true);
        }
        let hash = self.port.target_hash().await?;
        if hash != self.status.last_applied_spec && hash != self.status.last_promoted_spec {
            return Ok(true);
        }
        let Some(configs) = self.port.target_configs().await? else { return Ok(false) };
        let Some(known) = self.status.tracked_configs.clone() else { return Ok(!configs.is_empty()) };
        if known.len() != configs.len() {
            return Ok(true);
        }
        let changed = configs.into_iter().find(|(name, sum)| known.get(name) != Some(sum));
        if let Some((name, _)) = &changed {
            let (kind, name) = name.split_once('/').unwrap_or(("configmap", name));
            self.note(What::ConfigChanged(kind, name));
        }
        Ok(changed.is_some())
    }

    /// Whether the revision changed in the middle of a run; what cannot be read counts as unchanged.
    async fn revision_changed(&mut self) -> bool {
        let judged = match self.status.phase {
            Phase::Progressing => true,
            Phase::WaitingPromotion => self.is_latest(),
            _ => false,
        };
        judged && self.target_changed().await.unwrap_or(false)
    }

    pub(crate) fn verdict(&self, rollout: &Rollout, role: Role) -> Result<(), NotReady> {
        let threshold = match role {
            Role::Primary => self.analysis.primary_ready_threshold,
            Role::Canary => self.analysis.canary_ready_threshold,
        };
        let deadline = self.subject.spec.progress_deadline_seconds();
        ready(rollout, role, &self.names, deadline, threshold.unwrap_or(100), self.settings.dialect)
    }

    /// The primary must be ready before anything is judged.
    async fn judge_primary(&mut self) -> Step {
        let rollout = self.port.primary_rollout().await;
        let rollout = self.demand(rollout).await?;
        let Err(reason) = self.verdict(&rollout, Role::Primary) else { return Ok(()) };
        let doomed = self.is_latest() && !reason.retriable;
        // With a primary beyond hope that already runs the new template, the canary serves on.
        if doomed && matches!(self.status.phase, Phase::Promoting | Phase::Finalising) {
            self.say(What::Warning(&reason.text)).await;
            self.fail_promotion(&reason.text).await?;
            return Err(Halt);
        }
        self.say(What::Warning(&reason.text)).await;
        if doomed {
            self.roll_back().await?;
        }
        Err(Halt)
    }

    /// Decides between the first tick of a Canary or a run and one in the middle of it.
    async fn start_or_go_on(&mut self) -> Step {
        self.port.measure(Measure::Status(self.status.phase));
        if self.is_busy() && self.status.phase != Phase::Waiting {
            return Ok(());
        }
        if self.is_initial() {
            let begun = self.begin(Phase::Initialized, 0).await;
            self.demand_quietly(begun)?;
            self.tell_initialized().await;
            return Err(Halt);
        }
        if self.is_latest() {
            gate::confirm_rollout(self).await?;
        }
        self.say_in(What::NewRevision, Phase::Progressing).await;
        self.alert(progressing(self.dialect()), true, Severity::Info).await;
        let resumed = self.port.resume_scaler().await;
        self.demand(resumed).await?;
        if let Err(error) = self.port.scale_target(Scale::Up).await {
            self.say(What::Failure(&error)).await;
            return Err(Halt);
        }
        let begun = self.begin(Phase::Progressing, 0).await;
        self.demand_quietly(begun)?;
        Err(Halt)
    }

    /// Everything once the canary is to be looked at.
    async fn judge_canary(&mut self, routes: Routes) -> Step {
        let rollout = self.port.canary_rollout().await;
        let rollout = self.demand(rollout).await?;
        let mut late = None;
        if let Err(reason) = self.verdict(&rollout, Role::Canary) {
            if !self.is_latest() && !reason.retriable {
                late = Some(reason.text);
            } else {
                self.say(What::Warning(&reason.text)).await;
                if !reason.retriable {
                    self.roll_back().await?;
                }
                return Err(Halt);
            }
        }
        if self.subject.spec.skips_analysis() {
            match self.skip().await {
                // As upstream: a skip that failed half-way leaves the tick to go on as if nothing was to be skipped.
                Err(Halt) if !self.is_latest() => {}
                result => return result,
            }
        }
        let phase = self.status.phase;
        let is_judged = phase == Phase::Progressing || (phase == Phase::WaitingPromotion && self.is_latest());
        if is_judged && gate::asks_for_rollback(self).await {
            self.say(What::ManualRollback).await;
            self.alert("Rolling back manual webhook invoked", false, Severity::Warn).await;
            return self.roll_back().await;
        }
        match phase {
            Phase::Promoting => {
                if self.is_latest() {
                    let scaler = self.port.reconcile_scaler(false).await;
                    self.demand(scaler).await?;
                }
                return strategy::shift_back(self, routes).await;
            }
            Phase::Finalising => return self.finish().await,
            _ => {}
        }
        if let Some(why) = late.filter(|_| is_judged) {
            self.say(What::DeadlineExceeded(&why)).await;
            self.alert(format!("Progress deadline exceeded {why}"), false, Severity::Error).await;
            return self.roll_back().await;
        }
        if is_judged && self.threshold_reached() {
            return self.roll_back().await;
        }
        let result = self.check_and_step(routes).await;
        self.port.measure(Measure::Judged);
        result
    }

    /// One check, and the strategy's step if it passed.
    async fn check_and_step(&mut self, routes: Routes) -> Step {
        let is_start =
            routes.canary == 0 && self.status.iterations == 0 && !(self.analysis.mirror && routes.mirrored);
        let passed = if is_start {
            self.say(What::Starting).await;
            gate::pre_rollout(self).await
        } else {
            analysis::passes(self).await
        };
        if !passed {
            return self.write(StatusChange::FailedChecks(self.status.failed_checks + 1)).await;
        }
        strategy::step(self, routes).await
    }

    /// Whether enough checks failed to roll back; at least one.
    pub(crate) fn threshold_reached(&self) -> bool {
        self.status.failed_checks >= self.analysis.threshold.max(1)
    }
}
