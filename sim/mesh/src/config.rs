//! The mesh's configuration as proxies get it: services with their endpoints in all clusters, and routing rules with
//! their names resolved.
//!
//! Pure: a snapshot is built from objects and never changes. Names follow Istio: in a rule, a host without a dot is a
//! service of the rule's own namespace, one with a dot is literal.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crd::{ApiGateway, DestinationRule, Gateway, GatewayRoute, HttpRoute, TrafficPolicy, VirtualService};

use crate::workload::Workload;
use crate::{delegate, gateway_api};

pub(crate) const SUFFIX: &str = ".svc.cluster.local";

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
    /// HTTPRoutes of the Gateway API.
    pub api_routes: Vec<Arc<GatewayRoute>>,
    /// Gateways of the Gateway API.
    pub api_gateways: Vec<Arc<ApiGateway>>,
    /// Services of all clusters.
    pub services: Vec<ClusterService>,
    /// Pods by address.
    pub workloads: BTreeMap<IpAddr, Arc<Workload>>,
}

/// A service of the mesh: all clusters' Services of one name are one.
#[derive(Debug)]
pub struct Service {
    /// Its names.
    pub named: Arc<Named>,
    /// Endpoints by the Service's port.
    pub ports: Ports,
    /// Subsets and policy.
    pub rule: Option<Rule>,
}

/// A service's names, which telemetry shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// `NAME.NAMESPACE.svc.cluster.local`.
    pub host: String,
    /// The Service's name.
    pub name: String,
    /// The Service's namespace.
    pub namespace: String,
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

/// Rules for some hosts, with their names resolved.
#[derive(Debug)]
pub struct Rules {
    /// Full host names and wildcards.
    pub hosts: Vec<String>,
    /// The keys of its gateways, and `mesh`.
    pub gateways: Vec<String>,
    /// The rules, in the order in which they are looked at once they are part of a [`Config`].
    pub routes: Vec<Arc<Route>>,
}

/// One rule.
#[derive(Debug)]
pub struct Route {
    origin: Origin,
    /// The namespace that its names are of.
    pub namespace: Arc<str>,
    /// Its place among rules for the same host, whichever object they come from.
    pub precedence: Precedence,
}

#[derive(Debug)]
enum Origin {
    /// A rule of an object as it is.
    Own(Arc<VirtualService>, usize),
    /// A rule that was made of others.
    Made(Box<HttpRoute>),
}

impl Route {
    fn own(object: &Arc<VirtualService>, index: usize, namespace: &Arc<str>) -> Arc<Route> {
        let precedence = Precedence::of_conditions(&object.spec.http[index]);
        let origin = Origin::Own(Arc::clone(object), index);
        Arc::new(Route { origin, namespace: Arc::clone(namespace), precedence })
    }

    /// A rule that no VirtualService has like this.
    pub(crate) fn made(rule: HttpRoute, namespace: Arc<str>, precedence: Precedence) -> Route {
        let origin = Origin::Made(Box::new(rule));
        Route { origin, namespace, precedence }
    }

    /// Conditions and what to do.
    pub fn rule(&self) -> &HttpRoute {
        match &self.origin {
            Origin::Own(object, index) => &object.spec.http[*index],
            Origin::Made(rule) => rule,
        }
    }
}

/// Which of several rules for a host is looked at first: the smaller. Istio's own are in the order of their objects,
/// those without conditions last; the Gateway API's are in the order of how much they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    is_last: bool,
    specificity: Reverse<[usize; 5]>,
}

impl Precedence {
    fn of_conditions(rule: &HttpRoute) -> Precedence {
        Precedence { is_last: rule.matches.is_empty(), specificity: Reverse([0; 5]) }
    }

    /// A rule of the Gateway API, by the figures that it is compared by.
    pub(crate) fn of_specificity(figures: [usize; 5]) -> Precedence {
        Precedence { is_last: false, specificity: Reverse(figures) }
    }
}

/// A gateway: which pods serve which hosts on which ports.
#[derive(Debug)]
pub struct Entrance {
    /// The name by which rules mean it: `NAMESPACE/NAME`.
    pub key: String,
    /// Labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// The full name of the Service whose pods they are, in place of labels.
    pub service: Option<String>,
    /// The Service's ports and their hosts.
    pub servers: Vec<(u16, Vec<String>)>,
}

/// The configuration at one moment.
#[derive(Debug, Default)]
pub struct Config {
    /// By namespace and name.
    services: BTreeMap<String, BTreeMap<String, Arc<Service>>>,
    by_address: BTreeMap<IpAddr, Arc<Service>>,
    /// Oldest first.
    rules: Vec<Rules>,
    /// Which rules name a host, and which have a wildcard.
    rules_by_host: BTreeMap<String, Vec<usize>>,
    rules_of_wildcards: Vec<usize>,
    /// Gateways, oldest first.
    pub entrances: Vec<Entrance>,
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
        let mut config = Config::default();
        config.entrances.extend(sources.gateways.iter().map(|gateway| entrance(gateway)));
        config
            .entrances
            .extend(sources.api_gateways.iter().filter_map(|gateway| gateway_api::entrance(gateway)));
        let mut destination_rules: BTreeMap<String, Vec<&DestinationRule>> = BTreeMap::new();
        for object in &sources.destination_rules {
            let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
            let host = full_host(&object.spec.host, namespace).into_owned();
            destination_rules.entry(host).or_default().push(object);
        }
        let mut merged: BTreeMap<(String, String), Merged> = BTreeMap::new();
        for service in &sources.services {
            let entry = merged.entry((service.namespace.clone(), service.name.clone())).or_default();
            entry.addresses.extend(service.cluster_ip);
            for port in &service.ports {
                let endpoints = entry.ports.entry(port.port).or_default();
                endpoints.extend(port.endpoints.iter().map(|address| Endpoint {
                    address: *address,
                    workload:
                        sources.workloads.get(&address.ip()).unwrap_or_else(|| Workload::unknown()).clone(),
                }));
            }
        }
        for ((namespace, name), Merged { ports, addresses }) in merged {
            let host = format!("{name}.{namespace}{SUFFIX}");
            let ports = ports.into_iter().map(|(port, endpoints)| (port, endpoints.into())).collect();
            let service = Arc::new(Service {
                rule: destination_rules.get(&host).map(|rules| rule_of(&ports, rules)),
                named: Arc::new(Named { host, name: name.clone(), namespace: namespace.clone() }),
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
        config.take_rules(rules_of(&sources.virtual_services));
        for route in &sources.api_routes {
            config.take_rules(gateway_api::rules(route, &sources.api_gateways).0);
        }
        config.workloads = sources.workloads;
        config
    }

    fn take_rules(&mut self, rules: Vec<Rules>) {
        for mut rules in rules {
            rules.routes.sort_by_key(|route| route.precedence);
            let index = self.rules.len();
            for host in &rules.hosts {
                if host.starts_with('*') {
                    self.rules_of_wildcards.push(index);
                } else {
                    self.rules_by_host.entry(host.to_ascii_lowercase()).or_default().push(index);
                }
            }
            self.rules.push(rules);
        }
    }

    /// Rules that may be for a host, oldest first.
    pub fn rules_about(&self, host: &str) -> impl Iterator<Item = &Rules> {
        let named = match host.bytes().any(|letter| letter.is_ascii_uppercase()) {
            true => self.rules_by_host.get(&host.to_ascii_lowercase()),
            false => self.rules_by_host.get(host),
        };
        let named = named.map_or(&[][..], Vec::as_slice);
        let found = if self.rules_of_wildcards.is_empty() {
            Cow::Borrowed(named)
        } else {
            let mut found = [named, &self.rules_of_wildcards].concat();
            found.sort_unstable();
            found.dedup();
            Cow::Owned(found)
        };
        (0..found.len()).map(move |place| &self.rules[found[place]])
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

/// The rules of VirtualServices, with those that they delegate to.
fn rules_of(objects: &[Arc<VirtualService>]) -> Vec<Rules> {
    // Only objects without hosts of their own can be delegated to.
    let delegates: BTreeMap<(&str, &str), &Arc<VirtualService>> = objects
        .iter()
        .filter(|object| object.spec.hosts.is_empty())
        .map(|object| ((object.namespace(), object.name()), object))
        .collect();
    objects
        .iter()
        .filter(|object| !object.spec.hosts.is_empty())
        .map(|object| rules(object, &delegates))
        .collect()
}

fn rules(object: &Arc<VirtualService>, delegates: &BTreeMap<(&str, &str), &Arc<VirtualService>>) -> Rules {
    let namespace: Arc<str> = object.namespace().into();
    let hosts = object.spec.hosts.iter().map(|host| full_host(host, &namespace).into_owned()).collect();
    let mut gateways: Vec<String> =
        object.spec.gateways.iter().map(|gateway| gateway_key(gateway, &namespace)).collect();
    if gateways.is_empty() {
        gateways.push("mesh".to_owned());
    }
    let mut routes = Vec::new();
    for (index, rule) in object.spec.http.iter().enumerate() {
        let Some(reference) = &rule.delegate else {
            routes.push(Route::own(object, index, &namespace));
            continue;
        };
        let of = if reference.namespace.is_empty() { &*namespace } else { reference.namespace.as_str() };
        // A rule whose delegate is not there is none.
        let Some(delegate) = delegates.get(&(of, reference.name.as_str())) else { continue };
        let of: Arc<str> = of.into();
        let merged = delegate.spec.http.iter().filter_map(|own| delegate::merged(rule, own));
        routes.extend(merged.map(|rule| {
            let precedence = Precedence::of_conditions(&rule);
            Arc::new(Route::made(rule, Arc::clone(&of), precedence))
        }));
    }
    Rules { hosts, gateways, routes }
}

/// Istio's Gateway as proxies see it.
fn entrance(gateway: &Gateway) -> Entrance {
    let host = |host: &String| host.rsplit('/').next().unwrap_or_default().to_owned();
    let servers = gateway.spec.servers.iter().filter_map(|server| {
        let port = u16::try_from(server.port.number).ok()?;
        Some((port, server.hosts.iter().map(host).collect()))
    });
    Entrance {
        key: format!("{}/{}", gateway.namespace(), gateway.name()),
        selector: gateway.spec.selector.clone(),
        service: None,
        servers: servers.collect(),
    }
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

fn rule_of(ports: &Ports, rules: &[&DestinationRule]) -> Rule {
    let shared = |policy: &Option<TrafficPolicy>| policy.clone().map(Arc::new);
    let mut rule = Rule::default();
    for object in rules {
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
    rule
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
