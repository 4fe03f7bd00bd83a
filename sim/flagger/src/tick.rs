//! One tick of one Canary: what is known of it, and the verbs that are no object's: status, events, metrics,
//! alerts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canary::{Dialect, Names, NotReady, QueryError, Rollout, Server};
use clock::Timestamp;
use crd::{Canary, CanarySpec, CanaryStatus, CanaryWebhook, HookType, MetricTemplate, Phase};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use program::Api;

use crate::events::{self, Type};
use crate::kubernetes::{ATTEMPTS, is_conflict, text};
use crate::log::{Level, Site, site};
use crate::notifier::{Notice, Notifier};
use crate::owner;
use crate::pods::Selector;
use crate::prometheus::Prometheus;
use crate::providers::{Credentials, Provider};
use crate::shell::Shell;
use crate::webhook::{self, Payload};

const EVENT_INFO: Site = site("controller/events.go:15", "controller/events.go:33");
const EVENT_ERROR: Site = site("controller/events.go:21", "controller/events.go:39");
const EVENT_WARNING: Site = site("controller/events.go:27", "controller/events.go:45");
const EVENT_HOOK: Site = site("controller/events.go:40", "controller/events.go:57");
const ALERT: Site = site("controller/events.go:69", "controller/events.go:95");
const ALERT_PROVIDER: Site = site("controller/events.go:103", "controller/events.go:130");

/// The time that a webhook gets which is told an event.
const EVENT_HOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// A tick's state: the Canary as last read, and what was learnt about its target.
pub struct Tick {
    /// What all ticks share.
    pub shell: Arc<Shell>,
    /// The Canary.
    pub canary: Arc<Canary>,
    /// Its name in logs, `NAME.NAMESPACE`.
    pub key: String,
    /// Who routes its traffic.
    pub provider: String,
    /// How its pods are told apart, once the target has been read.
    pub selector: Option<Selector>,
    /// The target's other ports, if they are to be discovered.
    pub ports: BTreeMap<String, i32>,
    /// When the tick began.
    pub began: Duration,
    /// Whether the status is what a write has just answered.
    is_fresh: bool,
}

/// How an event is logged and what type it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Logged at info, type Normal.
    Info,
    /// Logged at info, type Warning.
    Warning,
    /// Logged at error, type Warning.
    Error,
}

impl Tick {
    /// A tick that begins now.
    pub fn new(shell: &Arc<Shell>, canary: Arc<Canary>) -> Self {
        let provider = match canary.spec.provider.as_str() {
            "" => shell.options.mesh_provider.clone(),
            provider => provider.to_owned(),
        };
        Tick {
            key: owner::key(&canary),
            began: shell.context.clock.elapsed(),
            shell: Arc::clone(shell),
            provider,
            selector: None,
            ports: BTreeMap::new(),
            is_fresh: false,
            canary,
        }
    }

    /// The names that messages mention.
    pub fn names(&self) -> Names<'_> {
        let target = &self.canary.spec.target_ref;
        Names {
            name: self.canary.name(),
            namespace: self.canary.namespace(),
            target: &target.name,
            kind: &target.kind,
            provider: &self.provider,
        }
    }

    /// Logs a line, makes an Event of it and tells the event webhooks, which see `phase`.
    pub async fn event(&self, kind: EventKind, message: &str, phase: Phase) {
        let (level, at, kind) = match kind {
            EventKind::Info => (Level::Info, EVENT_INFO, Type::Normal),
            EventKind::Warning => (Level::Info, EVENT_WARNING, Type::Warning),
            EventKind::Error => (Level::Error, EVENT_ERROR, Type::Warning),
        };
        let now = self.shell.context.clock.now();
        self.shell.log.about(level, at, &self.key, message);
        self.shell.events.record(&self.canary, kind, message, now);
        let hooks = self.canary.spec.analysis().map_or(&[][..], |analysis| &analysis.webhooks);
        let own: Vec<&CanaryWebhook> = hooks.iter().filter(|hook| hook.kind == HookType::Event).collect();
        let url = &self.shell.options.event_webhook;
        if own.is_empty() && !url.is_empty() {
            let hook = CanaryWebhook { name: "events".to_owned(), url: url.clone(), ..Default::default() };
            self.tell(&hook, message, kind, phase, now).await;
        }
        for hook in own {
            self.tell(hook, message, kind, phase, now).await;
        }
    }

    async fn tell(&self, hook: &CanaryWebhook, message: &str, kind: Type, phase: Phase, now: Timestamp) {
        let dialect = self.shell.dialect;
        let payload = Payload::event(&self.canary, hook, phase, message, kind.as_str(), now, dialect);
        let limit = (dialect == Dialect::Rc1).then_some(EVENT_HOOK_TIMEOUT);
        let told = webhook::post(&self.shell.context, hook, &payload, limit, dialect).await;
        if let Err(error) = told {
            self.error(EVENT_HOOK, &format!("error sending event to webhook: {error}"));
        }
    }

    /// An event at level info, told with the Canary's own phase.
    pub async fn event_info(&self, message: &str) {
        let phase = self.canary.status.as_ref().map(|status| status.phase).unwrap_or_default();
        self.event(EventKind::Info, message, phase).await;
    }

    /// Logs about the Canary at level error.
    pub fn error(&self, at: Site, message: &str) {
        self.shell.log.about(Level::Error, at, &self.key, message);
    }

    /// Writes a phase and nothing else.
    ///
    /// # Errors
    /// The API's.
    pub async fn enter(&mut self, phase: Phase) -> Result<(), String> {
        self.update_status(|status, _, now| {
            status.phase = phase;
            status.last_transition_time = Some(Time(now));
        })
        .await
    }

    /// Judges the target's rollout.
    ///
    /// # Errors
    /// Why it is not ready.
    pub fn judge_target(&self, rollout: &Rollout) -> Result<(), NotReady> {
        let spec = &self.canary.spec;
        let threshold = spec.analysis().and_then(|analysis| analysis.canary_ready_threshold).unwrap_or(100);
        let deadline = spec.progress_deadline_seconds();
        canary::ready(rollout, canary::Role::Canary, &self.names(), deadline, threshold, self.shell.dialect)
    }

    /// Asks a webhook.
    ///
    /// # Errors
    /// Its refusal, or why it could not be asked.
    pub async fn ask(&self, hook: &CanaryWebhook, phase: Phase) -> Result<(), String> {
        let dialect = self.shell.dialect;
        let payload = Payload::question(&self.canary, hook, phase, dialect);
        webhook::post(&self.shell.context, hook, &payload, None, dialect).await
    }

    /// Writes the status: `change` is applied to the Canary as this tick knows it, and after a conflict to a
    /// fresh read.
    ///
    /// # Errors
    /// The API's.
    pub async fn update_status(
        &mut self,
        change: impl Fn(&mut CanaryStatus, &CanarySpec, Timestamp) + Send + Sync,
    ) -> Result<(), String> {
        let api = self.shell.canaries(self.canary.namespace());
        let name = self.canary.name().to_owned();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut written = Canary::clone(&self.canary);
            let now = events::seconds(self.shell.context.clock.now());
            change(written.status.get_or_insert_default(), &self.canary.spec, now);
            match api.replace_status(&name, &written).await {
                Ok(written) => {
                    self.take(written.read().map_err(|error| text(&error))?);
                    self.is_fresh = true;
                    return Ok(());
                }
                Err(error) if attempt < ATTEMPTS && is_conflict(&error) => {
                    let canary = api.get(&name).await;
                    self.take(canary.map_err(|error| text(&error))?);
                }
                Err(error) => return Err(text(&error)),
            }
        }
    }

    /// Reads the status again; right after a write that is what the API answered.
    ///
    /// # Errors
    /// The API's.
    pub async fn read_back(&mut self) -> Result<CanaryStatus, String> {
        if !std::mem::take(&mut self.is_fresh) {
            let api = self.shell.canaries(self.canary.namespace());
            let canary = api.get(self.canary.name()).await;
            self.take(canary.map_err(|error| text(&error))?);
        }
        Ok(self.canary.status.clone().unwrap_or_default())
    }

    /// Follows the Canary's status. Its spec stays what it was at the tick's beginning.
    fn take(&mut self, canary: Arc<Canary>) {
        if canary.spec == self.canary.spec {
            self.canary = canary;
            return;
        }
        let own = Arc::make_mut(&mut self.canary);
        own.metadata = canary.metadata.clone();
        own.status.clone_from(&canary.status);
    }

    /// A MetricTemplate.
    ///
    /// # Errors
    /// That there is none.
    pub fn template(&self, namespace: &str, name: &str) -> Result<MetricTemplate, String> {
        let found = self.shell.templates.get(namespace, name);
        let found = found.ok_or_else(|| format!("metrictemplate.flagger.app {name:?} not found"))?;
        Ok(MetricTemplate::clone(&found))
    }

    /// The metrics server to ask; `interval` is the metric's window, if one is to be asked.
    ///
    /// # Errors
    /// The [`QueryError`] that tells which part of its definition is unusable.
    pub async fn metrics_server(
        &self,
        server: Server<'_>,
        interval: Option<&str>,
    ) -> Result<Provider, QueryError> {
        let dialect = self.shell.dialect;
        let template = match server {
            Server::Default => {
                let own = &self.canary.spec.metrics_server;
                let address = if own.is_empty() { &self.shell.options.metrics_server } else { own };
                let prometheus = Prometheus::new(address, dialect);
                return prometheus.map(Provider::Prometheus).map_err(QueryError::Client);
            }
            Server::Template(template) => template,
        };
        let provider = &template.spec.provider;
        let mut secret = Credentials::new();
        if let Some(reference) = &provider.secret_ref {
            let api: Api<Secret> = Api::namespaced(self.shell.client.clone(), template.namespace());
            let found = api.get(&reference.name).await;
            let found = found
                .map_err(|error| QueryError::Secret { name: reference.name.clone(), error: text(&error) })?;
            let data = found.data.iter().flatten();
            let text = |value: &ByteString| String::from_utf8_lossy(&value.0).into_owned();
            secret.extend(data.map(|(key, value)| (key.clone(), text(value))));
        }
        Provider::new(provider, &secret, interval, dialect).map_err(QueryError::Provider)
    }

    /// Posts a notice to the Canary's providers whose severity lets it through, or to the controller's own.
    /// `reaches` judges an alert's severity.
    pub async fn notify(&self, notice: &Notice<'_>, reaches: impl Fn(&str) -> bool + Send) {
        let (context, dialect) = (&self.shell.context, self.shell.dialect);
        let alerts = self.canary.spec.analysis().map_or(&[][..], |analysis| &analysis.alerts);
        if alerts.is_empty() {
            if let Some(notifier) = &self.shell.notifier
                && let Err(error) = notifier.post(context, notice, dialect).await
            {
                self.error(ALERT, &format!("alert can't be sent: {error}"));
            }
            return;
        }
        let reached: Vec<_> = alerts.iter().filter(|alert| reaches(&alert.severity)).collect();
        for alert in reached {
            let reference = &alert.provider_ref;
            let namespace = match reference.namespace.as_str() {
                "" => self.canary.namespace(),
                namespace => namespace,
            };
            let name = format!("{}.{namespace}", reference.name);
            let posted = match self.alert_provider(namespace, &reference.name).await {
                Ok(notifier) => {
                    let posted = notifier.post(context, notice, dialect).await;
                    posted.map_err(|error| format!("send error: {error}"))
                }
                Err(error) => Err(error),
            };
            if let Err(error) = posted {
                self.error(ALERT_PROVIDER, &format!("alert provider {name} {error}"));
            }
        }
    }

    async fn alert_provider(&self, namespace: &str, name: &str) -> Result<Notifier, String> {
        let provider = self.shell.alert_providers.get(namespace, name);
        let provider =
            provider.ok_or_else(|| format!("error: alertprovider.flagger.app {name:?} not found"))?;
        let spec = &provider.spec;
        let (mut address, mut token) = (spec.address.clone(), String::new());
        if let Some(reference) = &spec.secret_ref {
            let api: Api<Secret> = Api::namespaced(self.shell.client.clone(), namespace);
            let secret = api.get(&reference.name).await;
            let secret = secret.map_err(|error| format!("secretRef error: {}", text(&error)))?;
            let found = secret.data.as_ref().and_then(|data| data.get("address"));
            let found = found.ok_or("secret does not contain an address")?;
            address = String::from_utf8_lossy(&found.0).trim().to_owned();
            let found = secret.data.as_ref().and_then(|data| data.get("token"));
            if let (Dialect::Latest, Some(found)) = (self.shell.dialect, found) {
                token = String::from_utf8_lossy(&found.0).into_owned();
            }
        }
        let or =
            |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        let (username, channel) = (or(&spec.username, "flagger"), or(&spec.channel, "general"));
        let notifier = Notifier::new(&spec.kind, &address, &username, &channel, self.shell.dialect);
        notifier.map(|notifier| notifier.with_token(&token)).map_err(|error| format!("error: {error}"))
    }
}
