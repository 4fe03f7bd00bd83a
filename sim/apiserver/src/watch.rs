//! Watch streams: events that match a selector, bookmarks, and the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tree::json;

use crate::backlog::Backlog;
use crate::selector::{FieldSelector, LabelSelector};
use crate::store::{Change, Event, Stored};
use crate::view::View;

/// How often a watch that asked for them gets a bookmark.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long a watch lasts that does not say it: the lower bound of the real server's random 30 to 60 minutes.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1800);

/// What a watch selects.
pub(crate) struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    pub(crate) fn matches(&self, object: &Stored) -> bool {
        (self.labels.is_everything() || self.labels.matches(&object.value))
            && (self.fields.is_everything() || self.fields.matches(&object.value))
    }

    fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

/// One watch, before it streams.
pub(crate) struct Watch {
    pub clock: Clock,
    pub view: View,
    pub selection: Selection,
    /// Objects to announce first.
    pub initial: Vec<Arc<Stored>>,
    /// The resourceVersion of the state that `initial` shows.
    pub version: u64,
    /// Whether a bookmark marks the end of `initial`.
    pub marks_initial_end: bool,
    pub missed: Vec<Arc<Event>>,
    pub events: Backlog,
    pub bookmarks: bool,
    pub timeout: Option<Duration>,
}

struct Streaming {
    watch: Watch,
    ready: VecDeque<Bytes>,
    ends: Duration,
    bookmark_due: Option<Duration>,
    last_version: u64,
    ended: bool,
}

impl Watch {
    /// The stream of JSON lines.
    pub(crate) fn stream(mut self) -> BoxStream<'static, Bytes> {
        let mut ready = VecDeque::new();
        for object in std::mem::take(&mut self.initial) {
            if self.selection.matches(&object) {
                ready.push_back(self.view.event(Change::Added, &object));
            }
        }
        if self.marks_initial_end {
            ready.push_back(self.view.bookmark(self.version, true));
        }
        let mut last_version = self.version;
        for event in std::mem::take(&mut self.missed) {
            last_version = event.version;
            ready.extend(self.line(&event));
        }
        let now = self.clock.elapsed();
        let streaming = Streaming {
            ends: now + self.timeout.unwrap_or(TIMEOUT_DEFAULT),
            bookmark_due: self.bookmarks.then(|| now + BOOKMARK_PERIOD),
            watch: self,
            ready,
            last_version,
            ended: false,
        };
        futures::stream::unfold(streaming, Streaming::next).boxed()
    }

    fn line(&self, event: &Event) -> Option<Bytes> {
        let change = if self.selection.is_everything() {
            match (event.removed, &event.before) {
                (true, _) => Change::Deleted,
                (false, None) => Change::Added,
                (false, Some(_)) => Change::Modified,
            }
        } else {
            let before = event.before.as_ref().is_some_and(|before| self.selection.matches(before));
            let after = !event.removed && self.selection.matches(&event.object);
            match (before, after) {
                (false, false) => return None,
                (false, true) => Change::Added,
                (true, true) => Change::Modified,
                (true, false) if event.removed => Change::Deleted,
                // It left the selection: the watcher is told its last matching state, with the change's version.
                (true, false) => {
                    let mut last = event.before.as_ref()?.value.clone();
                    last["metadata"]["resourceVersion"] = json!(event.version.to_string());
                    return Some(self.view.event(Change::Deleted, &Stored::last(last)));
                }
            }
        };
        Some(self.view.event(change, &event.object))
    }
}

impl Streaming {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some((line, self));
            }
            if self.ended {
                return None;
            }
            let until = self.bookmark_due.map_or(self.ends, |due| due.min(self.ends));
            let clock = self.watch.clock;
            tokio::select! { biased;
                event = self.watch.events.next() => match event {
                    Some(event) => {
                        self.last_version = event.version;
                        self.ready.extend(self.watch.line(&event));
                    }
                    None => self.ended = true,
                },
                () = clock.sleep_until_elapsed(until) => {
                    if self.bookmark_due.is_some() {
                        self.ready.push_back(self.watch.view.bookmark(self.last_version, false));
                        self.bookmark_due = Some(until + BOOKMARK_PERIOD);
                    }
                    self.ended = until >= self.ends;
                }
            }
        }
    }
}
