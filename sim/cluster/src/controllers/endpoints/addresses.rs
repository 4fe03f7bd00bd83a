//! Which pods stand behind a Service, as Endpoints and as EndpointSlices. Pure; follows the endpoints and
//! endpointslice controllers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, EndpointAddress, EndpointPort as AddressPort, EndpointSubset, ObjectReference, Pod, Service,
    ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::pod_state::{is_ready, phase};

/// Endpoints in one slice at most.
const PER_SLICE: usize = 100;

/// A port of a Service as one pod serves it: name, protocol, number, application protocol.
type Port = (String, String, i32, Option<String>);

/// The content of one EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SliceContent {
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// Whether the Service has no virtual IP.
pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The Service's selector, if its endpoints are the controllers' business: a Service without one has
/// endpoints that somebody else writes, or none.
pub(super) fn managed_selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty());
    selector.filter(|_| spec.type_.as_deref() != Some("ExternalName"))
}

/// What of a pod matters to endpoints.
pub(super) fn relevant(pod: &Pod) -> impl PartialEq + '_ {
    let spec = pod.spec.as_ref();
    (
        pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()),
        is_ready(pod),
        pod.metadata.deletion_timestamp.is_some(),
        matches!(phase(pod), "Succeeded" | "Failed"),
        spec.and_then(|spec| spec.node_name.as_deref()),
        pod.metadata.labels.as_ref(),
        pod.metadata.uid.as_deref(),
    )
}

/// The pod's address, unless the pod is over.
fn address(pod: &Pod) -> Option<&str> {
    let ip = pod.status.as_ref()?.pod_ip.as_deref()?;
    (!ip.is_empty() && !matches!(phase(pod), "Succeeded" | "Failed")).then_some(ip)
}

/// The ports of the Service that the pod serves; a named target that the pod lacks is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let number = target_port(port, &protocol, pod)?;
            Some((port.name.clone().unwrap_or_default(), protocol, number, port.app_protocol.clone()))
        })
        .collect()
}

fn target_port(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| {
            port.name.as_ref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
        })
        .map(|port| port.container_port)
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let subdomain = spec.subdomain.as_ref().filter(|subdomain| !subdomain.is_empty());
    spec.hostname.clone().filter(|_| subdomain == service.metadata.name.as_ref())
}

fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

fn node(pod: &Pod) -> Option<String> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone())
}

fn ip_order(ip: &str) -> (Option<IpAddr>, String) {
    (ip.parse().ok(), ip.to_owned())
}

/// The subsets of the Service's Endpoints: addresses that serve the same ports together.
pub(super) fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let publishes_unready = publishes_unready(service);
    let headless_without_ports = is_headless(service)
        && service.spec.as_ref().is_none_or(|spec| spec.ports.iter().flatten().next().is_none());
    let mut groups: BTreeMap<Vec<Port>, [Vec<EndpointAddress>; 2]> = BTreeMap::new();
    for pod in pods {
        let Some(ip) = address(pod) else { continue };
        if pod.metadata.deletion_timestamp.is_some() && !publishes_unready {
            continue;
        }
        let ports = ports(service, pod);
        if ports.is_empty() && !headless_without_ports {
            continue;
        }
        let ready = publishes_unready || is_ready(pod);
        groups.entry(ports).or_default()[usize::from(!ready)].push(EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(service, pod),
            node_name: node(pod),
            target_ref: Some(target(pod)),
        });
    }
    let some = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by_cached_key(|address| ip_order(&address.ip));
        (!addresses.is_empty()).then_some(addresses)
    };
    groups
        .into_iter()
        .map(|(ports, [ready, unready])| EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(unready),
            ports: (!ports.is_empty()).then(|| {
                let port = |(name, protocol, port, app_protocol): Port| AddressPort {
                    name: (!name.is_empty()).then_some(name),
                    protocol: Some(protocol),
                    port,
                    app_protocol,
                };
                ports.into_iter().map(port).collect()
            }),
        })
        .collect()
}

/// The contents of the Service's EndpointSlices. A Service without pods has one empty slice.
pub(super) fn slices(service: &Service, pods: &[Arc<Pod>]) -> Vec<SliceContent> {
    let publishes_unready = publishes_unready(service);
    let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods {
        let Some(ip) = address(pod) else { continue };
        let (serving, terminating) = (is_ready(pod), pod.metadata.deletion_timestamp.is_some());
        groups.entry(ports(service, pod)).or_default().push(Endpoint {
            addresses: vec![ip.to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some(publishes_unready || serving && !terminating),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: hostname(service, pod),
            node_name: node(pod),
            target_ref: Some(target(pod)),
            ..Endpoint::default()
        });
    }
    if groups.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    let mut contents = Vec::new();
    for (ports, mut endpoints) in groups {
        endpoints.sort_by_cached_key(|endpoint| ip_order(&endpoint.addresses[0]));
        let port = |(name, protocol, port, app_protocol): Port| EndpointPort {
            name: Some(name),
            protocol: Some(protocol),
            port: Some(port),
            app_protocol,
        };
        let ports: Vec<EndpointPort> = ports.into_iter().map(port).collect();
        if endpoints.is_empty() {
            contents.push(SliceContent { ports: ports.clone(), endpoints: Vec::new() });
        }
        for chunk in endpoints.chunks(PER_SLICE) {
            contents.push(SliceContent { ports: ports.clone(), endpoints: chunk.to_vec() });
        }
    }
    contents
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": spec}))
            .unwrap()
    }

    fn pod(name: &str, ip: &str, ready: bool, terminating: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let deleted = terminating.then_some("2020-03-17T12:00:00Z");
        let pod = json!({
            "metadata": {"name": name, "deletionTimestamp": deleted},
            "spec": {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 9898}]}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn pods() -> Vec<Arc<Pod>> {
        vec![
            pod("b", "10.0.0.10", true, false),
            pod("a", "10.0.0.9", true, false),
            pod("unready", "10.0.0.11", false, false),
            pod("leaving", "10.0.0.12", true, true),
            pod("addressless", "", false, false),
        ]
    }

    /// `port: ready | not ready` per subset.
    fn check_subsets(spec: Value, expect: &[&str]) {
        let addresses = |addresses: Option<Vec<EndpointAddress>>| {
            addresses.unwrap_or_default().into_iter().map(|address| address.ip).collect::<Vec<_>>().join(" ")
        };
        let subsets: Vec<_> = subsets(&service(spec), &pods())
            .into_iter()
            .map(|subset| {
                let ports: Vec<_> =
                    subset.ports.into_iter().flatten().map(|port| port.port.to_string()).collect();
                let (ready, unready) = (addresses(subset.addresses), addresses(subset.not_ready_addresses));
                format!("{}: {ready} | {unready}", ports.join(","))
            })
            .collect();
        assert_eq!(subsets, expect);
    }

    #[test]
    fn subsets_by_readiness() {
        check_subsets(
            json!({"ports": [
                {"port": 80, "targetPort": "http"}, {"port": 90, "name": "g", "targetPort": 9999}]}),
            &["9898,9999: 10.0.0.9 10.0.0.10 | 10.0.0.11"],
        );
        check_subsets(json!({"ports": [{"port": 80, "targetPort": "absent"}]}), &[]);
        check_subsets(json!({"clusterIP": "None"}), &[": 10.0.0.9 10.0.0.10 | 10.0.0.11"]);
        check_subsets(
            json!({"ports": [{"port": 9898}], "publishNotReadyAddresses": true}),
            &["9898: 10.0.0.9 10.0.0.10 10.0.0.11 10.0.0.12 | "],
        );
    }

    #[test]
    fn slices_keep_leaving_pods_and_split_at_a_hundred() {
        let service = service(json!({"ports": [{"port": 80, "name": "http", "targetPort": "http"}]}));
        let contents = slices(&service, &pods());
        let states: Vec<_> = contents[0]
            .endpoints
            .iter()
            .map(|endpoint| {
                let conditions = endpoint.conditions.clone().unwrap();
                (endpoint.addresses[0].clone(), conditions.ready.unwrap(), conditions.terminating.unwrap())
            })
            .collect();
        let expect = [
            ("10.0.0.9", true, false),
            ("10.0.0.10", true, false),
            ("10.0.0.11", false, false),
            ("10.0.0.12", false, true),
        ]
        .map(|(ip, ready, terminating)| (ip.to_owned(), ready, terminating));
        assert_eq!(states, expect);
        assert_eq!(contents[0].ports[0].port, Some(9898));
        let many: Vec<_> =
            (0..150).map(|n| pod(&format!("p{n}"), &format!("10.0.1.{n}"), true, false)).collect();
        let sizes: Vec<_> = slices(&service, &many).iter().map(|slice| slice.endpoints.len()).collect();
        assert_eq!(sizes, [100, 50]);
        assert_eq!(slices(&service, &[]), [SliceContent { ports: vec![], endpoints: vec![] }]);
    }
}
