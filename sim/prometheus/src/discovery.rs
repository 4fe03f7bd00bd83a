//! Service discovery: the objects that jobs find their targets among, kept up by watches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use program::{Api, Context, Informer, Selection};
use tokio::sync::Notify;

use crate::config::{Config, Kubernetes, Role};
use crate::relabel::Draft;
use crate::targets;

/// Watches of those kinds that the configuration needs.
#[derive(Clone, Default)]
pub(crate) struct Discovery {
    pods: Option<Informer<Pod>>,
    services: Option<Informer<Service>>,
    endpoints: Option<Informer<Endpoints>>,
    nodes: Option<Informer<Node>>,
}

/// The targets of pods, by the objects themselves: few change from one time to the next.
#[derive(Default)]
pub(crate) struct OfPods {
    last: BTreeMap<usize, (Arc<Pod>, Vec<Arc<Draft>>)>,
    now: BTreeMap<usize, (Arc<Pod>, Vec<Arc<Draft>>)>,
}

impl OfPods {
    fn of(&mut self, pod: Arc<Pod>) -> Vec<Arc<Draft>> {
        let address = Arc::as_ptr(&pod).addr();
        let OfPods { last, now } = self;
        let (_, drafts) = now.entry(address).or_insert_with(|| {
            let made = || targets::of_pod(&pod).into_iter().map(Arc::new).collect();
            last.remove(&address).unwrap_or_else(|| (Arc::clone(&pod), made()))
        });
        drafts.clone()
    }

    /// Forgets pods that nobody has asked for since the last time.
    pub(crate) fn forget_others(&mut self) {
        self.last = std::mem::take(&mut self.now);
    }
}

impl Discovery {
    /// Starts the watches; `changed` is told of every change.
    pub(crate) fn start(context: &Context, config: &Config, changed: &Arc<Notify>) -> Self {
        let roles: BTreeSet<Role> =
            config.jobs.iter().flat_map(|job| job.kubernetes.iter().map(|found| found.role)).collect();
        let client = context.apis.in_cluster();
        let tell = || {
            let changed = Arc::clone(changed);
            move || changed.notify_one()
        };
        let all = Selection::default;
        let (clock, tasks) = (context.clock, &context.tasks);
        let has_endpoints = roles.contains(&Role::Endpoints) || roles.contains(&Role::EndpointSlice);
        let mut discovery = Discovery::default();
        if roles.contains(&Role::Pod) || has_endpoints {
            let tell = tell();
            discovery.pods =
                Some(Informer::start(tasks, clock, Api::all(client.clone()), all(), move |_| tell()));
        }
        if roles.contains(&Role::Service) || has_endpoints {
            let tell = tell();
            discovery.services =
                Some(Informer::start(tasks, clock, Api::all(client.clone()), all(), move |_| tell()));
        }
        if has_endpoints {
            let tell = tell();
            discovery.endpoints =
                Some(Informer::start(tasks, clock, Api::all(client.clone()), all(), move |_| tell()));
        }
        if roles.contains(&Role::Node) {
            let tell = tell();
            discovery.nodes = Some(Informer::start(tasks, clock, Api::all(client), all(), move |_| tell()));
        }
        discovery
    }

    /// The targets of one discovery configuration, before relabelling. Those of a pod that has not changed are taken from
    /// `pods`.
    pub(crate) fn targets(&self, wanted: &Kubernetes, pods: &mut OfPods) -> Vec<Arc<Draft>> {
        let in_scope = |namespace: &Option<String>| {
            wanted.namespaces.is_empty()
                || namespace.as_ref().is_some_and(|namespace| wanted.namespaces.contains(namespace))
        };
        match wanted.role {
            Role::Pod => self
                .pods
                .iter()
                .flat_map(Informer::list)
                .filter(|pod| in_scope(&pod.metadata.namespace))
                .flat_map(|pod| pods.of(pod))
                .collect(),
            Role::Service => self
                .services
                .iter()
                .flat_map(Informer::list)
                .filter(|service| in_scope(&service.metadata.namespace))
                .flat_map(|service| targets::of_service(&service))
                .map(Arc::new)
                .collect(),
            Role::Endpoints | Role::EndpointSlice => self
                .endpoints
                .iter()
                .flat_map(Informer::list)
                .filter(|endpoints| in_scope(&endpoints.metadata.namespace))
                .flat_map(|endpoints| {
                    let namespace = endpoints.metadata.namespace.clone().unwrap_or_default();
                    let name = endpoints.metadata.name.clone().unwrap_or_default();
                    let service = self.services.as_ref().and_then(|services| services.get(&namespace, &name));
                    targets::of_endpoints(&endpoints, service.as_deref(), |pod| {
                        self.pods.as_ref()?.get(&namespace, pod)
                    })
                })
                .map(Arc::new)
                .collect(),
            Role::Node => {
                let nodes = self.nodes.iter().flat_map(Informer::list);
                nodes.flat_map(|node| targets::of_node(&node)).map(Arc::new).collect()
            }
            Role::Ingress => Vec::new(),
        }
    }
}
