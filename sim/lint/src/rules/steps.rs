//! Steps, thresholds, and the race between them.

use whatif::counts::binomial_cdf;
use whatif::policy::Probe;

use super::Report;
use crate::facts::{number, span};
use crate::finding::Level;

pub(super) fn check(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let analysis = subject.analysis();
    let weights = subject.weights();
    let interval = canary::parse_duration(&analysis.interval);
    if interval.is_none_or(|interval| interval.as_secs() < 10) {
        let why = match interval {
            Some(_) => format!(
                "{} is below the control loop's 10s: checks come every {}",
                analysis.interval,
                span(subject.policy.interval)
            ),
            None if analysis.interval.is_empty() => "none is set: checks come every 1m0s".to_owned(),
            None => format!("{:?} is no Go duration: checks come every 1m0s", analysis.interval),
        };
        let level = if analysis.interval.is_empty() { Level::Note } else { Level::Warning };
        report.say(
            "CM023",
            level,
            subject.path("interval"),
            why,
            "a duration of at least 10s, e.g. 30s".to_owned(),
        );
    }
    if analysis.threshold < 1 {
        report.say(
            "CM022",
            Level::Warning,
            subject.path("threshold"),
            format!("{} counts as 1: the first failed check rolls back", analysis.threshold),
            "the number of failed checks that roll back".to_owned(),
        );
    }
    if weights.is_empty() && subject.policy.provider != "kubernetes" {
        report.say(
            "CM020",
            Level::Error,
            subject.path("stepWeight"),
            if is_written(report, "stepWeight") || is_written(report, "iterations") {
                "steps of 0 and no iterations: after \"Starting canary analysis\" no tick ever advances, passed checks repeat for ever, and the release never ends".to_owned()
            } else {
                "none of stepWeight, stepWeights and iterations is there: the API server refuses the Canary, which needs one of them".to_owned()
            },
            "stepWeight: 5 and maxWeight: 50, or iterations: 10".to_owned(),
        );
        return;
    }
    let has_steps = analysis.step_weight > 0 || !analysis.step_weights.is_empty();
    if analysis.iterations > 0 && has_steps {
        report.say(
            "CM024",
            Level::Error,
            subject.path("iterations"),
            format!(
                "both iterations: {} and steps: the API server refuses the Canary, which needs exactly one of them, and releases go on under the policy before; where it is not validated it is {}",
                analysis.iterations,
                if analysis.matches.is_empty() { "a blue/green run without weights" } else { "an A/B test without weights" }
            ),
            "remove iterations, or the weights".to_owned(),
        );
    }
    if analysis.iterations == 0 && analysis.step_weight > 0 {
        let most = canary::max_weight(&analysis, subject.dialect);
        let last = weights.last().copied().unwrap_or(0);
        if last > most {
            let listed: Vec<String> = weights.iter().map(i32::to_string).collect();
            report.say(
                "CM011",
                Level::Warning,
                subject.path("maxWeight"),
                format!(
                    "in steps of {} the weights are {}: {} points past {most}",
                    analysis.step_weight,
                    listed.join(", "),
                    last - most
                ),
                format!("maxWeight: {} or {last}", most / analysis.step_weight * analysis.step_weight),
            );
        }
        if analysis.step_weight >= most {
            report.say(
                "CM021",
                Level::Warning,
                subject.path("stepWeight"),
                format!(
                    "the first step, which comes without a check, goes to weight {} of {most}: one passed check promotes, {} after the start",
                    weights[0],
                    span(subject.policy.interval)
                ),
                format!("stepWeight: {}", (most / 5).max(1)),
            );
        }
    }
    race(report, &weights);
}

/// Whether the manifest names a field of the analysis.
fn is_written(report: &Report<'_, '_>, field: &str) -> bool {
    let spec = &report.subject.document.value["spec"];
    let analysis = spec.get("analysis").or(spec.get("canaryAnalysis"));
    analysis.is_some_and(|analysis| analysis.get(field).is_some())
}

/// CM012, CM013 and CM025.
fn race(report: &mut Report<'_, '_>, weights: &[i32]) {
    let subject = report.subject;
    let (checks, threshold) = (weights.len() as u32, subject.policy.threshold() as u32);
    if subject.policy.checks.is_empty() {
        report.say(
            "CM025",
            Level::Error,
            subject.path("metrics"),
            format!("no metrics: a version that fails every request is promoted after {checks} ticks"),
            "request-success-rate with a minimum, request-duration with a maximum".to_owned(),
        );
        return;
    }
    // Checks passed before `threshold` fail, of a version that fails every second one.
    let trials = checks + threshold - 1;
    let promoted = 1.0 - binomial_cdf(trials, 0.5, checks.saturating_sub(1));
    if checks > 0 && promoted > 0.5 + 1e-9 {
        report.say(
            "CM012",
            Level::Warning,
            subject.path("threshold"),
            format!(
                "{checks} passed checks promote, {threshold} failed ones roll back: a version that fails every second check is promoted in {}% of its releases",
                number(promoted * 100.0)
            ),
            format!("a threshold of {} or less", (checks / 2).max(1)),
        );
    }
    let Some(check) = subject.policy.checks.iter().find(|check| check.probe == Probe::SuccessRate) else {
        return;
    };
    let Some(min) = check.min else { return };
    let errors = subject.facts.bad_errors;
    if errors * 100.0 <= 100.0 - min {
        return;
    }
    let passing: Vec<(f64, f64)> = weights
        .iter()
        .map(|weight| {
            let rate = subject.facts.rate * f64::from(*weight) / 100.0 + subject.tested(*weight);
            let requests = (rate * check.window as f64 / 1000.0).round().clamp(0.0, 1e6) as u32;
            let allowed = (f64::from(requests) * (100.0 - min) / 100.0 + 1e-9).floor() as u32;
            // A window without requests has no values, and fails.
            let passes = if requests == 0 { 0.0 } else { binomial_cdf(requests, errors, allowed) };
            (f64::from(requests), passes)
        })
        .collect();
    let promoted = survives(&passing.iter().map(|(_, passes)| *passes).collect::<Vec<_>>(), threshold);
    if promoted > 0.01 {
        let (requests, passes) = passing[0];
        report.say(
            "CM013",
            if promoted > 0.1 { Level::Error } else { Level::Warning },
            subject.path("threshold"),
            format!(
                "a version that fails {}% of its requests is promoted in {}% of its releases: its first check sees {requests:.0} requests and passes with {}%, {checks} passed checks promote before {threshold} fail",
                number(errors * 100.0),
                number(promoted * 100.0),
                number(passes * 100.0)
            ),
            "more requests per window, smaller steps or a lower threshold; see `coalmine whatif --optimize`".to_owned(),
        );
    }
}

/// The probability that each check passes once before `threshold` fail, when the checks pass with these probabilities
/// and each is repeated until it passes.
fn survives(passing: &[f64], threshold: u32) -> f64 {
    // By the number of failed checks so far.
    let mut alive = vec![0.0; threshold as usize];
    alive[0] = 1.0;
    for passes in passing {
        let mut next = vec![0.0; alive.len()];
        for (failed, share) in alive.iter().enumerate() {
            let mut share = *share;
            for after in &mut next[failed..] {
                *after += share * passes;
                share *= 1.0 - passes;
            }
        }
        alive = next;
    }
    alive.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn races_follow_the_negative_binomial_distribution() {
        // Two passes before two failures, each check a coin: 11 of 16 outcomes of three, less those that end early.
        assert!((survives(&[0.5, 0.5], 2) - 0.5).abs() < 1e-12);
        assert!((survives(&[0.9], 1) - 0.9).abs() < 1e-12);
        assert!((survives(&[0.5; 3], 5) - (1.0 - binomial_cdf(7, 0.5, 2))).abs() < 1e-12);
    }
}
