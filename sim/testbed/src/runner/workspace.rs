//! A temporary folder that lives as long as a run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs of this process so far: their folders have different names.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// A folder that is removed when this value is dropped. Its name never reaches an output.
pub(super) struct Workspace(PathBuf);

impl Workspace {
    /// Creates the folder.
    pub(super) fn create() -> Result<Workspace, String> {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("coalmine-{}-{run}", std::process::id()));
        // What a killed process of the same number left behind is in the way.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)
            .map_err(|error| format!("cannot create the temporary folder {}: {error}", path.display()))?;
        Ok(Workspace(path))
    }

    /// The folder's path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
