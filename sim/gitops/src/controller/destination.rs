//! Destination clusters: found through Argo CD's cluster Secrets, reached through the program's API access.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Resource as _;
use kube::api::{ApiResource, DynamicObject, GetParams, ListParams};
use kube::core::{GroupVersionKind, Request};
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use kube::{Api, Client};
use serde_json::{Value, json};

/// The URL under which Argo CD's own cluster is named.
const IN_CLUSTER: &str = "https://kubernetes.default.svc";

/// A cluster that Applications are synced to. What it serves is asked once.
#[derive(Clone)]
pub(crate) struct Destination {
    /// The API server's URL.
    pub server: String,
    /// A client for it.
    pub client: Client,
    kinds: BTreeMap<(String, String), (ApiResource, ApiCapabilities)>,
}

impl Destination {
    /// The API of an object's kind, and whether it is namespaced.
    ///
    /// # Errors
    /// The API server's words when it does not serve the kind.
    pub async fn kind(&mut self, api_version: &str, kind: &str) -> Result<(ApiResource, bool), String> {
        let key = (api_version.to_owned(), kind.to_owned());
        if !self.kinds.contains_key(&key) {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let found = pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, kind)).await;
            let found = found.map_err(|_| {
                format!("The Kubernetes API could not find {group}/{kind} for requested resource; version {version:?} is not served")
            })?;
            self.kinds.insert(key.clone(), found);
        }
        let (resource, capabilities) = &self.kinds[&key];
        Ok((resource.clone(), capabilities.scope == Scope::Namespaced))
    }

    /// The API for one object.
    ///
    /// # Errors
    /// As [`Destination::kind`].
    pub async fn api(&mut self, object: &Value) -> Result<Api<DynamicObject>, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (resource, namespaced) = self.kind(&text(&object["apiVersion"]), &text(&object["kind"])).await?;
        Ok(match (namespaced, object["metadata"]["namespace"].as_str()) {
            (true, Some(namespace)) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            (true, None) => Api::default_namespaced_with(self.client.clone(), &resource),
            (false, _) => Api::all_with(self.client.clone(), &resource),
        })
    }
}

impl Destination {
    /// All objects of a kind that have a label.
    ///
    /// # Errors
    /// The API server's words.
    pub async fn list(&mut self, api_version: &str, kind: &str, label: &str) -> Result<Vec<Value>, String> {
        let (resource, _) = self.kind(api_version, kind).await?;
        let request = Request::new(DynamicObject::url_path(&resource, None));
        let request =
            request.list(&ListParams::default().labels(label)).map_err(|error| error.to_string())?;
        let mut list: Value = self.client.request(request).await.map_err(|error| error.to_string())?;
        let items = match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let named = |mut object: Value| {
            object["apiVersion"] = json!(api_version);
            object["kind"] = json!(kind);
            object
        };
        Ok(items.into_iter().map(named).collect())
    }

    /// The object of the same kind, namespace and name, if there is one.
    ///
    /// # Errors
    /// The API server's words.
    pub async fn get(&mut self, object: &Value) -> Result<Option<Value>, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (resource, namespaced) = self.kind(&text(&object["apiVersion"]), &text(&object["kind"])).await?;
        let namespace = object["metadata"]["namespace"].as_str().filter(|_| namespaced);
        let request = Request::new(DynamicObject::url_path(&resource, namespace));
        let name = text(&object["metadata"]["name"]);
        let request = request.get(&name, &GetParams::default()).map_err(|error| error.to_string())?;
        match self.client.request(request).await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The destination of an Application: by server or by name, from the cluster Secrets in Argo CD's namespace.
///
/// # Errors
/// Why there is none, in Argo CD's words.
pub(crate) async fn find(
    context: &program::Context,
    destination: &crd::ApplicationDestination,
) -> Result<Destination, String> {
    let own = destination.server == IN_CLUSTER || destination.name == "in-cluster";
    if own {
        let client = context.apis.in_cluster();
        return Ok(Destination { server: IN_CLUSTER.into(), client, kinds: BTreeMap::new() });
    }
    if !destination.server.is_empty() && !destination.name.is_empty() {
        return Err(format!(
            "application destination can't have both name and server defined: {} {}",
            destination.name, destination.server
        ));
    }
    let secrets: Api<Secret> = Api::namespaced(context.apis.in_cluster(), &context.identity.namespace);
    let clusters = ListParams::default().labels("argocd.argoproj.io/secret-type=cluster");
    let secrets =
        secrets.list(&clusters).await.map_err(|error| format!("error listing clusters: {error}"))?;
    for secret in secrets {
        let field = |key: &str| -> String {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.clone());
            String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
        };
        let (name, server) = (field("name"), field("server"));
        let wanted = if destination.server.is_empty() {
            name == destination.name
        } else {
            server == destination.server
        };
        if wanted {
            let config: Value = serde_json::from_str(&field("config")).unwrap_or_default();
            let token = config["bearerToken"].as_str();
            let client = context.apis.connect(&server, token).map_err(|error| error.to_string())?;
            return Ok(Destination { server, client, kinds: BTreeMap::new() });
        }
    }
    let wanted = if destination.server.is_empty() { &destination.name } else { &destination.server };
    Err(format!(
        "application destination {wanted:?} is not a configured cluster: add a Secret labelled \
         argocd.argoproj.io/secret-type=cluster in namespace {:?}",
        context.identity.namespace
    ))
}
