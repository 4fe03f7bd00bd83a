//! Watching objects of any kind as JSON: one watch loop for all kinds, so that the code that follows a watch and reads its
//! events is compiled once. What a kind's own code does is to read the object at the end ([`Raw::typed`]).
//!
//! A change reaches every cache of its kind at about the same time, as the same text. So the last few objects are kept
//! with the text that they were read from: the first cache reads it, the others share its object.

use std::any::{Any, TypeId};

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ApiResource;
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::Tasks;

/// The pause before the watch is tried again after an error.
const RETRY: Duration = Duration::from_secs(1);

/// How many objects are kept with their text.
const KEPT: usize = 64;

/// An object as it came, and its metadata.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    metadata: ObjectMeta,
    json: Box<RawValue>,
}

/// What the watch itself looks at; the kind's own code reads the rest.
#[derive(Deserialize)]
struct Head {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let Head { metadata } = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        let metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            ..ObjectMeta::default()
        };
        Ok(Raw { metadata, json })
    }
}

/// An object and the text that it was read from.
type Kept = (TypeId, Box<RawValue>, Arc<dyn Any + Send + Sync>);

thread_local! {
    /// The objects read last, the newest in front.
    static READ: RefCell<VecDeque<Kept>> = const { RefCell::new(VecDeque::new()) };
}

impl Raw {
    /// The object as its kind; nothing if it is none, which an API server that checks its objects does not send.
    pub(crate) fn typed<K: DeserializeOwned + Any + Send + Sync>(self) -> Option<Arc<K>> {
        let kind = TypeId::of::<K>();
        let known = READ.with_borrow(|read| {
            let same = |(of, text, _): &&Kept| *of == kind && text.get() == self.json.get();
            read.iter().find(same).map(|(_, _, object)| Arc::clone(object))
        });
        if let Some(object) = known.and_then(|object| object.downcast().ok()) {
            return Some(object);
        }
        let object: Arc<K> = Arc::new(serde_json::from_str(self.json.get()).ok()?);
        READ.with_borrow_mut(|read| {
            read.truncate(KEPT - 1);
            read.push_front((kind, self.json, object.clone()));
        });
        Some(object)
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.kind)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.group)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.version)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The same API, its objects as JSON: its path says all of it.
pub(crate) fn api_of<K: Resource>(api: Api<K>) -> Api<Raw> {
    let path = api.resource_url().to_owned();
    let client = api.into_client();
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let plural = parts.pop().unwrap_or_default().to_owned();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => ("", "", [].as_slice()),
    };
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let (group, version) = (group.to_owned(), version.to_owned());
    let resource = ApiResource { group, version, api_version, kind: plural.clone(), plural };
    match rest {
        ["namespaces", namespace] => Api::namespaced_with(client, namespace, &resource),
        _ => Api::all_with(client, &resource),
    }
}

/// Lists and watches in a background task, for ever.
pub(crate) fn watch(
    tasks: &Tasks,
    clock: Clock,
    api: Api<Raw>,
    config: watcher::Config,
    mut take: Box<dyn FnMut(watcher::Event<Raw>) + Send>,
) {
    tasks.spawn(async move {
        let mut events = std::pin::pin!(watcher(api, config));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => take(event),
                Err(_) => clock.sleep(RETRY).await,
            }
        }
    });
}
