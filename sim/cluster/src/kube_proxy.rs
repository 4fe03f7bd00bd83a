//! Services and their endpoints as kube-proxy and DNS see them: tables made from a cluster's Services and
//! EndpointSlices. Entries are made anew when somebody asks after a change of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use clock::Clock;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::Client;
use program::{Api, Change, Informer, Selection, Tasks};

use crate::wire::number;

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name of a Service.
type Key = (String, String);

/// A cluster's Services. Without [`Services::start`] there are none.
#[derive(Default)]
pub(crate) struct Services {
    sources: Mutex<Option<Arc<Sources>>>,
    shared: Arc<Shared>,
}

/// What the watches change.
#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    /// How many changes there have been.
    version: AtomicU64,
}

impl Shared {
    /// Something changes.
    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut lock(&self.known));
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

/// The table as it was when it was last asked for, and what has changed since.
#[derive(Default)]
struct Known {
    table: Arc<Table>,
    /// Services whose entries are out of date.
    stale: BTreeSet<Key>,
    /// Each Service's slices by name.
    slices: BTreeMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
}

impl Known {
    fn see_slice(&mut self, change: &Change<'_, EndpointSlice>) {
        let (old, new) = match change {
            Change::Applied { old, new } => (*old, Some(*new)),
            Change::Deleted(slice) => (Some(*slice), None),
        };
        if let Some((key, slice)) = old.and_then(|old| Some((service_of(old)?, old))) {
            if let Some(slices) = self.slices.get_mut(&key) {
                slices.remove(slice.metadata.name.as_deref().unwrap_or_default());
                if slices.is_empty() {
                    self.slices.remove(&key);
                }
            }
            self.stale.insert(key);
        }
        if let Some((key, slice)) = new.and_then(|new| Some((service_of(new)?, new))) {
            let name = slice.metadata.name.clone().unwrap_or_default();
            self.slices.entry(key.clone()).or_default().insert(name, Arc::clone(slice));
            self.stale.insert(key);
        }
    }
}

struct Sources {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
}

impl Services {
    /// Watches a cluster's API from now on.
    pub(crate) async fn start(&self, client: &Client, clock: Clock, tasks: &Tasks) {
        let config = Selection::default;
        let stale = |shared: &Arc<Shared>| {
            let shared = Arc::clone(shared);
            move |key| shared.change(|known| _ = known.stale.insert(key))
        };
        let (of_service, of_endpoints) = (stale(&self.shared), stale(&self.shared));
        let shared = Arc::clone(&self.shared);
        let sources = Sources {
            services: Informer::start(tasks, clock, Api::all(client.clone()), config(), move |change| {
                of_service(key_of(change.object().as_ref()));
            }),
            slices: Informer::start(tasks, clock, Api::all(client.clone()), config(), move |change| {
                shared.change(|known| known.see_slice(&change));
            }),
            endpoints: Informer::start(tasks, clock, Api::all(client.clone()), config(), move |change| {
                of_endpoints(key_of(change.object().as_ref()));
            }),
        };
        sources.services.synced().await;
        sources.slices.synced().await;
        *lock(&self.sources) = Some(Arc::new(sources));
        self.shared.change(|_| {});
    }

    /// How many changes there have been. What is kept of a table is kept with the number from before it was asked for.
    pub(crate) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::SeqCst)
    }

    /// The tables as of now.
    pub(crate) fn table(&self) -> Arc<Table> {
        let mut known = lock(&self.shared.known);
        let Known { table, stale, slices } = &mut *known;
        if !stale.is_empty()
            && let Some(sources) = lock(&self.sources).clone()
        {
            let table = Arc::make_mut(table);
            for key in std::mem::take(stale) {
                let slices: Vec<_> =
                    slices.get(&key).into_iter().flat_map(BTreeMap::values).cloned().collect();
                table.renew(&sources, key, &slices);
            }
        }
        Arc::clone(table)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

fn key_of<K: kube::Resource>(object: &K) -> Key {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// The Service that a slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// One Service.
#[derive(Debug, Default)]
pub(crate) struct ServiceEntry {
    /// `None` for headless Services.
    pub cluster_ip: Option<IpAddr>,
    pub external_name: Option<String>,
    /// The ready addresses behind it.
    pub addresses: Vec<IpAddr>,
    /// Addresses of pods that have a name in it.
    pub hostnames: BTreeMap<String, IpAddr>,
    pub ports: Vec<PortEntry>,
    /// Addresses at which it is reached from everywhere.
    pub balancers: Vec<IpAddr>,
}

/// One of a Service's ports.
#[derive(Debug)]
pub(crate) struct PortEntry {
    port: u16,
    endpoints: Vec<SocketAddr>,
}

impl ServiceEntry {
    fn endpoints(&self, port: u16) -> &[SocketAddr] {
        let port = self.ports.iter().find(|entry| entry.port == port);
        port.map_or(&[], |port| port.endpoints.as_slice())
    }
}

/// All Services of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// By namespace, then by name.
    by_name: BTreeMap<String, BTreeMap<String, Arc<ServiceEntry>>>,
    /// By address, as a number.
    by_cluster_ip: BTreeMap<u128, Arc<ServiceEntry>>,
    by_balancer: BTreeMap<u128, Arc<ServiceEntry>>,
}

impl Table {
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Arc<ServiceEntry>> {
        self.by_name.get(namespace)?.get(name)
    }

    /// The ready endpoints behind a Service's address and port; `None` if no Service has the address.
    pub(crate) fn endpoints(&self, at: SocketAddr) -> Option<&[SocketAddr]> {
        let entry =
            self.by_cluster_ip.get(&number(at.ip())).or_else(|| self.by_balancer.get(&number(at.ip())))?;
        Some(entry.endpoints(at.port()))
    }

    /// The same for load balancers' addresses alone: those that are reached from everywhere.
    pub(crate) fn balanced(&self, at: SocketAddr) -> Option<&[SocketAddr]> {
        Some(self.by_balancer.get(&number(at.ip()))?.endpoints(at.port()))
    }

    /// A table of these Services: namespace, name, entry.
    #[cfg(test)]
    pub(crate) fn of<'a>(services: impl IntoIterator<Item = (&'a str, &'a str, ServiceEntry)>) -> Table {
        let mut table = Table::default();
        for (namespace, name, entry) in services {
            table.by_name.entry(namespace.to_owned()).or_default().insert(name.to_owned(), Arc::new(entry));
        }
        table
    }

    /// Makes a Service's entry anew, or removes that of one that is gone.
    fn renew(&mut self, sources: &Sources, key: Key, slices: &[Arc<EndpointSlice>]) {
        let (namespace, name) = key;
        let named = self.by_name.entry(namespace.clone()).or_default();
        if let Some(old) = named.remove(&name) {
            let is_old =
                |entry: Option<&Arc<ServiceEntry>>| entry.is_some_and(|entry| Arc::ptr_eq(entry, &old));
            if let Some(ip) = old.cluster_ip.map(number).filter(|ip| is_old(self.by_cluster_ip.get(ip))) {
                self.by_cluster_ip.remove(&ip);
            }
            for ip in old.balancers.iter().copied().map(number) {
                if is_old(self.by_balancer.get(&ip)) {
                    self.by_balancer.remove(&ip);
                }
            }
        }
        let Some(service) = sources.services.get(&namespace, &name) else { return };
        // Endpoints written by hand stand alone: no controller mirrors them into slices here.
        let manual = if slices.is_empty() { sources.endpoints.get(&namespace, &name) } else { None };
        let entry = Arc::new(entry(&service, slices, manual.as_deref()));
        if let Some(ip) = entry.cluster_ip {
            self.by_cluster_ip.insert(number(ip), Arc::clone(&entry));
        }
        for ip in &entry.balancers {
            self.by_balancer.insert(number(*ip), Arc::clone(&entry));
        }
        named.insert(name, entry);
    }
}

/// The Service's load balancer addresses, and the external ones that it was given.
fn balancers(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    let external = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten());
    let texts = ingress.filter_map(|ingress| ingress.ip.as_ref()).chain(external);
    texts.filter_map(|ip| ip.parse().ok()).collect()
}

fn entry(service: &Service, slices: &[Arc<EndpointSlice>], manual: Option<&Endpoints>) -> ServiceEntry {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let name = port.name.as_deref().unwrap_or_default();
        let mut endpoints: Vec<SocketAddr> = slices.iter().flat_map(|slice| of_slice(slice, name)).collect();
        endpoints.extend(manual.into_iter().flat_map(|manual| of_endpoints(manual, name)));
        endpoints.sort_unstable();
        endpoints.dedup();
        Some(PortEntry { port: u16::try_from(port.port).ok()?, endpoints })
    });
    let mut addresses = BTreeSet::new();
    let mut hostnames = BTreeMap::new();
    for endpoint in slices.iter().flat_map(|slice| ready(slice)) {
        let ips = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok());
        for ip in ips {
            addresses.insert(ip);
            hostnames.extend(endpoint.hostname.clone().map(|name| (name, ip)));
        }
    }
    let by_hand = manual.into_iter().flat_map(|manual| manual.subsets.iter().flatten());
    let by_hand = by_hand.flat_map(|subset| subset.addresses.iter().flatten());
    addresses.extend(by_hand.filter_map(|address| address.ip.parse::<IpAddr>().ok()));
    ServiceEntry {
        cluster_ip: spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()),
        external_name: spec.external_name.filter(|_| spec.type_.as_deref() == Some("ExternalName")),
        addresses: addresses.into_iter().collect(),
        hostnames,
        ports: ports.collect(),
        balancers: balancers(service),
    }
}

fn ready(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().filter(|endpoint| {
        // Absent means ready.
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    })
}

fn of_slice(slice: &EndpointSlice, port_name: &str) -> Vec<SocketAddr> {
    let ports = slice.ports.iter().flatten();
    let numbers = ports
        .filter(|port| port.name.as_deref().unwrap_or_default() == port_name)
        .filter_map(|port| port.port.and_then(|port| u16::try_from(port).ok()));
    let numbers: Vec<u16> = numbers.collect();
    let mut found = Vec::new();
    for address in ready(slice).flat_map(|endpoint| &endpoint.addresses) {
        if let Ok(ip) = address.parse() {
            found.extend(numbers.iter().map(|port| SocketAddr::new(ip, *port)));
        }
    }
    found
}

fn of_endpoints(endpoints: &Endpoints, port_name: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for port in subset.ports.iter().flatten() {
            let Ok(number) = u16::try_from(port.port) else { continue };
            if port.name.as_deref().unwrap_or_default() != port_name {
                continue;
            }
            let addresses = subset.addresses.iter().flatten();
            found.extend(
                addresses.filter_map(|address| Some(SocketAddr::new(address.ip.parse().ok()?, number))),
            );
        }
    }
    found
}
