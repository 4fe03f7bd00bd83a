//! What GitOps does to the objects of a release.

use std::path::Path;

use super::{Remark, Report};
use crate::finding::Level;

pub(super) fn check(report: &mut Report<'_, '_>) {
    replicas(report);
    moved(report);
}

/// CM014.
fn replicas(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let Some(target) = subject.find("Deployment", &subject.canary.spec.target_ref.name) else { return };
    let Some(replicas) = target.value["spec"]["replicas"].as_i64() else { return };
    let heals = subject.documents.iter().find(|document| {
        document.kind() == "Application"
            && document.value["spec"]["syncPolicy"]["automated"]["selfHeal"] == true
    });
    let respects = |document: &whatif::manifest::Document| {
        let options = document.value["spec"]["syncPolicy"]["syncOptions"].as_array();
        let respects = options.into_iter().flatten().any(|option| option == "RespectIgnoreDifferences=true");
        respects && document.value["spec"]["ignoreDifferences"].to_string().contains("replicas")
    };
    if heals.is_some_and(respects) {
        return;
    }
    let (level, who) = match heals {
        Some(application) => (
            Level::Error,
            format!("{} has selfHeal, so it is scaled up again within seconds", application.title()),
        ),
        None => (
            Level::Warning,
            "the application is out of sync, and a manual sync or self-heal scales it up".to_owned(),
        ),
    };
    report.say_of(
        target,
        Remark {
            code: "CM014",
            level,
            field: "spec.replicas".to_owned(),
            why: format!(
                "git says {replicas}, Flagger scales {} to 0 between releases: {who}",
                target.name()
            ),
            fix: "remove spec.replicas; the autoscaler or Flagger sets it".to_owned(),
        },
    );
}

/// CM015.
fn moved(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let analysis = subject.analysis();
    for (index, metric) in analysis.metrics.iter().enumerate() {
        let Some(reference) = &metric.template_ref else { continue };
        let wanted = if reference.namespace.is_empty() {
            subject.canary.namespace()
        } else {
            reference.namespace.as_str()
        };
        let templates = subject
            .documents
            .iter()
            .filter(|document| document.kind() == "MetricTemplate" && document.name() == reference.name);
        let found: Vec<String> = templates
            .map(|document| {
                let folder = Path::new(&document.file).parent();
                let file =
                    Path::new(&document.file).file_name().map(|name| name.to_string_lossy().into_owned());
                let kustomization = subject.documents.iter().find(|other| {
                    let lists = other.value["resources"].as_array().into_iter().flatten();
                    let is_kustomization =
                        other.kind() == "Kustomization" || other.file.ends_with("kustomization.yaml");
                    is_kustomization
                        && Path::new(&other.file).parent() == folder
                        && lists.into_iter().any(|entry| entry.as_str() == file.as_deref())
                });
                let moved = kustomization.and_then(|other| other.value["namespace"].as_str());
                moved.unwrap_or(document.namespace()).to_owned()
            })
            .collect();
        if found.is_empty() || found.iter().any(|namespace| namespace == wanted || namespace.is_empty()) {
            continue;
        }
        report.say(
            "CM015",
            Level::Error,
            subject.path(&format!("metrics[{index}].templateRef")),
            format!(
                "it refers to {wanted}/{}, but that template ends up in {}: every check fails with \"not found\", and {} of them roll back",
                reference.name,
                found.join(", "),
                subject.policy.threshold()
            ),
            format!("namespace: {}", found[0]),
        );
    }
    let _ = subject.templates;
}
