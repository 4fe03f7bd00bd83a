//! The kubelet of all of a cluster's nodes: runs the programs behind the images of the pods bound to them.
//!
//! One task per pod ([`pod`]), one per container ([`container`]), one per probe ([`prober`]); what they find is the
//! pod's [`status::PodState`], which one writer per pod brings to the API. Behaviour follows kubelet 1.33.

mod container;
mod cpu;
mod hooks;
mod images;
mod launch;
mod pod;
mod probe;
mod prober;
mod status;
mod volumes;

pub use status::run_of_container;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use clock::{Clock, Seed};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Client;
use kube::api::DeleteParams;
use program::{Api, Change, ExecOutput, Informer, LogStore, Selection, Tasks};

use crate::controllers::{EventRecorder, PodCpu, PodMetrics};
use crate::registry::Registry;
use crate::wire::{ClusterNet, Wire};

pub(crate) use pod::PodHandle;

/// What the kubelet needs.
pub(crate) struct Parts {
    pub client: Client,
    pub clock: Clock,
    pub seed: Seed,
    pub tasks: Tasks,
    pub wire: Wire,
    pub net: Arc<ClusterNet>,
    pub registry: Arc<dyn Registry>,
    pub apis: crate::ApiAccess,
    pub logs: Arc<dyn LogStore>,
    pub events: EventRecorder,
    /// The nodes by name.
    pub nodes: BTreeMap<String, Host>,
}

/// A node as its pods know it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub ip: IpAddr,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

/// The kubelet. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Kubelet(Arc<Shared>);

pub(crate) struct Shared {
    pub parts: Parts,
    images: images::Images,
    pods: Mutex<BTreeMap<String, PodHandle>>,
    cpu: Mutex<BTreeMap<String, PodCpu>>,
}

impl Kubelet {
    /// Starts to run pods.
    pub(crate) fn start(parts: Parts) -> Self {
        let kubelet = Kubelet(Arc::new(Shared {
            parts,
            images: images::Images::default(),
            pods: Mutex::default(),
            cpu: Mutex::default(),
        }));
        kubelet.watch_pods();
        kubelet.watch_volumes();
        cpu::start(&kubelet);
        kubelet
    }

    fn watch_pods(&self) {
        let parts = &self.0.parts;
        let kubelet = self.clone();
        let api: Api<Pod> = Api::all(parts.client.clone());
        Informer::start(&parts.tasks, parts.clock, api, Selection::default(), move |change| match change {
            Change::Applied { new, .. } => kubelet.see(new),
            Change::Deleted(pod) => {
                let handle = kubelet.pods().remove(uid(pod));
                if let Some(handle) = handle {
                    handle.kill();
                }
            }
        });
    }

    fn see(&self, pod: &Arc<Pod>) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let Some(host) = node.and_then(|node| self.0.parts.nodes.get(node)).cloned() else { return };
        let known = self.pods().get(uid(pod)).cloned();
        match known {
            Some(handle) => handle.update(pod),
            // Over since before this kubelet's time: all that is left to do is to let it go.
            None if has_ended(pod) => {
                if pod.metadata.deletion_timestamp.is_some() {
                    self.let_go(pod);
                }
            }
            None => {
                let handle = PodHandle::start(Arc::clone(&self.0), Arc::clone(pod), host);
                self.pods().insert(uid(pod).to_owned(), handle.clone());
                handle.update(pod);
            }
        }
    }

    fn let_go(&self, pod: &Pod) {
        let parts = &self.0.parts;
        let api: Api<Pod> =
            Api::namespaced(parts.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let name = pod.metadata.name.clone().unwrap_or_default();
        parts.tasks.spawn(async move {
            // Whoever else deletes it is welcome to.
            let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
        });
    }

    /// Ends all pods' processes at once; their objects stay.
    pub(crate) fn shutdown(&self) {
        let pods = std::mem::take(&mut *self.pods());
        for pod in pods.into_values() {
            pod.kill();
        }
    }

    /// Mounted ConfigMaps and Secrets follow their objects a while later, at the kubelet's next sync of the pod.
    fn watch_volumes(&self) {
        let parts = &self.0.parts;
        let (maps, secrets) = (self.clone(), self.clone());
        let api: Api<ConfigMap> = Api::all(parts.client.clone());
        Informer::start(&parts.tasks, parts.clock, api, Selection::default(), move |change| {
            if let Change::Applied { new, .. } = change {
                maps.refresh(
                    volumes::Source::ConfigMap,
                    new.metadata.namespace.as_deref(),
                    new.metadata.name.as_deref(),
                );
            }
        });
        let api: Api<Secret> = Api::all(parts.client.clone());
        Informer::start(&parts.tasks, parts.clock, api, Selection::default(), move |change| {
            if let Change::Applied { new, .. } = change {
                secrets.refresh(
                    volumes::Source::Secret,
                    new.metadata.namespace.as_deref(),
                    new.metadata.name.as_deref(),
                );
            }
        });
    }

    fn refresh(&self, source: volumes::Source, namespace: Option<&str>, name: Option<&str>) {
        let (Some(namespace), Some(name)) = (namespace, name) else { return };
        let pods: Vec<PodHandle> = self.pods().values().cloned().collect();
        for pod in pods.into_iter().filter(|pod| pod.mounts(source, namespace, name)) {
            let shared = Arc::clone(&self.0);
            self.0.parts.tasks.spawn(async move {
                shared.parts.clock.sleep(volumes::SYNC_DELAY).await;
                pod.refresh_volumes().await;
            });
        }
    }

    /// A running pod by its name.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<PodHandle> {
        self.pods().values().find(|pod| pod.is(namespace, name)).cloned()
    }

    /// Runs a command in a container, as `kubectl exec` does.
    pub(crate) async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        argv: Vec<String>,
    ) -> Result<ExecOutput, String> {
        let handle = self.pod(namespace, pod).ok_or_else(|| format!("pods \"{pod}\" not found"))?;
        let name = container.map_or_else(|| handle.first_container(), str::to_owned);
        let output = handle.exec(&name, argv).await;
        output.ok_or_else(|| format!("container {name:?} of pod {namespace}/{pod} is not running"))
    }

    fn pods(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, PodHandle>> {
        self.0.pods.lock().expect("no holder of this lock panics")
    }
}

impl PodMetrics for Kubelet {
    fn cpu(&self, namespace: &str, pod: &str) -> Option<PodCpu> {
        let uid = self.pod(namespace, pod)?.uid();
        self.0.cpu.lock().expect("no holder of this lock panics").get(&uid).cloned()
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
