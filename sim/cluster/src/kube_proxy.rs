//! Services and their endpoints as kube-proxy and DNS see them: tables made from a cluster's Services and
//! EndpointSlices, made anew when either changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use clock::Clock;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::{Api, Client};
use program::{Informer, Selection, Tasks};

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A cluster's Services. Without [`Services::start`] there are none.
#[derive(Default)]
pub(crate) struct Services {
    sources: Mutex<Option<Arc<Sources>>>,
    changed: Arc<AtomicBool>,
    table: Mutex<Arc<Table>>,
}

struct Sources {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    endpoints: Informer<Endpoints>,
}

impl Services {
    /// Watches a cluster's API from now on.
    pub(crate) async fn start(&self, client: &Client, clock: Clock, tasks: &Tasks) {
        let changed = || {
            let flag = Arc::clone(&self.changed);
            move || flag.store(true, Ordering::Relaxed)
        };
        let all = Selection::default;
        let (a, b, c) = (changed(), changed(), changed());
        let sources = Sources {
            services: Informer::start(tasks, clock, Api::all(client.clone()), all(), move |_| a()),
            slices: Informer::start(tasks, clock, Api::all(client.clone()), all(), move |_| b()),
            endpoints: Informer::start(tasks, clock, Api::all(client.clone()), all(), move |_| c()),
        };
        sources.services.synced().await;
        sources.slices.synced().await;
        self.changed.store(true, Ordering::Relaxed);
        *self.sources.lock().expect("no holder of this lock panics") = Some(Arc::new(sources));
    }

    /// The tables as of now.
    pub(crate) fn table(&self) -> Arc<Table> {
        let mut table = self.table.lock().expect("no holder of this lock panics");
        if self.changed.swap(false, Ordering::Relaxed)
            && let Some(sources) = self.sources.lock().expect("no holder of this lock panics").clone()
        {
            *table = Arc::new(Table::build(&sources));
        }
        Arc::clone(&table)
    }
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
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By namespace, then by name.
    by_name: BTreeMap<String, BTreeMap<String, Arc<ServiceEntry>>>,
    by_cluster_ip: BTreeMap<IpAddr, Arc<ServiceEntry>>,
    by_balancer: BTreeMap<IpAddr, Arc<ServiceEntry>>,
}

impl Table {
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Arc<ServiceEntry>> {
        self.by_name.get(namespace)?.get(name)
    }

    /// The ready endpoints behind a Service's address and port; `None` if no Service has the address.
    pub(crate) fn endpoints(&self, at: SocketAddr) -> Option<&[SocketAddr]> {
        let entry = self.by_cluster_ip.get(&at.ip()).or_else(|| self.by_balancer.get(&at.ip()))?;
        Some(entry.endpoints(at.port()))
    }

    /// The same for load balancers' addresses alone: those that are reached from everywhere.
    pub(crate) fn balanced(&self, at: SocketAddr) -> Option<&[SocketAddr]> {
        Some(self.by_balancer.get(&at.ip())?.endpoints(at.port()))
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

    fn build(sources: &Sources) -> Table {
        let mut by_service: BTreeMap<(String, String), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in sources.slices.list() {
            let labels = slice.metadata.labels.as_ref();
            if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) {
                let namespace = slice.metadata.namespace.clone().unwrap_or_default();
                by_service.entry((namespace, service.clone())).or_default().push(slice);
            }
        }
        let mut table = Table::default();
        for service in sources.services.list() {
            let key = (
                service.metadata.namespace.clone().unwrap_or_default(),
                service.metadata.name.clone().unwrap_or_default(),
            );
            let slices = by_service.get(&key).map(Vec::as_slice).unwrap_or_default();
            // Endpoints written by hand stand alone: no controller mirrors them into slices here.
            let manual = if slices.is_empty() { sources.endpoints.get(&key.0, &key.1) } else { None };
            let entry = Arc::new(entry(&service, slices, manual.as_deref()));
            if let Some(ip) = entry.cluster_ip {
                table.by_cluster_ip.insert(ip, Arc::clone(&entry));
            }
            for ip in balancers(&service) {
                table.by_balancer.insert(ip, Arc::clone(&entry));
            }
            table.by_name.entry(key.0).or_default().insert(key.1, entry);
        }
        table
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
