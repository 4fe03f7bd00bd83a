//! What a tick makes sure of before it decides anything: Services, primary, autoscaler, routes.

use crd::Phase;

use crate::advance::{Halt, Step, Tick};
use crate::message::What;
use crate::port::{Port, QueryError, Scale, Server};
use crate::readiness::Role;

impl<P: Port> Tick<'_, P> {
    pub(crate) async fn prepare_rc1(&mut self) -> Step {
        let done = self.port.read_target().await;
        self.demand(done).await?;
        let done = self.port.reconcile_services().await;
        self.demand(done).await?;
        let done = self.port.create_primary().await;
        self.demand(done).await?;
        // A Service has nothing to scale.
        if self.is_initial() && self.names.kind != "Service" {
            self.await_primary().await?;
            self.note(What::ScalingDown);
            let scaled = self.port.scale_target(Scale::Zero).await;
            self.demand(scaled).await?;
        }
        let done = self.port.reconcile_scaler(true).await;
        self.demand(done).await?;
        let done = self.port.reconcile_apex().await;
        self.demand(done).await?;
        let done = self.port.reconcile_routes().await;
        self.demand(done).await
    }

    pub(crate) async fn prepare_latest(&mut self) -> Step {
        if self.subject.spec.suspend {
            self.say(What::Suspended).await;
            return Err(Halt);
        }
        let done = self.port.read_target().await;
        self.demand(done).await?;
        let done = self.port.reconcile_services().await;
        self.demand(done).await?;
        if self.is_initial() && !self.subject.spec.skips_analysis() {
            self.probe_metrics().await;
        }
        let done = self.port.create_primary().await;
        self.demand(done).await?;
        if self.is_initial() {
            self.await_primary().await?;
        }
        let done = self.port.reconcile_scaler(true).await;
        self.demand(done).await?;
        if self.is_initial() {
            self.pause_scaler().await?;
        }
        let done = self.port.reconcile_apex().await;
        self.demand(done).await?;
        if self.is_initial() {
            self.note(What::ScalingDown);
            if let Err(error) = self.port.scale_target(Scale::Zero).await {
                let (kind, target) = (self.names.kind, self.names.workload());
                let text = format!("scaling down canary {kind} {target} failed: {error}");
                self.say(What::Warning(&text)).await;
                return Err(Halt);
            }
        }
        let done = self.port.reconcile_routes().await;
        self.demand(done).await?;
        if self.is_initial() {
            self.initialize().await?;
        }
        Ok(())
    }

    /// The newer dialect goes on after this: a target that changed meanwhile is seen in the same tick.
    async fn initialize(&mut self) -> Step {
        if let Err(error) = self.begin(Phase::Initialized, 0).await {
            let text = format!("failed to sync canary {} status: {error}", self.names.canary());
            self.say(What::Warning(&text)).await;
            return Err(Halt);
        }
        self.told_phase = Phase::Initialized;
        self.tell_initialized().await;
        Ok(())
    }

    /// The primary must be up before the target is scaled down for the first time.
    async fn await_primary(&mut self) -> Step {
        if self.subject.spec.skips_analysis() {
            return Ok(());
        }
        let rollout = self.port.primary_rollout().await;
        let rollout = self.demand(rollout).await?;
        let Err(reason) = self.verdict(&rollout, Role::Primary) else { return Ok(()) };
        self.say(What::Warning(&reason.text)).await;
        if self.is_latest() && !reason.retriable {
            self.roll_back().await?;
        }
        Err(Halt)
    }

    /// Asks each metrics server that the analysis names whether it answers.
    async fn probe_metrics(&mut self) {
        for index in 0..self.analysis.metrics.len() {
            if let Err(error) = self.probe(index).await {
                self.say(What::MetricsOffline(&error)).await;
                return;
            }
        }
        self.say(What::MetricsOnline).await;
    }

    async fn probe(&mut self, index: usize) -> Result<(), String> {
        let metric = &self.analysis.metrics[index];
        if matches!(metric.name.as_str(), "request-success-rate" | "request-duration") {
            let online = self.port.is_online(Server::Default).await;
            return online.map_err(|error| match error {
                QueryError::Client(error) => {
                    let server = &self.subject.spec.metrics_server;
                    format!("error building Prometheus client for {server} {error}")
                }
                other => format!("prometheus not avaiable: {}", other.text()),
            });
        }
        let Some(reference) = &metric.template_ref else { return Ok(()) };
        let namespace =
            if reference.namespace.is_empty() { self.subject.namespace } else { &reference.namespace };
        let name = format!("{}.{namespace}", reference.name);
        let found = self.port.metric_template(namespace, &reference.name).await;
        let template = found.map_err(|error| format!("metric template {name} error: {error}"))?;
        let kind = &template.spec.provider.kind;
        let online = self.port.is_online(Server::Template(&template)).await;
        online.map_err(|error| match error {
            QueryError::Secret { name: secret, error } => {
                format!("metric template {name} secret {secret} error: {error}")
            }
            QueryError::Provider(error) => format!("metric template {name} provider {kind} error: {error}"),
            other => format!("{kind} in metric template {name} not avaiable: {}", other.text()),
        })
    }
}
