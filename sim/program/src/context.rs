//! The context of one container, and the type of a program's entry point.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use clock::{Clock, Seed};
use futures::future::BoxFuture;

use crate::{Apis, CpuMeter, ExecTable, ExitCode, Files, LogSink, Network, Tasks, Termination};

/// A program's entry point: called once per start of a container, ends with the container's exit code. A program
/// that serves for ever ends only on [`Context::termination`].
pub type Main = Arc<dyn Fn(Context) -> BoxFuture<'static, ExitCode> + Send + Sync>;

/// Wraps an async function as a [`Main`].
pub fn program<F, Fut>(main: F) -> Main
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ExitCode> + Send + 'static,
{
    Arc::new(move |context| Box::pin(main(context)))
}

/// Who a container is: what the downward API would tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The cluster's name, e.g. `mesh02`.
    pub cluster: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's address in its cluster.
    pub pod_ip: IpAddr,
    /// The node that the pod runs on.
    pub node: String,
    /// The pod's labels at the container's start.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations at the container's start.
    pub annotations: BTreeMap<String, String>,
    /// The pod's service account.
    pub service_account: String,
    /// The workload that owns the pod (a Deployment's name for its ReplicaSets' pods), else the pod's name.
    pub workload: String,
    /// The container's name.
    pub container: String,
    /// The container's image reference as the manifest gives it.
    pub image: String,
    /// Ports declared by the container (`containerPort`, name).
    pub ports: Vec<(u16, Option<String>)>,
    /// How often this container has been restarted before.
    pub restart_count: u32,
}

/// Everything a program may use. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Who the container is.
    pub identity: Arc<Identity>,
    /// `command` and `args` of the container, without the executable: what the program would find in `argv[1..]`.
    pub args: Arc<[String]>,
    /// The container's environment, references resolved.
    pub env: Arc<BTreeMap<String, String>>,
    /// The container's mounted files; ConfigMap and Secret volumes follow their objects.
    pub files: Files,
    /// API servers that the container may talk to.
    pub apis: Arc<dyn Apis>,
    /// The pod's network: shared by all containers of the pod.
    pub network: Arc<dyn Network>,
    /// The run's clock.
    pub clock: Clock,
    /// The container's own seed: narrow it per purpose.
    pub seed: Seed,
    /// The container's log.
    pub log: LogSink,
    /// CPU that the container uses, read by the kubelet.
    pub cpu: CpuMeter,
    /// Tasks that end with the container: spawn through here, never through the runtime.
    pub tasks: Tasks,
    /// The container's SIGTERM.
    pub termination: Termination,
    /// Where the program answers `exec` (probes of kind exec, `kubectl exec`).
    pub exec: ExecTable,
}
