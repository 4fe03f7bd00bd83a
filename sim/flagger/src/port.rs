//! `canary::Port` over a tick: the verbs of the core, each a call to what does it.

use std::collections::BTreeMap;
use std::sync::Arc;

use canary::{
    Alert, Kind, Measure, Message, Port, Query, QueryError, Rollout, Routes, Scale, Server, Severity,
    StatusChange,
};
use crd::{CanaryStatus, CanaryWebhook, MetricTemplate, Phase};

use crate::configs;
use crate::deployment;
use crate::log::{Level, Site, site};
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
    let mut tick = Tick::new(shell, canary);
    let _ = &mut tick;
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

    async fn target_hash(&mut self) -> Result<String, String> {
        let target = self.deployment(Which::Target).await?;
        Ok(deployment::hash(&target.spec.map(|spec| spec.template)))
    }

    async fn target_configs(&mut self) -> Result<Option<BTreeMap<String, String>>, String> {
        if !self.shell.options.enable_config_tracking {
            return Ok(None);
        }
        let target = self.deployment(Which::Target).await?;
        Ok(Some(configs::tracked(&self.refs(&target).await?)))
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
        let server = self.metrics_server(query.server).await?;
        let text = query.text().map_err(QueryError::Failed)?;
        server.query(&self.shell.context, &text).await
    }

    async fn is_online(&mut self, server: Server<'_>) -> Result<(), QueryError> {
        self.metrics_server(server).await?.is_online(&self.shell.context).await
    }

    async fn write_status(&mut self, _change: StatusChange) -> Result<(), String> {
        self.update_status(|_, _, _| {}).await
    }

    async fn read_status(&mut self) -> Result<CanaryStatus, String> {
        self.reload().await
    }

    async fn record(&mut self, _message: &Message<'_>, phase: Phase) {
        self.event(EventKind::Info, "", phase).await;
    }

    async fn alert(&mut self, _alert: &Alert<'_>, _severity: Severity) {}

    fn log(&mut self, _kind: Kind, _message: &Message<'_>) {}

    fn measure(&mut self, measure: Measure<'_>) {
        let _ = measure;
    }
}
