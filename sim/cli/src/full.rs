//! The full simulation as an engine of `coalmine whatif`: each rollout is a scenario of its own in the testbed.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ::whatif::experiment::Experiment;
use ::whatif::policy::Probe;
use ::whatif::rollout::{End, Outcome};
use ::whatif::scenario;
use ::whatif::sweep::{self, Point};
use ::whatif::tally::Tally;
use ::whatif::tick::{Failure, Reason};
use ::whatif::{Policy, Setting};
use testbed::RunOptions;
use testbed::scenario::{Loaded, Span};
use testbed::timeline::Event;

/// Runs rollouts in the testbed, each with its index for a seed.
pub fn engine<'p>(
    seed: u64,
    jobs: NonZeroUsize,
    progress: &'p (dyn Fn(u64) + Sync),
) -> impl Fn(&Setting<'_>, Range<u64>) -> Result<Tally, String> + Sync + 'p {
    move |setting, indices| {
        let scenario = load(setting)?;
        let next = AtomicU64::new(indices.start);
        let sum = Mutex::new((Tally::default(), None));
        let work = || {
            let mut scenario = scenario.clone();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= indices.end {
                    return;
                }
                let seed = seed.wrapping_mul(1_000_003).wrapping_add(index);
                let result = rollout(setting, &mut scenario, seed);
                let mut sum = sum.lock().expect("no holder of this lock panics");
                match result {
                    Ok(outcome) => sum.0.add(&outcome),
                    Err(problem) => sum.1 = sum.1.take().or(Some(problem)),
                }
                progress(1);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs.get().min((indices.end - indices.start) as usize) {
                scope.spawn(work);
            }
        });
        let (mut tally, problem) = sum.into_inner().expect("no holder of this lock panics");
        if let Some(problem) = problem {
            return Err(problem);
        }
        let names: Vec<String> = setting.policy.checks.iter().map(|check| check.name.clone()).collect();
        tally.name_failures(&names);
        Ok(tally)
    }
}

/// What the full simulation models otherwise than the fast path.
pub fn differences(experiment: &Experiment, points: &[Point]) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for (model, point) in
        experiment.models.iter().flat_map(|model| points.iter().map(move |point| (model, point)))
    {
        let policy = sweep::policy(experiment, &point.canary, model);
        for name in model.versions.keys() {
            for difference in scenario::differences(&Setting::new(&policy, model, name)?)? {
                let difference = format!("full engine: {difference}");
                if !all.contains(&difference) {
                    all.push(difference);
                }
            }
        }
    }
    all.push("full engine: requests to a promoted version count for the primary too".to_owned());
    Ok(all)
}

/// The scenario that all rollouts of a setting are, but for the seed and the moment of the release.
fn load(setting: &Setting<'_>) -> Result<Loaded, String> {
    let text = scenario::scenario(setting, 0)?;
    Loaded::parse("whatif.yaml", Path::new("."), &text)
        .map_err(|error| format!("the rollouts' scenario: {}", error.problems.join("; ")))
}

fn rollout(setting: &Setting<'_>, scenario: &mut Loaded, seed: u64) -> Result<Outcome, String> {
    let mut steps = scenario.scenario.spec.steps.iter_mut().map(|step| &mut step.value);
    let release = steps.find(|step| step.mark.as_deref() == Some(scenario::RELEASE));
    let release = release.expect("the scenario has a release");
    release.after = Some(Span(scenario::release_after(setting, seed)));
    let run = testbed::run(scenario, &RunOptions { seed: Some(seed), until: None });
    read(setting.policy, &run)
}

/// What came of a run, from Flagger's log and the users' traffic.
fn read(policy: &Policy, run: &testbed::Outcome) -> Result<Outcome, String> {
    let release = run.timeline.iter().find(|entry| entry.event == Event::Mark(scenario::RELEASE.to_owned()));
    let Some(release) = release else {
        return Err(format!("the full simulation did not come to the release: {:?}", run.status));
    };
    let mut outcome = Outcome {
        end: End::Endless,
        time: 0,
        first_failure: None,
        last_failure: None,
        failed_checks: 0,
        user_requests: 0,
        user_errors: 0,
        weight: 0,
    };
    let mut reason = Reason::Deadline;
    let lines = run.timeline.iter().filter(|entry| {
        matches!(&entry.event, Event::Line { source, .. } if source.workload == "flagger")
            && entry.at >= release.at
    });
    for entry in lines {
        let Some(message) = entry.message() else { continue };
        let at = entry.at.as_millisecond() - release.at.as_millisecond();
        outcome.time = at;
        if let Some((check, failure)) = failed(policy, &message) {
            outcome.failed_checks += 1;
            outcome.first_failure = outcome.first_failure.or(Some((check, failure, at)));
            outcome.last_failure = Some((check, failure));
        } else if message.contains("failed checks threshold reached") {
            reason = Reason::Threshold;
        } else if message.starts_with("Canary failed!") {
            outcome.end = End::RolledBack(reason);
            break;
        } else if message.starts_with("Promotion completed!") {
            outcome.end = End::Promoted;
            break;
        } else if let Some(weight) =
            message.rsplit_once("canary weight ").and_then(|(_, weight)| weight.parse().ok())
        {
            outcome.weight = outcome.weight.max(weight);
        }
    }
    let users = run.traffic.iter().find(|traffic| traffic.name == scenario::USERS);
    let answers =
        users.and_then(|users| users.versions.iter().find(|version| version.version == scenario::NEW));
    if let Some(answers) = answers {
        (outcome.user_requests, outcome.user_errors) = (answers.requests, answers.errors);
    }
    Ok(outcome)
}

/// The check that a message says has failed, and why.
fn failed(policy: &Policy, message: &str) -> Option<(u8, Failure)> {
    let by = |found: &dyn Fn(&::whatif::policy::Check) -> bool| {
        policy.checks.iter().position(found).map_or(0, |index| index as u8)
    };
    if message.contains("advancement success rate ") {
        return Some((by(&|check| check.probe == Probe::SuccessRate), Failure::Bound));
    }
    if message.contains("advancement request duration ") {
        return Some((by(&|check| check.name == "request-duration"), Failure::Bound));
    }
    let named = |check: &::whatif::policy::Check| message.contains(&check.name);
    if message.contains("no values found for") {
        return Some((by(&named), Failure::NoValues));
    }
    if message.contains("query failed") || message.starts_with("Metric template ") {
        return Some((by(&named), Failure::Query));
    }
    if message.contains("advancement external check") || message.contains("pre-rollout check") {
        return Some((0, Failure::Webhook));
    }
    let custom = message.starts_with("Halt ") && (message.contains(" > ") || message.contains(" < "));
    custom.then(|| (by(&named), Failure::Bound))
}
