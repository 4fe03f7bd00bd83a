//! `canary::Port` over a tick: the verbs of the core, each a call to what does it.

use std::collections::BTreeMap;
use std::sync::Arc;

use canary::{
    Alert, Dialect, Kind, Measure, Message, Port, Query, QueryError, Rollout, Routes, Scale, Server,
    Settings, Severity, StatusChange, Subject, What, advance,
};
use crd::{Canary, CanaryAnalysis, CanaryStatus, CanaryWebhook, MetricTemplate, Phase};

use crate::configs;
use crate::log::{Level, Site, site};
use crate::notifier::Notice;
use crate::recorder::Run;
use crate::service::Role;
use crate::shell::Shell;
use crate::tick::{EventKind, Tick};
use crate::workload::Which;

const NOT_FOUND: Site = site("controller/scheduler.go:94", "controller/scheduler.go:164");

/// Runs one tick.
pub async fn run(shell: &Arc<Shell>, namespace: &str, name: &str) {
    let Ok(canary) = shell.canaries(namespace).get(name).await else {
        let key = format!("{name}.{namespace}");
        shell.log.about(Level::Error, NOT_FOUND, &key, &format!("Canary {key} not found"));
        return;
    };
    // The core judges the Canary as it was read; the port's own copy follows what is written.
    let mut tick = Tick::new(shell, Arc::clone(&canary));
    let status = canary.status.clone().unwrap_or_default();
    let subject = Subject { name, namespace, spec: &canary.spec, status: &status };
    let provider = tick.provider.clone();
    let settings = Settings { dialect: shell.dialect, provider: &provider };
    advance(subject, settings, &mut tick).await;
}

impl Port for Tick {
    async fn read_target(&mut self) -> Result<(), String> {
        self.load_target().await
    }

    async fn reconcile_services(&mut self) -> Result<(), String> {
        self.ensure_service(Role::Canary).await?;
        self.ensure_service(Role::Primary).await
    }

    async fn create_primary(&mut self) -> Result<(), String> {
        self.ensure_primary().await
    }

    async fn reconcile_scaler(&mut self, only_create: bool) -> Result<(), String> {
        self.ensure_scaler(only_create).await
    }

    async fn reconcile_apex(&mut self) -> Result<(), String> {
        self.ensure_service(Role::Apex).await
    }

    async fn reconcile_routes(&mut self) -> Result<(), String> {
        self.ensure_routes().await
    }

    async fn routes(&mut self) -> Result<Routes, String> {
        self.read_routes().await
    }

    async fn set_routes(&mut self, routes: Routes) -> Result<(), String> {
        self.write_routes(routes).await
    }

    async fn primary_rollout(&mut self) -> Result<Rollout, String> {
        self.rollout_of(Which::Primary).await
    }

    async fn canary_rollout(&mut self) -> Result<Rollout, String> {
        self.rollout_of(Which::Target).await
    }

    async fn scale_target(&mut self, scale: Scale) -> Result<(), String> {
        self.scale(scale).await
    }

    async fn pause_scaler(&mut self) -> Result<(), String> {
        self.pause_target_scaler().await
    }

    async fn resume_scaler(&mut self) -> Result<(), String> {
        self.resume_target_scaler().await
    }

    async fn target_hash(&mut self) -> Result<String, String> {
        self.target_revision().await
    }

    async fn target_configs(&mut self) -> Result<Option<BTreeMap<String, String>>, String> {
        Ok(self.target_refs().await?.map(|refs| configs::tracked(&refs)))
    }

    async fn promote(&mut self) -> Result<(), String> {
        self.promote_primary().await
    }

    async fn call_webhook(&mut self, hook: &CanaryWebhook, phase: Phase) -> Result<(), String> {
        self.ask(hook, phase).await
    }

    async fn metric_template(&mut self, namespace: &str, name: &str) -> Result<MetricTemplate, String> {
        self.template(namespace, name)
    }

    async fn query(&mut self, query: &Query<'_>) -> Result<f64, QueryError> {
        let server = self.metrics_server(query.server, Some(&query.metric.interval)).await?;
        let text = query.text().map_err(|error| match query.server {
            Server::Default => QueryError::Failed(error),
            Server::Template(_) => QueryError::Unrendered(error),
        })?;
        server.query(&self.shell, &text).await
    }

    async fn is_online(&mut self, server: Server<'_>) -> Result<(), QueryError> {
        self.metrics_server(server, None).await?.is_online(&self.shell).await
    }

    async fn write_status(&mut self, change: StatusChange) -> Result<(), String> {
        let written = self.update_status(|status, spec, now| change.apply(status, spec, now)).await;
        written.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 => format!("{}: {error}", verb(&change)),
            Dialect::Latest => {
                format!("failed after retries: updating canary {} status failed: {error}", self.key)
            }
        })
    }

    async fn read_status(&mut self) -> Result<CanaryStatus, String> {
        self.read_back().await
    }

    async fn record(&mut self, message: &Message<'_>, phase: Phase) {
        let kind = match message.kind() {
            Kind::Info | Kind::Log => EventKind::Info,
            Kind::Warning => EventKind::Warning,
            Kind::Error => EventKind::Error,
        };
        self.event(kind, &message.to_string(), phase).await;
    }

    async fn alert(&mut self, alert: &Alert<'_>, severity: Severity) {
        let dialect = self.shell.dialect;
        let mut fields = Vec::new();
        let cluster = &self.shell.options.cluster_name;
        if dialect == Dialect::Latest && !cluster.is_empty() {
            fields.push(("Cluster".to_owned(), cluster.clone()));
        }
        if alert.with_fields {
            fields.extend(settings(&self.canary));
        }
        let error = severity == Severity::Error;
        let notice = Notice { canary: &self.key, message: &alert.message, fields: &fields, error };
        self.notify(&notice, |wanted| canary::reaches(wanted, severity, dialect)).await;
    }

    fn log(&mut self, kind: Kind, message: &Message<'_>) {
        let level = match kind {
            Kind::Info | Kind::Log | Kind::Warning => Level::Info,
            Kind::Error => Level::Error,
        };
        self.shell.log.about(level, origin(&message.what), &self.key, &message.to_string());
    }

    fn measure(&mut self, measure: Measure<'_>) {
        let (recorder, namespace) = (&self.shell.recorder, self.canary.namespace());
        let target = &self.canary.spec.target_ref.name;
        let run = |skipped| Run { strategy: strategy(&self.canary), skipped };
        match measure {
            Measure::Status(phase) => recorder.status(target, namespace, phase),
            Measure::Weight(routes) => recorder.weight(target, namespace, routes.primary, routes.canary),
            Measure::Analysis { metric, value } => recorder.analysis(target, namespace, metric, value),
            Measure::Success { skipped } => recorder.success(target, namespace, run(skipped)),
            Measure::Failure => recorder.failure(target, namespace, run(false)),
            Measure::Judged => {
                let took = self.shell.context.clock.elapsed().saturating_sub(self.began);
                recorder.duration(target, namespace, took);
            }
        }
    }
}

/// Upstream's name of a write of the status.
fn verb(change: &StatusChange) -> &'static str {
    match change {
        StatusChange::Begin { .. } | StatusChange::Applied(_) => "SyncStatus",
        StatusChange::Phase(..) | StatusChange::AwaitPromotion { .. } => "SetStatusPhase",
        StatusChange::FailedChecks(_) => "SetStatusFailedChecks",
        StatusChange::Weight(_) => "SetStatusWeight",
        StatusChange::Iterations(_) => "SetStatusIterations",
    }
}

/// A Canary's strategy as the controller's metrics call it.
fn strategy(canary: &Canary) -> &'static str {
    let Some(analysis) = canary.spec.analysis() else { return "canary" };
    let weighted = analysis.step_weight > 0 || !analysis.step_weights.is_empty();
    if !analysis.matches.is_empty() {
        "ab-testing"
    } else if analysis.iterations > 0 && !weighted {
        "blue-green"
    } else {
        "canary"
    }
}

/// What an alert shows of a Canary's settings.
fn settings(canary: &Canary) -> Vec<(String, String)> {
    let spec = &canary.spec;
    let target = &spec.target_ref;
    let none = CanaryAnalysis::default();
    let analysis = spec.analysis().unwrap_or(&none);
    let mut fields = vec![
        ("Target", format!("{}/{}.{}", target.kind, target.name, canary.namespace())),
        ("Failed checks threshold", analysis.threshold.max(1).to_string()),
        ("Progress deadline", format!("{}s", spec.progress_deadline_seconds())),
    ];
    if analysis.step_weight > 0 {
        let (step, most) = (analysis.step_weight, analysis.max_weight);
        fields.push(("Traffic routing", format!("Weight step: {step} max: {most}")));
    } else if !analysis.step_weights.is_empty() {
        let steps: Vec<String> = analysis.step_weights.iter().map(i32::to_string).collect();
        let (steps, most) = (steps.join(","), analysis.max_weight);
        fields.push(("Traffic routing", format!("Weight steps: {steps} max: {most}")));
    } else if !analysis.matches.is_empty() {
        fields.push(("Traffic routing", "A/B Testing".to_owned()));
    } else if analysis.iterations > 0 {
        fields.push(("Traffic routing", "Blue/Green".to_owned()));
    }
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Where in the sources a message is logged that makes no Event.
fn origin(what: &What<'_>) -> Site {
    match what {
        What::ScalingDown => site("canary/deployment_controller.go:47", "controller/scheduler.go:258"),
        What::ConfigChanged(..) => site("canary/config_tracker.go:273", "canary/config_tracker.go:286"),
        What::MirrorStep(..) => site("controller/scheduler.go:372", "controller/scheduler.go:588"),
        What::MirrorStarts => site("controller/scheduler.go:477", "controller/scheduler.go:695"),
        _ => site("controller/scheduler.go:615", "controller/scheduler.go:898"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_show_the_settings() {
        let mut canary = Canary::new("test", "podinfo", Default::default());
        canary.spec.target_ref.kind = "Deployment".to_owned();
        canary.spec.target_ref.name = "podinfo".to_owned();
        canary.spec.analysis =
            Some(CanaryAnalysis { step_weight: 5, max_weight: 50, threshold: 10, ..Default::default() });
        let shown: Vec<String> =
            settings(&canary).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let expected = [
            "Target: Deployment/podinfo.test",
            "Failed checks threshold: 10",
            "Progress deadline: 600s",
            "Traffic routing: Weight step: 5 max: 50",
        ];
        assert_eq!(shown, expected);
        assert_eq!(strategy(&canary), "canary");
    }
}
