//! A container's probes at work: when they ask, and what follows from the answers.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use program::{ExecTable, Tasks};
use tokio::sync::mpsc;

use super::container::{Gate, Stop};
use super::pod::PodTask;
use super::probe::{self, HttpProbe, Schedule, Streak};

type Order = mpsc::UnboundedSender<Stop>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Startup,
    Readiness,
    Liveness,
}

/// What a probe needs; one per probe.
struct Prober {
    kind: Kind,
    pod: Arc<PodTask>,
    container: Container,
    probe: Probe,
    exec: ExecTable,
    stop: Order,
    /// The run's time at the container's start.
    since: Duration,
}

/// Starts the probes of a container that has just started; they end with `tasks`.
pub(super) fn start(
    pod: &Arc<PodTask>,
    container: &Container,
    exec: &ExecTable,
    stop: &Order,
    tasks: &Tasks,
    gate: &Gate,
) {
    let since = pod.shared.parts.clock.elapsed();
    let prober = |kind, probe: &Option<Probe>| {
        Some(Prober {
            kind,
            pod: Arc::clone(pod),
            container: container.clone(),
            probe: probe.clone()?,
            exec: exec.clone(),
            stop: stop.clone(),
            since,
        })
    };
    let later = [
        prober(Kind::Readiness, &container.readiness_probe),
        prober(Kind::Liveness, &container.liveness_probe),
    ];
    let start_later = {
        let tasks = tasks.clone();
        move || {
            for prober in later.into_iter().flatten() {
                tasks.spawn(prober.keep_asking());
            }
        }
    };
    let Some(startup) = prober(Kind::Startup, &container.startup_probe) else { return start_later() };
    let gate = gate.clone();
    tasks.spawn(async move {
        let ready = startup.container.readiness_probe.is_none();
        let (pod, name) = (Arc::clone(&startup.pod), startup.container.name.clone());
        if startup.keep_asking_until_started().await {
            pod.set(&name, |state| {
                state.started = true;
                state.ready = ready;
            });
            gate.started();
            start_later();
        }
    });
}

impl Prober {
    async fn keep_asking_until_started(self) -> bool {
        let mut asked = Asked::from(&self);
        loop {
            match asked.next(&self).await {
                Some(true) => return true,
                Some(false) => {
                    self.restart();
                    return false;
                }
                None => {}
            }
        }
    }

    async fn keep_asking(self) {
        let mut asked = Asked::from(&self);
        let mut was_ready = false;
        loop {
            let verdict = asked.next(&self).await;
            match (self.kind, verdict) {
                (Kind::Readiness, Some(ready)) if ready != was_ready => {
                    was_ready = ready;
                    self.pod.set(&self.container.name, |state| state.ready = ready);
                }
                (Kind::Liveness, Some(false)) => {
                    self.restart();
                    // The container ends, and this task with it.
                    return;
                }
                (Kind::Liveness, _) if self.pod.is_terminating() => return,
                _ => {}
            }
        }
    }

    fn restart(&self) {
        let (name, kind) = (&self.container.name, self.kind.word().to_lowercase());
        let message = format!("Container {name} failed {kind} probe, will be restarted");
        self.pod.event(Some(name), false, "Killing", message);
        let own = self.probe.termination_grace_period_seconds;
        let grace = own.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        // A container that has just ended takes no more orders.
        let _ = self.stop.send(Stop::Gracefully(grace.unwrap_or_else(|| self.pod.grace())));
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// A probe's questions so far.
struct Asked {
    schedule: Schedule,
    streak: Streak,
    /// When the next question is due.
    due: Duration,
    http: Option<HttpProbe>,
}

impl Asked {
    /// A container that was held back by its startup probe is asked at once after that; else questions come in the
    /// pod's own rhythm.
    fn from(prober: &Prober) -> Self {
        let schedule = Schedule::of(&prober.probe);
        let now = prober.pod.shared.parts.clock.elapsed();
        let (added, started) = (prober.pod.added, prober.since);
        let due = if now > started { now } else { schedule.first(added, started) };
        Asked { schedule, streak: Streak::default(), due, http: None }
    }

    /// Waits for the next question's time and asks; the verdict if a threshold is reached.
    async fn next(&mut self, prober: &Prober) -> Option<bool> {
        let (pod, container) = (&prober.pod, &prober.container);
        let clock = pod.shared.parts.clock;
        clock.sleep_until_elapsed(self.due).await;
        let timeout = self.schedule.timeout;
        let asked = probe::ask(&prober.probe, container, pod, &prober.exec, timeout, &mut self.http);
        let answer = asked.await;
        self.due = self.schedule.due_after(self.due, clock.elapsed());
        if let Err(why) = &answer {
            let message = format!("{} probe failed: {why}", prober.kind.word());
            pod.event(Some(&container.name), true, "Unhealthy", message);
        }
        self.streak.add(answer.is_ok(), &self.schedule)
    }
}
