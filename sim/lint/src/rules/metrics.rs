//! What the metrics server can say.

use canary::Dialect;
use whatif::model::Telemetry;
use whatif::policy::{Policy, Probe};

use super::Report;
use crate::facts::{number, span};
use crate::finding::Level;

pub(super) fn check(report: &mut Report<'_, '_>) {
    scrapes(report);
    latencies(report);
    empty(report);
    timeouts(report);
}

/// CM002.
fn scrapes(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let Some(job) = subject.scrape() else { return };
    for (index, check) in subject.policy.checks.iter().enumerate() {
        if matches!(check.probe, Probe::Assumed(_) | Probe::Broken(_)) {
            continue;
        }
        let (window, scrape) = (check.window, job.interval);
        let field = subject.path(&format!("metrics[{index}].interval"));
        let place = format!("job {} ({}) scrapes every {}", job.job, job.object, span(scrape));
        if window < 2 * scrape {
            let share = if window < scrape { 0.0 } else { (window - scrape) as f64 / scrape as f64 };
            report.say(
                "CM002",
                Level::Error,
                field,
                format!(
                    "{place}, the window is {}: two samples are in it {}% of the time, else {} has no values",
                    span(window),
                    number(share * 100.0),
                    check.name
                ),
                format!(
                    "an interval of at least {}, or a scrape_interval of {}",
                    span(3 * scrape),
                    span(window / 3)
                ),
            );
        } else if window < 3 * scrape {
            report.say(
                "CM002",
                Level::Warning,
                field,
                format!("{place}, the window is {}: it holds two samples at times, and one lost scrape empties it", span(window)),
                format!("an interval of at least {}, or a scrape_interval of {}", span(3 * scrape), span(window / 3)),
            );
        }
    }
}

/// CM007 and CM008.
fn latencies(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let mesh = subject.facts.telemetry;
    for (index, check) in subject.policy.checks.iter().enumerate() {
        let Probe::Quantile { telemetry, factor, whole_millis, q } = check.probe else { continue };
        let has_range =
            subject.analysis().metrics.get(index).is_some_and(|metric| metric.threshold_range.is_some());
        let field = subject
            .path(&format!("metrics[{index}].{}", if has_range { "thresholdRange" } else { "threshold" }));
        let asked = match telemetry {
            Telemetry::Seconds => "istio_request_duration_seconds_bucket",
            Telemetry::Milliseconds => "istio_request_duration_milliseconds_bucket",
        };
        let is_builtin = whole_millis;
        let wrong = match mesh {
            Some(mesh) => mesh != telemetry,
            None => is_builtin && telemetry != Policy::builtin_telemetry(Dialect::Latest),
        };
        if wrong {
            let sure = mesh.is_some();
            report.say(
                "CM008",
                if sure { Level::Error } else { Level::Warning },
                subject.path(&format!("metrics[{index}].name")),
                format!(
                    "this check reads {asked}, which {}: it has no values, and {} such checks roll back every release",
                    if sure { "the mesh does not export" } else { "meshes since Istio 1.5 do not export" },
                    subject.policy.threshold()
                ),
                "a MetricTemplate over the histogram that the mesh exports".to_owned(),
            );
        }
        let Some(max) = check.max else { continue };
        let in_unit = max / factor;
        let bounds = telemetry.bounds();
        let likely_seconds = telemetry == Telemetry::Milliseconds && factor == 1.0 && max > 0.0 && max < 10.0;
        let likely_millis = telemetry == Telemetry::Seconds && !is_builtin && factor == 1.0 && max >= 20.0;
        if likely_seconds || likely_millis {
            let (unit, meant) =
                if likely_seconds { ("milliseconds", max * 1000.0) } else { ("seconds", max / 1000.0) };
            report.say(
                "CM008",
                Level::Error,
                field,
                format!(
                    "the value is in {unit} and is compared with {}: {}",
                    canary::float_text(max),
                    if likely_seconds {
                        "almost every version is too slow"
                    } else {
                        "no version is ever too slow"
                    }
                ),
                format!("{} if that was meant", canary::float_text(meant)),
            );
            continue;
        }
        let Some(above) = bounds.iter().position(|bound| *bound >= in_unit) else {
            report.say(
                "CM007",
                Level::Error,
                field,
                format!("the last finite bucket ends at {}: no quantile is ever above it, so the check always passes", canary::float_text(bounds[bounds.len() - 1] * factor)),
                format!("a threshold below {}", canary::float_text(bounds[bounds.len() - 1] * factor)),
            );
            continue;
        };
        // Rounding in the conversion of units is no distance.
        if (bounds[above] - in_unit).abs() <= in_unit.abs() * 1e-9 {
            continue;
        }
        let low = above.checked_sub(1).map_or(0.0, |below| bounds[below]) * factor;
        let high = bounds[above] * factor;
        let all_at_low = low + (high - low) * q;
        report.say(
            "CM007",
            Level::Warning,
            field,
            format!(
                "{} is inside the bucket from {} to {}: a version whose requests all take just over {} reads as {}, one whose requests all take {} reads the same",
                canary::float_text(max),
                canary::float_text(low),
                canary::float_text(high),
                canary::float_text(low),
                number(all_at_low),
                canary::float_text(high)
            ),
            format!("{} or {}", canary::float_text(low), canary::float_text(high)),
        );
    }
}

/// CM009.
fn empty(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let Some(index) = subject.policy.checks.iter().position(|check| check.probe == Probe::SuccessRate) else {
        return;
    };
    let (threshold, interval) = (subject.policy.threshold(), subject.policy.interval);
    report.say(
        "CM009",
        Level::Note,
        subject.path(&format!("metrics[{index}]")),
        format!(
            "a version that fails every request from its first on reads as no values, not as 0%: the log says that it is probably not receiving traffic, {threshold} times in {}",
            span(i64::from(threshold) * interval)
        ),
        "look for failed requests when the log says no values found".to_owned(),
    );
}

/// CM010.
fn timeouts(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let text = &subject.canary.spec.service.timeout;
    let Some(timeout) = canary::parse_duration(text).map(|timeout| timeout.as_secs_f64() * 1000.0) else {
        return;
    };
    let judges = subject.policy.checks.iter().any(|check| check.probe == Probe::SuccessRate);
    let caught = subject.policy.checks.iter().any(|check| match (&check.probe, check.max) {
        (Probe::Quantile { factor, telemetry, .. }, Some(max)) => {
            let to_millis = if *telemetry == Telemetry::Seconds { 1000.0 } else { 1.0 };
            max / factor * to_millis < timeout
        }
        _ => false,
    });
    if timeout > 0.0 && judges && !caught {
        report.say(
            "CM010",
            Level::Warning,
            "spec.service.timeout".to_owned(),
            format!(
                "users get 504 after {text}, but the canary's proxy records code 0: a version that never answers in time has a success rate of 100%, and no latency check has a maximum below {text}"
            ),
            format!("a request-duration check with a maximum below {}", number(timeout)),
        );
    }
}
