//! Access to API servers: the pod's own, and others by their address.

use kube::Client;
use kube::config::Kubeconfig;
use secrecy::ExposeSecret as _;

/// API servers as a pod can reach them.
pub trait Apis: Send + Sync {
    /// The cluster's own API, as the pod's service account.
    fn in_cluster(&self) -> Client;

    /// The API server at a URL such as `https://asm.example:6443`, with an optional bearer token.
    ///
    /// # Errors
    /// [`ConnectError`] when no API server has that address or it cannot be reached.
    fn connect(&self, server: &str, token: Option<&str>) -> Result<Client, ConnectError>;
}

/// Why an API server could not be reached, in words for a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(pub String);

/// Connects to the cluster of a kubeconfig's current context, as `-kubeconfig=FILE` flags do.
///
/// # Errors
/// [`ConnectError`] when the text is no kubeconfig, or its current context, cluster or server is missing, or the
/// server cannot be reached.
pub fn connect_kubeconfig(apis: &dyn Apis, kubeconfig: &str) -> Result<Client, ConnectError> {
    let invalid = |what: String| ConnectError(format!("invalid kubeconfig: {what}"));
    let config = Kubeconfig::from_yaml(kubeconfig).map_err(|error| invalid(error.to_string()))?;
    let current = config.current_context.ok_or_else(|| invalid("no current-context".into()))?;
    let context = config
        .contexts
        .iter()
        .find(|named| named.name == current)
        .and_then(|named| named.context.as_ref())
        .ok_or_else(|| invalid(format!("context {current:?} does not exist")))?;
    let server = config
        .clusters
        .iter()
        .find(|named| named.name == context.cluster)
        .and_then(|named| named.cluster.as_ref())
        .and_then(|cluster| cluster.server.as_deref())
        .ok_or_else(|| invalid(format!("cluster {:?} has no server", context.cluster)))?;
    let token = config
        .auth_infos
        .iter()
        .find(|named| Some(&named.name) == context.user.as_ref())
        .and_then(|named| named.auth_info.as_ref())
        .and_then(|auth| auth.token.as_ref())
        .map(|token| token.expose_secret().to_owned());
    apis.connect(server, token.as_deref())
}
