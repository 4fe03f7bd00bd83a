//! Latencies as HdrHistogram logs (V2, compressed), in nanoseconds; and `merge`, which adds such logs up.
//!
//! The interval without a tag holds latencies from the intended send time, `raw` those from sending where they
//! differ, `group:NAME` those of a group.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use crate::cli::{complain, exit, print};
use crate::{Distribution, Report};

const MERGED_QUANTILES: [f64; 8] = [0.50, 0.75, 0.90, 0.95, 0.99, 0.999, 0.9999, 1.0];

/// Histograms by tag; no tag is the empty one.
type ByTag = BTreeMap<String, (Duration, Histogram<u64>)>;

/// Whether a file can be written; creates it. Asked before a run, whose results would be lost after it.
pub(crate) fn check(file: &Path) -> Result<(), String> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(|_| ()).map_err(|error| error.to_string())
}

/// Writes a report's latencies to a file.
pub(crate) fn write(file: &Path, report: &Report) -> Result<(), String> {
    let mut histograms = ByTag::new();
    let mut put = |tag: String, of: &Distribution| {
        histograms.insert(tag, (report.total, of.histogram().clone()));
    };
    put(String::new(), report.all.latency_from_due());
    if !std::ptr::eq(report.all.latency_from_due(), &report.all.latency) {
        put("raw".to_owned(), &report.all.latency);
    }
    for (name, tally) in &report.groups {
        let name: String = name.chars().map(|c| if ", \r\n".contains(c) { '_' } else { c }).collect();
        put(format!("group:{name}"), tally.latency_from_due());
    }
    write_log(file, &histograms)
}

fn write_log(file: &Path, histograms: &ByTag) -> Result<(), String> {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("Latencies in nanoseconds, interval maxima in milliseconds")
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut text, &mut serializer)
        .map_err(|error| error.to_string())?;
    for (tag, (length, histogram)) in histograms {
        let tag = Tag::new(tag).filter(|tag| !tag.is_empty());
        log.write_histogram(histogram, Duration::ZERO, *length, tag).map_err(|error| error.to_string())?;
    }
    std::fs::File::create(file).and_then(|mut out| out.write_all(&text)).map_err(|error| error.to_string())
}

/// `merge [-o OUT] FILE...`: adds logs up by tag and prints their quantiles.
pub(crate) fn merge(program: &str, args: &[String]) -> u8 {
    let (out, files) = match args {
        [flag, out, files @ ..] if flag == "-o" => (Some(out), files),
        files => (None, files),
    };
    let flag = files.iter().find(|file| file.starts_with('-'));
    if files.is_empty() || flag.is_some() {
        if let Some(flag) = flag {
            complain(program, &format!("merge: unknown flag {flag}"));
        }
        complain(program, &format!("usage: {program} merge [-o OUT.hdr] FILE.hdr..."));
        return exit::FLAG;
    }
    let mut merged = ByTag::new();
    for file in files {
        if let Err(error) = add_log(Path::new(file), &mut merged) {
            complain(program, &format!("merge: {file}: {error}"));
            return exit::UNUSABLE;
        }
    }
    if let Some(out) = out
        && let Err(error) = write_log(Path::new(out), &merged)
    {
        complain(program, &format!("merge: {out}: {error}"));
        return exit::UNUSABLE;
    }
    print(&merged.iter().map(|(tag, (_, histogram))| table(tag, histogram)).collect::<String>());
    exit::DONE
}

fn add_log(file: &Path, merged: &mut ByTag) -> Result<(), String> {
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut found = false;
    for entry in IntervalLogIterator::new(&text) {
        let entry = entry.map_err(|_| "not an HdrHistogram log".to_owned())?;
        let LogEntry::Interval(interval) = entry else { continue };
        found = true;
        let encoded = base64::engine::general_purpose::STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|error| format!("broken histogram: {error}"))?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut encoded.as_slice())
            .map_err(|error| format!("broken histogram: {error}"))?;
        let tag = interval.tag().map(|tag| tag.as_str().to_owned()).unwrap_or_default();
        let (length, sum) = merged.entry(tag).or_insert_with(|| {
            let empty = Histogram::new(3).expect("three significant digits are valid");
            (Duration::ZERO, empty)
        });
        *length = (*length).max(interval.duration());
        sum.auto(true);
        sum.add(&histogram).map_err(|error| error.to_string())?;
    }
    if found { Ok(()) } else { Err("no histogram in it".to_owned()) }
}

fn table(tag: &str, histogram: &Histogram<u64>) -> String {
    let latency = Distribution::of_histogram(histogram);
    let name = if tag.is_empty() { "all" } else { tag };
    let mean = latency.mean().unwrap_or_default();
    let mut out = format!("{name}: {} answers, {:.4} secs on average\n", latency.count(), mean.as_secs_f64());
    for at in MERGED_QUANTILES {
        let percent = format!("{}%", (at * 1e6).round() / 1e4);
        out.push_str(&format!("  {percent:<7} in {:.4} secs\n", latency.quantile(at).as_secs_f64()));
    }
    out
}
