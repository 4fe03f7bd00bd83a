//! Pods that requests of a scenario are sent from: they do nothing but lend their network, sidecar included.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::Clock;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use program::{Api, Context, ExitCode, Main, Network};
use serde_json::json;

/// The image's repository.
pub(super) const REPOSITORY: &str = "coalmine/client";
/// How long a client pod may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(500);

type Networks = BTreeMap<(String, String, String), Arc<dyn Network>>;

/// The networks of the client pods that run, by cluster, namespace and name. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct ClientPods(Arc<Mutex<Networks>>);

impl ClientPods {
    /// The program of client pods.
    pub(super) fn program(&self) -> Main {
        let pods = self.clone();
        program::program(move |context: Context| {
            let pods = pods.clone();
            async move {
                let identity = &context.identity;
                let key = (identity.cluster.clone(), identity.namespace.clone(), identity.pod.clone());
                pods.lock().insert(key.clone(), Arc::clone(&context.network));
                context.termination.requested().await;
                pods.lock().remove(&key);
                ExitCode::SUCCESS
            }
        })
    }

    /// Creates a client pod, or finds it, and waits until it is ready.
    ///
    /// # Errors
    /// A sentence: the API's refusal, or the state in which the pod is stuck.
    pub(super) async fn get(
        &self,
        client: Client,
        clock: Clock,
        (cluster, namespace, name): (&str, &str, &str),
    ) -> Result<Arc<dyn Network>, String> {
        let what = format!("client pod {namespace}/{name} in {cluster}");
        let api: Api<Pod> = Api::namespaced(client, namespace);
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "client", "image": format!("{REPOSITORY}:1")}]}});
        let pod = serde_json::from_value(pod).map_err(|error| format!("{what}: {error}"))?;
        match api.create(&pod).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(kube::Error::Api(status)) => return Err(format!("{what}: {}", status.message)),
            Err(error) => return Err(format!("{what}: {error}")),
            Ok(_) => {}
        }
        let key = (cluster.to_owned(), namespace.to_owned(), name.to_owned());
        let deadline = clock.elapsed() + READY_WITHIN;
        loop {
            let pod = api.get(name).await.map_err(|error| format!("{what}: {error}"))?;
            let status = pod.status.clone().unwrap_or_default();
            let is_ready = status
                .conditions
                .iter()
                .flatten()
                .any(|found| found.type_ == "Ready" && found.status == "True");
            let network = self.lock().get(&key).cloned();
            if let Some(network) = network.filter(|_| is_ready) {
                return Ok(network);
            }
            if clock.elapsed() >= deadline {
                let state = serde_json::to_string(&status).unwrap_or_default();
                return Err(format!("{what} is not ready after {READY_WITHIN:?}; its status: {state}"));
            }
            clock.sleep(PERIOD).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Networks> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
