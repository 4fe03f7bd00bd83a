//! Kustomizations, as far as delivery repositories of this kind use them: `resources` (and the older `bases`),
//! `namespace`, `namePrefix`, `nameSuffix`, `images`, `replicas`, `commonLabels`, `labels`, `commonAnnotations` and
//! JSON 6902 patches. A field that this file does not know is an error that names it: silently ignoring it would
//! render something else than `kustomize build` does.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::manifests::{ManifestError, clean, documents, parse, text};

/// The names under which a folder's kustomization is looked for.
pub(crate) const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(rename = "metadata")]
    _metadata: Option<Value>,
    resources: Vec<String>,
    bases: Vec<String>,
    namespace: Option<String>,
    name_prefix: Option<String>,
    name_suffix: Option<String>,
    common_labels: BTreeMap<String, String>,
    common_annotations: BTreeMap<String, String>,
    labels: Vec<Labels>,
    images: Vec<Image>,
    replicas: Vec<Replicas>,
    patches: Vec<Patch>,
    patches_json6902: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Labels {
    pairs: BTreeMap<String, String>,
    #[serde(default)]
    include_selectors: bool,
    #[serde(default)]
    include_templates: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Image {
    name: String,
    new_name: Option<String>,
    new_tag: Option<String>,
    digest: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replicas {
    name: String,
    count: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    target: Option<Target>,
    path: Option<String>,
    patch: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Target {
    group: Option<String>,
    version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
}

impl Target {
    fn matches(&self, object: &Value) -> bool {
        let (group, version) = group_version(object);
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.group, group)
            && is(&self.version, version)
            && is(&self.kind, object["kind"].as_str().unwrap_or_default())
            && is(&self.name, object["metadata"]["name"].as_str().unwrap_or_default())
            && is(&self.namespace, object["metadata"]["namespace"].as_str().unwrap_or_default())
    }
}

fn group_version(object: &Value) -> (&str, &str) {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Kinds without a namespace, which `namespace:` leaves alone.
const CLUSTER_SCOPED: [&str; 13] = [
    "Namespace",
    "Node",
    "PersistentVolume",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "StorageClass",
    "PriorityClass",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "APIService",
    "CertificateSigningRequest",
];

/// The objects that `kustomize build` gives for a folder of `files` (paths relative to the repository's root).
///
/// # Errors
/// [`ManifestError`] naming the file and field: no kustomization, an unknown field, a missing resource, a cycle.
pub fn build(files: &BTreeMap<String, Bytes>, folder: &str) -> Result<Vec<Value>, ManifestError> {
    build_within(files, &clean(folder), &mut Vec::new())
}

fn build_within(
    files: &BTreeMap<String, Bytes>,
    folder: &str,
    stack: &mut Vec<String>,
) -> Result<Vec<Value>, ManifestError> {
    let at = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let file = FILE_NAMES
        .iter()
        .map(|name| at(name))
        .find(|file| files.contains_key(file))
        .ok_or_else(|| ManifestError(format!("{folder}: no kustomization.yaml in this folder")))?;
    if stack.iter().any(|open| open == folder) {
        return Err(ManifestError(format!(
            "{file}: resources form a cycle: {} -> {folder}",
            stack.join(" -> ")
        )));
    }
    stack.push(folder.to_owned());
    let kustomization: Kustomization = yaml::parse(text(&file, &files[&file])?)
        .map_err(|error| ManifestError(format!("{file}: {error}")))?;

    let mut objects = Vec::new();
    for resource in kustomization.bases.iter().chain(&kustomization.resources) {
        if resource.contains("://") || resource.starts_with("github.com/") {
            return Err(ManifestError(format!(
                "{file}: resources: {resource}: remote resources cannot be fetched"
            )));
        }
        let path = clean(&at(resource));
        if let Some(content) = files.get(&path) {
            objects.extend(parse(&path, text(&path, content)?)?);
        } else if files.keys().any(|file| file.starts_with(&format!("{path}/"))) {
            objects.extend(build_within(files, &path, stack)?);
        } else {
            return Err(ManifestError(format!("{file}: resources: {resource}: no such file or folder")));
        }
    }
    stack.pop();
    kustomization.transform(&file, files, folder, &mut objects)?;
    Ok(objects)
}

impl Kustomization {
    fn transform(
        &self,
        file: &str,
        files: &BTreeMap<String, Bytes>,
        folder: &str,
        objects: &mut [Value],
    ) -> Result<(), ManifestError> {
        for patch in self.patches.iter().chain(&self.patches_json6902) {
            patch.apply(file, files, folder, objects)?;
        }
        for object in objects.iter_mut() {
            if let Some(namespace) = &self.namespace {
                set_namespace(object, namespace);
            }
            if self.name_prefix.is_some() || self.name_suffix.is_some() {
                rename(object, self.name_prefix.as_deref(), self.name_suffix.as_deref());
            }
            add_labels(object, &self.common_labels, true, true);
            for labels in &self.labels {
                add_labels(object, &labels.pairs, labels.include_selectors, labels.include_templates);
            }
            if !self.common_annotations.is_empty() {
                extend(object, &["metadata", "annotations"], &self.common_annotations);
                for path in TEMPLATES {
                    if object.pointer(&format!("/{}", path.join("/"))).is_some() {
                        let path: Vec<&str> =
                            path.iter().copied().chain(["metadata", "annotations"]).collect();
                        extend(object, &path, &self.common_annotations);
                    }
                }
            }
            for image in &self.images {
                set_images(object, image);
            }
            for replicas in &self.replicas {
                let scalable =
                    matches!(object["kind"].as_str(), Some("Deployment" | "StatefulSet" | "ReplicaSet"));
                if scalable && object["metadata"]["name"] == replicas.name.as_str() {
                    object["spec"]["replicas"] = json!(replicas.count);
                }
            }
        }
        Ok(())
    }
}

impl Patch {
    fn apply(
        &self,
        file: &str,
        files: &BTreeMap<String, Bytes>,
        folder: &str,
        objects: &mut [Value],
    ) -> Result<(), ManifestError> {
        let source = match (&self.patch, &self.path) {
            (Some(patch), None) => patch.as_str(),
            (None, Some(path)) => {
                let path = clean(&format!("{folder}/{path}"));
                let content = files
                    .get(&path)
                    .ok_or_else(|| ManifestError(format!("{file}: patches: {path}: no such file")))?;
                text(file, content)?
            }
            _ => return Err(ManifestError(format!("{file}: patches: give one of `patch` and `path`"))),
        };
        let target = self
            .target
            .as_ref()
            .ok_or_else(|| ManifestError(format!("{file}: patches: a JSON 6902 patch needs a `target`")))?;
        let operations = documents(file, source)?.into_iter().next().unwrap_or_default();
        let operations: json_patch::Patch = serde_json::from_value(operations).map_err(|error| {
            ManifestError(format!("{file}: patches: only JSON 6902 patches are supported: {error}"))
        })?;
        for object in objects.iter_mut().filter(|object| target.matches(object)) {
            json_patch::patch(object, &operations)
                .map_err(|error| ManifestError(format!("{file}: patches: {error}")))?;
        }
        Ok(())
    }
}

/// Where pod templates stand, from an object's root.
const TEMPLATES: [&[&str]; 2] = [&["spec", "template"], &["spec", "jobTemplate", "spec", "template"]];

fn set_namespace(object: &mut Value, namespace: &str) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind.ends_with("RoleBinding") {
        for subject in object["subjects"].as_array_mut().into_iter().flatten() {
            if subject["kind"] == "ServiceAccount" {
                subject["namespace"] = json!(namespace);
            }
        }
    }
    if kind == "Namespace" {
        object["metadata"]["name"] = json!(namespace);
    } else if !CLUSTER_SCOPED.contains(&kind.as_str()) {
        object["metadata"]["namespace"] = json!(namespace);
    }
}

fn rename(object: &mut Value, prefix: Option<&str>, suffix: Option<&str>) {
    let kind = object["kind"].as_str().unwrap_or_default();
    if let (false, Some(name)) =
        (matches!(kind, "Namespace" | "CustomResourceDefinition"), object["metadata"]["name"].as_str())
    {
        let renamed = format!("{}{name}{}", prefix.unwrap_or_default(), suffix.unwrap_or_default());
        object["metadata"]["name"] = json!(renamed);
    }
}

fn extend(object: &mut Value, path: &[&str], pairs: &BTreeMap<String, String>) {
    let mut place = object;
    for key in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[*key];
    }
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    if let Value::Object(map) = place {
        map.extend(pairs.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
}

fn add_labels(object: &mut Value, pairs: &BTreeMap<String, String>, selectors: bool, templates: bool) {
    if pairs.is_empty() {
        return;
    }
    extend(object, &["metadata", "labels"], pairs);
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if selectors {
        match kind.as_str() {
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
                extend(object, &["spec", "selector", "matchLabels"], pairs);
            }
            "Service" if object["spec"]["selector"].is_object() => {
                extend(object, &["spec", "selector"], pairs)
            }
            _ => {}
        }
    }
    if selectors || templates {
        for path in TEMPLATES {
            if object.pointer(&format!("/{}", path.join("/"))).is_some() {
                let path: Vec<&str> = path.iter().copied().chain(["metadata", "labels"]).collect();
                extend(object, &path, pairs);
            }
        }
    }
}

fn set_images(value: &mut Value, image: &Image) {
    match value {
        Value::Object(map) => {
            for (key, child) in map.iter_mut() {
                if key == "containers" || key == "initContainers" {
                    for container in child.as_array_mut().into_iter().flatten() {
                        if let Some(renamed) =
                            container["image"].as_str().and_then(|found| image.replace(found))
                        {
                            container["image"] = json!(renamed);
                        }
                    }
                } else {
                    set_images(child, image);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| set_images(item, image)),
        _ => {}
    }
}

impl Image {
    /// The new reference of an image of this name.
    fn replace(&self, found: &str) -> Option<String> {
        let (name, rest) = match found.split_once('@') {
            Some((name, digest)) => (name, format!("@{digest}")),
            None => match found.rfind(':').filter(|colon| !found[*colon..].contains('/')) {
                Some(colon) => (&found[..colon], found[colon..].to_owned()),
                None => (found, String::new()),
            },
        };
        if name != self.name {
            return None;
        }
        let name = self.new_name.as_deref().unwrap_or(name);
        Some(match (&self.digest, &self.new_tag) {
            (Some(digest), _) => format!("{name}@{digest}"),
            (None, Some(tag)) => format!("{name}:{tag}"),
            (None, None) => format!("{name}{rest}"),
        })
    }
}
