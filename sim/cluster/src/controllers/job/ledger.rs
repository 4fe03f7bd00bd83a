//! What has become of a Job's pods: how many ended well and how many failed, also of those that are gone. Pure.
//!
//! Upstream holds finished pods by a finalizer until they are counted; here the controller remembers whom it has
//! counted, so that a pod that somebody removes is not forgotten and not counted twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clock::Timestamp;
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::api::core::v1::Pod;

use super::super::pod_state::phase;

/// The pause after the first failed pod, doubled for each further one that fails in a row.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// The longest pause after a failed pod.
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// The pods of one Job.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Whose pods these are: a Job's uid.
    job: String,
    /// Counted before this controller's time.
    before: (usize, usize),
    /// Those that lived when they were last looked at.
    living: BTreeSet<String>,
    /// Those that have ended, and whether well.
    ended: BTreeMap<String, bool>,
    /// Those that the controller took away itself.
    dismissed: BTreeSet<String>,
    failures_in_a_row: u32,
    last_failure: Option<Timestamp>,
}

/// The pods of a Job by what they do.
#[derive(Debug, Default)]
pub(super) struct Living {
    /// Neither ended nor going.
    pub active: Vec<Arc<Pod>>,
    /// On their way out, but not ended yet.
    pub terminating: usize,
}

impl Ledger {
    /// A new ledger for a Job with this uid, whose status counts pods already, of which these are left.
    pub(super) fn new(job: &str, status: &JobStatus, pods: &[Arc<Pod>]) -> Self {
        let left = |wanted: &str| pods.iter().filter(|pod| phase(pod) == wanted).count();
        let counted = |count: Option<i32>| usize::try_from(count.unwrap_or(0)).unwrap_or(0);
        let before = (
            counted(status.succeeded).saturating_sub(left("Succeeded")),
            counted(status.failed).saturating_sub(left("Failed")),
        );
        Ledger {
            job: job.to_owned(),
            before,
            living: BTreeSet::new(),
            ended: BTreeMap::new(),
            dismissed: BTreeSet::new(),
            failures_in_a_row: 0,
            last_failure: None,
        }
    }

    /// Whether this is the ledger of the Job with that uid, and not of one that had its name before.
    pub(super) fn is_of(&self, job: &str) -> bool {
        self.job == job
    }

    /// Takes the pods in as they are now. A pod that goes before it has ended counts as failed, unless the controller
    /// sent it away.
    pub(super) fn observe(&mut self, pods: &[Arc<Pod>], now: Timestamp) -> Living {
        let mut living = Living::default();
        let mut news: Vec<(Timestamp, String, bool)> = Vec::new();
        let mut gone = std::mem::take(&mut self.living);
        for pod in pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            gone.remove(&uid);
            let has_ended = match phase(pod) {
                "Succeeded" => Some(true),
                "Failed" => Some(false),
                _ => None,
            };
            let is_going = pod.metadata.deletion_timestamp.is_some();
            if has_ended.is_none() {
                if is_going {
                    living.terminating += 1;
                } else {
                    self.living.insert(uid.clone());
                    living.active.push(Arc::clone(pod));
                }
            }
            let outcome = has_ended.or(is_going.then_some(false));
            if let Some(outcome) = outcome
                && !self.is_settled(&uid)
            {
                news.push((finished_at(pod).unwrap_or(now), uid, outcome));
            }
        }
        news.extend(gone.into_iter().filter(|uid| !self.is_settled(uid)).map(|uid| (now, uid, false)));
        news.sort();
        for (at, uid, outcome) in news {
            self.ended.insert(uid, outcome);
            if outcome {
                self.failures_in_a_row = 0;
            } else {
                self.failures_in_a_row += 1;
                self.last_failure = Some(at);
            }
        }
        living
    }

    fn is_settled(&self, uid: &str) -> bool {
        self.ended.contains_key(uid) || self.dismissed.contains(uid)
    }

    /// The controller takes a pod away: it counts as nothing.
    pub(super) fn dismiss(&mut self, pod: &Pod) {
        self.dismissed.insert(pod.metadata.uid.clone().unwrap_or_default());
    }

    /// Whether the controller took a pod away.
    pub(super) fn has_dismissed(&self, pod: &Pod) -> bool {
        pod.metadata.uid.as_ref().is_some_and(|uid| self.dismissed.contains(uid))
    }

    /// Pods that ended well.
    pub(super) fn succeeded(&self) -> usize {
        self.before.0 + self.ended.values().filter(|well| **well).count()
    }

    /// Pods that failed.
    pub(super) fn failed(&self) -> usize {
        self.before.1 + self.ended.values().filter(|well| !**well).count()
    }

    /// How long to wait before the next pod is made, after failures.
    pub(super) fn pause(&self, now: Timestamp) -> Duration {
        let Some(failed_at) = self.last_failure.filter(|_| self.failures_in_a_row > 0) else {
            return Duration::ZERO;
        };
        let doublings = (self.failures_in_a_row - 1).min(16);
        let pause = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        let waited = Duration::try_from(now.duration_since(failed_at)).unwrap_or(Duration::ZERO);
        pause.saturating_sub(waited)
    }
}

/// When the last of the pod's containers ended.
fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    let ends = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|time| time.0).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, phase: &str, ended: Option<&str>, going: bool) -> Arc<Pod> {
        let deletion = going.then_some("2020-03-17T12:00:00Z");
        let state = ended.map(|at| json!({"terminated": {"exitCode": 0, "finishedAt": at}}));
        let status = json!({"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let pod = json!({
            "metadata": {"uid": uid, "deletionTimestamp": deletion},
            "status": {"phase": phase, "containerStatuses": [status]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn pods_are_counted_once_and_missed_when_they_go() {
        let now = at("2020-03-17T12:00:00Z");
        let mut ledger = Ledger::new("job", &JobStatus::default(), &[]);
        let running = [pod("a", "Running", None, false), pod("b", "Pending", None, false)];
        assert_eq!(ledger.observe(&running, now).active.len(), 2);
        let done = [pod("a", "Succeeded", Some("2020-03-17T12:00:00Z"), false)];
        let living = ledger.observe(&done, now);
        assert_eq!((living.active.len(), ledger.succeeded(), ledger.failed()), (0, 1, 1), "b has vanished");
        ledger.observe(&[], now);
        assert_eq!((ledger.succeeded(), ledger.failed()), (1, 1));
        let going = pod("c", "Running", None, true);
        ledger.dismiss(&going);
        assert_eq!(ledger.observe(&[going], now).terminating, 1);
        assert_eq!(ledger.failed(), 1, "the controller sent it away");
        ledger.observe(&[pod("d", "Running", None, true)], now);
        assert_eq!(ledger.failed(), 2, "somebody else did");
    }

    #[test]
    fn pauses_double_until_a_pod_succeeds() {
        let mut ledger = Ledger::new("job", &JobStatus::default(), &[]);
        let second = |second: u32| at(&format!("2020-03-17T12:00:{second:02}Z"));
        let mut pods = Vec::new();
        for number in 0..3 {
            pods.push(pod(
                &format!("f{number}"),
                "Failed",
                Some(&format!("2020-03-17T12:00:0{number}Z")),
                false,
            ));
            ledger.observe(&pods, second(number));
        }
        assert_eq!(ledger.pause(second(2)), Duration::from_secs(40));
        assert_eq!(ledger.pause(second(12)), Duration::from_secs(30));
        pods.push(pod("s", "Succeeded", Some("2020-03-17T12:00:20Z"), false));
        ledger.observe(&pods, second(20));
        assert_eq!(ledger.pause(second(20)), Duration::ZERO);
    }

    #[test]
    fn a_restarted_controller_takes_the_counts_of_pods_that_are_gone_over() {
        let status = JobStatus { succeeded: Some(3), failed: Some(1), ..JobStatus::default() };
        let left = [pod("a", "Succeeded", None, false)];
        let mut ledger = Ledger::new("job", &status, &left);
        ledger.observe(&left, at("2020-03-17T12:00:00Z"));
        assert_eq!((ledger.succeeded(), ledger.failed()), (3, 1));
    }
}
