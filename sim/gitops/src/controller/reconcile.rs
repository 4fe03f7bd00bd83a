//! One Application, once: compare, decide, sync, write the status.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use crd::{
    Application, ApplicationCondition, ApplicationDestination, ApplicationSource, ApplicationStatus,
    ApplicationSummary, ComparedTo, HealthStatus, Operation, OperationInitiator, OperationState,
    ResourceResult, RevisionHistory, SyncOperation, SyncOperationResult, SyncStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, Patch};
use program::{Api, Context, Seen, Selection, WorkQueue, list_and_watch};
use serde_json::{Value, json};

use super::compare::{self, Compared};
use super::destination::{self, Destination};
use super::sync::{self, Options};
use super::{Reasons, log};
use crate::git::Remotes;
use crate::manifests;

/// The annotation that asks for a comparison with git now.
pub(crate) const REFRESH: &str = "argocd.argoproj.io/refresh";
/// The time that an object's change waits for more of them, so that a rollout is not one comparison per pod.
const LIVE_DELAY: Duration = Duration::from_secs(1);
/// How long a healed Application is left alone.
const SELF_HEAL: Duration = Duration::from_secs(5);
/// Entries of the history that are kept unless the Application says otherwise.
const HISTORY: usize = 10;
/// Retries of an automated sync without a retry strategy of its own.
const RETRIES: i64 = 5;

/// Why an Application is looked at, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// One of its objects changed: compare with the manifests at hand.
    LiveChanged,
    /// Git is asked again.
    Refresh,
}

/// What the controller remembers of an Application between two looks.
#[derive(Default)]
struct Memory {
    /// The commit and manifests of the last look at git, and the source they came from.
    rendered: Option<(ApplicationSource, String, Vec<Value>)>,
    /// The destination as it was found when git was asked last.
    destination: Option<(ApplicationDestination, Destination)>,
    /// When git is asked next, as the run's elapsed time.
    resync_at: Duration,
    /// Kinds whose objects are watched, by server.
    watched: BTreeSet<(String, String, String)>,
    /// When a failed sync is tried again.
    retry_at: Option<Duration>,
}

/// Looks at Applications, one at a time.
pub(crate) struct Reconciler {
    context: Context,
    remotes: Remotes,
    queue: WorkQueue<String>,
    reasons: Reasons,
    resync: Duration,
    memory: BTreeMap<String, Memory>,
}

impl Reconciler {
    /// A controller's only reconciler.
    pub fn new(
        context: Context,
        remotes: Remotes,
        queue: WorkQueue<String>,
        reasons: Reasons,
        resync: Duration,
    ) -> Self {
        Reconciler { context, remotes, queue, reasons, resync, memory: BTreeMap::new() }
    }

    fn api(&self) -> Api<Application> {
        Api::namespaced(self.context.apis.in_cluster(), &self.context.identity.namespace)
    }

    fn time(&self) -> Option<Time> {
        let second = self.context.clock.now().as_second();
        jiff::Timestamp::from_second(second).ok().map(Time)
    }

    /// Looks at one Application.
    pub async fn reconcile(&mut self, name: &str, why: Why) {
        let application = match self.api().get_opt(name).await {
            Ok(Some(application)) => application,
            Ok(None) => {
                self.memory.remove(name);
                return;
            }
            Err(error) => {
                log(&self.context, "error", &format!("Failed to get application: {error}"), Some(name));
                self.queue.retry(name.to_owned());
                return;
            }
        };
        self.queue.forget(&name.to_owned());
        if application.metadata.deletion_timestamp.is_some() {
            return;
        }
        let elapsed = self.context.clock.elapsed();
        let memory = self.memory.entry(name.to_owned()).or_default();
        let refresh = why == Why::Refresh || memory.rendered.is_none() || elapsed >= memory.resync_at;
        if refresh {
            memory.resync_at = elapsed + self.resync;
            self.reasons.add(name, Why::LiveChanged);
            self.queue.add_after(name.to_owned(), self.resync);
        }
        self.clear_refresh(&application).await;

        let mut status = application.status.clone().unwrap_or_default();
        status.conditions.clear();
        let outcome = self.compare(&application, refresh).await;
        match outcome {
            Ok((destination, revision, compared)) => {
                self.settle(&application, &mut status, destination, revision, compared).await;
            }
            Err(condition) => {
                log(&self.context, "error", &condition.message, Some(name));
                status.sync.status = "Unknown".into();
                status.health.status = "Unknown".into();
                status.conditions.push(condition);
            }
        }
        self.write(&application, status, refresh).await;
    }

    async fn clear_refresh(&self, application: &Application) {
        let asked = application.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(REFRESH));
        if asked {
            let patch = json!({"metadata": {"annotations": {REFRESH: null}}});
            // The annotation stays if this fails, and asks again.
            let _ = self.api().patch(application.name(), &Patch::Merge(&patch)).await;
        }
    }

    /// Renders the source (asking git when `refresh`) and compares it with the destination.
    async fn compare(
        &mut self,
        application: &Application,
        refresh: bool,
    ) -> Result<(Destination, String, Vec<Compared>), ApplicationCondition> {
        let name = application.name();
        let now = self.time();
        let condition = |kind: &str, message: String| ApplicationCondition {
            kind: kind.into(),
            message,
            last_transition_time: now.clone(),
            ..ApplicationCondition::default()
        };
        let invalid = |message: String| condition("InvalidSpecError", message);
        let incomparable = |message: String| condition("ComparisonError", message);
        let Some(source) = application.spec.source.clone() else {
            return Err(invalid(
                "spec.source is required: applications with several sources are not supported".into(),
            ));
        };
        let memory = self.memory.entry(name.to_owned()).or_default();
        let wanted = &application.spec.destination;
        let mut destination = match memory.destination.take() {
            Some((found, destination)) if !refresh && found == *wanted => destination,
            _ => destination::find(&self.context, wanted).await.map_err(invalid)?,
        };
        let memory = self.memory.get(name).and_then(|memory| memory.rendered.as_ref());
        let (revision, targets) = match memory {
            Some((rendered, revision, targets)) if !refresh && *rendered == source => {
                (revision.clone(), targets.clone())
            }
            _ => {
                let (revision, targets) = self.render(&source, memory).map_err(incomparable)?;
                let rendered = Some((source, revision.clone(), targets.clone()));
                self.memory.entry(name.to_owned()).or_default().rendered = rendered;
                (revision, targets)
            }
        };
        let known = application.status.as_ref().map(|status| status.resources.as_slice()).unwrap_or_default();
        let namespace = &application.spec.destination.namespace;
        let compared = compare::compare(&mut destination, name, namespace, targets, known)
            .await
            .map_err(|message| condition("ComparisonError", message))?;
        // Not kept when anything failed: it may be another one by now.
        let memory = self.memory.entry(name.to_owned()).or_default();
        memory.destination = Some((wanted.clone(), destination.clone()));
        Ok((destination, revision, compared))
    }

    fn render(
        &self,
        source: &ApplicationSource,
        memory: Option<&(ApplicationSource, String, Vec<Value>)>,
    ) -> Result<(String, Vec<Value>), String> {
        let repository = self.remotes.get(&source.repo_url).map_err(|error| error.to_string())?;
        let wanted = if source.target_revision.is_empty() { "HEAD" } else { &source.target_revision };
        let revision = repository.resolve(wanted).map_err(|error| error.to_string())?;
        if let Some((rendered, at, targets)) = memory
            && rendered == source
            && *at == revision
        {
            return Ok((revision, targets.clone()));
        }
        let files = repository.files(&revision).map_err(|error| error.to_string())?;
        let targets = manifests::render(&files, &source.path).map_err(|error| error.to_string())?;
        Ok((revision, targets))
    }

    /// Fills the status from a comparison, and syncs if that is called for.
    async fn settle(
        &mut self,
        application: &Application,
        status: &mut ApplicationStatus,
        mut destination: Destination,
        revision: String,
        mut compared: Vec<Compared>,
    ) {
        self.watch_kinds(application.name(), &mut destination, &compared).await;
        self.describe(application, status, &revision, &compared);
        if let Some(operation) = self.decide(application, status, &revision, &compared) {
            let namespace = application.spec.destination.namespace.clone();
            let targets: Vec<Value> = compared.iter().filter_map(|entry| entry.target.clone()).collect();
            self.sync(application, status, &mut destination, &revision, &compared, operation).await;
            let known = std::mem::take(&mut status.resources);
            match compare::compare(&mut destination, application.name(), &namespace, targets, &known).await {
                Ok(after) => compared = after,
                Err(message) => log(&self.context, "error", &message, Some(application.name())),
            }
            self.describe(application, status, &revision, &compared);
        }
    }

    /// Writes sync status, health and resources into the status; says what changed.
    fn describe(
        &self,
        application: &Application,
        status: &mut ApplicationStatus,
        revision: &str,
        compared: &[Compared],
    ) {
        let name = application.name();
        let synced = if compared.iter().any(|entry| entry.differs) { "OutOfSync" } else { "Synced" };
        if status.sync.status != synced {
            let message = format!("Updated sync status: {} -> {synced}", status.sync.status);
            log(&self.context, "info", &message, Some(name));
        }
        let compared_to = ComparedTo {
            source: application.spec.source.clone(),
            destination: application.spec.destination.clone(),
            ..ComparedTo::default()
        };
        status.sync = SyncStatus {
            status: synced.into(),
            revision: revision.into(),
            compared_to: Some(compared_to),
            ..SyncStatus::default()
        };
        let health = compare::health(compared).as_str();
        if status.health.status != health {
            let message = format!("Updated health status: {} -> {health}", status.health.status);
            log(&self.context, "info", &message, Some(name));
            status.health = HealthStatus {
                status: health.into(),
                last_transition_time: self.time(),
                ..HealthStatus::default()
            };
        }
        status.resources = compare::resources(compared);
        status.summary =
            ApplicationSummary { images: compare::images(compared), ..ApplicationSummary::default() };
        status.source_type = "Kustomize".into();
    }

    /// The sync to run now, if any: one that somebody asked for, or an automated one.
    fn decide(
        &mut self,
        application: &Application,
        status: &mut ApplicationStatus,
        revision: &str,
        compared: &[Compared],
    ) -> Option<Operation> {
        let name = application.name();
        if let Some(operation) = &application.operation {
            return Some(operation.clone());
        }
        let automated = application.spec.sync_policy.as_ref()?.automated.as_ref()?;
        if automated.enabled == Some(false) || status.sync.status != "OutOfSync" {
            return None;
        }
        let only_pruning = compared.iter().all(|entry| !entry.differs || entry.target.is_none());
        if only_pruning && !automated.prune {
            return None;
        }
        if automated.prune && !automated.allow_empty && compared.iter().all(|entry| entry.target.is_none()) {
            status.conditions.push(ApplicationCondition {
                kind: "SyncError".into(),
                message: format!(
                    "Skipping sync attempt to {revision}: auto-sync will wipe out all resources"
                ),
                last_transition_time: self.time(),
                ..ApplicationCondition::default()
            });
            return None;
        }
        let elapsed = self.context.clock.elapsed();
        let memory = self.memory.entry(name.to_owned()).or_default();
        let attempted = status.operation_state.as_ref().filter(|state| {
            state
                .sync_result
                .as_ref()
                .is_some_and(|result| result.revision == revision && result.source == application.spec.source)
        });
        if let Some(state) = attempted {
            match memory.retry_at {
                Some(at) if elapsed >= at => memory.retry_at = None,
                Some(_) => return None,
                None if state.phase != "Succeeded" => {
                    status.conditions.push(ApplicationCondition {
                        kind: "SyncError".into(),
                        message: format!("Failed sync attempt to {revision}: {}", state.message),
                        last_transition_time: self.time(),
                        ..ApplicationCondition::default()
                    });
                    return None;
                }
                None if !automated.self_heal => return None,
                None => {
                    let finished = state.finished_at.as_ref().map(|time| time.0).unwrap_or_default();
                    let since = self.context.clock.now().duration_since(finished);
                    if Duration::try_from(since).unwrap_or_default() < SELF_HEAL {
                        self.queue.add_after(name.to_owned(), SELF_HEAL);
                        return None;
                    }
                }
            }
        } else {
            memory.retry_at = None;
        }
        log(&self.context, "info", &format!("Initiated automated sync to '{revision}'"), Some(name));
        Some(Operation {
            sync: Some(SyncOperation {
                revision: revision.into(),
                prune: automated.prune,
                ..SyncOperation::default()
            }),
            initiated_by: Some(OperationInitiator { automated: true, ..OperationInitiator::default() }),
            retry: application.spec.sync_policy.as_ref().and_then(|policy| policy.retry.clone()),
            ..Operation::default()
        })
    }

    async fn sync(
        &mut self,
        application: &Application,
        status: &mut ApplicationStatus,
        destination: &mut Destination,
        revision: &str,
        compared: &[Compared],
        operation: Operation,
    ) {
        let name = application.name();
        let started_at = self.time();
        let asked = operation.sync.clone().unwrap_or_default();
        let policy = application.spec.sync_policy.as_ref().map(|policy| policy.sync_options.as_slice());
        let has = |option: &str| {
            policy.unwrap_or_default().iter().chain(&asked.sync_options).any(|set| set == option)
        };
        let options = Options {
            prune: asked.prune,
            create_namespace: has("CreateNamespace=true"),
            replace: has("Replace=true"),
        };
        let (results, ok) = sync::sync(
            self.context.clock,
            destination,
            &application.spec.destination.namespace,
            compared,
            options,
        )
        .await;
        let message = if ok { "successfully synced (all tasks run)".to_owned() } else { failure(&results) };
        let verdict = if ok { "succeeded" } else { "failed" };
        let level = if ok { "info" } else { "error" };
        log(&self.context, level, &format!("Sync operation to {revision} {verdict}: {message}"), Some(name));
        for result in &results {
            log(&self.context, "info", &format!("{}: {}", result.status, result.message), Some(name));
        }

        let same = |state: &&OperationState| {
            state.sync_result.as_ref().is_some_and(|last| last.revision == revision)
        };
        let before = status.operation_state.as_ref().filter(same).filter(|state| state.phase != "Succeeded");
        let retry_count = before.map_or(0, |state| state.retry_count + 1);
        let limit = operation.retry.as_ref().map_or(RETRIES, |retry| retry.limit);
        if !ok && (limit < 0 || retry_count < limit) {
            let delay = Duration::from_secs(5)
                .saturating_mul(1 << retry_count.clamp(0, 6))
                .min(Duration::from_secs(180));
            let memory = self.memory.entry(name.to_owned()).or_default();
            memory.retry_at = Some(self.context.clock.elapsed() + delay);
            self.queue.add_after(name.to_owned(), delay);
        }
        if ok {
            let id = status.history.last().map_or(0, |last| last.id + 1);
            status.history.push(RevisionHistory {
                id,
                revision: revision.into(),
                deployed_at: self.time(),
                deploy_started_at: started_at.clone(),
                source: application.spec.source.clone().unwrap_or_default(),
                initiated_by: operation.initiated_by.clone(),
                ..RevisionHistory::default()
            });
            let keep = application
                .spec
                .revision_history_limit
                .map_or(HISTORY, |limit| usize::try_from(limit).unwrap_or(0));
            let excess = status.history.len().saturating_sub(keep);
            status.history.drain(..excess);
        }
        status.operation_state = Some(OperationState {
            operation,
            phase: if ok { "Succeeded" } else { "Failed" }.into(),
            message,
            started_at,
            finished_at: self.time(),
            retry_count,
            sync_result: Some(SyncOperationResult {
                resources: results,
                revision: revision.into(),
                source: application.spec.source.clone(),
                ..SyncOperationResult::default()
            }),
            ..OperationState::default()
        });
    }

    /// Watches the kinds of an Application's objects in its destination, so that changes there are seen.
    async fn watch_kinds(&mut self, name: &str, destination: &mut Destination, compared: &[Compared]) {
        for entry in compared.iter().filter(|entry| entry.error.is_none()) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (api_version, kind) = (text(&entry.object()["apiVersion"]), text(&entry.object()["kind"]));
            let memory = self.memory.entry(name.to_owned()).or_default();
            if !memory.watched.insert((destination.server.clone(), api_version.clone(), kind.clone())) {
                continue;
            }
            let Ok((resource, _)) = destination.kind(&api_version, &kind).await else { continue };
            let api: kube::Api<DynamicObject> = kube::Api::all_with(destination.client.clone(), &resource);
            let ours = Selection::labels(format!("{}={name}", compare::INSTANCE));
            let (queue, name) = (self.queue.clone(), name.to_owned());
            let clock = self.context.clock;
            self.context.tasks.spawn(async move {
                let path = api.resource_url().to_owned();
                let take = move |seen: Seen| {
                    if matches!(seen, Seen::Applied(_) | Seen::Deleted(_)) {
                        queue.add_after(name.clone(), LIVE_DELAY);
                    }
                    ControlFlow::Continue(())
                };
                list_and_watch(clock, api.into_client(), &path, ours, Box::new(take)).await;
            });
        }
    }

    async fn write(&mut self, application: &Application, mut status: ApplicationStatus, refresh: bool) {
        let before = application.status.clone().unwrap_or_default();
        status.reconciled_at = before.reconciled_at.clone();
        if status == before && application.operation.is_none() && !refresh {
            return;
        }
        status.reconciled_at = self.time();
        let mut operations = vec![json!({"op": "add", "path": "/status", "value": status})];
        if application.operation.is_some() {
            operations.push(json!({"op": "remove", "path": "/operation"}));
        }
        let patch: json_patch::Patch = match serde_json::from_value(Value::Array(operations)) {
            Ok(patch) => patch,
            Err(error) => unreachable!("the operations above are a JSON patch: {error}"),
        };
        let written = self.api().patch(application.name(), &Patch::Json::<()>(patch)).await;
        if let Err(error) = written {
            log(
                &self.context,
                "warning",
                &format!("Error updating application: {error}"),
                Some(application.name()),
            );
            self.queue.retry(application.name().to_owned());
        }
    }
}

/// What went wrong, for the operation's message.
fn failure(results: &[ResourceResult]) -> String {
    let failed: Vec<String> = results
        .iter()
        .filter(|result| result.status == "SyncFailed")
        .map(|result| format!("{}/{}: {}", result.kind, result.name, result.message))
        .collect();
    format!("one or more objects failed to apply, reason: {}", failed.join("; "))
}
