//! API calls in client-go's terms: what "not found" is, and an error's text.

use std::marker::PhantomData;

use kube::api::{GetParams, PostParams};
use kube::core::{Request, Status};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The error's text as client-go prints it: the API server's message.
pub fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the API server has no such object.
pub fn is_not_found(error: &kube::Error) -> bool {
    status(error).is_some_and(|status| status.code == 404)
}

/// Whether the object has changed since it was read.
pub fn is_conflict(error: &kube::Error) -> bool {
    status(error).is_some_and(|status| status.code == 409 && status.reason != "AlreadyExists")
}

fn status(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// Writes that are tried again when they meet a conflict, each time on a fresh read.
pub const ATTEMPTS: usize = 5;

/// The objects of one kind, version and namespace. `kube::Api` knows typed kinds under their default version
/// only.
pub struct Objects<K> {
    client: Client,
    request: Request,
    kind: PhantomData<fn() -> K>,
}

impl<K: Resource + Clone + Serialize + DeserializeOwned> Objects<K> {
    /// The objects of a namespace.
    pub fn new(client: Client, namespace: &str, version: &K::DynamicType) -> Self {
        let request = Request::new(K::url_path(version, Some(namespace)));
        Objects { client, request, kind: PhantomData }
    }

    /// Reads one object.
    pub async fn get(&self, name: &str) -> Result<K, kube::Error> {
        let request = self.request.get(name, &GetParams::default());
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// Makes an object.
    pub async fn create(&self, object: &K) -> Result<K, kube::Error> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = self.request.create(&PostParams::default(), body);
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// Replaces an object.
    pub async fn replace(&self, name: &str, object: &K) -> Result<K, kube::Error> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = self.request.replace(name, &PostParams::default(), body);
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }
}
