//! Health of an object, by Argo CD's rules for its kind (its `gitops-engine/pkg/health` and resource customizations).

use serde_json::Value;

/// An object's or Application's health, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Works.
    Healthy,
    /// Paused.
    Suspended,
    /// Not there yet.
    Progressing,
    /// Not in the cluster.
    Missing,
    /// Failed.
    Degraded,
    /// No telling.
    Unknown,
}

impl Health {
    /// The word in an Application's status.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "Healthy",
            Health::Suspended => "Suspended",
            Health::Progressing => "Progressing",
            Health::Missing => "Missing",
            Health::Degraded => "Degraded",
            Health::Unknown => "Unknown",
        }
    }
}

/// An object's health and why; `None` for kinds that have none.
pub fn assess(object: &Value) -> Option<(Health, String)> {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return Some((Health::Progressing, "Pending deletion".into()));
    }
    let group =
        object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(g, _)| g);
    match (group, object["kind"].as_str()?) {
        ("apps", "Deployment") => Some(deployment(object)),
        ("apps", "ReplicaSet" | "StatefulSet" | "DaemonSet") => Some(replicas(object)),
        ("", "Pod") => Some(pod(object)),
        ("", "Service") => service(object),
        ("autoscaling", "HorizontalPodAutoscaler") => Some(autoscaler(object)),
        ("flagger.app", "Canary") => Some(canary(object)),
        _ => None,
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn deployment(object: &Value) -> (Health, String) {
    let (spec, status) = (&object["spec"], &object["status"]);
    if spec["paused"] == true {
        return (Health::Suspended, "Deployment is paused".into());
    }
    let name = text(&object["metadata"]["name"]);
    let waiting = |what: String| (Health::Progressing, format!("Waiting for rollout to finish: {what}"));
    if number(&object["metadata"]["generation"]) > number(&status["observedGeneration"]) {
        return waiting("observed deployment generation less than desired generation".into());
    }
    let deadline =
        condition(object, "Progressing").filter(|found| found["reason"] == "ProgressDeadlineExceeded");
    if deadline.is_some() {
        return (Health::Degraded, format!("Deployment {name:?} exceeded its progress deadline"));
    }
    let (wanted, total) = (spec["replicas"].as_i64().unwrap_or(1), number(&status["replicas"]));
    let (updated, available) = (number(&status["updatedReplicas"]), number(&status["availableReplicas"]));
    if updated < wanted {
        return waiting(format!("{updated} out of {wanted} new replicas have been updated..."));
    }
    if total > updated {
        return waiting(format!("{} old replicas are pending termination...", total - updated));
    }
    if available < updated {
        return waiting(format!("{available} of {updated} updated replicas are available..."));
    }
    (Health::Healthy, String::new())
}

fn replicas(object: &Value) -> (Health, String) {
    let status = &object["status"];
    if number(&object["metadata"]["generation"]) > number(&status["observedGeneration"]) {
        return (Health::Progressing, "Waiting for rollout to finish: observed generation is old".into());
    }
    let daemons = object["kind"] == "DaemonSet";
    let wanted =
        if daemons { number(&status["desiredNumberScheduled"]) } else { number(&object["spec"]["replicas"]) };
    let ready = number(&status[if daemons { "numberAvailable" } else { "readyReplicas" }]);
    if ready < wanted {
        return (Health::Progressing, format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    (Health::Healthy, String::new())
}

fn pod(object: &Value) -> (Health, String) {
    let status = &object["status"];
    match status["phase"].as_str() {
        Some("Succeeded") => (Health::Healthy, String::new()),
        Some("Failed") => (Health::Degraded, text(&status["message"])),
        Some("Running") if condition(object, "Ready").is_some_and(|ready| ready["status"] == "True") => {
            (Health::Healthy, String::new())
        }
        Some("Running" | "Pending") => (Health::Progressing, text(&status["message"])),
        _ => (Health::Unknown, String::new()),
    }
}

fn service(object: &Value) -> Option<(Health, String)> {
    let balanced = object["spec"]["type"] == "LoadBalancer";
    let addressed =
        object["status"]["loadBalancer"]["ingress"].as_array().is_some_and(|list| !list.is_empty());
    Some(if balanced && !addressed {
        (Health::Progressing, String::new())
    } else {
        (Health::Healthy, String::new())
    })
}

fn autoscaler(object: &Value) -> (Health, String) {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let failing = conditions.iter().find(|found| {
        let reason = found["reason"].as_str().unwrap_or_default();
        reason.starts_with("FailedGet") || reason.starts_with("Invalid") || reason == "FailedUpdateScale"
    });
    if let Some(failing) = failing {
        return (Health::Degraded, text(&failing["message"]));
    }
    let good = |kind: &str| {
        conditions
            .iter()
            .find(|found| found["type"] == kind && found["status"] == "True")
            .map(|found| text(&found["message"]))
    };
    match good("ScalingLimited").or_else(|| good("AbleToScale")) {
        Some(message) => (Health::Healthy, message),
        // An autoscaler read through v2beta1 keeps its conditions in the status as well; none means it has not run.
        None => (Health::Progressing, "Waiting to Autoscale".into()),
    }
}

fn canary(object: &Value) -> (Health, String) {
    let status = &object["status"];
    let Some(phase) = status["phase"].as_str() else {
        return (Health::Unknown, String::new());
    };
    let promoted = condition(object, "Promoted").map(|found| text(&found["message"])).unwrap_or_default();
    let message = format!("{phase} --- Canary Weight: {} % --- {promoted}", number(&status["canaryWeight"]));
    let health = match phase {
        "Failed" => Health::Degraded,
        "Progressing" | "Promoting" | "Finalising" => Health::Progressing,
        "Initialized" | "Succeeded" => Health::Healthy,
        _ => Health::Unknown,
    };
    (health, message)
}
