//! The Job controller: runs pods until enough of them have ended well.
//!
//! What the pods have come to is in `ledger`, what follows from it in `verdict`. Of a Job's spec it follows parallelism,
//! completions, both completion modes, backoffLimit, activeDeadlineSeconds, ttlSecondsAfterFinished and suspend. It keeps
//! to no policy on failures by pod or by index, nor on success, and replaces pods as soon as they go.

mod indexes;
mod ledger;
mod pod;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clock::{Rng, Seed, Timestamp};
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use program::{Api, Change, Informer, WorkQueue};

use super::event_recorder::reference;
use super::index::Index;
use super::ownership::{self, carry_out, claim};
use super::pod_control::PodControl;
use super::pod_state::is_ready;
use super::replica_set::first_to_go;
use super::{Key, Reconcile};
use ledger::Ledger;
use verdict::{Pods, is_indexed, is_suspended};

/// Pods created or deleted in one go at most.
const BURST: usize = 500;
/// Who manages a Job that names nobody.
const MANAGER: &str = "kubernetes.io/job-controller";
/// What is said when there are enough pods that ended well.
const REACHED: (&str, &str) = ("CompletionsReached", "Reached expected number of succeeded pods");

/// Jobs that a change of a pod concerns.
pub(super) fn owners_of(change: &Change<'_, Pod>, jobs: &Informer<Job>) -> Vec<Key> {
    let selector = |job: &Job| job.spec.as_ref().and_then(|spec| spec.selector.clone());
    ownership::owners_of(change, "Job", jobs, selector)
}

pub(super) struct JobController {
    pub(super) control: PodControl,
    pub(super) names: Seed,
    pub(super) queue: WorkQueue<Key>,
    pub(super) jobs: Informer<Job>,
    pub(super) pod_index: Index<Pod>,
    /// The name stream of each live Job, and what its pods have come to.
    pub(super) known: BTreeMap<Key, Known>,
}

/// What the controller remembers of a Job.
pub(super) struct Known {
    names: Rng,
    ledger: Ledger,
}

/// An Event to record when the status that goes with it is written.
type Said = (bool, &'static str, &'static str);

impl Reconcile for JobController {
    async fn sync(&mut self, key: &Key) -> Result<(), kube::Error> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else {
            self.control.expectations.forget(key);
            self.known.remove(key);
            return Ok(());
        };
        let Some(spec) = job.spec.as_ref().filter(|_| job.metadata.deletion_timestamp.is_none()) else {
            return Ok(());
        };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER) {
            return Ok(());
        }
        if let Some(finished) = verdict::finish(&job) {
            return self.expire(key, &job, spec, finished).await;
        }
        let settled = self.control.expectations.settled(key, self.control.clock.elapsed());
        let pods = self.claimed_pods(&job, spec).await?;
        let now = self.control.clock.now();
        let before = job.status.clone().unwrap_or_default();
        let living = self.known(key, &job, &before, &pods).ledger.observe(&pods, now);
        let done = self.completed_indexes(spec, &before, &pods);
        let mut active = living.active;
        let (mut said, mut result): (Vec<Said>, Result<(), kube::Error>) = (Vec::new(), Ok(()));
        let mut conditions = before.conditions.clone().unwrap_or_default();
        let mut started = before.start_time.clone().map(|time| time.0);
        if !is_suspended(spec) && started.is_none() {
            started = Some(now);
        }

        let mut succeeded = self.succeeded(key, spec, &done);
        let mut failed = self.known[key].ledger.failed();
        let ending = verdict::condition(&job, "FailureTarget")
            .or_else(|| verdict::condition(&job, "SuccessCriteriaMet"));
        // Pods that were just made may not have shown yet: till then there are as many as there were.
        let mut is_known = settled;
        let before_moves = active.len();
        if ending.is_some() {
            // Pods that had not shown when the others were stopped.
            result = self.control.delete_all(key, &*job, &active).await;
            active.clear();
        } else {
            let state = Pods { active: &active, succeeded, failed };
            if let Some((reason, message)) = verdict::failure(spec, started, &state, now) {
                // Those that are stopped have failed too.
                failed += active.len();
                result = self.control.delete_all(key, &*job, &active).await;
                active.clear();
                is_known = true;
                conditions.push(verdict::make("FailureTarget", true, reason, message, now));
            } else {
                if settled {
                    (active, result) = self.manage(key, &job, spec, &done, active, (succeeded, failed)).await;
                }
                self.suspend(spec, &mut conditions, &mut started, &mut said, now);
                succeeded = self.succeeded(key, spec, &done);
                let state = Pods { active: &active, succeeded, failed };
                if settled && !is_suspended(spec) && verdict::is_complete(spec, &state) {
                    conditions.push(verdict::make("SuccessCriteriaMet", true, REACHED.0, REACHED.1, now));
                }
            }
        }
        let terminating = living.terminating + before_moves.saturating_sub(active.len());
        let mut completed_at = before.completion_time.clone();
        if active.is_empty() && terminating == 0 {
            end(&mut conditions, &mut completed_at, &mut said, now);
        }
        let counted = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let some = |count: usize| (count > 0).then_some(counted(count));
        let status = JobStatus {
            active: if is_known { some(active.len()) } else { before.active },
            ready: Some(counted(active.iter().filter(|pod| is_ready(pod)).count())),
            terminating: Some(counted(terminating)),
            succeeded: some(succeeded),
            failed: some(failed),
            completed_indexes: is_indexed(spec).then(|| indexes::text(&done)).filter(|text| !text.is_empty()),
            conditions: (!conditions.is_empty()).then_some(conditions),
            start_time: started.map(Time),
            completion_time: completed_at,
            uncounted_terminated_pods: Some(UncountedTerminatedPods::default()),
            ..JobStatus::default()
        };
        self.write(key, &job, status, &said).await?;
        self.come_back(key, spec, started, now);
        result
    }
}

impl JobController {
    /// What is known of a Job; its ledger begins with the first look.
    fn known(&mut self, key: &Key, job: &Job, status: &JobStatus, pods: &[Arc<Pod>]) -> &mut Known {
        let uid = job.uid().unwrap_or_default();
        if self.known.get(key).is_none_or(|known| !known.ledger.is_of(&uid)) {
            // The uid sets a Job apart from one that had its name before.
            let names = self.names.stream(&format!("{}/{}/{uid}", key.namespace, key.name));
            let ledger = Ledger::new(&uid, status, pods);
            self.known.insert(key.clone(), Known { names, ledger });
        }
        self.known.get_mut(key).expect("it has just been inserted")
    }

    /// The Job's pods, ended ones too, after adopting and releasing.
    async fn claimed_pods(&self, job: &Job, spec: &JobSpec) -> Result<Vec<Arc<Pod>>, kube::Error> {
        let namespace = job.namespace().unwrap_or_default();
        let Some(selector) = &spec.selector else { return Ok(Vec::new()) };
        let api: Api<Pod> = Api::namespaced(self.control.client.clone(), &namespace);
        let mut claimed = Vec::new();
        for pod in self.pod_index.candidates(&namespace, selector, job.metadata.uid.as_deref()) {
            let claim = claim(&job.metadata, selector, &pod.metadata);
            if carry_out(&api, job, pod.as_ref(), claim).await? {
                claimed.push(pod);
            }
        }
        Ok(claimed)
    }

    /// Indexes that are done, by the status so far and by the pods.
    fn completed_indexes(&self, spec: &JobSpec, status: &JobStatus, pods: &[Arc<Pod>]) -> BTreeSet<i32> {
        let completions = spec.completions.unwrap_or(0);
        let mut done = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
        if is_indexed(spec) {
            let ended = pods.iter().filter(|pod| super::pod_state::phase(pod) == "Succeeded");
            done.extend(
                ended.filter_map(|pod| pod::index_of(pod)).filter(|index| (0..completions).contains(index)),
            );
        }
        done
    }

    fn succeeded(&self, key: &Key, spec: &JobSpec, done: &BTreeSet<i32>) -> usize {
        if is_indexed(spec) { done.len() } else { self.known[key].ledger.succeeded() }
    }

    /// Creates or deletes pods, and returns those that are active then.
    async fn manage(
        &mut self,
        key: &Key,
        job: &Job,
        spec: &JobSpec,
        done: &BTreeSet<i32>,
        mut active: Vec<Arc<Pod>>,
        (succeeded, failed): (usize, usize),
    ) -> (Vec<Arc<Pod>>, Result<(), kube::Error>) {
        let wanted = verdict::wanted(spec, &Pods { active: &active, succeeded, failed });
        if active.len() > wanted {
            let mut ranked = first_to_go(&active, &active, active.len(), self.control.clock.now());
            // Pods whose work nobody wants any more go first.
            let is_needed = |pod: &Arc<Pod>| {
                pod::index_of(pod).is_none_or(|index| {
                    index < spec.completions.unwrap_or(i32::MAX) && !done.contains(&index)
                })
            };
            ranked.sort_by_key(is_needed);
            let surplus = &ranked[..(active.len() - wanted).min(BURST)];
            let ledger = &mut self.known.get_mut(key).expect("every Job that is synced is known").ledger;
            surplus.iter().for_each(|pod| ledger.dismiss(pod));
            active.retain(|pod| !ledger.has_dismissed(pod));
            return (active, self.control.delete_all(key, job, surplus).await);
        }
        let missing = (wanted - active.len()).min(BURST);
        let pause = self.known[key].ledger.pause(self.control.clock.now());
        if missing == 0 || !pause.is_zero() {
            return (active, Ok(()));
        }
        let chosen: Vec<Option<i32>> = match spec.completions.filter(|_| is_indexed(spec)) {
            Some(completions) => {
                verdict::next_indexes(completions, done, &active, missing).into_iter().map(Some).collect()
            }
            None => vec![None; missing],
        };
        for index in chosen {
            match self.create(key, job, index).await {
                Ok(Some(pod)) => active.push(pod),
                Ok(None) => break,
                Err(error) => return (active, Err(error)),
            }
        }
        (active, Ok(()))
    }

    /// Makes a pod; nothing if its namespace goes away.
    async fn create(
        &mut self,
        key: &Key,
        job: &Job,
        index: Option<i32>,
    ) -> Result<Option<Arc<Pod>>, kube::Error> {
        let known = self.known.get_mut(key).expect("every Job that is synced is known");
        let prefix = pod::name_prefix(&key.name, index);
        let name = self.control.name(&key.namespace, &prefix, &mut known.names);
        self.control.create(key, job, &pod::pod_of(job, index, name)).await
    }

    /// Brings the condition `Suspended` up to date; time counts from the last resumption.
    fn suspend(
        &self,
        spec: &JobSpec,
        conditions: &mut Vec<JobCondition>,
        started: &mut Option<Timestamp>,
        said: &mut Vec<Said>,
        now: Timestamp,
    ) {
        let place = conditions.iter().position(|condition| condition.type_ == "Suspended");
        let was = place.is_some_and(|place| conditions[place].status == "True");
        let condition = match (is_suspended(spec), was) {
            (true, false) => {
                *started = None;
                said.push((false, "Suspended", "Job suspended"));
                verdict::make("Suspended", true, "JobSuspended", "Job suspended", now)
            }
            (false, true) => {
                *started = Some(now);
                said.push((false, "Resumed", "Job resumed"));
                verdict::make("Suspended", false, "JobResumed", "Job resumed", now)
            }
            _ => return,
        };
        match place {
            Some(place) => conditions[place] = condition,
            None => conditions.push(condition),
        }
    }

    async fn write(&self, key: &Key, job: &Job, status: JobStatus, said: &[Said]) -> Result<(), kube::Error> {
        if job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut updated = job.clone();
        updated.status = Some(status);
        let api: Api<Job> = Api::namespaced(self.control.client.clone(), &key.namespace);
        match api.replace_status(&key.name, &updated).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            result => drop(result?),
        }
        let object = reference(job);
        for (is_warning, reason, message) in said {
            match is_warning {
                true => self.control.events.warning(&object, reason, *message),
                false => self.control.events.normal(&object, reason, *message),
            }
        }
        Ok(())
    }

    /// Looks again when time alone changes something: the deadline comes, or the pause after a failure is over.
    fn come_back(&self, key: &Key, spec: &JobSpec, started: Option<Timestamp>, now: Timestamp) {
        let deadline = verdict::deadline(spec, started)
            .and_then(|deadline| Duration::try_from(deadline.duration_since(now)).ok());
        let pause = self.known[key].ledger.pause(now);
        let waits = [deadline, Some(pause)].into_iter().flatten().filter(|wait| !wait.is_zero());
        if let Some(wait) = waits.min() {
            self.queue.add_after(key.clone(), wait);
        }
    }

    /// Deletes a Job that has been over for as long as it is to be kept.
    async fn expire(
        &self,
        key: &Key,
        job: &Job,
        spec: &JobSpec,
        finished: &JobCondition,
    ) -> Result<(), kube::Error> {
        let Some(kept) = spec.ttl_seconds_after_finished else { return Ok(()) };
        let Some(over) = finished.last_transition_time.as_ref() else { return Ok(()) };
        let left =
            (over.0 + SignedDuration::from_secs(i64::from(kept))).duration_since(self.control.clock.now());
        if let Ok(left) = Duration::try_from(left)
            && !left.is_zero()
        {
            self.queue.add_after(key.clone(), left);
            return Ok(());
        }
        let api: Api<Job> = Api::namespaced(self.control.client.clone(), &key.namespace);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions { uid: job.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(&key.name, &params).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            result => result.map(drop),
        }
    }
}

/// All pods have ended: what was the target is the end.
fn end(
    conditions: &mut Vec<JobCondition>,
    completed_at: &mut Option<Time>,
    said: &mut Vec<Said>,
    now: Timestamp,
) {
    let target = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind).cloned();
    if let Some(failure) = target("FailureTarget") {
        let (reason, message) = match failure.reason.as_deref() {
            Some("DeadlineExceeded") => ("DeadlineExceeded", "Job was active longer than specified deadline"),
            _ => ("BackoffLimitExceeded", "Job has reached the specified backoff limit"),
        };
        conditions.push(verdict::make("Failed", true, reason, message, now));
        said.push((true, reason, message));
    } else if target("SuccessCriteriaMet").is_some() {
        conditions.push(verdict::make("Complete", true, REACHED.0, REACHED.1, now));
        *completed_at = Some(Time(now));
        said.push((false, "Completed", "Job completed"));
    }
}
