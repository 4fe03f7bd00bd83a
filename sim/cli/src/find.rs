//! Scenario files by path: a file is itself, a folder is all scenarios below it.

use std::path::{Path, PathBuf};

/// What a scenario file says of itself; other YAML files in a folder are left alone, testbeds too.
const MARKERS: [&str; 2] = ["apiVersion: coalmine.dev/", "kind: Scenario"];

/// The scenario files that the paths name, in order, each folder's sorted.
///
/// # Errors
/// A sentence with the path that does not exist or holds no scenario.
pub fn scenarios(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        let kind = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if kind.is_file() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        collect(path, &mut found)?;
        if found.is_empty() {
            return Err(format!("{}: no scenario files (`kind: Scenario`) in this folder", path.display()));
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(wrong)?);
        if kind.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if MARKERS.iter().all(|marker| text.lines().any(|line| line.starts_with(marker))) {
                found.push(path);
            }
        }
    }
    Ok(())
}
