//! Which program each image runs. An image that nobody wrote a program for is an HTTP service whose behaviour the
//! scenario sets.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{Image, Registry};
use fixtures::Behaviours;
use program::Main;

use super::client_pods::{self, ClientPods};
use super::shard;

/// How long a node takes to pull the image of a system program.
const PULL: Duration = Duration::from_secs(2);

/// The images of a run.
pub(super) struct Images {
    pub behaviours: Behaviours,
    pub client_pods: ClientPods,
    pub flagger: Main,
    pub loadtester: Main,
    pub prometheus: Main,
    pub argocd: Main,
    pub keda: Main,
    /// Sidecars and gateways, if there is a mesh.
    pub proxy: Option<Main>,
    /// The references that containers have asked for.
    pub used: Mutex<BTreeSet<String>>,
}

/// An image's repository without its registry, tag and digest: `stefanprodan/podinfo`, `prom/prometheus`.
pub(crate) fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or_default();
    let (before, name) = image.rsplit_once('/').unwrap_or(("", image));
    let name = name.split(':').next().unwrap_or_default();
    let whole = &image[..image.len() - image.rsplit('/').next().unwrap_or_default().len() + name.len()];
    match before.split_once('/') {
        // The first part is a registry if it looks like a host.
        Some((registry, _)) if registry.contains(['.', ':']) => &whole[registry.len() + 1..],
        None if before.contains(['.', ':']) => name,
        _ => whole,
    }
}

impl Registry for Images {
    fn find(&self, image: &str) -> Result<Image, String> {
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(format!("invalid reference format: {image:?}"));
        }
        self.used.lock().expect("no holder of this lock panics").insert(image.to_owned());
        let system = |main: &Main| Ok(Image { main: Arc::clone(main), pull: PULL });
        match repository(image) {
            "weaveworks/flagger" | "fluxcd/flagger" => return system(&self.flagger),
            "weaveworks/flagger-loadtester" | "fluxcd/flagger-loadtester" => return system(&self.loadtester),
            "prom/prometheus" | "prometheus/prometheus" => return system(&self.prometheus),
            "argoproj/argocd" => return system(&self.argocd),
            "kedacore/keda" => return system(&self.keda),
            client_pods::REPOSITORY => return system(&self.client_pods.program()),
            shard::REPOSITORY => return system(&shard::program()),
            "istio/proxyv2" | "istio-release/proxyv2" => {
                return match &self.proxy {
                    Some(proxy) => system(proxy),
                    None => Err("a proxy has no control plane: the scenario has no spec.mesh".to_owned()),
                };
            }
            _ => {}
        }
        let behaviour = self.behaviours.get(image);
        let behaviours = self.behaviours.clone();
        let main = match repository(image) {
            "stefanprodan/podinfo" => fixtures::podinfo(behaviours),
            _ => fixtures::http_app(behaviours),
        };
        Ok(Image { main, pull: behaviour.pull_time() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_have_no_registry_tag_or_digest() {
        for (image, expected) in [
            ("stefanprodan/podinfo:3.1.0", "stefanprodan/podinfo"),
            ("ghcr.io/stefanprodan/podinfo:6.0.0@sha256:ab", "stefanprodan/podinfo"),
            ("quay.io/prometheus/prometheus", "prometheus/prometheus"),
            ("localhost:5000/app:2", "app"),
            ("nginx:1", "nginx"),
            ("nginx", "nginx"),
        ] {
            assert_eq!(repository(image), expected, "{image}");
        }
    }
}
