//! The network between all pods of a run: one flat address space over every cluster, as an in-memory function call.
//!
//! Each cluster has its own range of pod addresses, its own DNS ([`crate::dns`]) and its own kube-proxy
//! ([`crate::kube_proxy`]); pod addresses are reachable from everywhere unless the network between two clusters is
//! cut. It knows nothing of meshes: a pod's traffic goes through whatever [`Proxy`] its pod set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use clock::{Clock, Rng, Seed};
use program::{
    DialError, Endings, Handler, ListenError, Listening, Lost, Network, Proxy, Reply, Request, Response,
    Stage, Target, Termination,
};
use rand::RngExt as _;

use crate::dns;
use crate::kube_proxy::{Services, Table};

/// One way and back between pods of one cluster.
const LATENCY_INSIDE: Duration = Duration::from_micros(200);
/// One way and back between clusters, and to and from the outside.
const LATENCY_ACROSS: Duration = Duration::from_micros(500);
/// How long a connection attempt to nowhere takes to fail.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// The second octet of the first cluster's pod addresses.
const FIRST_POD_NET: u8 = 16;
/// How many clusters a network on loopback has addresses for.
const LOOPBACK_CLUSTERS: u8 = 16;
/// The second octet of load balancers' addresses on loopback.
const FIRST_BALANCER_NET: u8 = 198;
/// The second octet of the first cluster's node addresses.
const FIRST_NODE_NET: u8 = 18;

/// The network of a run. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Wire(Arc<Shared>);

struct Shared {
    clock: Clock,
    seed: Seed,
    /// The place among the testbeds of this machine, if pods have addresses that sockets can have.
    loopback: Option<u8>,
    endings: Endings,
    /// How many pods have come and gone.
    moves: AtomicU64,
    /// Whether some requests take longer than others between clusters, or do not get through.
    is_disturbed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clusters: Vec<Arc<ClusterNet>>,
    /// By address, as a number: there are many requests. All are IPv4.
    pods: BTreeMap<u32, Arc<PodEnd>>,
    hosts: BTreeMap<String, IpAddr>,
    cuts: BTreeSet<(String, String)>,
    delays: BTreeMap<(String, String), Duration>,
    /// Addresses handed out so far.
    balancers: u32,
    outsiders: u32,
}

/// One cluster's part of the network.
pub(crate) struct ClusterNet {
    pub name: Arc<str>,
    index: u8,
    next_pod: Mutex<u32>,
    pub services: Services,
}

impl ClusterNet {
    /// The address of a node, by its place in the cluster's list.
    pub(crate) fn node_ip(&self, node: usize) -> IpAddr {
        let [.., third, fourth] = (node as u32 + 2).to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(172, FIRST_NODE_NET.wrapping_add(self.index), third, fourth))
    }
}

/// A pod's end of the network.
pub(crate) struct PodEnd {
    pub cluster: Arc<str>,
    pub ip: IpAddr,
    clock: Clock,
    ports: Mutex<Ports>,
}

/// Who takes the requests to a pod, and those that it sends.
#[derive(Default)]
struct Ports {
    listeners: BTreeMap<u16, Arc<Listener>>,
    capture: Option<Capture>,
}

/// A process of a pod, as the network sees it: with it end its listeners, its proxying and the requests that it has not
/// answered.
#[derive(Default)]
struct Process {
    over: Termination,
}

impl Process {
    /// It ends: requests that it has not answered fail.
    fn end(&self, endings: &Endings) {
        self.over.request();
        endings.announce();
    }

    /// An answer that this process gives at an address; it may end first.
    fn answers(self: &Arc<Self>, clock: Clock, at: SocketAddr, started: Duration, reply: Reply) -> Reply {
        match reply {
            Reply::Now(result) => Reply::Now(result.map(|result| self.sends(&clock, at, started, result))),
            Reply::Later(answer) => {
                let process = Arc::clone(self);
                Reply::later(async move {
                    let result = tokio::select! { biased;
                        answer = answer => answer,
                        () = process.over.requested() => Err(DialError::Reset(at.to_string())),
                    };
                    process.sends(&clock, at, started, result)
                })
            }
        }
    }

    /// A handler that says nothing of its latency took the time that has passed.
    fn sends(
        &self,
        clock: &Clock,
        at: SocketAddr,
        started: Duration,
        result: Result<Response, DialError>,
    ) -> Result<Response, DialError> {
        let mut response = result?;
        response.pass(clock, started, Duration::ZERO);
        response.guard(&self.over, at);
        Ok(response)
    }
}

/// A port that a process listens on. As a handler it is the process behind the port, with its death.
struct Listener {
    handler: Arc<dyn Handler>,
    process: Arc<Process>,
    clock: Clock,
    at: SocketAddr,
}

impl Handler for Listener {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        let started = self.clock.elapsed();
        let reply = Arc::clone(&self.handler).handle(request);
        self.process.answers(self.clock, self.at, started, reply)
    }
}

/// The proxy that a pod's traffic goes through, and the process that it is part of.
#[derive(Clone)]
struct Capture {
    proxy: Arc<dyn Proxy>,
    process: Arc<Process>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl Wire {
    /// A network without clusters.
    pub fn new(clock: Clock, seed: Seed) -> Self {
        Wire::with_addresses(clock, seed, None)
    }

    /// A network without clusters whose pods and load balancers have addresses in 127.0.0.0/8, so that sockets of this
    /// machine can stand in front of them. Networks in different places (0 to 4) have different addresses, for up to
    /// 16 clusters each.
    pub fn on_loopback(clock: Clock, seed: Seed, place: u8) -> Self {
        Wire::with_addresses(clock, seed, Some(place))
    }

    fn with_addresses(clock: Clock, seed: Seed, loopback: Option<u8>) -> Self {
        Wire(Arc::new(Shared {
            clock,
            seed,
            loopback,
            endings: Endings::default(),
            moves: AtomicU64::default(),
            is_disturbed: AtomicBool::default(),
            state: Mutex::default(),
        }))
    }

    /// Adds a cluster, or finds it again.
    pub(crate) fn join(&self, cluster: &str) -> Arc<ClusterNet> {
        let mut state = self.state();
        if let Some(found) = state.clusters.iter().find(|net| &*net.name == cluster) {
            return Arc::clone(found);
        }
        let index = u8::try_from(state.clusters.len()).expect("a run has less than 200 clusters");
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
        let second = FIRST_POD_NET.wrapping_add(net.index);
        let ip = IpAddr::V4(match self.0.loopback {
            None => Ipv4Addr::new(10, second, third, fourth),
            Some(place) => Ipv4Addr::new(127, second.wrapping_add(place * LOOPBACK_CLUSTERS), third, fourth),
        });
        self.attach(Arc::clone(&net.name), ip, Some(Arc::clone(net)), namespace, seed.stream("kube-proxy"))
    }

    fn attach(
        &self,
        cluster: Arc<str>,
        ip: IpAddr,
        net: Option<Arc<ClusterNet>>,
        namespace: &str,
        draws: Rng,
    ) -> PodNetwork {
        let end = Arc::new(PodEnd { cluster, ip, clock: self.0.clock, ports: Mutex::default() });
        self.state().pods.extend(ipv4(ip).map(|number| (number, Arc::clone(&end))));
        self.0.moves.fetch_add(1, Ordering::SeqCst);
        let (draws, namespace) = (Mutex::new(draws), namespace.to_owned());
        let (looked_up, dialled) = (Mutex::default(), Mutex::default());
        let link = Link { wire: self.clone(), net, namespace, end, draws, looked_up, dialled };
        PodNetwork { link: Arc::new(link), process: Arc::default() }
    }

    /// A client outside all clusters: it reaches load balancers and names set by [`Wire::set_host`], and with
    /// `dns_of` a cluster's Services by their names, as a port-forward or a VPN would let it.
    pub fn outside(&self, name: &str, dns_of: Option<&str>) -> Arc<dyn Network> {
        let ip = {
            let mut state = self.state();
            state.outsiders += 1;
            address_of_pools(state.outsiders, &[[203, 0, 113]], [100, 64])
        };
        let net = dns_of.map(|cluster| self.join(cluster));
        let draws = self.0.seed.child("outside").stream(name);
        Arc::new(self.attach("outside".into(), ip, net, "default", draws))
    }

    /// A fresh address for a Service of type LoadBalancer.
    pub(crate) fn load_balancer_ip(&self) -> IpAddr {
        let mut state = self.state();
        state.balancers += 1;
        if let Some(place) = self.0.loopback {
            return address_of_pools(state.balancers, &[], [127, FIRST_BALANCER_NET + place]);
        }
        address_of_pools(state.balancers, &[[198, 51, 100], [192, 0, 2]], [198, 18])
    }

    /// Makes `host` resolve to `ip` for everybody, as public DNS would.
    pub fn set_host(&self, host: &str, ip: IpAddr) {
        self.state().hosts.insert(host.to_owned(), ip);
    }

    /// The addresses of a name in a cluster's DNS, as a pod of `namespace` sees it; none if there is no such name.
    pub fn addresses(&self, cluster: &str, namespace: &str, host: &str) -> Vec<IpAddr> {
        let table = self.join(cluster).services.table();
        let public =
            |host: &str| self.state().hosts.get(host.trim_end_matches('.')).copied().into_iter().collect();
        match dns::addresses(&table, namespace, host) {
            Some(Ok(found)) => found.into_owned(),
            Some(Err(alias)) => public(&alias),
            None => public(host),
        }
    }

    /// Cuts the network between two clusters (`outside` stands for everything outside), both ways.
    pub fn cut(&self, one: &str, other: &str) {
        self.disturb(|state| _ = state.cuts.insert(pair(one, other)));
    }

    /// Mends a cut.
    pub fn heal(&self, one: &str, other: &str) {
        self.disturb(|state| _ = state.cuts.remove(&pair(one, other)));
    }

    /// Whether the network between two clusters is cut.
    pub fn is_cut(&self, one: &str, other: &str) -> bool {
        self.state().cuts.contains(&pair(one, other))
    }

    /// Adds `extra` to the latency of every request between two clusters (`outside` stands for everything outside);
    /// zero takes it away again.
    pub fn delay(&self, one: &str, other: &str, extra: Duration) {
        self.disturb(|state| _ = state.delays.insert(pair(one, other), extra));
    }

    /// Changes cuts or delays.
    fn disturb(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        self.0.is_disturbed.store(!state.cuts.is_empty() || !state.delays.is_empty(), Ordering::SeqCst);
    }

    /// How long a request takes from one cluster to another and back; `None` when the network is cut.
    fn way(&self, one: &Arc<str>, other: &Arc<str>) -> Option<Duration> {
        if Arc::ptr_eq(one, other) || one == other {
            return Some(LATENCY_INSIDE);
        }
        if !self.0.is_disturbed.load(Ordering::SeqCst) {
            return Some(LATENCY_ACROSS);
        }
        let state = self.state();
        let pair = pair(one, other);
        let extra = state.delays.get(&pair).copied().unwrap_or_default();
        (!state.cuts.contains(&pair)).then_some(LATENCY_ACROSS + extra)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

/// Whether an address is the sender's own. Pods on loopback have other parts of 127.0.0.0/8.
fn is_localhost(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [127, 0])
        || ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
}

/// An IPv4 address as a number.
fn ipv4(ip: IpAddr) -> Option<u32> {
    match ip {
        IpAddr::V4(ip) => Some(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map(Ipv4Addr::to_bits),
    }
}

/// An address as a number: an IPv4 address is one of IPv6's.
pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn pair(one: &str, other: &str) -> (String, String) {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}

/// The `number`-th address (from 1): out of the /24 pools first, then out of a large range.
fn address_of_pools(number: u32, pools: &[[u8; 3]], beyond: [u8; 2]) -> IpAddr {
    let (pool, host) = ((number - 1) / 254, (number - 1) % 254 + 1);
    IpAddr::V4(match pools.get(pool as usize) {
        Some([a, b, c]) => Ipv4Addr::new(*a, *b, *c, host as u8),
        None => {
            let [.., third, fourth] = number.to_be_bytes();
            Ipv4Addr::new(beyond[0], beyond[1], third, fourth)
        }
    })
}

impl PodEnd {
    /// What listens on a port, past the pod's proxy.
    pub(crate) fn listener(&self, port: u16) -> Option<Arc<dyn Handler>> {
        let listener = lock(&self.ports).listeners.get(&port).cloned();
        listener.map(|listener| -> Arc<dyn Handler> { listener })
    }

    /// Hands a request to what listens on a port, past the pod's proxy.
    pub(crate) fn serve(&self, port: u16, request: Request) -> Reply {
        match self.listener(port) {
            Some(listener) => listener.handle(request),
            None => self.refused(port).into(),
        }
    }

    /// Delivers a request from the network.
    fn deliver(&self, port: u16, request: Request) -> Reply {
        let (listener, capture) = {
            let ports = lock(&self.ports);
            (ports.listeners.get(&port).cloned(), ports.capture.clone())
        };
        // Without a listener there is nothing that a proxy could pass the request to.
        let Some(listener) = listener else { return self.refused(port).into() };
        let Some(Capture { proxy, process }) = capture else { return listener.handle(request) };
        if process.over.is_requested() {
            return self.refused(port).into();
        }
        let started = self.clock.elapsed();
        let reply = proxy.inbound(request, port, listener);
        process.answers(self.clock, SocketAddr::new(self.ip, port), started, reply)
    }

    fn refused(&self, port: u16) -> DialError {
        DialError::Refused(SocketAddr::new(self.ip, port).to_string())
    }
}

/// A pod's network as one of its processes has it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PodNetwork {
    link: Arc<Link>,
    process: Arc<Process>,
}

struct Link {
    wire: Wire,
    /// The cluster whose DNS and kube-proxy serve this pod.
    net: Option<Arc<ClusterNet>>,
    namespace: String,
    end: Arc<PodEnd>,
    draws: Mutex<Rng>,
    /// The name that was looked up last, if it has one address alone, and the version of the Services then.
    looked_up: Mutex<Option<(u64, String, IpAddr)>>,
    /// What is behind the addresses that were dialled last, where no draw decides.
    dialled: Mutex<Vec<Dialled>>,
}

/// The pod and the port behind an address, as long as nothing moves.
struct Dialled {
    to: SocketAddr,
    end: Weak<PodEnd>,
    port: u16,
    /// The versions of the Services, and of the pods.
    known: (u64, u64),
}

/// So many addresses are known: a proxy sends to the endpoints of few Services.
const DIALLED_MAX: usize = 4;

impl PodNetwork {
    pub(crate) fn end(&self) -> &Arc<PodEnd> {
        &self.link.end
    }

    /// The pod's network for a further process.
    pub(crate) fn process(&self) -> PodNetwork {
        PodNetwork { link: Arc::clone(&self.link), process: Arc::default() }
    }

    /// The process is over: its ports close, and requests that it has not answered fail. If it was the pod's proxy, the
    /// pod's traffic still goes to it, and is refused.
    pub(crate) fn end_process(&self) {
        self.process.end(&self.link.wire.0.endings);
        let ended = |listener: &Arc<Listener>| Arc::ptr_eq(&listener.process, &self.process);
        lock(&self.link.end.ports).listeners.retain(|_, listener| !ended(listener));
    }

    /// Takes the pod off the network; requests that it has not answered fail.
    pub(crate) fn close(&self) {
        let end = &self.link.end;
        if let Some(number) = ipv4(end.ip) {
            self.link.wire.state().pods.remove(&number);
        }
        self.link.wire.0.moves.fetch_add(1, Ordering::SeqCst);
        let Ports { listeners, capture } = std::mem::take(&mut *lock(&end.ports));
        let processes = listeners.values().map(|listener| &listener.process);
        for process in processes.chain(capture.as_ref().map(|capture| &capture.process)) {
            process.end(&self.link.wire.0.endings);
        }
        self.process.end(&self.link.wire.0.endings);
    }
}

impl Link {
    fn table(&self) -> Option<Arc<Table>> {
        self.net.as_ref().map(|net| net.services.table())
    }

    fn resolve(&self, host: &str) -> Result<IpAddr, DialError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let now = self.services_version();
        if let Some((version, name, ip)) = &*lock(&self.looked_up)
            && *version == now
            && name == host
        {
            return Ok(*ip);
        }
        if let Ok(ip) = host.parse() {
            return Ok(ip);
        }
        if host == "localhost" {
            return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let Some(table) = self.table() else { return self.public(host) };
        match dns::addresses(&table, &self.namespace, host) {
            None => self.public(host),
            Some(Err(alias)) => self.public(&alias),
            Some(Ok(found)) => match *found {
                [only] => {
                    *lock(&self.looked_up) = Some((now, host.to_owned(), only));
                    Ok(only)
                }
                ref several => Ok(several[lock(&self.draws).random_range(0..several.len())]),
            },
        }
    }

    fn public(&self, host: &str) -> Result<IpAddr, DialError> {
        let found = self.wire.state().hosts.get(host.trim_end_matches('.')).copied();
        found.ok_or_else(|| DialError::NoSuchHost(host.to_owned()))
    }

    /// How many changes of the Services that its DNS knows there have been.
    fn services_version(&self) -> u64 {
        self.net.as_ref().map_or(0, |net| net.services.version())
    }

    /// The pod behind an address: the address itself, or an endpoint of the Service that has it.
    fn target(&self, to: SocketAddr) -> Option<Result<(Arc<PodEnd>, u16), DialError>> {
        let now = (self.services_version(), self.wire.0.moves.load(Ordering::SeqCst));
        let mut dialled = lock(&self.dialled);
        let last = dialled.iter().find(|last| last.to == to && last.known == now);
        if let Some(last) = last
            && let Some(end) = last.end.upgrade()
        {
            return Some(Ok((end, last.port)));
        }
        let pod = |address: SocketAddr| self.wire.state().pods.get(&ipv4(address.ip())?).cloned();
        let (found, is_only) = match pod(to) {
            Some(end) => (Some((end, to.port())), true),
            None => {
                let (chosen, is_only) = self.endpoint(to)?;
                // One that is gone, though kube-proxy has not heard of it, is refused like no endpoint at all.
                (chosen.and_then(|chosen| Some((pod(chosen)?, chosen.port()))), is_only)
            }
        };
        let Some((end, port)) = found else { return Some(Err(DialError::Refused(to.to_string()))) };
        if is_only {
            dialled.retain(|last| last.to != to && last.known == now);
            dialled.truncate(DIALLED_MAX - 1);
            dialled.push(Dialled { to, end: Arc::downgrade(&end), port, known: now });
        }
        Some(Ok((end, port)))
    }

    /// An endpoint of the Service that has an address, if it has any, and whether it is the only one; `None` if there is
    /// no such Service that this pod's cluster knows or that is reached from everywhere.
    fn endpoint(&self, to: SocketAddr) -> Option<(Option<SocketAddr>, bool)> {
        let table = self.table();
        if let Some(endpoints) = table.as_ref().and_then(|table| table.endpoints(to)) {
            return Some((self.choose(endpoints), endpoints.len() == 1));
        }
        let state = self.wire.state();
        let elsewhere = |net: &Arc<ClusterNet>| Some(self.choose(net.services.table().balanced(to)?));
        Some((state.clusters.iter().find_map(elsewhere)?, false))
    }

    /// One of a Service's endpoints, if it has any.
    fn choose(&self, endpoints: &[SocketAddr]) -> Option<SocketAddr> {
        match endpoints {
            [] => None,
            [only] => Some(*only),
            several => Some(several[lock(&self.draws).random_range(0..several.len())]),
        }
    }

    /// A connection to nowhere.
    fn unreachable(&self, to: SocketAddr) -> Reply {
        let clock = self.wire.0.clock;
        Reply::later(async move {
            clock.sleep(DIAL_TIMEOUT).await;
            Err(DialError::Unreachable(to.to_string()))
        })
    }

    fn dial(self: &Arc<Self>, to: SocketAddr, request: Request) -> Reply {
        if is_localhost(to.ip()) {
            return self.end.serve(to.port(), request);
        }
        let (end, port) = match self.target(to) {
            Some(Ok(found)) => found,
            Some(Err(error)) => return error.into(),
            // An address of a pod that is gone: the node it was on says so.
            None if matches!(to.ip(), IpAddr::V4(ip) if matches!(ip.octets()[0], 10 | 127)) => {
                return DialError::Refused(to.to_string()).into();
            }
            None => return self.unreachable(to),
        };
        let way = if end.ip == self.end.ip {
            Duration::ZERO
        } else {
            match self.wire.way(&self.end.cluster, &end.cluster) {
                Some(way) => way,
                None => return self.unreachable(to),
            }
        };
        let started = self.wire.0.clock.elapsed();
        let reply = end.deliver(port, request);
        let passage = Passage { link: Arc::clone(self), end, to, started, way };
        match reply {
            Reply::Now(result) => Reply::Now(result.map(|result| passage.bring(result))),
            Reply::Later(answer) => Reply::later(async move { passage.bring(answer.await) }),
        }
    }
}

/// The way of a response between two pods.
struct Passage {
    /// Who asked.
    link: Arc<Link>,
    /// Who answers.
    end: Arc<PodEnd>,
    /// The address that was asked.
    to: SocketAddr,
    started: Duration,
    way: Duration,
}

impl Passage {
    fn bring(self, result: Result<Response, DialError>) -> Result<Response, DialError> {
        let mut response = result?;
        response.pass(&self.end.clock, self.started, self.way);
        response.then(self);
        Ok(response)
    }
}

impl Stage for Passage {
    fn done(&mut self, _: &Response) -> Result<(), Lost> {
        match self.link.wire.way(&self.link.end.cluster, &self.end.cluster) {
            Some(_) => Ok(()),
            // Cut meanwhile: the answer is lost on its way.
            None => Err(Lost { after: DIAL_TIMEOUT, error: DialError::Unreachable(self.to.to_string()) }),
        }
    }

    fn redo(&mut self, clock: &Clock, result: Result<Response, DialError>) -> Result<Response, DialError> {
        let mut response = result?;
        response.pass(clock, self.started, self.way);
        if let Err(lost) = self.done(&response) {
            response.lose(lost);
        }
        Ok(response)
    }
}

impl Network for PodNetwork {
    fn local_ip(&self) -> IpAddr {
        self.link.end.ip
    }

    fn resolve(&self, host: &str) -> Result<IpAddr, DialError> {
        self.link.resolve(host)
    }

    fn exchange(&self, request: Request) -> Reply {
        let &Target { literal, port, .. } = match request.target() {
            Ok(target) => target,
            Err(error) => return error.into(),
        };
        if let Some(ip) = literal.filter(|ip| is_localhost(*ip)) {
            return self.link.dial(SocketAddr::new(ip, port), request);
        }
        if literal == Some(self.local_ip()) {
            // A pod reaches its own address past its proxy.
            return self.link.end.serve(port, request);
        }
        // The proxy's own requests are not redirected to it.
        let is_other = |capture: &&Capture| !Arc::ptr_eq(&capture.process, &self.process);
        let capture = lock(&self.link.end.ports).capture.as_ref().filter(is_other).cloned();
        if let Some(Capture { proxy, process }) = capture {
            let at = SocketAddr::new(self.local_ip(), port);
            if process.over.is_requested() {
                return DialError::Refused(at.to_string()).into();
            }
            let clock = self.link.wire.0.clock;
            let started = clock.elapsed();
            return process.answers(clock, at, started, proxy.outbound(request));
        }
        let ip = match literal {
            Some(ip) => ip,
            None => match self.link.resolve(request.uri().host().unwrap_or_default()) {
                Ok(ip) => ip,
                Err(error) => return error.into(),
            },
        };
        self.link.dial(SocketAddr::new(ip, port), request)
    }

    fn dial(&self, to: SocketAddr, request: Request) -> Reply {
        self.link.dial(to, request)
    }

    fn clock(&self) -> Clock {
        self.link.wire.0.clock
    }

    fn endings(&self) -> &Endings {
        &self.link.wire.0.endings
    }

    fn listen(&self, port: u16, handler: Arc<dyn Handler>) -> Result<Listening, ListenError> {
        let end = &self.link.end;
        let listeners = &mut lock(&end.ports).listeners;
        if self.process.over.is_requested() || listeners.contains_key(&port) {
            return Err(ListenError { port });
        }
        let listener = Arc::new(Listener {
            handler,
            process: Arc::clone(&self.process),
            clock: end.clock,
            at: SocketAddr::new(end.ip, port),
        });
        listeners.insert(port, Arc::clone(&listener));
        Ok(Listening::new(port, Box::new(ClosePort { end: Arc::clone(end), port, listener })))
    }

    fn capture(&self, proxy: Arc<dyn Proxy>) {
        lock(&self.link.end.ports).capture = Some(Capture { proxy, process: Arc::clone(&self.process) });
    }
}

struct ClosePort {
    end: Arc<PodEnd>,
    port: u16,
    listener: Arc<Listener>,
}

impl Drop for ClosePort {
    fn drop(&mut self) {
        let listeners = &mut lock(&self.end.ports).listeners;
        // The port may be another process's by now.
        if listeners.get(&self.port).is_some_and(|listener| Arc::ptr_eq(listener, &self.listener)) {
            listeners.remove(&self.port);
        }
    }
}
