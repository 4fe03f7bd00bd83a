//! A DNS server per cluster, on loopback: the cluster's names as a pod of namespace `default` sees them, and the hosts
//! of the ingress gateways.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use program::{Api, Tasks};
use serde_json::Value;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use testbed::World;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// The port, and the one for those who may not listen there.
const PORTS: [u16; 2] = [53, 8053];
/// The last octet of the first cluster's server.
const FIRST: u8 = 10;
/// The zone whose names nobody else knows.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// How long answers may be kept, in seconds, as CoreDNS says for Services.
const TTL: u32 = 5;
/// The largest answer over UDP for clients that do not name a size.
const UDP_MAX: usize = 512;

/// Opens the servers of a testbed's clusters, which run until `tasks` end; returns where they listen, or why not.
pub(crate) async fn serve(
    world: &Arc<World>,
    place: u8,
    tasks: &Tasks,
) -> BTreeMap<String, Result<SocketAddr, String>> {
    let mut servers = BTreeMap::new();
    for (index, cluster) in (0..).zip(world.clusters()) {
        if !world.runs_pods(&cluster) {
            continue;
        }
        let ip = Ipv4Addr::new(127, 254, place, FIRST.saturating_add(index));
        let opened = listen(ip.into()).await;
        let address = match opened {
            Err(error) => Err(format!("cluster {cluster}: no port for its DNS server on {ip}: {error}")),
            Ok((udp, tcp, address)) => {
                let names = Arc::new(Names { world: Arc::clone(world), cluster: cluster.clone() });
                tasks.spawn(over_udp(Arc::clone(&names), udp));
                tasks.spawn(over_tcp(names, tcp, tasks.clone()));
                Ok(address)
            }
        };
        servers.insert(cluster, address);
    }
    servers
}

async fn listen(ip: IpAddr) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for port in PORTS {
        let address = SocketAddr::new(ip, port);
        match (UdpSocket::bind(address).await, TcpListener::bind(address).await) {
            (Ok(udp), Ok(tcp)) => return Ok((udp, tcp, address)),
            (Err(error), _) | (_, Err(error)) => failed = error,
        }
    }
    Err(failed)
}

async fn over_udp(names: Arc<Names>, socket: UdpSocket) {
    let mut buffer = vec![0; 4096];
    loop {
        // An error is a client's that is gone.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = names.answer(&buffer[..length], Some(UDP_MAX)).await {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn over_tcp(names: Arc<Names>, listener: TcpListener, tasks: Tasks) {
    loop {
        if let Ok((socket, _)) = listener.accept().await {
            let names = Arc::clone(&names);
            tasks.spawn(async move {
                let _ = converse(&names, socket).await;
            });
        }
    }
}

/// Messages with their length in front.
async fn converse(names: &Names, mut socket: TcpStream) -> io::Result<()> {
    loop {
        let mut query = vec![0; usize::from(socket.read_u16().await?)];
        socket.read_exact(&mut query).await?;
        let Some(answer) = names.answer(&query, None).await else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        socket.write_u16(length).await?;
        socket.write_all(&answer).await?;
    }
}

/// The names of one cluster.
struct Names {
    world: Arc<World>,
    cluster: String,
}

impl Names {
    /// The answer to a query; none to what is no query. Without `max` it may have any length.
    async fn answer(&self, query: &[u8], max: Option<usize>) -> Option<Vec<u8>> {
        let Ok(query) = Packet::parse(query) else {
            let id = u16::from_be_bytes([*query.first()?, *query.get(1)?]);
            let mut answer = Packet::new_reply(id);
            *answer.rcode_mut() = RCODE::FormatError;
            return answer.build_bytes_vec().ok();
        };
        if query.has_flags(PacketFlag::RESPONSE) {
            return None;
        }
        let max = max.map(|max| query.opt().map_or(max, |opt| usize::from(opt.udp_packet_size).max(max)));
        let wants_recursion = query.has_flags(PacketFlag::RECURSION_DESIRED);
        let mut answer = query.into_reply();
        if wants_recursion {
            answer.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        answer.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        for question in answer.questions.clone() {
            let name = question.qname.to_string().to_ascii_lowercase();
            let found = self.addresses(&name).await;
            if found.is_empty() {
                // Other servers may know other names.
                let is_ours = name == CLUSTER_DOMAIN || name.ends_with(&format!(".{CLUSTER_DOMAIN}"));
                *answer.rcode_mut() = if is_ours { RCODE::NameError } else { RCODE::Refused };
                continue;
            }
            // All addresses are IPv4: there is nothing to tell of other types.
            if !matches!(question.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY) {
                continue;
            }
            for ip in found {
                if let IpAddr::V4(ip) = ip {
                    let data = RData::A(A::from(ip));
                    answer.answers.push(ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data));
                }
            }
        }
        let bytes = answer.build_bytes_vec_compressed().ok()?;
        if max.is_none_or(|max| bytes.len() <= max) {
            return Some(bytes);
        }
        // The client asks again over TCP.
        answer.answers.clear();
        answer.set_flags(PacketFlag::TRUNCATION);
        answer.build_bytes_vec().ok()
    }

    async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let found = self.world.addresses(&self.cluster, name);
        if found.is_empty() { published(&self.world, name).await } else { found }
    }
}

/// The load balancers of the gateways that a VirtualService with this host is bound to.
async fn published(world: &World, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for cluster in world.clusters() {
        for service in objects(world, &cluster, "networking.istio.io", "v1beta1", "VirtualService").await {
            let spec = &service.data["spec"];
            if !texts(&spec["hosts"]).any(|host| covers(host, name)) {
                continue;
            }
            for gateway in texts(&spec["gateways"]).filter(|gateway| *gateway != "mesh") {
                let own = service.metadata.namespace.as_deref().unwrap_or_default();
                // `NAMESPACE/NAME`, `NAME`, or as it once was written, `NAME.NAMESPACE.svc.cluster.local`.
                let (namespace, gateway) = match (gateway.split_once('/'), gateway.split_once('.')) {
                    (Some(parts), _) => parts,
                    (None, Some((name, rest))) => (rest.split('.').next().unwrap_or(own), name),
                    (None, None) => (own, gateway),
                };
                found.extend(balancers_of(world, &cluster, namespace, gateway).await);
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The addresses of the load balancers, in any cluster, before the pods of a Gateway.
async fn balancers_of(world: &World, cluster: &str, namespace: &str, name: &str) -> Vec<IpAddr> {
    let gateways = objects(world, cluster, "networking.istio.io", "v1beta1", "Gateway").await;
    let is_meant = |found: &&Arc<DynamicObject>| {
        found.metadata.name.as_deref() == Some(name) && found.metadata.namespace.as_deref() == Some(namespace)
    };
    let Some(gateway) = gateways.iter().find(is_meant) else { return Vec::new() };
    let Some(labels) = gateway.data["spec"]["selector"].as_object() else { return Vec::new() };
    let mut found = Vec::new();
    for cluster in world.clusters() {
        for service in objects(world, &cluster, "", "v1", "Service").await {
            let selector = &service.data["spec"]["selector"];
            let ingress = service.data["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
            if labels.iter().all(|(label, value)| selector.get(label) == Some(value)) {
                found.extend(ingress.filter_map(|ingress| ingress["ip"].as_str()?.parse::<IpAddr>().ok()));
            }
        }
    }
    found
}

async fn objects(
    world: &World,
    cluster: &str,
    group: &str,
    version: &str,
    kind: &str,
) -> Vec<Arc<DynamicObject>> {
    let Some(client) = world.client(cluster) else { return Vec::new() };
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::all_with(client, &kind);
    // A cluster without the definition has no such objects.
    api.list(&ListParams::default()).await.unwrap_or_default()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Whether a host of a VirtualService covers a name; the host `*` publishes no name.
fn covers(host: &str, name: &str) -> bool {
    match host.strip_prefix('*') {
        Some(suffix) => !suffix.is_empty() && name.len() > suffix.len() && name.ends_with(suffix),
        None => host == name,
    }
}
