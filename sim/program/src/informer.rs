//! A list-and-watch cache: client-go's shared informer, with an order.
//!
//! kube's reflector keeps its objects in hash order and its watcher retries with jitter; this cache hands objects out
//! by namespace and name, and tries again after a fixed second.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use clock::Clock;
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::Tasks;
use crate::raw::{self, Raw};

/// A change that an informer saw.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// An object is new, or differs from before.
    Applied {
        /// The object as the cache had it.
        old: Option<&'a Arc<K>>,
        /// The object as it is.
        new: &'a Arc<K>,
    },
    /// An object is gone; its last known state.
    Deleted(&'a Arc<K>),
}

impl<K> Change<'_, K> {
    /// The object's newest known state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Applied { new, .. } => new,
            Change::Deleted(object) => object,
        }
    }
}

/// What an informer calls with each change.
pub(crate) type OnChange<K> = Box<dyn Fn(Change<'_, K>) + Send + Sync>;

type Objects<K> = BTreeMap<(String, String), Arc<K>>;

/// A cache of one kind's objects, kept up by a watch. Cheap to clone.
pub struct Informer<K> {
    objects: Arc<Mutex<Objects<K>>>,
    synced: watch::Receiver<bool>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer { objects: Arc::clone(&self.objects), synced: self.synced.clone() }
    }
}

impl<K> Informer<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts to list and watch in a background task of `tasks`. `on_change` runs after the cache has taken a change;
    /// it must not block.
    pub fn start(
        tasks: &Tasks,
        clock: Clock,
        api: Api<K>,
        config: watcher::Config,
        on_change: impl Fn(Change<'_, K>) + Send + Sync + 'static,
    ) -> Self {
        Informer::start_boxed(tasks, clock, api, config, Box::new(on_change))
    }

    /// Compiled once per kind, not once per caller.
    pub(crate) fn start_boxed(
        tasks: &Tasks,
        clock: Clock,
        api: Api<K>,
        config: watcher::Config,
        on_change: OnChange<K>,
    ) -> Self {
        let (done, synced) = watch::channel(false);
        let informer = Informer { objects: Arc::default(), synced };
        let objects = Arc::clone(&informer.objects);
        let mut listed: Objects<K> = BTreeMap::new();
        let take = move |event: watcher::Event<Raw>| match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(raw) => {
                if let Some(object) = raw.typed::<K>() {
                    listed.insert(key(object.as_ref()), object);
                }
            }
            watcher::Event::InitDone => {
                replace(&objects, std::mem::take(&mut listed), &on_change);
                done.send_replace(true);
            }
            watcher::Event::Apply(raw) => {
                let Some(new) = raw.typed::<K>() else { return };
                let old = lock(&objects).insert(key(new.as_ref()), Arc::clone(&new));
                on_change(Change::Applied { old: old.as_ref(), new: &new });
            }
            watcher::Event::Delete(raw) => {
                let Some(object) = raw.typed::<K>() else { return };
                lock(&objects).remove(&key(object.as_ref()));
                on_change(Change::Deleted(&object));
            }
        };
        raw::watch(tasks, clock, raw::api_of(api), config, Box::new(take));
        informer
    }

    /// One object; `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        lock(&self.objects).get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        lock(&self.objects).values().cloned().collect()
    }

    /// Waits until the first list is in.
    pub async fn synced(&self) {
        // The sender lives as long as the watch; without it nothing will ever be in.
        let _ = self.synced.clone().wait_for(|done| *done).await;
    }
}

fn lock<K>(objects: &Mutex<Objects<K>>) -> std::sync::MutexGuard<'_, Objects<K>> {
    objects.lock().expect("no holder of this lock panics")
}

fn key<K: Resource>(object: &K) -> (String, String) {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Takes a fresh list in place of the cache: what is missing in it has been deleted meanwhile.
fn replace<K: Resource>(objects: &Mutex<Objects<K>>, listed: Objects<K>, on_change: &OnChange<K>) {
    let before = std::mem::replace(&mut *lock(objects), listed.clone());
    for (key, object) in &before {
        if !listed.contains_key(key) {
            on_change(Change::Deleted(object));
        }
    }
    for (key, new) in &listed {
        let old = before.get(key);
        if old.is_none_or(|old| old.meta().resource_version != new.meta().resource_version) {
            on_change(Change::Applied { old, new });
        }
    }
}
