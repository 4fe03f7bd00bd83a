//! The images that each node has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use program::Termination;

/// Images by node. Two pods that need the same image at the same time wait for one pull.
#[derive(Default)]
pub(super) struct Images {
    present: Mutex<BTreeSet<(String, String)>>,
    pulling: Mutex<BTreeMap<(String, String), Termination>>,
}

/// What a container that needs an image has to do.
pub(super) enum Pull {
    /// Nothing: the node has it.
    Present,
    /// Wait until another pull of it ends.
    Wait(Termination),
    /// Pull it, then drop the guard. An image that is there already takes only a look.
    Start { guard: PullGuard, is_present: bool },
    /// Wait for somebody else to bring it: the pod must not pull.
    Forbidden,
}

/// A pull in progress; whoever waits goes on when it is dropped, in the order of waiting. (`tokio::sync::watch` would wake
/// them in a random order.)
pub(super) struct PullGuard {
    images: Arc<super::Shared>,
    key: (String, String),
    over: Termination,
}

impl PullGuard {
    /// The pull was successful.
    pub(super) fn done(self) {
        self.images.images.present.lock().expect("no holder of this lock panics").insert(self.key.clone());
    }
}

impl Drop for PullGuard {
    fn drop(&mut self) {
        self.images.images.pulling.lock().expect("no holder of this lock panics").remove(&self.key);
        self.over.request();
    }
}

/// Looks at what `node` has of `image`; `policy` is the container's `imagePullPolicy`.
pub(super) fn want(shared: &Arc<super::Shared>, node: &str, image: &str, policy: &str) -> Pull {
    let key = (node.to_owned(), image.to_owned());
    let images = &shared.images;
    let is_present = images.present.lock().expect("no holder of this lock panics").contains(&key);
    match policy {
        "Never" if !is_present => return Pull::Forbidden,
        "Always" => {}
        _ if is_present => return Pull::Present,
        _ => {}
    }
    let mut pulling = images.pulling.lock().expect("no holder of this lock panics");
    if let Some(waiting) = pulling.get(&key) {
        return Pull::Wait(waiting.clone());
    }
    let over = Termination::default();
    pulling.insert(key.clone(), over.clone());
    Pull::Start { guard: PullGuard { images: Arc::clone(shared), key, over }, is_present }
}
