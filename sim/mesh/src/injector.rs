//! Sidecar injection: what Istio's webhook adds to a pod that is about to be created.

use tree::{Value, json};

/// How sidecars are injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The proxies' version, the tag of `istio/proxyv2`.
    pub version: String,
}

/// The name of the sidecar's container.
pub const PROXY: &str = "istio-proxy";

impl Injection {
    /// Adds the sidecar to a pod whose namespace has `namespace_labels`, if it is to have one. Returns whether it did.
    ///
    /// The pod's own `sidecar.istio.io/inject` (label or annotation) decides where the namespace does not forbid it.
    pub fn inject(&self, pod: &mut Value, namespace_labels: &Value) -> bool {
        let metadata = &pod["metadata"];
        let own = ["labels", "annotations"]
            .iter()
            .find_map(|part| metadata[*part]["sidecar.istio.io/inject"].as_str().map(str::to_owned));
        let enabled = namespace_labels["istio-injection"].as_str();
        let wanted = match (enabled, own.as_deref()) {
            (Some("disabled"), _) | (_, Some("false")) => false,
            (Some("enabled"), _) | (_, Some("true")) => true,
            _ => namespace_labels["istio.io/rev"].is_string(),
        };
        let containers = pod["spec"]["containers"].as_array();
        let has_one = containers.is_some_and(|all| all.iter().any(|container| container["name"] == PROXY));
        if !wanted || has_one || pod["spec"]["hostNetwork"] == true {
            return false;
        }
        if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
            containers.push(self.container());
        }
        let status = json!({"version": self.version, "containers": [PROXY]}).to_string();
        pod["metadata"]["annotations"]["sidecar.istio.io/status"] = json!(status);
        true
    }

    fn container(&self) -> Value {
        json!({
            "name": PROXY,
            "image": format!("istio/proxyv2:{}", self.version),
            "imagePullPolicy": "IfNotPresent",
            "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local"],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            ],
            "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
            "readinessProbe": {
                "httpGet": {"path": "/healthz/ready", "port": 15021},
                "initialDelaySeconds": 1, "periodSeconds": 2, "failureThreshold": 30, "timeoutSeconds": 3,
            },
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2000m", "memory": "1024Mi"}},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_and_pod_decide_together() {
        let injection = Injection { version: "1.4.5".into() };
        let check = |namespace: Value, labels: Value, expected: bool| {
            let mut pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main"}]}});
            assert_eq!(injection.inject(&mut pod, &namespace), expected, "{pod}");
            let count = pod["spec"]["containers"].as_array().unwrap().len();
            assert_eq!(count, 1 + usize::from(expected));
            assert!(!injection.inject(&mut pod.clone(), &namespace) || !expected, "never twice");
        };
        check(json!({"istio-injection": "enabled"}), json!({}), true);
        check(json!({"istio-injection": "enabled"}), json!({"sidecar.istio.io/inject": "false"}), false);
        check(json!({}), json!({}), false);
        check(json!({}), json!({"sidecar.istio.io/inject": "true"}), true);
        check(json!({"istio-injection": "disabled"}), json!({"sidecar.istio.io/inject": "true"}), false);
        check(json!({"istio.io/rev": "default"}), json!({}), true);
    }
}
