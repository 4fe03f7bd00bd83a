//! The objects of one kind at an API server: `kube::Api` with shared objects.
//!
//! Requests are kube's own. What differs is the answer: it is read through [`crate::decoded`], so that a controller that
//! reads an object which a cache holds already, or writes one that a watch will bring, costs no second reading.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::autoscaling::v1::Scale;
use kinds::Kind;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::{Request, Status, request};
use kube::{Client, Error, Resource};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::decoded::decoded;

type Built = Result<http::Request<Vec<u8>>, request::Error>;

/// The objects of one kind and version, in one namespace or in all. Cheap to clone.
///
/// All errors are kube's: [`Error::Api`] with the server's Status where it refuses.
pub struct Api<K> {
    client: Client,
    request: Request,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Api { client: self.client.clone(), request: self.request.clone(), kind: PhantomData }
    }
}

impl<K: Resource> Api<K> {
    /// The objects of all namespaces, or of a kind that has none.
    pub fn all(client: Client) -> Self
    where
        K::DynamicType: Default,
    {
        Api::all_with(client, &K::DynamicType::default())
    }

    /// The same of a kind or version that the type does not say.
    pub fn all_with(client: Client, kind: &K::DynamicType) -> Self {
        Api::at(client, K::url_path(kind, None))
    }

    /// The objects of a namespace.
    pub fn namespaced(client: Client, namespace: &str) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced_with(client, namespace, &K::DynamicType::default())
    }

    /// The same of a kind or version that the type does not say.
    pub fn namespaced_with(client: Client, namespace: &str, kind: &K::DynamicType) -> Self {
        Api::at(client, K::url_path(kind, Some(namespace)))
    }

    fn at(client: Client, path: String) -> Self {
        Api { client, request: Request::new(path), kind: PhantomData }
    }
}

impl<K> Api<K> {
    /// The path that the objects are below.
    pub fn path(&self) -> &str {
        &self.request.url_path
    }

    /// The client that requests are sent by.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Asks whether an object is there.
    pub async fn find(&self, name: &str) -> Result<(), Error> {
        self.send(self.request.get_metadata(name, &GetParams::default())).await.map(drop)
    }

    /// Asks whether the server knows the kind.
    pub async fn is_served(&self) -> Result<(), Error> {
        self.send(self.request.list_metadata(&ListParams::default().limit(1))).await.map(drop)
    }

    /// Deletes an object, or begins to.
    pub async fn delete(&self, name: &str, parameters: &DeleteParams) -> Result<(), Error> {
        self.send(self.request.delete(name, parameters)).await.map(drop)
    }

    /// Reads an object's scale.
    pub async fn get_scale(&self, name: &str) -> Result<Scale, Error> {
        read(&self.send(self.request.get_subresource("scale", name)).await?)
    }

    /// Replaces an object's scale.
    pub async fn replace_scale(&self, name: &str, scale: &Scale) -> Result<(), Error> {
        let body = serde_json::to_vec(scale).map_err(Error::SerdeError)?;
        let parameters = PostParams::default();
        let request = self.request.replace_subresource("scale", name, &parameters, body);
        self.send(request).await.map(drop)
    }

    /// Changes an object's scale.
    pub async fn patch_scale(&self, name: &str, patch: &Patch<impl Serialize>) -> Result<(), Error> {
        let parameters = PatchParams::default();
        self.send(self.request.patch_subresource("scale", name, &parameters, patch)).await.map(drop)
    }

    async fn send(&self, request: Built) -> Result<Bytes, Error> {
        answer(&self.client, request).await
    }
}

impl<K: Kind> Api<K> {
    /// Reads an object.
    pub async fn get(&self, name: &str) -> Result<Arc<K>, Error> {
        self.read(self.request.get(name, &GetParams::default())).await
    }

    /// Reads an object that may be missing.
    pub async fn get_opt(&self, name: &str) -> Result<Option<Arc<K>>, Error> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads all objects, or those that the parameters select.
    pub async fn list(&self, parameters: &ListParams) -> Result<Vec<Arc<K>>, Error> {
        #[derive(Deserialize)]
        struct List<'a> {
            #[serde(borrow)]
            items: Vec<&'a RawValue>,
        }
        let text = self.send(self.request.list(parameters)).await?;
        let List { items } = read(&text)?;
        let item = |item: &RawValue| decoded(&text.slice_ref(item.get().as_bytes()));
        items.into_iter().map(item).collect::<Result<_, _>>().map_err(Error::SerdeError)
    }

    async fn read(&self, request: Built) -> Result<Arc<K>, Error> {
        Answer(self.send(request).await?, PhantomData).read()
    }

    async fn write(&self, request: Built) -> Result<Answer<K>, Error> {
        Ok(Answer(self.send(request).await?, PhantomData))
    }

    /// Changes an object.
    pub async fn patch(
        &self,
        name: &str,
        patch: &Patch<impl Serialize + std::fmt::Debug>,
    ) -> Result<Answer<K>, Error> {
        self.write(self.request.patch(name, &PatchParams::default(), patch)).await
    }

    /// Changes an object's status.
    pub async fn patch_status(
        &self,
        name: &str,
        patch: &Patch<impl Serialize + std::fmt::Debug>,
    ) -> Result<Answer<K>, Error> {
        self.write(self.request.patch_subresource("status", name, &PatchParams::default(), patch)).await
    }

    /// Makes an object.
    pub async fn create(&self, object: &K) -> Result<Answer<K>, Error> {
        self.write(self.request.create(&PostParams::default(), json(object)?)).await
    }

    /// Replaces an object.
    pub async fn replace(&self, name: &str, object: &K) -> Result<Answer<K>, Error> {
        self.write(self.request.replace(name, &PostParams::default(), json(object)?)).await
    }

    /// Replaces an object's status.
    pub async fn replace_status(&self, name: &str, object: &K) -> Result<Answer<K>, Error> {
        let parameters = PostParams::default();
        self.write(self.request.replace_subresource("status", name, &parameters, json(object)?)).await
    }
}

/// What an object has become by a write, which most writers do not need to read.
pub struct Answer<K>(Bytes, PhantomData<fn() -> K>);

impl<K: Kind> Answer<K> {
    /// The object.
    pub fn read(&self) -> Result<Arc<K>, Error> {
        decoded(&self.0).map_err(Error::SerdeError)
    }
}

fn json(object: &impl Kind) -> Result<Vec<u8>, Error> {
    object.to_json().map_err(Error::SerdeError)
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(Error::SerdeError)
}

/// Sends a request; the answer's text.
pub(crate) async fn answer(client: &Client, request: Built) -> Result<Bytes, Error> {
    let request = request.map_err(Error::BuildRequest)?;
    let response = client.send(request.map(Body::from)).await?;
    let code = response.status();
    let text = response.into_body().collect().await?.to_bytes();
    if code.is_success() { Ok(text) } else { Err(refusal(code, &text)) }
}

/// What a server says that refuses. Proxies on the way say it in other forms than the API's.
fn refusal(code: http::StatusCode, text: &[u8]) -> Error {
    let status = serde_json::from_slice(text).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(text);
        Status::failure(text.trim(), "the answer is no Status").with_code(code.as_u16())
    });
    Error::Api(status.boxed())
}
