//! The objects of one server, their history, and who watches them.
//!
//! Everything happens under one lock, so a request is atomic. Objects are immutable once stored: a write replaces the
//! [`Arc`], and readers, watchers and history share it together with its JSON text.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tree::{Map, Value};

use crate::backlog::{Backlog, Feed, backlog};
use crate::failure::Failure;
use crate::resource::Resource;

/// How many changes of one resource a new watch can still be told of; older ones give `410 Expired`.
const HISTORY_MAX: usize = 512;

/// Namespace (empty for cluster-scoped objects) and name.
pub(crate) type Key = (String, String);

/// What a watch calls the change that made an object what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is new.
    Added,
    /// It was there before.
    Modified,
    /// It is gone; this is its last state.
    Deleted,
}

/// The end of a watch's line, after the object.
const LINE_END: &[u8] = b"}\n";

impl Change {
    /// The beginning of a watch's line, before the object.
    fn line_start(self) -> &'static [u8] {
        match self {
            Change::Added => br#"{"type":"ADDED","object":"#,
            Change::Modified => br#"{"type":"MODIFIED","object":"#,
            Change::Deleted => br#"{"type":"DELETED","object":"#,
        }
    }

    /// A watch's line that tells of this change, with the object as JSON.
    pub(crate) fn line(self, object: &[u8]) -> Bytes {
        [self.line_start(), object, LINE_END].concat().into()
    }
}

/// A stored object in the storage version, with its JSON text made on demand.
#[derive(Debug)]
pub(crate) struct Stored {
    pub value: Value,
    change: Change,
    text: OnceLock<Printed>,
}

impl Stored {
    pub(crate) fn new(value: Value) -> Arc<Self> {
        Arc::new(Stored { value, change: Change::Added, text: OnceLock::new() })
    }

    /// The last state of an object that is gone.
    pub(crate) fn last(value: Value) -> Arc<Self> {
        Arc::new(Stored { value, change: Change::Deleted, text: OnceLock::new() })
    }

    /// A new state of `before`, of whose text it takes the parts that did not change.
    fn after(value: Value, before: &Stored) -> Arc<Self> {
        let change = Change::Modified;
        let text = before.text.get().map(|text| Printed::of(change, &value, Some((&before.value, text))));
        Arc::new(Stored { value, change, text: text.map_or_else(OnceLock::new, OnceLock::from) })
    }

    /// The object as JSON.
    pub(crate) fn text(&self) -> &Bytes {
        &self.printed().object
    }

    /// The line that tells a watch of `change`, whose object this is.
    pub(crate) fn line(&self, change: Change) -> Bytes {
        if change == self.change { self.printed().line.clone() } else { change.line(self.text()) }
    }

    fn printed(&self) -> &Printed {
        self.text.get_or_init(|| Printed::of(self.change, &self.value, None))
    }
}

/// An object as JSON, in the line that tells watches of it, which all of them share.
#[derive(Clone, Debug)]
struct Printed {
    line: Bytes,
    /// The object alone: a part of `line`.
    object: Bytes,
    /// Where the values of its fields are in `line`.
    fields: Vec<Range<usize>>,
}

impl Printed {
    /// Prints an object. What it shares with another one, whose text there is, is copied from that.
    fn of(change: Change, object: &Value, printed: Option<(&Value, &Printed)>) -> Printed {
        let mut line = Vec::with_capacity(printed.map_or(1024, |(_, text)| text.line.len() + 128));
        line.extend_from_slice(change.line_start());
        let start = line.len();
        let fields = match object.as_object() {
            Some(fields) => Printed::fields(&mut line, fields, printed),
            None => {
                object.write(&mut line);
                Vec::new()
            }
        };
        let end = line.len();
        line.extend_from_slice(LINE_END);
        let line = Bytes::from(line);
        Printed { object: line.slice(start..end), line, fields }
    }

    /// Prints an object's fields; returns where their values are.
    fn fields(line: &mut Vec<u8>, fields: &Map, printed: Option<(&Value, &Printed)>) -> Vec<Range<usize>> {
        let mut places = Vec::with_capacity(fields.len());
        line.push(b'{');
        for (name, value) in fields {
            if !places.is_empty() {
                line.push(b',');
            }
            Value::from(name.clone()).write(line);
            line.push(b':');
            let start = line.len();
            let old = printed.and_then(|(object, text)| {
                let (index, (_, old)) =
                    object.as_object()?.iter().enumerate().find(|(_, (of, _))| *of == name)?;
                old.is_shared_with(value).then(|| &text.line[text.fields[index].clone()])
            });
            match old {
                Some(text) => line.extend_from_slice(text),
                None => value.write(line),
            }
            places.push(start..line.len());
        }
        line.push(b'}');
        places
    }
}

/// One change: `before` is missing for a new object, `after` for a removed one (whose last state, with the removal's
/// resourceVersion, is `object`).
#[derive(Debug)]
pub(crate) struct Event {
    pub version: u64,
    pub object: Arc<Stored>,
    pub before: Option<Arc<Stored>>,
    pub removed: bool,
}

/// What a new watch missed, and what is to come.
pub(crate) type Subscription = (Vec<Arc<Event>>, Backlog);

struct Watcher {
    namespace: Option<String>,
    events: Feed,
}

/// All objects of one resource.
pub(crate) struct Collection {
    pub resource: Arc<Resource>,
    pub objects: BTreeMap<Key, Arc<Stored>>,
    history: VecDeque<Arc<Event>>,
    /// The resourceVersion of the newest change that history no longer has.
    forgotten: u64,
    watchers: Vec<Watcher>,
}

impl Collection {
    /// What was there at an earlier version, for every key that changed since: an object, or nothing.
    ///
    /// # Errors
    /// 410 if history does not reach back that far.
    pub(crate) fn changed_since(&self, version: u64) -> Result<BTreeMap<Key, Option<Arc<Stored>>>, Failure> {
        if version < self.forgotten {
            return Err(Failure::expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
            ));
        }
        let mut before = BTreeMap::new();
        for event in self.history.iter().rev().take_while(|event| event.version > version) {
            before.insert(event.key(), event.before.clone());
        }
        Ok(before)
    }
}

/// Where an object is: its collection and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub collection: Arc<str>,
    pub key: Key,
}

/// The store of one server.
pub(crate) struct Store {
    /// The newest resourceVersion.
    pub version: u64,
    pub collections: BTreeMap<Arc<str>, Collection>,
    uids: BTreeMap<String, Place>,
    /// Objects by the uid of an owner.
    dependents: BTreeMap<String, BTreeSet<Place>>,
}

impl Store {
    pub(crate) fn new() -> Self {
        // A real cluster's first objects have small versions, but never 0 or 1: those have meanings.
        Store {
            version: 10,
            collections: BTreeMap::new(),
            uids: BTreeMap::new(),
            dependents: BTreeMap::new(),
        }
    }

    /// Begins to serve a resource, or changes how it is served.
    pub(crate) fn serve(&mut self, resource: Arc<Resource>) {
        let version = self.version;
        let entry = self.collections.entry(Arc::clone(&resource.qualified));
        match entry {
            std::collections::btree_map::Entry::Occupied(mut served) => {
                let collection = served.get_mut();
                collection.resource = resource;
                for object in collection.objects.values_mut() {
                    let mut value = object.value.clone();
                    conform(&collection.resource, &mut value);
                    if value != object.value {
                        *object = Stored::after(value, object);
                    }
                }
            }
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Collection {
                    resource,
                    objects: BTreeMap::new(),
                    history: VecDeque::new(),
                    forgotten: version,
                    watchers: Vec::new(),
                });
            }
        }
    }

    /// Ends serving a resource; its watches end with it.
    pub(crate) fn withdraw(&mut self, collection: &str) {
        self.collections.remove(collection);
    }

    pub(crate) fn collection(&self, name: &str) -> Option<&Collection> {
        self.collections.get(name)
    }

    pub(crate) fn get(&self, place: &Place) -> Option<&Arc<Stored>> {
        self.collections.get(&place.collection)?.objects.get(&place.key)
    }

    /// Where the object with a uid is.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<&Place> {
        self.uids.get(uid)
    }

    /// The objects that name `uid` among their owners, in order.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Place> {
        self.dependents.get(uid).map(|places| places.iter().cloned().collect()).unwrap_or_default()
    }

    /// Whether a kind is served in any version.
    pub(crate) fn serves_kind(&self, group: &str, kind: &str) -> bool {
        self.collections
            .values()
            .any(|collection| collection.resource.group == group && collection.resource.kind == kind)
    }

    /// Stores a new object or a new state of one, gives it the next resourceVersion, and tells watchers.
    pub(crate) fn put(&mut self, place: &Place, mut object: Value) -> Arc<Stored> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let collection =
            self.collections.get_mut(&place.collection).expect("the caller found the collection");
        let stored = match collection.objects.get(&place.key) {
            Some(before) => Stored::after(object, before),
            None => Stored::new(object),
        };
        let before = collection.objects.insert(place.key.clone(), Arc::clone(&stored));
        match &before {
            Some(before) if is_linked_alike(&before.value, &stored.value) => {}
            before => {
                if let Some(before) = before {
                    self.unlink(place, &before.value);
                }
                self.link(place, &stored.value);
            }
        }
        let event = Event { version: self.version, object: Arc::clone(&stored), before, removed: false };
        self.tell(place, event);
        stored
    }

    /// Removes an object and tells watchers; its last state carries the removal's resourceVersion.
    pub(crate) fn remove(&mut self, place: &Place) -> Option<Arc<Stored>> {
        let collection = self.collections.get_mut(&place.collection)?;
        let before = collection.objects.remove(&place.key)?;
        self.unlink(place, &before.value);
        self.version += 1;
        let mut last = before.value.clone();
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        let last = Stored::last(last);
        let event =
            Event { version: self.version, object: Arc::clone(&last), before: Some(before), removed: true };
        self.tell(place, event);
        Some(last)
    }

    /// Takes over other resources and objects, which have their resourceVersions, in place of all that is there. All
    /// watches end, and none can begin before `version`.
    pub(crate) fn load(
        &mut self,
        resources: impl IntoIterator<Item = Arc<Resource>>,
        objects: Vec<(Place, Value)>,
        version: u64,
    ) {
        *self = Store { version, ..Store::new() };
        for resource in resources {
            self.serve(resource);
        }
        for (place, mut object) in objects {
            self.link(&place, &object);
            if let Some(collection) = self.collections.get_mut(&place.collection) {
                conform(&collection.resource, &mut object);
                collection.objects.insert(place.key, Stored::new(object));
            }
        }
    }

    /// Watches a collection from after `from`, or from now on: changes that history has, and those to come.
    pub(crate) fn watch(
        &mut self,
        collection: &str,
        namespace: Option<&str>,
        from: Option<u64>,
    ) -> Result<Subscription, Failure> {
        let newest = self.version;
        let collection = self.collections.get_mut(collection).expect("the caller found the collection");
        let missed: Vec<_> = match from {
            None => Vec::new(),
            Some(from) if from < collection.forgotten => {
                return Err(Failure::expired(format!("too old resource version: {from} ({newest})")));
            }
            Some(from) => collection.history.iter().filter(|event| event.version > from).cloned().collect(),
        };
        let missed = missed
            .into_iter()
            .filter(|event| namespace.is_none_or(|namespace| event.namespace() == namespace))
            .collect();
        let (events, to_come) = backlog();
        collection.watchers.push(Watcher { namespace: namespace.map(str::to_owned), events });
        Ok((missed, to_come))
    }

    /// Ends all watches, as a restart of the server or a broken connection would.
    pub(crate) fn drop_watches(&mut self) {
        for collection in self.collections.values_mut() {
            collection.watchers.clear();
        }
    }

    fn tell(&mut self, place: &Place, event: Event) {
        let event = Arc::new(event);
        let collection =
            self.collections.get_mut(&place.collection).expect("the caller found the collection");
        collection.watchers.retain(|watcher| match &watcher.namespace {
            Some(namespace) if *namespace != place.key.0 => !watcher.events.is_closed(),
            _ => watcher.events.send(&event),
        });
        collection.history.push_back(event);
        if collection.history.len() > HISTORY_MAX
            && let Some(oldest) = collection.history.pop_front()
        {
            collection.forgotten = oldest.version;
        }
    }

    fn link(&mut self, place: &Place, object: &Value) {
        if let Some(uid) = object["metadata"]["uid"].as_str() {
            self.uids.insert(uid.to_owned(), place.clone());
        }
        for owner in owners(object) {
            self.dependents.entry(owner.to_owned()).or_default().insert(place.clone());
        }
    }

    fn unlink(&mut self, place: &Place, object: &Value) {
        if let Some(uid) = object["metadata"]["uid"].as_str() {
            self.uids.remove(uid);
        }
        for owner in owners(object) {
            if let Some(places) = self.dependents.get_mut(owner) {
                places.remove(place);
                if places.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }
}

impl Event {
    fn key(&self) -> Key {
        let name = self.object.value["metadata"]["name"].as_str().unwrap_or_default();
        (self.namespace().to_owned(), name.to_owned())
    }

    fn namespace(&self) -> &str {
        self.object.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }
}

/// Brings an object that is stored already into the form that its definition asks for now: a real server prunes and fills
/// in what it reads from its storage.
fn conform(resource: &Resource, object: &mut Value) {
    if let Some(schema) = &resource.stored().schema {
        schema.prune(object, Value::NULL);
        schema.default(object, Value::NULL);
    }
}

/// Whether two states of an object have the same uid and owners.
fn is_linked_alike(one: &Value, other: &Value) -> bool {
    let (one, other) = (&one["metadata"], &other["metadata"]);
    ["uid", "ownerReferences"].iter().all(|field| one[*field] == other[*field])
}

/// The uids of an object's owners.
pub(crate) fn owners(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|reference| reference["uid"].as_str())
}
