//! The operator: one look at each ScaledObject per polling interval, and at each change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use crd::{KedaVersion, ScaledObject};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Client;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch};
use program::{Api, Context, ExitCode, Informer, Request, Selection, WorkQueue};
use serde_json::{Value, json};

use crate::trigger::Trigger;
use crate::{Figures, activity, hpa, trigger};

/// The time between two looks at the triggers, unless the object says otherwise.
const POLLING: Duration = Duration::from_secs(30);
/// How long a Prometheus may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The port of the health checks.
const HEALTH_PORT: u16 = 8081;

/// Namespace and name.
type Key = (String, String);

pub(crate) async fn run(context: Context, figures: Figures) -> ExitCode {
    let healthy = |_: Request| async { Ok(program::respond(http::StatusCode::OK, "ok")) };
    let health = context.network.listen(HEALTH_PORT, Arc::new(healthy));
    if let Err(taken) = &health {
        log(&context, "error", &format!("unable to start health check: {taken}"));
        return ExitCode::FAILURE;
    }
    let client = context.apis.in_cluster();
    let queue: WorkQueue<Key> = WorkQueue::new(context.clock);
    let on_change = queue.clone();
    let objects: Informer<ScaledObject> = Informer::start(
        &context.tasks,
        context.clock,
        Api::all_with(client.clone(), &KedaVersion),
        Selection::default(),
        move |change| {
            let object = change.object();
            on_change.add((object.namespace().to_owned(), object.name().to_owned()));
        },
    );
    log(&context, "info", "Starting manager");
    let operator = Operator { context: context.clone(), client, figures, queue: queue.clone(), objects };
    context.tasks.spawn(async move {
        let mut memories = BTreeMap::new();
        loop {
            let key = queue.next().await;
            operator.look(&key, &mut memories).await;
        }
    });
    context.termination.requested().await;
    ExitCode::SUCCESS
}

fn log(context: &Context, level: &str, message: &str) {
    let at = context.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ");
    context.log.print(&format!("{at}\t{}\t{message}", level.to_uppercase()));
}

/// What is remembered of a ScaledObject.
#[derive(Default)]
struct Memory {
    /// When it was last active; when it was first seen, until then.
    active_at: Option<Duration>,
    /// When its triggers are due.
    due: Option<Duration>,
    /// What its triggers last said.
    is_active: bool,
    /// The message of its last failure, so that it is logged once.
    failure: Option<String>,
}

struct Operator {
    context: Context,
    client: Client,
    figures: Figures,
    queue: WorkQueue<Key>,
    objects: Informer<ScaledObject>,
}

impl Operator {
    async fn look(&self, key: &Key, memories: &mut BTreeMap<Key, Memory>) {
        let cluster = &self.context.identity.cluster;
        let Some(object) = self.objects.get(&key.0, &key.1) else {
            memories.remove(key);
            self.figures.remove(cluster, &key.0, &key.1);
            return;
        };
        let memory = memories.entry(key.clone()).or_default();
        let clock: Clock = self.context.clock;
        let is_due = memory.due.is_none_or(|due| due <= clock.elapsed());
        let polling = object.spec.polling_interval.and_then(|seconds| u64::try_from(seconds).ok());
        let polling = polling.map_or(POLLING, |seconds| Duration::from_secs(seconds.max(1)));
        if is_due {
            memory.due = Some(clock.elapsed() + polling);
            self.queue.add_after(key.clone(), polling);
        }
        let outcome = self.act(&object, memory).await;
        let failure = outcome.as_ref().err().cloned();
        if failure != memory.failure {
            if let Some(message) = &failure {
                log(&self.context, "error", &format!("{}/{}: {message}", key.0, key.1));
            }
            memory.failure.clone_from(&failure);
        }
        let paused = matches!(activity::paused(&object), Ok(Some(_)));
        self.report(&object, memory, paused).await;
    }

    async fn act(&self, object: &ScaledObject, memory: &mut Memory) -> Result<(), String> {
        if let Some(count) = activity::paused(object)? {
            self.remove_hpa(object).await?;
            return self.scale(object, count, "paused").await;
        }
        let triggers = object.spec.triggers.iter().enumerate();
        let triggers =
            triggers.map(|(index, one)| trigger::read(index, one)).collect::<Result<Vec<_>, _>>()?;
        if triggers.is_empty() {
            return Err("spec.triggers is empty: no triggers defined in the ScaledObject".to_owned());
        }
        self.ensure_hpa(object, &triggers).await?;
        let now = self.context.clock.elapsed();
        let asked = self.ask(object, &triggers).await;
        memory.is_active = asked.as_ref().is_ok_and(|is_active| *is_active);
        // A trigger that cannot be asked does not count as idleness.
        if memory.is_active || memory.active_at.is_none() || asked.is_err() {
            memory.active_at = Some(now);
        }
        asked?;
        let idle = (!memory.is_active).then(|| now.saturating_sub(memory.active_at.unwrap_or(now)));
        let current = self.current(object).await?;
        match activity::wanted(object, current, idle) {
            Some(count) => self.scale(object, count, if idle.is_some() { "idle" } else { "active" }).await,
            None => Ok(()),
        }
    }

    /// Asks all triggers; whether there is something to do. Resources alone always have.
    async fn ask(&self, object: &ScaledObject, triggers: &[Trigger]) -> Result<bool, String> {
        let mut is_active = None;
        let mut figures = BTreeMap::new();
        let mut failure = None;
        for trigger in triggers {
            let Trigger::Prometheus { metric, server, query, activation, ignores_nothing, .. } = trigger
            else {
                continue;
            };
            is_active.get_or_insert(false);
            match self.query(server, query, *ignores_nothing).await {
                Ok(figure) => {
                    if figure > *activation {
                        is_active = Some(true);
                    }
                    figures.insert(metric.clone(), figure);
                }
                Err(error) => failure = Some(format!("error getting metric {metric}: {error}")),
            }
        }
        self.figures.set(&self.context.identity.cluster, object.namespace(), object.name(), figures);
        failure.map_or(Ok(is_active.unwrap_or(true)), Err)
    }

    async fn query(&self, server: &str, query: &str, ignores_nothing: bool) -> Result<f64, String> {
        let url = format!("{}/api/v1/query?query={}", server.trim_end_matches('/'), escaped(query));
        let request = http::Request::get(url).body(Default::default());
        let request = request.map_err(|error| format!("serverAddress {server:?}: {error}"))?;
        let sent = self.context.network.send_within(TIMEOUT, request.into()).await;
        let response = sent.map_err(|_| format!("{server} did not answer in {TIMEOUT:?}"))?;
        let response = response.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(response.body())
            .map_err(|_| format!("{server} answered {} without JSON", response.status()))?;
        let result = answer["data"]["result"].as_array();
        let Some(result) = result.filter(|_| answer["status"] == "success") else {
            let error = answer["error"].as_str().unwrap_or("no result");
            return Err(format!(
                "prometheus query api returned error. status: {} response: {error}",
                response.status()
            ));
        };
        let value = match (result.as_slice(), answer["data"]["resultType"].as_str()) {
            ([_, text], Some("scalar")) => text.as_str(),
            ([], _) if ignores_nothing => return Ok(0.0),
            ([], _) => return Err("prometheus metrics target may be lost, the result is empty".to_owned()),
            ([one], _) => one["value"][1].as_str(),
            (several, _) => {
                return Err(format!(
                    "prometheus query {query} returned multiple elements: {}",
                    several.len()
                ));
            }
        };
        let figure = value.and_then(|text| text.parse::<f64>().ok());
        let figure = figure.ok_or_else(|| format!("{server} answered no number"))?;
        match figure.is_finite() {
            true => Ok(figure),
            false if ignores_nothing => Ok(0.0),
            false => Err(format!("prometheus query returns {figure}")),
        }
    }

    async fn ensure_hpa(&self, object: &ScaledObject, triggers: &[Trigger]) -> Result<(), String> {
        let wanted = hpa::made(object, triggers)?;
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), object.namespace());
        let name = hpa::name(object);
        let told = |error: kube::Error| format!("HorizontalPodAutoscaler {name}: {error}");
        match api.get_opt(&name).await.map_err(told)? {
            None => {
                api.create(&wanted).await.map_err(told)?;
                log(&self.context, "info", &format!("Creating a new HPA {}/{name}", object.namespace()));
            }
            Some(found) if found.spec != wanted.spec => {
                // The server has filled in what the wish leaves open: only what the wish says is compared.
                let (is, should) = (json!(found.spec), json!(wanted.spec));
                if !contains(&is, &should) {
                    let patch = Patch::Merge(json!({"spec": should}));
                    api.patch(&name, &patch).await.map_err(told)?;
                    log(
                        &self.context,
                        "info",
                        &format!("Updated HPA according to ScaledObject {}/{name}", object.namespace()),
                    );
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    async fn remove_hpa(&self, object: &ScaledObject) -> Result<(), String> {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), object.namespace());
        match api.delete(&hpa::name(object), &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(format!("HorizontalPodAutoscaler {}: {error}", hpa::name(object))),
        }
    }

    fn target(&self, object: &ScaledObject) -> (Api<DynamicObject>, String) {
        let target = &object.spec.scale_target_ref;
        let version = if target.api_version.is_empty() { "apps/v1" } else { &target.api_version };
        let kind = if target.kind.is_empty() { "Deployment" } else { &target.kind };
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        (
            Api::namespaced_with(self.client.clone(), object.namespace(), &resource),
            format!("{kind} {}/{}", object.namespace(), target.name),
        )
    }

    async fn current(&self, object: &ScaledObject) -> Result<i32, String> {
        let (api, what) = self.target(object);
        let scale = api.get_scale(&object.spec.scale_target_ref.name).await;
        let scale = scale.map_err(|error| format!("{what}: {error}"))?;
        Ok(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))
    }

    async fn scale(&self, object: &ScaledObject, count: i32, why: &str) -> Result<(), String> {
        let current = self.current(object).await?;
        if current == count {
            return Ok(());
        }
        let (api, what) = self.target(object);
        let patch = Patch::Merge(json!({"spec": {"replicas": count}}));
        let name = &object.spec.scale_target_ref.name;
        api.patch_scale(name, &patch).await.map_err(|error| format!("{what}: {error}"))?;
        log(
            &self.context,
            "info",
            &format!("Successfully scaled {what} from {current} to {count} replicas ({why})"),
        );
        Ok(())
    }

    /// Writes the status if it has changed.
    async fn report(&self, object: &ScaledObject, memory: &Memory, paused: bool) {
        let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
            let status = if holds { "True" } else { "False" };
            json!({"type": kind, "status": status, "reason": reason, "message": message})
        };
        let ready = match &memory.failure {
            None => condition(
                "Ready",
                true,
                "ScaledObjectReady",
                "ScaledObject is defined correctly and is ready for scaling",
            ),
            Some(message) => condition("Ready", false, "ScaledObjectCheckFailed", message),
        };
        let active = match memory.is_active && !paused {
            true => {
                condition("Active", true, "ScalerActive", "Scaling is performed because triggers are active")
            }
            false => condition(
                "Active",
                false,
                "ScalerNotActive",
                "Scaling is not performed because triggers are not active",
            ),
        };
        let paused_condition = match paused {
            true => condition("Paused", true, "ScaledObjectPaused", "ScaledObject is paused"),
            false => condition(
                "Paused",
                false,
                "ScaledObjectUnpaused",
                "pause annotation removed for ScaledObject",
            ),
        };
        let target = &object.spec.scale_target_ref;
        let kind = if target.kind.is_empty() { "Deployment" } else { &target.kind };
        let version = if target.api_version.is_empty() { "apps/v1" } else { &target.api_version };
        let mut status = json!({
            "conditions": [ready, active, paused_condition],
            "scaleTargetKind": format!("{version}.{kind}"),
            "hpaName": if paused { Value::Null } else { hpa::name(object).into() },
        });
        if let Some(count) = activity::paused(object).ok().flatten() {
            status["pausedReplicaCount"] = count.into();
        } else {
            status["pausedReplicaCount"] = Value::Null;
        }
        if object.status.as_ref().is_some_and(|known| contains(known, &status)) {
            return;
        }
        let resource = ScaledObject::api_resource();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), object.namespace(), &resource);
        let patch = Patch::Merge(json!({"status": status}));
        // The next look tries again.
        let _ = api.patch_status(object.name(), &patch).await;
    }
}

/// Whether a value has all that another says; what is null there must be absent.
fn contains(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(name, part)| match value.get(name) {
                Some(value) => contains(value, part),
                None => part.is_null(),
            })
        }
        (Value::Array(value), Value::Array(part)) => {
            value.len() == part.len() && value.iter().zip(part).all(|(value, part)| contains(value, part))
        }
        (value, part) => value == part,
    }
}

/// A text for a URL's query.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
