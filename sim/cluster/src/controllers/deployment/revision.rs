//! Revisions of a Deployment: which ReplicaSet carries the current template, their hashes, numbers and
//! annotations. Pure; follows `pkg/controller/deployment/util/deployment_util.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::super::name_suffix::safe_encode;

/// The label that keeps the pods of a Deployment's ReplicaSets apart.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// A ReplicaSet's revision; the Deployment carries the current one.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of a ReplicaSet that became current again.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when the ReplicaSet was last scaled.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The Deployment's size plus surge when the ReplicaSet was last scaled.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that a ReplicaSet does not take over from its Deployment.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

type Annotations = BTreeMap<String, String>;

/// The hash of a pod template: FNV-1a over its JSON, in the alphabet of generated names. `collisions` sets a
/// clashing template apart.
pub(in super::super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let json = serde_json::to_vec(template).expect("a pod template serialises");
    let mut hash: u32 = 0x811c_9dc5;
    let salt = collisions.map(i32::to_le_bytes);
    for byte in json.iter().chain(salt.iter().flatten()) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    safe_encode(&hash.to_string())
}

/// Whether two templates are the same but for the hash label.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    fn plain(meta: Option<&ObjectMeta>) -> ObjectMeta {
        let mut meta = meta.cloned().unwrap_or_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
        meta
    }
    a.spec == b.spec && plain(a.metadata.as_ref()) == plain(b.metadata.as_ref())
}

/// Oldest first.
pub(super) fn sort_by_age(sets: &mut [Arc<ReplicaSet>]) {
    sets.sort_by(|a, b| {
        let age = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        age(a).cmp(&age(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
}

/// Parts the sets (oldest first) into the one with the Deployment's template and the others.
pub(super) fn split(
    deployment: &Deployment,
    mut sets: Vec<Arc<ReplicaSet>>,
) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    let Some(spec) = &deployment.spec else { return (None, sets) };
    let current = sets.iter().position(|set| {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.is_some_and(|template| same_template(template, &spec.template))
    });
    (current.map(|index| sets.remove(index)), sets)
}

/// A set's revision; 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.annotations().get(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// The revision that the current set should have: one above all others.
pub(super) fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1
}

/// A set's annotation as a number.
pub(super) fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    set.annotations().get(annotation)?.parse().ok()
}

/// Brings the current set's annotations up to date: those of the Deployment, and its revision if that grew.
/// Returns whether anything changed.
pub(super) fn annotate(set: &mut Annotations, deployment: &Annotations, revision: i64) -> bool {
    let mut changed = false;
    for (key, value) in deployment {
        if !NOT_COPIED.contains(&key.as_str()) && set.get(key) != Some(value) {
            set.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    let old = set.get(REVISION).cloned();
    if old.as_ref().and_then(|old| old.parse::<i64>().ok()).unwrap_or(0) < revision {
        set.insert(REVISION.to_owned(), revision.to_string());
        changed = true;
        if let Some(old) = old.filter(|old| !old.is_empty()) {
            let history = match set.get(REVISION_HISTORY).filter(|history| !history.is_empty()) {
                Some(history) if !history.split(',').any(|past| past == old) => format!("{history},{old}"),
                Some(history) => history.clone(),
                None => old,
            };
            set.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    changed
}

/// Notes the Deployment's size on a set that is being scaled. Returns whether anything changed.
pub(super) fn annotate_sizes(set: &mut Annotations, desired: i32, max: i32) -> bool {
    let mut changed = false;
    for (key, value) in [(DESIRED_REPLICAS, desired), (MAX_REPLICAS, max)] {
        changed |= set.insert(key.to_owned(), value.to_string()).is_none_or(|old| old != value.to_string());
    }
    changed
}

/// Retired sets beyond the history limit, oldest revision first.
pub(super) fn beyond_history(old: &[Arc<ReplicaSet>], limit: i32) -> Vec<Arc<ReplicaSet>> {
    let mut sets: Vec<_> =
        old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).cloned().collect();
    let surplus = sets.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    sets.sort_by_key(|set| revision(set));
    sets.truncate(surplus);
    sets.retain(|set| {
        let status = set.status.as_ref();
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let observed = status.and_then(|status| status.observed_generation).unwrap_or(0);
        wanted == 0
            && status.is_none_or(|status| status.replicas == 0)
            && set.metadata.generation.unwrap_or(0) <= observed
    });
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_current_set_takes_a_higher_revision_and_remembers_the_old_one() {
        let annotations = |pairs: &[(&str, &str)]| -> Annotations {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let deployment = annotations(&[("note", "x"), (REVISION, "3"), (NOT_COPIED[0], "{}")]);
        let mut set = annotations(&[(REVISION, "1")]);
        assert!(annotate(&mut set, &deployment, 3));
        assert_eq!(set, annotations(&[("note", "x"), (REVISION, "3"), (REVISION_HISTORY, "1")]));
        assert!(!annotate(&mut set, &deployment, 3));
        assert!(annotate(&mut set, &deployment, 5));
        assert_eq!(set[REVISION_HISTORY], "1,3");
    }

    #[test]
    fn templates_differ_by_content_not_by_hash_label() {
        let template = |image: &str, hash: Option<&str>| -> PodTemplateSpec {
            let mut labels = json!({"app": "podinfo"});
            if let Some(hash) = hash {
                labels[HASH_LABEL] = json!(hash);
            }
            let containers = json!([{"name": "podinfod", "image": image}]);
            serde_json::from_value(
                json!({"metadata": {"labels": labels}, "spec": {"containers": containers}}),
            )
            .unwrap()
        };
        assert!(same_template(&template("podinfo:1", Some("abc")), &template("podinfo:1", None)));
        assert!(!same_template(&template("podinfo:1", None), &template("podinfo:2", None)));
        let hash = template_hash(&template("podinfo:1", None), None);
        assert_ne!(hash, template_hash(&template("podinfo:2", None), None));
        assert_ne!(hash, template_hash(&template("podinfo:1", None), Some(1)));
        assert!(hash.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)));
    }
}
