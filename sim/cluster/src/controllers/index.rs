//! Objects by label and by owner, kept up by an informer's changes: what a controller asks for one of its objects must
//! not cost a walk over all objects of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use program::Change;

use super::ownership::controller_of;
use super::selector::selects;

/// Namespace and name.
type Name = (String, String);

/// An index of one kind's objects. Cheap to clone; clones share it.
pub(super) struct Index<K>(Arc<Mutex<Entries<K>>>);

struct Entries<K> {
    objects: BTreeMap<Name, Arc<K>>,
    /// By namespace, label and value.
    labelled: BTreeMap<(String, String, String), BTreeSet<Name>>,
    /// By the uid of the controlling owner.
    owned: BTreeMap<String, BTreeSet<Name>>,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Index(Arc::clone(&self.0))
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        let entries = Entries { objects: BTreeMap::new(), labelled: BTreeMap::new(), owned: BTreeMap::new() };
        Index(Arc::new(Mutex::new(entries)))
    }
}

impl<K: Resource> Index<K> {
    /// Takes a change of the informer over.
    pub(super) fn observe(&self, change: &Change<'_, K>) {
        let mut entries = self.lock();
        match change {
            Change::Applied { old: Some(old), new } if is_filed_alike(old.as_ref(), new.as_ref()) => {
                entries.objects.insert(name(new), Arc::clone(new));
            }
            Change::Applied { old, new } => {
                if let Some(old) = old {
                    entries.remove(old);
                }
                entries.insert(new);
            }
            Change::Deleted(object) => entries.remove(object),
        }
    }

    /// The objects of a namespace that a selector selects, and those that `uid` controls, by name.
    pub(super) fn candidates(
        &self,
        namespace: &str,
        selector: &LabelSelector,
        uid: Option<&str>,
    ) -> Vec<Arc<K>> {
        let entries = self.lock();
        let fits = |object: &&Arc<K>| selects(selector, object.meta().labels.as_ref());
        let mut all: Vec<Arc<K>> = match entries.narrowest(namespace, selector) {
            Narrowest::Nothing => Vec::new(),
            Narrowest::Some(names) => entries.named(names).filter(fits).cloned().collect(),
            Narrowest::Namespace => {
                let first = (namespace.to_owned(), String::new());
                let within = entries.objects.range(first..).take_while(|((of, _), _)| of == namespace);
                within.map(|(_, object)| object).filter(fits).cloned().collect()
            }
        };
        let owned = uid.and_then(|uid| entries.owned.get(uid));
        let owned = owned.into_iter().flat_map(|names| entries.named(names));
        all.extend(owned.filter(|object| !fits(object)).cloned());
        all.sort_by(|one, other| one.meta().name.cmp(&other.meta().name));
        all
    }

    /// The objects that `uid` controls, by namespace and name.
    pub(super) fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let entries = self.lock();
        entries.owned.get(uid).map(|names| entries.named(names).cloned().collect()).unwrap_or_default()
    }

    /// The objects of a namespace with a label, by name.
    pub(super) fn labelled(&self, namespace: &str, label: &str, value: &str) -> Vec<Arc<K>> {
        let key = (namespace.to_owned(), label.to_owned(), value.to_owned());
        let entries = self.lock();
        entries.labelled.get(&key).map(|names| entries.named(names).cloned().collect()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// The smallest set that holds everything that a selector selects.
enum Narrowest<'a> {
    Nothing,
    Some(&'a BTreeSet<Name>),
    /// The selector names no label and value: any object of the namespace may be.
    Namespace,
}

impl<K: Resource> Entries<K> {
    fn named<'a>(&'a self, names: &'a BTreeSet<Name>) -> impl Iterator<Item = &'a Arc<K>> {
        names.iter().filter_map(|name| self.objects.get(name))
    }

    fn narrowest(&self, namespace: &str, selector: &LabelSelector) -> Narrowest<'_> {
        let mut narrowest: Option<&BTreeSet<Name>> = None;
        for (label, value) in selector.match_labels.iter().flatten() {
            let found = self.labelled.get(&(namespace.to_owned(), label.clone(), value.clone()));
            let Some(found) = found else { return Narrowest::Nothing };
            if narrowest.is_none_or(|narrowest| found.len() < narrowest.len()) {
                narrowest = Some(found);
            }
        }
        narrowest.map_or(Narrowest::Namespace, Narrowest::Some)
    }

    fn insert(&mut self, object: &Arc<K>) {
        let name = name(object);
        for key in labels(object) {
            self.labelled.entry(key).or_default().insert(name.clone());
        }
        if let Some(owner) = controller_of(object.meta()) {
            self.owned.entry(owner.uid.clone()).or_default().insert(name.clone());
        }
        self.objects.insert(name, Arc::clone(object));
    }

    fn remove(&mut self, object: &Arc<K>) {
        fn take<Q: Ord>(map: &mut BTreeMap<Q, BTreeSet<Name>>, key: &Q, name: &Name) {
            if let Some(names) = map.get_mut(key) {
                names.remove(name);
                if names.is_empty() {
                    map.remove(key);
                }
            }
        }
        let name = name(object);
        for key in labels(object) {
            take(&mut self.labelled, &key, &name);
        }
        if let Some(owner) = controller_of(object.meta()) {
            take(&mut self.owned, &owner.uid, &name);
        }
        self.objects.remove(&name);
    }
}

/// Whether two states of an object are found by the same labels and owner, as most changes leave it.
fn is_filed_alike<K: Resource>(one: &K, other: &K) -> bool {
    let (one, other) = (one.meta(), other.meta());
    one.labels == other.labels
        && controller_of(one).map(|owner| &owner.uid) == controller_of(other).map(|owner| &owner.uid)
}

fn name<K: Resource>(object: &Arc<K>) -> Name {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn labels<K: Resource>(object: &Arc<K>) -> impl Iterator<Item = (String, String, String)> {
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let labels = object.meta().labels.clone().unwrap_or_default();
    labels.into_iter().map(move |(label, value)| (namespace.clone(), label, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn pod(name: &str, labels: Value, owner: Option<&str>) -> Arc<Pod> {
        let owners = owner.map(
            |uid| json!([{"apiVersion": "v1", "kind": "A", "name": "a", "uid": uid, "controller": true}]),
        );
        let metadata =
            json!({"name": name, "namespace": "test", "labels": labels, "ownerReferences": owners});
        Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    #[test]
    fn it_holds_what_a_walk_would_find() {
        let index = Index::default();
        let first = pod("a", json!({"app": "x", "hash": "1"}), Some("u1"));
        let second = pod("b", json!({"app": "x", "hash": "2"}), None);
        let third = pod("c", json!({"app": "y"}), Some("u1"));
        for new in [&first, &second, &third] {
            index.observe(&Change::Applied { old: None, new });
        }
        let check = |selector: Value, uid: Option<&str>, expected: &[&str]| {
            let selector: LabelSelector = serde_json::from_value(selector).unwrap();
            let found = index.candidates("test", &selector, uid);
            let names: Vec<&str> = found.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
            assert_eq!(names, expected, "{selector:?} of {uid:?}");
        };
        check(json!({"matchLabels": {"app": "x"}}), None, &["a", "b"]);
        check(json!({"matchLabels": {"app": "x", "hash": "2"}}), None, &["b"]);
        check(json!({"matchLabels": {"app": "x", "hash": "2"}}), Some("u1"), &["a", "b", "c"]);
        check(json!({"matchLabels": {"app": "z"}}), None, &[]);
        check(json!({"matchExpressions": [{"key": "hash", "operator": "DoesNotExist"}]}), None, &["c"]);
        let changed = pod("a", json!({"app": "z"}), None);
        index.observe(&Change::Applied { old: Some(&first), new: &changed });
        check(json!({"matchLabels": {"app": "x"}}), Some("u1"), &["b", "c"]);
        let as_before = pod("a", json!({"app": "z"}), None);
        index.observe(&Change::Applied { old: Some(&changed), new: &as_before });
        let found = index.labelled("test", "app", "z");
        assert!(Arc::ptr_eq(&found[0], &as_before), "the newest state");
        check(json!({}), None, &["a", "b", "c"]);
        index.observe(&Change::Deleted(&second));
        check(json!({"matchLabels": {"app": "x"}}), None, &[]);
        assert_eq!(index.labelled("test", "app", "z").len(), 1);
        assert_eq!(index.owned_by("u1").len(), 1);
    }
}
