//! Numbers, durations and strings as Prometheus writes and reads them.

/// Formats a sample's value as the HTTP API does: shortest digits that give the number back, an exponent only below
/// 1e-6 and from 1e21 on, `NaN`, `+Inf`, `-Inf`.
pub fn format_float(value: f64) -> String {
    let size = value.abs();
    if value.is_finite() && size != 0.0 && !(1e-6..1e21).contains(&size) {
        // Go writes a sign and at least one exponent digit here: 1e+21, 1e-7.
        let text = format!("{value:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
            _ => text,
        };
    }
    format_plain(value)
}

/// As [`format_float`], never with an exponent (Go's `'f'` format).
pub(crate) fn format_plain(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value == f64::INFINITY {
        "+Inf".into()
    } else if value == f64::NEG_INFINITY {
        "-Inf".into()
    } else {
        value.to_string()
    }
}

/// Reads a number as Prometheus' exposition format and `le` labels write it: Go's float syntax, with `Inf` and `NaN`
/// in any case.
pub fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let first = unsigned.bytes().next()?;
    if first.is_ascii_digit() || first == b'.' {
        let hex = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"));
        return match hex {
            Some(digits) => {
                let value = u64::from_str_radix(digits, 16).ok()? as f64;
                Some(if text.starts_with('-') { -value } else { value })
            }
            None => text.parse().ok(),
        };
    }
    let negative = text.starts_with('-');
    if unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity") {
        Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY })
    } else if unsigned.eq_ignore_ascii_case("nan") {
        Some(f64::NAN)
    } else {
        None
    }
}

/// Units of a duration, largest first, in milliseconds.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a duration such as `1h30m` or `15s`, in milliseconds. Units descend and each appears once.
///
/// # Errors
/// Prometheus' message, e.g. `not a valid duration string: "5"`.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err("empty duration string".into());
    }
    let invalid = || format!("not a valid duration string: {}", quote(text));
    let (mut rest, mut total, mut next_unit) = (text, 0i64, 0);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: i64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit =
            UNITS[next_unit..].iter().position(|(unit, _)| *unit == &rest[..letters]).ok_or_else(invalid)?;
        let (_, factor) = UNITS[next_unit + unit];
        next_unit += unit + 1;
        total = number
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| "duration out of range".to_owned())?;
        rest = &rest[letters..];
    }
    Ok(total)
}

/// Formats milliseconds as Prometheus does: `1m30s`, `15s`, `1d`; years and weeks only when nothing is left over.
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let (mut rest, mut text) = (ms.unsigned_abs(), String::new());
    if ms < 0 {
        text.push('-');
    }
    for (unit, factor) in UNITS {
        let factor = factor.unsigned_abs();
        if matches!(unit, "y" | "w") && !rest.is_multiple_of(factor) {
            continue;
        }
        if rest >= factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    text
}

/// Quotes a string as Go's `%q` does for printable text.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_follow_prometheus() {
        for (value, text) in [
            (16.667, "16.667"),
            (1e21, "1e+21"),
            (1e-7, "1e-7"),
            (123456789.0, "123456789"),
            (f64::INFINITY, "+Inf"),
            (0.0, "0"),
        ] {
            assert_eq!(format_float(value), text);
            assert_eq!(parse_float(text), Some(value));
        }
        assert_eq!(parse_float("0x1F"), Some(31.0));
        assert_eq!(parse_float("-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_float("abc"), None);
        for (ms, text) in [(90_000, "1m30s"), (15_000, "15s"), (86_400_000, "1d"), (1, "1ms"), (0, "0s")] {
            assert_eq!(format_duration(ms), text);
            assert_eq!(parse_duration(text), Ok(ms));
        }
        assert_eq!(parse_duration("5"), Err("not a valid duration string: \"5\"".into()));
        assert!(parse_duration("1m1h").is_err());
    }
}
