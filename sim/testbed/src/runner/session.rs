//! A testbed in real time: set up by the steps of its file, and kept running for others to use.

use std::path::Path;
use std::sync::Arc;

use clock::{Clock, Seed};

use super::{RunFailure, Runner, world_spec};
use crate::World;
use crate::scenario::Loaded;

/// How a testbed is opened.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// The seed, instead of the file's.
    pub seed: Option<u64>,
    /// The place (0 to 4) among the testbeds of this machine: those in different places have different addresses.
    pub place: u8,
    /// Workloads, by name, that are not started: something outside takes their place.
    pub without: Vec<String>,
}

/// A testbed that runs until this value and all clones of its world are dropped.
pub struct Session<'a> {
    runner: Runner<'a>,
}

impl<'a> Session<'a> {
    /// Starts the clusters; the steps are not carried out yet. Repositories are kept in `workspace`.
    ///
    /// # Errors
    /// A sentence that names what is wrong with the file.
    pub async fn open(
        loaded: &'a Loaded,
        options: &SessionOptions,
        clock: Clock,
        workspace: &Path,
    ) -> Result<Session<'a>, String> {
        let seed = Seed::new(options.seed.unwrap_or(loaded.scenario.spec.seed));
        let spec = crate::world::WorldSpec { loopback: Some(options.place), ..world_spec(loaded) };
        let world = World::start(&spec, clock, seed).await?;
        let mut runner = Runner::new(loaded, world, clock, seed);
        runner.left_out = options.without.iter().cloned().collect();
        runner.prepare(workspace)?;
        Ok(Session { runner })
    }

    /// The running system.
    pub fn world(&self) -> &Arc<World> {
        &self.runner.world
    }

    /// Carries out the steps of the file; traffic that starts by itself starts, and goes on until the session ends.
    ///
    /// # Errors
    /// The step that failed; what was set up before goes on.
    pub async fn set_up(&self) -> Result<(), RunFailure> {
        self.runner.steps().await
    }

    /// Sends the traffic that starts by itself. Ends only on an error.
    pub async fn send_traffic(&self) -> RunFailure {
        self.runner.automatic_traffic().await
    }
}
