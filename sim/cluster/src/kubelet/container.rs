//! One container: its process, its end, its restarts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use clock::Timestamp;
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Container;
use program::{CpuMeter, ExecTable, ExitCode, Files, Tasks};
use tokio::sync::{mpsc, watch};

use super::launch::{self, Launch};
use super::pod::PodTask;
use super::status::{Doing, Ended, is_sidecar};
use super::{hooks, prober};

/// The pause before the second restart, doubled for each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// The longest pause between restarts.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts over with short pauses.
const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// The exit code of a process that was killed.
const KILLED: i32 = 137;
/// The exit code of a program that panicked, as Go's.
const PANICKED: i32 = 2;

/// A running container, as the pod needs it.
pub(super) struct Running {
    pub stop: mpsc::UnboundedSender<Stop>,
    pub exec: ExecTable,
    pub cpu: CpuMeter,
    pub files: Files,
    pub tasks: Tasks,
}

/// An order to end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// SIGTERM, and SIGKILL after this long.
    Gracefully(Duration),
    /// The process exits by itself with this code.
    Crash(i32),
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It runs to its end before the next container starts.
    Init,
    /// An init container that stays: the next container starts when this one has started.
    Sidecar,
    /// One of the pod's containers proper.
    App,
}

impl Role {
    /// The role of a container of the init list.
    pub(super) fn of_init(container: &Container) -> Role {
        if is_sidecar(container) { Role::Sidecar } else { Role::Init }
    }
}

/// Tells when the pod's next container may start.
#[derive(Clone)]
pub(super) struct Gate(Arc<watch::Sender<bool>>, Role);

impl Gate {
    pub(super) fn new(role: Role) -> Self {
        Gate(Arc::new(watch::Sender::new(false)), role)
    }

    /// A first attempt to start the container is over, well or not: the kubelet goes on to the next one, except after a
    /// sidecar.
    pub(super) fn attempted(&self) {
        if self.1 != Role::Sidecar {
            self.0.send_replace(true);
        }
    }

    /// The container has started.
    pub(super) fn started(&self) {
        self.0.send_replace(true);
    }

    /// Waits until the next container may start.
    pub(super) async fn passed(&self) {
        // The sender is here, so that the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|passed| *passed).await;
    }
}

/// Pauses between restarts.
#[derive(Debug, Default)]
struct Backoff(Option<Duration>);

impl Backoff {
    /// The pause before the next restart of a container that ran for `ran`: none before the first.
    fn next(&mut self, ran: Duration) -> Duration {
        if ran >= BACKOFF_RESET {
            self.0 = None;
        }
        let pause = self.0.unwrap_or(Duration::ZERO);
        self.0 = Some(if pause.is_zero() { BACKOFF_FIRST } else { (pause * 2).min(BACKOFF_MAX) });
        pause
    }
}

/// Runs a container until it has ended for good. Returns whether it ended well.
///
/// What happens once, or seldom, is boxed: what is left is kept for each container as long as it runs.
pub(super) async fn run(pod: Arc<PodTask>, container: Container, role: Role, gate: Gate) -> bool {
    let clock = pod.shared.parts.clock;
    let name = container.name.clone();
    let policy = pod.spec.restart_policy.clone().unwrap_or_else(|| "Always".to_owned());
    let mut backoff = Backoff::default();
    let mut restarts = 0;
    loop {
        let launch = Box::pin(launch::prepare(&pod, &container, restarts, &gate)).await;
        if pod.is_terminating() {
            return false;
        }
        pod.event(Some(&name), false, "Created", format!("Created container: {name}"));
        let started = clock.elapsed();
        let ended = execute(&pod, &container, launch, role, &gate).await;
        let code = ended.code;
        pod.set(&name, |state| {
            state.ready = role == Role::Init && code == 0;
            state.started = false;
            state.doing = Doing::Ended(ended.clone());
        });
        pod.unregister(&name);
        if pod.is_terminating() || pod.is_over() {
            return false;
        }
        let again = match (role, policy.as_str()) {
            (Role::Sidecar, _) | (Role::App, "Always") => true,
            (_, "Never") => false,
            _ => code != 0,
        };
        if !again {
            return code == 0;
        }
        let pause = backoff.next(clock.elapsed() - started);
        if !pause.is_zero() {
            let who = format!("{name} in pod {}_{}({})", pod.name, pod.namespace, pod.uid);
            pod.event(Some(&name), true, "BackOff", format!("Back-off restarting failed container {who}"));
            let who = format!("{name} pod={}_{}({})", pod.name, pod.namespace, pod.uid);
            let message = format!("back-off {} restarting failed container={who}", launch::spell(pause));
            pod.set(&name, |state| {
                state.last = Some(ended.clone());
                state.doing = Doing::Waiting { reason: "CrashLoopBackOff", message };
            });
            clock.sleep(pause).await;
        }
        restarts += 1;
        pod.set(&name, |state| {
            state.last = Some(ended);
            state.restarts = restarts;
        });
    }
}

/// Runs the process to its end.
async fn execute(
    pod: &Arc<PodTask>,
    container: &Container,
    launch: Launch,
    role: Role,
    gate: &Gate,
) -> Ended {
    let clock = pod.shared.parts.clock;
    let Launch { main, context, network } = launch;
    let (stop, mut stops) = mpsc::unbounded_channel();
    let watchers = Tasks::default();
    pod.register(
        &container.name,
        Running {
            stop: stop.clone(),
            exec: context.exec.clone(),
            cpu: context.cpu.clone(),
            files: context.files.clone(),
            tasks: context.tasks.clone(),
        },
    );
    let since = clock.now();
    let waits_for_probe = container.readiness_probe.is_some() || container.startup_probe.is_some();
    pod.set(&container.name, |state| {
        state.doing = Doing::Running { since };
        state.started = container.startup_probe.is_none();
        state.ready = role != Role::Init && !waits_for_probe;
    });
    pod.event(Some(&container.name), false, "Started", format!("Started container {}", container.name));
    let (tasks, termination, exec) =
        (context.tasks.clone(), context.termination.clone(), context.exec.clone());
    if role != Role::Init {
        prober::start(pod, container, &exec, &stop, &watchers, gate);
    }
    let after_start = async {
        if let Some(hook) = container.lifecycle.as_ref().and_then(|hooks| hooks.post_start.as_ref())
            && let Err(why) = Box::pin(hooks::run(hook, container, pod, &exec)).await
        {
            pod.event(
                Some(&container.name),
                true,
                "FailedPostStartHook",
                format!("PostStartHook failed: {why}"),
            );
            pod.event(Some(&container.name), false, "Killing", "FailedPostStartHook");
            // This very function takes the order.
            let _ = stop.send(Stop::Gracefully(pod.grace()));
        }
        gate.attempted();
        if container.startup_probe.is_none() {
            gate.started();
        }
        std::future::pending::<()>().await;
    };
    let mut process = Box::pin(AssertUnwindSafe(main(context)).catch_unwind());
    let exit = |result: Result<ExitCode, _>| result.map_or(PANICKED, |code: ExitCode| code.0);
    let code = {
        let mut after_start = std::pin::pin!(after_start);
        tokio::select! { biased;
            result = &mut process => exit(result),
            stop = stops.recv() => match stop {
                Some(Stop::Crash(code)) => code,
                Some(Stop::Gracefully(grace)) => {
                    let orderly = async {
                        if let Some(hook) = container.lifecycle.as_ref().and_then(|hooks| hooks.pre_stop.as_ref())
                            && let Err(why) = Box::pin(hooks::run(hook, container, pod, &exec)).await
                        {
                            // A hook that fails does not keep the container from ending.
                            let name = Some(container.name.as_str());
                            pod.event(name, true, "FailedPreStopHook", format!("PreStopHook failed: {why}"));
                        }
                        termination.request();
                        std::future::pending::<()>().await;
                    };
                    let ends = async {
                        tokio::select! { biased;
                            result = &mut process => exit(result),
                            () = orderly => KILLED,
                        }
                    };
                    clock.timeout(grace, ends).await.unwrap_or(KILLED)
                }
                None => KILLED,
            },
            () = &mut after_start => KILLED,
        }
    };
    drop(process);
    watchers.abort_all();
    tasks.abort_all();
    network.end_process();
    ended(code, since, clock.now())
}

fn ended(code: i32, started: Timestamp, finished: Timestamp) -> Ended {
    Ended { code, reason: if code == 0 { "Completed" } else { "Error" }, started, finished }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_come_later_each_time_and_start_over_after_a_long_run() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..8).map(|_| backoff.next(Duration::from_secs(1)).as_secs()).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.next(Duration::from_secs(700)).as_secs(), 0);
    }
}
