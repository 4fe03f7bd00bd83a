//! Where the files of an experiment come from: the disk, or a copy that was taken when it was read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Files and folders by the paths under which they are named.
pub trait Source {
    /// A file's text.
    ///
    /// # Errors
    /// The path, and why it cannot be read.
    fn read(&self, path: &Path) -> Result<String, String>;

    /// The YAML files below a folder, in order; `None` if the path is a file's.
    ///
    /// # Errors
    /// The path, and why it cannot be read.
    fn list(&self, path: &Path) -> Result<Option<Vec<PathBuf>>, String>;
}

/// The disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Source for Disk {
    fn read(&self, path: &Path) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn list(&self, path: &Path) -> Result<Option<Vec<PathBuf>>, String> {
        let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !metadata.is_dir() {
            return Ok(None);
        }
        let mut files = Vec::new();
        collect(path, &mut files)?;
        files.sort();
        Ok(Some(files))
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if entry.file_type().map_err(wrong)?.is_dir() {
            if !hidden {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") && !hidden {
            files.push(path);
        }
    }
    Ok(())
}

/// The files that were read, as text that can travel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copied {
    files: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    folders: BTreeMap<String, Vec<String>>,
}

impl Source for Copied {
    fn read(&self, path: &Path) -> Result<String, String> {
        let path = path.display().to_string();
        self.files.get(&path).cloned().ok_or_else(|| format!("{path}: it is not among the copied files"))
    }

    fn list(&self, path: &Path) -> Result<Option<Vec<PathBuf>>, String> {
        let files = self.folders.get(&path.display().to_string());
        Ok(files.map(|files| files.iter().map(PathBuf::from).collect()))
    }
}

/// Reads from another source, and copies what is read.
pub struct Copying<'s> {
    from: &'s dyn Source,
    copied: RefCell<Copied>,
}

impl<'s> Copying<'s> {
    /// Nothing is copied yet.
    pub fn new(from: &'s dyn Source) -> Self {
        Copying { from, copied: RefCell::default() }
    }

    /// What was read.
    pub fn copied(self) -> Copied {
        self.copied.into_inner()
    }
}

impl Source for Copying<'_> {
    fn read(&self, path: &Path) -> Result<String, String> {
        let text = self.from.read(path)?;
        self.copied.borrow_mut().files.insert(path.display().to_string(), text.clone());
        Ok(text)
    }

    fn list(&self, path: &Path) -> Result<Option<Vec<PathBuf>>, String> {
        let files = self.from.list(path)?;
        if let Some(files) = &files {
            let names = files.iter().map(|file| file.display().to_string()).collect();
            self.copied.borrow_mut().folders.insert(path.display().to_string(), names);
        }
        Ok(files)
    }
}
