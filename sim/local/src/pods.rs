//! Where `kubectl exec` and `port-forward` end: in the world's containers and on their ports.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use live::{Executed, Pods};
use testbed::World;
use tokio::net::TcpStream;

/// The pods of one cluster.
pub(crate) struct WorldPods {
    world: Arc<World>,
    cluster: String,
}

impl WorldPods {
    pub(crate) fn new(world: Arc<World>, cluster: &str) -> Self {
        WorldPods { world, cluster: cluster.to_owned() }
    }
}

impl Pods for WorldPods {
    fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        command: Vec<String>,
    ) -> BoxFuture<'static, Result<Executed, String>> {
        let (world, cluster) = (Arc::clone(&self.world), self.cluster.clone());
        let (namespace, pod, container) =
            (namespace.to_owned(), pod.to_owned(), container.map(str::to_owned));
        Box::pin(async move {
            let done = world.exec(&cluster, &namespace, &pod, container.as_deref(), command).await?;
            Ok(Executed { stdout: done.output, stderr: String::new(), code: done.code.0 })
        })
    }
    fn connect(&self, namespace: &str, pod: &str, port: u16) -> BoxFuture<'static, io::Result<TcpStream>> {
        let (world, cluster) = (Arc::clone(&self.world), self.cluster.clone());
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        Box::pin(async move {
            let client = world.client(&cluster).ok_or_else(|| io::Error::other("the cluster is gone"))?;
            let api: Api<Pod> = Api::namespaced(client, &namespace);
            let found = api.get(&pod).await.map_err(io::Error::other)?;
            let ip = found.status.as_ref().and_then(|status| status.pod_ip.clone());
            let ip: IpAddr = ip
                .and_then(|ip| ip.parse().ok())
                .ok_or_else(|| io::Error::other("the pod is not running"))?;
            crate::sockets::connect(SocketAddr::new(ip, port)).await
        })
    }
}
use program::Api;
