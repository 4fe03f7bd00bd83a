//! One run's system: clusters, mesh, programs, network and git repositories.

use std::path::Path;
use std::sync::Arc;

use apiserver::{ApiServer, Options};
use clock::{Clock, Seed};
use program::Network;

use crate::timeline::Timeline;

/// What a world is made of.
#[derive(Clone, Debug, Default)]
pub struct WorldSpec {
    /// The clusters, in order.
    pub clusters: Vec<ClusterSpec>,
    /// The mesh, if there is one.
    pub mesh: Option<MeshSpec>,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// Its name.
    pub name: String,
    /// How many nodes it has.
    pub nodes: u32,
    /// What it is for.
    pub role: Role,
}

/// What a cluster is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It runs workloads.
    Data,
    /// It holds a mesh's configuration.
    ControlPlane,
}

/// A service mesh.
#[derive(Clone, Debug)]
pub struct MeshSpec {
    /// The cluster with the configuration.
    pub control_plane: String,
    /// The clusters of the mesh.
    pub data: Vec<String>,
    /// The unit of the duration histogram.
    pub telemetry: Telemetry,
    /// The proxies' version.
    pub proxy: Option<String>,
}

/// Units of the request duration histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telemetry {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// The name under which [`World::client`] asks the API servers.
pub const RUNNER: &str = "coalmine";

/// One run's system.
pub struct World {
    servers: Vec<(String, ApiServer)>,
    remotes: gitops::git::Remotes,
    timeline: Timeline,
}

impl World {
    /// Starts everything.
    ///
    /// # Errors
    /// A sentence that names what is wrong with the specification.
    pub async fn start(
        spec: &WorldSpec,
        clock: Clock,
        seed: Seed,
        workspace: &Path,
    ) -> Result<World, String> {
        let _ = workspace;
        let server = |(index, cluster): (usize, &ClusterSpec)| {
            let second = u8::try_from(96 + index).unwrap_or(u8::MAX);
            let server = ApiServer::new(Options {
                name: cluster.name.clone(),
                clock,
                seed: seed.child(&cluster.name).child("api"),
                service_cidr: [10, second],
            });
            (cluster.name.clone(), server)
        };
        let servers = spec.clusters.iter().enumerate().map(server).collect();
        Ok(World { servers, remotes: gitops::git::Remotes::default(), timeline: Timeline::default() })
    }

    /// A client of a cluster's API.
    pub fn client(&self, cluster: &str) -> Option<kube::Client> {
        let server = self.api(cluster)?;
        Some(kube::Client::new(server.client_service(RUNNER), "default"))
    }

    /// The clusters' names, in order.
    pub fn clusters(&self) -> Vec<String> {
        self.servers.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Git repositories by URL.
    pub fn remotes(&self) -> &gitops::git::Remotes {
        &self.remotes
    }

    /// Everything that was logged.
    pub fn logs(&self) -> &Timeline {
        &self.timeline
    }

    /// A client outside the clusters, with the DNS of a cluster if one is given.
    ///
    /// # Errors
    /// A sentence if there is no such cluster.
    pub fn users(&self, cluster_hint: Option<&str>) -> Result<Arc<dyn Network>, String> {
        Err(format!("no network for {cluster_hint:?}"))
    }

    /// A client pod.
    ///
    /// # Errors
    /// A sentence if it cannot be made.
    pub async fn client_pod(
        &self,
        cluster: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<dyn Network>, String> {
        Err(format!("no pod {namespace}/{name} in {cluster}"))
    }

    /// Changes how an image behaves from now on.
    ///
    /// # Errors
    /// A sentence if the image's program takes no behaviour.
    pub fn set_behaviour(&self, image: &str, behaviour: &crate::scenario::Behaviour) -> Result<(), String> {
        Err(format!("the behaviour of {image} cannot be set: {behaviour}"))
    }

    /// A cluster's API server.
    pub fn api(&self, cluster: &str) -> Option<ApiServer> {
        self.servers.iter().find(|(name, _)| name == cluster).map(|(_, server)| server.clone())
    }

    /// Cuts the network between two clusters.
    pub fn cut(&self, one: &str, other: &str) {
        let _ = (one, other);
    }

    /// Mends a cut.
    pub fn heal(&self, one: &str, other: &str) {
        let _ = (one, other);
    }

    /// Kills a container of a pod, the first unless one is named.
    ///
    /// # Errors
    /// A sentence if there is no such container.
    pub fn crash(
        &self,
        cluster: &str,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
    ) -> Result<(), String> {
        Err(format!("no container {container:?} of {namespace}/{pod} in {cluster}"))
    }
}
