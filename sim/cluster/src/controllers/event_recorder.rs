//! Kubernetes Events: recorded without waiting, written in order by one task, repeated ones counted
//! (client-go's `EventBroadcaster`).

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Clock;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::Patch;
use kube::{Client, Resource};
use program::{Api, Tasks};
use serde_json::json;
use tokio::sync::mpsc;

/// Events that may wait for the writer; more are dropped, as upstream.
const WAITING_MAX: usize = 1000;
/// Different Events whose repetitions are counted; beyond that counting starts again.
const REMEMBERED_MAX: usize = 4096;
/// How often a write is tried when the API server does not answer, and the pause between.
const ATTEMPTS: u32 = 12;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(10);

/// Records Events about a cluster's objects on behalf of one component. Cheap to clone; all recorders made
/// from one share its writer, so that names are unique and counts right.
#[derive(Clone)]
pub struct EventRecorder {
    writer: mpsc::Sender<Occurrence>,
    clock: Clock,
    source: EventSource,
}

struct Occurrence {
    identity: Identity,
    at: Time,
}

/// What makes two occurrences the same Event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    component: Option<String>,
    host: Option<String>,
    api_version: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    field_path: Option<String>,
    resource_version: Option<String>,
    type_: &'static str,
    reason: String,
    message: String,
}

impl EventRecorder {
    /// A recorder whose writer runs in `tasks`. Give it a component before use.
    pub fn new(client: Client, clock: Clock, tasks: &Tasks) -> Self {
        let (writer, occurrences) = mpsc::channel(WAITING_MAX);
        tasks.spawn(write_all(client, clock, occurrences));
        EventRecorder { writer, clock, source: EventSource::default() }
    }

    /// The same recorder for another component, e.g. `kubelet` on host `node-1`.
    pub fn component(&self, component: &str, host: Option<&str>) -> Self {
        EventRecorder {
            source: EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) },
            ..self.clone()
        }
    }

    /// Records an Event of type Normal.
    pub fn normal(&self, object: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(object, "Normal", reason, message.into());
    }

    /// Records an Event of type Warning.
    pub fn warning(&self, object: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(object, "Warning", reason, message.into());
    }

    fn record(&self, object: &ObjectReference, type_: &'static str, reason: &str, message: String) {
        let identity = Identity {
            component: self.source.component.clone(),
            host: self.source.host.clone(),
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            uid: object.uid.clone(),
            field_path: object.field_path.clone(),
            resource_version: object.resource_version.clone(),
            type_,
            reason: reason.to_owned(),
            message,
        };
        // A full channel drops the Event: nothing may wait for the Events' writer.
        let _ = self.writer.try_send(Occurrence { identity, at: Time(self.clock.now()) });
    }
}

/// A reference to a typed object, as Events need it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

async fn write_all(client: Client, clock: Clock, mut occurrences: mpsc::Receiver<Occurrence>) {
    // Name and count of each Event written; a differing resourceVersion of the object makes no new Event.
    let mut written: BTreeMap<Identity, (String, i32)> = BTreeMap::new();
    let mut counter: u64 = 0;
    while let Some(Occurrence { identity, at }) = occurrences.recv().await {
        let namespace = identity.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let key = Identity { resource_version: None, ..identity.clone() };
        if let Some((name, count)) = written.get_mut(&key) {
            let patch = Patch::Merge(json!({"count": *count + 1, "lastTimestamp": &at}));
            if attempt(&clock, || events.patch(name, &patch)).await {
                *count += 1;
                continue;
            }
            // Expired, or gone with its namespace: start anew.
            written.remove(&key);
        }
        counter += 1;
        let event = event(identity, at, &namespace, counter);
        let name = event.metadata.name.clone().unwrap_or_default();
        if attempt(&clock, || events.create(&event)).await {
            if written.len() >= REMEMBERED_MAX {
                written.clear();
            }
            written.insert(key, (name, 1));
        }
    }
}

/// Whether a write succeeded; a refusal is final, silence is retried.
async fn attempt<F, T>(clock: &Clock, write: impl Fn() -> F) -> bool
where
    F: Future<Output = Result<T, kube::Error>>,
{
    for _ in 0..ATTEMPTS {
        match write().await {
            Ok(_) => return true,
            Err(kube::Error::Api(status)) if status.code < 500 => return false,
            Err(_) => clock.sleep(ATTEMPT_PAUSE).await,
        }
    }
    false
}

fn event(identity: Identity, at: Time, namespace: &str, counter: u64) -> Event {
    let stamp = (at.0.as_nanosecond() as u64).wrapping_add(counter);
    let component = identity.component.clone();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{stamp:016x}", identity.name.as_deref().unwrap_or_default())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: identity.api_version,
            kind: identity.kind,
            namespace: identity.namespace,
            name: identity.name,
            uid: identity.uid,
            resource_version: identity.resource_version,
            field_path: identity.field_path,
        },
        reason: Some(identity.reason),
        message: Some(identity.message),
        type_: Some(identity.type_.to_owned()),
        source: Some(EventSource { component: identity.component, host: identity.host.clone() }),
        reporting_component: component,
        reporting_instance: Some(identity.host.unwrap_or_default()),
        first_timestamp: Some(at.clone()),
        last_timestamp: Some(at),
        count: Some(1),
        ..Event::default()
    }
}
