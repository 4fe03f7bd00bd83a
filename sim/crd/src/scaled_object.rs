//! ScaledObject (`keda.sh`): KEDA's autoscaler of a workload.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::version::KedaVersion;
use crate::wire::{object, wire};

object! {
    /// A workload that is scaled by events.
    struct ScaledObject("ScaledObject", "scaledobjects", "keda.sh", KedaVersion) {
        spec: ScaledObjectSpec, status: Value,
    }
}

impl ScaledObject {
    /// The annotation that holds a workload at a number of replicas.
    pub const PAUSED_REPLICAS: &'static str = "autoscaling.keda.sh/paused-replicas";
}

wire! {
    /// The workload, its limits and what it is scaled by.
    struct ScaledObjectSpec {
        required {
            /// The workload.
            scale_target_ref: ScaleTarget,
            /// What it is scaled by.
            triggers: Vec<ScaleTrigger>,
        }
        optional {
            /// Seconds between looks at the triggers.
            polling_interval: Option<i32>,
            /// Seconds before it is scaled to zero.
            cooldown_period: Option<i32>,
            /// Replicas while nothing triggers.
            idle_replica_count: Option<i32>,
            /// The least replicas.
            min_replica_count: Option<i32>,
            /// The most replicas.
            max_replica_count: Option<i32>,
            /// Settings of the autoscaler that KEDA makes.
            advanced: Option<ScaledObjectAdvanced>,
            /// Replicas when triggers fail.
            fallback: Option<Value>,
        }
    }
}

wire! {
    /// The workload that is scaled.
    struct ScaleTarget {
        required {
            /// Its name.
            name: String,
        }
        optional {
            /// Its API group and version.
            api_version: String,
            /// Its kind.
            kind: String,
            /// The container whose environment triggers read.
            env_source_container_name: String,
        }
    }
}

wire! {
    /// Something to scale by.
    struct ScaleTrigger {
        required {
            /// `prometheus`, `cpu`, …
            #[serde(rename = "type")]
            kind: String,
            /// Its settings, a query among them.
            metadata: BTreeMap<String, String>,
        }
        optional {
            /// A name, for overrides.
            name: String,
            /// Credentials.
            authentication_ref: Option<Value>,
            /// `AverageValue`, `Value` or `Utilization`.
            metric_type: String,
        }
    }
}

wire! {
    /// Settings of the autoscaler that KEDA makes.
    struct ScaledObjectAdvanced {
        optional {
            /// Its name and behaviour.
            horizontal_pod_autoscaler_config: Option<ScaledObjectHpa>,
            /// Whether deletion restores the replicas.
            restore_to_original_replica_count: bool,
        }
    }
}

wire! {
    /// The autoscaler that KEDA makes.
    struct ScaledObjectHpa {
        optional {
            /// Its name.
            name: String,
            /// How fast it scales.
            behavior: Option<Value>,
        }
    }
}
