//! Real sockets in front of the in-memory network: each pod and Service listens on its own address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use clock::Clock;
use http::{Request, Response, StatusCode, Uri, header};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Resource;
use live::{Port, Reset};
use program::{Api, Change, DialError, Informer, Network, Selection, Tasks};
use testbed::World;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::status::{Forwarded, StatusPage};

/// The largest request body.
const BODY_MAX: usize = 64 << 20;
/// What is added to ports that only administrators may listen on.
const UNPRIVILEGED: u16 = 8000;

/// What should be open for one object.
struct Wanted {
    object: String,
    forwards: Vec<Forwarded>,
}

/// Opens the sockets of a cluster's pods and Services, and keeps them as the objects change, until `tasks` end.
pub(crate) fn open(world: &Arc<World>, cluster: &str, clock: Clock, tasks: &Tasks, status: Arc<StatusPage>) {
    // A control plane runs no pods and has no DNS.
    let Ok(network) = world.users(Some(cluster)) else { return };
    let Some(client) = world.client(cluster) else { return };
    let (changes, mut wanted) = mpsc::unbounded_channel::<Wanted>();
    let name: Arc<str> = cluster.into();
    let (sender, of) = (changes.clone(), Arc::clone(&name));
    let _pods = Informer::start(
        tasks,
        clock,
        Api::<Pod>::all(client.clone()),
        Selection::default(),
        move |change: Change<'_, Pod>| {
            let pod = change.object();
            let is_gone = matches!(change, Change::Deleted(_)) || !is_running(pod);
            let forwards = if is_gone { Vec::new() } else { of_pod(&of, pod) };
            let _ = sender.send(Wanted { object: format!("pod {}", key(pod.as_ref())), forwards });
        },
    );
    let of = Arc::clone(&name);
    let _services = Informer::start(
        tasks,
        clock,
        Api::<Service>::all(client),
        Selection::default(),
        move |change: Change<'_, Service>| {
            let service = change.object();
            let forwards = match change {
                Change::Deleted(_) => Vec::new(),
                Change::Applied { .. } => of_service(&of, service),
            };
            let _ = changes.send(Wanted { object: format!("service {}", key(service.as_ref())), forwards });
        },
    );
    tasks.spawn(async move {
        let mut open: BTreeMap<String, BTreeMap<SocketAddr, Port>> = BTreeMap::new();
        while let Some(Wanted { object, forwards }) = wanted.recv().await {
            let ports = open.entry(object.clone()).or_default();
            let addresses: BTreeSet<SocketAddr> = forwards.iter().filter_map(Forwarded::target).collect();
            ports.retain(|address, _| {
                let stays = addresses.contains(address);
                if !stays {
                    status.forget(*address);
                }
                stays
            });
            for mut forward in forwards {
                let Some(target) = forward.target() else { continue };
                if ports.contains_key(&target) {
                    continue;
                }
                match listen(target).await {
                    Ok(listener) => {
                        let answer = Arc::new(Bridge { network: Arc::clone(&network), target });
                        if let Ok(port) = Port::open(listener, BODY_MAX, answer) {
                            forward.address = port.address().to_string();
                            ports.insert(target, port);
                            status.forward(&forward);
                        }
                    }
                    Err(error) => {
                        status.problem(format!("{object} in {name}: cannot listen on {target}: {error}"))
                    }
                }
            }
            if ports.is_empty() {
                open.remove(&object);
            }
        }
    });
}

async fn listen(target: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(target).await {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let above = SocketAddr::new(target.ip(), target.port().saturating_add(UNPRIVILEGED));
            TcpListener::bind(above).await
        }
        other => other,
    }
}

/// Connects to a pod's port, as a socket in front of it listens.
pub(crate) async fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    match TcpStream::connect(target).await {
        Err(error) if target.port() < 1024 => {
            let above = SocketAddr::new(target.ip(), target.port() + UNPRIVILEGED);
            TcpStream::connect(above).await.map_err(|_| error)
        }
        other => other,
    }
}

fn key<K: Resource>(object: &K) -> String {
    let metadata = object.meta();
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn of_pod(cluster: &str, pod: &Pod) -> Vec<Forwarded> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let ports = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    ports
        .filter_map(|port| {
            Some(forwarded(cluster, &key(pod), "Pod", &ip, u16::try_from(port.container_port).ok()?))
        })
        .collect()
}

fn of_service(cluster: &str, service: &Service) -> Vec<Forwarded> {
    let Some(spec) = &service.spec else { return Vec::new() };
    // The API server's is not HTTP, and its address is in the kubeconfig.
    if key(service) == "default/kubernetes" {
        return Vec::new();
    }
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let addresses = spec.cluster_ip.iter().cloned().chain(ingress.filter_map(|ingress| ingress.ip.clone()));
    let ports = spec.ports.as_deref().unwrap_or_default();
    addresses
        .flat_map(|ip| {
            ports
                .iter()
                .filter_map(|port| {
                    Some(forwarded(cluster, &key(service), "Service", &ip, u16::try_from(port.port).ok()?))
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

fn forwarded(cluster: &str, name: &str, kind: &str, ip: &str, port: u16) -> Forwarded {
    Forwarded {
        cluster: cluster.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        ip: ip.to_owned(),
        port,
        address: String::new(),
    }
}

/// Passes requests from a socket into the in-memory network.
struct Bridge {
    network: Arc<dyn Network>,
    target: SocketAddr,
}

impl live::Answer for Bridge {
    fn answer(
        &self,
        request: Request<Bytes>,
        _from: SocketAddr,
    ) -> futures::future::BoxFuture<'static, Result<Response<Bytes>, Reset>> {
        let (network, target) = (Arc::clone(&self.network), self.target);
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
            let uri: Result<Uri, _> = format!("http://{target}{path}").parse();
            let Ok(uri) = uri else { return Err(Reset) };
            if !head.headers.contains_key(header::HOST)
                && let Some(host) = head.uri.authority()
                && let Ok(host) = host.as_str().parse()
            {
                head.headers.insert(header::HOST, host);
            }
            head.uri = uri;
            head.version = http::Version::HTTP_11;
            match network.send(Request::from_parts(head, body).into()).await {
                Ok(answer) => {
                    let mut answer = answer.into_http();
                    // The socket's server frames the body itself.
                    answer.headers_mut().remove(header::TRANSFER_ENCODING);
                    answer.headers_mut().remove(header::CONNECTION);
                    Ok(answer)
                }
                Err(DialError::Invalid(why)) => {
                    let mut answer = Response::new(Bytes::from(format!("{why}\n")));
                    *answer.status_mut() = StatusCode::BAD_REQUEST;
                    Ok(answer)
                }
                Err(_) => Err(Reset),
            }
        })
    }
}
