//! ConfigMaps and Secrets that a target refers to: which they are, their checksums, and the primary's copies.

use std::collections::BTreeMap;

use canary::Dialect;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Secret};
use serde::Serialize;

use crate::sha256;

/// Which kind of object holds the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl Kind {
    /// The kind in names such as `configmap/NAME`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
        }
    }
}

/// Configuration that is tracked, by kind and name, with checksums.
pub type Refs = BTreeMap<(Kind, String), String>;

/// The checksums as the Canary's status holds them.
pub fn tracked(refs: &Refs) -> BTreeMap<String, String> {
    refs.iter().map(|((kind, name), sum)| (format!("{}/{name}", kind.name()), sum.clone())).collect()
}

/// The objects that a pod refers to, each with whether it must exist. The older dialect does not look into
/// init containers.
pub fn references(pod: &PodSpec, dialect: Dialect) -> BTreeMap<(Kind, String), bool> {
    let mut found = BTreeMap::new();
    // The visitor changes names in place; here it only reads them.
    visit(&mut pod.clone(), dialect, &mut |kind, name, optional| {
        found.insert((kind, name.clone()), !optional);
    });
    found
}

/// Points a pod at the copies of the tracked objects.
pub fn rename(pod: &mut PodSpec, refs: &Refs, dialect: Dialect) {
    visit(pod, dialect, &mut |kind, name, _| {
        if refs.contains_key(&(kind, name.clone())) {
            name.push_str("-primary");
        }
    });
}

fn visit(pod: &mut PodSpec, dialect: Dialect, each: &mut impl FnMut(Kind, &mut String, bool)) {
    for volume in pod.volumes.iter_mut().flatten() {
        if let Some(source) = &mut volume.config_map {
            each(Kind::ConfigMap, &mut source.name, source.optional == Some(true));
        }
        if let Some(source) = &mut volume.secret
            && let Some(name) = &mut source.secret_name
        {
            each(Kind::Secret, name, source.optional == Some(true));
        }
        let projected = volume.projected.iter_mut().flat_map(|projected| &mut projected.sources);
        for source in projected.flatten() {
            if let Some(source) = &mut source.config_map {
                each(Kind::ConfigMap, &mut source.name, source.optional == Some(true));
            }
            if let Some(source) = &mut source.secret {
                each(Kind::Secret, &mut source.name, source.optional == Some(true));
            }
        }
    }
    for container in &mut pod.containers {
        visit_container(container, each);
    }
    if dialect == Dialect::Latest {
        for container in pod.init_containers.iter_mut().flatten() {
            visit_container(container, each);
        }
    }
}

fn visit_container(container: &mut Container, each: &mut impl FnMut(Kind, &mut String, bool)) {
    for source in container.env.iter_mut().flatten().filter_map(|variable| variable.value_from.as_mut()) {
        if let Some(source) = &mut source.config_map_key_ref {
            each(Kind::ConfigMap, &mut source.name, source.optional == Some(true));
        } else if let Some(source) = &mut source.secret_key_ref {
            each(Kind::Secret, &mut source.name, source.optional == Some(true));
        }
    }
    for source in container.env_from.iter_mut().flatten() {
        if let Some(source) = &mut source.config_map_ref {
            each(Kind::ConfigMap, &mut source.name, source.optional == Some(true));
        } else if let Some(source) = &mut source.secret_ref {
            each(Kind::Secret, &mut source.name, source.optional == Some(true));
        }
    }
}

/// The checksum of a ConfigMap; `None` if it must not be tracked.
pub fn config_map_checksum(config: &ConfigMap, dialect: Dialect) -> Option<String> {
    let disabled = is_disabled(config.metadata.annotations.as_ref(), dialect);
    (!disabled).then(|| checksum(&config.data))
}

/// The checksum of a Secret; `None` if it must not be tracked, as with registry credentials.
pub fn secret_checksum(secret: &Secret, dialect: Dialect) -> Option<String> {
    let kinds = ["Opaque", "kubernetes.io/basic-auth", "kubernetes.io/ssh-auth", "kubernetes.io/tls"];
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    let disabled = is_disabled(secret.metadata.annotations.as_ref(), dialect) || !kinds.contains(&kind);
    (!disabled).then(|| checksum::<Option<BTreeMap<String, ByteString>>>(&secret.data))
}

fn is_disabled(annotations: Option<&BTreeMap<String, String>>, dialect: Dialect) -> bool {
    let value = annotations.and_then(|annotations| annotations.get("flagger.app/config-tracking"));
    dialect == Dialect::Latest && value.is_some_and(|value| value.starts_with("disable"))
}

/// The first eight bytes of the SHA-256 of the data as Go's encoder writes it.
fn checksum<T: Serialize>(data: &T) -> String {
    let json = serde_json::to_string(data).expect("maps of strings are always JSON");
    // Go's encoder escapes what could end a script element.
    let json = json
        .replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    sha256::digest(json.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodSpec {
        serde_json::from_value(serde_json::json!({
            "volumes": [
                {"name": "a", "configMap": {"name": "volume"}},
                {"name": "b", "projected": {"sources": [
                    {"secret": {"name": "projected", "optional": true}},
                    {"configMap": {"name": "untracked"}},
                ]}},
            ],
            "containers": [{
                "name": "c",
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "variable", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "whole"}}],
            }],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "first"}}]}],
        }))
        .unwrap()
    }

    #[test]
    fn references_are_found_and_renamed() {
        let names = |dialect| {
            let found = references(&pod(), dialect).into_iter();
            found.map(|((kind, name), must)| format!("{}/{name} {must}", kind.name())).collect::<Vec<_>>()
        };
        let old = [
            "configmap/untracked true",
            "configmap/volume true",
            "configmap/whole true",
            "secret/projected false",
            "secret/variable true",
        ];
        assert_eq!(names(Dialect::Rc1), old);
        assert_eq!(names(Dialect::Latest).len(), 6);

        let mut pod = pod();
        let refs = references(&pod, Dialect::Rc1).into_keys().filter(|(_, name)| name != "untracked");
        let refs: Refs = refs.map(|key| (key, String::new())).collect();
        rename(&mut pod, &refs, Dialect::Rc1);
        let renamed = references(&pod, Dialect::Latest).into_keys().map(|(_, name)| name);
        assert_eq!(
            renamed.collect::<Vec<_>>(),
            [
                "untracked",
                "volume-primary",
                "whole-primary",
                "first",
                "projected-primary",
                "variable-primary"
            ]
        );
    }

    #[test]
    fn checksums_are_flaggers() {
        let config = |text: &str| -> ConfigMap { serde_json::from_str(text).unwrap() };
        let sum = |text: &str| config_map_checksum(&config(text), Dialect::Latest);
        // printf '{"color":"red"}' | sha256sum
        assert_eq!(sum(r#"{"data":{"color":"red"}}"#).as_deref(), Some("241889ca0604e333"));
        let disabled = r#"{"metadata":{"annotations":{"flagger.app/config-tracking":"disabled"}}}"#;
        assert_eq!(sum(disabled), None);
        assert!(config_map_checksum(&config(disabled), Dialect::Rc1).is_some());
        let registry = r#"{"type":"kubernetes.io/dockerconfigjson"}"#;
        assert_eq!(secret_checksum(&serde_json::from_str(registry).unwrap(), Dialect::Rc1), None);
    }
}
