//! One container: image, configuration, process, probes, restarts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use clock::Timestamp;
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use program::{
    Context, CpuMeter, ExecTable, ExitCode, Files, Identity, LogSink, LogSource, Main, Network, Tasks,
    Termination,
};
use rand::RngExt as _;
use tokio::sync::mpsc;

use super::images::{self, Pull};
use super::pod::PodTask;
use super::probe::{self, Schedule, Streak};
use super::status::{Doing, Ended};
use super::volumes;

/// The pause before the second restart, doubled for each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts over with short pauses.
const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// The pause before a configuration that is missing is looked for again.
const CONFIG_RETRY: Duration = Duration::from_secs(10);
/// The exit code of a process that was killed.
const KILLED: i32 = 137;

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
pub(super) async fn run(pod: Arc<PodTask>, container: Container, is_init: bool) -> bool {
    let clock = pod.shared.parts.clock;
    let name = container.name.clone();
    let policy = pod.spec.restart_policy.clone().unwrap_or_else(|| "Always".to_owned());
    let mut backoff = Backoff::default();
    let mut restarts = 0;
    loop {
        let main = pull(&pod, &container).await;
        let context = configure(&pod, &container, restarts).await;
        if pod.is_terminating() {
            return false;
        }
        pod.event(false, "Created", format!("Created container: {name}"));
        let started = clock.elapsed();
        let ended = execute(&pod, &container, main, context, is_init).await;
        let code = ended.code;
        pod.set(&name, |state| {
            state.ready = is_init && code == 0;
            state.started = false;
            state.doing = Doing::Ended(ended.clone());
        });
        if pod.is_terminating() {
            return false;
        }
        let again = match policy.as_str() {
            "Always" if !is_init => true,
            "Never" => false,
            _ => code != 0,
        };
        if !again {
            return code == 0;
        }
        let pause = backoff.next(clock.elapsed() - started);
        if !pause.is_zero() {
            let who = format!("{name} in pod {}_{}({})", pod.name, pod.namespace, pod.uid);
            pod.event(true, "BackOff", format!("Back-off restarting failed container {who}"));
            let message = format!("back-off {}s restarting failed container={who}", pause.as_secs());
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

/// Gets the image onto the node, trying until it is there.
async fn pull(pod: &Arc<PodTask>, container: &Container) -> Main {
    let shared = &pod.shared;
    let clock = shared.parts.clock;
    let image = container.image.as_deref().unwrap_or_default();
    let node = pod.latest().spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
    let mut backoff = BACKOFF_FIRST;
    loop {
        let found = match shared.parts.registry.find(image) {
            Ok(found) => found,
            Err(why) => {
                pod.event(false, "Pulling", format!("Pulling image {image:?}"));
                pod.event(true, "Failed", format!("Failed to pull image {image:?}: {why}"));
                pod.event(true, "Failed", "Error: ErrImagePull");
                wait(pod, container, "ErrImagePull", why);
                clock.sleep(Duration::from_secs(1)).await;
                let message = format!("Back-off pulling image {image:?}");
                pod.event(false, "BackOff", message.clone());
                wait(pod, container, "ImagePullBackOff", message);
                clock.sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                continue;
            }
        };
        match images::want(shared, &node, image, policy == "Always") {
            Pull::Present => {
                pod.event(false, "Pulled", format!("Container image {image:?} already present on machine"));
                return found.main;
            }
            Pull::Wait(mut pulled) => {
                // Ends when the pull does, whichever way.
                let _ = pulled.changed().await;
            }
            Pull::Start(guard) => {
                pod.event(false, "Pulling", format!("Pulling image {image:?}"));
                let spread =
                    pod.shared.parts.seed.child("pull").child(&node).stream(image).random_range(0.9..1.1);
                let took = Duration::from_millis((found.pull.as_millis() as f64 * spread) as u64);
                clock.sleep(took).await;
                let seconds = took.as_secs_f64();
                pod.event(
                    false,
                    "Pulled",
                    format!(
                        "Successfully pulled image {image:?} in {seconds}s ({seconds}s including waiting)"
                    ),
                );
                guard.done();
                return found.main;
            }
        }
    }
}

fn wait(pod: &PodTask, container: &Container, reason: &'static str, message: String) {
    pod.set(&container.name, |state| state.doing = Doing::Waiting { reason, message });
}

/// Gathers what the process gets, trying until everything that it refers to exists.
async fn configure(pod: &Arc<PodTask>, container: &Container, restarts: u32) -> Context {
    let parts = &pod.shared.parts;
    let pod_ip = pod.network.local_ip();
    loop {
        let object = pod.latest();
        let files = Files::default();
        let mounted = volumes::mount(&parts.client, &object, container, &files).await;
        if let Err(why) = mounted {
            pod.event(true, "FailedMount", why);
            wait(pod, container, "ContainerCreating", String::new());
            parts.clock.sleep(CONFIG_RETRY).await;
            continue;
        }
        let environment = volumes::environment(&parts.client, &object, container, &pod_ip.to_string()).await;
        let mut environment = match environment {
            Ok(environment) => environment,
            Err(why) => {
                pod.event(true, "Failed", format!("Error: {why}"));
                wait(pod, container, "CreateContainerConfigError", why);
                parts.clock.sleep(CONFIG_RETRY).await;
                continue;
            }
        };
        environment.entry("HOSTNAME".to_owned()).or_insert_with(|| pod.name.clone());
        let expand = |text: &String| volumes::expand(text, &environment);
        // The first word of `command` is the executable; an image's own entrypoint takes all arguments.
        let command = container.command.iter().flatten().skip(1).map(expand);
        let args: Vec<String> = command.chain(container.args.iter().flatten().map(expand)).collect();
        let identity = identity(pod, &object, container, restarts);
        let source = LogSource {
            cluster: identity.cluster.clone(),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            workload: identity.workload.clone(),
            container: container.name.clone(),
        };
        return Context {
            identity: Arc::new(identity),
            args: args.into(),
            env: Arc::new(environment),
            files,
            apis: Arc::clone(&parts.apis),
            network: Arc::new(pod.network.clone()),
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

fn identity(pod: &PodTask, object: &Pod, container: &Container, restart_count: u32) -> Identity {
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let ports = container.ports.iter().flatten();
    Identity {
        cluster: pod.shared.parts.net.name.to_string(),
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        pod_ip: pod.network.local_ip(),
        node: object.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        annotations: object.metadata.annotations.clone().unwrap_or_default(),
        service_account: pod.spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        workload: workload(object),
        labels,
        container: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ports: ports
            .filter_map(|port| Some((u16::try_from(port.container_port).ok()?, port.name.clone())))
            .collect(),
        restart_count,
    }
}

/// The workload that owns a pod: a ReplicaSet's Deployment is its name without the template's hash.
pub(crate) fn workload(pod: &Pod) -> String {
    let own_name = || pod.metadata.name.clone().unwrap_or_default();
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else { return own_name() };
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-'));
    deployment.unwrap_or(&owner.name).to_owned()
}

/// Runs the process to its end.
async fn execute(
    pod: &Arc<PodTask>,
    container: &Container,
    main: Main,
    context: Context,
    is_init: bool,
) -> Ended {
    let clock = pod.shared.parts.clock;
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
        state.ready = !is_init && !waits_for_probe;
    });
    pod.event(false, "Started", format!("Started container {}", container.name));
    if !is_init {
        watch(pod, container, &context, &stop, &watchers);
    }
    let (tasks, termination, exec) =
        (context.tasks.clone(), context.termination.clone(), context.exec.clone());
    let mut process = Box::pin(AssertUnwindSafe(main(context)).catch_unwind());
    let exit = |result: Result<ExitCode, _>| result.map_or(2, |code: ExitCode| code.0);
    let code = tokio::select! { biased;
        result = &mut process => exit(result),
        stop = stops.recv() => match stop {
            Some(Stop::Crash(code)) => code,
            Some(Stop::Gracefully(grace)) => {
                let orderly = async {
                    if let Some(hook) = container.lifecycle.as_ref().and_then(|hooks| hooks.pre_stop.as_ref()) {
                        pre_stop(hook, container, pod, &exec).await;
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
    };
    drop(process);
    watchers.abort_all();
    tasks.abort_all();
    pod.unregister(&container.name);
    ended(code, since, clock.now())
}

fn ended(code: i32, started: Timestamp, finished: Timestamp) -> Ended {
    Ended { code, reason: if code == 0 { "Completed" } else { "Error" }, started, finished }
}

async fn pre_stop(hook: &LifecycleHandler, container: &Container, pod: &PodTask, exec: &ExecTable) {
    let clock = pod.shared.parts.clock;
    if let Some(sleep) = &hook.sleep {
        clock.sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
    }
    if let Some(action) = &hook.exec {
        let argv = action.command.clone().unwrap_or_default();
        // Every image has `sleep`; everything else is the program's to know.
        match slept(&argv) {
            Some(pause) => clock.sleep(pause).await,
            None => {
                if let Some(exec) = exec.get() {
                    exec.exec(argv).await;
                }
            }
        }
    }
    if hook.http_get.is_some() {
        let probe =
            k8s_openapi::api::core::v1::Probe { http_get: hook.http_get.clone(), ..Default::default() };
        let timeout = Duration::from_secs(30);
        // A hook that fails does not keep the container from ending.
        let _ = probe::ask(&probe, container, pod.network.end(), exec, clock, timeout).await;
    }
}

/// The pause of `sleep 5` and `sh -c "sleep 5"`.
fn slept(argv: &[String]) -> Option<Duration> {
    let words: Vec<&str> = match argv {
        [shell, flag, script] if shell.ends_with("sh") && flag == "-c" => script.split_whitespace().collect(),
        argv => argv.iter().map(String::as_str).collect(),
    };
    match words.as_slice() {
        [program, seconds] if program.rsplit('/').next() == Some("sleep") => {
            Duration::try_from_secs_f64(seconds.trim_end_matches('s').parse().ok()?).ok()
        }
        _ => None,
    }
}

/// Starts a container's probes.
fn watch(
    pod: &Arc<PodTask>,
    container: &Container,
    context: &Context,
    stop: &mpsc::UnboundedSender<Stop>,
    tasks: &Tasks,
) {
    let exec = context.exec.clone();
    let (pod, container, stop) = (Arc::clone(pod), container.clone(), stop.clone());
    let inner = tasks.clone();
    tasks.spawn(async move {
        if let Some(startup) = &container.startup_probe {
            if !until_started(&pod, &container, startup, &exec, &stop).await {
                return;
            }
            pod.set(&container.name, |state| {
                state.started = true;
                state.ready = container.readiness_probe.is_none();
            });
        }
        for (kind, probe) in
            [(Kind::Readiness, &container.readiness_probe), (Kind::Liveness, &container.liveness_probe)]
        {
            if let Some(probe) = probe.clone() {
                let (pod, container, exec, stop) =
                    (Arc::clone(&pod), container.clone(), exec.clone(), stop.clone());
                inner.spawn(async move { keep_asking(kind, &pod, &container, &probe, &exec, &stop).await });
            }
        }
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Readiness,
    Liveness,
}

async fn until_started(
    pod: &PodTask,
    container: &Container,
    probe: &k8s_openapi::api::core::v1::Probe,
    exec: &ExecTable,
    stop: &mpsc::UnboundedSender<Stop>,
) -> bool {
    let (clock, schedule) = (pod.shared.parts.clock, Schedule::of(probe));
    let mut streak = Streak::default();
    clock.sleep(schedule.initial_delay).await;
    loop {
        let answer = probe::ask(probe, container, pod.network.end(), exec, clock, schedule.timeout).await;
        if let Err(why) = &answer {
            pod.event(true, "Unhealthy", format!("Startup probe failed: {why}"));
        }
        match streak.add(answer.is_ok(), &schedule) {
            Some(true) => return true,
            Some(false) => {
                let name = &container.name;
                pod.event(
                    false,
                    "Killing",
                    format!("Container {name} failed startup probe, will be restarted"),
                );
                let _ = stop.send(Stop::Gracefully(grace(pod)));
                return false;
            }
            None => clock.sleep(schedule.period).await,
        }
    }
}

async fn keep_asking(
    kind: Kind,
    pod: &PodTask,
    container: &Container,
    probe: &k8s_openapi::api::core::v1::Probe,
    exec: &ExecTable,
    stop: &mpsc::UnboundedSender<Stop>,
) {
    let (clock, schedule) = (pod.shared.parts.clock, Schedule::of(probe));
    let mut streak = Streak::default();
    let mut was_ready = false;
    clock.sleep(schedule.initial_delay).await;
    loop {
        let answer = probe::ask(probe, container, pod.network.end(), exec, clock, schedule.timeout).await;
        if let Err(why) = &answer {
            pod.event(true, "Unhealthy", format!("{kind:?} probe failed: {why}"));
        }
        match (kind, streak.add(answer.is_ok(), &schedule)) {
            (Kind::Readiness, Some(ready)) if ready != was_ready => {
                was_ready = ready;
                pod.set(&container.name, |state| state.ready = ready);
            }
            (Kind::Liveness, Some(false)) => {
                let name = &container.name;
                pod.event(
                    false,
                    "Killing",
                    format!("Container {name} failed liveness probe, will be restarted"),
                );
                // The container ends, and this task with it.
                let _ = stop.send(Stop::Gracefully(grace(pod)));
                return;
            }
            _ => {}
        }
        clock.sleep(schedule.period).await;
    }
}

fn grace(pod: &PodTask) -> Duration {
    let seconds = pod.spec.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(seconds.unwrap_or(30))
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

    #[test]
    fn sleeping_hooks_are_understood() {
        let check = |argv: &[&str], seconds: Option<u64>| {
            let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(slept(&argv), seconds.map(Duration::from_secs), "{argv:?}");
        };
        check(&["sleep", "5"], Some(5));
        check(&["/bin/sh", "-c", "sleep 10"], Some(10));
        check(&["nginx", "-s", "quit"], None);
    }
}
