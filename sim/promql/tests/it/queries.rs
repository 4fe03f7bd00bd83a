//! Tables of queries and their answers; figures follow from the rules that Prometheus documents.

use promql::{Engine, Options, Query, Storage, Value};

use crate::{ask, check, check_with, load};

#[test]
fn rates_extrapolate_to_the_edges_of_the_window() {
    // Samples (10 s, 100) and (25 s, 400), asked at 30 s over 30 s: both gaps of 10 and 5 s are within 1.1 distances,
    // and the start is capped where the counter would be zero, 5 s before the first sample.
    let mut storage = load(5, "x_total _ _ 100 _ _ 400\nslow_total 0+10x6\nreset_total 5 10 2 7");
    let labels = promql::Labels::from_pairs([("__name__", "gauge")]);
    storage.append_labelled(&labels, 0, 10.0).unwrap();
    storage.append_labelled(&labels, 30_000, 4.0).unwrap();
    check(
        &storage,
        30.0,
        &[
            ("increase(x_total[30s])", "{} 500"),
            ("rate(x_total[30s])", "{} 16.666667"),
            ("delta(x_total[30s])", "{} 600"),
            ("irate(x_total[30s])", "{} 20"),
            ("idelta(x_total[30s])", "{} 300"),
            // Open at the left: samples from 5 to 30 s, and 5 s to the start.
            ("increase(slow_total[30s])", "{} 60"),
            ("rate(slow_total[5s])", ""),
            ("rate(gauge[30s])", ""),
            ("increase(reset_total[20s] @ 15)", "{} 16"),
            ("resets(reset_total[1m])", "{} 1"),
            ("changes(reset_total[1m])", "{} 3"),
            ("rate(missing[30s])", ""),
        ],
    );
    let two = Options { closed_left: true, ..Options::default() };
    check_with(
        two,
        &storage,
        30.0,
        &[("rate(gauge[30s])", "{} 0.133333"), ("count_over_time(slow_total[30s])", "{} 7")],
    );
    assert_eq!(ask(Options::default(), &storage, "count_over_time(slow_total[30s])", 30.0), "{} 6");
}

#[test]
fn quantiles_of_histograms() {
    let storage = load(
        10,
        r#"
        b{le="250"} 0+0x6
        b{le="500"} 0+100x6
        b{le="+Inf"} 0+100x6
        low{le="0.5"} 100
        low{le="1"} 100
        low{le="+Inf"} 100
        open{le="1"} 3
        open{le="2"} 7
        top{le="1"} 1
        top{le="+Inf"} 10
        none{le="1"} 0
        none{le="+Inf"} 0
        one{le="+Inf"} 5
        bad{le="x"} 5
        dips{le="1"} 10
        dips{le="2"} 8
        dips{le="+Inf"} 12
        below{le="-1"} 5
        below{le="+Inf"} 10
        "#,
    );
    check(
        &storage,
        60.0,
        &[
            ("histogram_quantile(0.99, sum(rate(b[30s])) by (le))", "{} 497.5"),
            ("histogram_quantile(0.5, b)", "{} 375"),
            ("histogram_quantile(0.99, low)", "{} 0.495"),
            ("histogram_quantile(0.5, open)", "{} NaN"),
            ("histogram_quantile(0.9, top)", "{} 1"),
            ("histogram_quantile(0.9, none)", "{} NaN"),
            ("histogram_quantile(0.9, one)", "{} NaN"),
            ("histogram_quantile(0.9, bad)", ""),
            ("histogram_quantile(-1, low)", "{} -Inf"),
            ("histogram_quantile(2, low)", "{} +Inf"),
            ("histogram_quantile(NaN, low)", "{} NaN"),
            ("histogram_quantile(0.5, dips)", "{} 0.6"),
            ("histogram_quantile(0.3, below)", "{} -1"),
            ("histogram_fraction(0, 375, b)", "{} 0.5"),
            ("histogram_count(b)", ""),
        ],
    );
    let query = Query::parse("histogram_quantile(2, dips)").unwrap();
    let warned = Engine::default().instant(&storage, &query, 60_000).unwrap().annotations;
    let expected = "PromQL warning: quantile value should be between 0 and 1, got 2 (1:1)";
    assert_eq!(warned.warnings.into_iter().collect::<Vec<_>>(), [expected]);
}

/// The six rows that decide what a canary's success rate and latency look like.
#[test]
fn success_rates_as_a_canary_sees_them() {
    let rate = r#"sum(rate(r{code!~"5.*"}[30s])) / sum(rate(r[30s])) * 100"#;
    let ask = |data: &str| {
        let storage = load(15, data);
        ask(Options::default(), &storage, rate, 60.0)
    };
    assert_eq!(ask(r#"other{code="200"} 0+5x4"#), "");
    assert_eq!(ask(r#"r{code="200"} 7 7 7 7 7"#), "{} NaN");
    assert_eq!(ask(r#"r{code="200"} _ _ _ _ 7"#), "");
    assert_eq!(ask(r#"r{code="500"} 0+5x4"#), "");
    assert_eq!(ask("r{code=\"500\"} 0+5x4\nr{code=\"200\"} 7+0x4"), "{} 0");
    assert_eq!(ask("r{code=\"500\"} 0+1x4\nr{code=\"200\"} 0+3x4"), "{} 75");
    // Pods gone after 45 s: a single sample in the window.
    assert_eq!(ask(r#"r{code="200"} 0 3 6 9 stale"#), "");
}

#[test]
fn staleness_lookback_offsets_and_subqueries() {
    let storage = load(60, "up 1 2 3 stale\nold 5\nx 0+1x10\nnone NaN");
    check(
        &storage,
        240.0,
        &[
            ("up", ""),
            ("up offset 1m", ""),
            ("up offset 2m", "{__name__=\"up\"} 3"),
            ("up @ 60", "{__name__=\"up\"} 2"),
            ("up[3m]", "{__name__=\"up\"} [(120000, 3.0)]"),
            ("up @ end()", ""),
            ("absent(up{a=\"b\",c=~\"d\"})", "{a=\"b\"} 1"),
            ("absent_over_time(up[3m])", ""),
            ("count_over_time(up[5m])", "{} 3"),
            ("old", "{__name__=\"old\"} 5"),
            ("none", "{__name__=\"none\"} NaN"),
            ("timestamp(old)", "{} 0"),
            ("timestamp(old + 0)", "{} 240"),
            ("max_over_time(x[3m:1m])", "{} 4"),
            ("count_over_time(x[3m:1m])", "{} 3"),
            ("count_over_time(x[3m:1m] offset 30s)", "{} 3"),
            ("sum_over_time(x[2m] offset 1m)", "{} 5"),
            ("last_over_time(x[1m])", "{__name__=\"x\"} 4"),
            ("deriv(x[5m])", "{} 0.016667"),
            ("predict_linear(x[5m], 60)", "{} 5"),
            ("quantile_over_time(0.5, x[3m])", "{} 3"),
            ("stdvar_over_time(x[3m])", "{} 0.666667"),
        ],
    );
    // The lookback of five minutes is open at the left.
    assert_eq!(ask(Options::default(), &storage, "old", 299.0), "{__name__=\"old\"} 5");
    assert_eq!(ask(Options::default(), &storage, "old", 300.0), "");
    let two = Options { closed_left: true, ..Options::default() };
    assert_eq!(ask(two, &storage, "old", 300.0), "{__name__=\"old\"} 5");
}

#[test]
fn arithmetic_comparisons_and_matching() {
    let storage = load(
        60,
        r#"
        a{i="1",j="x"} 2
        a{i="2",j="x"} 4
        b{i="1",k="p"} 10
        b{i="2",k="q"} 0
        m{i="1",n="1"} 3
        m{i="1",n="2"} 5
        "#,
    );
    check(
        &storage,
        0.0,
        &[
            ("1 + 2 * 3 ^ 2 % 5", "4"),
            ("0 / 0", "NaN"),
            ("-1 / 0", "-Inf"),
            ("1 > bool 2", "0"),
            ("vector(0) / vector(0)", "{} NaN"),
            ("a * 2", "{i=\"1\", j=\"x\"} 4; {i=\"2\", j=\"x\"} 8"),
            ("-a", "{i=\"1\", j=\"x\"} -2; {i=\"2\", j=\"x\"} -4"),
            ("a > 2", "{__name__=\"a\", i=\"2\", j=\"x\"} 4"),
            ("3 > a", "{__name__=\"a\", i=\"1\", j=\"x\"} 2"),
            ("a > bool 2", "{i=\"1\", j=\"x\"} 0; {i=\"2\", j=\"x\"} 1"),
            ("a / on(i) b", "{i=\"1\"} 0.2; {i=\"2\"} +Inf"),
            ("a / ignoring(j, k) b", "{i=\"1\"} 0.2; {i=\"2\"} +Inf"),
            ("a > on(i) b", "{i=\"2\"} 4"),
            ("m * on(i) group_left(k) b", "{i=\"1\", k=\"p\", n=\"1\"} 30; {i=\"1\", k=\"p\", n=\"2\"} 50"),
            ("b - on(i) group_right m", "{i=\"1\", n=\"1\"} 7; {i=\"1\", n=\"2\"} 5"),
            (
                "a * on(i) m",
                "execution: found duplicate series for the match group {i=\"1\"} on the right hand-side of the \
                 operation: [{__name__=\"m\", i=\"1\", n=\"2\"}, {__name__=\"m\", i=\"1\", n=\"1\"}];many-to-many \
                 matching not allowed: matching labels must be unique on one side",
            ),
            (
                "m * on(i) a",
                "execution: multiple matches for labels: many-to-one matching must be explicit \
                 (group_left/group_right)",
            ),
            ("a and on(i) m", "{__name__=\"a\", i=\"1\", j=\"x\"} 2"),
            ("a unless on(i) m", "{__name__=\"a\", i=\"2\", j=\"x\"} 4"),
            (
                "vector(1) or a",
                "{} 1; {__name__=\"a\", i=\"1\", j=\"x\"} 2; {__name__=\"a\", i=\"2\", j=\"x\"} 4",
            ),
            ("sum(missing) or vector(0)", "{} 0"),
            ("a / missing", ""),
            (
                "abs({i=\"1\",j=\"x\"}) + 0 * label_replace(a, \"__name__\", \"c\", \"\", \"\")",
                "{i=\"1\", j=\"x\"} 2",
            ),
            ("sum by (i) ({__name__=~\"a|m\"})", "{i=\"1\"} 10; {i=\"2\"} 4"),
        ],
    );
}

#[test]
fn aggregations_and_functions() {
    let storage = load(
        60,
        r#"
        a{i="1"} 1
        a{i="2"} 4
        a{i="10"} 2
        a{i="n"} NaN
        z{i="1"} 1
        "#,
    );
    let name = |i: u32, value: u32| format!("{{__name__=\"a\", i=\"{i}\"}} {value}");
    check(
        &storage,
        0.0,
        &[
            ("sum(a{i!=\"n\"})", "{} 7"),
            ("sum without (i) (a)", "{} NaN"),
            ("min(a)", "{} 1"),
            ("max(a)", "{} 4"),
            ("avg(a{i!=\"n\"})", "{} 2.333333"),
            ("count(a)", "{} 4"),
            ("group(a)", "{} 1"),
            ("stdvar(a{i!=\"n\"})", "{} 1.555556"),
            ("quantile(0.5, a{i!=\"n\"})", "{} 2"),
            ("topk(2, a)", &format!("{}; {}", name(2, 4), name(10, 2))),
            ("bottomk(1, a)", &name(1, 1)),
            ("topk(NaN, a)", "execution: Parameter value is NaN"),
            ("count_values(\"v\", a{i=~\"1|2\"})", "{v=\"1\"} 1; {v=\"4\"} 1"),
            ("sum(missing)", ""),
            ("scalar(a)", "NaN"),
            ("scalar(z)", "1"),
            ("round(vector(2.5))", "{} 3"),
            ("round(vector(1.26), 0.1)", "{} 1.3"),
            ("clamp(a{i=\"2\"}, 0, 3)", "{i=\"2\"} 3"),
            ("clamp(a, 3, 0)", ""),
            ("sgn(vector(-3))", "{} -1"),
            ("sqrt(vector(-1))", "{} NaN"),
            ("hour(vector(7200))", "{} 2"),
            ("day_of_week(vector(86400))", "{} 5"),
            ("year()", "{} 1970"),
            ("time()", "0"),
            ("sort_desc(a{i=~\"1|2\"})", &format!("{}; {}", name(2, 4), name(1, 1))),
            ("label_replace(z, \"j\", \"v-$1\", \"i\", \"(.*)\")", "{__name__=\"z\", i=\"1\", j=\"v-1\"} 1"),
            ("label_join(z, \"j\", \"-\", \"i\", \"i\")", "{__name__=\"z\", i=\"1\", j=\"1-1\"} 1"),
            (
                "label_replace(a, \"i\", \"\", \"\", \"\")",
                "execution: vector cannot contain metrics with the same labelset",
            ),
            ("abs({i=\"1\"})", "execution: vector cannot contain metrics with the same labelset"),
            ("mad_over_time(a[1m])", "bad_data: parse error: function \"mad_over_time\" is not enabled"),
        ],
    );
}

#[test]
fn mistakes_are_told_in_the_words_of_prometheus() {
    check(
        &Storage::new(),
        0.0,
        &[
            ("", "bad_data: unknown position: parse error: no expression found in input"),
            ("sum(", "bad_data: 1:5: parse error: unclosed left parenthesis"),
            (
                "rate(x)",
                "bad_data: 1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
            ),
            ("{}", "bad_data: 1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ],
    );
}

#[test]
fn ranges_of_steps() {
    let storage = load(60, "x{a=\"1\"} 0+1x5\nx{a=\"2\"} _ _ 7");
    let query = Query::parse("sum(x) + 0 * time()").unwrap();
    let Value::Matrix(series) = Engine::default().range(&storage, &query, 0, 180_000, 60_000).unwrap().value
    else {
        panic!("a range query gives a matrix");
    };
    assert_eq!(series[0].points, [(0, 0.0), (60_000, 1.0), (120_000, 9.0), (180_000, 10.0)]);
    assert!(Engine::default().range(&storage, &Query::parse("x[1m]").unwrap(), 0, 1, 1).is_err());
    assert!(Engine::default().range(&storage, &query, 0, 1, 0).is_err());
}
