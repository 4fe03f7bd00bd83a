//! A pod's state as the kubelet knows it, and the status that it makes of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clock::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What a container is doing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Doing {
    Waiting { reason: &'static str, message: String },
    Running { since: Timestamp },
    Ended(Ended),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub code: i32,
    pub reason: &'static str,
    pub started: Timestamp,
    pub finished: Timestamp,
}

/// One container.
#[derive(Clone, Debug)]
pub(super) struct Lifecycle {
    pub doing: Doing,
    pub last: Option<Ended>,
    pub ready: bool,
    pub started: bool,
    pub restarts: u32,
}

impl Default for Lifecycle {
    fn default() -> Self {
        let doing = Doing::Waiting { reason: "ContainerCreating", message: String::new() };
        Lifecycle { doing, last: None, ready: false, started: false, restarts: 0 }
    }
}

impl Lifecycle {
    /// The container's turn has come.
    pub(super) fn create(&mut self) {
        if self.doing == (Doing::Waiting { reason: "PodInitializing", message: String::new() }) {
            self.doing = Lifecycle::default().doing;
        }
    }
}

/// Whether an init container stays for the pod's life.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// One pod.
#[derive(Clone, Debug)]
pub(super) struct PodState {
    pub started: Timestamp,
    pub pod_ip: Option<IpAddr>,
    pub host_ip: IpAddr,
    pub initialized: bool,
    /// An init container failed, and may not be tried again.
    pub failed: bool,
    /// All containers have ended for good; only sidecars may still run, for a while.
    pub over: bool,
    pub terminating: bool,
    pub containers: BTreeMap<String, Lifecycle>,
    /// When each condition last changed.
    transitions: BTreeMap<&'static str, (bool, Timestamp)>,
}

impl PodState {
    pub(super) fn new(spec: &PodSpec, host_ip: IpAddr, now: Timestamp) -> Self {
        let inits = spec.init_containers.iter().flatten();
        let names = inits.chain(&spec.containers).map(|container| container.name.clone());
        let initialized = spec.init_containers.as_ref().is_none_or(Vec::is_empty);
        let mut containers: BTreeMap<_, _> = names.map(|name| (name, Lifecycle::default())).collect();
        if !initialized {
            for state in containers.values_mut() {
                state.doing = Doing::Waiting { reason: "PodInitializing", message: String::new() };
            }
        }
        PodState {
            started: now,
            pod_ip: None,
            host_ip,
            initialized,
            failed: false,
            over: false,
            terminating: false,
            containers,
            transitions: BTreeMap::new(),
        }
    }

    /// Containers of the pod that must be ready for the pod to be: all but init containers that end.
    fn unready<'a>(&self, spec: &'a PodSpec) -> Vec<&'a str> {
        let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
        let unready = spec.containers.iter().chain(sidecars).map(|container| container.name.as_str());
        unready.filter(|name| self.terminating || !self.containers[*name].ready).collect()
    }

    fn phase(&self, spec: &PodSpec) -> &'static str {
        let of = |name: &String| &self.containers[name];
        let all: Vec<_> = spec.containers.iter().map(|container| of(&container.name)).collect();
        let restarts = spec.restart_policy.as_deref().unwrap_or("Always");
        if self.failed {
            return "Failed";
        }
        if !self.initialized {
            return "Pending";
        }
        if all.iter().all(|state| matches!(state.doing, Doing::Ended(_))) {
            let failed = all.iter().any(|state| matches!(&state.doing, Doing::Ended(end) if end.code != 0));
            match (self.terminating, restarts, failed) {
                (true, _, true) | (_, "Never", true) => return "Failed",
                (true, _, false) | (_, "Never" | "OnFailure", false) => return "Succeeded",
                _ => {}
            }
        }
        let has_run =
            |state: &&Lifecycle| !matches!(state.doing, Doing::Waiting { .. }) || state.last.is_some();
        if all.iter().all(has_run) { "Running" } else { "Pending" }
    }

    /// The status to write; `known` is the pod as the API has it.
    pub(super) fn status(&mut self, spec: &PodSpec, known: &Pod, now: Timestamp) -> PodStatus {
        let phase = self.phase(spec);
        let before = known.status.clone().unwrap_or_default();
        let unready = self.unready(spec);
        let containers_ready = unready.is_empty();
        let (reason, message) = match phase {
            "Succeeded" => ("PodCompleted", None),
            "Failed" => ("PodFailed", None),
            _ => (
                "ContainersNotReady",
                Some(format!("containers with unready status: [{}]", unready.join(" "))),
            ),
        };
        let gates = closed_gates(spec, &before);
        let (ready_reason, ready_message) = match (containers_ready, &gates) {
            (true, Some(gates)) => ("ReadinessGatesNotReady", Some(gates.clone())),
            _ => (reason, message.clone()),
        };
        let incomplete = self.incomplete(spec);
        let mut conditions = Vec::new();
        for (name, holds, reason, message) in [
            ("PodReadyToStartContainers", self.pod_ip.is_some(), None, None),
            ("Initialized", self.initialized, Some("ContainersNotInitialized"), incomplete),
            ("Ready", containers_ready && gates.is_none(), Some(ready_reason), ready_message),
            ("ContainersReady", containers_ready, Some(reason), message),
        ] {
            let since = match self.transitions.get(name) {
                Some((before, since)) if *before == holds => *since,
                _ => now,
            };
            self.transitions.insert(name, (holds, since));
            conditions.push(PodCondition {
                type_: name.into(),
                status: if holds { "True" } else { "False" }.into(),
                reason: reason.filter(|_| !holds).map(str::to_owned),
                message: message.filter(|_| !holds),
                last_transition_time: Some(Time(since)),
                ..PodCondition::default()
            });
        }
        // Other people's conditions stay: the scheduler's, and those of readiness gates.
        let own: Vec<String> = conditions.iter().map(|condition| condition.type_.clone()).collect();
        let others = before.conditions.into_iter().flatten();
        conditions.extend(others.filter(|known| !own.contains(&known.type_)));
        let statuses = |containers: &[Container]| {
            let statuses = containers.iter().map(|container| self.container_status(container, known));
            Some(statuses.collect::<Vec<_>>()).filter(|statuses| !statuses.is_empty())
        };
        PodStatus {
            phase: Some(phase.into()),
            qos_class: before.qos_class,
            start_time: Some(Time(self.started)),
            host_ip: Some(self.host_ip.to_string()),
            host_ips: Some(vec![HostIP { ip: self.host_ip.to_string() }]),
            pod_ip: self.pod_ip.map(|ip| ip.to_string()),
            pod_ips: self.pod_ip.map(|ip| vec![PodIP { ip: ip.to_string() }]),
            conditions: Some(conditions),
            container_statuses: statuses(&spec.containers),
            init_container_statuses: statuses(spec.init_containers.as_deref().unwrap_or_default()),
            ..PodStatus::default()
        }
    }

    fn incomplete(&self, spec: &PodSpec) -> Option<String> {
        let names = spec.init_containers.iter().flatten().map(|container| container.name.as_str());
        let incomplete: Vec<&str> = names.filter(|name| !self.containers[*name].ready).collect();
        (!incomplete.is_empty())
            .then(|| format!("containers with incomplete status: [{}]", incomplete.join(" ")))
    }

    fn container_status(&self, container: &Container, known: &Pod) -> ContainerStatus {
        let state = &self.containers[&container.name];
        let image = container.image.clone().unwrap_or_default();
        let uid = known.metadata.uid.as_deref().unwrap_or_default();
        let id_of = |run: u32| format!("coalmine://{uid}/{}/{run}", container.name);
        let id = id_of(state.restarts);
        // While the next run is waited for, the last one still has the current number.
        let last = match state.doing {
            Doing::Waiting { reason: "CrashLoopBackOff", .. } => id.clone(),
            _ => id_of(state.restarts.saturating_sub(1)),
        };
        let has_run = !matches!(state.doing, Doing::Waiting { .. }) || state.last.is_some();
        let current = match &state.doing {
            Doing::Waiting { reason, message } => ContainerState {
                waiting: Some(ContainerStateWaiting {
                    reason: Some((*reason).into()),
                    message: Some(message.clone()).filter(|message| !message.is_empty()),
                }),
                ..ContainerState::default()
            },
            Doing::Running { since } => ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
                ..ContainerState::default()
            },
            Doing::Ended(end) => terminated(end, &id),
        };
        ContainerStatus {
            name: container.name.clone(),
            image_id: if has_run { image.clone() } else { String::new() },
            image,
            container_id: has_run.then(|| id.clone()),
            ready: state.ready && (!self.terminating || matches!(state.doing, Doing::Ended(_))),
            started: Some(state.started),
            restart_count: i32::try_from(state.restarts).unwrap_or(i32::MAX),
            state: Some(current),
            last_state: Some(state.last.as_ref().map(|end| terminated(end, &last)).unwrap_or_default()),
            ..ContainerStatus::default()
        }
    }
}

/// The number of a container's run, 0 for the first, by the `containerID` of its status.
pub fn run_of_container(id: &str) -> Option<u32> {
    id.strip_prefix("coalmine://")?.rsplit('/').next()?.parse().ok()
}

/// What keeps a pod whose containers are ready from being ready: a readiness gate whose condition is not true.
fn closed_gates(spec: &PodSpec, status: &PodStatus) -> Option<String> {
    let closed = spec.readiness_gates.iter().flatten().filter_map(|gate| {
        let name = &gate.condition_type;
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == *name);
        match condition {
            None => Some(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(condition) if condition.status == "True" => None,
            Some(condition) => {
                let status = &condition.status;
                Some(format!("the status of pod readiness gate {name:?} is not \"True\", but {status}"))
            }
        }
    });
    let closed: Vec<String> = closed.collect();
    (!closed.is_empty()).then(|| closed.join(", "))
}

fn terminated(end: &Ended, id: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: end.code,
            reason: Some(end.reason.into()),
            started_at: Some(Time(end.started)),
            finished_at: Some(Time(end.finished)),
            container_id: Some(id.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}
