//! Everything that a tick says, in one table per dialect.

use std::fmt;

use crate::dialect::Dialect;
use crate::go::{duration_text, fixed_text, float_text};

/// How a message is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Logged at info; an Event of type Normal.
    Info,
    /// Logged at info; an Event of type Warning.
    Warning,
    /// Logged at error; an Event of type Warning.
    Error,
    /// Logged at info; no Event.
    Log,
}

/// The names that messages use.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The Canary's name.
    pub name: &'a str,
    /// The namespace of Canary and target.
    pub namespace: &'a str,
    /// The target's name.
    pub target: &'a str,
    /// The target's kind.
    pub kind: &'a str,
    /// Who routes the traffic: `istio`, `kubernetes`, …
    pub provider: &'a str,
}

impl Names<'_> {
    /// `NAME.NAMESPACE` of the Canary.
    pub fn canary(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// `NAME.NAMESPACE` of the target.
    pub fn workload(&self) -> String {
        format!("{}.{}", self.target, self.namespace)
    }

    /// `NAME-primary.NAMESPACE` of the target.
    pub fn primary(&self) -> String {
        format!("{}-primary.{}", self.target, self.namespace)
    }
}

/// A bound that a value crossed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// It is below the least.
    Min(f64),
    /// It is above the most.
    Max(f64),
}

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What<'a> {
    /// Somebody else's sentence, as a warning.
    Warning(&'a str),
    /// Somebody else's sentence, as an error.
    Failure(&'a str),
    /// The Canary is suspended.
    Suspended,
    /// Its metrics servers answer.
    MetricsOnline,
    /// One of them does not.
    MetricsOffline(&'a str),
    /// The primary has been made.
    Initialized,
    /// A new template while idle.
    NewRevision,
    /// A new template in the middle of a run.
    Restart,
    /// A run's first tick.
    Starting,
    /// A step of the canary's weight.
    CanaryWeight(i32),
    /// A step of the primary's weight, while promoting.
    PrimaryWeight(i32),
    /// A step of a run without weights: done, of all.
    Iteration(i32, i32),
    /// A step of mirroring: weights and whether it mirrors.
    MirrorStep(i32, i32, bool),
    /// Mirroring begins in a blue/green run.
    MirrorStarts,
    /// All traffic goes to the canary.
    RouteToCanary {
        /// Whether mirroring ends.
        mirrored: bool,
    },
    /// Promotion begins.
    Copying,
    /// All traffic goes back to the primary.
    RouteToPrimary,
    /// A run has ended well.
    Promoted,
    /// A run was skipped.
    Skipped,
    /// The canary is scaled down for the first time.
    ScalingDown,
    /// A ConfigMap or Secret changed: kind and name.
    ConfigChanged(&'a str, &'a str),
    /// Too many checks failed.
    ThresholdReached(i32),
    /// A webhook asked for it.
    ManualRollback,
    /// The canary was not ready in time (`v1.0.0-rc.1` only).
    DeadlineExceeded(&'a str),
    /// The canary has failed.
    Failed,
    /// The primary died in the middle of promotion.
    PromotionFailed(&'a str),
    /// A gate before the run is shut.
    AwaitsRollout(&'a str),
    /// A gate before promotion is shut.
    AwaitsPromotion(&'a str),
    /// A gate before a step is shut.
    AwaitsIncrease(&'a str),
    /// The hook before the run refuses.
    PreRolloutFailed(&'a str, &'a str),
    /// A check of the run refuses.
    CheckFailed(&'a str, &'a str),
    /// The hook after the run fails.
    PostRolloutFailed(&'a str, &'a str),
    /// A hook agrees: the type's words, the hook.
    HookPassed(&'a str, &'a str),
    /// A rollback hook asks for nothing.
    NoRollback(&'a str),
    /// A rollback hook asks for a rollback.
    RollbackPassed(&'a str),
    /// A builtin metric has no values: the metric, the server's words.
    NoValues(&'a str, &'a str),
    /// A MetricTemplate's query gives no values: the metric, the server's words.
    NoCustomValues(&'a str, &'a str),
    /// An inline query gives no values.
    NoInlineValues(&'a str),
    /// A builtin's query failed.
    QueryFailed(&'a str),
    /// An inline query failed.
    InlineQueryFailed(&'a str, &'a str),
    /// A template's query failed.
    TemplateQueryFailed(&'a str, &'a str),
    /// A metric names nothing that could be asked.
    NoUsableMetric,
    /// The Canary's own metrics server is no URL: the URL, why.
    NoClient(&'a str, &'a str),
    /// A template could not be read: `NAME.NAMESPACE`, why.
    TemplateMissing(&'a str, &'a str),
    /// A template's query could not be rendered: template, why.
    TemplateUnrendered(&'a str, &'a str),
    /// A template's Secret could not be read: template, Secret, why.
    TemplateSecret(&'a str, &'a str, &'a str),
    /// A template's provider is unusable: template, type, why.
    TemplateProvider(&'a str, &'a str, &'a str),
    /// Too many requests failed.
    SuccessRate(f64, Bound),
    /// Requests took too long: nanoseconds; the bound in milliseconds.
    Duration(i64, Bound),
    /// A metric's value is out of bounds.
    Value(&'a str, f64, Bound),
    /// The kubernetes provider cannot do A/B tests.
    NoAbTesting,
    /// The kubernetes provider cannot shift weight.
    NoProgressiveTraffic,
    /// The kubernetes provider needs iterations.
    DefaultIterations,
}

/// A message: what, with which names, in which dialect. Its text is made on demand.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What is said.
    pub what: What<'a>,
    /// The names that it uses.
    pub names: &'a Names<'a>,
    /// The dialect that it is worded in.
    pub dialect: Dialect,
}

impl Message<'_> {
    /// How it is told.
    pub fn kind(&self) -> Kind {
        use What::*;
        match self.what {
            Suspended
            | MetricsOnline
            | Initialized
            | NewRevision
            | Restart
            | Starting
            | CanaryWeight(_)
            | PrimaryWeight(_)
            | Iteration(..)
            | RouteToCanary { .. }
            | Copying
            | RouteToPrimary
            | Promoted
            | Skipped
            | HookPassed(..)
            | NoRollback(_) => Kind::Info,
            Failure(_)
            | MetricsOffline(_)
            | QueryFailed(_)
            | InlineQueryFailed(..)
            | TemplateQueryFailed(..)
            | NoUsableMetric
            | NoClient(..)
            | TemplateMissing(..)
            | TemplateUnrendered(..)
            | TemplateSecret(..)
            | TemplateProvider(..) => Kind::Error,
            MirrorStep(..) | MirrorStarts | ScalingDown | ConfigChanged(..) => Kind::Log,
            _ => Kind::Warning,
        }
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use What::*;
        let Names { name, namespace, target, kind, provider } = self.names;
        let latest = self.dialect == Dialect::Latest;
        match self.what {
            Warning(text) | Failure(text) => f.write_str(text),
            Suspended => f.write_str("skipping canary run as object is suspended"),
            MetricsOnline => f.write_str("all the metrics providers are available!"),
            MetricsOffline(error) => write!(f, "Error checking metric providers: {error}"),
            Initialized => write!(f, "Initialization done! {name}.{namespace}"),
            NewRevision => write!(f, "New revision detected! Scaling up {target}.{namespace}"),
            Restart => write!(f, "New revision detected! Restarting analysis for {target}.{namespace}"),
            Starting => write!(f, "Starting canary analysis for {target}.{namespace}"),
            CanaryWeight(weight) => write!(f, "Advance {name}.{namespace} canary weight {weight}"),
            PrimaryWeight(weight) => write!(f, "Advance {name}.{namespace} primary weight {weight}"),
            Iteration(done, all) => write!(f, "Advance {name}.{namespace} canary iteration {done}/{all}"),
            MirrorStep(primary, canary, mirrored) => {
                write!(f, "Running mirror step {primary}/{canary}/{mirrored}")
            }
            MirrorStarts => f.write_str("Start traffic mirroring"),
            RouteToCanary { mirrored: false } => f.write_str("Routing all traffic to canary"),
            RouteToCanary { mirrored: true } => {
                f.write_str("Stop traffic mirroring and route all traffic to canary")
            }
            Copying => {
                write!(f, "Copying {target}.{namespace} template spec to {target}-primary.{namespace}")
            }
            RouteToPrimary => f.write_str("Routing all traffic to primary"),
            Promoted => write!(f, "Promotion completed! Scaling down {target}.{namespace}"),
            Skipped => write!(f, "Promotion completed! Canary analysis was skipped for {target}.{namespace}"),
            ScalingDown if latest => write!(f, "Scaling down {kind} {target}.{namespace}"),
            ScalingDown => write!(f, "Scaling down {target}.{namespace}"),
            ConfigChanged(kind, name) => write!(f, "{kind} {name} has changed"),
            ThresholdReached(threshold) => {
                write!(f, "Rolling back {name}.{namespace} failed checks threshold reached {threshold}")
            }
            ManualRollback => write!(f, "Rolling back {name}.{namespace} manual webhook invoked"),
            DeadlineExceeded(why) => {
                write!(f, "Rolling back {name}.{namespace} progress deadline exceeded {why}")
            }
            Failed => write!(f, "Canary failed! Scaling down {name}.{namespace}"),
            PromotionFailed(why) => {
                write!(f, "Promotion of {target}.{namespace} failed, primary not ready: {why}")
            }
            AwaitsRollout(hook) => {
                write!(f, "Halt {name}.{namespace} advancement waiting for approval {hook}")
            }
            AwaitsPromotion(hook) => {
                write!(f, "Halt {name}.{namespace} advancement waiting for promotion approval {hook}")
            }
            AwaitsIncrease(hook) => {
                write!(f, "Halt {name}.{namespace} advancement waiting for traffic increase approval {hook}")
            }
            PreRolloutFailed(hook, error) => {
                write!(f, "Halt {name}.{namespace} advancement pre-rollout check {hook} failed {error}")
            }
            CheckFailed(hook, error) => {
                write!(f, "Halt {name}.{namespace} advancement external check {hook} failed {error}")
            }
            PostRolloutFailed(hook, error) => write!(f, "Post-rollout hook {hook} failed {error}"),
            HookPassed(kind, hook) => write!(f, "{kind} check {hook} passed"),
            NoRollback(hook) => write!(f, "Rollback hook {hook} not signaling a rollback"),
            RollbackPassed(hook) => write!(f, "Rollback check {hook} passed"),
            NoValues(metric, error) => {
                let suffix = if *kind == "Service" { ":service" } else { "" };
                write!(
                    f,
                    "Halt advancement no values found for {provider}{suffix} metric {metric} probably {target}.{namespace} is not receiving traffic"
                )?;
                if latest && metric == "request-success-rate" { write!(f, ": {error}") } else { Ok(()) }
            }
            NoCustomValues(metric, error) => {
                write!(f, "Halt advancement no values found for custom metric: {metric}")?;
                if latest { write!(f, ": {error}") } else { Ok(()) }
            }
            NoInlineValues(metric) => write!(f, "Halt advancement no values found for metric: {metric}"),
            QueryFailed(error) => write!(f, "Prometheus query failed: {error}"),
            InlineQueryFailed(metric, error) => write!(f, "Prometheus query failed for {metric}: {error}"),
            TemplateQueryFailed(metric, error) => write!(f, "Metric query failed for {metric}: {error}"),
            NoUsableMetric => {
                f.write_str("Metric query failed for no usable metrics template and query were configured")
            }
            NoClient(url, error) => write!(f, "Error building Prometheus client for {url} {error}"),
            TemplateMissing(template, error) => write!(f, "Metric template {template} error: {error}"),
            TemplateUnrendered(template, error) => {
                write!(f, "Metric template {template} query render error: {error}")
            }
            TemplateSecret(template, secret, error) => {
                write!(f, "Metric template {template} secret {secret} error: {error}")
            }
            TemplateProvider(template, provider, error) => {
                write!(f, "Metric template {template} provider {provider} error: {error}")
            }
            SuccessRate(value, bound) => {
                let (sign, limit) = crossed(bound);
                write!(
                    f,
                    "Halt {name}.{namespace} advancement success rate {}% {sign} {}%",
                    fixed_text(value),
                    float_text(limit)
                )
            }
            Duration(nanos, bound) => {
                let (sign, limit) = crossed(bound);
                write!(
                    f,
                    "Halt {name}.{namespace} advancement request duration {} {sign} {}",
                    duration_text(nanos),
                    duration_text(millis(limit))
                )
            }
            Value(metric, value, bound) => {
                let (sign, limit) = crossed(bound);
                write!(
                    f,
                    "Halt {name}.{namespace} advancement {metric} {} {sign} {}",
                    fixed_text(value),
                    float_text(limit)
                )
            }
            NoAbTesting => f.write_str("A/B testing is not supported when using the kubernetes provider"),
            NoProgressiveTraffic => {
                f.write_str("Progressive traffic is not supported when using the kubernetes provider")
            }
            DefaultIterations => f.write_str("Setting canaryAnalysis.iterations: 10"),
        }
    }
}

fn crossed(bound: Bound) -> (char, f64) {
    match bound {
        Bound::Min(limit) => ('<', limit),
        Bound::Max(limit) => ('>', limit),
    }
}

/// A bound in milliseconds as nanoseconds; fractions of a millisecond are dropped, as upstream drops them.
pub(crate) fn millis(limit: f64) -> i64 {
    (limit as i64).saturating_mul(1_000_000)
}
