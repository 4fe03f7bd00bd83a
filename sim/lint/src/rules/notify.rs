//! Who is told and who is asked.

use crd::HookType;
use whatif::load_test::LoadTest;

use super::Report;
use crate::finding::Level;

pub(super) fn check(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let analysis = subject.analysis();
    for (index, alert) in analysis.alerts.iter().enumerate() {
        let known = ["info", "warn", "error"];
        if known.contains(&alert.severity.as_str()) {
            continue;
        }
        let given = if alert.severity.is_empty() {
            "no severity".to_owned()
        } else {
            format!("severity {:?}", alert.severity)
        };
        report.say(
            "CM018",
            Level::Error,
            subject.path(&format!("alerts[{index}].severity")),
            format!("{} has {given}, which matches no message: nothing is ever sent to it", alert.name),
            "severity: info for all messages, error for failed releases only".to_owned(),
        );
    }
    for (index, hook) in analysis.webhooks.iter().enumerate() {
        let own = hook.url.contains("loadtester") || hook.url.contains("load-tester");
        if own || LoadTest::of(hook).is_some() || matches!(hook.kind, HookType::Event | HookType::Unknown) {
            continue;
        }
        let then = match hook.kind {
            HookType::ConfirmRollout | HookType::ConfirmPromotion | HookType::ConfirmTrafficIncrease => {
                "a gate that never opens".to_owned()
            }
            HookType::Rollback => "a rollback that is never made".to_owned(),
            HookType::PostRollout => "a failure in the log after every release".to_owned(),
            _ => format!("a failed check each time, and {} of them roll back", subject.policy.threshold()),
        };
        report.say(
            "CM019",
            Level::Note,
            subject.path(&format!("webhooks[{index}].url")),
            format!("if {} answers 204 No Content, Flagger takes it for a refusal: {then}", hook.url),
            "make sure that it answers 200".to_owned(),
        );
    }
}
