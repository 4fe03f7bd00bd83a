//! Watches the Canaries of all clusters, as `kubectl get canaries --watch` would, and writes what changes into the
//! timeline.

use std::sync::Arc;

use clock::Clock;
use crd::Canary;
use program::{Api, Change, Informer, Selection, Tasks};

use super::outcome::CanaryOutcome;
use super::record::Record;
use crate::World;
use crate::timeline::{CanaryState, Event};

/// The watches of a run.
pub(super) struct Canaries {
    clusters: Vec<(String, Informer<Canary>)>,
    tasks: Tasks,
}

impl Drop for Canaries {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

impl Canaries {
    /// Starts to watch in the given clusters.
    pub(super) fn watch(world: &World, clusters: &[String], clock: Clock, record: &Arc<Record>) -> Self {
        let tasks = Tasks::default();
        let informers = clusters.iter().filter_map(|cluster| {
            let api: Api<Canary> = Api::all(world.client(cluster)?);
            let (timeline, record, name) = (world.logs().clone(), Arc::clone(record), cluster.clone());
            let informer = Informer::start(&tasks, clock, api, Selection::default(), move |change| {
                let (old, new) = match change {
                    Change::Applied { old, new } => (old.map(|old| state(&name, old)), state(&name, new)),
                    Change::Deleted(_) => return,
                };
                if new.phase.is_empty() || old.as_ref() == Some(&new) {
                    return;
                }
                let state = CanaryState { served: record.served_since(), ..new };
                timeline.record_now(&clock, Event::Canary(state));
            });
            Some((cluster.clone(), informer))
        });
        Canaries { clusters: informers.collect(), tasks }
    }

    /// All Canaries as they are.
    pub(super) fn outcomes(&self) -> Vec<CanaryOutcome> {
        let all = self.clusters.iter().flat_map(|(cluster, informer)| {
            informer.list().into_iter().map(|canary| {
                let CanaryState { cluster, namespace, name, phase, weight, .. } = state(cluster, &canary);
                CanaryOutcome { cluster, namespace, name, phase, weight }
            })
        });
        all.collect()
    }
}

fn state(cluster: &str, canary: &Canary) -> CanaryState {
    let status = serde_json::to_value(&canary.status).unwrap_or_default();
    CanaryState {
        cluster: cluster.to_owned(),
        namespace: canary.metadata.namespace.clone().unwrap_or_default(),
        name: canary.metadata.name.clone().unwrap_or_default(),
        phase: status["phase"].as_str().unwrap_or_default().to_owned(),
        weight: status["canaryWeight"].as_i64().unwrap_or_default(),
        failed_checks: status["failedChecks"].as_i64().unwrap_or_default(),
        served: Vec::new(),
    }
}
