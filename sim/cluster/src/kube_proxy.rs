//! Services and their endpoints as kube-proxy and DNS see them: tables made from a cluster's Services and
//! EndpointSlices, made anew when either changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use clock::Clock;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client};
use program::{Informer, Tasks};

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A cluster's Services. Without [`Services::start`] there are none.
#[derive(Default)]
pub(crate) struct Services {
    sources: OnceLock<Sources>,
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
        let config = watcher::Config::default;
        let (a, b, c) = (changed(), changed(), changed());
        let sources = Sources {
            services: Informer::start(tasks, clock, Api::all(client.clone()), config(), move |_| a()),
            slices: Informer::start(tasks, clock, Api::all(client.clone()), config(), move |_| b()),
            endpoints: Informer::start(tasks, clock, Api::all(client.clone()), config(), move |_| c()),
        };
        sources.services.synced().await;
        sources.slices.synced().await;
        self.changed.store(true, Ordering::Relaxed);
        let _ = self.sources.set(sources);
    }

    /// The tables as of now.
    pub(crate) fn table(&self) -> Arc<Table> {
        let mut table = self.table.lock().expect("no holder of this lock panics");
        if self.changed.swap(false, Ordering::Relaxed)
            && let Some(sources) = self.sources.get()
        {
            *table = Arc::new(Table::build(sources));
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
    ports: Vec<PortEntry>,
}

#[derive(Debug)]
struct PortEntry {
    port: u16,
    endpoints: Vec<SocketAddr>,
}

impl ServiceEntry {
    /// The addresses behind a headless Service.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let all: BTreeSet<IpAddr> =
            self.ports.iter().flat_map(|port| port.endpoints.iter().map(SocketAddr::ip)).collect();
        all.into_iter().collect()
    }
}

/// All Services of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Table {
    by_name: BTreeMap<(String, String), Arc<ServiceEntry>>,
    /// By cluster IP and load balancer address.
    by_address: BTreeMap<IpAddr, Arc<ServiceEntry>>,
}

impl Table {
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Arc<ServiceEntry>> {
        self.by_name.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The ready endpoints behind a Service's address and port; `None` if no Service has the address.
    pub(crate) fn endpoints(&self, at: SocketAddr) -> Option<&[SocketAddr]> {
        let entry = self.by_address.get(&at.ip())?;
        let port = entry.ports.iter().find(|port| port.port == at.port());
        Some(port.map_or(&[], |port| port.endpoints.as_slice()))
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
            let (entry, addresses) = entry(&service, slices, manual.as_deref());
            let entry = Arc::new(entry);
            for address in addresses {
                table.by_address.insert(address, Arc::clone(&entry));
            }
            table.by_name.insert(key, entry);
        }
        table
    }
}

fn entry(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    manual: Option<&Endpoints>,
) -> (ServiceEntry, Vec<IpAddr>) {
    let spec = service.spec.clone().unwrap_or_default();
    let cluster_ip: Option<IpAddr> = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
    let mut addresses: Vec<IpAddr> = cluster_ip.into_iter().collect();
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref());
    addresses.extend(
        ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.as_ref()?.parse::<IpAddr>().ok()),
    );
    let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let name = port.name.as_deref().unwrap_or_default();
        let mut endpoints: Vec<SocketAddr> = slices.iter().flat_map(|slice| of_slice(slice, name)).collect();
        endpoints.extend(manual.into_iter().flat_map(|manual| of_endpoints(manual, name)));
        endpoints.sort_unstable();
        endpoints.dedup();
        Some(PortEntry { port: u16::try_from(port.port).ok()?, endpoints })
    });
    let external_name = spec.external_name.filter(|_| spec.type_.as_deref() == Some("ExternalName"));
    (ServiceEntry { cluster_ip, external_name, ports: ports.collect() }, addresses)
}

fn of_slice(slice: &EndpointSlice, port_name: &str) -> Vec<SocketAddr> {
    let ports = slice.ports.iter().flatten();
    let numbers = ports
        .filter(|port| port.name.as_deref().unwrap_or_default() == port_name)
        .filter_map(|port| port.port.and_then(|port| u16::try_from(port).ok()));
    let numbers: Vec<u16> = numbers.collect();
    let ready = slice.endpoints.iter().filter(|endpoint| {
        // Absent means ready.
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let mut found = Vec::new();
    for address in ready.flat_map(|endpoint| &endpoint.addresses) {
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
