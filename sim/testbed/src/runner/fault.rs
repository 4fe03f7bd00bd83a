//! Faults: injected at the seams of the system, never inside a program.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::{Asked, Failure, Fault, Faults};
use clock::Clock;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use program::Api;

use super::StepError;
use super::objects::reason;
use crate::World;
use crate::scenario::{ApiFault, Crash, FaultStep};
use crate::world::RUNNER;

/// The faults of one cluster's API server.
pub(super) struct ApiFaults {
    clock: Clock,
    active: Mutex<Vec<Active>>,
}

struct Active {
    spec: ApiFault,
    until: Option<Duration>,
    left: Option<u32>,
}

impl ApiFaults {
    /// No faults yet.
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(ApiFaults { clock, active: Mutex::default() })
    }

    fn add(&self, spec: &ApiFault) {
        let until = spec.duration.map(|duration| self.clock.elapsed() + duration.0);
        let active = Active { spec: spec.clone(), until, left: spec.count };
        self.active.lock().expect("no holder of this lock panics").push(active);
    }
}

impl Faults for ApiFaults {
    fn strike(&self, asked: &Asked) -> Option<Fault> {
        let now = self.clock.elapsed();
        let mut active = self.active.lock().expect("no holder of this lock panics");
        active.retain(|fault| fault.left != Some(0) && fault.until.is_none_or(|until| now < until));
        let names = |list: &[String], name: &str| list.is_empty() || list.iter().any(|known| known == name);
        let hit = active.iter_mut().find(|fault| {
            let spec = &fault.spec;
            // The scenario's own requests see the truth, unless they are meant.
            let users =
                if spec.users.is_empty() { asked.user != RUNNER } else { names(&spec.users, &asked.user) };
            users && names(&spec.verbs, asked.verb) && names(&spec.resources, &asked.resource)
        })?;
        hit.left = hit.left.map(|left| left - 1);
        Some(Fault::Fail(failure(hit.spec.status)))
    }
}

/// What an API server in trouble answers.
fn failure(status: u16) -> Failure {
    let (reason, message) = match status {
        401 => ("Unauthorized", "Unauthorized"),
        403 => ("Forbidden", "forbidden: injected by the scenario"),
        409 => (
            "Conflict",
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        ),
        500 => ("InternalError", "an error on the server has prevented the request from succeeding"),
        504 => ("Timeout", "the server was unable to return a response in the time allotted"),
        _ => ("ServiceUnavailable", "the server is currently unable to handle the request"),
    };
    Failure::new(status, reason, message)
}

/// Carries out a `fault` step; returns what it did, for the timeline.
pub(super) async fn inject(
    world: &World,
    faults: &super::ApiFaultsByCluster,
    step: &FaultStep,
) -> Result<String, StepError> {
    if let Some(cut) = &step.cut {
        let [one, other] = &cut.between;
        world.cut(one, other);
        return Ok(format!("the network between {one} and {other} is cut"));
    }
    if let Some(cut) = &step.heal {
        let [one, other] = &cut.between;
        world.heal(one, other);
        return Ok(format!("the network between {one} and {other} is whole"));
    }
    if let Some(fault) = &step.api {
        let cluster = &fault.cluster;
        let server = world
            .api(cluster)
            .ok_or_else(|| StepError::Unusable(format!("there is no cluster {cluster:?}")))?;
        let faults = faults.of(cluster);
        faults.add(fault);
        server.set_faults(Some(faults));
        return Ok(format!("the API of {cluster} answers {}{}", fault.status, selection(fault)));
    }
    if let Some(crash) = &step.crash {
        let mut names = Vec::new();
        for pod in pods(world, crash).await? {
            world
                .crash(&crash.cluster, &crash.namespace, &pod, crash.container.as_deref())
                .map_err(StepError::Unusable)?;
            names.push(pod);
        }
        return Ok(format!("crash {} in {}", names.join(", "), crash.cluster));
    }
    if let Some(evict) = &step.evict {
        let api = pod_api(world, evict)?;
        let names = pods(world, evict).await?;
        for name in &names {
            api.delete(name, &DeleteParams::default()).await.map_err(|error| {
                StepError::Unusable(format!("Pod {}/{name}: {}", evict.namespace, reason(&error)))
            })?;
        }
        return Ok(format!("evict {} in {}", names.join(", "), evict.cluster));
    }
    Ok(String::new())
}

/// ` patch of virtualservices, 3 times, for 1m`.
fn selection(fault: &ApiFault) -> String {
    let mut text = String::new();
    if !fault.verbs.is_empty() {
        text.push_str(&format!(" to {}", fault.verbs.join(", ")));
    }
    if !fault.resources.is_empty() {
        text.push_str(&format!(" of {}", fault.resources.join(", ")));
    }
    if let Some(count) = fault.count {
        text.push_str(&format!(", {count} times"));
    }
    if let Some(duration) = fault.duration {
        text.push_str(&format!(", for {duration}"));
    }
    text
}

fn pod_api(world: &World, crash: &Crash) -> Result<Api<Pod>, StepError> {
    let cluster = &crash.cluster;
    let client = world
        .client(cluster)
        .ok_or_else(|| StepError::Unusable(format!("there is no cluster {cluster:?}")))?;
    Ok(Api::namespaced(client, &crash.namespace))
}

/// The names of the pods that a fault hits, in order.
async fn pods(world: &World, crash: &Crash) -> Result<Vec<String>, StepError> {
    let what = format!("pods {:?} of {} in {}", crash.selector, crash.namespace, crash.cluster);
    let found = pod_api(world, crash)?.list(&ListParams::default().labels(&crash.selector)).await;
    let found = found.map_err(|error| StepError::Unusable(format!("{what}: {}", reason(&error))))?;
    let mut names: Vec<String> = found.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
    names.sort();
    names.truncate(crash.count.unwrap_or(usize::MAX));
    if names.is_empty() {
        return Err(StepError::Unmet(format!("{what}: there are none")));
    }
    Ok(names)
}
