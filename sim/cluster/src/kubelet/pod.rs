//! One pod: its network, its containers in order, its status, its end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clock::Seed;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use program::{ExecTable, Tasks};
use serde_json::json;
use tokio::sync::Notify;

use super::container::{self, Running, Stop};
use super::status::{Lifecycle, PodState};
use super::{Shared, volumes};
use crate::controllers::reference;
use crate::wire::PodNetwork;

/// How long a pod that says nothing has to end.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// A pod on one of the nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PodHandle(Arc<PodTask>);

/// What a pod's tasks share.
pub(super) struct PodTask {
    pub shared: Arc<Shared>,
    pub spec: PodSpec,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub network: PodNetwork,
    pub seed: Seed,
    pub tasks: Tasks,
    latest: Mutex<Arc<Pod>>,
    state: Mutex<PodState>,
    changed: Notify,
    running: Mutex<BTreeMap<String, Running>>,
    ended: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl PodHandle {
    pub(super) fn start(shared: Arc<Shared>, pod: Arc<Pod>, host_ip: IpAddr) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let parts = &shared.parts;
        // By name, not by uid: a pod's draws do not depend on how many uids were drawn before.
        let seed = parts.seed.child(&format!("{namespace}/{name}"));
        let network = parts.wire.add_pod(&parts.net, &namespace, seed);
        let mut state = PodState::new(&spec, host_ip, parts.clock.now());
        state.pod_ip = Some(network.end().ip);
        let task = Arc::new(PodTask {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            spec,
            namespace,
            name,
            network,
            seed,
            tasks: Tasks::default(),
            latest: Mutex::new(pod),
            state: Mutex::new(state),
            changed: Notify::new(),
            running: Mutex::default(),
            ended: Notify::new(),
            shared,
        });
        let (writer, runner) = (Arc::clone(&task), Arc::clone(&task));
        task.tasks.spawn(async move { writer.write_status().await });
        task.tasks.spawn(async move { runner.run().await });
        PodHandle(task)
    }

    /// Takes a newer state of the object in; a deletion begins the pod's end.
    pub(super) fn update(&self, pod: &Arc<Pod>) {
        *lock(&self.0.latest) = Arc::clone(pod);
        if pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let first = {
            let mut state = lock(&self.0.state);
            !std::mem::replace(&mut state.terminating, true)
        };
        if first {
            self.0.changed.notify_one();
            let grace =
                pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            let grace = grace.map_or(GRACE_DEFAULT, Duration::from_secs);
            let task = Arc::clone(&self.0);
            self.0.shared.parts.tasks.spawn(async move { task.terminate(grace).await });
        }
    }

    /// Ends everything at once: the object is gone.
    pub(super) fn kill(&self) {
        self.0.kill();
    }

    pub(super) fn uid(&self) -> String {
        self.0.uid.clone()
    }

    pub(super) fn is(&self, namespace: &str, name: &str) -> bool {
        self.0.namespace == namespace && self.0.name == name
    }

    pub(crate) fn first_container(&self) -> String {
        self.0.spec.containers.first().map(|container| container.name.clone()).unwrap_or_default()
    }

    pub(super) fn exec_table(&self, container: &str) -> Option<ExecTable> {
        lock(&self.0.running).get(container).map(|running| running.exec.clone())
    }

    /// CPU time used so far by each running container.
    pub(super) fn cpu(&self) -> Vec<(String, Duration)> {
        lock(&self.0.running).iter().map(|(name, running)| (name.clone(), running.cpu.total())).collect()
    }

    /// Makes a container's process exit with `code`, as a crash would.
    pub(crate) fn crash(&self, container: &str, code: i32) -> bool {
        let running = lock(&self.0.running);
        running.get(container).is_some_and(|running| running.stop.send(Stop::Crash(code)).is_ok())
    }

    pub(super) fn mounts(&self, source: volumes::Source, namespace: &str, name: &str) -> bool {
        self.0.namespace == namespace && volumes::mounts(&lock(&self.0.latest), source, name)
    }

    /// Brings the mounted ConfigMaps and Secrets up to date.
    pub(super) async fn refresh_volumes(&self) {
        let pod = self.0.latest();
        for container in &self.0.spec.containers {
            let files = lock(&self.0.running).get(&container.name).map(|running| running.files.clone());
            if let Some(files) = files {
                // An object that is gone meanwhile leaves the files as they are.
                let _ = volumes::mount(&self.0.shared.parts.client, &pod, container, &files).await;
            }
        }
    }
}

impl PodTask {
    pub(super) fn latest(&self) -> Arc<Pod> {
        Arc::clone(&lock(&self.latest))
    }

    pub(super) fn is_terminating(&self) -> bool {
        lock(&self.state).terminating
    }

    /// Changes a container's state; the status follows.
    pub(super) fn set(&self, container: &str, change: impl FnOnce(&mut Lifecycle)) {
        if let Some(state) = lock(&self.state).containers.get_mut(container) {
            change(state);
        }
        self.changed.notify_one();
    }

    /// Writes an event about the pod.
    pub(super) fn event(&self, warning: bool, reason: &str, message: impl Into<String>) {
        let pod = self.latest();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let recorder = self.shared.parts.events.component("kubelet", node);
        if warning {
            recorder.warning(&reference(&*pod), reason, message);
        } else {
            recorder.normal(&reference(&*pod), reason, message);
        }
    }

    pub(super) fn register(&self, container: &str, running: Running) {
        lock(&self.running).insert(container.to_owned(), running);
    }

    pub(super) fn unregister(&self, container: &str) {
        lock(&self.running).remove(container);
        self.ended.notify_waiters();
    }

    async fn run(self: Arc<Self>) {
        self.changed.notify_one();
        for container in self.spec.init_containers.iter().flatten() {
            if !container::run(Arc::clone(&self), container.clone(), true).await {
                return;
            }
        }
        lock(&self.state).initialized = true;
        self.changed.notify_one();
        for container in &self.spec.containers {
            let (task, container): (_, Container) = (Arc::clone(&self), container.clone());
            self.tasks.spawn(async move {
                container::run(task, container, false).await;
            });
        }
    }

    /// Brings the pod's state to the API whenever it changes.
    async fn write_status(self: Arc<Self>) {
        let parts = &self.shared.parts;
        let api: Api<Pod> = Api::namespaced(parts.client.clone(), &self.namespace);
        let mut written = serde_json::Value::Null;
        loop {
            self.changed.notified().await;
            let known = self.latest();
            let status = lock(&self.state).status(&self.spec, &known, parts.clock.now());
            let patch = json!({"metadata": {"uid": self.uid}, "status": status});
            if patch == written {
                continue;
            }
            match api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => written = patch,
                // The object is gone, or another pod has taken its name.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(_) => {
                    parts.clock.sleep(Duration::from_secs(1)).await;
                    self.changed.notify_one();
                }
            }
        }
    }

    async fn terminate(self: Arc<Self>, grace: Duration) {
        let parts = &self.shared.parts;
        let stops: Vec<_> = {
            let running = lock(&self.running);
            running.iter().map(|(name, running)| (name.clone(), running.stop.clone())).collect()
        };
        for (container, stop) in stops {
            self.event(false, "Killing", format!("Stopping container {container}"));
            // A container that has just ended takes no more orders.
            let _ = stop.send(Stop::Gracefully(grace));
        }
        let all_ended = async {
            loop {
                let ended = self.ended.notified();
                let mut ended = std::pin::pin!(ended);
                ended.as_mut().enable();
                if lock(&self.running).is_empty() {
                    return;
                }
                ended.await;
            }
        };
        // Each container keeps to the grace itself; the second here is for those that hang.
        let _ = parts.clock.timeout(grace + Duration::from_secs(2), all_ended).await;
        self.kill();
        let api: Api<Pod> = Api::namespaced(parts.client.clone(), &self.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        while let Err(error) = api.delete(&self.name, &params).await {
            match error {
                kube::Error::Api(status) if matches!(status.code, 404 | 409) => break,
                _ => parts.clock.sleep(Duration::from_secs(1)).await,
            }
        }
    }

    fn kill(&self) {
        self.tasks.abort_all();
        for running in std::mem::take(&mut *lock(&self.running)).into_values() {
            running.tasks.abort_all();
        }
        self.network.close();
    }
}
