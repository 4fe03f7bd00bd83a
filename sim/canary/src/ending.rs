//! How runs end: promoted, skipped, rolled back, or stuck half-way with a dead primary.

use crd::Phase;

use crate::advance::{Step, Tick};
use crate::alert::Severity;
use crate::gate;
use crate::message::What;
use crate::port::{Measure, Port, Routes, Scale};

impl<P: Port> Tick<'_, P> {
    /// Copies the canary's template to the primary.
    pub(crate) async fn copy(&mut self) -> Step {
        self.say(What::Copying).await;
        let promoted = self.port.promote().await;
        self.demand(promoted).await?;
        if !self.is_latest() {
            let scaler = self.port.reconcile_scaler(false).await;
            self.demand(scaler).await?;
        }
        Ok(())
    }

    async fn scale_to_zero(&mut self) -> Step {
        self.pause_scaler().await?;
        let scaled = self.port.scale_target(Scale::Zero).await;
        self.demand(scaled).await
    }

    /// The phase that a success is told with: the older dialect still tells the one before.
    pub(crate) fn succeeded(&self) -> Phase {
        if self.is_latest() { Phase::Succeeded } else { self.told_phase }
    }

    /// Promotes without looking.
    pub(crate) async fn skip(&mut self) -> Step {
        self.route(Routes::PRIMARY).await?;
        self.copy().await?;
        if self.is_latest() {
            let scaler = self.port.reconcile_scaler(false).await;
            self.demand(scaler).await?;
        }
        self.scale_to_zero().await?;
        self.enter(Phase::Succeeded).await?;
        self.port.measure(Measure::Success { skipped: true });
        if self.is_latest() {
            gate::post_rollout(self, Phase::Succeeded).await;
        }
        self.say_in(What::Skipped, self.succeeded()).await;
        self.alert("Canary analysis was skipped, promotion finished.", false, Severity::Info).await;
        Ok(())
    }

    /// The last tick of a run that ends well.
    pub(crate) async fn finish(&mut self) -> Step {
        self.scale_to_zero().await?;
        self.enter(Phase::Succeeded).await?;
        self.port.measure(Measure::Success { skipped: false });
        gate::post_rollout(self, Phase::Succeeded).await;
        self.say_in(What::Promoted, self.succeeded()).await;
        let text = "Canary analysis completed successfully, promotion finished.";
        self.alert(text, false, Severity::Info).await;
        Ok(())
    }

    /// Back to the primary, canary to zero.
    pub(crate) async fn roll_back(&mut self) -> Step {
        if self.threshold_reached() {
            let failed = self.status.failed_checks;
            self.say(What::ThresholdReached(failed)).await;
            let text = format!("Failed checks threshold reached {failed}");
            self.alert(text, false, Severity::Error).await;
        }
        self.route(Routes::PRIMARY).await?;
        self.say_in(What::Failed, Phase::Failed).await;
        self.scale_to_zero().await?;
        self.fail(0).await
    }

    /// The primary died with the new template in it: all traffic to the canary, the only healthy copy.
    pub(crate) async fn fail_promotion(&mut self, why: &str) -> Step {
        self.say(What::PromotionFailed(why)).await;
        let text = format!("Promotion failed, primary not ready: {why}");
        self.alert(text, false, Severity::Error).await;
        self.route(Routes::CANARY).await?;
        self.fail(Routes::CANARY.canary).await
    }

    async fn fail(&mut self, weight: i32) -> Step {
        let begun = self.begin(Phase::Failed, weight).await;
        self.demand_quietly(begun)?;
        self.port.measure(Measure::Failure);
        gate::post_rollout(self, Phase::Failed).await;
        Ok(())
    }
}
