//! Services as targets: somebody else's pods, told apart by the Services that point at them.

use std::sync::Arc;

use canary::Dialect;
use crd::Canary;
use k8s_openapi::api::core::v1::Service;
use program::Api;

use crate::istio::KUBECTL_ANNOTATION;
use crate::kubernetes::{ATTEMPTS, is_conflict, is_not_found, text};
use crate::log::{Site, site};
use crate::owner;
use crate::tick::Tick;
use crate::workload::Which;

const CREATED: Site = site("canary/service_controller.go:134", "canary/service_controller.go:145");
const UPDATED: Site = site("canary/service_controller.go:103", "canary/service_controller.go:111");

/// A copy of the target under another name.
fn copy(canary: &Canary, name: &str, target: &Service, dialect: Dialect) -> Service {
    let mut service = target.clone();
    service.status = None;
    service.metadata.name = Some(name.to_owned());
    service.metadata.owner_references = Some(vec![owner::reference(canary)]);
    if let Some(annotations) = &mut service.metadata.annotations {
        annotations.remove(KUBECTL_ANNOTATION);
    }
    let distribution = &canary.spec.service.traffic_distribution;
    if dialect == Dialect::Latest && !distribution.is_empty() {
        service.spec.get_or_insert_default().traffic_distribution = Some(distribution.clone());
    }
    service
}

fn has_cluster_ip(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    matches!(kind, Some("ClusterIP") | None)
}

fn take_cluster_ip(service: &mut Service, from: Option<&Service>) {
    let spec = service.spec.get_or_insert_default();
    let from = from.and_then(|from| from.spec.clone()).unwrap_or_default();
    spec.cluster_ip = from.cluster_ip;
    spec.cluster_ips = from.cluster_ips;
}

impl Tick {
    fn services(&self) -> Api<Service> {
        Api::namespaced(self.shell.client.clone(), self.canary.namespace())
    }

    async fn service_named(&self, name: &str) -> Result<Arc<Service>, String> {
        let namespace = self.canary.namespace();
        self.services().get(name).await.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 if is_not_found(&error) => format!("service {name}.{namespace} not found"),
            Dialect::Rc1 => format!("service {name}.{namespace} query error {}", text(&error)),
            Dialect::Latest => format!("service {name}.{namespace} get query error: {}", text(&error)),
        })
    }

    /// The Service that is the target.
    pub async fn target_service(&self) -> Result<Arc<Service>, String> {
        self.service_named(&self.workload_name(Which::Target)).await
    }

    /// Makes the copies for canary and primary; the canary's follows the target.
    pub async fn ensure_service_copies(&self) -> Result<(), String> {
        let (target, namespace) = (self.workload_name(Which::Target), self.canary.namespace());
        let dialect = self.shell.dialect;
        let source = self.services().get(&target).await.map_err(|error| match dialect {
            Dialect::Rc1 => text(&error),
            // As upstream, which names the primary here.
            Dialect::Latest => {
                format!("service {target}-primary.{namespace} get query error: {}", text(&error))
            }
        })?;
        let wrap = |verb: &str, error: String| match dialect {
            Dialect::Rc1 => error,
            Dialect::Latest => format!("{verb} failed: {error}"),
        };
        let follows = self.ensure_copy(&format!("{target}-canary"), &source, true).await;
        follows.map_err(|error| wrap("reconcileCanaryService", error))?;
        let made = self.ensure_copy(&format!("{target}-primary"), &source, false).await;
        made.map_err(|error| wrap("reconcilePrimaryService", error))
    }

    async fn ensure_copy(&self, name: &str, source: &Service, follows: bool) -> Result<(), String> {
        let (api, namespace, dialect) = (self.services(), self.canary.namespace(), self.shell.dialect);
        let mut wanted = copy(&self.canary, name, source, dialect);
        let current = match api.get(name).await {
            Ok(current) => current,
            Err(error) if is_not_found(&error) => {
                if has_cluster_ip(&wanted) {
                    take_cluster_ip(&mut wanted, None);
                }
                wanted.metadata.resource_version = None;
                wanted.metadata.uid = None;
                wanted.metadata.creation_timestamp = None;
                let created = api.create(&wanted).await;
                created.map_err(|error| match dialect {
                    Dialect::Rc1 => text(&error),
                    Dialect::Latest => {
                        format!("creating service {} query error: {}", self.key, text(&error))
                    }
                })?;
                self.info(CREATED, &format!("Service {name}.{namespace} created"));
                return Ok(());
            }
            Err(error) => {
                return Err(match dialect {
                    Dialect::Rc1 => format!("service {name} query error {}", text(&error)),
                    Dialect::Latest => {
                        format!("service {name}.{namespace} get query error: {}", text(&error))
                    }
                });
            }
        };
        if !follows {
            return Ok(());
        }
        if has_cluster_ip(&wanted) {
            take_cluster_ip(&mut wanted, Some(&current));
        }
        wanted.metadata.uid = current.metadata.uid.clone();
        wanted.metadata.resource_version = current.metadata.resource_version.clone();
        wanted.metadata.creation_timestamp = current.metadata.creation_timestamp.clone();
        let updated = api.replace(name, &wanted).await;
        updated.map_err(|error| match dialect {
            Dialect::Rc1 => text(&error),
            Dialect::Latest => format!("updating service {name}.{namespace} failed: {}", text(&error)),
        })?;
        self.info(UPDATED, &format!("Service {name}.{namespace} updated"));
        Ok(())
    }

    /// Copies the target's spec to the primary.
    pub async fn promote_service(&self) -> Result<(), String> {
        let (name, namespace) = (self.workload_name(Which::Primary), self.canary.namespace());
        let newer = self.shell.dialect == Dialect::Latest;
        let attempts = if newer { ATTEMPTS } else { 1 };
        for attempt in 1..=attempts {
            let target = self.target_service().await?;
            let primary = self.service_named(&name).await?;
            let mut promoted = Service::clone(&target);
            promoted.metadata.name = Some(name.clone());
            promoted.metadata.resource_version = primary.metadata.resource_version.clone();
            promoted.metadata.uid = primary.metadata.uid.clone();
            promoted.metadata.creation_timestamp = primary.metadata.creation_timestamp.clone();
            if has_cluster_ip(&promoted) {
                take_cluster_ip(&mut promoted, Some(&primary));
            }
            if newer {
                let kept = &self.shell.options.include_label_prefix;
                promoted.metadata.labels = Some(owner::included(target.metadata.labels.as_ref(), kept));
                promoted.metadata.annotations =
                    Some(owner::included(target.metadata.annotations.as_ref(), kept));
            }
            match self.services().replace(&name, &promoted).await {
                Err(error) if attempt < attempts && is_conflict(&error) => {}
                result => {
                    return result.map(drop).map_err(|error| {
                        format!("updating service {name}.{namespace} spec failed: {}", text(&error))
                    });
                }
            }
        }
        Ok(())
    }
}
