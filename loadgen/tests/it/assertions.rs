//! Assertions, comparisons, profiles and mixes: pure parts that decide.

use std::time::Duration;

use loadgen::assertion::Assertion;
use loadgen::compare::{Verdict, compare};
use loadgen::{
    Answer, Arrivals, Exchange, Failure, FailureKind, Mix, Profile, Recorder, Report, RequestSpec, Sample,
    Stage,
};
use proptest::prelude::*;

fn exchange(micros: u64, status: u16, group: &str) -> Exchange {
    let answer = Answer::status(status);
    Exchange { group: Some(group.into()), ..Exchange::answered(answer, Duration::from_micros(micros)) }
}

fn report(exchanges: impl IntoIterator<Item = Exchange>) -> Report {
    let recorder = Recorder::default();
    for exchange in exchanges {
        recorder.record(&Sample { due: Duration::ZERO, sent: Duration::from_millis(100), exchange });
    }
    Report { total: Duration::from_secs(2), ..recorder.finish() }
}

#[test]
fn assertions_measure_what_they_say() {
    let failure = Failure { kind: FailureKind::Timeout, text: "late".into() };
    let answered = (1..=98).map(|n| exchange(n * 1000, if n == 1 { 404 } else { 200 }, "v1"));
    let report =
        report(answered.chain([Exchange::failed(failure, Duration::ZERO), exchange(300, 302, "v2")]));
    let check = |text: &str| {
        let outcome = Assertion::parse(text).unwrap().check(&report);
        (outcome.holds, outcome.measured)
    };
    assert_eq!(check("success >= 98%"), (true, "98.0000%".into()));
    assert_eq!(check("errors<2%"), (false, "2.0000%".into()));
    assert_eq!(check("rate>49.9"), (true, "50.00/s".into()));
    assert_eq!(check("requests>=100"), (true, "100".into()));
    // Sent 100 ms late: the raw latency does not know.
    assert_eq!(check("raw.max<=98ms"), (true, "98ms".into()));
    assert_eq!(check("max<=98ms"), (false, "198ms".into()));
    assert_eq!(check("raw.min<0.4ms"), (true, "300µs".into()));
    assert!(check("raw.p50<50ms").0 && !check("raw.p50<49ms").0);
    assert_eq!(check("success@v1>98%"), (true, "98.9796%".into()));
    assert_eq!(check("success@v3>0%"), (false, "no results in group \"v3\"; groups: v1, v2".into()));
    let empty = Report::default();
    let outcome = Assertion::parse("p99<1h").unwrap().check(&empty);
    assert_eq!(outcome.to_string(), "FAILED: p99<1h (nothing was measured: no request was answered)");
    for (text, message) in [
        ("p99=5ms", "write METRIC<VALUE, e.g. p99<500ms"),
        ("p101<5ms", "unknown metric \"p101\""),
        ("success>99", "\"99\" is no percentage"),
        ("success>101%", "\"101%\" is no percentage"),
        ("rate>fast", "\"fast\" is no number"),
        ("p99<500", "\"500\" is no duration, e.g. 500ms or 1.5s"),
    ] {
        let error = Assertion::parse(text).unwrap_err();
        assert!(error.starts_with(&format!("assertion {text:?}: ")) && error.contains(message), "{error}");
    }
}

/// Latencies without pattern, around a median.
fn latencies(median: u64, count: u64, salt: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |n| {
        let mixed = (n + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        median / 2 + median * (mixed % 1000) / 1000
    })
}

#[test]
fn groups_are_told_apart_when_they_differ_and_only_then() {
    let verdict = |canary: Vec<Exchange>| {
        let primary = latencies(10_000, 4000, 1).enumerate();
        let primary = primary.map(|(n, micros)| exchange(micros, if n % 100 == 0 { 500 } else { 200 }, "v1"));
        let report = report(primary.chain(canary));
        compare(&report.groups["v1"], &report.groups["v2"]).verdict
    };
    let canary = |median, every, count| -> Vec<Exchange> {
        latencies(median, count, 77)
            .enumerate()
            .map(|(n, micros)| exchange(micros, if n % every == 0 { 500 } else { 200 }, "v2"))
            .collect()
    };
    assert_eq!(verdict(canary(10_000, 100, 2000)), Verdict::Same);
    assert_eq!(verdict(canary(12_000, 100, 2000)), Verdict::Worse);
    assert_eq!(verdict(canary(9_000, 100, 2000)), Verdict::Better);
    assert_eq!(verdict(canary(10_000, 20, 2000)), Verdict::Worse);
    assert_eq!(verdict(canary(9_000, 20, 2000)), Verdict::Mixed);
    assert_eq!(verdict(canary(10_000, 100, 5)), Verdict::TooFew);
}

#[test]
fn stages_send_what_is_under_their_lines() {
    let stage = |rate, seconds| Stage { rate, length: Duration::from_secs(seconds) };
    let profile = Profile::stages(&[stage(100.0, 10), stage(100.0, 20), stage(0.0, 10)]);
    assert_eq!(profile.length(), Some(Duration::from_secs(40)));
    let mut arrivals = Arrivals::even(profile);
    let dues: Vec<f64> = std::iter::from_fn(|| arrivals.next_due()).map(|due| due.as_secs_f64()).collect();
    assert_eq!(dues.len(), 3000);
    let between = |from: f64, to: f64| dues.iter().filter(|due| (from..to).contains(*due)).count();
    // Triangles of 500 at both ends.
    assert!(between(0.0, 10.0).abs_diff(500) <= 1 && between(30.0, 40.0).abs_diff(500) <= 1);
    assert!(between(0.0, 5.0).abs_diff(125) <= 1);
    assert!(between(20.0, 21.0).abs_diff(100) <= 1);
    let mut ramped = Arrivals::even(Profile::ramp(100.0, Duration::from_secs(2)));
    let dues: Vec<Duration> = std::iter::from_fn(|| ramped.next_due()).take(300).collect();
    assert!((dues[100].as_secs_f64() - 2.0).abs() < 1e-9);
    assert!((dues[299].as_secs_f64() - 3.99).abs() < 1e-9);
}

#[test]
fn placeholders_are_filled_in() {
    let mut request = RequestSpec::new(http::Method::POST, "http://x/{{n}}?r={{random:5:5}}").unwrap();
    request.set_header("x-id", "{{uuid}}").unwrap();
    request.body = "{\"user\": \"{{line:users}}\"}".into();
    let mut lines = |file: &str| {
        assert_eq!(file, "users");
        Ok(vec!["ann".to_owned(), "bob".to_owned()])
    };
    let mix = Mix::one(request).with_templates(3, &mut lines).unwrap();
    let third = mix.render(0, 3).unwrap();
    assert_eq!(third.url, "http://x/3?r=5");
    assert_eq!(&third.body[..], b"{\"user\": \"bob\"}");
    assert_eq!(third, mix.render(0, 3).unwrap(), "the same number gives the same request");
    let id = |n| mix.render(0, n).unwrap().headers["x-id"].to_str().unwrap().to_owned();
    assert_ne!(id(0), id(1));
    assert!(id(0).len() == 36 && id(0).as_bytes()[14] == b'4', "{}", id(0));
    let wrong = |url: &str| {
        let request = RequestSpec::new(http::Method::GET, url).unwrap();
        Mix::one(request).with_templates(0, &mut |_| Ok(Vec::new())).unwrap_err()
    };
    assert!(wrong("http://x/{{m}}").starts_with("unknown placeholder {{m}}: there are {{n}}"));
    assert!(wrong("http://x/{{random:9:5}}").starts_with("unknown placeholder"));
    assert_eq!(wrong("http://x/{{line:f}}"), "f: no lines in it");
    assert!(wrong("http://x/{{n").contains("does not end with }}"));
}

proptest! {
    #[test]
    fn every_round_of_a_mix_holds_each_request_by_its_weight(weights in prop::collection::vec(1u32..30, 1..6)) {
        let request = RequestSpec::new(http::Method::GET, "http://x/").unwrap();
        let mix = Mix::weighted(weights.iter().map(|weight| (*weight, request.clone())).collect()).unwrap();
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut counts = vec![0; weights.len()];
        for number in 0..total {
            counts[mix.which(number)] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    #[test]
    fn arrivals_of_any_profile_come_in_order_and_in_its_time(
        stages in prop::collection::vec((0f64..500.0, 0u64..3000), 1..5),
        seed in prop::option::of(any::<u64>()),
    ) {
        let stages: Vec<Stage> = stages
            .into_iter()
            .map(|(rate, millis)| Stage { rate, length: Duration::from_millis(millis) })
            .collect();
        let profile = Profile::stages(&stages);
        let length = profile.length().unwrap();
        let mut arrivals = match seed {
            Some(seed) => Arrivals::random(profile, seed),
            None => Arrivals::even(profile),
        };
        let dues: Vec<Duration> = std::iter::from_fn(|| arrivals.next_due()).collect();
        prop_assert!(dues.is_sorted());
        prop_assert!(dues.iter().all(|due| *due <= length + Duration::from_micros(1)));
        let mut from = 0.0;
        let mut area = 0.0;
        for stage in &stages {
            area += (from + stage.rate) / 2.0 * stage.length.as_secs_f64();
            from = stage.rate;
        }
        if seed.is_none() {
            prop_assert!((dues.len() as f64 - area).abs() <= 1.0, "{} of {}", dues.len(), area);
        }
    }
}
