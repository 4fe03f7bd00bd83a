//! One check of a run: webhooks, then metrics; the first that fails ends it (upstream:
//! `pkg/controller/scheduler_metrics.go`).

use crd::{CanaryMetric, MetricTemplate};

use crate::advance::Tick;
use crate::gate;
use crate::message::{Bound, What, millis};
use crate::port::{Measure, Port, QueryError, Server};
use crate::query::{Check, Query};

/// The window of builtin metrics that name none.
const INTERVAL_DEFAULT: &str = "1m";

/// Whether the canary passes.
pub(crate) async fn passes<P: Port>(tick: &mut Tick<'_, P>) -> bool {
    if !gate::rollout(tick).await {
        return false;
    }
    for metric in &tick.analysis.metrics {
        let passed = match metric.name.as_str() {
            "request-success-rate" => success_rate(tick, metric).await,
            "request-duration" => duration(tick, metric).await,
            _ => true,
        };
        // As upstream, names and queries are looked at one after the other: a metric may be both.
        if !passed || (!metric.query.is_empty() && !inline(tick, metric).await) {
            return false;
        }
    }
    for metric in &tick.analysis.metrics {
        if metric.template_ref.is_some() {
            if !template(tick, metric).await {
                return false;
            }
        } else if tick.is_latest() && !is_builtin(&metric.name) && metric.query.is_empty() {
            tick.say(What::NoUsableMetric).await;
            return false;
        }
    }
    true
}

fn is_builtin(name: &str) -> bool {
    matches!(name, "request-success-rate" | "request-duration")
}

fn query<'a, P>(tick: &Tick<'a, P>, check: Check, metric: &'a CanaryMetric, server: Server<'a>) -> Query<'a> {
    // Templates get no default: an empty window makes their query fail, as upstream.
    let is_template = check == Check::Template;
    let interval =
        if metric.interval.is_empty() && !is_template { INTERVAL_DEFAULT } else { metric.interval.as_str() };
    Query {
        check,
        metric,
        server,
        interval,
        name: tick.subject.name,
        namespace: tick.subject.namespace,
        spec: tick.subject.spec,
        provider: tick.settings.provider,
        dialect: tick.settings.dialect,
    }
}

/// The bound that `value` crosses. A single threshold is a least value for `is_min`, else a most; meeting it passes.
fn crossed(metric: &CanaryMetric, value: f64, is_min: bool) -> Option<Bound> {
    if let Some(range) = &metric.threshold_range {
        return match (range.min, range.max) {
            (Some(min), _) if value < min => Some(Bound::Min(min)),
            (_, Some(max)) if value > max => Some(Bound::Max(max)),
            _ => None,
        };
    }
    let threshold = metric.threshold.unwrap_or(0.0);
    if is_min {
        (threshold > value).then_some(Bound::Min(threshold))
    } else {
        (value > threshold).then_some(Bound::Max(threshold))
    }
}

async fn success_rate<P: Port>(tick: &mut Tick<'_, P>, metric: &CanaryMetric) -> bool {
    let query = query_of(tick, Check::SuccessRate, metric);
    match tick.port.query(&query).await {
        Err(error) => builtin_failed(tick, &query, &error).await,
        Ok(value) => {
            tick.port.measure(Measure::Analysis { metric: &metric.name, value });
            match crossed(metric, value, true) {
                Some(bound) => {
                    tick.say(What::SuccessRate(value, bound)).await;
                    false
                }
                None => true,
            }
        }
    }
}

async fn duration<P: Port>(tick: &mut Tick<'_, P>, metric: &CanaryMetric) -> bool {
    let query = query_of(tick, Check::Duration, metric);
    let asked = tick.port.query(&query).await;
    let value = match asked {
        Err(error) => return builtin_failed(tick, &query, &error).await,
        Ok(value) => value,
    };
    let nanos = query.duration_nanos(value);
    tick.port.measure(Measure::Analysis { metric: &metric.name, value: nanos as f64 / 1e9 });
    let bound = match &metric.threshold_range {
        Some(range) => match (range.min, range.max) {
            (Some(min), _) if nanos < millis(min) => Some(Bound::Min(min)),
            (_, Some(max)) if nanos > millis(max) => Some(Bound::Max(max)),
            _ => None,
        },
        None => {
            let threshold = metric.threshold.unwrap_or(0.0);
            (nanos > millis(threshold)).then_some(Bound::Max(threshold))
        }
    };
    match bound {
        Some(bound) => {
            tick.say(What::Duration(nanos, bound)).await;
            false
        }
        None => true,
    }
}

fn query_of<'a, P>(tick: &Tick<'a, P>, check: Check, metric: &'a CanaryMetric) -> Query<'a> {
    query(tick, check, metric, Server::Default)
}

async fn builtin_failed<P: Port>(tick: &mut Tick<'_, P>, query: &Query<'_>, error: &QueryError) -> bool {
    let text = format!("{}{}", query.error_prefix(), error.text());
    match error {
        QueryError::NoValues | QueryError::NoValuesIn(_) => {
            tick.say(What::NoValues(&query.metric.name, &text)).await;
        }
        QueryError::Client(error) => {
            let url = tick.subject.spec.metrics_server.as_str();
            tick.say(What::NoClient(url, error)).await;
        }
        _ => tick.say(What::QueryFailed(&text)).await,
    }
    false
}

async fn inline<P: Port>(tick: &mut Tick<'_, P>, metric: &CanaryMetric) -> bool {
    let asked = {
        let query = query_of(tick, Check::Inline, metric);
        tick.port.query(&query).await
    };
    match asked {
        Err(QueryError::NoValues | QueryError::NoValuesIn(_)) => {
            tick.say(What::NoInlineValues(&metric.name)).await;
        }
        Err(error) => tick.say(What::InlineQueryFailed(&metric.name, error.text())).await,
        Ok(value) => return within(tick, metric, value).await,
    }
    false
}

async fn within<P: Port>(tick: &mut Tick<'_, P>, metric: &CanaryMetric, value: f64) -> bool {
    tick.port.measure(Measure::Analysis { metric: &metric.name, value });
    match crossed(metric, value, false) {
        Some(bound) => {
            tick.say(What::Value(&metric.name, value, bound)).await;
            false
        }
        None => true,
    }
}

async fn template<P: Port>(tick: &mut Tick<'_, P>, metric: &CanaryMetric) -> bool {
    let Some(reference) = &metric.template_ref else { return true };
    let namespace =
        if reference.namespace.is_empty() { tick.subject.namespace } else { &reference.namespace };
    let full_name = format!("{}.{namespace}", reference.name);
    let found = tick.port.metric_template(namespace, &reference.name).await;
    let template: MetricTemplate = match found {
        Ok(template) => template,
        Err(error) => {
            tick.say(What::TemplateMissing(&full_name, &error)).await;
            return false;
        }
    };
    let asked = {
        let query = query(tick, Check::Template, metric, Server::Template(&template));
        tick.port.query(&query).await
    };
    match asked {
        Ok(value) => return within(tick, metric, value).await,
        Err(error @ (QueryError::NoValues | QueryError::NoValuesIn(_))) => {
            tick.say(What::NoCustomValues(&metric.name, error.text())).await;
        }
        Err(QueryError::Unrendered(error)) => tick.say(What::TemplateUnrendered(&full_name, &error)).await,
        Err(QueryError::Secret { name, error }) => {
            tick.say(What::TemplateSecret(&full_name, &name, &error)).await;
        }
        Err(QueryError::Provider(error)) => {
            tick.say(What::TemplateProvider(&full_name, &template.spec.provider.kind, &error)).await;
        }
        Err(error) => tick.say(What::TemplateQueryFailed(&metric.name, error.text())).await,
    }
    false
}
