//! How many replicas a CPU figure asks for. Pure; follows
//! `pkg/controller/podautoscaler/replica_calculator.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clock::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;

use super::super::PodCpu;
use super::super::pod_state::{phase, ready_condition};
use super::super::quantity::milli_value;

/// A pod younger than this may be unready because it starts: its CPU then says nothing yet.
const CPU_INITIALIZATION_PERIOD: SignedDuration = SignedDuration::from_secs(300);
/// A pod that first became unready within this time of its start was never ready.
const INITIAL_READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);
/// How far the ratio of usage to target may be from 1 before anything is done.
const TOLERANCE: f64 = 0.1;

/// What a metric aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Usage in per cent of the pods' requests.
    Utilization(i32),
    /// Mean usage per pod in millicores.
    AverageValue(i64),
}

/// The answer for one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    /// The replicas wanted.
    pub(super) replicas: i32,
    /// Usage in per cent of requests, for a [`Target::Utilization`].
    pub(super) utilization: Option<i32>,
    /// Mean usage per pod in millicores.
    pub(super) average_milli: i64,
}

/// Replicas wanted for a workload of `current` replicas whose pods (of the target's selector) use this much
/// CPU. `container` restricts the figures to one container.
///
/// # Errors
/// Why nothing can be said, in upstream's words.
pub(super) fn propose(
    current: i32,
    target: Target,
    pods: &[Arc<Pod>],
    cpu: &BTreeMap<String, PodCpu>,
    container: Option<&str>,
    now: Timestamp,
) -> Result<Proposal, String> {
    let mut usage = BTreeMap::new();
    for (name, figures) in cpu {
        let milli = match container {
            None => figures.millicores.values().sum(),
            Some(container) => *figures.millicores.get(container).ok_or_else(|| {
                let missing = format!("container {container} not present in metrics for pod {name}");
                format!("unable to get metrics for resource cpu: {missing}")
            })?,
        };
        usage.insert(name.as_str(), milli);
    }
    if usage.is_empty() {
        return Err(
            "unable to get metrics for resource cpu: no metrics returned from resource metrics API".into()
        );
    }
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let groups = Groups::of(pods, cpu, now);
    for name in groups.ignored.iter().chain(&groups.unready) {
        usage.remove(name);
    }
    if usage.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let requests = match target {
        Target::Utilization(_) => requests(pods, container)?,
        Target::AverageValue(_) => BTreeMap::new(),
    };
    let (ratio, utilization, average_milli) = ratio(&usage, &requests, target)?;
    let proposal = |replicas| Proposal { replicas, utilization, average_milli };
    let unready_matter = !groups.unready.is_empty() && ratio > 1.0;
    if !unready_matter && groups.missing.is_empty() {
        let wanted = if tolerable(ratio) { current } else { rounded_up(ratio * groups.ready as f64) };
        return Ok(proposal(wanted));
    }
    // Assume the worst of what is not known, against the direction of the change: full use when shrinking,
    // none when growing.
    for name in &groups.missing {
        if ratio < 1.0 {
            let full = match target {
                Target::Utilization(percent) => {
                    requests.get(name).copied().unwrap_or(0) * i64::from(percent.max(100)) / 100
                }
                Target::AverageValue(milli) => milli,
            };
            usage.insert(name, full);
        } else if ratio > 1.0 {
            usage.insert(name, 0);
        }
    }
    if unready_matter {
        usage.extend(groups.unready.iter().map(|name| (*name, 0)));
    }
    let (new_ratio, ..) = self::ratio(&usage, &requests, target)?;
    if tolerable(new_ratio) || (ratio < 1.0 && new_ratio > 1.0) || (ratio > 1.0 && new_ratio < 1.0) {
        return Ok(proposal(current));
    }
    let wanted = rounded_up(new_ratio * usage.len() as f64);
    let turned = (new_ratio < 1.0 && wanted > current) || (new_ratio > 1.0 && wanted < current);
    Ok(proposal(if turned { current } else { wanted }))
}

pub(super) fn tolerable(ratio: f64) -> bool {
    (1.0 - ratio).abs() <= TOLERANCE
}

pub(super) fn rounded_up(replicas: f64) -> i32 {
    replicas.ceil() as i32
}

/// Usage over target, and what the status shows.
fn ratio(
    usage: &BTreeMap<&str, i64>,
    requests: &BTreeMap<&str, i64>,
    target: Target,
) -> Result<(f64, Option<i32>, i64), String> {
    match target {
        Target::Utilization(percent) => {
            let known: Vec<(i64, i64)> =
                usage.iter().filter_map(|(name, used)| Some((*used, *requests.get(name)?))).collect();
            let entries = known.len() as i64;
            let used: i64 = known.iter().map(|(used, _)| used).sum();
            let requested: i64 = known.iter().map(|(_, request)| request).sum();
            if requested == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
            Ok((f64::from(utilization) / f64::from(percent), Some(utilization), used / entries))
        }
        Target::AverageValue(milli) => {
            let average = usage.values().sum::<i64>() / usage.len() as i64;
            Ok((average as f64 / milli as f64, None, average))
        }
    }
}

/// Each pod's CPU request in millicores; sidecars that run as init containers count.
fn requests<'a>(pods: &'a [Arc<Pod>], only: Option<&str>) -> Result<BTreeMap<&'a str, i64>, String> {
    let mut requests = BTreeMap::new();
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(spec) = &pod.spec else { continue };
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let mut sum = 0;
        for container in spec.containers.iter().chain(sidecars) {
            if only.is_some_and(|only| only != container.name) {
                continue;
            }
            let request =
                container.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("cpu"));
            sum += request.and_then(milli_value).ok_or_else(|| {
                format!("missing request for cpu in container {} of Pod {name}", container.name)
            })?;
        }
        requests.insert(name, sum);
    }
    Ok(requests)
}

/// Pods by what their figures are worth.
struct Groups<'a> {
    ready: usize,
    unready: Vec<&'a str>,
    missing: Vec<&'a str>,
    ignored: Vec<&'a str>,
}

impl<'a> Groups<'a> {
    fn of(pods: &'a [Arc<Pod>], cpu: &BTreeMap<String, PodCpu>, now: Timestamp) -> Self {
        let mut groups = Groups { ready: 0, unready: Vec::new(), missing: Vec::new(), ignored: Vec::new() };
        for pod in pods {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() || phase(pod) == "Failed" {
                groups.ignored.push(name);
            } else if phase(pod) == "Pending" {
                groups.unready.push(name);
            } else if let Some(figures) = cpu.get(name) {
                if is_starting(pod, figures, now) { groups.unready.push(name) } else { groups.ready += 1 }
            } else {
                groups.missing.push(name);
            }
        }
        groups
    }
}

/// Whether a pod's CPU is that of its start-up.
fn is_starting(pod: &Pod, figures: &PodCpu, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(condition), Some(started)) = (ready_condition(pod), started) else { return true };
    let changed = condition.last_transition_time.as_ref().map_or(started.0, |time| time.0);
    let unready = condition.status == "False";
    if started.0 + CPU_INITIALIZATION_PERIOD > now {
        let window = SignedDuration::try_from(figures.window).unwrap_or(SignedDuration::from_secs(15));
        unready || figures.timestamp < changed + window
    } else {
        unready && started.0 + INITIAL_READINESS_DELAY > changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2020-03-17T12:00:00Z".parse().unwrap()
    }

    /// `usage`: millicores; none = no figures. `ready_for`: seconds since Ready turned true; none = unready.
    fn pod(name: &str, usage: Option<i64>, ready_for: Option<i64>) -> (Arc<Pod>, Option<PodCpu>) {
        let started = now() - SignedDuration::from_secs(ready_for.unwrap_or(10) + 10);
        let changed = now() - SignedDuration::from_secs(ready_for.unwrap_or(20));
        let status = if ready_for.is_some() { "True" } else { "False" };
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": "100m"}}}]},
            "status": {"phase": "Running", "startTime": started.to_string(), "conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": changed.to_string()}]},
        });
        let cpu = usage.map(|usage| PodCpu {
            millicores: BTreeMap::from([("app".to_owned(), usage)]),
            window: std::time::Duration::from_secs(15),
            timestamp: now(),
        });
        (Arc::new(serde_json::from_value(pod).unwrap()), cpu)
    }

    fn check(target: Target, pods: &[(Option<i64>, Option<i64>)], expect: Result<i32, &str>) {
        let made: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(n, (usage, ready))| pod(&format!("p{n}"), *usage, *ready))
            .collect();
        let cpu = made
            .iter()
            .filter_map(|(pod, cpu)| Some((pod.metadata.name.clone().unwrap(), cpu.clone()?)))
            .collect();
        let objects: Vec<_> = made.iter().map(|(pod, _)| Arc::clone(pod)).collect();
        let current = i32::try_from(pods.len()).unwrap();
        let answer = propose(current, target, &objects, &cpu, None, now()).map(|proposal| proposal.replicas);
        assert_eq!(answer, expect.map_err(str::to_owned), "{target:?} {pods:?}");
    }

    #[test]
    fn replicas_for_cpu() {
        let old = Some(1000);
        let util = Target::Utilization;
        check(util(99), &[(Some(250), old), (Some(150), old)], Ok(5));
        check(util(50), &[(Some(54), old), (Some(54), old)], Ok(2)); // within 10% of the target
        check(util(50), &[(Some(10), old), (Some(10), old), (Some(10), old)], Ok(1));
        check(util(100), &[(Some(300), old)], Ok(3));
        // A pod that has just become ready does not count for growth, so growth is damped: 300% of 2 pods'
        // requests.
        check(util(100), &[(Some(300), old), (Some(900), Some(5))], Ok(3));
        check(util(100), &[(Some(300), old), (Some(900), Some(60))], Ok(12));
        check(util(100), &[(Some(120), old), (Some(900), None)], Ok(2)); // with the unready one at 0: 60%
        // Missing figures: full use when shrinking, none when growing.
        check(util(50), &[(Some(10), old), (None, old)], Ok(2));
        check(util(50), &[(Some(10), old), (Some(0), old), (Some(0), old), (None, old)], Ok(3));
        check(util(50), &[(Some(200), old), (None, old)], Ok(4));
        check(Target::AverageValue(100), &[(Some(250), old), (Some(250), old)], Ok(5));
        check(
            util(50),
            &[(None, old)],
            Err("unable to get metrics for resource cpu: no metrics returned from resource metrics API"),
        );
        check(
            util(50),
            &[(Some(10), None)],
            Err("did not receive metrics for targeted pods (pods might be unready)"),
        );
    }

    #[test]
    fn a_container_without_request_is_an_error() {
        let (pod, cpu) = pod("p", Some(10), Some(1000));
        let mut pod = pod.as_ref().clone();
        pod.spec.as_mut().unwrap().containers[0].resources = None;
        let cpu = BTreeMap::from([("p".to_owned(), cpu.unwrap())]);
        let answer = propose(1, Target::Utilization(50), &[Arc::new(pod)], &cpu, None, now());
        assert_eq!(answer, Err("missing request for cpu in container app of Pod p".into()));
    }
}
