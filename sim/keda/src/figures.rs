//! Figures of external metrics, as autoscalers get them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The label by which an autoscaler's metric names its ScaledObject.
pub(crate) const SCALED_OBJECT: &str = "scaledobject.keda.sh/name";

/// Cluster, namespace, ScaledObject.
type Of = (String, String, String);

/// The newest figures of all clusters' ScaledObjects. Cheap to clone; clones share them.
#[derive(Clone, Default)]
pub struct Figures(Arc<Mutex<BTreeMap<Of, BTreeMap<String, f64>>>>);

impl Figures {
    /// The figure of a metric that an autoscaler asks for by name and labels.
    pub fn get(
        &self,
        cluster: &str,
        namespace: &str,
        metric: &str,
        labels: &BTreeMap<String, String>,
    ) -> Option<f64> {
        let of = (cluster.to_owned(), namespace.to_owned(), labels.get(SCALED_OBJECT)?.clone());
        self.lock().get(&of)?.get(metric).copied()
    }

    /// Sets all figures of a ScaledObject.
    pub(crate) fn set(&self, cluster: &str, namespace: &str, name: &str, figures: BTreeMap<String, f64>) {
        self.lock().insert((cluster.to_owned(), namespace.to_owned(), name.to_owned()), figures);
    }

    /// Forgets a ScaledObject.
    pub(crate) fn remove(&self, cluster: &str, namespace: &str, name: &str) {
        self.lock().remove(&(cluster.to_owned(), namespace.to_owned(), name.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Of, BTreeMap<String, f64>>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
