//! hey's outputs, byte for byte where hey's own are known.

use std::time::Duration;

use loadgen::hey::{CSV_HEADER, csv_row, summary};
use loadgen::{Answer, Exchange, Failure, FailureKind, Phases, Recorder, Report, Sample};

fn sample(millis: u64, status: u16, content_length: Option<u64>) -> Sample {
    let latency = Duration::from_millis(millis);
    let phases = Phases { wait: latency, ..Phases::default() };
    let exchange = Exchange {
        latency,
        result: Ok(Answer { status, content_length, body_bytes: 0 }),
        phases,
        group: None,
    };
    Sample { due: Duration::ZERO, sent: Duration::from_millis(100 * millis), exchange }
}

fn failure(text: &'static str) -> Sample {
    let failure = Failure { kind: FailureKind::Connect, text: text.into() };
    Sample { due: Duration::ZERO, sent: Duration::ZERO, exchange: Exchange::failed(failure, Duration::ZERO) }
}

fn report(samples: impl IntoIterator<Item = Sample>, total: Duration) -> Report {
    let recorder = Recorder::default();
    samples.into_iter().for_each(|sample| recorder.record(&sample));
    Report { total, ..recorder.finish() }
}

#[test]
fn the_summary_has_heys_layout() {
    let answered = (1..=100).map(|millis| sample(millis, if millis > 95 { 503 } else { 200 }, Some(10)));
    let failed = ["Get \"http://x/\": EOF", "Get \"http://x/\": EOF", "Get \"http://w/\": EOF"].map(failure);
    let text = summary(&report(answered.chain(failed), Duration::from_secs(2)));
    let expected = "
Summary:
  Total:\t2.0000 secs
  Slowest:\t0.1000 secs
  Fastest:\t0.0010 secs
  Average:\t0.0505 secs
  Requests/sec:\t51.5000
  
  Total data:\t1000 bytes
  Size/request:\t10 bytes

Response time histogram:
  0.001 [1]\t|■■■■
  0.011 [9]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  0.021 [10]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  0.031 [10]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  0.041 [10]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  0.051 [10]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  0.060 [10]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  0.070 [10]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  0.080 [10]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  0.090 [10]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■
  0.100 [10]\t|■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■


Latency distribution:
  10% in 0.0110 secs
  25% in 0.0260 secs
  50% in 0.0510 secs
  75% in 0.0760 secs
  90% in 0.0910 secs
  95% in 0.0960 secs
  99% in 0.1000 secs

Details (average, fastest, slowest):
  DNS+dialup:\t0.0000 secs, 0.0000 secs, 0.0000 secs
  DNS-lookup:\t0.0000 secs, 0.0000 secs, 0.0000 secs
  req write:\t0.0000 secs, 0.0000 secs, 0.0000 secs
  resp wait:\t0.0505 secs, 0.0010 secs, 0.1000 secs
  resp read:\t0.0000 secs, 0.0000 secs, 0.0000 secs

Status code distribution:
  [200]\t95 responses
  [503]\t5 responses

Error distribution:
  [1]\tGet \"http://w/\": EOF
  [2]\tGet \"http://x/\": EOF

";
    assert_eq!(text, expected);
}

#[test]
fn when_everything_failed_averages_are_nan() {
    let text = summary(&report([failure("refused")], Duration::from_secs(1)));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[5], "  Average:\t NaN secs");
    assert_eq!(lines[6], "  Requests/sec:\t1.0000");
    assert!(text.contains("\n\nLatency distribution:\n\nDetails (average"), "{text}");
    assert!(text.ends_with("Status code distribution:\n\nError distribution:\n  [1]\trefused\n\n"), "{text}");
}

#[test]
fn few_results_do_not_reach_the_higher_percentages() {
    let text = summary(&report([1, 2, 3].map(|millis| sample(millis, 200, None)), Duration::from_secs(1)));
    let percentiles: Vec<&str> =
        text.lines().skip_while(|line| !line.starts_with("Latency dist")).skip(1).take(4).collect();
    assert_eq!(
        percentiles,
        ["  10% in 0.0020 secs", "  25% in 0.0030 secs", "  0% in 0.0000 secs", "  0% in 0.0000 secs"]
    );
}

#[test]
fn csv_rows_have_heys_columns_and_leave_failures_out() {
    assert_eq!(CSV_HEADER.split(',').count(), 8);
    assert_eq!(
        csv_row(&sample(12, 200, None)).unwrap(),
        "0.0120,0.0000,0.0000,0.0000,0.0120,0.0000,200,1.2000"
    );
    assert_eq!(csv_row(&failure("refused")), None);
}
