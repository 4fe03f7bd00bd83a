//! One sync of an Application: applies what differs, wave by wave, and prunes what left the source.

use std::time::Duration;

use crd::ResourceResult;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::Value;

use super::compare::Compared;
use super::destination::Destination;
use crate::diff;
use crate::health::{self, Health};
use crate::order;

/// The field manager of all writes.
const MANAGER: &str = "argocd-controller";
/// The time between two looks at a wave's health.
const WAVE_POLL: Duration = Duration::from_secs(2);
/// How long a wave may take to become healthy before the sync gives up.
const WAVE_LIMIT: Duration = Duration::from_secs(600);

/// Options of a sync.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Deletes what left the source.
    pub prune: bool,
    /// Creates the destination's namespace.
    pub create_namespace: bool,
    /// Deletes and creates, or replaces, in place of applying.
    pub replace: bool,
}

/// Applies all objects; returns what became of each, and whether all went well.
pub(crate) async fn sync(
    clock: clock::Clock,
    destination: &mut Destination,
    namespace: &str,
    compared: &[Compared],
    options: Options,
) -> (Vec<ResourceResult>, bool) {
    let mut results = Vec::new();
    let mut ok = true;
    if options.create_namespace && !namespace.is_empty() {
        ok &= create_namespace(destination, namespace).await.is_ok();
    }
    let mut targets: Vec<Value> = compared.iter().filter_map(|entry| entry.target.clone()).collect();
    order::sort(&mut targets);
    let mut wave = targets.first().map(order::wave);
    let mut applied: Vec<Value> = Vec::new();
    for target in targets {
        if wave != Some(order::wave(&target)) {
            if !ok || !healthy(clock, destination, &applied).await {
                results.push(result(&target, "SyncFailed", "an earlier wave did not become healthy"));
                return (results, false);
            }
            wave = Some(order::wave(&target));
        }
        let entry = compared.iter().find(|entry| entry.target.as_ref() == Some(&target));
        let live = entry.and_then(|entry| entry.live.as_ref());
        match apply(destination, &target, live, options).await {
            Ok(message) => {
                results.push(result(&target, "Synced", &message));
                applied.push(target);
            }
            Err(message) => {
                ok = false;
                results.push(result(&target, "SyncFailed", &message));
            }
        }
    }
    for gone in compared.iter().filter(|entry| entry.target.is_none()).filter_map(|entry| entry.live.as_ref())
    {
        if !options.prune {
            results.push(result(gone, "PruneSkipped", "ignored (requires pruning)"));
            continue;
        }
        match prune(destination, gone).await {
            Ok(()) => results.push(result(gone, "Pruned", "pruned")),
            Err(message) => {
                ok = false;
                results.push(result(gone, "SyncFailed", &message));
            }
        }
    }
    (results, ok)
}

fn result(object: &Value, status: &str, message: &str) -> ResourceResult {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    ResourceResult {
        group: group.into(),
        version: version.into(),
        kind: text(&object["kind"]),
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]),
        status: status.into(),
        message: message.into(),
        sync_phase: "Sync".into(),
        ..ResourceResult::default()
    }
}

/// `deployment.apps/podinfo configured`, as kubectl reports.
fn report(object: &Value, verb: &str) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let group =
        object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match group {
        Some(group) => format!("{kind}.{group}/{name} {verb}"),
        None => format!("{kind}/{name} {verb}"),
    }
}

fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

async fn apply(
    destination: &mut Destination,
    target: &Value,
    live: Option<&Value>,
    options: Options,
) -> Result<String, String> {
    let api = destination.api(target).await?;
    let name = target["metadata"]["name"].as_str().unwrap_or_default();
    let Some(live) = live else {
        let object: DynamicObject =
            serde_json::from_value(diff::annotated(target)).map_err(|error| error.to_string())?;
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        api.create(&params, &object).await.map_err(|error| said(&error))?;
        return Ok(report(target, "created"));
    };
    if !diff::differs(target, live) {
        return Ok(report(target, "unchanged"));
    }
    if options.replace {
        let mut object = diff::annotated(target);
        object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        let object: DynamicObject = serde_json::from_value(object).map_err(|error| error.to_string())?;
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        api.replace(name, &params, &object).await.map_err(|error| said(&error))?;
        return Ok(report(target, "replaced"));
    }
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let built_in = is_built_in(target["apiVersion"].as_str().unwrap_or_default());
    let patch = diff::patch(target, live, built_in);
    let patched = if built_in {
        api.patch(name, &params, &Patch::Strategic(&patch)).await
    } else {
        api.patch(name, &params, &Patch::Merge(&patch)).await
    };
    patched.map_err(|error| said(&error))?;
    Ok(report(target, "configured"))
}

/// Whether a group is Kubernetes' own, whose lists merge by key.
fn is_built_in(api_version: &str) -> bool {
    match api_version.split_once('/') {
        None => true,
        Some((group, _)) => {
            matches!(group, "apps" | "autoscaling" | "batch" | "policy" | "extensions")
                || (group.ends_with(".k8s.io") && group != "gateway.networking.k8s.io")
        }
    }
}

async fn prune(destination: &mut Destination, live: &Value) -> Result<(), String> {
    let api = destination.api(live).await?;
    let name = live["metadata"]["name"].as_str().unwrap_or_default();
    api.delete(name, &DeleteParams::foreground()).await.map_err(|error| said(&error))?;
    Ok(())
}

async fn create_namespace(destination: &mut Destination, namespace: &str) -> Result<(), String> {
    let object =
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let api: Api<DynamicObject> = destination.api(&object).await?;
    if api.get_opt(namespace).await.map_err(|error| said(&error))?.is_none() {
        let object: DynamicObject = serde_json::from_value(object).map_err(|error| error.to_string())?;
        api.create(&PostParams::default(), &object).await.map_err(|error| said(&error))?;
    }
    Ok(())
}

/// Waits until all applied objects are healthy.
async fn healthy(clock: clock::Clock, destination: &mut Destination, applied: &[Value]) -> bool {
    let started = clock.elapsed();
    loop {
        clock.sleep(WAVE_POLL).await;
        let mut all = true;
        for object in applied {
            let Ok(api) = destination.api(object).await else { return false };
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let live = api.get_opt(name).await.ok().flatten();
            let live = live.and_then(|live| serde_json::to_value(live).ok());
            all &= live.is_some_and(|live| {
                health::assess(&live).is_none_or(|(health, _)| health == Health::Healthy)
            });
        }
        if all || clock.elapsed() - started > WAVE_LIMIT {
            return all;
        }
    }
}
