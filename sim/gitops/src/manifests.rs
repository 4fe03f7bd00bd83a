//! Manifests: YAML documents as objects, and the folder that an Application's source names.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::kustomize;

/// Why manifests could not be read, naming the file and the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(pub String);

/// The objects of one YAML (or JSON) text; empty documents are skipped, `List`s are unpacked.
///
/// # Errors
/// [`ManifestError`] naming `file` and the line when the text is no YAML, or the document that is no object with
/// `apiVersion`, `kind` and `metadata.name`.
pub fn parse(file: &str, text: &str) -> Result<Vec<Value>, ManifestError> {
    let mut objects = Vec::new();
    for (index, document) in documents(file, text)?.into_iter().enumerate() {
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) && is_list(&list) => {
                let Some(Value::Array(items)) = list.remove("items") else { unreachable!("checked above") };
                for item in items {
                    objects.push(checked(file, index, item)?);
                }
            }
            document => objects.push(checked(file, index, document)?),
        }
    }
    Ok(objects)
}

fn is_list(object: &serde_json::Map<String, Value>) -> bool {
    object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"))
}

/// All documents of a YAML text as JSON values.
pub(crate) fn documents(file: &str, text: &str) -> Result<Vec<Value>, ManifestError> {
    serde_saphyr::from_multiple::<Value>(text).map_err(|error| ManifestError(format!("{file}: {error}")))
}

fn checked(file: &str, index: usize, object: Value) -> Result<Value, ManifestError> {
    let wrong = |what: &str| {
        let kind = object["kind"].as_str().unwrap_or("unknown kind");
        ManifestError(format!("{file}: document {}: {kind}: {what}", index + 1))
    };
    if !object.is_object() {
        return Err(ManifestError(format!("{file}: document {}: not a Kubernetes object", index + 1)));
    }
    if object["apiVersion"].as_str().is_none_or(str::is_empty) {
        return Err(wrong("apiVersion is missing: add e.g. `apiVersion: v1`"));
    }
    if object["kind"].as_str().is_none_or(str::is_empty) {
        return Err(wrong("kind is missing"));
    }
    let metadata = &object["metadata"];
    if metadata["name"].as_str().is_none_or(str::is_empty)
        && metadata["generateName"].as_str().is_none_or(str::is_empty)
    {
        return Err(wrong("metadata.name is missing"));
    }
    Ok(object)
}

/// The objects of a folder as Argo CD's repo server renders it: a kustomization, or a plain directory of YAML and
/// JSON files.
///
/// # Errors
/// [`ManifestError`] when the folder does not exist, is a Helm chart, or a file of it is unusable.
pub fn render(files: &BTreeMap<String, Bytes>, path: &str) -> Result<Vec<Value>, ManifestError> {
    let folder = clean(path);
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    if !files.keys().any(|file| file.starts_with(&prefix)) {
        return Err(ManifestError(format!("{path}: app path does not exist")));
    }
    if files.contains_key(&format!("{prefix}Chart.yaml")) {
        return Err(ManifestError(format!(
            "{path}: Helm charts are not rendered: render the chart and commit its manifests"
        )));
    }
    if kustomize::FILE_NAMES.iter().any(|name| files.contains_key(&format!("{prefix}{name}"))) {
        return kustomize::build(files, &folder);
    }
    let mut objects = Vec::new();
    for (file, content) in files.iter().filter(|(file, _)| file.starts_with(&prefix)) {
        let name = &file[prefix.len()..];
        let manifest = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
        if manifest && !name.contains('/') {
            objects.extend(parse(file, text(file, content)?)?);
        }
    }
    Ok(objects)
}

pub(crate) fn text<'a>(file: &str, content: &'a Bytes) -> Result<&'a str, ManifestError> {
    std::str::from_utf8(content).map_err(|_| ManifestError(format!("{file}: not valid UTF-8")))
}

/// A path inside a repository without `.`, `..` and double slashes.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
