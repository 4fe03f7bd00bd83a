//! Carries out a scenario on a world of its own, on virtual time, and says what came of it.
//!
//! The runner does what a user could do: it applies manifests, changes repositories, sends requests, watches objects
//! and reads logs. It reaches into the system at two places only: image behaviours and faults.

mod canaries;
mod check;
mod client;
mod cookies;
mod expectation;
mod fault;
mod objects;
mod outcome;
mod query;
mod record;
mod repository;
mod schedule;
mod session;
mod step;
mod traffic;
mod wait;
mod workspace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::{Clock, Seed};

pub use outcome::{
    Answers, CanaryOutcome, ExpectationResult, FailureKind, Mismatch, Outcome, RunFailure, Status,
    TrafficSummary, VersionSummary,
};

use crate::World;
use crate::scenario::{Loaded, Position, RoleField, TelemetryField, Wait, suggestion};
use crate::timeline::{Component, Event, Timeline};
use crate::world::{ClusterSpec, MeshSpec, Role, Telemetry, WorldSpec, repository};
use canaries::Canaries;
use fault::ApiFaults;
use objects::Objects;
use record::Record;
pub use session::{Session, SessionOptions};
use traffic::Stream;
use workspace::Workspace;

/// What a user may change about a run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The seed, instead of the scenario's.
    pub seed: Option<u64>,
    /// Stops the run at this virtual time, unchecked.
    pub until: Option<Duration>,
}

/// Why a step did not succeed.
enum StepError {
    /// The system did not do what the step asks for.
    Unmet(String),
    /// The step cannot be carried out at all.
    Unusable(String),
}

/// A named moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    /// The number of timeline entries before it.
    entry: usize,
    /// The number of requests that had ended before it.
    request: usize,
}

/// The faults of the clusters' API servers.
struct ApiFaultsByCluster {
    clock: Clock,
    clusters: Mutex<BTreeMap<String, Arc<ApiFaults>>>,
}

impl ApiFaultsByCluster {
    fn of(&self, cluster: &str) -> Arc<ApiFaults> {
        let mut clusters = self.clusters.lock().expect("no holder of this lock panics");
        Arc::clone(clusters.entry(cluster.to_owned()).or_insert_with(|| ApiFaults::new(self.clock)))
    }
}

/// One run in progress.
struct Runner<'a> {
    loaded: &'a Loaded,
    world: Arc<World>,
    /// Workloads that `apply` steps leave out; waits are passed over then.
    left_out: BTreeSet<String>,
    clock: Clock,
    seed: Seed,
    objects: Objects,
    api_faults: ApiFaultsByCluster,
    record: Arc<Record>,
    streams: Mutex<BTreeMap<String, Stream>>,
    marks: Mutex<BTreeMap<String, Mark>>,
}

/// Runs a scenario to its end, on the calling thread, in virtual time.
///
/// # Panics
/// Only on a defect of this program.
pub fn run(loaded: &Loaded, options: &RunOptions) -> Outcome {
    let spec = &loaded.scenario.spec;
    let seed = options.seed.unwrap_or(spec.seed);
    let unusable = |message: String| Outcome {
        scenario: loaded.scenario.metadata.name.clone(),
        file: loaded.file.clone(),
        seed,
        start: spec.start(),
        virtual_time: Duration::ZERO,
        wall_time: None,
        status: Status::Failed(RunFailure {
            kind: FailureKind::Unusable,
            place: loaded.file.clone(),
            message,
        }),
        canaries: Vec::new(),
        traffic: Vec::new(),
        expectations: Vec::new(),
        golden: None,
        timeline: Vec::new(),
    };
    let workspace = match Workspace::create() {
        Ok(workspace) => workspace,
        Err(error) => return unusable(error),
    };
    clock::run_simulated(spec.start(), |clock| async move {
        let seed = Seed::new(seed);
        let world = match World::start(&world_spec(loaded), clock, seed).await {
            Ok(world) => world,
            Err(error) => return unusable(error),
        };
        let runner = Runner::new(loaded, world, clock, seed);
        if let Err(error) = runner.prepare(workspace.path()) {
            return unusable(error);
        }
        runner.run(options).await
    })
}

impl<'a> Runner<'a> {
    fn new(loaded: &'a Loaded, world: World, clock: Clock, seed: Seed) -> Self {
        Runner {
            loaded,
            world: Arc::new(world),
            left_out: BTreeSet::new(),
            clock,
            seed,
            objects: Objects::default(),
            api_faults: ApiFaultsByCluster { clock, clusters: Mutex::default() },
            record: Arc::default(),
            streams: Mutex::default(),
            marks: Mutex::default(),
        }
    }

    fn prepare(&self, workspace: &Path) -> Result<(), String> {
        for (image, behaviour) in &self.loaded.scenario.spec.images {
            self.world.set_behaviour(image, behaviour)?;
        }
        repository::create(self.loaded, &self.world, workspace, self.clock.now())
    }

    async fn run(self, options: &RunOptions) -> Outcome {
        let spec = &self.loaded.scenario.spec;
        let data: Vec<String> = spec
            .clusters
            .iter()
            .filter(|cluster| cluster.role == RoleField::Data)
            .map(|cluster| cluster.name.clone())
            .collect();
        let canaries = Canaries::watch(&self.world, &data, self.clock, &self.record);
        let until = options.until.unwrap_or(Duration::MAX).min(self.deadline());
        let finished = {
            let steps = self.steps();
            let mut steps = std::pin::pin!(steps);
            let mut starts = std::pin::pin!(self.automatic_traffic());
            tokio::select! { biased;
                finished = &mut steps => Some(finished),
                failed = &mut starts => Some(Err(failed)),
                () = self.clock.sleep_until_elapsed(until) => None,
            }
        };
        let status = match finished {
            Some(Ok(())) => Status::Finished,
            Some(Err(failure)) => Status::Failed(failure),
            None if options.until.is_some_and(|stop| stop <= self.deadline()) => Status::Stopped,
            None => Status::Failed(RunFailure {
                kind: FailureKind::Unmet,
                place: self.loaded.file.clone(),
                message: format!(
                    "the run has not ended after {} of virtual time (spec.timeout)",
                    loadgen::format_duration(self.deadline())
                ),
            }),
        };
        let status = match status {
            Status::Finished => self.unused_image().map_or(Status::Finished, Status::Failed),
            other => other,
        };
        let mut expectations = Vec::new();
        let virtual_time = self.clock.elapsed();
        if status == Status::Finished {
            for expectation in &spec.expect {
                expectations.push(self.expectation(expectation).await);
            }
        }
        let marks = self.requests_by_mark();
        let traffic = spec
            .traffic
            .iter()
            .zip(0..)
            .map(|(traffic, index)| self.record.summary(index, &traffic.name, &marks));
        let traffic = traffic.collect();
        let golden = spec.golden.as_ref().map(|golden| {
            let component = Component {
                cluster: Some(&golden.cluster),
                namespace: None,
                workload: &golden.workload,
                container: None,
            };
            let entries = self.world.logs().entries();
            let lines = entries.iter().filter_map(|entry| match &entry.event {
                Event::Line { source, text } if component.has(source) => Some(text.clone()),
                _ => None,
            });
            lines.collect()
        });
        let canaries = canaries.outcomes();
        self.streams.lock().expect("no holder of this lock panics").clear();
        Outcome {
            scenario: self.loaded.scenario.metadata.name.clone(),
            file: self.loaded.file.clone(),
            seed: self.seed.value(),
            start: spec.start(),
            virtual_time,
            wall_time: None,
            status,
            canaries,
            traffic,
            expectations,
            golden,
            timeline: Timeline::take(self.world.logs()),
        }
    }

    /// Carries out the testbed's steps, the scenario's, and the last wait.
    async fn steps(&self) -> Result<(), RunFailure> {
        for source in self.loaded.testbed.as_deref().into_iter().chain([self.loaded]) {
            for (index, step) in source.scenario.spec.steps.iter().enumerate() {
                let what = || {
                    let name = step.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
                    format!("step {}{name} ({})", index + 1, step.action())
                };
                let done = self.step(source, index, step).await;
                done.map_err(|error| failure(source, step.at, &what(), error))?;
            }
        }
        if let Some(until) = &self.loaded.scenario.spec.until {
            let event = Event::Step { action: "until", text: wish(until) };
            self.world.logs().record_now(&self.clock, event);
            self.wait(until).await.map_err(|error| failure(self.loaded, until.at, "until", error))?;
        }
        Ok(())
    }

    /// An image that the scenario says something of, though no container ran it, nor another tag of it: a slip of the
    /// pen, after which the scenario would not test what it says.
    fn unused_image(&self) -> Option<RunFailure> {
        let used = self.world.images_used();
        let repositories: Vec<&str> = used.iter().map(|image| repository(image)).collect();
        for (image, behaviour) in &self.loaded.scenario.spec.images {
            let own = repository(image);
            if own != "*" && !repositories.contains(&own) {
                let near = suggestion(own, repositories.iter().copied());
                let error = StepError::Unusable(format!("no container ran the image {image}{near}"));
                let is_theirs = |testbed: &&Loaded| {
                    let theirs = testbed.scenario.spec.images.get(image);
                    theirs.is_some_and(|theirs| theirs.at == behaviour.at)
                };
                let source = self.loaded.testbed.as_deref().filter(is_theirs).unwrap_or(self.loaded);
                return Some(failure(source, behaviour.at, "images", error));
            }
        }
        None
    }

    /// Starts the traffic that starts by itself, each at its time. Ends only on an error.
    async fn automatic_traffic(&self) -> RunFailure {
        let mut starts = Vec::new();
        for traffic in &self.loaded.scenario.spec.traffic {
            if let Some(moment) = &traffic.start {
                starts.push(async move {
                    let base = match &moment.mark {
                        None => Duration::ZERO,
                        Some(mark) => self.reached(mark).await,
                    };
                    self.clock.sleep_until_elapsed(base + moment.after).await;
                    self.start_traffic(&traffic.name).await.map_err(|error| {
                        failure(self.loaded, traffic.at, "traffic", StepError::Unusable(error))
                    })
                });
            }
        }
        match futures::future::try_join_all(starts).await {
            Err(failure) => failure,
            Ok(_) => std::future::pending().await,
        }
    }

    /// Waits for a mark; returns its time.
    async fn reached(&self, mark: &str) -> Duration {
        loop {
            if let Some(mark) = self.mark(mark) {
                return mark.at;
            }
            let len = self.world.logs().len();
            self.world.logs().longer_than(len).await;
        }
    }

    fn deadline(&self) -> Duration {
        self.loaded.scenario.spec.timeout.0
    }

    fn mark(&self, name: &str) -> Option<Mark> {
        self.marks.lock().expect("no holder of this lock panics").get(name).copied()
    }

    /// The marks in order, with the number of requests that had ended before each.
    fn requests_by_mark(&self) -> Vec<(String, usize)> {
        let marks = self.marks.lock().expect("no holder of this lock panics");
        let mut marks: Vec<_> = marks.iter().collect();
        marks.sort_by_key(|(_, mark)| mark.entry);
        marks.into_iter().map(|(name, mark)| (name.clone(), mark.request)).collect()
    }

    fn set_mark(&self, name: &str) {
        let (entry, request) = (self.world.logs().len(), self.record.len());
        let mark = Mark { at: self.clock.elapsed(), entry, request };
        self.marks.lock().expect("no holder of this lock panics").insert(name.to_owned(), mark);
        self.world.logs().record_now(&self.clock, Event::Mark(name.to_owned()));
    }

    fn traffic_index(&self, name: &str) -> Option<u16> {
        let position = self.loaded.scenario.spec.traffic.iter().position(|traffic| traffic.name == name);
        position.and_then(|index| u16::try_from(index).ok())
    }
}

fn failure(source: &Loaded, at: Position, what: &str, error: StepError) -> RunFailure {
    let (kind, message) = match error {
        StepError::Unmet(message) => (FailureKind::Unmet, message),
        StepError::Unusable(message) => (FailureKind::Unusable, message),
    };
    RunFailure { kind, place: format!("{}:{at}", source.file), message: format!("{what}: {message}") }
}

/// What a wait waits for, in words.
fn wish(wait: &Wait) -> String {
    if let Some(object) = &wait.object {
        return check::wish(object);
    }
    if let Some(canary) = &wait.canary {
        return check::canary_wish(canary);
    }
    if let Some(rollout) = &wait.rollout {
        let (namespace, name, cluster) = (&rollout.namespace, &rollout.deployment, &rollout.cluster);
        return format!("rollout of Deployment {namespace}/{name} in {cluster}");
    }
    if let Some(log) = &wait.log {
        let line = log.message.as_deref().or(log.matches.as_ref().map(|pattern| pattern.as_str()));
        return format!("{} prints {:?}", log.workload, line.unwrap_or_default());
    }
    wait.query.as_ref().map(|query| query.promql.clone()).unwrap_or_default()
}

/// The world that a scenario asks for.
fn world_spec(loaded: &Loaded) -> WorldSpec {
    let spec = &loaded.scenario.spec;
    let clusters = spec.clusters.iter().map(|cluster| ClusterSpec {
        name: cluster.name.clone(),
        nodes: cluster.nodes,
        role: match cluster.role {
            RoleField::Data => Role::Data,
            RoleField::ControlPlane => Role::ControlPlane,
        },
    });
    let mesh = spec.mesh.as_ref().map(|mesh| MeshSpec {
        control_plane: mesh.control_plane.clone().unwrap_or_default(),
        data: mesh.data.clone().unwrap_or_default(),
        telemetry: match mesh.telemetry.unwrap_or_default() {
            TelemetryField::Seconds => Telemetry::Seconds,
            TelemetryField::Milliseconds => Telemetry::Milliseconds,
        },
        proxy: mesh.proxy.clone(),
    });
    WorldSpec { clusters: clusters.collect(), mesh, loopback: None }
}

/// The version that answered: the tag of the answering container's image.
fn version_of(response: &program::Response) -> Option<&str> {
    response.server().map(|server| &*server.version)
}
