//! Events: what client-go's recorder makes of them. Repetitions are counted, floods of similar ones are
//! folded, and those beyond the budget are dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clock::{Clock, Timestamp};
use crd::Canary;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use kube::api::Patch;
use program::{Api, Tasks};
use serde_json::json;
use tokio::sync::mpsc;

use crate::kubernetes;

/// Distinct messages of one kind on one object from which on they are folded.
const SIMILAR: usize = 10;
/// Time after which messages no longer count as similar.
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
/// Events of one object that are let through at once.
const BURST: f64 = 25.0;
/// Time in which one more is let through.
const REFILL: Duration = Duration::from_secs(300);

/// An event's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// As it should be.
    Normal,
    /// Something that somebody should look at.
    Warning,
}

impl Type {
    /// The type as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Normal => "Normal",
            Type::Warning => "Warning",
        }
    }
}

/// Writes events about Canaries in the background, in order. Cheap to clone.
#[derive(Clone)]
pub struct Events(mpsc::UnboundedSender<Occurrence>);

struct Occurrence {
    about: ObjectReference,
    kind: Type,
    message: String,
    at: Timestamp,
}

impl Events {
    /// Starts the writer.
    pub fn start(tasks: &Tasks, clock: Clock, client: Client) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Occurrence>();
        tasks.spawn(async move {
            let mut correlator = Correlator::default();
            while let Some(occurrence) = receiver.recv().await {
                let Some(write) = correlator.correlate(&occurrence) else { continue };
                let namespace = occurrence.about.namespace.as_deref().unwrap_or("default");
                let api: Api<Event> = Api::namespaced(client.clone(), namespace);
                send(&api, &clock, write).await;
            }
        });
        Events(sender)
    }

    /// Records an event of reason `Synced`.
    pub fn record(&self, canary: &Canary, kind: Type, message: &str, at: Timestamp) {
        let about = ObjectReference {
            api_version: Some("flagger.app/v1beta1".to_owned()),
            kind: Some(Canary::KIND.to_owned()),
            namespace: canary.metadata.namespace.clone(),
            name: canary.metadata.name.clone(),
            uid: canary.metadata.uid.clone(),
            resource_version: canary.metadata.resource_version.clone(),
            field_path: None,
        };
        // The writer lives as long as the program: nobody is left to read the event otherwise.
        let _ = self.0.send(Occurrence { about, kind, message: message.to_owned(), at });
    }
}

/// What to send to the API server.
#[derive(Clone, Debug, PartialEq)]
enum Write {
    Create(Box<Event>),
    Count(Box<Event>),
}

async fn send(api: &Api<Event>, clock: &Clock, write: Write) {
    // client-go gives up after twelve tries, ten seconds apart.
    for _ in 0..12 {
        let result = match &write {
            Write::Create(event) => api.create(event).await,
            Write::Count(event) => {
                let name = event.metadata.name.as_deref().unwrap_or_default();
                let patch = json!({
                    "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message,
                });
                match api.patch(name, &Patch::Strategic(patch)).await {
                    Err(error) if kubernetes::is_not_found(&error) => api.create(event).await,
                    result => result,
                }
            }
        };
        match result {
            Ok(_) | Err(kube::Error::Api(_)) => return,
            Err(_) => clock.sleep(Duration::from_secs(10)).await,
        }
    }
}

/// client-go's correlator of one source and reason: aggregation, counting, then the spam filter.
#[derive(Default)]
struct Correlator {
    similar: BTreeMap<(String, Type), Similar>,
    logged: BTreeMap<(String, Type, String), Event>,
    budget: BTreeMap<String, (f64, Timestamp)>,
    last_name: i128,
}

struct Similar {
    last: Timestamp,
    messages: BTreeSet<String>,
}

impl Correlator {
    fn correlate(&mut self, occurrence: &Occurrence) -> Option<Write> {
        let Occurrence { about, kind, message, at } = occurrence;
        let object = about.uid.clone().unwrap_or_default();
        let similar = self
            .similar
            .entry((object.clone(), *kind))
            .or_insert_with(|| Similar { last: *at, messages: BTreeSet::new() });
        if at.duration_since(similar.last) > SIMILAR_WITHIN.try_into().expect("ten minutes fit") {
            similar.messages.clear();
        }
        similar.last = *at;
        similar.messages.insert(message.clone());
        let folded = similar.messages.len() >= SIMILAR;
        if folded {
            similar.messages.pop_first();
        }
        let (key, message) = match folded {
            true => (String::new(), format!("(combined from similar events): {message}")),
            false => (message.clone(), message.clone()),
        };
        let now = Some(Time(seconds(*at)));
        let key = (object.clone(), *kind, key);
        let write = match self.logged.get(&key) {
            Some(event) => {
                let count = event.count.map(|count| count + 1);
                let event = Event { count, last_timestamp: now, message: Some(message), ..event.clone() };
                Write::Count(Box::new(event))
            }
            None => {
                // Names hold the time in nanoseconds; virtual time may stand still between two events.
                self.last_name = at.as_nanosecond().max(self.last_name + 1);
                let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), self.last_name);
                Write::Create(Box::new(Event {
                    metadata: ObjectMeta {
                        name: Some(name),
                        namespace: about.namespace.clone(),
                        ..Default::default()
                    },
                    involved_object: about.clone(),
                    reason: Some("Synced".to_owned()),
                    message: Some(message),
                    type_: Some(kind.as_str().to_owned()),
                    source: Some(EventSource { component: Some("flagger".to_owned()), host: None }),
                    first_timestamp: now.clone(),
                    last_timestamp: now,
                    count: Some(1),
                    ..Default::default()
                }))
            }
        };
        let (Write::Create(event) | Write::Count(event)) = &write;
        self.logged.insert(key, event.as_ref().clone());
        self.let_through(object, *at).then_some(write)
    }

    fn let_through(&mut self, object: String, at: Timestamp) -> bool {
        let (tokens, last) = self.budget.entry(object).or_insert((BURST, at));
        let passed = at.duration_since(*last).as_secs_f64();
        *tokens = (*tokens + passed / REFILL.as_secs_f64()).min(BURST);
        *last = at;
        let enough = *tokens >= 1.0;
        if enough {
            *tokens -= 1.0;
        }
        enough
    }
}

/// A time as Kubernetes writes it: whole seconds.
pub fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).expect("a whole second of a valid time is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_folded_and_limited() {
        let mut correlator = Correlator::default();
        let start: Timestamp = "2020-03-17T11:00:00.5Z".parse().unwrap();
        let mut send = |message: &str, seconds: i64| {
            let at = start + jiff::SignedDuration::from_secs(seconds);
            let about = ObjectReference { name: Some("podinfo".into()), ..Default::default() };
            let occurrence = Occurrence { about, kind: Type::Normal, message: message.to_owned(), at };
            correlator.correlate(&occurrence).map(|write| match write {
                Write::Create(event) => ("create", event),
                Write::Count(event) => ("count", event),
            })
        };
        let (verb, first) = send("a", 0).unwrap();
        assert_eq!((verb, first.count), ("create", Some(1)));
        assert_eq!(serde_json::to_value(&first.first_timestamp).unwrap(), "2020-03-17T11:00:00Z");
        let (verb, second) = send("a", 30).unwrap();
        assert_eq!((verb, second.count), ("count", Some(2)));
        assert_eq!(second.metadata.name, first.metadata.name);
        let (_, other) = send("b", 30).unwrap();
        assert_ne!(other.metadata.name, first.metadata.name);
        for index in 0..7 {
            send(&format!("m{index}"), 40);
        }
        let (verb, folded) = send("tenth", 50).unwrap();
        assert_eq!(verb, "create");
        assert_eq!(folded.message.as_deref(), Some("(combined from similar events): tenth"));
        assert_eq!(send("eleventh", 50).unwrap().1.count, Some(2));
        // 12 of 25 are spent; the rest of the burst, then silence until a token is back.
        let passed = (0..20).filter(|_| send("a", 60).is_some()).count();
        assert_eq!(passed, 13);
        assert!(send("a", 360).is_some());
    }
}
