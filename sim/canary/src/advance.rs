//! One tick, in the order of each dialect (upstream: `pkg/controller/scheduler.go`).

use crd::{CanaryAnalysis, CanarySpec, CanaryStatus, Phase};

use crate::alert::{Alert, Severity};
use crate::analysis;
use crate::dialect::Dialect;
use crate::gate;
use crate::message::{Message, Names, What};
use crate::port::{Measure, Port, Routes, Scale, Server};
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

    /// Tells something: log, Event, webhooks.
    pub(crate) async fn say(&mut self, what: What<'_>) {
        let phase = self.status.phase;
        self.say_in(what, phase).await;
    }

    /// Tells something with a phase that is not the status' own.
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

    pub(crate) async fn alert(&mut self, message: impl Into<String>, with_fields: bool, severity: Severity) {
        let alert = Alert { message: message.into().into(), with_fields };
        self.port.alert(&alert, severity).await;
    }

    /// Writes the status and reads it back.
    pub(crate) async fn write(&mut self, change: StatusChange) -> Step {
        let written = self.port.write_status(change).await;
        self.demand(written).await?;
        let read = self.port.read_status().await;
        self.status = self.demand(read).await?;
        Ok(())
    }

    pub(crate) async fn enter(&mut self, phase: Phase) -> Step {
        let dialect = self.dialect();
        self.write(StatusChange::Phase(phase, dialect)).await?;
        self.port.measure(Measure::Status(phase));
        Ok(())
    }

    async fn begin(&mut self, phase: Phase, weight: i32) -> Step {
        let hash = self.port.target_hash().await;
        let hash = self.demand(hash).await?;
        let configs = self.port.target_configs().await;
        let configs = self.demand(configs).await?;
        let dialect = self.dialect();
        let observed = Observed { hash, configs };
        self.write(StatusChange::Begin { phase, weight, observed, dialect }).await?;
        self.port.measure(Measure::Status(phase));
        Ok(())
    }

    pub(crate) async fn route(&mut self, routes: Routes) -> Step {
        let set = self.port.set_routes(routes).await;
        self.demand(set).await?;
        self.port.measure(Measure::Weight(routes));
        Ok(())
    }

    async fn run(&mut self) -> Step {
        match self.dialect() {
            Dialect::Rc1 => self.prepare_rc1().await?,
            Dialect::Latest => self.prepare_latest().await?,
        }
        if self.dialect() == Dialect::Latest && self.is_initial() {
            return self.initialized().await;
        }
        let advances = self.should_advance().await?;
        if !advances {
            self.port.measure(Measure::Status(self.status.phase));
            return Ok(());
        }
        if self.dialect() == Dialect::Rc1 {
            gate::confirm_rollout_rc1(self).await?;
        }
        if !self.subject.spec.skips_analysis() {
            self.judge_primary().await?;
        }
        let routes = self.port.routes().await;
        let routes = self.demand(routes).await?;
        self.port.measure(Measure::Weight(routes));
        self.start_or_go_on().await?;
        if self.revision_changed().await? {
            self.say(What::Restart).await;
            self.route(Routes::PRIMARY).await?;
            return self.begin(Phase::Progressing, 0).await;
        }
        let result = self.judge_canary(routes).await;
        self.port.measure(Measure::Judged);
        result
    }

    async fn prepare_rc1(&mut self) -> Step {
        let done = self.port.read_target().await;
        self.demand(done).await?;
        let done = self.port.reconcile_services().await;
        self.demand(done).await?;
        let done = self.port.create_primary().await;
        self.demand(done).await?;
        if self.is_initial() {
            self.scale_down_at_first().await?;
        }
        let done = self.port.reconcile_scaler(true).await;
        self.demand(done).await?;
        let done = self.port.reconcile_apex().await;
        self.demand(done).await?;
        let done = self.port.reconcile_routes().await;
        self.demand(done).await
    }

    async fn prepare_latest(&mut self) -> Step {
        if self.subject.spec.suspend {
            self.say(What::Suspended).await;
            return Err(Halt);
        }
        if self.is_initial() {
            self.probe_metrics().await;
        }
        let done = self.port.read_target().await;
        self.demand(done).await?;
        let done = self.port.reconcile_services().await;
        self.demand(done).await?;
        let done = self.port.create_primary().await;
        self.demand(done).await?;
        if self.is_initial() && !self.subject.spec.skips_analysis() {
            let rollout = self.port.primary_rollout().await;
            let rollout = self.demand(rollout).await?;
            if let Err(reason) = self.verdict(&rollout, Role::Primary) {
                self.say(What::Warning(&reason.text)).await;
                return Err(Halt);
            }
        }
        let done = self.port.reconcile_apex().await;
        self.demand(done).await?;
        if self.is_initial() {
            self.note(What::ScalingDown);
            let scaled = self.port.scale_target(Scale::Zero).await;
            self.demand(scaled).await?;
        }
        let done = self.port.reconcile_scaler(true).await;
        self.demand(done).await?;
        let done = self.port.reconcile_routes().await;
        self.demand(done).await
    }

    async fn probe_metrics(&mut self) {
        let analysis = self.analysis;
        for metric in &analysis.metrics {
            let online = match &metric.template_ref {
                None => self.port.is_online(Server::Default).await.map_err(|error| error.text().to_owned()),
                Some(reference) => {
                    let namespace = if reference.namespace.is_empty() {
                        self.subject.namespace
                    } else {
                        &reference.namespace
                    };
                    match self.port.metric_template(namespace, &reference.name).await {
                        Err(error) => Err(error),
                        Ok(template) => {
                            let online = self.port.is_online(Server::Template(&template)).await;
                            online.map_err(|error| error.text().to_owned())
                        }
                    }
                }
            };
            if let Err(error) = online {
                self.say(What::MetricsOffline(&error)).await;
                return;
            }
        }
        self.say(What::MetricsOnline).await;
    }

    fn is_initial(&self) -> bool {
        matches!(self.status.phase, Phase::Unset | Phase::Initializing)
    }

    async fn scale_down_at_first(&mut self) -> Step {
        if !self.subject.spec.skips_analysis() {
            let rollout = self.port.primary_rollout().await;
            let rollout = self.demand(rollout).await?;
            if let Err(reason) = self.verdict(&rollout, Role::Primary) {
                self.say(What::Warning(&reason.text)).await;
                return Err(Halt);
            }
        }
        self.note(What::ScalingDown);
        let scaled = self.port.scale_target(Scale::Zero).await;
        self.demand(scaled).await
    }

    async fn initialized(&mut self) -> Step {
        self.begin(Phase::Initialized, 0).await?;
        self.say(What::Initialized).await;
        let kind = if self.names.kind.is_empty() { "Deployment" } else { self.names.kind };
        self.alert(format!("New {kind} detected, initialization completed."), true, Severity::Info).await;
        Ok(())
    }

    async fn should_advance(&mut self) -> Step<bool> {
        let busy = matches!(
            self.status.phase,
            Phase::Progressing
                | Phase::Waiting
                | Phase::WaitingPromotion
                | Phase::Promoting
                | Phase::Finalising
        );
        if busy || self.is_initial() || self.status.last_applied_spec.is_empty() {
            return Ok(true);
        }
        self.target_changed().await
    }

    /// Whether template or configuration differ from what was last seen. A template that was promoted before is no
    /// change: somebody went back by hand.
    async fn target_changed(&mut self) -> Step<bool> {
        let hash = self.port.target_hash().await;
        let hash = self.demand(hash).await?;
        if hash != self.status.last_applied_spec && hash != self.status.last_promoted_spec {
            return Ok(true);
        }
        let configs = self.port.target_configs().await;
        let Some(configs) = self.demand(configs).await? else { return Ok(false) };
        let known = self.status.tracked_configs.clone().unwrap_or_default();
        let changed = configs.into_iter().find(|(name, sum)| known.get(name) != Some(sum));
        if let Some((name, _)) = &changed {
            let (kind, name) = name.split_once('/').unwrap_or(("configmap", name));
            self.note(What::ConfigChanged(kind, name));
        }
        Ok(changed.is_some())
    }

    async fn revision_changed(&mut self) -> Step<bool> {
        match self.status.phase {
            Phase::Progressing => self.target_changed().await,
            Phase::WaitingPromotion if self.dialect() == Dialect::Latest => self.target_changed().await,
            _ => Ok(false),
        }
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
        if self.dialect() == Dialect::Rc1 || reason.retriable {
            self.say(What::Warning(&reason.text)).await;
            return Err(Halt);
        }
        if matches!(self.status.phase, Phase::Promoting | Phase::Finalising) {
            // The primary is beyond hope and already runs the new template: the canary serves on.
            self.say(What::PromotionFailed(&reason.text)).await;
            let text = format!("Promotion failed, primary not ready: {}", reason.text);
            self.alert(text, false, Severity::Error).await;
            self.route(Routes::CANARY).await?;
            self.begin(Phase::Failed, 100).await?;
        } else {
            self.say(What::Warning(&reason.text)).await;
            self.roll_back().await?;
        }
        Err(Halt)
    }

    /// Decides between the first tick of a Canary or a run and one in the middle of it.
    async fn start_or_go_on(&mut self) -> Step {
        self.port.measure(Measure::Status(self.status.phase));
        match self.status.phase {
            Phase::Progressing | Phase::Promoting | Phase::Finalising => return Ok(()),
            Phase::WaitingPromotion if self.dialect() == Dialect::Latest => return Ok(()),
            Phase::Unset | Phase::Initializing => {
                self.initialized().await?;
                return Err(Halt);
            }
            _ => {}
        }
        if self.dialect() == Dialect::Latest {
            gate::confirm_rollout(self).await?;
        }
        self.say_in(What::NewRevision, Phase::Progressing).await;
        self.alert(progressing(self.dialect()), true, Severity::Info).await;
        let scaled = self.port.scale_target(Scale::Up).await;
        self.demand(scaled).await?;
        self.begin(Phase::Progressing, 0).await?;
        Err(Halt)
    }

    /// Everything once the canary is to be looked at.
    async fn judge_canary(&mut self, routes: Routes) -> Step {
        let rollout = self.port.canary_rollout().await;
        let rollout = self.demand(rollout).await?;
        let mut late = None;
        if let Err(reason) = self.verdict(&rollout, Role::Canary) {
            match (self.dialect(), reason.retriable) {
                (_, true) => {
                    self.say(What::Warning(&reason.text)).await;
                    return Err(Halt);
                }
                (Dialect::Rc1, false) => late = Some(reason.text),
                (Dialect::Latest, false) => {
                    self.say(What::Warning(&reason.text)).await;
                    return self.roll_back().await;
                }
            }
        }
        if self.subject.spec.skips_analysis() {
            return self.skip().await;
        }
        let phase = self.status.phase;
        let can_roll_back = phase == Phase::Progressing
            || (phase == Phase::WaitingPromotion && self.dialect() == Dialect::Latest);
        if can_roll_back && gate::asks_for_rollback(self).await {
            self.say(What::ManualRollback).await;
            self.alert("Rolling back manual webhook invoked", false, Severity::Warn).await;
            return self.roll_back().await;
        }
        match phase {
            Phase::Promoting => return strategy::shift_back(self, routes).await,
            Phase::Finalising => return self.finish().await,
            _ => {}
        }
        let threshold = self.threshold();
        if can_roll_back && (late.is_some() || self.status.failed_checks >= threshold) {
            match late {
                Some(why) => {
                    self.say(What::DeadlineExceeded(&why)).await;
                    self.alert(format!("Progress deadline exceeded {why}"), false, Severity::Error).await;
                }
                None => {
                    self.say(What::ThresholdReached(self.status.failed_checks)).await;
                    let text = format!("Failed checks threshold reached {}", self.status.failed_checks);
                    self.alert(text, false, Severity::Error).await;
                }
            }
            return self.roll_back().await;
        }
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

    /// Failed checks that roll back; at least one.
    fn threshold(&self) -> i32 {
        if self.analysis.threshold > 0 { self.analysis.threshold } else { 1 }
    }

    /// Promotes without looking.
    async fn skip(&mut self) -> Step {
        self.route(Routes::PRIMARY).await?;
        self.copy().await?;
        let scaled = self.port.scale_target(Scale::Zero).await;
        self.demand(scaled).await?;
        self.enter(Phase::Succeeded).await?;
        self.port.measure(Measure::Success { skipped: true });
        self.say(What::Skipped).await;
        self.alert("Canary analysis was skipped, promotion finished.", false, Severity::Info).await;
        Ok(())
    }

    /// Copies the canary's template to the primary.
    pub(crate) async fn copy(&mut self) -> Step {
        self.say(What::Copying).await;
        let promoted = self.port.promote().await;
        self.demand(promoted).await?;
        let scaler = self.port.reconcile_scaler(false).await;
        self.demand(scaler).await
    }

    async fn finish(&mut self) -> Step {
        let scaled = self.port.scale_target(Scale::Zero).await;
        self.demand(scaled).await?;
        self.enter(Phase::Succeeded).await?;
        self.port.measure(Measure::Success { skipped: false });
        gate::post_rollout(self, Phase::Succeeded).await;
        self.say(What::Promoted).await;
        let text = "Canary analysis completed successfully, promotion finished.";
        self.alert(text, false, Severity::Info).await;
        Ok(())
    }

    /// Back to the primary, canary to zero.
    async fn roll_back(&mut self) -> Step {
        self.route(Routes::PRIMARY).await?;
        self.say_in(What::Failed, Phase::Failed).await;
        let scaled = self.port.scale_target(Scale::Zero).await;
        self.demand(scaled).await?;
        self.begin(Phase::Failed, 0).await?;
        self.port.measure(Measure::Failure);
        gate::post_rollout(self, Phase::Failed).await;
        Ok(())
    }
}
