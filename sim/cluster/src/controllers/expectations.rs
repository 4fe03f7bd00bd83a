//! Writes of pods that a controller's cache has not shown yet (upstream's `ControllerExpectations`).
//!
//! Without them a second sync before the watch delivers would create or delete pods twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use program::Change;

use super::Key;
use super::ownership::controller_name;

/// After this long an expectation is given up: the watch missed it.
const EXPIRY: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Creation,
    Deletion,
}

/// A pending write of a pod, by the pod's name, and when it was sent.
type Pending = BTreeMap<String, (Write, Duration)>;

/// Cheap to clone; clones share the expectations.
#[derive(Clone)]
pub(super) struct Expectations {
    /// The kind of the pods' owners.
    kind: &'static str,
    pending: Arc<Mutex<BTreeMap<Key, Pending>>>,
}

impl Expectations {
    /// None yet, of the controller of this kind.
    pub(super) fn of(kind: &'static str) -> Self {
        Expectations { kind, pending: Arc::default() }
    }

    /// Takes note of what the cache shows.
    pub(super) fn observe(&self, change: &Change<'_, Pod>) {
        let pod = change.object();
        let Some(owner) = controller_name(&pod.metadata, self.kind) else { return };
        let key =
            Key { namespace: pod.metadata.namespace.clone().unwrap_or_default(), name: owner.to_owned() };
        let mut sets = self.lock();
        let Some(pending) = sets.get_mut(&key) else { return };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some((write, _)) = pending.get(name) else { return };
        let going = matches!(change, Change::Deleted(_)) || pod.metadata.deletion_timestamp.is_some();
        if going || *write == Write::Creation {
            pending.remove(name);
        }
    }

    /// Whether every write of the owner has shown, or is past waiting for.
    pub(super) fn settled(&self, key: &Key, now: Duration) -> bool {
        let mut sets = self.lock();
        let Some(pending) = sets.get_mut(key) else { return true };
        pending.retain(|_, (_, sent)| now.saturating_sub(*sent) < EXPIRY);
        pending.is_empty()
    }

    pub(super) fn creating(&self, key: &Key, pod: &str, now: Duration) {
        self.lock().entry(key.clone()).or_default().insert(pod.to_owned(), (Write::Creation, now));
    }

    pub(super) fn deleting(&self, key: &Key, pod: &str, now: Duration) {
        self.lock().entry(key.clone()).or_default().insert(pod.to_owned(), (Write::Deletion, now));
    }

    /// A write that the API refused will never show.
    pub(super) fn failed(&self, key: &Key, pod: &str) {
        if let Some(pending) = self.lock().get_mut(key) {
            pending.remove(pod);
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Pending>> {
        self.pending.lock().expect("no holder of this lock panics")
    }
}
