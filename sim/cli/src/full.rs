//! The full simulation as an engine of `coalmine whatif`: rollouts are releases in the testbed.

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
use testbed::timeline::{Entry, Event};

/// Rollouts that share a world at most, as releases one after the other: setting it up is then a few percent of the work,
/// and the usual twenty rollouts are still enough for two threads.
const RELEASES: u64 = 10;

/// Runs rollouts in the testbed. What comes of one depends on the seed, the setting and its index alone: worlds are cut from
/// the indices from 0 on, whatever range of them is asked for, and a range that begins within a world runs it from its start.
pub fn engine<'p>(
    seed: u64,
    jobs: NonZeroUsize,
    progress: &'p (dyn Fn(u64) + Sync),
) -> impl Fn(&Setting<'_>, Range<u64>) -> Result<Tally, String> + Sync + 'p {
    move |setting, indices| {
        let size = if scenario::rest(setting).is_some() { RELEASES } else { 1 };
        let scenario = load(setting, size.min(indices.end).max(1))?;
        let worlds = indices.start / size..if indices.is_empty() { 0 } else { indices.end.div_ceil(size) };
        let next = AtomicU64::new(worlds.start);
        let sum = Mutex::new((Tally::default(), None));
        let work = || {
            let mut scenario = scenario.clone();
            loop {
                let world = next.fetch_add(1, Ordering::Relaxed);
                if world >= worlds.end {
                    return;
                }
                let first = world * size;
                let end = first.saturating_add(size).min(indices.end);
                let result = rollouts(setting, &mut scenario, seed, first..end);
                let mut sum = sum.lock().expect("no holder of this lock panics");
                match result {
                    Ok(outcomes) => {
                        let asked = (first..).zip(&outcomes).filter(|(index, _)| *index >= indices.start);
                        asked.for_each(|(_, outcome)| sum.0.add(outcome));
                    }
                    Err(problem) => sum.1 = sum.1.take().or(Some(problem)),
                }
                progress(end - first.max(indices.start));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs.get().min(worlds.clone().count()) {
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
    let mut shares = false;
    for (model, point) in
        experiment.models.iter().flat_map(|model| points.iter().map(move |point| (model, point)))
    {
        let policy = sweep::policy(experiment, &point.canary, model);
        for name in model.versions.keys() {
            let setting = Setting::new(&policy, model, name)?;
            shares |= scenario::rest(&setting).is_some();
            for difference in scenario::differences(&setting)? {
                let difference = format!("full engine: {difference}");
                if !all.contains(&difference) {
                    all.push(difference);
                }
            }
        }
    }
    if shares {
        all.push(format!(
            "full engine: {RELEASES} rollouts share a world, one release after the other: each begins when no metric's \
             window holds anything of the one before and its load test has ended"
        ));
    }
    all.push("full engine: requests to a promoted version count for the primary too".to_owned());
    Ok(all)
}

/// The scenario that all worlds with so many rollouts of a setting are, but for the seed and the moments of the releases.
fn load(setting: &Setting<'_>, rollouts: u64) -> Result<Loaded, String> {
    let text = scenario::sequence(setting, &vec![0; rollouts as usize])?;
    Loaded::parse("whatif.yaml", Path::new("."), &text)
        .map_err(|error| format!("the rollouts' scenario: {}", error.problems.join("; ")))
}

/// The rollouts with these indices in a world of their own, and in further ones if some do not end: such a rollout is its
/// world's last. `whole` is a scenario of as many or more.
fn rollouts(
    setting: &Setting<'_>,
    whole: &mut Loaded,
    seed: u64,
    mut indices: Range<u64>,
) -> Result<Vec<Outcome>, String> {
    let mut outcomes = Vec::new();
    while !indices.is_empty() {
        let seeds: Vec<u64> =
            indices.clone().map(|index| seed.wrapping_mul(1_000_003).wrapping_add(index)).collect();
        let more = Some(scenario::mark(seeds.len()));
        let steps = &whole.scenario.spec.steps;
        let mut part;
        let scenario = if steps.iter().any(|step| step.mark == more) {
            part = load(setting, seeds.len() as u64)?;
            &mut part
        } else {
            &mut *whole
        };
        for (release, seed) in seeds.iter().enumerate() {
            let mark = Some(scenario::mark(release));
            let step = scenario.scenario.spec.steps.iter_mut().find(|step| step.mark == mark);
            let step = step.expect("the scenario has so many releases");
            step.value.after = Some(Span(scenario::release_after(setting, release, *seed)));
        }
        let run = testbed::run(scenario, &RunOptions { seed: Some(seeds[0]), until: None });
        let ended = read(setting.policy, &run, seeds.len())?;
        indices.start += ended.len() as u64;
        outcomes.extend(ended);
    }
    Ok(outcomes)
}

/// What came of the releases of a run, as far as it came.
fn read(policy: &Policy, run: &testbed::Outcome, releases: usize) -> Result<Vec<Outcome>, String> {
    let starts = (0..releases).map_while(|release| {
        let mark = Event::Mark(scenario::mark(release));
        run.timeline.iter().position(|entry| entry.event == mark)
    });
    let starts: Vec<usize> = starts.collect();
    if starts.is_empty() {
        return Err(format!("the full simulation did not come to the release: {:?}", run.status));
    }
    let ends = starts.iter().skip(1).copied().chain([run.timeline.len()]);
    let releases = starts.iter().zip(ends).enumerate();
    let releases = releases.map(|(release, (start, end))| {
        let mut outcome = said(policy, &run.timeline[*start..end]);
        // Until the mark of its end: a promoted version answers on.
        let users = run.traffic.iter().find(|traffic| traffic.name == scenario::USERS);
        let answers = users.and_then(|users| users.by_mark.get(&scenario::mark(release)));
        let tag = scenario::tag(release);
        let answers = answers.and_then(|answers| answers.iter().find(|answers| answers.version == tag));
        if let Some(answers) = answers {
            (outcome.user_requests, outcome.user_errors) = (answers.requests, answers.errors);
        }
        outcome
    });
    Ok(releases.collect())
}

/// What Flagger's log says of a release: `timeline` begins with it.
fn said(policy: &Policy, timeline: &[Entry]) -> Outcome {
    let start = timeline.first().map_or(0, |entry| entry.at.as_millisecond());
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
    let lines = timeline
        .iter()
        .filter(|entry| matches!(&entry.event, Event::Line { source, .. } if source.workload == "flagger"));
    for entry in lines {
        let Some(message) = entry.message() else { continue };
        let at = entry.at.as_millisecond() - start;
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
    outcome
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

#[cfg(test)]
mod tests {
    use ::whatif::experiment::{self, Overrides};
    use ::whatif::source::Disk;

    use super::*;

    /// Tests with a bad version under the article's policy, but with few steps and the first failed check the last.
    fn with_setting(overrides: Overrides, change: &dyn Fn(&mut Experiment), test: &dyn Fn(&Setting<'_>)) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/article/flagger/podinfo");
        let mut experiment = experiment::read(&Disk, &[folder.join("canary.yaml")], &overrides).unwrap();
        let analysis = experiment.canary.spec.analysis.as_mut().unwrap();
        (analysis.threshold, analysis.step_weight) = (1, 25);
        change(&mut experiment);
        let model = &experiment.models[0];
        let policy = sweep::policy(&experiment, &experiment.canary, model);
        test(&Setting::new(&policy, model, "bad").unwrap());
    }

    /// What comes of ranges of rollouts, and how many were reported.
    fn run(setting: &Setting<'_>, jobs: usize, parts: &[Range<u64>]) -> (Tally, u64) {
        let done = AtomicU64::new(0);
        let progress = |more| {
            done.fetch_add(more, Ordering::Relaxed);
        };
        let run = engine(7, NonZeroUsize::new(jobs).unwrap(), &progress);
        let mut sum = Tally::default();
        parts.iter().for_each(|part| sum.merge(&run(setting, part.clone()).unwrap()));
        (sum, done.load(Ordering::Relaxed))
    }

    #[test]
    fn parts_and_threads_change_no_result() {
        let overrides = Overrides { bad_errors: Some(0.009), ..Overrides::default() };
        with_setting(overrides, &|_| {}, &|setting| {
            assert!(scenario::rest(setting).is_some());
            // The last of one world and the first two of the next.
            let (whole, done) = run(setting, 1, std::slice::from_ref(&(9..12)));
            assert_eq!((whole.rollouts, done), (3, 3));
            assert!(whole.promoted > 0 && whole.rolled_back() > 0, "{} promoted", whole.promoted);
            let parts = run(setting, 2, &[9..10, 10..10, 10..11, 11..12]);
            assert!(parts == (whole, 3), "parts differ from the whole");
        });
    }

    #[test]
    fn a_version_that_is_never_ready_is_rolled_back() {
        let never_ready = |experiment: &mut Experiment| {
            let bad = experiment.models[0].versions.get_mut("bad").unwrap();
            (bad.never_ready, bad.error_rate) = (true, None);
        };
        with_setting(Overrides::default(), &never_ready, &|setting| {
            let (both, _) = run(setting, 1, std::slice::from_ref(&(0..2)));
            assert_eq!((both.rollouts, both.rolled_back(), both.promoted), (2, 2, 0));
        });
    }

    #[test]
    fn rollouts_after_one_without_an_end_have_a_world_too() {
        let gate = |experiment: &mut Experiment| {
            let analysis = experiment.canary.spec.analysis.as_mut().unwrap();
            analysis.interval = "1m".to_owned();
            let gate = &mut analysis.webhooks[0];
            (gate.url, gate.metadata) = ("http://loadtester.test/gate/halt".to_owned(), None);
            gate.kind = serde_json::from_str("\"confirm-rollout\"").unwrap();
        };
        let scrape_interval = Some(::whatif::Span::from_millis(60_000));
        let overrides = Overrides { rate: Some(0.0), scrape_interval, ..Overrides::default() };
        with_setting(overrides, &gate, &|setting| {
            assert!(scenario::rest(setting).is_some());
            let (all, done) = run(setting, 1, std::slice::from_ref(&(0..2)));
            assert_eq!((all.rollouts, all.endless, done), (2, 2, 2));
        });
    }
}
