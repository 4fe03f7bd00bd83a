//! What a watch has not read yet, bounded in number and bytes: a client that reads too slowly loses all of it at once,
//! and its watch ends. It may come back, from the last version that it has read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::store::Event;

/// How many changes a watch may be behind before it is ended.
const EVENTS_MAX: usize = 8192;
/// How many bytes of JSON it may be behind.
const BYTES_MAX: usize = 64 << 20;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    grown: Notify,
}

#[derive(Default)]
struct State {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Nothing comes any more.
    ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn end(&self, forget: bool) {
        let mut state = self.state();
        state.ended = true;
        if forget {
            state.events = VecDeque::new();
            state.bytes = 0;
        }
        self.grown.notify_one();
    }
}

/// The end that changes go in at. Dropping it ends the watch, once it has read what is there.
pub(crate) struct Feed(Arc<Shared>);

/// The end that the watch reads.
pub(crate) struct Backlog(Arc<Shared>);

/// The two ends.
pub(crate) fn backlog() -> (Feed, Backlog) {
    let shared = Arc::new(Shared::default());
    (Feed(Arc::clone(&shared)), Backlog(shared))
}

impl Feed {
    /// Adds a change; `false` if the watch has ended, or ends now because it is too far behind.
    pub(crate) fn send(&self, event: &Arc<Event>) -> bool {
        let size = event.object.text().len();
        let mut state = self.0.state();
        if state.ended {
            return false;
        }
        if state.events.len() == EVENTS_MAX || (state.bytes + size > BYTES_MAX && !state.events.is_empty()) {
            drop(state);
            self.0.end(true);
            return false;
        }
        state.bytes += size;
        state.events.push_back(Arc::clone(event));
        self.0.grown.notify_one();
        true
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.state().ended
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.end(false);
    }
}

impl Backlog {
    /// The next change; `None` when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            {
                let mut state = self.0.state();
                if let Some(event) = state.events.pop_front() {
                    state.bytes -= event.object.text().len();
                    return Some(event);
                }
                if state.ended {
                    return None;
                }
            }
            self.0.grown.notified().await;
        }
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.0.end(true);
    }
}
