//! What a deleted Canary leaves behind when it asks to be reverted (newer dialect): the target serves again
//! under its old names.

use std::sync::Arc;
use std::time::Duration;

use crd::{Canary, Phase};

use crate::kubernetes::{ATTEMPTS, is_conflict, is_not_found, text};
use crate::log::{Level, Site, site};
use crate::owner;
use crate::shell::Shell;
use crate::tick::Tick;
use crate::workload::Which;

const FINALIZER: &str = "finalizer.flagger.app";

const FINALIZED: Site = site("controller/controller.go:273", "controller/controller.go:273");
const FAILED: Site = site("controller/controller.go:280", "controller/controller.go:280");
const NOT_UNMARKED: Site = site("controller/controller.go:288", "controller/controller.go:288");
const PROCESSED: Site = site("controller/controller.go:295", "controller/controller.go:295");
const TARGET_REVERTED: Site = site("controller/finalizer.go:73", "controller/finalizer.go:73");
const CHECKING: Site = site("controller/finalizer.go:76", "controller/finalizer.go:76");
const ROUTER_REVERTED: Site = site("controller/finalizer.go:106", "controller/finalizer.go:106");
const COMPLETE: Site = site("controller/finalizer.go:113", "controller/finalizer.go:113");
const MESH_REVERTED: Site = site("controller/finalizer.go:130", "controller/finalizer.go:130");

/// Whether the Canary waits for its revert before it is deleted.
pub fn is_marked(canary: &Canary) -> bool {
    canary.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Makes the Canary wait for its revert.
pub async fn mark(shell: &Shell, namespace: &str, name: &str) -> Result<(), String> {
    change(shell, namespace, name, |finalizers| finalizers.push(FINALIZER.to_owned())).await
}

/// Lets the Canary be deleted.
pub async fn unmark(shell: &Shell, namespace: &str, name: &str) -> Result<(), String> {
    change(shell, namespace, name, |finalizers| finalizers.retain(|finalizer| finalizer != FINALIZER)).await
}

async fn change(
    shell: &Shell,
    namespace: &str,
    name: &str,
    change: impl Fn(&mut Vec<String>),
) -> Result<(), String> {
    let api = shell.canaries(namespace);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut canary = Arc::unwrap_or_clone(api.get(name).await.map_err(|error| text(&error))?);
        change(canary.metadata.finalizers.get_or_insert_default());
        match api.replace(name, &canary).await {
            Err(error) if attempt < ATTEMPTS && is_conflict(&error) => {}
            result => return result.map(drop).map_err(|error| text(&error)),
        }
    }
}

/// Reverts what the Canary changed and lets it be deleted.
pub async fn finalize(shell: &Arc<Shell>, canary: &Canary) -> Result<(), String> {
    let key = owner::key(canary);
    if !is_marked(canary) {
        shell.log.print(Level::Info, FINALIZED, &format!("Canary {key} has been finalized"));
        return Ok(());
    }
    let live = match shell.canaries(canary.namespace()).get(canary.name()).await {
        Ok(live) => live,
        // Finalized meanwhile: the watch has only not told yet.
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(format!("unable to finalize to canary {key} error: {}", text(&error))),
    };
    let mut tick = Tick::new(shell, live);
    let phase = canary.status.as_ref().map(|status| status.phase).unwrap_or_default();
    if phase != Phase::Terminated
        && let Err(error) = revert(&mut tick, phase).await
    {
        shell.log.about(Level::Error, FAILED, &key, &format!("Unable to finalize canary: {error}"));
        return Err(format!("unable to finalize to canary {key} error: {error}"));
    }
    if let Err(error) = unmark(shell, canary.namespace(), canary.name()).await {
        let message = format!("Unable to remove finalizer for canary {key} error: {error}");
        shell.log.about(Level::Error, NOT_UNMARKED, &key, &message);
        return Err(format!("unable to remove finalizer for canary {key}: {error}"));
    }
    tick.event_info(&format!("Terminated canary {key}")).await;
    let message = format!("Canary {key} has been successfully processed and marked for deletion");
    shell.log.print(Level::Info, PROCESSED, &message);
    Ok(())
}

async fn revert(tick: &mut Tick, phase: Phase) -> Result<(), String> {
    let (shell, key) = (Arc::clone(&tick.shell), tick.key.clone());
    let info = |at, message: String| shell.log.print(Level::Info, at, &message);
    if phase != Phase::Terminating {
        tick.enter(Phase::Terminating).await.map_err(|error| format!("failed to update status: {error}"))?;
        tick.event_info(&format!("Terminating canary {key}")).await;
    }

    tick.resume_target_scaler()
        .await
        .map_err(|error| format!("failed to resume target scaler during finalizing: {error}"))?;
    tick.restore_target().await.map_err(|error| format!("failed to revert target: {error}"))?;
    info(TARGET_REVERTED, format!("{key} kind {} reverted", tick.canary.spec.target_ref.kind));

    info(CHECKING, format!("Checking if canary is ready {key}"));
    let mut wait = Duration::from_secs(3);
    for attempt in 1.. {
        let not_ready = match tick.rollout_of(Which::Target).await {
            Err(error) => Some((true, error)),
            Ok(rollout) => {
                let verdict = tick.judge_target(&rollout);
                verdict.err().map(|not_ready| (not_ready.retriable, not_ready.text))
            }
        };
        match not_ready {
            None => break,
            Some((true, _)) if attempt < 4 => shell.context.clock.sleep(wait).await,
            Some((true, _)) => return Err("canary not ready during finalizing: retriable error".to_owned()),
            Some((false, error)) => return Err(format!("canary not ready during finalizing: {error}")),
        }
        wait *= 2;
    }

    let loaded = tick.load_target().await;
    loaded.map_err(|error| format!("failed to get metadata for router finalizing: {error}"))?;
    tick.restore_apex().await.map_err(|error| format!("failed revert router: {error}"))?;
    info(ROUTER_REVERTED, format!("{key} router reverted"));
    let restored = tick.restore_routes().await;
    restored.map_err(|error| format!("failed to revert mesh: meshRouter.Finlize failed: {error}"))?;
    info(MESH_REVERTED, format!("{key} mesh provider {} reverted", tick.provider));
    info(COMPLETE, format!("Finalization complete for {key}"));
    Ok(())
}
