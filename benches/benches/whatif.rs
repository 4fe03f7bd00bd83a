//! The what-if fast path: rollouts of the article's policy per second on one core, beside two plain loops of the same
//! policy. One draws each window's failures and its whole histogram with `rand_distr`, the other draws each request.

use canary::Dialect;
use clock::{Rng, Seed};
use crd::Canary;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Binomial, Distribution as _};
use whatif::automaton::Automaton;
use whatif::draws::Draws;
use whatif::rollout::{walk, witness};
use whatif::world::Memory;
use whatif::{Policy, ServiceModel, Setting};

/// Rollouts of one measurement.
const ROLLOUTS: u64 = 1_000;
/// Weights of the article's policy: ten checks to pass.
const STEPS: u32 = 10;
/// Failed checks that roll back.
const THRESHOLD: u32 = 10;
/// Requests to the canary in a window: the load test's, and a share of the users'.
const TESTED: u64 = 500;
const USERS: u64 = 500;
/// The share of requests in each of the histogram's twenty buckets: a median of 30 ms, a 99th percentile of 200 ms.
const BUCKETS: [f64; 20] = [
    0.0, 0.0, 0.013, 0.075, 0.323, 0.322, 0.197, 0.065, 0.0047, 0.0003, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0, 0.0,
];

/// One rollout by windows: a binomial for the failures, one for each bucket.
fn by_windows(errors: f64, random: &mut Rng) -> bool {
    let (mut step, mut failed) = (1, 0);
    while step <= STEPS && failed < THRESHOLD {
        let requests = TESTED + USERS * u64::from(step) * 5 / 100;
        let failures = Binomial::new(requests, errors).expect("a share").sample(random);
        let (mut left, mut share_left, mut slow) = (requests, 1.0f64, 0);
        for (bucket, share) in BUCKETS.iter().enumerate() {
            let part = (share / share_left).clamp(0.0, 1.0);
            let here = Binomial::new(left, part).expect("a share").sample(random);
            (left, share_left) = (left - here, share_left - share);
            slow += if bucket > 8 { here } else { 0 };
        }
        let passes =
            failures as f64 <= requests as f64 * 0.01 && (slow + left) as f64 <= requests as f64 * 0.01;
        if passes {
            step += 1;
        } else {
            failed += 1;
        }
    }
    failed < THRESHOLD
}

/// One rollout by requests: a number for whether each fails, one for how long it takes.
fn by_requests(errors: f64, random: &mut Rng) -> bool {
    let latency = rand_distr::LogNormal::new(0.03f64.ln(), 0.8155).expect("a deviation");
    let (mut step, mut failed) = (1, 0);
    while step <= STEPS && failed < THRESHOLD {
        let requests = TESTED + USERS * u64::from(step) * 5 / 100;
        let (mut failures, mut slow) = (0u64, 0u64);
        for _ in 0..requests {
            failures += u64::from(random.random::<f64>() < errors);
            slow += u64::from(latency.sample(random) > 0.5);
        }
        if failures * 100 <= requests && slow * 100 <= requests {
            step += 1;
        } else {
            failed += 1;
        }
    }
    failed < THRESHOLD
}

fn rollouts(criterion: &mut Criterion) {
    let canary: Canary =
        serde_saphyr::from_str(include_str!("../../fixtures/article/flagger/podinfo/canary.yaml"))
            .expect("the fixture is a Canary");
    let policy = Policy::new(canary, Dialect::Latest, &[], &|_| None);
    let model = ServiceModel::default();
    let mut group = criterion.benchmark_group("article-policy-rollouts");
    group.sample_size(20);
    for (version, errors) in [("good", 0.001), ("bad", 0.05)] {
        let setting = Setting::new(&policy, &model, version).expect("the model has the version");
        group.throughput(Throughput::Elements(ROLLOUTS));
        let (mut automaton, mut memory) = (Automaton::new(&policy), Memory::default());
        let mut index = 0;
        group.bench_function(format!("fast/{version}"), |bencher| {
            bencher.iter(|| {
                let mut promoted = 0;
                for _ in 0..ROLLOUTS {
                    index += 1;
                    let draws = Draws::new(Seed::new(1), "default", index);
                    let outcome = walk(&setting, &mut automaton, &mut memory, draws, index);
                    promoted += u64::from(outcome.end == whatif::End::Promoted);
                }
                promoted
            });
        });
        group.throughput(Throughput::Elements(ROLLOUTS / 50));
        group.bench_function(format!("core/{version}"), |bencher| {
            bencher.iter(|| {
                let draws = |index| Draws::new(Seed::new(1), "default", index);
                (0..ROLLOUTS / 50)
                    .map(|index| witness(&setting, &mut memory, draws(index), index).1.len())
                    .sum::<usize>()
            });
        });
        let mut random = Rng::seed_from_u64(1);
        group.throughput(Throughput::Elements(ROLLOUTS));
        group.bench_function(format!("windows-rand_distr/{version}"), |bencher| {
            bencher.iter(|| (0..ROLLOUTS).filter(|_| by_windows(errors, &mut random)).count());
        });
        group.throughput(Throughput::Elements(ROLLOUTS / 10));
        group.bench_function(format!("requests-rand_distr/{version}"), |bencher| {
            bencher.iter(|| (0..ROLLOUTS / 10).filter(|_| by_requests(errors, &mut random)).count());
        });
    }
    group.finish();
}

criterion_group!(benches, rollouts);
criterion_main!(benches);
