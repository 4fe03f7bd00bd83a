//! Queries against small stores: data, query and answer side by side.

mod parsing;
mod properties;
mod queries;

use promql::{
    Engine, Labels, Options, Query, QueryError, STALE_MARKER, Storage, Value, format_float, parse_selector,
};

/// Builds a store from lines `SERIES SAMPLES`, one sample each `step_s` seconds from time 0: `5`, `_` for none,
/// `stale`, `1+2x3` for 1 3 5 7.
fn load(step_s: i64, text: &str) -> Storage {
    let mut storage = Storage::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let split =
            line.find("} ").map_or_else(|| line.find(' ').expect("series, then samples"), |at| at + 1);
        let (series, samples) = line.split_at(split);
        let matchers = parse_selector(series).expect("a series is written as a selector");
        let labels = Labels::from_pairs(matchers.iter().map(|m| (m.name.as_str(), m.value.as_str())));
        let mut at = 0;
        for sample in samples.split_whitespace() {
            let values: Vec<Option<f64>> = match sample {
                "_" => vec![None],
                "stale" => vec![Some(STALE_MARKER)],
                _ => {
                    match sample.split_once('x').and_then(|(run, count)| Some((run.split_once('+')?, count)))
                    {
                        Some(((first, step), count)) => {
                            let (first, step): (f64, f64) = (first.parse().unwrap(), step.parse().unwrap());
                            (0..=count.parse::<u32>().unwrap())
                                .map(|i| Some(first + step * f64::from(i)))
                                .collect()
                        }
                        None => vec![Some(sample.parse().expect("a number"))],
                    }
                }
            };
            for value in values {
                if let Some(value) = value {
                    storage.append_labelled(&labels, at, value).expect("samples ascend");
                }
                at += step_s * 1000;
            }
        }
    }
    storage
}

/// The answer at `at_s` seconds: `LABELS VALUE` per series, sorted, joined by `; `, or the error.
fn ask(options: Options, storage: &Storage, query: &str, at_s: f64) -> String {
    let answer = Query::parse(query)
        .and_then(|query| Engine::new(options).instant(storage, &query, (at_s * 1000.0) as i64));
    match answer.map(|answer| answer.value) {
        Ok(Value::Scalar(value)) => format_float(value),
        Ok(Value::Text(text)) => text,
        Ok(Value::Vector(samples)) => samples
            .iter()
            .map(|s| format!("{} {}", s.labels, rounded(s.value)))
            .collect::<Vec<_>>()
            .join("; "),
        Ok(Value::Matrix(series)) => {
            series.iter().map(|s| format!("{} {:?}", s.labels, s.points)).collect::<Vec<_>>().join("; ")
        }
        Err(QueryError::Parse(message)) => format!("bad_data: {message}"),
        Err(QueryError::Execution(message)) => format!("execution: {message}"),
    }
}

fn rounded(value: f64) -> String {
    if value.is_finite() { format_float((value * 1e6).round() / 1e6) } else { format_float(value) }
}

/// Checks a table of queries at one time, and reports all differences at once.
fn check(storage: &Storage, at_s: f64, table: &[(&str, &str)]) {
    check_with(Options::default(), storage, at_s, table);
}

fn check_with(options: Options, storage: &Storage, at_s: f64, table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .map(|(query, expected)| (query, expected, ask(options, storage, query, at_s)))
        .filter(|(_, expected, answer)| *expected != answer)
        .map(|(query, expected, answer)| format!("{query}\n  expected {expected}\n  got      {answer}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
