//! The pods of a Job. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::super::ownership::controller_reference;

/// The label and the annotation with the pod's completion index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The variable with it.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// A pod's completion index, if it has one.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// The beginning of a pod's name; the rest is drawn.
pub(super) fn name_prefix(job: &str, index: Option<i32>) -> String {
    index.map_or_else(|| format!("{job}-"), |index| format!("{job}-{index}-"))
}

/// A new pod; `index` is its completion index if the Job is indexed.
pub(super) fn pod_of(job: &Job, index: Option<i32>, name: String) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let (mut labels, mut annotations) = (meta.labels, meta.annotations);
    let mut spec = template.spec;
    if let Some(index) = index {
        for map in [&mut labels, &mut annotations] {
            map.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
        }
        if let Some(spec) = &mut spec {
            spec.hostname = Some(format!("{}-{index}", job.name_any()));
            let inits = spec.init_containers.iter_mut().flatten();
            inits.chain(&mut spec.containers).for_each(add_variable);
        }
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(name_prefix(&job.name_any(), index)),
            namespace: job.metadata.namespace.clone(),
            labels,
            annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(job)]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// Tells a container its pod's index, unless the template does.
fn add_variable(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: format!("metadata.labels['{INDEX}']"),
    };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    env.push(EnvVar { name: INDEX_VARIABLE.to_owned(), value_from: Some(source), ..EnvVar::default() });
}
