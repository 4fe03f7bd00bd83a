//! A list-and-watch cache: client-go's shared informer, with an order.
//!
//! kube's reflector keeps its objects in hash order; this cache hands them out by namespace and name.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use clock::Clock;
use kinds::Kind;
use kube::Resource;
use tokio::sync::watch;

use crate::watch::{Object, Seen, Selection, list_and_watch};
use crate::{Api, Tasks};

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

impl<K: Kind + Resource> Informer<K> {
    /// Starts to list and watch in a background task of `tasks`. `on_change` runs after the cache has taken a change;
    /// it must not block.
    pub fn start(
        tasks: &Tasks,
        clock: Clock,
        api: Api<K>,
        selection: Selection,
        on_change: impl Fn(Change<'_, K>) + Send + Sync + 'static,
    ) -> Self {
        Informer::start_boxed(tasks, clock, api, selection, Box::new(on_change))
    }

    /// Compiled once per kind, not once per caller.
    pub(crate) fn start_boxed(
        tasks: &Tasks,
        clock: Clock,
        api: Api<K>,
        selection: Selection,
        on_change: OnChange<K>,
    ) -> Self {
        let (done, synced) = watch::channel(false);
        let informer = Informer { objects: Arc::default(), synced };
        let objects = Arc::clone(&informer.objects);
        let read = |object: Object| {
            let object = object.typed::<K>()?;
            Some((key(object.as_ref()), object))
        };
        let take = move |seen: Seen| {
            match seen {
                Seen::Listed(all) => {
                    replace(&objects, all.into_iter().filter_map(read).collect(), &on_change);
                    done.send_replace(true);
                }
                Seen::Applied(object) => {
                    if let Some((key, new)) = read(object) {
                        let old = lock(&objects).insert(key, Arc::clone(&new));
                        on_change(Change::Applied { old: old.as_ref(), new: &new });
                    }
                }
                Seen::Deleted(object) => {
                    if let Some((key, object)) = read(object) {
                        lock(&objects).remove(&key);
                        on_change(Change::Deleted(&object));
                    }
                }
                Seen::Failed(_) => {}
            }
            ControlFlow::Continue(())
        };
        let path = api.path().to_owned();
        let client = api.into_client();
        tasks.spawn(async move { list_and_watch(clock, client, &path, selection, Box::new(take)).await });
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
