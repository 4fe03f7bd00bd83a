//! API servers as pods reach them: by URL, over the network that may be cut, as their service account.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apiserver::{ApiServer, Body, Broken, ClientService};
use clock::Clock;
use cluster::Wire;
use futures::future::BoxFuture;
use kube::Client;
use program::{Apis, ConnectError, Identity};
use tower::Service;

/// How long a connection attempt through a cut network takes to fail.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// The URL of a pod's own API server.
const IN_CLUSTER: &str = "https://kubernetes.default.svc";

/// The URL of a cluster's API server, as kubeconfigs and Argo CD's cluster Secrets name it.
pub fn server_url(cluster: &str) -> String {
    format!("https://{cluster}.coalmine.test:6443")
}

/// All API servers of a run.
#[derive(Clone)]
pub(super) struct Servers {
    pub servers: Arc<[(String, ApiServer)]>,
    pub wire: Wire,
    pub clock: Clock,
}

impl Servers {
    pub(super) fn get(&self, cluster: &str) -> Option<&ApiServer> {
        self.servers.iter().find(|(name, _)| name == cluster).map(|(_, server)| server)
    }

    /// A client of a cluster's API that acts as `user`, from anywhere.
    pub(super) fn client(&self, cluster: &str, user: &str) -> Option<Client> {
        self.get(cluster).map(|server| Client::new(server.client_service(user), "default"))
    }

    /// What the containers of one cluster get.
    pub(super) fn access(&self) -> cluster::ApiAccess {
        let servers = self.clone();
        Arc::new(move |identity: &Identity| {
            let (namespace, account) = (&identity.namespace, &identity.service_account);
            let user = format!("system:serviceaccount:{namespace}:{account}");
            let cluster = identity.cluster.clone();
            Arc::new(PodApis { servers: servers.clone(), cluster, namespace: namespace.clone(), user })
        })
    }
}

struct PodApis {
    servers: Servers,
    cluster: String,
    namespace: String,
    user: String,
}

impl PodApis {
    fn client(&self, cluster: &str) -> Option<Client> {
        let inner = self.servers.get(cluster)?.client_service(&self.user);
        if cluster == self.cluster {
            return Some(Client::new(inner, self.namespace.clone()));
        }
        let far = Far {
            inner,
            wire: self.servers.wire.clone(),
            clock: self.servers.clock,
            from: self.cluster.as_str().into(),
            to: cluster.into(),
        };
        Some(Client::new(far, "default"))
    }
}

impl Apis for PodApis {
    fn in_cluster(&self) -> Client {
        self.client(&self.cluster).expect("a pod's cluster has an API server: the pod came from it")
    }

    fn connect(&self, server: &str, _token: Option<&str>) -> Result<Client, ConnectError> {
        if server.trim_end_matches('/') == IN_CLUSTER {
            return Ok(self.in_cluster());
        }
        let names = self.servers.servers.iter().map(|(name, _)| name);
        let found = names.clone().find(|name| server_url(name) == server.trim_end_matches('/'));
        found.and_then(|name| self.client(name)).ok_or_else(|| {
            let known: Vec<String> = names.map(|name| server_url(name)).collect();
            let host = server.split("://").last().unwrap_or_default().split(':').next().unwrap_or_default();
            let known = known.join(", ");
            ConnectError(format!(
                "Get \"{server}\": dial tcp: lookup {host}: no such host (the API servers are {known})"
            ))
        })
    }
}

/// Another cluster's API server, behind a network that may be cut.
#[derive(Clone)]
struct Far {
    inner: ClientService,
    wire: Wire,
    clock: Clock,
    from: Arc<str>,
    to: Arc<str>,
}

impl<B> Service<http::Request<B>> for Far
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: std::fmt::Debug,
{
    type Response = http::Response<Body>;
    type Error = Broken;
    type Future = BoxFuture<'static, Result<Self::Response, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if self.wire.is_cut(&self.from, &self.to) {
            let clock = self.clock;
            return Box::pin(async move {
                clock.sleep(DIAL_TIMEOUT).await;
                Err(Broken)
            });
        }
        self.inner.call(request)
    }
}
