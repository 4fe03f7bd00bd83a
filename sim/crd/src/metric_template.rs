//! MetricTemplate (`flagger.app/v1beta1`): a query that several Canaries share.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::canary::LocalReference;
use crate::version::FlaggerVersion;
use crate::wire::{object, wire};

object! {
    /// A metric query with placeholders, and where to ask it.
    struct MetricTemplate("MetricTemplate", "metrictemplates", "flagger.app", FlaggerVersion) {
        spec: MetricTemplateSpec, status: Value,
    }
}

wire! {
    /// Query and provider.
    struct MetricTemplateSpec {
        optional {
            /// Where to ask.
            provider: MetricProvider,
            /// The query, a Go template: `{{ target }}`, `{{ namespace }}`, `{{ interval }}` and others.
            query: String,
        }
    }
}

wire! {
    /// A server that answers queries.
    struct MetricProvider {
        optional {
            /// `prometheus` and others.
            #[serde(rename = "type")]
            kind: String,
            /// Its URL.
            address: String,
            /// Headers to send.
            headers: BTreeMap<String, Vec<String>>,
            /// A Secret with credentials in the template's namespace.
            secret_ref: Option<LocalReference>,
            /// A cloud region.
            region: String,
            /// Skips the check of the server's certificate.
            insecure_skip_verify: bool,
        }
    }
}
