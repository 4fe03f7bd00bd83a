//! The mesh's configuration as proxies get it: services with their endpoints in all clusters, and routing rules with
//! their names resolved.
//!
//! Pure: a snapshot is built from objects and never changes. Names follow Istio: in a rule, a host without a dot is a
//! service of the rule's own namespace, one with a dot is literal.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crd::{DestinationRule, Gateway, TrafficPolicy, VirtualService};

use crate::workload::Workload;

const SUFFIX: &str = ".svc.cluster.local";

/// A Service of one cluster, as the mesh sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its address in its cluster; none if headless.
    pub cluster_ip: Option<IpAddr>,
    /// Its ports.
    pub ports: Vec<ClusterPort>,
}

/// A port of a Service of one cluster, with what is ready behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterPort {
    /// The Service's port.
    pub port: u16,
    /// Ready pods' addresses and ports.
    pub endpoints: Vec<SocketAddr>,
}

/// What a snapshot is built from. Rules come in the order of their creation.
#[derive(Default)]
pub struct Sources {
    /// VirtualServices.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// DestinationRules.
    pub destination_rules: Vec<Arc<DestinationRule>>,
    /// Gateways.
    pub gateways: Vec<Arc<Gateway>>,
    /// Services of all clusters.
    pub services: Vec<ClusterService>,
    /// Pods by address.
    pub workloads: BTreeMap<IpAddr, Arc<Workload>>,
}

/// A service of the mesh: all clusters' Services of one name are one.
#[derive(Debug)]
pub struct Service {
    /// `NAME.NAMESPACE.svc.cluster.local`.
    pub host: Arc<str>,
    /// The Service's name.
    pub name: Arc<str>,
    /// The Service's namespace.
    pub namespace: Arc<str>,
    /// Endpoints by the Service's port.
    pub ports: Ports,
    /// Subsets and policy.
    pub rule: Option<Rule>,
}

/// Endpoints by port.
pub type Ports = BTreeMap<u16, Arc<[Endpoint]>>;

/// A place where a service is served.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Pod address and port.
    pub address: SocketAddr,
    /// The pod.
    pub workload: Arc<Workload>,
}

/// A service's DestinationRules, merged.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// The policy of the oldest rule that has one.
    pub policy: Option<Arc<TrafficPolicy>>,
    /// Subsets by name.
    pub subsets: BTreeMap<String, Subset>,
}

/// Some of a service's endpoints, by label.
#[derive(Clone, Debug)]
pub struct Subset {
    /// Its endpoints by the Service's port.
    pub ports: Ports,
    /// Its own policy.
    pub policy: Option<Arc<TrafficPolicy>>,
}

/// A VirtualService with its names resolved.
#[derive(Debug)]
pub struct Rules {
    /// The object.
    pub object: Arc<VirtualService>,
    /// Full host names and wildcards.
    pub hosts: Vec<String>,
    /// `NAMESPACE/NAME` of its gateways, and `mesh`.
    pub gateways: Vec<String>,
}

/// The configuration at one moment.
#[derive(Debug, Default)]
pub struct Config {
    /// By namespace and name.
    services: BTreeMap<String, BTreeMap<String, Arc<Service>>>,
    by_address: BTreeMap<IpAddr, Arc<Service>>,
    /// VirtualServices, oldest first.
    pub rules: Vec<Rules>,
    /// Gateways with their `NAMESPACE/NAME`, oldest first.
    pub gateways: Vec<(String, Arc<Gateway>)>,
    /// The service and its port behind a pod's address and port.
    inbound: BTreeMap<SocketAddr, (Arc<Service>, u16)>,
    /// Pods by address.
    pub workloads: BTreeMap<IpAddr, Arc<Workload>>,
}

/// What all clusters' Services of one name come to.
#[derive(Default)]
struct Merged {
    ports: BTreeMap<u16, Vec<Endpoint>>,
    addresses: BTreeSet<IpAddr>,
}

impl Config {
    /// Builds a snapshot.
    pub fn build(sources: Sources) -> Config {
        let gateways = sources.gateways.into_iter().map(|gateway| {
            let namespace = gateway.metadata.namespace.as_deref().unwrap_or_default();
            let name = gateway.metadata.name.as_deref().unwrap_or_default();
            (format!("{namespace}/{name}"), gateway)
        });
        let mut config = Config { gateways: gateways.collect(), ..Config::default() };
        let mut merged: BTreeMap<(String, String), Merged> = BTreeMap::new();
        for service in &sources.services {
            let entry = merged.entry((service.namespace.clone(), service.name.clone())).or_default();
            entry.addresses.extend(service.cluster_ip);
            for port in &service.ports {
                let endpoints = entry.ports.entry(port.port).or_default();
                endpoints.extend(port.endpoints.iter().map(|address| Endpoint {
                    address: *address,
                    workload: sources.workloads.get(&address.ip()).cloned().unwrap_or_else(Workload::unknown),
                }));
            }
        }
        for ((namespace, name), Merged { ports, addresses }) in merged {
            let host = format!("{name}.{namespace}{SUFFIX}");
            let ports = ports.into_iter().map(|(port, endpoints)| (port, endpoints.into())).collect();
            let service = Arc::new(Service {
                rule: rule_of(&host, &ports, &sources.destination_rules),
                host: host.into(),
                name: name.as_str().into(),
                namespace: namespace.as_str().into(),
                ports,
            });
            for (port, endpoints) in &service.ports {
                for endpoint in endpoints.iter() {
                    // Several Services may share a pod's port: the first by name answers for it.
                    config.inbound.entry(endpoint.address).or_insert_with(|| (Arc::clone(&service), *port));
                }
            }
            config.by_address.extend(addresses.into_iter().map(|address| (address, Arc::clone(&service))));
            config.services.entry(namespace).or_default().insert(name, service);
        }
        config.rules = sources.virtual_services.into_iter().map(rules).collect();
        config.workloads = sources.workloads;
        config
    }

    /// The service that a client in `namespace` means by a host name, or by a Service's address.
    pub fn service(&self, host: &str, namespace: &str) -> Option<&Arc<Service>> {
        if let Ok(address) = host.parse() {
            return self.by_address.get(&address);
        }
        let short = host.strip_suffix(SUFFIX).or_else(|| host.strip_suffix(".svc")).unwrap_or(host);
        let (name, namespace) = match short.split_once('.') {
            None if short.len() == host.len() => (short, namespace),
            None => return None,
            Some(parts) => parts,
        };
        self.services.get(namespace)?.get(name)
    }

    /// The service of a full host name, as rules name it.
    pub fn by_host(&self, host: &str) -> Option<&Arc<Service>> {
        let (name, namespace) = host.strip_suffix(SUFFIX)?.split_once('.')?;
        self.services.get(namespace)?.get(name)
    }

    /// The service and its port that a pod's address and port belong to.
    pub fn inbound(&self, address: SocketAddr) -> Option<&(Arc<Service>, u16)> {
        self.inbound.get(&address)
    }
}

fn rules(object: Arc<VirtualService>) -> Rules {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let hosts = object.spec.hosts.iter().map(|host| full_host(host, &namespace).into_owned()).collect();
    let mut gateways: Vec<String> =
        object.spec.gateways.iter().map(|gateway| gateway_key(gateway, &namespace)).collect();
    if gateways.is_empty() {
        gateways.push("mesh".to_owned());
    }
    Rules { object, hosts, gateways }
}

/// A host of a rule in `namespace` as a full name.
pub fn full_host<'a>(host: &'a str, namespace: &str) -> Cow<'a, str> {
    if host.contains('.') || host == "*" { host.into() } else { format!("{host}.{namespace}{SUFFIX}").into() }
}

/// `NAMESPACE/NAME` of a gateway as a rule in `namespace` names it; `mesh` stays.
pub fn gateway_key(gateway: &str, namespace: &str) -> String {
    if gateway == "mesh" {
        return "mesh".to_owned();
    }
    if let Some((of, name)) = gateway.split_once('/') {
        return if of == "." { format!("{namespace}/{name}") } else { gateway.to_owned() };
    }
    let mut labels = gateway.split('.');
    match (labels.next(), labels.next()) {
        (Some(name), Some(of)) => format!("{of}/{name}"),
        _ => format!("{namespace}/{gateway}"),
    }
}

fn rule_of(host: &str, ports: &Ports, rules: &[Arc<DestinationRule>]) -> Option<Rule> {
    let shared = |policy: &Option<TrafficPolicy>| policy.clone().map(Arc::new);
    let mut merged: Option<Rule> = None;
    for object in rules {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        if full_host(&object.spec.host, &namespace) != host {
            continue;
        }
        let rule = merged.get_or_insert_default();
        if rule.policy.is_none() {
            rule.policy = shared(&object.spec.traffic_policy);
        }
        for subset in &object.spec.subsets {
            let has = |endpoint: &&Endpoint| {
                subset.labels.iter().all(|(name, value)| endpoint.workload.labels.get(name) == Some(value))
            };
            let of_port =
                |(port, all): (&u16, &Arc<[Endpoint]>)| (*port, all.iter().filter(has).cloned().collect());
            rule.subsets.entry(subset.name.clone()).or_insert_with(|| Subset {
                ports: ports.iter().map(of_port).collect(),
                policy: shared(&subset.traffic_policy),
            });
        }
    }
    merged
}

/// How well a rule's host fits a name: `None` not at all, else the better the greater.
pub fn host_fit(pattern: &str, host: &str) -> Option<usize> {
    if pattern == "*" {
        return Some(0);
    }
    match pattern.strip_prefix('*') {
        Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some(suffix.len()),
        None => pattern.eq_ignore_ascii_case(host).then_some(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_rules_resolve_as_in_istio() {
        assert_eq!(full_host("podinfo", "test"), "podinfo.test.svc.cluster.local");
        assert_eq!(full_host("podinfo.test", "test"), "podinfo.test", "a dot makes it literal");
        let check = |gateway: &str, key: &str| assert_eq!(gateway_key(gateway, "test"), key);
        check("mesh", "mesh");
        check("public", "test/public");
        check("./public", "test/public");
        check("istio-system/public", "istio-system/public");
        check("public.istio-system.svc.cluster.local", "istio-system/public");
        assert!(
            host_fit("app.example.com", "app.example.com") > host_fit("*.example.com", "app.example.com")
        );
        assert!(host_fit("*.example.com", "app.example.com") > host_fit("*", "app.example.com"));
        assert_eq!(host_fit("*.example.com", "example.com"), None);
    }
}
