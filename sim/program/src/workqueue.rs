//! The controllers' work queue: ordered, without duplicates, with delays and backoff.
//!
//! `kube::runtime::Controller` reconciles in hash order, different in every process; this queue hands keys out in the
//! order in which they were added (client-go's workqueue, single worker).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::Clock;
use tokio::sync::Notify;

/// The first retry's delay, doubled for each further one (client-go's `DefaultControllerRateLimiter`).
const BACKOFF_BASE: Duration = Duration::from_millis(5);
/// The longest delay between retries.
const BACKOFF_CAP: Duration = Duration::from_secs(1000);

/// A queue of keys for one worker. Cheap to clone; clones share the queue.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
    clock: Clock,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue { shared: Arc::clone(&self.shared), clock: self.clock }
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    queued: BTreeSet<K>,
    /// Keys to add later, by the elapsed time at which they are due; the counter keeps the order of adding.
    delayed: BTreeMap<(Duration, u64), K>,
    added: u64,
    failures: BTreeMap<K, u32>,
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// An empty queue on the run's clock.
    pub fn new(clock: Clock) -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: BTreeSet::new(),
            delayed: BTreeMap::new(),
            added: 0,
            failures: BTreeMap::new(),
        };
        WorkQueue { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }), clock }
    }

    /// Adds a key unless it is waiting already.
    pub fn add(&self, key: K) {
        self.state().push(key);
        self.shared.changed.notify_one();
    }

    /// Adds a key after a delay.
    pub fn add_after(&self, key: K, delay: Duration) {
        let mut state = self.state();
        state.added += 1;
        let due = (self.clock.elapsed() + delay, state.added);
        state.delayed.insert(due, key);
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Adds a key again after a failure, later each time: 5 ms, 10 ms, … 1000 s.
    pub fn retry(&self, key: K) {
        let failures = {
            let mut state = self.state();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures
        };
        let delay = BACKOFF_BASE.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
        self.add_after(key, delay.min(BACKOFF_CAP));
    }

    /// Forgets a key's failures after a success.
    pub fn forget(&self, key: &K) {
        self.state().failures.remove(key);
    }

    /// Waits for the next key, in the order of adding.
    pub async fn next(&self) -> K {
        loop {
            let due = {
                let mut state = self.state();
                state.promote(self.clock.elapsed());
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    return key;
                }
                state.delayed.keys().next().map(|(due, _)| *due)
            };
            let changed = self.shared.changed.notified();
            match due {
                Some(due) => {
                    tokio::select! { biased;
                        () = changed => {}
                        () = self.clock.sleep_until_elapsed(due) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State<K>> {
        self.shared.state.lock().expect("no holder of this lock panics")
    }
}

impl<K: Ord + Clone> State<K> {
    fn push(&mut self, key: K) {
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn promote(&mut self, now: Duration) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_order_once_and_delays_hold() {
        clock::run_simulated("2020-01-01T00:00:00Z".parse().unwrap(), |clock| async move {
            let queue = WorkQueue::new(clock);
            queue.add_after("late", Duration::from_secs(5));
            queue.add("b");
            queue.add("a");
            queue.add("b");
            assert_eq!(queue.next().await, "b");
            assert_eq!(queue.next().await, "a");
            assert_eq!(queue.next().await, "late");
            assert_eq!(clock.elapsed(), Duration::from_secs(5));
            queue.retry("x");
            queue.next().await;
            queue.retry("x");
            queue.next().await;
            assert_eq!(clock.elapsed(), Duration::from_millis(5015));
        });
    }
}
