//! Endpoints and EndpointSlices of Services with a selector. What they hold is decided in `addresses`.
//!
//! Both of upstream's controllers in one, since they answer to the same changes. Objects of Services without
//! a selector are left alone.

mod addresses;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use clock::Seed;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::api::DeleteParams;
use kube::{Client, ResourceExt as _};
use program::{Api, Change, Informer};

use super::index::Index;
use super::name_suffix::generated_name;
use super::ownership::controller_reference;
use super::selector::selects_all_of;
use super::{Key, Reconcile};
use addresses::{SliceContent, is_headless, managed_selector, relevant};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SLICE_MANAGER: &str = "endpointslice-controller.k8s.io";
/// Selects the slices that this controller writes.
pub(super) const MANAGED_SLICES: &str =
    "endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ENDPOINTS_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Services by one pair of their selector, which the pods that they select must have. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub(super) struct BySelector(Arc<Mutex<BTreeMap<Pair, BTreeSet<String>>>>);

/// A namespace, a label and its value.
type Pair = (String, String, String);

impl BySelector {
    /// Takes a change of a Service over.
    pub(super) fn observe(&self, change: &Change<'_, Service>) {
        let pair = |service: &Service| {
            let (label, value) = managed_selector(service)?.iter().next_back()?;
            Some((service.namespace().unwrap_or_default(), label.clone(), value.clone()))
        };
        let (old, new) = match change {
            Change::Applied { old, new } => (*old, Some(*new)),
            Change::Deleted(object) => (Some(*object), None),
        };
        let mut services = self.0.lock().expect("no holder of this lock panics");
        if let Some((pair, old)) = old.and_then(|old| Some((pair(old)?, old)))
            && let Some(names) = services.get_mut(&pair)
        {
            names.remove(&old.name_any());
        }
        if let Some((pair, new)) = new.and_then(|new| Some((pair(new)?, new))) {
            services.entry(pair).or_default().insert(new.name_any());
        }
    }

    /// The names of Services that may select a pod.
    fn of(&self, pod: &Pod) -> BTreeSet<String> {
        let services = self.0.lock().expect("no holder of this lock panics");
        let namespace = pod.namespace().unwrap_or_default();
        let pairs =
            pod.labels().iter().map(|(label, value)| (namespace.clone(), label.clone(), value.clone()));
        pairs.filter_map(|pair| services.get(&pair)).flatten().cloned().collect()
    }
}

/// Services whose endpoints a pod's change may touch.
pub(super) fn services_of(
    change: &Change<'_, Pod>,
    by_selector: &BySelector,
    services: &Informer<Service>,
) -> Vec<Key> {
    let pod = change.object();
    let old = match change {
        Change::Applied { old, new } => {
            if old.is_some_and(|old| relevant(old) == relevant(new)) {
                return Vec::new();
            }
            *old
        }
        Change::Deleted(_) => None,
    };
    let selected = |service: &Service| {
        managed_selector(service).is_some_and(|selector| {
            selects_all_of(selector, pod.metadata.labels.as_ref())
                || old.is_some_and(|old| selects_all_of(selector, old.metadata.labels.as_ref()))
        })
    };
    let mut names = by_selector.of(pod);
    names.extend(old.into_iter().flat_map(|old| by_selector.of(old)));
    let namespace = pod.namespace().unwrap_or_default();
    let found = names.into_iter().filter_map(|name| services.get(&namespace, &name));
    found.filter(|service| selected(service)).map(|service| Key::of(service.as_ref())).collect()
}

/// The Service that a slice belongs to.
pub(super) fn service_of_slice(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.labels().get(SERVICE_NAME)?.clone();
    Some(Key { namespace: slice.namespace().unwrap_or_default(), name })
}

pub(super) struct EndpointsController {
    pub(super) client: Client,
    pub(super) seed: Seed,
    pub(super) services: Informer<Service>,
    pub(super) pods: Index<Pod>,
    pub(super) endpoints: Informer<Endpoints>,
    pub(super) slices: Index<EndpointSlice>,
}

impl Reconcile for EndpointsController {
    async fn sync(&mut self, key: &Key) -> Result<(), kube::Error> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            // Slices have an owner and go with it; Endpoints only share the Service's name.
            return self.remove_endpoints(key).await;
        };
        let Some(selector) = managed_selector(&service) else { return Ok(()) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let labels = LabelSelector { match_labels: Some(selector.clone()), match_expressions: None };
        let pods = self.pods.candidates(&key.namespace, &labels, None);
        self.write_endpoints(key, &service, &pods).await?;
        self.write_slices(key, &service, &pods).await
    }
}

impl EndpointsController {
    async fn remove_endpoints(&self, key: &Key) -> Result<(), kube::Error> {
        let Some(endpoints) = self.endpoints.get(&key.namespace, &key.name) else { return Ok(()) };
        // Only what this controller wrote: somebody may keep Endpoints of his own under this name.
        if !endpoints.labels().contains_key(ENDPOINTS_MANAGED_BY) {
            return Ok(());
        }
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.delete(&key.name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            result => result.map(drop),
        }
    }

    async fn write_endpoints(
        &self,
        key: &Key,
        service: &Service,
        pods: &[Arc<Pod>],
    ) -> Result<(), kube::Error> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let subsets = addresses::subsets(service, pods);
        let subsets = (!subsets.is_empty()).then_some(subsets);
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        labels.insert(ENDPOINTS_MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
        mark_headless(&mut labels, service);
        match self.endpoints.get(&key.namespace, &key.name) {
            Some(current) => {
                if current.subsets.as_ref().filter(|subsets| !subsets.is_empty()) == subsets.as_ref()
                    && current.metadata.labels.as_ref() == Some(&labels)
                {
                    return Ok(());
                }
                let mut updated = current.as_ref().clone();
                updated.subsets = subsets;
                updated.metadata.labels = Some(labels);
                api.replace(&key.name, &updated).await.map(drop)
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(key.name.clone()),
                    namespace: Some(key.namespace.clone()),
                    labels: Some(labels),
                    ..ObjectMeta::default()
                };
                let endpoints = Endpoints { metadata, subsets };
                gone_is_fine(api.create(&endpoints).await)
            }
        }
    }

    async fn write_slices(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        labels.insert(SERVICE_NAME.to_owned(), key.name.clone());
        labels.insert(MANAGED_BY.to_owned(), SLICE_MANAGER.to_owned());
        mark_headless(&mut labels, service);
        let mut existing = self.slices.labelled(&key.namespace, SERVICE_NAME, &key.name);
        existing.retain(|slice| slice.metadata.deletion_timestamp.is_none());
        let taken: BTreeSet<String> = existing.iter().map(|slice| slice.name_any()).collect();
        let mut contents = addresses::slices(service, pods);
        // What is right already stays; then slices are reused, those with the same ports first.
        contents.retain(|content| {
            let same = |slice: &Arc<EndpointSlice>| {
                slice.ports.as_deref().unwrap_or_default() == content.ports
                    && slice.endpoints == content.endpoints
                    && slice.metadata.labels.as_ref() == Some(&labels)
            };
            existing.iter().position(same).map(|index| existing.remove(index)).is_none()
        });
        let mut drawn = 0;
        for content in contents {
            let same_ports =
                |slice: &Arc<EndpointSlice>| slice.ports.as_deref().unwrap_or_default() == content.ports;
            let reused = existing.iter().position(same_ports).or((!existing.is_empty()).then_some(0));
            match reused.map(|index| existing.remove(index)) {
                Some(slice) => {
                    let mut updated = slice.as_ref().clone();
                    updated.ports = Some(content.ports);
                    updated.endpoints = content.endpoints;
                    updated.metadata.labels = Some(labels.clone());
                    api.replace(&slice.name_any(), &updated).await?;
                }
                None => {
                    let name = self.free_name(service, &taken, &mut drawn);
                    let slice = new_slice(service, name, &labels, content);
                    gone_is_fine(api.create(&slice).await)?;
                }
            }
        }
        for slice in existing {
            match api.delete(&slice.name_any(), &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    /// The next name of the Service's own sequence that no slice has. A cache that is behind leads to the
    /// same name again, so that the API refuses a second slice for the same pods.
    fn free_name(&self, service: &Service, taken: &BTreeSet<String>, drawn: &mut usize) -> String {
        let purpose = format!(
            "{}/{}/{}",
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.name_any(),
            service.metadata.uid.as_deref().unwrap_or_default()
        );
        let mut rng = self.seed.stream(&purpose);
        let base = format!("{}-", service.name_any());
        let mut names = (0..).map(|index| (index, generated_name(&base, &mut rng)));
        let (index, name) = names
            .find(|(index, name)| index >= drawn && !taken.contains(name))
            .expect("the sequence has no end");
        *drawn = index + 1;
        name
    }
}

fn new_slice(
    service: &Service,
    name: String,
    labels: &BTreeMap<String, String>,
    content: SliceContent,
) -> EndpointSlice {
    let spec = service.spec.as_ref();
    let family = spec.and_then(|spec| spec.ip_families.as_ref()?.first()).map_or("IPv4", String::as_str);
    EndpointSlice {
        address_type: family.to_owned(),
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        ports: Some(content.ports),
        endpoints: content.endpoints,
    }
}

fn mark_headless(labels: &mut BTreeMap<String, String>, service: &Service) {
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
}

/// A namespace that is going takes no new objects, and needs none.
fn gone_is_fine<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}
