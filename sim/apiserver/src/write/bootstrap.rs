//! Objects that exist from the start, and those that come with a Namespace.

use std::sync::Arc;

use clock::Timestamp;
use tree::{Value, json};

use super::NAMESPACES;
use super::create::prepare_new;
use crate::resource::Resource;
use crate::server::State;
use crate::store::Place;

/// A cluster-scoped object that exists from the start, unless somebody made one of that name.
pub(crate) fn bootstrap(state: &mut State, collection: &str, mut object: Value, now: Timestamp) {
    let resource = collection_resource(state, collection);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let place = Place { collection: collection.into(), key: (String::new(), name) };
    if state.store.get(&place).is_none() {
        prepare_new(state, &resource, false, &mut object, now);
        state.store.put(&place, object);
    }
}

/// A Namespace that exists from the start.
pub(crate) fn bootstrap_namespace(state: &mut State, name: &str, now: Timestamp) {
    let resource = collection_resource(state, NAMESPACES);
    let mut object = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
    prepare_new(state, &resource, true, &mut object, now);
    let place = Place { collection: NAMESPACES.into(), key: (String::new(), name.to_owned()) };
    state.store.put(&place, object);
    furnish_namespace(state, name, now);
}

/// The Service by which pods find their API server.
pub(crate) fn bootstrap_kubernetes_service(state: &mut State, now: Timestamp) {
    let resource = collection_resource(state, "services");
    let ip = state.addresses.kubernetes();
    let mut object = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                 "ports": [{"name": "https", "port": 443, "targetPort": 6443}]}});
    prepare_new(state, &resource, true, &mut object, now);
    let place = Place { collection: "services".into(), key: ("default".to_owned(), "kubernetes".to_owned()) };
    state.store.put(&place, object);
}

/// What every Namespace gets: the ServiceAccount `default` and the cluster's certificate.
pub(super) fn furnish_namespace(state: &mut State, namespace: &str, now: Timestamp) {
    for (collection, kind, name, data) in [
        ("configmaps", "ConfigMap", "kube-root-ca.crt", Some(json!({"ca.crt": ""}))),
        ("serviceaccounts", "ServiceAccount", "default", None),
    ] {
        let resource = collection_resource(state, collection);
        let mut object = json!({"apiVersion": "v1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace}});
        if let Some(data) = data {
            object["data"] = data;
        }
        prepare_new(state, &resource, false, &mut object, now);
        let place = Place { collection: collection.into(), key: (namespace.to_owned(), name.to_owned()) };
        state.store.put(&place, object);
    }
}

pub(super) fn collection_resource(state: &State, name: &str) -> Arc<Resource> {
    Arc::clone(&state.store.collection(name).expect("built-in resources are served").resource)
}
