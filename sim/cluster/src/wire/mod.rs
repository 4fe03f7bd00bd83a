//! The network between all pods of a run: one flat address space over every cluster, as an in-memory function call.
//!
//! Each cluster has its own range of pod addresses, its own DNS ([`crate::dns`]) and its own kube-proxy
//! ([`crate::kube_proxy`]); pod addresses are reachable from everywhere unless the network between two clusters is
//! cut. It knows nothing of meshes: a pod's traffic goes through whatever [`Proxy`] its pod set.

mod end;
mod link;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clock::{Clock, Rng, Seed};
use program::{Endings, Network};

use self::end::PodEnd;
pub(crate) use self::link::PodNetwork;
use crate::dns;
use crate::kube_proxy::Services;

/// One way and back between pods of one cluster.
const LATENCY_INSIDE: Duration = Duration::from_micros(200);

/// One way and back between clusters, and to and from the outside.
const LATENCY_ACROSS: Duration = Duration::from_micros(500);

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
        PodNetwork::new(self.clone(), net, namespace, end, draws)
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

    /// Takes all pods off the network, at the end of a run: servers and proxies hold the network that holds them.
    pub fn close(&self) {
        let pods = std::mem::take(&mut self.state().pods);
        self.0.moves.fetch_add(1, Ordering::SeqCst);
        for end in pods.into_values() {
            let ports = std::mem::take(&mut *lock(&end.ports));
            drop(ports);
        }
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
