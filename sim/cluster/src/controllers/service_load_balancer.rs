//! Gives Services of type LoadBalancer an address, as a cloud's service controller would.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::Patch;
use program::{Api, Informer};
use serde_json::json;

use super::event_recorder::{EventRecorder, reference};
use super::{Key, Reconcile};

pub(super) struct LoadBalancerController {
    pub(super) client: Client,
    pub(super) events: EventRecorder,
    pub(super) services: Informer<Service>,
    pub(super) next_ip: Arc<dyn Fn() -> IpAddr + Send + Sync>,
}

/// What a Service's load balancer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Address,
    Removal,
}

fn need(service: &Service) -> Need {
    let Some(spec) = &service.spec else { return Need::Nothing };
    let has_address = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref())
        .is_some_and(|ingress| !ingress.is_empty());
    // A class names another implementation, which must be left alone.
    let wanted = spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none();
    match (wanted, has_address) {
        _ if service.metadata.deletion_timestamp.is_some() => Need::Nothing,
        (true, false) => Need::Address,
        (false, true) if spec.type_.as_deref() != Some("LoadBalancer") => Need::Removal,
        _ => Need::Nothing,
    }
}

impl Reconcile for LoadBalancerController {
    async fn sync(&mut self, key: &Key) -> Result<(), kube::Error> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else { return Ok(()) };
        let object = reference(service.as_ref());
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let need = need(&service);
        let load_balancer = match need {
            Need::Nothing => return Ok(()),
            Need::Removal => json!({"ingress": null}),
            Need::Address => {
                self.events.normal(&object, "EnsuringLoadBalancer", "Ensuring load balancer");
                let asked =
                    service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_ref()?.parse().ok());
                let ip: IpAddr = asked.unwrap_or_else(|| (self.next_ip)());
                json!({"ingress": [{"ip": ip, "ipMode": "VIP"}]})
            }
        };
        let patch = json!({
            "metadata": {"resourceVersion": service.metadata.resource_version},
            "status": {"loadBalancer": load_balancer},
        });
        api.patch_status(&key.name, &Patch::Merge(&patch)).await?;
        if need == Need::Address {
            self.events.normal(&object, "EnsuredLoadBalancer", "Ensured load balancer");
        }
        Ok(())
    }
}
