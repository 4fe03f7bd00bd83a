//! The labels of discovered objects, as `kubernetes_sd_configs` gives them.

use k8s_openapi::api::core::v1::{Container, Endpoints, Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::relabel::Draft;

/// A label name from any text: what is no letter, digit or underscore becomes an underscore.
fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

fn add(labels: &mut Draft, name: &str, value: impl Into<String>) {
    labels.insert(format!("__meta_kubernetes_{name}"), value.into());
}

fn add_metadata(labels: &mut Draft, kind: &str, metadata: &ObjectMeta) {
    for (part, map) in [("label", &metadata.labels), ("annotation", &metadata.annotations)] {
        for (name, value) in map.iter().flatten() {
            let name = sanitized(name);
            add(labels, &format!("{kind}_{part}_{name}"), value.clone());
            add(labels, &format!("{kind}_{part}present_{name}"), "true");
        }
    }
}

fn pod_labels(pod: &Pod) -> Option<Draft> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let ip = status.pod_ip.clone()?;
    let mut labels = Draft::new();
    add(&mut labels, "namespace", pod.metadata.namespace.clone().unwrap_or_default());
    add(&mut labels, "pod_name", pod.metadata.name.clone().unwrap_or_default());
    add(&mut labels, "pod_ip", ip);
    add(&mut labels, "pod_phase", status.phase.clone().unwrap_or_default());
    add(&mut labels, "pod_node_name", spec.node_name.clone().unwrap_or_default());
    add(&mut labels, "pod_host_ip", status.host_ip.clone().unwrap_or_default());
    add(&mut labels, "pod_uid", pod.metadata.uid.clone().unwrap_or_default());
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let ready = ready.map_or("unknown", |ready| if ready.status == "True" { "true" } else { "false" });
    add(&mut labels, "pod_ready", ready);
    let owners = pod.metadata.owner_references.iter().flatten();
    if let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) {
        add(&mut labels, "pod_controller_kind", owner.kind.clone());
        add(&mut labels, "pod_controller_name", owner.name.clone());
    }
    add_metadata(&mut labels, "pod", &pod.metadata);
    Some(labels)
}

/// A pod's targets: one per container port, or one per container without ports.
pub(crate) fn of_pod(pod: &Pod) -> Vec<Draft> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let (Some(base), Some(spec)) = (pod_labels(pod), &pod.spec) else { return Vec::new() };
    if matches!(phase, Some("Failed" | "Succeeded")) {
        return Vec::new();
    }
    let ip = base.get("__meta_kubernetes_pod_ip").cloned().unwrap_or_default();
    let mut targets = Vec::new();
    let inits = spec.init_containers.iter().flatten().map(|container| (container, true));
    for (container, is_init) in spec.containers.iter().map(|container| (container, false)).chain(inits) {
        let mut labels = base.clone();
        add(&mut labels, "pod_container_name", container.name.clone());
        add(&mut labels, "pod_container_image", container.image.clone().unwrap_or_default());
        add(&mut labels, "pod_container_init", if is_init { "true" } else { "false" });
        targets.extend(of_ports(container, &ip, &labels));
    }
    targets
}

fn of_ports(container: &Container, ip: &str, labels: &Draft) -> Vec<Draft> {
    let ports = container.ports.as_deref().unwrap_or_default();
    if ports.is_empty() {
        let mut labels = labels.clone();
        labels.insert("__address__".to_owned(), ip.to_owned());
        return vec![labels];
    }
    let of_port = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let mut labels = labels.clone();
        labels.insert("__address__".to_owned(), format!("{ip}:{}", port.container_port));
        add(&mut labels, "pod_container_port_number", port.container_port.to_string());
        add(&mut labels, "pod_container_port_name", port.name.clone().unwrap_or_default());
        add(
            &mut labels,
            "pod_container_port_protocol",
            port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        );
        labels
    };
    ports.iter().map(of_port).collect()
}

fn service_labels(service: &Service) -> Draft {
    let mut labels = Draft::new();
    add(&mut labels, "namespace", service.metadata.namespace.clone().unwrap_or_default());
    add(&mut labels, "service_name", service.metadata.name.clone().unwrap_or_default());
    if let Some(spec) = &service.spec {
        add(&mut labels, "service_type", spec.type_.clone().unwrap_or_default());
        add(&mut labels, "service_cluster_ip", spec.cluster_ip.clone().unwrap_or_default());
    }
    add_metadata(&mut labels, "service", &service.metadata);
    labels
}

/// A Service's targets: one per port, at its DNS name.
pub(crate) fn of_service(service: &Service) -> Vec<Draft> {
    let base = service_labels(service);
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .map(|port| {
            let mut labels = base.clone();
            labels.insert("__address__".to_owned(), format!("{name}.{namespace}.svc:{}", port.port));
            add(&mut labels, "service_port_name", port.name.clone().unwrap_or_default());
            add(&mut labels, "service_port_number", port.port.to_string());
            add(&mut labels, "service_port_protocol", port.protocol.clone().unwrap_or_default());
            labels
        })
        .collect()
}

/// The targets of Endpoints: one per address and port, with the labels of Service and pod where there are some.
pub(crate) fn of_endpoints(
    endpoints: &Endpoints,
    service: Option<&Service>,
    pod: impl Fn(&str) -> Option<std::sync::Arc<Pod>>,
) -> Vec<Draft> {
    let mut base = service.map(service_labels).unwrap_or_default();
    add(&mut base, "namespace", endpoints.metadata.namespace.clone().unwrap_or_default());
    add(&mut base, "endpoints_name", endpoints.metadata.name.clone().unwrap_or_default());
    add_metadata(&mut base, "endpoints", &endpoints.metadata);
    let mut targets = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(unready) {
            let of_pod = address
                .target_ref
                .as_ref()
                .filter(|target| target.kind.as_deref() == Some("Pod"))
                .and_then(|target| pod(target.name.as_deref()?));
            for port in subset.ports.iter().flatten() {
                let mut labels = base.clone();
                labels.insert("__address__".to_owned(), format!("{}:{}", address.ip, port.port));
                add(&mut labels, "endpoint_port_name", port.name.clone().unwrap_or_default());
                add(&mut labels, "endpoint_port_protocol", port.protocol.clone().unwrap_or_default());
                add(&mut labels, "endpoint_ready", if ready { "true" } else { "false" });
                if let Some(target) = &address.target_ref {
                    add(&mut labels, "endpoint_address_target_kind", target.kind.clone().unwrap_or_default());
                    add(&mut labels, "endpoint_address_target_name", target.name.clone().unwrap_or_default());
                }
                if let Some(node) = &address.node_name {
                    add(&mut labels, "endpoint_node_name", node.clone());
                }
                if let Some(pod) = &of_pod {
                    labels.extend(pod_labels(pod).unwrap_or_default());
                    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
                    for container in containers {
                        let numbers = container.ports.iter().flatten();
                        if let Some(own) = numbers.into_iter().find(|own| own.container_port == port.port) {
                            add(&mut labels, "pod_container_name", container.name.clone());
                            add(&mut labels, "pod_container_port_name", own.name.clone().unwrap_or_default());
                            add(&mut labels, "pod_container_port_number", own.container_port.to_string());
                        }
                    }
                }
                targets.push(labels);
            }
        }
    }
    targets
}

/// A node's target: its kubelet.
pub(crate) fn of_node(node: &Node) -> Vec<Draft> {
    let mut labels = Draft::new();
    let name = node.metadata.name.clone().unwrap_or_default();
    add(&mut labels, "node_name", name.clone());
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut internal = None;
    for address in addresses {
        add(&mut labels, &format!("node_address_{}", sanitized(&address.type_)), address.address.clone());
        if address.type_ == "InternalIP" {
            internal = Some(address.address.clone());
        }
    }
    add_metadata(&mut labels, "node", &node.metadata);
    labels.insert("instance".to_owned(), name);
    labels.insert("__address__".to_owned(), format!("{}:10250", internal.unwrap_or_default()));
    vec![labels]
}
