//! What a tick asks of a metrics server.

use crd::{CanaryMetric, CanarySpec};

use crate::dialect::Dialect;
use crate::port::Server;
use crate::template::{TemplateModel, render};

/// The kind of check that a query belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// `request-success-rate`: percent of requests without a 5xx answer.
    SuccessRate,
    /// `request-duration`: the 99th percentile, in seconds for `v1.0.0-rc.1` and for the HTTP provider, else in
    /// milliseconds.
    Duration,
    /// A query in the Canary.
    Inline,
    /// A MetricTemplate's query.
    Template,
}

/// A question to a metrics server. The text is made on demand: a port that knows the answer need not render it.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The kind of check.
    pub check: Check,
    /// The metric as the Canary lists it.
    pub metric: &'a CanaryMetric,
    /// Whom to ask.
    pub server: Server<'a>,
    /// The window to look back over, defaults applied.
    pub interval: &'a str,
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) spec: &'a CanarySpec,
    pub(crate) provider: &'a str,
    pub(crate) dialect: Dialect,
}

impl Query<'_> {
    /// The PromQL text.
    ///
    /// # Errors
    /// Go's message for an unusable template, with the dialect's prefix.
    pub fn text(&self) -> Result<String, String> {
        let rendered = match (self.check, self.server) {
            (Check::SuccessRate, _) => render(self.success_rate(), &self.model()),
            (Check::Duration, _) => render(self.duration(), &self.model()),
            (Check::Inline, _) if self.dialect == Dialect::Rc1 => Ok(self.metric.query.clone()),
            // As upstream: a query that cannot be rendered is asked as an empty one.
            (Check::Inline, _) => Ok(render(&self.metric.query, &self.model()).unwrap_or_default()),
            (_, Server::Template(template)) => render(&template.spec.query, &self.model()),
            (_, Server::Default) => render(&self.metric.query, &self.model()),
        };
        rendered.map_err(|error| match self.dialect {
            Dialect::Rc1 => error,
            Dialect::Latest if error.contains("executing") => format!("template excution failed: {error}"),
            Dialect::Latest => format!("template parsing failed: {error}"),
        })
    }

    /// The functions that the query's template may call.
    pub fn model(&self) -> TemplateModel<'_> {
        let target = self.spec.target_ref.name.as_str();
        TemplateModel {
            name: self.name,
            namespace: self.namespace,
            target,
            service: self.spec.apex_name(),
            ingress: self.spec.ingress_ref.as_ref().map_or(target, |reference| &reference.name),
            route: (self.dialect == Dialect::Latest)
                .then(|| self.spec.route_ref.as_ref().map_or(target, |reference| reference.name.as_str())),
            interval: self.interval,
            variables: (self.dialect == Dialect::Latest).then_some(&self.metric.template_variables),
        }
    }

    /// Whether the builtin queries read the workload's own HTTP metrics, not the mesh's. A Service has no pods of
    /// its own: the mesh is asked for it, whoever routes.
    fn reads_http_metrics(&self) -> bool {
        let switches = match self.dialect {
            Dialect::Rc1 => matches!(self.provider, "kubernetes" | "none"),
            Dialect::Latest => self.provider == "kubernetes" || self.provider.starts_with("gatewayapi"),
        };
        switches && self.spec.target_ref.kind != "Service"
    }

    /// What the newer dialect puts before a builtin's error.
    pub(crate) fn error_prefix(&self) -> &'static str {
        let bare = self.check == Check::SuccessRate && self.reads_http_metrics();
        if self.dialect == Dialect::Rc1 || bare { "" } else { "running query failed: " }
    }

    fn success_rate(&self) -> &'static str {
        if self.reads_http_metrics() {
            "sum(rate(http_request_duration_seconds_count{kubernetes_namespace=\"{{ namespace }}\",\
             kubernetes_pod_name=~\"{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)\",status!~\"5.*\"}[{{ interval }}])) / \
             sum(rate(http_request_duration_seconds_count{kubernetes_namespace=\"{{ namespace }}\",\
             kubernetes_pod_name=~\"{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)\"}[{{ interval }}])) * 100"
        } else {
            "sum(rate(istio_requests_total{reporter=\"destination\",destination_workload_namespace=\"{{ namespace }}\",\
             destination_workload=~\"{{ target }}\",response_code!~\"5.*\"}[{{ interval }}])) / \
             sum(rate(istio_requests_total{reporter=\"destination\",destination_workload_namespace=\"{{ namespace }}\",\
             destination_workload=~\"{{ target }}\"}[{{ interval }}])) * 100"
        }
    }

    fn duration(&self) -> &'static str {
        if self.reads_http_metrics() {
            return "histogram_quantile(0.99, sum(rate(http_request_duration_seconds_bucket{\
                    kubernetes_namespace=\"{{ namespace }}\",\
                    kubernetes_pod_name=~\"{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)\"}[{{ interval }}])) by (le))";
        }
        match self.dialect {
            Dialect::Rc1 => {
                "histogram_quantile(0.99, sum(rate(istio_request_duration_seconds_bucket{reporter=\"destination\",\
                 destination_workload_namespace=\"{{ namespace }}\",destination_workload=~\"{{ target }}\"}\
                 [{{ interval }}])) by (le))"
            }
            Dialect::Latest => {
                "histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{reporter=\"destination\",\
                 destination_workload_namespace=\"{{ namespace }}\",destination_workload=~\"{{ target }}\"}\
                 [{{ interval }}])) by (le))"
            }
        }
    }

    /// A duration query's value in whole milliseconds, as nanoseconds: Go's conversion truncates, and turns what does
    /// not fit, NaN among it, into the least integer, which overflows to 0.
    pub(crate) fn duration_nanos(&self, value: f64) -> i64 {
        let in_seconds = self.dialect == Dialect::Rc1 || self.reads_http_metrics();
        let millis = if in_seconds { value * 1000.0 } else { value };
        let whole = if millis.abs() < 9.2e18 { millis as i64 } else { i64::MIN };
        whole.wrapping_mul(1_000_000)
    }
}
