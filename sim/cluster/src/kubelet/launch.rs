//! What it takes before a container can start: its image on the node, and everything that its configuration names.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use program::{
    Context, CpuMeter, ExecTable, Files, Identity, LogSink, LogSource, Main, Network as _, Tasks, Termination,
};

use super::container::{BACKOFF_MAX, Gate};
use super::hooks;
use super::images::{self, Pull};
use super::pod::PodTask;
use super::status::Doing;
use super::volumes;
use crate::wire::PodNetwork;

/// The pause before a configuration that is missing is looked for again.
const CONFIG_RETRY: Duration = Duration::from_secs(10);
/// The pause before a pull is tried again, doubled for each further one.
const PULL_BACKOFF: Duration = Duration::from_secs(10);
/// How long a failed pull is told as such, before it is told as a pause.
const PULL_FAILED: Duration = Duration::from_secs(1);
/// How long it takes to find that a node's image is still the registry's.
const RECHECK: Duration = Duration::from_millis(500);
/// Where every container finds its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// A program and what it is started with.
pub(super) struct Launch {
    pub main: Main,
    pub context: Context,
    pub network: PodNetwork,
}

/// Gathers everything, trying until it is there.
pub(super) async fn prepare(pod: &Arc<PodTask>, container: &Container, restarts: u32, gate: &Gate) -> Launch {
    let image = pull(pod, container, gate).await;
    let main = hooks::entrypoint(container).unwrap_or(image);
    let network = pod.network.process();
    let context = configure(pod, container, restarts, &network, gate).await;
    Launch { main, context, network }
}

/// Gets the image onto the node.
async fn pull(pod: &Arc<PodTask>, container: &Container, gate: &Gate) -> Main {
    let shared = &pod.shared;
    let clock = shared.parts.clock;
    let name = Some(container.name.as_str());
    let image = container.image.as_deref().unwrap_or_default();
    let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
    let mut backoff = PULL_BACKOFF;
    loop {
        let found = match shared.parts.registry.find(image) {
            Ok(found) => found,
            Err(why) => {
                let why = format!("failed to pull image {image:?}: {why}");
                pod.event(name, false, "Pulling", format!("Pulling image {image:?}"));
                pod.event(name, true, "Failed", format!("Failed to pull image {image:?}: {why}"));
                pod.event(name, true, "Failed", "Error: ErrImagePull");
                wait(pod, container, "ErrImagePull", why.clone());
                gate.attempted();
                clock.sleep(PULL_FAILED).await;
                let message = format!("Back-off pulling image {image:?}");
                pod.event(name, false, "BackOff", message.clone());
                pod.event(name, true, "Failed", "Error: ImagePullBackOff");
                wait(pod, container, "ImagePullBackOff", format!("{message}: ErrImagePull: {why}"));
                clock.sleep(backoff - PULL_FAILED).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                continue;
            }
        };
        match images::want(shared, &pod.node, image, policy) {
            Pull::Present => {
                let message = format!("Container image {image:?} already present on machine");
                pod.event(name, false, "Pulled", message);
                return found.main;
            }
            // Ends when the pull does, whichever way.
            Pull::Wait(pulled) => pulled.requested().await,
            Pull::Forbidden => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                pod.event(name, true, "ErrImageNeverPull", message.clone());
                pod.event(name, true, "Failed", "Error: ErrImageNeverPull");
                wait(pod, container, "ErrImageNeverPull", message);
                gate.attempted();
                clock.sleep(CONFIG_RETRY).await;
            }
            Pull::Start { guard, is_present } => {
                pod.event(name, false, "Pulling", format!("Pulling image {image:?}"));
                let took = if is_present { found.pull.min(RECHECK) } else { found.pull };
                clock.sleep(took).await;
                guard.done();
                let took = spell(took);
                let message =
                    format!("Successfully pulled image {image:?} in {took} ({took} including waiting)");
                pod.event(name, false, "Pulled", message);
                return found.main;
            }
        }
    }
}

fn wait(pod: &PodTask, container: &Container, reason: &'static str, message: String) {
    pod.set(&container.name, |state| state.doing = Doing::Waiting { reason, message });
}

/// Gathers what the process gets.
async fn configure(
    pod: &Arc<PodTask>,
    container: &Container,
    restarts: u32,
    network: &PodNetwork,
    gate: &Gate,
) -> Context {
    let parts = &pod.shared.parts;
    let name = Some(container.name.as_str());
    loop {
        let object = pod.latest();
        let place = volumes::Place { pod: &object, container, pod_ip: network.local_ip(), host: &pod.host };
        let files = Files::default();
        files.write(NAMESPACE_FILE, pod.namespace.clone());
        if let Err(why) = volumes::mount(&parts.client, &place, &files, volumes::Mount::First).await {
            pod.event(None, true, "FailedMount", why);
            wait(pod, container, "ContainerCreating", String::new());
            // The kubelet mounts all volumes before it starts anything, so that the next container waits too.
            parts.clock.sleep(CONFIG_RETRY).await;
            continue;
        }
        let mut environment = match volumes::environment(&parts.client, &place).await {
            Ok(environment) => environment,
            Err(why) => {
                pod.event(name, true, "Failed", format!("Error: {why}"));
                wait(pod, container, "CreateContainerConfigError", why);
                gate.attempted();
                parts.clock.sleep(CONFIG_RETRY).await;
                continue;
            }
        };
        environment
            .entry("HOSTNAME".to_owned())
            .or_insert_with(|| pod.spec.hostname.clone().unwrap_or_else(|| pod.name.clone()));
        let expand = |text: &String| volumes::expand(text, &environment);
        // The first word of `command` is the executable; an image's own entrypoint takes all arguments.
        let command = container.command.iter().flatten().skip(1).map(expand);
        let args: Vec<String> = command.chain(container.args.iter().flatten().map(expand)).collect();
        let identity = identity(pod, &place, restarts);
        let source = LogSource {
            cluster: identity.cluster.clone(),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            workload: identity.workload.clone(),
            container: container.name.clone(),
            run: restarts,
        };
        let apis = (parts.apis)(&identity);
        return Context {
            identity: Arc::new(identity),
            args: args.into(),
            env: Arc::new(environment),
            files,
            apis,
            network: Arc::new(network.clone()),
            clock: parts.clock,
            seed: pod.seed.child(&container.name).child(&restarts.to_string()),
            log: LogSink::new(Arc::clone(&parts.logs), source, parts.clock),
            cpu: CpuMeter::default(),
            tasks: Tasks::default(),
            termination: Termination::default(),
            exec: ExecTable::default(),
        };
    }
}

fn identity(pod: &PodTask, place: &volumes::Place<'_>, restart_count: u32) -> Identity {
    let (object, container) = (place.pod, place.container);
    let ports = container.ports.iter().flatten();
    Identity {
        cluster: pod.shared.parts.net.name.to_string(),
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        pod_ip: place.pod_ip,
        node: pod.node.clone(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        annotations: object.metadata.annotations.clone().unwrap_or_default(),
        service_account: pod.spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        workload: workload(object),
        container: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ports: ports
            .filter_map(|port| Some((u16::try_from(port.container_port).ok()?, port.name.clone())))
            .collect(),
        restart_count,
    }
}

/// The workload that owns a pod: a ReplicaSet's Deployment is its name without the template's hash.
fn workload(pod: &Pod) -> String {
    let own_name = || pod.metadata.name.clone().unwrap_or_default();
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else { return own_name() };
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
    deployment.unwrap_or(&owner.name).to_owned()
}

/// A duration in milliseconds as Go prints it: `7.5s`, `2m40s`, `500ms`.
pub(super) fn spell(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let seconds = (millis % 60_000) as f64 / 1000.0;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (millis, text) in [
            (0, "0s"),
            (500, "500ms"),
            (7500, "7.5s"),
            (10_000, "10s"),
            (160_000, "2m40s"),
            (300_000, "5m0s"),
            (3_601_500, "1h0m1.5s"),
        ] {
            assert_eq!(spell(Duration::from_millis(millis)), text);
        }
    }
}
