//! Probes: what they ask, and when a run of answers changes a container's state.

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use program::{ExecTable, Network as _, Request};

use super::hooks;
use super::pod::PodTask;

/// When a probe runs, and how many answers in a row count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub successes: u32,
    pub failures: u32,
}

impl Schedule {
    pub(super) fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(
                value
                    .and_then(|value| u64::try_from(value).ok())
                    .filter(|value| *value > 0)
                    .unwrap_or(default),
            )
        };
        let count = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        Schedule {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
        }
    }

    /// When the first question is due. The kubelet looks every period from the moment at which the pod came to it
    /// (`prober/worker.go`), and asks once the container has run for more than the delay's whole seconds: a delay of 5
    /// seconds and a period of 10 give an answer after 10 seconds, not after 5.
    pub(super) fn first(&self, added: Duration, started: Duration) -> Duration {
        let earliest = (started + self.initial_delay).saturating_sub(added).as_nanos();
        let looks = earliest.div_ceil(self.period.as_nanos());
        // The worker comes first, then the container: a look at the very moment is too early.
        let looks =
            looks + u128::from(looks * self.period.as_nanos() == earliest && !self.initial_delay.is_zero());
        added + self.period * u32::try_from(looks).unwrap_or(u32::MAX)
    }

    /// When the question after the one that was due at `due` is due; what has become too late is left out.
    pub(super) fn due_after(&self, due: Duration, now: Duration) -> Duration {
        let late = now.saturating_sub(due).as_nanos() / self.period.as_nanos();
        due + self.period * (u32::try_from(late).unwrap_or(u32::MAX - 1) + 1)
    }
}

/// Counts answers in a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Streak {
    successes: u32,
    failures: u32,
}

impl Streak {
    /// Takes an answer in; `Some` when a threshold is reached.
    pub(super) fn add(&mut self, success: bool, schedule: &Schedule) -> Option<bool> {
        if success {
            self.failures = 0;
            self.successes += 1;
            (self.successes >= schedule.successes).then_some(true)
        } else {
            self.successes = 0;
            self.failures += 1;
            (self.failures >= schedule.failures).then_some(false)
        }
    }
}

/// Asks once.
///
/// # Errors
/// The probe's failure, worded as the kubelet's event.
pub(super) async fn ask(
    probe: &Probe,
    container: &Container,
    pod: &PodTask,
    exec: &ExecTable,
    timeout: Duration,
    prepared: &mut Option<HttpProbe>,
) -> Result<(), String> {
    let clock = pod.shared.parts.clock;
    let end = pod.network.end();
    if let Some(action) = &probe.http_get {
        let http = match prepared {
            Some(http) => http,
            None => prepared.insert(HttpProbe::new(action, container, pod)?),
        };
        return http.ask(pod, timeout).await;
    }
    if let Some(action) = &probe.exec {
        let argv = action.command.clone().unwrap_or_default();
        return match clock.timeout(timeout, hooks::command(pod, exec, argv.clone())).await {
            Err(_) => {
                Err(format!("command timed out: {:?} timed out after {}s", argv.join(" "), timeout.as_secs()))
            }
            Ok(output) if output.code.0 == 0 => Ok(()),
            Ok(output) => Err(output.output),
        };
    }
    let port = probe
        .tcp_socket
        .as_ref()
        .and_then(|socket| port(&socket.port, container))
        .or_else(|| probe.grpc.as_ref().and_then(|grpc| u16::try_from(grpc.port).ok()));
    match port {
        Some(port) if end.listener(port).is_some() => Ok(()),
        Some(port) => Err(format!("dial tcp {}:{port}: connect: connection refused", end.ip)),
        None => Err("the probe names no port of the container".to_owned()),
    }
}

/// An HTTP probe's request: the same every time.
pub(super) struct HttpProbe {
    port: u16,
    uri: String,
    request: Request,
}

impl HttpProbe {
    fn new(action: &HTTPGetAction, container: &Container, pod: &PodTask) -> Result<Self, String> {
        let Some(port) = port(&action.port, container) else {
            return Err(format!("the container has no port {:?}", action.port));
        };
        let path = action.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let uri = format!("http://{}:{port}{slash}{path}", pod.network.end().ip);
        let mut request = http::Request::get(&uri).header(http::header::USER_AGENT, "kube-probe/1.33");
        for header in action.http_headers.iter().flatten() {
            request = request.header(&header.name, &header.value);
        }
        let request = request.body(Bytes::new()).map_err(|error| format!("{uri}: {error}"))?;
        Ok(HttpProbe { port, uri, request: request.into() })
    }

    async fn ask(&self, pod: &PodTask, timeout: Duration) -> Result<(), String> {
        let HttpProbe { port, uri, request } = self;
        let reply = pod.network.end().serve(*port, request.clone());
        let asked = async { pod.network.arrive(reply.await?).await };
        match pod.shared.parts.clock.timeout(timeout, asked).await {
            Err(_) => Err(format!(
                "Get \"{uri}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            )),
            Ok(Err(error)) => Err(format!("Get \"{uri}\": {error}")),
            Ok(Ok(response)) if (200..400).contains(&response.status().as_u16()) => Ok(()),
            Ok(Ok(response)) => {
                Err(format!("HTTP probe failed with statuscode: {}", response.status().as_u16()))
            }
        }
    }
}

fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.and_then(|port| u16::try_from(port.container_port).ok()).or_else(|| name.parse().ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let probe = Probe { failure_threshold: Some(2), success_threshold: Some(2), ..Probe::default() };
        let schedule = Schedule::of(&probe);
        let mut streak = Streak::default();
        let answers = [true, true, false, true, false, false, true, true];
        let reached: Vec<Option<bool>> =
            answers.iter().map(|answer| streak.add(*answer, &schedule)).collect();
        let expected = [None, Some(true), None, None, None, Some(false), None, Some(true)];
        assert_eq!(reached, expected);
        assert_eq!(schedule.period, Duration::from_secs(10));
        assert_eq!(schedule.timeout, Duration::from_secs(1));
    }

    #[test]
    fn the_first_question_waits_for_the_pods_rhythm() {
        let seconds = Duration::from_secs;
        for (period, delay, started, first) in
            [(10, 5, 0, 10), (10, 5, 8, 20), (3, 5, 0, 6), (3, 6, 0, 9), (10, 0, 0, 0), (2, 0, 3, 4)]
        {
            let probe = Probe {
                period_seconds: Some(period),
                initial_delay_seconds: Some(delay),
                ..Probe::default()
            };
            let found = Schedule::of(&probe).first(seconds(100), seconds(100 + started));
            assert_eq!(found, seconds(100 + first), "period {period}, delay {delay}, started {started}");
        }
    }

    #[test]
    fn questions_keep_to_their_times() {
        let probe = Probe { period_seconds: Some(3), ..Probe::default() };
        let schedule = Schedule::of(&probe);
        for (due, answered, next) in
            [(5_000, 5_000, 8_000), (5_000, 5_020, 8_000), (5_000, 8_000, 11_000), (5_000, 9_000, 11_000)]
        {
            let millis = Duration::from_millis;
            assert_eq!(schedule.due_after(millis(due), millis(answered)), millis(next), "{answered}");
        }
    }
}
