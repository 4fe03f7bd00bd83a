//! The scheduler on virtual time: what is sent, and when.

use std::sync::Mutex;
use std::time::Duration;

use loadgen::{
    Answer, Arrivals, Exchange, Failure, FailureKind, Pace, Plan, Recorder, Report, Sample, Target, Ticker,
    Time, hey, run,
};
use proptest::prelude::*;

/// tokio's paused clock, with its timers of one millisecond.
pub struct Virtual(tokio::time::Instant);

impl Time for Virtual {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the load generator knows no run clock; this is its virtual time"
    )]
    async fn sleep_until(&self, at: Duration) {
        tokio::time::sleep_until(self.0 + at).await;
    }

    fn granularity(&self) -> Duration {
        Duration::from_millis(1)
    }
}

/// Answers by a function of the request's number; the latency is data, and the clock follows where a millisecond
/// or more of it is left.
struct Scripted<'a, F> {
    clock: &'a Virtual,
    sent: Mutex<u64>,
    answer: F,
}

impl<F: Fn(u64) -> Exchange + Sync> Target for Scripted<'_, F> {
    type Connection = ();

    fn connection(&self, _index: usize) {}

    async fn send(&self, _connection: &mut (), _sent: Duration) -> Exchange {
        let number = {
            let mut sent = self.sent.lock().unwrap();
            *sent += 1;
            *sent - 1
        };
        let exchange = (self.answer)(number);
        let due = self.clock.now() + exchange.latency;
        if exchange.latency >= Duration::from_millis(1) {
            self.clock.sleep_until(due).await;
        }
        exchange
    }
}

/// Runs a plan on virtual time; returns the report and all samples in the order of their answers.
fn simulate(plan: &Plan, answer: impl Fn(u64) -> Exchange + Sync) -> (Report, Vec<Sample>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let clock = Virtual(tokio::time::Instant::now());
        let samples = std::sync::Arc::new(Mutex::new(Vec::new()));
        let kept = samples.clone();
        let recorder = Recorder::observed(move |sample| kept.lock().unwrap().push(sample.clone()));
        let target = Scripted { clock: &clock, sent: Mutex::new(0), answer };
        run(plan, &target, &clock, &recorder).await;
        let samples = std::mem::take(&mut *samples.lock().unwrap());
        (recorder.finish(), samples)
    })
}

fn hey_plan(line: &str) -> Plan {
    hey::Args::parse(&loadgen::shell::words(line).unwrap()[1..]).unwrap().plan()
}

fn ok_after(latency: Duration) -> impl Fn(u64) -> Exchange + Sync {
    move |_| Exchange::answered(Answer::status(200), latency)
}

#[test]
fn the_articles_command_sends_twelve_hundred_requests_in_a_minute() {
    let plan = hey_plan("hey -z 1m -q 10 -c 2 http://podinfo-canary.test:9898/");
    let (report, samples) = simulate(&plan, ok_after(Duration::from_micros(2_345)));
    assert_eq!(report.all.requests, 1200);
    assert_eq!(report.all.statuses[&200], 1200);
    // The first request waits for the first tick, and the tick at one minute is still served.
    assert_eq!(samples[0].sent, Duration::from_millis(100));
    assert_eq!(samples[1199].sent, Duration::from_secs(60));
    assert_eq!(report.total, Duration::from_micros(60_002_345));
    assert_eq!(report.all.latency.most(), Duration::from_micros(2_345), "latency is not rounded by timers");
}

#[test]
fn a_slow_answer_keeps_one_tick_and_drops_the_others() {
    let plan = hey_plan("hey -z 2s -q 10 -c 1 http://x/");
    let (_, samples) = simulate(&plan, |number| {
        let latency = if number == 0 { 350 } else { 1 };
        Exchange::answered(Answer::status(200), Duration::from_millis(latency))
    });
    let sent: Vec<u128> = samples.iter().take(4).map(|sample| sample.sent.as_millis()).collect();
    // The ticks at 200, 300 and 400 ms pass during the first request, which ends at 450 ms: one is kept.
    assert_eq!(sent, [100, 450, 500, 600]);
}

#[test]
fn the_remainder_of_n_over_c_is_dropped() {
    let (report, _) = simulate(&hey_plan("hey -n 205 -c 10 http://x/"), ok_after(Duration::from_millis(5)));
    assert_eq!(report.all.requests, 200);
    assert_eq!(report.total, Duration::from_millis(100));
}

#[test]
fn a_target_that_fails_at_once_does_not_hold_the_clock() {
    let plan = hey_plan("hey -z 1s -c 1 http://x/");
    let (report, _) = simulate(&plan, |_| {
        let failure = Failure { kind: FailureKind::Connect, text: "connection refused".into() };
        Exchange::failed(failure, Duration::ZERO)
    });
    assert_eq!(report.all.failed(), report.all.requests);
    assert_eq!(report.errors["connection refused"], report.all.requests);
    assert_eq!(report.all.requests, 100_000);
}

#[test]
fn an_open_model_counts_the_wait_behind_a_stall() {
    let plan = Plan {
        connections: 2,
        requests: None,
        duration: Some(Duration::from_secs(10)),
        pace: Pace::Open(Arrivals::constant(100.0)),
        ..Plan::default()
    };
    // Both connections stall for a second at about half time.
    let (report, samples) = simulate(&plan, |number| {
        let latency = if number == 500 || number == 501 { 1000 } else { 2 };
        Exchange::answered(Answer::status(200), Duration::from_millis(latency))
    });
    assert_eq!(report.all.requests, 1000, "every arrival is sent");
    assert!(samples.windows(2).all(|pair| pair[0].sent <= pair[1].sent + Duration::from_secs(1)));
    assert_eq!(
        report.all.latency.quantile(0.99),
        Duration::from_millis(2).max(report.all.latency.quantile(0.99))
    );
    assert!(
        report.all.latency.quantile(0.99) < Duration::from_millis(3),
        "{:?}",
        report.all.latency.quantile(0.99)
    );
    let corrected = report.all.latency_from_due().quantile(0.99);
    assert!(corrected > Duration::from_millis(850), "{corrected:?}");
}

#[test]
fn poisson_arrivals_have_the_rate_and_repeat() {
    let draw = |seed| {
        let mut arrivals = Arrivals::poisson(1000.0, seed);
        (0..100_000).map(|_| arrivals.next_due().unwrap()).collect::<Vec<_>>()
    };
    let dues = draw(7);
    assert_eq!(dues, draw(7));
    assert_ne!(dues, draw(8));
    assert!(dues.is_sorted());
    let seconds = dues[99_999].as_secs_f64();
    assert!((99.0..101.0).contains(&seconds), "{seconds}");
    let long = dues.windows(2).filter(|pair| pair[1] - pair[0] > Duration::from_millis(1)).count();
    assert!((36_000..37_600).contains(&long), "e^-1 of the gaps exceed the mean, got {long}");
}

proptest! {
    #[test]
    fn a_ticker_never_runs_early_and_keeps_at_most_one_tick(
        period in 1u64..5_000,
        busy in prop::collection::vec(0u64..20_000, 1..200),
    ) {
        let period = Duration::from_micros(period);
        let mut ticker = Ticker::new(Duration::ZERO, period);
        let (mut now, mut at_once) = (Duration::ZERO, 0);
        for busy in busy {
            let taken = ticker.take(now);
            prop_assert!(taken >= now && taken > Duration::ZERO);
            prop_assert!(taken <= now + period, "never waits longer than a period");
            // Two ticks in a row without waiting need the worker to have been away for a period.
            at_once = if taken == now { at_once + 1 } else { 0 };
            prop_assert!(taken == now || taken.as_nanos().is_multiple_of(period.as_nanos()));
            now = taken + Duration::from_micros(busy);
        }
        let _ = at_once;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn open_arrivals_are_sent_exactly(rate in 1u32..3000, connections in 1usize..20, millis in 1u64..40) {
        let plan = Plan {
            connections,
            requests: None,
            duration: Some(Duration::from_secs(1)),
            pace: Pace::Open(Arrivals::constant(f64::from(rate))),
            ..Plan::default()
        };
        let (report, samples) = simulate(&plan, ok_after(Duration::from_millis(millis)));
        prop_assert_eq!(report.all.requests, u64::from(rate));
        prop_assert!(samples.iter().all(|sample| sample.sent >= sample.due));
    }
}
