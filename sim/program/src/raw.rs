//! Watching objects of any kind as JSON: one watch loop for all kinds, so that the code that follows a watch and reads its
//! events is compiled once. What a kind's own code does is to read the object at the end ([`Raw::typed`]).

use std::borrow::Cow;
use std::time::Duration;

use clock::Clock;
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ApiResource;
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::Tasks;

/// The pause before the watch is tried again after an error.
const RETRY: Duration = Duration::from_secs(1);

/// An object as it came, and its metadata.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    metadata: ObjectMeta,
    value: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        // What the watch itself looks at; the kind's own code reads the rest.
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        if !value["metadata"].is_object() {
            return Err(D::Error::missing_field("metadata"));
        }
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Raw { metadata, value })
    }
}

impl Raw {
    /// The object as its kind; nothing if it is none, which an API server that checks its objects does not send.
    pub(crate) fn typed<K: DeserializeOwned>(self) -> Option<K> {
        serde_json::from_value(self.value).ok()
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
