//! The step after a passed check: weight, iterations, or promotion.

use crd::Phase;

use crate::advance::{Halt, Step, Tick};
use crate::dialect::Dialect;
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
    let switches = tick.settings.provider == "kubernetes";
    if switches {
        if !tick.analysis.matches.is_empty() {
            tick.say(What::NoAbTesting).await;
        }
        if iterations < 1 {
            tick.say(What::NoProgressiveTraffic).await;
            tick.say(What::DefaultIterations).await;
            iterations = ITERATIONS_DEFAULT;
        }
    }
    if !tick.analysis.matches.is_empty() && iterations > 0 && !switches {
        return ab(tick, iterations).await;
    }
    if iterations > 0 {
        return blue_green(tick, routes, iterations, switches).await;
    }
    let weighted = tick.analysis.step_weight > 0
        || (tick.dialect() == Dialect::Latest && !tick.analysis.step_weights.is_empty());
    if weighted { progressive(tick, routes).await } else { Ok(()) }
}

async fn progressive<P: Port>(tick: &mut Tick<'_, P>, routes: Routes) -> Step {
    let dialect = tick.dialect();
    if routes.canary >= max_weight(tick.analysis, dialect) {
        return promote(tick).await;
    }
    let step = next_step(tick.analysis, routes.canary, dialect);
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
    if dialect == Dialect::Latest && !next.mirrored {
        gate::confirm_increase(tick).await?;
    }
    if mirrors {
        tick.note(What::MirrorStep(next.primary, next.canary, next.mirrored));
    }
    tick.route(next).await?;
    tick.write(StatusChange::Weight(next.canary)).await?;
    tick.say(What::CanaryWeight(next.canary)).await;
    Ok(())
}

async fn promote<P: Port>(tick: &mut Tick<'_, P>) -> Step {
    gate::confirm_promotion(tick).await?;
    tick.copy().await?;
    tick.enter(Phase::Promoting).await
}

async fn ab<P: Port>(tick: &mut Tick<'_, P>, iterations: i32) -> Step {
    let done = tick.status.iterations;
    if done < iterations {
        tick.route(Routes::CANARY).await?;
        tick.write(StatusChange::Iterations(done + 1)).await?;
        tick.say(What::Iteration(done + 1, iterations)).await;
        return Ok(());
    }
    promote(tick).await
}

async fn blue_green<P: Port>(
    tick: &mut Tick<'_, P>,
    routes: Routes,
    iterations: i32,
    switches: bool,
) -> Step {
    let done = tick.status.iterations;
    let mirrors = tick.analysis.mirror && !switches;
    if done < iterations {
        if mirrors && !routes.mirrored {
            tick.route(Routes { mirrored: true, ..Routes::PRIMARY }).await?;
            tick.note(What::MirrorStarts);
        }
        tick.write(StatusChange::Iterations(done + 1)).await?;
        tick.say(What::Iteration(done + 1, iterations)).await;
        return Ok(());
    }
    gate::confirm_promotion(tick).await?;
    if done == iterations {
        if !switches {
            tick.say(What::RouteToCanary { mirrored: mirrors }).await;
            tick.route(Routes::CANARY).await?;
        }
        return tick.write(StatusChange::Iterations(done + 1)).await;
    }
    tick.copy().await?;
    tick.enter(Phase::Promoting).await
}

/// The primary runs the new template: traffic goes back to it, at once or in steps.
pub(crate) async fn shift_back<P: Port>(tick: &mut Tick<'_, P>, routes: Routes) -> Step {
    let step = tick.analysis.step_weight_promotion;
    if tick.dialect() == Dialect::Rc1 || step <= 0 || tick.settings.provider == "kubernetes" {
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
        tick.enter(Phase::Finalising).await?;
    }
    Ok(())
}
