//! hey's summary, byte for byte in layout.

use std::fmt::Write as _;
use std::time::Duration;

use crate::{Distribution, Report, Spread};

const BUCKETS: u32 = 10;
const BAR_WIDTH: u64 = 40;
const PERCENTAGES: [u64; 7] = [10, 25, 50, 75, 90, 95, 99];

/// The summary of a run as hey prints it, line break at the end included.
pub fn summary(report: &Report) -> String {
    let mut out = String::with_capacity(2048);
    write_summary(&mut out, report).expect("a String takes everything");
    out
}

fn write_summary(out: &mut String, report: &Report) -> std::fmt::Result {
    let latency = &report.all.latency;
    writeln!(out, "\nSummary:")?;
    writeln!(out, "  Total:\t{} secs", seconds(report.total))?;
    writeln!(out, "  Slowest:\t{} secs", seconds(latency.most()))?;
    writeln!(out, "  Fastest:\t{} secs", seconds(latency.least()))?;
    writeln!(out, "  Average:\t{} secs", mean(latency.spread()))?;
    writeln!(out, "  Requests/sec:\t{}", number(report.rate()))?;
    write!(out, "  ")?;
    if report.bytes > 0 {
        write!(out, "\n  Total data:\t{} bytes", report.bytes)?;
        write!(out, "\n  Size/request:\t{} bytes", report.bytes / latency.count().max(1))?;
    }
    writeln!(out, "\n\nResponse time histogram:")?;
    write_histogram(out, latency)?;
    write!(out, "\n\nLatency distribution:")?;
    write_percentiles(out, latency)?;
    write!(out, "\n\nDetails (average, fastest, slowest):")?;
    for (name, phase) in [
        ("DNS+dialup", &report.connect),
        ("DNS-lookup", &report.lookup),
        ("req write", &report.write),
        ("resp wait", &report.wait),
        ("resp read", &report.read),
    ] {
        let (least, most) = (seconds(phase.least()), seconds(phase.most()));
        write!(out, "\n  {name}:\t{} secs, {least} secs, {most} secs", mean(phase))?;
    }
    write!(out, "\n\nStatus code distribution:")?;
    for (status, count) in &report.all.statuses {
        write!(out, "\n  [{status}]\t{count} responses")?;
    }
    write!(out, "\n\n")?;
    if !report.errors.is_empty() {
        write!(out, "Error distribution:")?;
        for (text, count) in &report.errors {
            write!(out, "\n  [{count}]\t{text}")?;
        }
    }
    write!(out, "\n\n")
}

fn write_histogram(out: &mut String, latency: &Distribution) -> std::fmt::Result {
    if latency.count() == 0 {
        return Ok(());
    }
    let (least, most) = (latency.least(), latency.most());
    let step = (most - least) / BUCKETS;
    let mut bounds: Vec<Duration> = (0..BUCKETS).map(|bucket| least + step * bucket).collect();
    bounds.push(most);
    let counts = latency.counts_between(&bounds);
    let fullest = counts.iter().copied().max().unwrap_or(0);
    for (bound, count) in bounds.iter().zip(counts) {
        let width = (count * BAR_WIDTH + fullest / 2).checked_div(fullest).unwrap_or(0);
        let bar = "■".repeat(usize::try_from(width).unwrap_or(0));
        writeln!(out, "  {:4.3} [{count}]\t|{bar}", bound.as_secs_f64())?;
    }
    Ok(())
}

/// hey walks the sorted results and gives each at most one percentage, so that with few of them the higher ones
/// are never reached: those print as `0% in 0.0000 secs`.
fn write_percentiles(out: &mut String, latency: &Distribution) -> std::fmt::Result {
    let count = latency.count();
    if count == 0 {
        return Ok(());
    }
    let mut next_rank = 0;
    let ranks = PERCENTAGES.map(|percentage| {
        let rank = (percentage * count).div_ceil(100).max(next_rank);
        next_rank = rank + 1;
        rank
    });
    for ((percentage, rank), at) in PERCENTAGES.into_iter().zip(ranks).zip(latency.at_ranks(ranks)) {
        let at = if rank < count { at } else { Duration::ZERO };
        let percentage = if at.is_zero() { 0 } else { percentage };
        write!(out, "\n  {percentage}% in {} secs", seconds(at))?;
    }
    Ok(())
}

fn mean(spread: &Spread) -> String {
    // The average of nothing is Go's 0/0, padded to hey's field width.
    spread.mean().map_or_else(|| " NaN".to_owned(), seconds)
}

fn seconds(duration: Duration) -> String {
    number(duration.as_secs_f64())
}

fn number(value: f64) -> String {
    if value.is_nan() {
        " NaN".to_owned()
    } else if value.is_infinite() {
        "+Inf".to_owned()
    } else {
        format!("{value:.4}")
    }
}
