//! What all ticks of a running controller share.

use std::sync::Mutex;

use canary::Dialect;
use clock::Rng;
use crd::{AlertProvider, Canary, MetricTemplate};
use kube::Client;
use program::{Api, Context, Informer};
use rand::Rng as _;

use crate::events::Events;
use crate::flags::Options;
use crate::log::Logger;
use crate::notifier::Notifier;
use crate::pods;
use crate::recorder::Recorder;

/// The controller's clients, caches and outputs.
pub struct Shell {
    /// The program's context.
    pub context: Context,
    /// The command line.
    pub options: Options,
    /// The release that is followed.
    pub dialect: Dialect,
    /// The API of the cluster whose Canaries are watched.
    pub client: Client,
    /// The API of the mesh's control plane.
    pub mesh: Client,
    /// Whether the two are the same cluster.
    pub mesh_is_own: bool,
    /// The program's log.
    pub log: Logger,
    /// Events about Canaries.
    pub events: Events,
    /// The controller's own metrics.
    pub recorder: Recorder,
    /// Where alerts go of Canaries that name no provider.
    pub notifier: Option<Notifier>,
    /// All MetricTemplates.
    pub templates: Informer<MetricTemplate>,
    /// All AlertProviders.
    pub alert_providers: Informer<AlertProvider>,
    /// Draws of UUIDs and cookies.
    pub random: Mutex<Rng>,
}

impl Shell {
    /// The Canaries of a namespace.
    pub fn canaries(&self, namespace: &str) -> Api<Canary> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A fresh random UUID.
    pub fn uuid(&self) -> String {
        let mut random = self.random.lock().expect("no holder of this lock panics");
        pods::uuid(u128::from(random.next_u64()) << 64 | u128::from(random.next_u64()))
    }

    /// A fresh cookie value: ten letters.
    pub fn cookie(&self) -> String {
        const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut random = self.random.lock().expect("no holder of this lock panics");
        (0..10).map(|_| char::from(LETTERS[(random.next_u64() % 52) as usize])).collect()
    }
}
