//! The folder of a running testbed: kubeconfigs, `testbed.json`, repositories.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The file that tells what runs.
pub const STATE_FILE: &str = "testbed.json";
const REPOSITORIES: &str = "repositories";

/// A testbed's folder. Cheap to clone. What was written into it is removed when it is closed, and the folder too if it
/// was made for the testbed.
#[derive(Clone, Debug)]
pub struct Folder(std::sync::Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    created: bool,
    keep: bool,
    /// What was written; `None` once the folder is closed.
    written: std::sync::Mutex<Option<Vec<PathBuf>>>,
}

impl Folder {
    /// Makes the folder, or takes an existing one in which no testbed runs.
    ///
    /// # Errors
    /// A sentence that says what is in the way.
    pub fn create(path: Option<&Path>, keep: bool) -> Result<Folder, String> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("coalmine-up-{}", std::process::id())),
        };
        let in_use = path.join(STATE_FILE);
        if in_use.exists() {
            return Err(format!(
                "{} exists: a testbed runs in that folder (end it with `coalmine down --dir {}`), or one was killed there (remove the folder)",
                in_use.display(),
                path.display()
            ));
        }
        let created = !path.exists();
        if created {
            // Kubeconfigs with an administrator's key go there.
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|error| format!("cannot create the folder {}: {error}", path.display()))?;
        }
        let path = fs::canonicalize(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let inner = Inner { path, created, keep, written: std::sync::Mutex::new(Some(Vec::new())) };
        let folder = Folder(std::sync::Arc::new(inner));
        let workspace = folder.workspace();
        fs::create_dir_all(&workspace)
            .map_err(|error| format!("cannot create the folder {}: {error}", workspace.display()))?;
        Ok(folder)
    }

    /// Removes what was written; nothing is written any more, by other clones either.
    pub fn close(&self) {
        self.0.close();
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Where repositories are kept.
    pub fn workspace(&self) -> PathBuf {
        self.0.path.join(REPOSITORIES)
    }

    /// Writes a file that only its owner can read, whole or not at all; returns its path.
    ///
    /// # Errors
    /// A sentence with the file's name.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.0.path.join(name);
        let new = self.0.path.join(format!(".{name}.new"));
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&new, &path)
        };
        let mut written = self.0.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(written) = written.as_mut() else { return Ok(path) };
        write().map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        if !written.contains(&path) {
            written.push(path.clone());
        }
        Ok(path)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn close(&self) {
        let mut written = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(written) = written.take() else { return };
        // Whoever waits for the testbed's end looks for this file: it goes last.
        let state = self.path.join(STATE_FILE);
        if !self.keep {
            let _ = fs::remove_dir_all(self.path.join(REPOSITORIES));
            for file in written.iter().filter(|file| **file != state) {
                let _ = fs::remove_file(file);
            }
        }
        let _ = fs::remove_file(&state);
        if self.created && !self.keep {
            // Not what others have put there.
            let _ = fs::remove_dir(&self.path);
        }
    }
}
