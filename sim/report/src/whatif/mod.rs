//! What-if results for people and for notebooks: text, CSV, Parquet, one HTML file.

mod chart;
mod html;
mod parquet;
mod table;
mod text;

pub use html::{Example, html};
pub use parquet::parquet;
pub use table::csv;
pub use text::{text, timeline};

use std::time::Duration;

use ::whatif::statistics::Estimate;

/// A share as percent, with as many digits as it has meaning: `99.97%`, `0%`.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = match percent {
        p if p == p.round() => 0,
        p if !(0.1..=99.9).contains(&p) => 3,
        p if !(1.0..=99.0).contains(&p) => 2,
        _ => 1,
    };
    let text = format!("{percent:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}%")
}

/// A share and its interval: `12.3% (11.9% to 12.7%)`.
fn share(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "none".to_owned(),
        Some(e) if e.value == 0.0 => format!("0% (at most {})", percent(e.high)),
        Some(e) if e.value == 1.0 => format!("100% (at least {})", percent(e.low)),
        Some(e) => format!("{} ({} to {})", percent(e.value), percent(e.low), percent(e.high)),
    }
}

/// Seconds as `6m45s`.
fn seconds(value: f64) -> String {
    // What is known to three digits is shown in whole seconds.
    crate::numbers::virtual_time(Duration::from_secs_f64(value.clamp(0.0, 1e9).round()))
}

fn time(estimate: Option<Estimate>) -> String {
    estimate.map_or("never".to_owned(), |e| seconds(e.value))
}

/// A number for people: `1,955`, `3.2`.
fn number(value: f64) -> String {
    if value.abs() < 9.95 {
        return format!("{value:.1}").trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

fn count(estimate: Option<Estimate>) -> String {
    estimate.map_or("none".to_owned(), |e| number(e.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(percent(0.99974), "99.974%");
        assert_eq!(percent(0.123456), "12.3%");
        assert_eq!(percent(0.0), "0%");
        assert_eq!(percent(0.00004), "0.004%");
        assert_eq!(number(1955.4), "1,955");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(3.24), "3.2");
        assert_eq!(seconds(405.4), "6m45s");
    }
}
