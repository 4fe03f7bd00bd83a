//! What hey's summary does not have: latencies from the intended send time, reasons of failures, groups.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::options::Options;
use crate::compare::{Comparison, LEVEL, compare};
use crate::{Pace, Report, Tally};

const QUANTILES: [f64; 7] = [0.50, 0.75, 0.90, 0.95, 0.99, 0.999, 0.9999];

/// The baseline's name, and how the other groups compare with it.
pub(crate) struct Compared<'a> {
    pub baseline: &'a str,
    pub others: Vec<(&'a str, Comparison)>,
}

/// Compares the groups of a report; `None` when there are not two.
pub(crate) fn compared<'a>(report: &'a Report, baseline: Option<&str>) -> Option<Compared<'a>> {
    let largest = || report.groups.iter().max_by_key(|(_, tally)| tally.requests);
    let (name, base) = match baseline {
        Some(name) => report.groups.get_key_value(name),
        None => largest(),
    }?;
    let others: Vec<_> = report
        .groups
        .iter()
        .filter(|(other, _)| *other != name)
        .map(|(other, tally)| (&**other, compare(base, tally)))
        .collect();
    (!others.is_empty()).then_some(Compared { baseline: name, others })
}

/// What follows hey's summary; nothing for a run that hey could have made without failures.
pub(crate) fn beyond(options: &Options, report: &Report) -> String {
    let mut out = String::new();
    write_beyond(&mut out, options, report).expect("a String takes everything");
    out
}

fn write_beyond(out: &mut String, options: &Options, report: &Report) -> std::fmt::Result {
    if let Pace::Open(_) = options.plan.pace {
        writeln!(out, "Latency from the intended send time (and from the actual one):")?;
        let (due, raw) = (report.all.latency_from_due(), &report.all.latency);
        for at in QUANTILES {
            let percent = format!("{}%", (at * 1e6).round() / 1e4);
            writeln!(
                out,
                "  {percent:<7} in {} secs ({})",
                seconds(due.quantile(at)),
                seconds(raw.quantile(at))
            )?;
        }
        writeln!(out, "  {:<7} in {} secs ({})\n", "slowest", seconds(due.most()), seconds(raw.most()))?;
    }
    if !report.all.failures.is_empty() {
        writeln!(out, "Failures by reason:")?;
        for (kind, count) in &report.all.failures {
            writeln!(out, "  [{count}]\t{}", kind.name())?;
        }
        writeln!(out)?;
    }
    if options.target.group_by.is_some() {
        write_groups(out, options, report)?;
    }
    Ok(())
}

fn write_groups(out: &mut String, options: &Options, report: &Report) -> std::fmt::Result {
    writeln!(out, "Groups:")?;
    let width = report.groups.keys().map(|name| name.chars().count()).max().unwrap_or(0).max(5);
    writeln!(
        out,
        "  {:<width$} {:>10} {:>7} {:>9} {:>10} {:>10} {:>10} {:>10}",
        "group", "requests", "share", "errors", "p50", "p95", "p99", "slowest"
    )?;
    for (name, tally) in &report.groups {
        writeln!(out, "  {name:<width$} {}", row(tally, report))?;
    }
    let grouped: u64 = report.groups.values().map(|tally| tally.requests).sum();
    if grouped < report.all.requests {
        writeln!(out, "  {} requests without an answer belong to no group", report.all.requests - grouped)?;
    }
    writeln!(out)?;
    if let Some(name) = &options.baseline
        && !report.groups.contains_key(name.as_str())
    {
        return writeln!(out, "No comparison: no results in the baseline {name:?}\n");
    }
    let Some(compared) = compared(report, options.baseline.as_deref()) else {
        return writeln!(out, "No comparison: there is only one group\n");
    };
    for (name, comparison) in &compared.others {
        writeln!(out, "{name} against {}: {}", compared.baseline, comparison.verdict.text())?;
        write_comparison(out, comparison)?;
        writeln!(out)?;
    }
    Ok(())
}

fn row(tally: &Tally, report: &Report) -> String {
    let latency = tally.latency_from_due();
    let percent = |share: f64| format!("{:.2}%", share * 100.0);
    let at = |quantile| seconds(latency.quantile(quantile));
    format!(
        "{:>10} {:>7} {:>9} {:>10} {:>10} {:>10} {:>10}",
        tally.requests,
        percent(tally.requests as f64 / report.all.requests.max(1) as f64),
        percent(1.0 - tally.success().unwrap_or(1.0)),
        at(0.50),
        at(0.95),
        at(0.99),
        seconds(latency.most()),
    )
}

fn write_comparison(out: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let Comparison { errors: (base, other), errors_p, quantiles, .. } = comparison;
    if let Some(p) = errors_p {
        let mark =
            if *p < LEVEL { if other > base { "higher" } else { "lower" } } else { "no difference shown" };
        let p = if *p < 1e-4 { "p < 0.0001".to_owned() } else { format!("p = {p:.4}") };
        writeln!(out, "  errors {:.2}% against {:.2}%: {mark} ({p})", other * 100.0, base * 100.0)?;
    }
    for quantile in quantiles {
        let mark = match (quantile.is_significant(), quantile.difference() > 0.0) {
            (true, true) => "slower",
            (true, false) => "faster",
            (false, _) => "no difference shown",
        };
        let millis = |seconds: f64| format!("{:+.3}", seconds * 1e3);
        writeln!(
            out,
            "  p{} {} ms: {mark} (99% confidence: {} to {} ms)",
            (quantile.quantile * 1e4).round() / 1e2,
            millis(quantile.difference()),
            millis(quantile.interval.0),
            millis(quantile.interval.1),
        )?;
    }
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.4}", duration.as_secs_f64())
}
