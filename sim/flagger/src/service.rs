//! The Services: apex and primary select the primary's pods, the canary's selects the target's.

use std::collections::BTreeMap;

use canary::Dialect;
use crd::{Canary, CustomMetadata};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::owner::{self, Labels};
use crate::pods::Selector;

/// One of a Canary's three Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The name that clients use.
    Apex,
    /// The primary's.
    Primary,
    /// The target's.
    Canary,
}

impl Role {
    /// The Service's name.
    pub fn service(self, canary: &Canary) -> String {
        let apex = canary.spec.apex_name();
        match self {
            Role::Apex => apex.to_owned(),
            Role::Primary => format!("{apex}-primary"),
            Role::Canary => format!("{apex}-canary"),
        }
    }

    fn custom(self, canary: &Canary) -> Option<&CustomMetadata> {
        let service = &canary.spec.service;
        match self {
            Role::Apex => service.apex.as_ref(),
            Role::Primary => service.primary.as_ref(),
            Role::Canary => service.canary.as_ref(),
        }
    }
}

/// What Services are made of.
#[derive(Clone, Copy)]
pub struct Recipe<'a> {
    /// The Canary.
    pub canary: &'a Canary,
    /// How pods are told apart.
    pub selector: &'a Selector,
    /// The containers' other ports, if they are to be discovered.
    pub ports: &'a BTreeMap<String, i32>,
    /// The release that is followed.
    pub dialect: Dialect,
}

impl Recipe<'_> {
    /// A Service as it is first made.
    pub fn create(&self, role: Role) -> Service {
        let name = role.service(self.canary);
        let metadata = owner::metadata(self.canary, &name, self.labels(role), self.annotations(role));
        Service { metadata, spec: Some(self.spec(role)), status: None }
    }

    /// Corrects an existing Service; `None` if nothing differs.
    pub fn correct(&self, role: Role, existing: &Service) -> Option<Service> {
        let mut wanted = self.spec(role);
        let spec = existing.spec.clone().unwrap_or_default();
        if self.dialect == Dialect::Latest {
            for port in wanted.ports.iter_mut().flatten() {
                let old = spec.ports.iter().flatten().find(|old| old.name == port.name);
                port.node_port = old.and_then(|old| old.node_port).filter(|number| *number > 0);
            }
        }
        let sorted = |ports: &Option<Vec<ServicePort>>| {
            let mut ports = ports.clone().unwrap_or_default();
            ports.sort_by_key(|port| port.port);
            ports
        };
        let mut corrected = existing.clone();
        let mut differs = false;
        if sorted(&wanted.ports) != sorted(&spec.ports) || wanted.selector != spec.selector {
            let spec = corrected.spec.get_or_insert_default();
            spec.ports = wanted.ports;
            spec.selector = wanted.selector;
            differs = true;
        }
        let ours = owner::owned(&existing.metadata, self.canary.name()) == Some(true);
        if self.dialect == Dialect::Latest && ours {
            let unmanaged = self.canary.spec.service.unmanaged_metadata.clone().unwrap_or_default();
            for (existing, mut wanted, others) in [
                (&mut corrected.metadata.annotations, self.annotations(role), unmanaged.annotations),
                (&mut corrected.metadata.labels, self.labels(role), unmanaged.labels),
            ] {
                let kept = existing.iter().flatten().filter(|(name, _)| others.contains(name));
                wanted.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
                if existing.clone().unwrap_or_default() != wanted {
                    *existing = (!wanted.is_empty()).then_some(wanted);
                    differs = true;
                }
            }
        }
        differs.then_some(corrected)
    }

    fn labels(&self, role: Role) -> Labels {
        let mut labels = match self.dialect {
            Dialect::Rc1 => Labels::new(),
            Dialect::Latest => {
                role.custom(self.canary).map(|custom| custom.labels.clone()).unwrap_or_default()
            }
        };
        labels.insert(self.selector.label.clone(), role.service(self.canary));
        labels
    }

    fn annotations(&self, role: Role) -> Labels {
        match self.dialect {
            Dialect::Rc1 => Labels::new(),
            Dialect::Latest => {
                owner::without_flux(role.custom(self.canary).map(|custom| &custom.annotations))
            }
        }
    }

    fn spec(&self, role: Role) -> ServiceSpec {
        let service = &self.canary.spec.service;
        let pods = match role {
            Role::Apex | Role::Primary => self.selector.primary(),
            Role::Canary => self.selector.value.clone(),
        };
        let newer = self.dialect == Dialect::Latest;
        let target = service.target_port.clone().filter(|port| *port != IntOrString::Int(0));
        let port = |name: &str, port: i32, target: IntOrString| ServicePort {
            name: Some(name.to_owned()),
            protocol: Some("TCP".to_owned()),
            port,
            target_port: Some(target),
            ..Default::default()
        };
        let name = if service.port_name.is_empty() { "http" } else { &service.port_name };
        let mut ports = vec![port(name, service.port, target.unwrap_or(IntOrString::Int(service.port)))];
        if newer && !service.app_protocol.is_empty() {
            ports[0].app_protocol = Some(service.app_protocol.clone());
        }
        ports.extend(self.ports.iter().map(|(name, number)| port(name, *number, IntOrString::Int(*number))));
        ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: (newer && service.headless).then(|| "None".to_owned()),
            selector: Some(BTreeMap::from([(self.selector.label.clone(), pods)])),
            traffic_distribution: Some(service.traffic_distribution.clone())
                .filter(|distribution| newer && !distribution.is_empty()),
            ports: Some(ports),
            ..Default::default()
        }
    }
}
