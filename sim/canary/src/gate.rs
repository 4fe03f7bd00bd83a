//! Webhooks that open, shut or undo (upstream: `pkg/controller/scheduler_hooks.go`).

use crd::{CanaryWebhook, HookType, Phase};

use crate::advance::{Halt, Step, Tick};
use crate::alert::Severity;
use crate::message::What;
use crate::port::Port;
use crate::status::StatusChange;

fn hooks<'a, P>(tick: &Tick<'a, P>, kind: HookType) -> impl Iterator<Item = &'a CanaryWebhook> + use<'a, P> {
    tick.analysis.webhooks.iter().filter(move |hook| hook.kind == kind)
}

/// `confirm-rollout` as the old dialect asks: on every advancing tick.
pub(crate) async fn confirm_rollout_rc1<P: Port>(tick: &mut Tick<'_, P>) -> Step {
    for hook in hooks(tick, HookType::ConfirmRollout) {
        let answer = tick.port.call_webhook(hook, Phase::Progressing).await;
        match (answer, tick.status.phase) {
            (Err(_), phase) => {
                if phase != Phase::Waiting {
                    wait(tick, hook).await;
                }
                return Err(Halt);
            }
            (Ok(()), Phase::Waiting) => {
                let dialect = tick.dialect();
                let opened = tick.try_write(StatusChange::Phase(Phase::Progressing, dialect)).await;
                tick.demand_quietly(opened)?;
                tick.say(What::HookPassed("Confirm-rollout", &hook.name)).await;
                return Err(Halt);
            }
            (Ok(()), _) => {}
        }
    }
    Ok(())
}

/// `confirm-rollout` as the new dialect asks: before a run.
pub(crate) async fn confirm_rollout<P: Port>(tick: &mut Tick<'_, P>) -> Step {
    for hook in hooks(tick, HookType::ConfirmRollout) {
        let phase = tick.status.phase;
        if tick.port.call_webhook(hook, phase).await.is_err() {
            if phase != Phase::Waiting {
                wait(tick, hook).await;
            }
            return Err(Halt);
        }
        tick.say(What::HookPassed("Confirm-rollout", &hook.name)).await;
    }
    Ok(())
}

async fn wait<P: Port>(tick: &mut Tick<'_, P>, hook: &CanaryWebhook) {
    let dialect = tick.dialect();
    let waiting = tick.try_write(StatusChange::Phase(Phase::Waiting, dialect)).await;
    // As upstream: the gate's message comes even if the status could not be written.
    let _ = tick.demand_quietly(waiting);
    tick.say(What::AwaitsRollout(&hook.name)).await;
    if !hook.mute_alert {
        tick.alert("Canary is waiting for approval.", false, Severity::Warn).await;
    }
}

/// `confirm-promotion`: whether promotion may begin. `iterations` are those of the run, 0 if it has weights.
pub(crate) async fn confirm_promotion<P: Port>(tick: &mut Tick<'_, P>, iterations: i32) -> Step {
    for hook in hooks(tick, HookType::ConfirmPromotion) {
        let answer = tick.port.call_webhook(hook, Phase::Progressing).await;
        if answer.is_ok() {
            tick.say(What::HookPassed("Confirm-promotion", &hook.name)).await;
            continue;
        }
        if tick.is_latest() {
            // One iteration is judged again before the gate is asked again.
            let iterations = iterations - 1;
            if tick.status.phase == Phase::WaitingPromotion {
                tick.write(StatusChange::Iterations(iterations)).await?;
                return Err(Halt);
            }
            let waiting = tick.try_write(StatusChange::AwaitPromotion { iterations }).await;
            // As upstream: the gate's message comes even if the status could not be written.
            let _ = tick.demand_quietly(waiting);
        }
        tick.say(What::AwaitsPromotion(&hook.name)).await;
        if !hook.mute_alert {
            tick.alert("Canary promotion is waiting for approval.", false, Severity::Warn).await;
        }
        return Err(Halt);
    }
    Ok(())
}

/// `confirm-traffic-increase`: whether the next step may be taken.
pub(crate) async fn confirm_increase<P: Port>(tick: &mut Tick<'_, P>) -> Step {
    for hook in hooks(tick, HookType::ConfirmTrafficIncrease) {
        if tick.port.call_webhook(hook, Phase::Progressing).await.is_err() {
            tick.say(What::AwaitsIncrease(&hook.name)).await;
            if !hook.mute_alert {
                tick.alert("Canary traffic increase is waiting for approval.", false, Severity::Warn).await;
            }
            return Err(Halt);
        }
        tick.say(What::HookPassed("Confirm-traffic-increase", &hook.name)).await;
    }
    Ok(())
}

/// `pre-rollout`: whether traffic may be sent to the canary.
pub(crate) async fn pre_rollout<P: Port>(tick: &mut Tick<'_, P>) -> bool {
    for hook in hooks(tick, HookType::PreRollout) {
        if let Err(error) = tick.port.call_webhook(hook, Phase::Progressing).await {
            tick.say(What::PreRolloutFailed(&hook.name, &error)).await;
            return false;
        }
        tick.say(What::HookPassed("Pre-rollout", &hook.name)).await;
    }
    true
}

/// `rollout` and hooks without a type: whether this check passes.
pub(crate) async fn rollout<P: Port>(tick: &mut Tick<'_, P>) -> bool {
    for hook in &tick.analysis.webhooks {
        if !matches!(hook.kind, HookType::Unset | HookType::Rollout) {
            continue;
        }
        if let Err(error) = tick.port.call_webhook(hook, Phase::Progressing).await {
            tick.say(What::CheckFailed(&hook.name, &error)).await;
            return false;
        }
    }
    true
}

/// `post-rollout`: told how it ended.
pub(crate) async fn post_rollout<P: Port>(tick: &mut Tick<'_, P>, phase: Phase) {
    let told = if phase == Phase::Succeeded { tick.succeeded() } else { tick.told_phase };
    for hook in hooks(tick, HookType::PostRollout) {
        match tick.port.call_webhook(hook, phase).await {
            Ok(()) => tick.say_in(What::HookPassed("Post-rollout", &hook.name), told).await,
            Err(error) => {
                tick.say_in(What::PostRolloutFailed(&hook.name, &error), told).await;
                return;
            }
        }
    }
}

/// `rollback`: whether somebody asks for it.
pub(crate) async fn asks_for_rollback<P: Port>(tick: &mut Tick<'_, P>) -> bool {
    for hook in hooks(tick, HookType::Rollback) {
        let phase = tick.status.phase;
        if tick.port.call_webhook(hook, phase).await.is_ok() {
            tick.say(What::RollbackPassed(&hook.name)).await;
            return true;
        }
        tick.say(What::NoRollback(&hook.name)).await;
    }
    false
}
