//! A container's mounted files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

/// Files by absolute path. The kubelet replaces them when the ConfigMap or Secret behind a volume changes, so a
/// program that reloads its configuration reads the same path again. Cheap to clone; clones share the files.
#[derive(Clone, Debug, Default)]
pub struct Files(Arc<Mutex<BTreeMap<String, Bytes>>>);

impl Files {
    /// The file's content, or `None` where nothing is mounted at that path.
    pub fn read(&self, path: &str) -> Option<Bytes> {
        self.0.lock().expect("no holder of this lock panics").get(path).cloned()
    }

    /// The file's content as text.
    ///
    /// # Errors
    /// A message in the words of the operating system: `open PATH: no such file or directory`, or that the file is
    /// not UTF-8.
    pub fn read_to_string(&self, path: &str) -> Result<String, String> {
        let bytes = self.read(path).ok_or_else(|| format!("open {path}: no such file or directory"))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("read {path}: not valid UTF-8"))
    }

    /// Paths below a folder, in order.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let prefix = format!("{}/", folder.trim_end_matches('/'));
        let files = self.0.lock().expect("no holder of this lock panics");
        files.keys().filter(|path| path.starts_with(&prefix)).cloned().collect()
    }

    /// Mounts or replaces one file.
    pub fn write(&self, path: impl Into<String>, content: impl Into<Bytes>) {
        self.0.lock().expect("no holder of this lock panics").insert(path.into(), content.into());
    }

    /// Replaces everything below a folder by the given files (paths relative to it), as the kubelet does when a
    /// volume's source changes.
    pub fn replace_folder(&self, folder: &str, content: impl IntoIterator<Item = (String, Bytes)>) {
        let prefix = format!("{}/", folder.trim_end_matches('/'));
        let mut files = self.0.lock().expect("no holder of this lock panics");
        files.retain(|path, _| !path.starts_with(&prefix));
        files.extend(content.into_iter().map(|(name, bytes)| (format!("{prefix}{name}"), bytes)));
    }
}
