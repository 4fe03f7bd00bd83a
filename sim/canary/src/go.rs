//! Durations and numbers as Go reads and prints them: Flagger's messages and fields use its forms.

use std::time::Duration;

/// Reads a Go duration such as `1m30s`, `500ms` or `0`; `None` for anything else and for negative ones.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let nanos = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * nanos;
        rest = &rest[unit..];
    }
    (total < 9.2e18).then(|| Duration::from_nanos(total.round() as u64))
}

/// A duration in nanoseconds as Go prints it: `612ms`, `1.5s`, `1m30s`, `0s`.
pub fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let scaled = |unit: u64, name: &str| {
        let text = format!("{}.{:0width$}", nanos / unit, nanos % unit, width = unit.ilog10() as usize);
        format!("{sign}{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => scaled(1_000, "µs"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = nanos % 60_000_000_000;
            let text = format!("{}.{:09}", seconds / 1_000_000_000, seconds % 1_000_000_000);
            let seconds = text.trim_end_matches('0').trim_end_matches('.');
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// A number as Go's `%v` prints it: shortest, with an exponent from 1e21 on and below 1e-4.
pub fn float_text(value: f64) -> String {
    if !value.is_finite() {
        return fixed_text(value);
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').expect("Rust's exponent form has an exponent");
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{value}")
}

/// A number as Go's `%.2f` prints it.
pub(crate) fn fixed_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_in_go() {
        let check = |text: &str, nanos: Option<i64>| {
            let parsed = parse_duration(text);
            assert_eq!(parsed, nanos.map(|n| Duration::from_nanos(n as u64)), "{text}");
        };
        check("30s", Some(30_000_000_000));
        check("1h2m3.5s", Some(3_723_500_000_000));
        check("1m", Some(60_000_000_000));
        check("", None);
        check("30", None);
        check("1d", None);
        for (nanos, text) in [
            (612_000_000, "612ms"),
            (500, "500ns"),
            (1_500, "1.5µs"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-2_000_000, "-2ms"),
        ] {
            assert_eq!(duration_text(nanos), text);
        }
    }

    #[test]
    fn numbers_print_as_in_go() {
        for (value, text) in [(99.0, "99"), (99.5, "99.5"), (0.00001, "1e-05"), (1e21, "1e+21"), (0.0, "0")] {
            assert_eq!(float_text(value), text);
        }
        assert_eq!(fixed_text(96.204), "96.20");
        assert_eq!(fixed_text(f64::NAN), "NaN");
    }
}
