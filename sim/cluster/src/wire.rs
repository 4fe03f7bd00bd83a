//! The network between all pods of a run: one flat address space over every cluster, as an in-memory function call.
//!
//! Each cluster has its own range of pod addresses, its own DNS ([`crate::dns`]) and its own kube-proxy
//! ([`crate::kube_proxy`]); pod addresses are reachable from everywhere unless the network between two clusters is
//! cut. It knows nothing of meshes: a pod's traffic goes through whatever [`Proxy`] its pod set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clock::{Clock, Rng, Seed};
use futures::future::BoxFuture;
use program::{DialError, Handler, ListenError, Listening, Network, Peer, Proxy, Request, Response, settle};
use rand::RngExt as _;
use tokio::sync::Notify;

use crate::dns;
use crate::kube_proxy::{Services, Table};

/// One way and back between pods of one cluster.
const LATENCY_INSIDE: Duration = Duration::from_micros(200);
/// One way and back between clusters, and to and from the outside.
const LATENCY_ACROSS: Duration = Duration::from_micros(600);
/// How long a connection attempt to nowhere takes to fail.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// The second octet of the first cluster's pod addresses.
const FIRST_POD_NET: u8 = 16;

/// The network of a run. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Wire(Arc<Shared>);

struct Shared {
    clock: Clock,
    seed: Seed,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clusters: Vec<Arc<ClusterNet>>,
    pods: BTreeMap<IpAddr, Arc<PodEnd>>,
    /// Load balancer addresses by their cluster.
    load_balancers: BTreeMap<IpAddr, usize>,
    hosts: BTreeMap<String, IpAddr>,
    cuts: BTreeSet<(String, String)>,
    outside: u8,
}

/// One cluster's part of the network.
pub(crate) struct ClusterNet {
    pub name: Arc<str>,
    index: usize,
    next_pod: Mutex<u32>,
    pub services: Services,
}

/// A pod's end of the network.
pub(crate) struct PodEnd {
    pub cluster: Arc<str>,
    pub ip: IpAddr,
    listeners: Mutex<BTreeMap<u16, Arc<dyn Handler>>>,
    proxy: Mutex<Option<Arc<dyn Proxy>>>,
    alive: AtomicBool,
    closed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl Wire {
    /// A network without clusters.
    pub fn new(clock: Clock, seed: Seed) -> Self {
        Wire(Arc::new(Shared { clock, seed, state: Mutex::default() }))
    }

    /// Adds a cluster, or finds it again.
    pub(crate) fn join(&self, cluster: &str) -> Arc<ClusterNet> {
        let mut state = self.state();
        if let Some(found) = state.clusters.iter().find(|net| &*net.name == cluster) {
            return Arc::clone(found);
        }
        let index = state.clusters.len();
        let net = Arc::new(ClusterNet {
            name: cluster.into(),
            index,
            next_pod: Mutex::new(1),
            services: Services::default(),
        });
        state.clusters.push(Arc::clone(&net));
        net
    }

    /// Adds a pod; its address is fresh.
    pub(crate) fn add_pod(&self, net: &Arc<ClusterNet>, namespace: &str, seed: Seed) -> PodNetwork {
        let number = {
            let mut next = lock(&net.next_pod);
            *next += 1;
            *next
        };
        let [_, _, third, fourth] = number.to_be_bytes();
        let second = FIRST_POD_NET.wrapping_add(net.index as u8);
        let end =
            Arc::new(PodEnd::new(net.name.clone(), IpAddr::V4(Ipv4Addr::new(10, second, third, fourth))));
        self.state().pods.insert(end.ip, Arc::clone(&end));
        PodNetwork(Arc::new(Link {
            wire: self.clone(),
            net: Some(Arc::clone(net)),
            namespace: namespace.to_owned(),
            end,
            draws: Mutex::new(seed.stream("kube-proxy")),
        }))
    }

    /// A client outside all clusters: it reaches load balancers and names set by [`Wire::set_host`], and with
    /// `dns_of` a cluster's Services by their names, as a port-forward or a VPN would let it.
    pub fn outside(&self, name: &str, dns_of: Option<&str>) -> Arc<dyn Network> {
        let number = {
            let mut state = self.state();
            state.outside = state.outside.wrapping_add(1);
            state.outside
        };
        let net = dns_of.map(|cluster| self.join(cluster));
        let end = Arc::new(PodEnd::new("outside".into(), IpAddr::V4(Ipv4Addr::new(203, 0, 113, number))));
        Arc::new(PodNetwork(Arc::new(Link {
            wire: self.clone(),
            net,
            namespace: "default".to_owned(),
            end,
            draws: Mutex::new(self.0.seed.child("outside").stream(name)),
        })))
    }

    /// A fresh address for a `LoadBalancer` Service of `cluster`.
    pub(crate) fn load_balancer_ip(&self, net: &ClusterNet) -> IpAddr {
        let mut state = self.state();
        let number = state.load_balancers.len() as u8 + 1;
        let ip = IpAddr::V4(Ipv4Addr::new(198, 51, 100, number));
        state.load_balancers.insert(ip, net.index);
        ip
    }

    /// Makes `host` resolve to `ip` for everybody, as public DNS would.
    pub fn set_host(&self, host: &str, ip: IpAddr) {
        self.state().hosts.insert(host.to_owned(), ip);
    }

    /// Cuts the network between two clusters (`outside` stands for everything outside), both ways.
    pub fn cut(&self, one: &str, other: &str) {
        self.state().cuts.insert(pair(one, other));
    }

    /// Mends a cut.
    pub fn heal(&self, one: &str, other: &str) {
        self.state().cuts.remove(&pair(one, other));
    }

    fn is_cut(&self, one: &str, other: &str) -> bool {
        let state = self.state();
        !state.cuts.is_empty() && one != other && state.cuts.contains(&pair(one, other))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

fn pair(one: &str, other: &str) -> (String, String) {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}

impl PodEnd {
    fn new(cluster: Arc<str>, ip: IpAddr) -> Self {
        PodEnd {
            cluster,
            ip,
            listeners: Mutex::default(),
            proxy: Mutex::default(),
            alive: AtomicBool::new(true),
            closed: Notify::new(),
        }
    }

    pub(crate) fn listener(&self, port: u16) -> Option<Arc<dyn Handler>> {
        lock(&self.listeners).get(&port).cloned()
    }

    /// Hands a request to whatever listens, past the pod's proxy.
    pub(crate) async fn serve(&self, port: u16, request: Request) -> Result<Response, DialError> {
        let handler = self.listener(port).ok_or_else(|| refused(self.ip, port))?;
        self.unless_closed(handler.handle(request)).await
    }

    /// Delivers a request from the network.
    async fn deliver(&self, port: u16, request: Request) -> Result<Response, DialError> {
        if !self.alive.load(Ordering::Relaxed) {
            return Err(refused(self.ip, port));
        }
        let handler = self.listener(port).ok_or_else(|| refused(self.ip, port))?;
        let proxy = lock(&self.proxy).clone();
        match proxy {
            Some(proxy) => self.unless_closed(proxy.inbound(request, port, handler)).await,
            None => self.unless_closed(handler.handle(request)).await,
        }
    }

    async fn unless_closed(
        &self,
        answer: BoxFuture<'_, Result<Response, DialError>>,
    ) -> Result<Response, DialError> {
        let closed = self.closed.notified();
        tokio::select! { biased;
            answer = answer => answer,
            () = closed => Err(DialError::Reset(self.ip.to_string())),
        }
    }
}

fn refused(ip: IpAddr, port: u16) -> DialError {
    DialError::Refused(SocketAddr::new(ip, port).to_string())
}

/// One pod's network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PodNetwork(Arc<Link>);

struct Link {
    wire: Wire,
    /// The cluster whose DNS and kube-proxy serve this pod.
    net: Option<Arc<ClusterNet>>,
    namespace: String,
    end: Arc<PodEnd>,
    draws: Mutex<Rng>,
}

impl PodNetwork {
    pub(crate) fn end(&self) -> &Arc<PodEnd> {
        &self.0.end
    }

    /// Takes the pod off the network; requests that it has not answered fail.
    pub(crate) fn close(&self) {
        let end = &self.0.end;
        end.alive.store(false, Ordering::Relaxed);
        lock(&end.listeners).clear();
        *lock(&end.proxy) = None;
        self.0.wire.state().pods.remove(&end.ip);
        end.closed.notify_waiters();
    }
}

impl Link {
    fn table(&self) -> Option<Arc<Table>> {
        self.net.as_ref().map(|net| net.services.table())
    }

    fn resolve(&self, host: &str) -> Result<IpAddr, DialError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse() {
            return Ok(ip);
        }
        if host == "localhost" {
            return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let table = self.table();
        let pick = |count: usize| lock(&self.draws).random_range(0..count);
        if let Some(found) = table.and_then(|table| dns::lookup(&table, &self.namespace, host, pick)) {
            return found.map_or_else(|alias| self.public(&alias), Ok);
        }
        self.public(host)
    }

    fn public(&self, host: &str) -> Result<IpAddr, DialError> {
        let found = self.wire.state().hosts.get(host.trim_end_matches('.')).copied();
        found.ok_or_else(|| DialError::NoSuchHost(host.to_owned()))
    }

    /// The pod behind an address: the address itself, or an endpoint of the Service that has it.
    fn target(&self, to: SocketAddr) -> Option<Result<(Arc<PodEnd>, u16), DialError>> {
        let pod = |address: SocketAddr| self.wire.state().pods.get(&address.ip()).cloned();
        if let Some(end) = pod(to) {
            return Some(Ok((end, to.port())));
        }
        let balanced = self.wire.state().load_balancers.get(&to.ip()).copied();
        let table = match balanced {
            Some(index) => {
                let net = self.wire.state().clusters.get(index).cloned();
                net.map(|net| net.services.table())
            }
            None => self.table(),
        }?;
        let endpoints = table.endpoints(to)?;
        let refuse = || DialError::Refused(to.to_string());
        if endpoints.is_empty() {
            return Some(Err(refuse()));
        }
        let index = if endpoints.len() == 1 { 0 } else { lock(&self.draws).random_range(0..endpoints.len()) };
        let chosen = endpoints[index];
        Some(pod(chosen).map(|end| (end, chosen.port())).ok_or_else(refuse))
    }

    async fn dial(&self, to: SocketAddr, mut request: Request) -> Result<Response, DialError> {
        let clock = self.wire.0.clock;
        if to.ip().is_loopback() || to.ip() == self.end.ip {
            let started = clock.elapsed();
            let mut response = self.end.serve(to.port(), request).await?;
            settle(&clock, started, Duration::ZERO, &mut response).await;
            return Ok(response);
        }
        let (end, port) = match self.target(to) {
            Some(found) => found?,
            // An address of a pod that is gone, or of nothing at all.
            None if to.ip().to_string().starts_with("10.") => return Err(DialError::Refused(to.to_string())),
            None => {
                clock.sleep(DIAL_TIMEOUT).await;
                return Err(DialError::Unreachable(to.to_string()));
            }
        };
        if self.wire.is_cut(&self.end.cluster, &end.cluster) {
            clock.sleep(DIAL_TIMEOUT).await;
            return Err(DialError::Unreachable(to.to_string()));
        }
        let started = clock.elapsed();
        request.extensions_mut().insert(Peer { cluster: Arc::clone(&self.end.cluster), ip: self.end.ip });
        let mut response = end.deliver(port, request).await?;
        let latency = if self.end.cluster == end.cluster { LATENCY_INSIDE } else { LATENCY_ACROSS };
        settle(&clock, started, latency, &mut response).await;
        Ok(response)
    }
}

impl Network for PodNetwork {
    fn local_ip(&self) -> IpAddr {
        self.0.end.ip
    }

    fn resolve(&self, host: &str) -> Result<IpAddr, DialError> {
        self.0.resolve(host)
    }

    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, DialError>> {
        Box::pin(async move {
            let Some(host) = request.uri().host() else {
                return Err(DialError::Invalid(format!("{}: no Host in request URL", request.uri())));
            };
            let is_local = host == "localhost" || host.starts_with("127.");
            let proxy = if is_local { None } else { lock(&self.0.end.proxy).clone() };
            if let Some(proxy) = proxy {
                return proxy.outbound(request).await;
            }
            let port = request.uri().port_u16().unwrap_or(80);
            let ip = self.0.resolve(host)?;
            self.0.dial(SocketAddr::new(ip, port), request).await
        })
    }

    fn dial(&self, to: SocketAddr, request: Request) -> BoxFuture<'_, Result<Response, DialError>> {
        Box::pin(self.0.dial(to, request))
    }

    fn listen(&self, port: u16, handler: Arc<dyn Handler>) -> Result<Listening, ListenError> {
        let mut listeners = lock(&self.0.end.listeners);
        if listeners.contains_key(&port) {
            return Err(ListenError { port });
        }
        listeners.insert(port, handler);
        Ok(Listening::new(port, Box::new(ClosePort { end: Arc::clone(&self.0.end), port })))
    }

    fn capture(&self, proxy: Arc<dyn Proxy>) {
        *lock(&self.0.end.proxy) = Some(proxy);
    }
}

struct ClosePort {
    end: Arc<PodEnd>,
    port: u16,
}

impl Drop for ClosePort {
    fn drop(&mut self) {
        lock(&self.end.listeners).remove(&self.port);
    }
}
