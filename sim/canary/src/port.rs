//! The verbs through which a tick asks and acts.

use std::collections::BTreeMap;
use std::future::Future;

use crd::{CanaryStatus, CanaryWebhook, MetricTemplate, Phase};

use crate::alert::{Alert, Severity};
use crate::message::{Kind, Message};
use crate::query::Query;
use crate::readiness::Rollout;
use crate::status::StatusChange;

/// Flagger's verbs. A tick calls them one after the other and decides from each answer what to ask next; any of
/// them may fail, and the tick ends there. Errors are texts, worded as the dialect words them, that end up in the
/// Canary's events.
pub trait Port: Send {
    /// Reads the target: its pod selector, and its ports if they are to be discovered.
    fn read_target(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Makes or corrects the Services of primary and canary.
    fn reconcile_services(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Makes the primary workload, with copies of the target's configuration, if it does not exist.
    fn create_primary(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Makes the primary's autoscaler if it does not exist; corrects it too unless `only_create`.
    fn reconcile_scaler(&mut self, only_create: bool) -> impl Future<Output = Result<(), String>> + Send;

    /// Makes the apex Service, or points it at the primary.
    fn reconcile_apex(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Makes or corrects the mesh's objects, keeping weights.
    fn reconcile_routes(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Reads the weights from the mesh.
    fn routes(&mut self) -> impl Future<Output = Result<Routes, String>> + Send;

    /// Writes weights to the mesh.
    fn set_routes(&mut self, routes: Routes) -> impl Future<Output = Result<(), String>> + Send;

    /// Reads how the primary's rollout stands.
    fn primary_rollout(&mut self) -> impl Future<Output = Result<Rollout, String>> + Send;

    /// Reads how the target's rollout stands.
    fn canary_rollout(&mut self) -> impl Future<Output = Result<Rollout, String>> + Send;

    /// Stops the target's autoscaler from scaling it up again while it is scaled to zero.
    fn pause_scaler(&mut self) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }

    /// Lets the target's autoscaler work again.
    fn resume_scaler(&mut self) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }

    /// Scales the target.
    fn scale_target(&mut self, scale: Scale) -> impl Future<Output = Result<(), String>> + Send;

    /// Hashes the target's pod template.
    fn target_hash(&mut self) -> impl Future<Output = Result<String, String>> + Send;

    /// Reads the checksums of the target's ConfigMaps and Secrets; `None` if they are not tracked.
    fn target_configs(
        &mut self,
    ) -> impl Future<Output = Result<Option<BTreeMap<String, String>>, String>> + Send;

    /// Copies template and configuration from the target to the primary.
    fn promote(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Calls a webhook; an error is its refusal, or why it could not be asked.
    fn call_webhook(
        &mut self,
        hook: &CanaryWebhook,
        phase: Phase,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Looks a MetricTemplate up.
    fn metric_template(
        &mut self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<MetricTemplate, String>> + Send;

    /// Asks a metrics server; the last value counts.
    fn query(&mut self, query: &Query<'_>) -> impl Future<Output = Result<f64, QueryError>> + Send;

    /// Whether a metrics server answers.
    fn is_online(&mut self, server: Server<'_>) -> impl Future<Output = Result<(), QueryError>> + Send;

    /// Writes the Canary's status.
    fn write_status(&mut self, change: StatusChange) -> impl Future<Output = Result<(), String>> + Send;

    /// Reads the Canary's status again.
    fn read_status(&mut self) -> impl Future<Output = Result<CanaryStatus, String>> + Send;

    /// Logs a message, makes an Event of it and calls event webhooks, which are told `phase`.
    fn record(&mut self, message: &Message<'_>, phase: Phase) -> impl Future<Output = ()> + Send;

    /// Sends an alert.
    fn alert(&mut self, alert: &Alert<'_>, severity: Severity) -> impl Future<Output = ()> + Send;

    /// Logs a message that makes no Event, at debug, info or error level by its kind.
    fn log(&mut self, kind: Kind, message: &Message<'_>);

    /// Takes a measurement for the controller's own metrics.
    fn measure(&mut self, measure: Measure<'_>);
}

/// Weights of primary and canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routes {
    /// The primary's weight, 0 to 100.
    pub primary: i32,
    /// The canary's weight, 0 to 100.
    pub canary: i32,
    /// Whether the canary gets a copy of the primary's requests.
    pub mirrored: bool,
}

impl Routes {
    /// Everything to the primary.
    pub const PRIMARY: Routes = Routes { primary: 100, canary: 0, mirrored: false };
    /// Everything to the canary.
    pub const CANARY: Routes = Routes { primary: 0, canary: 100, mirrored: false };
}

/// How to scale the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// To no replica.
    Zero,
    /// To what it has, if it has any; else to what the dialect finds fit.
    Up,
}

/// A metrics server.
#[derive(Clone, Copy, Debug)]
pub enum Server<'a> {
    /// The Canary's own, or the controller's.
    Default,
    /// The one that a template names.
    Template(&'a MetricTemplate),
}

/// Why a metrics server gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// The answer was empty (or, in the newer dialect, not a number).
    NoValues,
    /// The answer held no value; why, in the provider's words.
    NoValuesIn(String),
    /// The Canary's own metrics server is no URL.
    Client(String),
    /// The Secret that a template names could not be read.
    Secret {
        /// The Secret's name.
        name: String,
        /// Why.
        error: String,
    },
    /// The provider that a template names is unusable.
    Provider(String),
    /// The template's query could not be rendered.
    Unrendered(String),
    /// The query failed.
    Failed(String),
}

impl QueryError {
    /// The error as Go would print it.
    pub(crate) fn text(&self) -> &str {
        match self {
            QueryError::NoValues => "no values found",
            QueryError::NoValuesIn(error)
            | QueryError::Unrendered(error)
            | QueryError::Client(error)
            | QueryError::Secret { error, .. }
            | QueryError::Provider(error)
            | QueryError::Failed(error) => error,
        }
    }
}

/// A measurement for the controller's own metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure<'a> {
    /// The phase.
    Status(Phase),
    /// The weights.
    Weight(Routes),
    /// A metric's value (seconds for durations).
    Analysis {
        /// The metric.
        metric: &'a str,
        /// Its value.
        value: f64,
    },
    /// A run ended well.
    Success {
        /// Whether the analysis was skipped.
        skipped: bool,
    },
    /// A run was rolled back.
    Failure,
    /// A tick came as far as judging the canary; its duration counts.
    Judged,
}
