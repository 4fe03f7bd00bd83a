//! Start and replacement of pods.

use canary::Dialect;
use serde_json::Value;

use super::{Remark, Report};
use crate::facts::{number, span};
use crate::finding::Level;

pub(super) fn check(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    if subject.canary.spec.progress_deadline_seconds.is_none() {
        let ticks = 600_000 / subject.policy.interval;
        report.say(
            "CM017",
            Level::Note,
            "spec.progressDeadlineSeconds".to_owned(),
            format!("none is set: a version that never becomes ready is waited for during 600s, {ticks} ticks of {}", span(subject.policy.interval)),
            "e.g. progressDeadlineSeconds: 60".to_owned(),
        );
    }
    autoscaler(report);
}

/// CM016.
fn autoscaler(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let spec = &subject.canary.spec;
    let Some(reference) = &spec.autoscaler_ref else { return };
    let Some(autoscaler) = subject.find("HorizontalPodAutoscaler", &reference.name) else { return };
    let Some(target) = subject.find("Deployment", &spec.target_ref.name) else { return };
    let Some(most) = autoscaler.value["spec"]["maxReplicas"].as_i64() else { return };
    let deployment = &target.value["spec"];
    let strategy = &deployment["strategy"]["rollingUpdate"];
    // Kubernetes' defaults: 25 percent each, rounded down and up.
    let unavailable = amount(&strategy["maxUnavailable"], most, false);
    let surge = amount(&strategy["maxSurge"], most, true);
    let at_once = (unavailable + surge).max(1);
    let least = deployment["minReadySeconds"].as_i64().unwrap_or(0);
    let containers = deployment["template"]["spec"]["containers"].as_array().into_iter().flatten();
    let delay =
        containers.filter_map(|c| c["readinessProbe"]["initialDelaySeconds"].as_i64()).max().unwrap_or(0);
    let each = least + delay + 2;
    let batches = (most + at_once - 1) / at_once;
    let all = batches * each;
    let deadline = i64::from(spec.progress_deadline_seconds());
    let ticks = all * 1000 / subject.policy.interval;
    let remark = |level, why: String, fix: String| Remark {
        code: "CM016",
        level,
        field: "spec.maxReplicas".to_owned(),
        why,
        fix,
    };
    if each > deadline {
        let then = match subject.dialect {
            Dialect::Rc1 => "the release halts for ever",
            Dialect::Latest => "promotion fails with all traffic on the canary",
        };
        report.say_of(
            autoscaler,
            remark(
                Level::Error,
                format!("a pod takes {each}s to become available (2s image, {delay}s readiness delay, {least}s minReadySeconds), progressDeadlineSeconds is {deadline}: {then}"),
                format!("progressDeadlineSeconds: {}", each * 2),
            ),
        );
    } else if ticks >= 1 {
        report.say_of(
            autoscaler,
            remark(
                Level::Warning,
                format!(
                    "at {most} replicas the primary is replaced {at_once} at a time, {each}s each: {all}s, so that {} of {} halt with \"waiting for rollout to finish\" while the canary serves at weight {}",
                    if ticks == 1 { "a tick".to_owned() } else { format!("{ticks} ticks") },
                    span(subject.policy.interval),
                    subject.weights().last().copied().unwrap_or(0)
                ),
                format!("maxSurge or maxUnavailable of {}", number((all as f64 / subject.interval()).ceil() * at_once as f64)),
            ),
        );
    }
}

/// A number of pods, or a percentage of them.
fn amount(value: &Value, of: i64, up: bool) -> i64 {
    match value {
        Value::Number(number) => number.as_i64().unwrap_or(0),
        other => {
            let text = other.as_str().unwrap_or("25%");
            let percent = text.trim_end_matches('%').parse::<i64>().unwrap_or(25);
            if up { (of * percent + 99) / 100 } else { of * percent / 100 }
        }
    }
}
