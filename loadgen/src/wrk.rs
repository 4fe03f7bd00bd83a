//! `wrk` and `wrk2`: the command line and the output of a load test.

use std::fmt::Write as _;
use std::time::Duration;

use http::Method;

use crate::{Arrivals, Distribution, FailureKind, Pace, Plan, Report, RequestSpec};

/// wrk's command line, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    /// `-t`.
    pub threads: usize,
    /// `-c`: connections in all.
    pub connections: usize,
    /// `-d`.
    pub duration: Duration,
    /// `-R` (wrk2): requests per second in all, open model.
    pub rate: Option<f64>,
    /// `-T`.
    pub timeout: Duration,
    /// `-L`: print latency percentiles.
    pub latency: bool,
    /// The request.
    pub request: RequestSpec,
}

impl Args {
    /// Understands a command line, without the program's name.
    ///
    /// # Errors
    /// What is wrong with it. Lua scripts (`-s`) are not run, so they are an error.
    pub fn parse(args: &[String]) -> Result<Args, String> {
        let (mut threads, mut connections) = (2usize, 10usize);
        let (mut duration, mut timeout) = (Duration::from_secs(10), Duration::from_secs(2));
        let (mut rate, mut latency) = (None, false);
        let mut headers = Vec::new();
        let mut url = None;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, attached) = split_option(arg);
            let Some(name) = name else {
                url.get_or_insert_with(|| arg.clone());
                continue;
            };
            if matches!(name, "L" | "latency" | "U" | "u_latency") {
                latency = true;
                continue;
            }
            if matches!(name, "v" | "version" | "h" | "help") {
                return Err(format!("wrk: {arg} runs no test"));
            }
            let value = match attached {
                Some(value) => value.to_owned(),
                None => args
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("wrk: option requires an argument -- '{name}'"))?,
            };
            let invalid = || format!("wrk: invalid value {value:?} for option {arg}");
            match name {
                "t" | "threads" => threads = metric(&value).ok_or_else(invalid)? as usize,
                "c" | "connections" => connections = metric(&value).ok_or_else(invalid)? as usize,
                "d" | "duration" => duration = span(&value).ok_or_else(invalid)?,
                "R" | "rate" => rate = Some(metric(&value).filter(|rate| *rate > 0.0).ok_or_else(invalid)?),
                "T" | "timeout" => timeout = span(&value).ok_or_else(invalid)?,
                "H" | "header" => headers.push(value),
                "s" | "script" => return Err(format!("wrk: Lua scripts are not supported (-s {value})")),
                _ => return Err(format!("wrk: unrecognized option '{arg}'")),
            }
        }
        if threads == 0 || connections == 0 || connections < threads {
            return Err("wrk: number of connections must be >= threads".into());
        }
        let url = url.ok_or("wrk: no URL given")?;
        let mut request = RequestSpec::new(Method::GET, &url).map_err(|problem| format!("wrk: {problem}"))?;
        for header in headers {
            let (name, value) =
                header.split_once(':').ok_or_else(|| format!("wrk: invalid header {header:?}"))?;
            request.set_header(name.trim(), value.trim()).map_err(|problem| format!("wrk: {problem}"))?;
        }
        // Each thread has an equal part of the connections; a remainder is dropped.
        let connections = connections / threads * threads;
        Ok(Args { threads, connections, duration, rate, timeout, latency, request })
    }

    /// What the scheduler shall do.
    pub fn plan(&self) -> Plan {
        let pace = self.rate.map_or(Pace::Unlimited, |rate| Pace::Open(Arrivals::constant(rate)));
        Plan {
            connections: self.connections,
            requests: None,
            duration: Some(self.duration),
            pace,
            ..Plan::default()
        }
    }

    /// What wrk prints after a run.
    pub fn summary(&self, report: &Report) -> String {
        let mut out = String::new();
        self.write_summary(&mut out, report).expect("a String takes everything");
        out
    }

    fn write_summary(&self, out: &mut String, report: &Report) -> std::fmt::Result {
        // wrk2 counts latencies from when requests were due.
        let latency = if self.rate.is_some() { report.all.latency_from_due() } else { &report.all.latency };
        writeln!(out, "Running {} test @ {}", whole_span(self.duration), self.request.typed_url)?;
        writeln!(out, "  {} threads and {} connections", self.threads, self.connections)?;
        writeln!(out, "  Thread Stats   Avg      Stdev     Max   +/- Stdev")?;
        let row = |name: &str, of: &Distribution, show: &dyn Fn(f64) -> String| {
            let mean = of.mean().unwrap_or_default();
            format!(
                "    {name:<10}{:>8} {:>9} {:>9} {:>8.2}%",
                show(mean.as_secs_f64()),
                show(of.deviation().as_secs_f64()),
                show(of.most().as_secs_f64()),
                of.share_within_deviation() * 100.0,
            )
        };
        writeln!(out, "{}", row("Latency", latency, &|seconds| time_unit(seconds)))?;
        let mut rates = Distribution::default();
        // The last second is cut short by the end of the run.
        let whole = usize::try_from(report.total.as_secs()).unwrap_or(usize::MAX).max(1);
        for count in report.per_second.iter().take(whole) {
            rates.record(Duration::from_secs_f64(f64::from(*count) / self.threads as f64));
        }
        writeln!(out, "{}", row("Req/Sec", &rates, &|rate| metric_unit(rate)))?;
        if self.latency {
            writeln!(out, "  Latency Distribution")?;
            for percent in [50, 75, 90, 99] {
                let at = latency.quantile(f64::from(percent) / 100.0).as_secs_f64();
                writeln!(out, "    {percent:>3}% {:>8}", time_unit(at))?;
            }
        }
        let answered = report.all.latency.count();
        let total = report.total.as_secs_f64();
        writeln!(
            out,
            "  {answered} requests in {}, {} read",
            time_unit(total),
            bytes_unit(report.bytes as f64)
        )?;
        let count = |kinds: &[FailureKind]| {
            report.all.failures.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, n)| n).sum::<u64>()
        };
        if !report.all.failures.is_empty() {
            writeln!(
                out,
                "  Socket errors: connect {}, read {}, write {}, timeout {}",
                count(&[FailureKind::Connect, FailureKind::Resolve, FailureKind::Tls]),
                count(&[FailureKind::Reset, FailureKind::Protocol]),
                count(&[FailureKind::Invalid]),
                count(&[FailureKind::Timeout]),
            )?;
        }
        let bad: u64 = report.all.statuses.iter().filter(|(status, _)| **status > 399).map(|(_, n)| n).sum();
        if bad > 0 {
            writeln!(out, "  Non-2xx or 3xx responses: {bad}")?;
        }
        writeln!(out, "Requests/sec: {:>9.2}", answered as f64 / total)?;
        writeln!(out, "Transfer/sec: {:>10}", bytes_unit(report.bytes as f64 / total))
    }
}

/// `-t2`, `-t`, `--threads=2`, `--threads`: the option's name and an attached value; no name for anything else.
fn split_option(arg: &str) -> (Option<&str>, Option<&str>) {
    if let Some(long) = arg.strip_prefix("--") {
        return match long.split_once('=') {
            Some((name, value)) => (Some(name), Some(value)),
            None => (Some(long), None),
        };
    }
    match arg.strip_prefix('-').filter(|rest| !rest.is_empty()) {
        Some(rest) => {
            let letter = rest.chars().next().map_or(0, char::len_utf8);
            let (name, value) = rest.split_at(letter);
            (Some(name), (!value.is_empty()).then_some(value))
        }
        None => (None, None),
    }
}

/// A number with wrk's suffixes: `10`, `1k`, `2M`.
fn metric(text: &str) -> Option<f64> {
    let (digits, scale) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1e3),
        b'm' | b'M' => (&text[..text.len() - 1], 1e6),
        b'g' | b'G' => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    digits.parse::<u64>().ok().map(|number| number as f64 * scale)
}

/// A time with wrk's suffixes: `30`, `30s`, `2m`, `1h`.
fn span(text: &str) -> Option<Duration> {
    let (digits, scale) = match text.as_bytes().last()? {
        b's' | b'S' => (&text[..text.len() - 1], 1),
        b'm' | b'M' => (&text[..text.len() - 1], 60),
        b'h' | b'H' => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).map(Duration::from_secs)
}

fn whole_span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 3600 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds if seconds >= 60 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

fn time_unit(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.2}us", s * 1e6),
        s if s < 1.0 => format!("{:.2}ms", s * 1e3),
        s if s < 60.0 => format!("{s:.2}s"),
        s if s < 3600.0 => format!("{:.2}m", s / 60.0),
        s => format!("{:.2}h", s / 3600.0),
    }
}

fn metric_unit(value: f64) -> String {
    match value {
        v if v < 1e3 => format!("{v:.2}"),
        v if v < 1e6 => format!("{:.2}k", v / 1e3),
        v => format!("{:.2}M", v / 1e6),
    }
}

fn bytes_unit(value: f64) -> String {
    const STEP: f64 = 1024.0;
    match value {
        v if v < STEP => format!("{v:.2}B"),
        v if v < STEP.powi(2) => format!("{:.2}KB", v / STEP),
        v if v < STEP.powi(3) => format!("{:.2}MB", v / STEP.powi(2)),
        v => format!("{:.2}GB", v / STEP.powi(3)),
    }
}
