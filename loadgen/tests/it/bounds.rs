//! Whatever a run meets, its results have a bound: `cargo bench -p benches --bench loadgen -- --day` measures the
//! memory of a whole process.

use std::sync::Arc;
use std::time::Duration;

use loadgen::{Answer, Exchange, Failure, FailureKind, Recorder, Report, Sample, Tally};

/// The histograms' bytes of a tally.
fn bytes(tally: &Tally) -> usize {
    (tally.latency.histogram().distinct_values() + tally.latency_from_due().histogram().distinct_values()) * 8
}

/// The bytes of everything in a report that grows.
fn held(report: &Report) -> usize {
    let texts: usize = report.errors.keys().map(String::capacity).sum();
    bytes(&report.all)
        + report.groups.values().map(bytes).sum::<usize>()
        + report.per_second.capacity() * 4
        + texts
}

#[test]
fn results_of_any_kind_and_number_fit() {
    let recorder = Recorder::default();
    let mut recorded = 0;
    // More groups, error texts and seconds than are kept apart, and latencies from a nanosecond to a day.
    for round in 0..200_u64 {
        let group: Option<Arc<str>> = Some(format!("version {round}").into());
        for magnitude in 0..47 {
            let latency = Duration::from_nanos(1 << magnitude);
            let answer = Answer { status: 200 + (round % 300) as u16, content_length: None, body_bytes: 1 };
            let exchange = Exchange { group: group.clone(), ..Exchange::answered(answer, latency) };
            let due = Duration::from_secs(round * 1_000);
            recorder.record(&Sample { due, sent: due + latency, exchange });
            recorded += 1;
        }
        let failure = Failure { kind: FailureKind::Reset, text: format!("reason {round}").into() };
        let exchange = Exchange { group, ..Exchange::failed(failure, Duration::ZERO) };
        recorder.record(&Sample { due: Duration::ZERO, sent: Duration::ZERO, exchange });
        recorded += 1;
    }
    let report = recorder.finish();
    assert_eq!(report.all.requests, recorded);
    assert_eq!(
        report.groups.values().map(|tally| tally.requests).sum::<u64>(),
        recorded,
        "none is forgotten"
    );
    assert_eq!(report.errors.values().sum::<u64>(), 200);
    assert_eq!((report.groups.len(), report.errors.len()), (51, 101));
    assert!(report.per_second.len() <= 86_400);
    assert!(held(&report) < 40 << 20, "{} bytes", held(&report));
}
