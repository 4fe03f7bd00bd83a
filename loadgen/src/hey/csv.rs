//! hey's CSV: a row for each answered request.

use crate::Sample;

/// The first line.
pub const CSV_HEADER: &str =
    "response-time,DNS+dialup,DNS,Request-write,Response-delay,Response-read,status-code,offset";

/// The row of one request, without a line break; none for a failed one, as in hey.
pub fn csv_row(sample: &Sample) -> Option<String> {
    let answer = sample.exchange.result.as_ref().ok()?;
    let phases = &sample.exchange.phases;
    Some(format!(
        "{:.4},{:.4},{:.4},{:.4},{:.4},{:.4},{},{:.4}",
        sample.exchange.latency.as_secs_f64(),
        phases.connect.as_secs_f64(),
        phases.lookup.as_secs_f64(),
        phases.write.as_secs_f64(),
        phases.wait.as_secs_f64(),
        phases.read.as_secs_f64(),
        answer.status,
        sample.sent.as_secs_f64(),
    ))
}
