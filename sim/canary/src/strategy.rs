//! The step after a passed check: weight, iterations, or promotion.

use crd::Phase;

use crate::advance::{Halt, Step, Tick};
use crate::gate;
use crate::message::What;
use crate::port::{Port, Routes};
use crate::status::StatusChange;
use crate::step::{max_weight, next_step};

/// Iterations of a Canary whose provider can only switch.
const ITERATIONS_DEFAULT: i32 = 10;

/// Takes the step of the Canary's strategy: A/B, blue/green or progressive.
pub(crate) async fn step<P: Port>(tick: &mut Tick<'_, P>, routes: Routes) -> Step {
    let mut iterations = tick.analysis.iterations;
    let mut matches = !tick.analysis.matches.is_empty();
    if tick.switches() {
        if matches {
            tick.say(What::NoAbTesting).await;
            matches = false;
        }
        if iterations < 1 {
            tick.say(What::NoProgressiveTraffic).await;
            tick.say(What::DefaultIterations).await;
            iterations = ITERATIONS_DEFAULT;
        }
    }
    if iterations > 0 {
        return if matches { ab(tick, iterations).await } else { blue_green(tick, routes, iterations).await };
    }
    let weight = next_step(tick.analysis, routes.canary, tick.dialect());
    if weight <= 0 {
        // As upstream: without a step the analysis goes round for ever.
        return Ok(());
    }
    if tick.is_latest() && !routes.mirrored && tick.status.phase != Phase::WaitingPromotion {
        gate::confirm_increase(tick).await?;
    }
    progressive(tick, routes, weight).await
}

async fn progressive<P: Port>(tick: &mut Tick<'_, P>, routes: Routes, step: i32) -> Step {
    if routes.canary >= max_weight(tick.analysis, tick.dialect()) {
        gate::confirm_promotion(tick, tick.analysis.iterations).await?;
        return promote(tick).await;
    }
    let mirrors = tick.analysis.mirror && routes.canary == 0;
    let next = if mirrors && !routes.mirrored {
        Routes { mirrored: true, ..Routes::PRIMARY }
    } else if mirrors {
        let canary = step.min(100);
        Routes { primary: 100 - canary, canary, mirrored: false }
    } else {
        let (primary, canary) = ((routes.primary - step).max(0), (routes.canary + step).min(100));
        Routes { primary, canary, mirrored: routes.mirrored }
    };
    if mirrors {
        tick.note(What::MirrorStep(next.primary, next.canary, next.mirrored));
    }
    tick.route(next).await?;
    tick.write(StatusChange::Weight(next.canary)).await?;
    tick.say(What::CanaryWeight(next.canary)).await;
    Ok(())
}

async fn promote<P: Port>(tick: &mut Tick<'_, P>) -> Step {
    tick.copy().await?;
    tick.enter(Phase::Promoting).await
}

async fn iterate<P: Port>(tick: &mut Tick<'_, P>, done: i32, all: i32) -> Step {
    tick.write(StatusChange::Iterations(done)).await?;
    tick.say(What::Iteration(done, all)).await;
    Ok(())
}

async fn ab<P: Port>(tick: &mut Tick<'_, P>, iterations: i32) -> Step {
    let done = tick.status.iterations;
    if done < iterations {
        tick.route(Routes::CANARY).await?;
        return iterate(tick, done + 1, iterations).await;
    }
    gate::confirm_promotion(tick, iterations).await?;
    // As upstream: a run whose iterations were lowered below what it has done is never promoted.
    if done == iterations { promote(tick).await } else { Ok(()) }
}

async fn blue_green<P: Port>(tick: &mut Tick<'_, P>, routes: Routes, iterations: i32) -> Step {
    let done = tick.status.iterations;
    let switches = tick.switches();
    if done < iterations {
        if tick.analysis.mirror && !switches && !routes.mirrored {
            // As upstream: a mirror that cannot be set is told, and the run goes on.
            let mirrored = Routes { mirrored: true, ..Routes::PRIMARY };
            if let Err(error) = tick.port.set_routes(mirrored).await {
                tick.say(What::Warning(&error)).await;
            }
            tick.note(What::MirrorStarts);
        }
        return iterate(tick, done + 1, iterations).await;
    }
    gate::confirm_promotion(tick, iterations).await?;
    if done > iterations {
        return promote(tick).await;
    }
    if !switches {
        tick.say(What::RouteToCanary { mirrored: tick.analysis.mirror }).await;
        tick.route(Routes::CANARY).await?;
    }
    tick.write(StatusChange::Iterations(done + 1)).await
}

/// The primary runs the new template: traffic goes back to it, at once or in steps.
pub(crate) async fn shift_back<P: Port>(tick: &mut Tick<'_, P>, routes: Routes) -> Step {
    if tick.switches() {
        return tick.enter(Phase::Finalising).await;
    }
    let step = tick.analysis.step_weight_promotion;
    if !tick.is_latest() || step <= 0 {
        tick.say(What::RouteToPrimary).await;
        tick.route(Routes::PRIMARY).await?;
        return tick.enter(Phase::Finalising).await;
    }
    if routes.canary <= 0 {
        return Err(Halt);
    }
    let next = Routes {
        primary: (routes.primary + step).min(100),
        canary: (routes.canary - step).max(0),
        mirrored: false,
    };
    tick.route(next).await?;
    tick.say(What::PrimaryWeight(next.primary)).await;
    if next.primary == 100 {
        return tick.enter(Phase::Finalising).await;
    }
    tick.write(StatusChange::Weight(next.canary)).await
}
