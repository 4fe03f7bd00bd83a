//! Many rollouts on all cores.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use clock::Seed;

use crate::automaton::Automaton;
use crate::draws::{Draws, Keys};
use crate::rollout::{Line, Outcome, walk, witness};
use crate::setting::Setting;
use crate::statistics::share;
use crate::tally::Tally;
use crate::world::Memory;

/// Rollouts that a thread takes at a time.
const CHUNK: u64 = 512;
/// Rollouts before the first look at the intervals.
const FIRST_LOOK: u64 = 2_048;

/// How to run.
pub struct Plan<'p> {
    /// The seed.
    pub seed: Seed,
    /// Threads.
    pub jobs: NonZeroUsize,
    /// Ends early when the share of promoted rollouts is known to within this much on both sides; after 0, never.
    pub precision: f64,
    /// Is told how many rollouts were done since the last time.
    pub progress: &'p (dyn Fn(u64) + Sync),
}

/// Runs the rollouts with these indices. Which thread runs which changes nothing.
pub fn run(setting: &Setting<'_>, indices: Range<u64>, plan: &Plan<'_>) -> Tally {
    let mut tally = Tally::default();
    let mut from = indices.start;
    // Looks come at fixed numbers of rollouts, so that the number of threads does not matter to when it ends.
    let mut look = if plan.precision > 0.0 { FIRST_LOOK } else { indices.end - indices.start };
    while from < indices.end {
        let to = (indices.start + look).min(indices.end);
        tally.merge(&batch(setting, from..to, plan));
        from = to;
        look *= 2;
        if plan.precision > 0.0
            && let Some(promoted) = share(tally.promoted, tally.rollouts)
            && promoted.high - promoted.low <= 2.0 * plan.precision
        {
            break;
        }
    }
    let names: Vec<String> = setting.policy.checks.iter().map(|check| check.name.clone()).collect();
    tally.name_failures(&names);
    tally
}

fn batch(setting: &Setting<'_>, indices: Range<u64>, plan: &Plan<'_>) -> Tally {
    let next = AtomicU64::new(indices.start);
    let threads = plan.jobs.get().min((indices.end - indices.start).div_ceil(CHUNK) as usize).max(1);
    let work = || {
        let mut tally = Tally::default();
        let mut automaton = Automaton::new(setting.policy);
        let mut memory = Memory::default();
        let keys = Keys::new(plan.seed, &setting.model.name);
        loop {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed);
            if from >= indices.end {
                return tally;
            }
            let to = (from + CHUNK).min(indices.end);
            for index in from..to {
                tally.add(&walk(setting, &mut automaton, &mut memory, keys.draws(index), index));
            }
            (plan.progress)(to - from);
        }
    };
    if threads == 1 {
        return work();
    }
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            tally.merge(&worker.join().expect("a rollout does not panic"));
        }
    });
    tally
}

/// One rollout again, with all that the controller says.
pub fn replay(setting: &Setting<'_>, seed: Seed, index: u64) -> (Outcome, Vec<Line>) {
    let draws = Draws::new(seed, &setting.model.name, index);
    witness(setting, &mut Memory::default(), draws, index)
}

/// The rollouts among these that were the quickest, the slowest and in between, by `cost`: their indices.
pub fn examples(
    setting: &Setting<'_>,
    indices: Range<u64>,
    seed: Seed,
    cost: impl Fn(&Outcome) -> u64,
) -> Option<[u64; 3]> {
    let mut automaton = Automaton::new(setting.policy);
    let mut memory = Memory::default();
    let keys = Keys::new(seed, &setting.model.name);
    let mut costs: Vec<(u64, u64)> = indices
        .map(|index| (cost(&walk(setting, &mut automaton, &mut memory, keys.draws(index), index)), index))
        .collect();
    costs.sort_unstable();
    let last = costs.len().checked_sub(1)?;
    Some([costs[0].1, costs[last / 2].1, costs[last].1])
}
