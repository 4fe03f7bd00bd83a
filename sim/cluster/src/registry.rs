//! Which program an image runs, and how long it takes to pull.

use std::time::Duration;

use program::Main;

/// What a registry knows of an image.
#[derive(Clone)]
pub struct Image {
    /// The program.
    pub main: Main,
    /// How long a node that does not have the image takes to pull it.
    pub pull: Duration,
}

/// Images by reference.
pub trait Registry: Send + Sync {
    /// The image with this reference, e.g. `stefanprodan/podinfo:3.1.0`.
    ///
    /// # Errors
    /// Why there is none, in a container runtime's words; the pod gets `ErrImagePull`.
    fn find(&self, image: &str) -> Result<Image, String>;
}
