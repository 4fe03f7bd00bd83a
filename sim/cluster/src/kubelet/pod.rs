//! One pod: its network, its containers in order, its status, its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clock::Seed;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::{DeleteParams, Patch, Preconditions};
use program::{Api, ExecOutput, Tasks};
use serde_json::json;
use tokio::sync::{Notify, oneshot};

use super::container::{self, Gate, Role, Running, Stop};
use super::status::{Lifecycle, PodState, is_sidecar};
use super::{Host, Shared, hooks, volumes};
use crate::controllers::reference;
use crate::wire::PodNetwork;

/// How long a pod that says nothing has to end.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// How long beyond its grace a container may take to end.
const HANG: Duration = Duration::from_secs(2);
/// The pause before a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

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
    pub node: String,
    pub host: Host,
    pub network: PodNetwork,
    pub seed: Seed,
    pub tasks: Tasks,
    /// The run's time at which the pod came to the kubelet.
    pub added: Duration,
    latest: Mutex<Arc<Pod>>,
    state: Mutex<PodState>,
    changed: Notify,
    running: Mutex<BTreeMap<String, Running>>,
    ended: Notify,
    written: Mutex<serde_json::Value>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl PodHandle {
    pub(super) fn start(shared: Arc<Shared>, pod: Arc<Pod>, host: Host) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let parts = &shared.parts;
        // By name, not by uid: a pod's draws do not depend on how many uids were drawn before.
        let seed = parts.seed.child(&format!("{namespace}/{name}"));
        let network = parts.wire.add_pod(&parts.net, &namespace, seed);
        let mut state = PodState::new(&spec, host.ip, parts.clock.now());
        state.pod_ip = Some(network.end().ip);
        let task = Arc::new(PodTask {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node: spec.node_name.clone().unwrap_or_default(),
            host,
            spec,
            namespace,
            name,
            network,
            seed,
            tasks: Tasks::default(),
            added: shared.parts.clock.elapsed(),
            latest: Mutex::new(pod),
            state: Mutex::new(state),
            changed: Notify::new(),
            running: Mutex::default(),
            ended: Notify::new(),
            written: Mutex::default(),
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
        if self.0.spec.readiness_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
            self.0.changed.notify_one();
        }
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

    /// Runs a command in a container; `None` if the container is not running.
    pub(super) async fn exec(&self, container: &str, argv: Vec<String>) -> Option<ExecOutput> {
        let exec = lock(&self.0.running).get(container).map(|running| running.exec.clone())?;
        Some(hooks::command(&self.0, &exec, argv).await)
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
        let pod_ip = self.0.network.end().ip;
        for container in self.0.spec.init_containers.iter().flatten().chain(&self.0.spec.containers) {
            let files = lock(&self.0.running).get(&container.name).map(|running| running.files.clone());
            if let Some(files) = files {
                let place = volumes::Place { pod: &pod, container, pod_ip, host: &self.0.host };
                let client = &self.0.shared.parts.client;
                // An object that is gone meanwhile leaves the files as they are.
                let _ = volumes::mount(client, &place, &files, volumes::Mount::Update).await;
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

    /// Whether nothing of the pod may start any more.
    pub(super) fn is_over(&self) -> bool {
        lock(&self.state).over
    }

    /// How long the pod's containers have to end.
    pub(super) fn grace(&self) -> Duration {
        let seconds = self.spec.termination_grace_period_seconds;
        seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(GRACE_DEFAULT, Duration::from_secs)
    }

    /// Writes an event about the pod, or one of its containers.
    pub(super) fn event(
        &self,
        container: Option<&str>,
        warning: bool,
        reason: &str,
        message: impl Into<String>,
    ) {
        let mut object = reference(&*self.latest());
        object.field_path = container.map(|name| {
            let is_app = self.spec.containers.iter().any(|container| container.name == name);
            format!("spec.{}{{{name}}}", if is_app { "containers" } else { "initContainers" })
        });
        let recorder = self.shared.parts.events.component("kubelet", Some(&self.node));
        if warning {
            recorder.warning(&object, reason, message);
        } else {
            recorder.normal(&object, reason, message);
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
            let role = Role::of_init(container);
            let gate = Gate::new(role);
            let running = Box::pin(container::run(Arc::clone(&self), container.clone(), role, gate.clone()));
            if role == Role::Sidecar {
                self.tasks.spawn(async move {
                    running.await;
                });
                gate.passed().await;
                self.set(&container.name, |_| {});
            } else if !running.await {
                if !self.is_terminating() {
                    lock(&self.state).failed = true;
                    Box::pin(self.finish()).await;
                }
                return;
            }
        }
        lock(&self.state).initialized = true;
        for container in &self.spec.containers {
            self.set(&container.name, Lifecycle::create);
        }
        let mut ends = Vec::new();
        for container in &self.spec.containers {
            let gate = Gate::new(Role::App);
            let running =
                Box::pin(container::run(Arc::clone(&self), container.clone(), Role::App, gate.clone()));
            let (end, ended) = oneshot::channel::<()>();
            ends.push(ended);
            self.tasks.spawn(async move {
                running.await;
                drop(end);
            });
            gate.passed().await;
        }
        for ended in ends {
            // Nothing is ever sent: the sender's end is the container's.
            let _ = ended.await;
        }
        if !self.is_terminating() {
            Box::pin(self.finish()).await;
        }
    }

    /// All containers have ended for good: so do the sidecars, and the pod leaves the network.
    async fn finish(&self) {
        lock(&self.state).over = true;
        let deadline = self.shared.parts.clock.elapsed() + self.grace();
        self.stop_sidecars(deadline).await;
        self.network.close();
        self.changed.notify_one();
    }

    /// Brings the pod's state to the API whenever it changes.
    async fn write_status(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            // What changes at the same moment goes out together.
            tokio::task::yield_now().await;
            // The task waits most of the time, and need not keep a request's room for that.
            if Box::pin(self.sync_status()).await.is_err() {
                self.shared.parts.clock.sleep(RETRY).await;
                self.changed.notify_one();
            }
        }
    }

    /// Writes the pod's status if it differs from what was written before.
    async fn sync_status(&self) -> Result<(), kube::Error> {
        let parts = &self.shared.parts;
        let known = self.latest();
        let status = lock(&self.state).status(&self.spec, &known, parts.clock.now());
        let patch = json!({"metadata": {"uid": self.uid}, "status": status});
        if patch == *lock(&self.written) {
            return Ok(());
        }
        let api: Api<Pod> = Api::namespaced(parts.client.clone(), &self.namespace);
        match api.patch_status(&self.name, &Patch::Merge(&patch)).await {
            Ok(_) => *lock(&self.written) = patch,
            // The object is gone, or another pod has taken its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Ends the pod in order: its containers together, then its sidecars from the last to the first.
    async fn terminate(self: Arc<Self>, grace: Duration) {
        let parts = &self.shared.parts;
        let deadline = parts.clock.elapsed() + grace;
        let inits = self.spec.init_containers.iter().flatten().filter(|container| !is_sidecar(container));
        let names = inits.chain(&self.spec.containers).map(|container| container.name.as_str());
        self.stop(&names.collect::<Vec<_>>(), deadline).await;
        self.stop_sidecars(deadline).await;
        self.kill();
        // The last word on how the containers ended, if the API will hear it.
        let _ = self.sync_status().await;
        let api: Api<Pod> = Api::namespaced(parts.client.clone(), &self.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        while let Err(error) = api.delete(&self.name, &params).await {
            match error {
                kube::Error::Api(status) if matches!(status.code, 404 | 409) => break,
                _ => parts.clock.sleep(RETRY).await,
            }
        }
    }

    async fn stop_sidecars(&self, deadline: Duration) {
        for container in self.spec.init_containers.iter().flatten().rev() {
            if is_sidecar(container) {
                self.stop(&[&container.name], deadline).await;
            }
        }
    }

    /// Stops those of the containers that run, and waits for their end.
    async fn stop(&self, names: &[&str], deadline: Duration) {
        let clock = self.shared.parts.clock;
        let grace = deadline.saturating_sub(clock.elapsed());
        for name in names {
            let stop = lock(&self.running).get(*name).map(|running| running.stop.clone());
            let Some(stop) = stop else { continue };
            self.event(Some(name), false, "Killing", format!("Stopping container {name}"));
            // A container that has just ended takes no more orders.
            let _ = stop.send(Stop::Gracefully(grace));
        }
        let all_ended = async {
            loop {
                let ended = self.ended.notified();
                let mut ended = std::pin::pin!(ended);
                ended.as_mut().enable();
                let is_running = |name: &&str| lock(&self.running).contains_key(*name);
                if !names.iter().any(is_running) {
                    return;
                }
                ended.await;
            }
        };
        // Each container keeps to the grace itself; the time beyond is for those that hang.
        let _ = clock.timeout(grace + HANG, all_ended).await;
    }

    fn kill(&self) {
        self.tasks.abort_all();
        for running in std::mem::take(&mut *lock(&self.running)).into_values() {
            running.tasks.abort_all();
        }
        self.network.close();
    }
}
