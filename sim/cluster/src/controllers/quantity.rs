//! Resource quantities in thousandths.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity in thousandths (millicores for CPU), rounded up; `None` if it is no quantity.
pub(crate) fn milli_value(quantity: &Quantity) -> Option<i64> {
    let text = quantity.0.trim();
    let digits =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        exponent => 10_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    // A hair below, so that a product such as 0.1 * 1000 with its last bit too high is not rounded to 101.
    Some((number * factor * 1000.0 - 1e-6).ceil() as i64)
}

/// Thousandths as a quantity in canonical form: `250m`, `2`.
pub(super) fn from_milli(milli: i64) -> Quantity {
    Quantity(if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_in_thousandths() {
        for (text, milli) in [
            ("100m", 100),
            ("1", 1000),
            ("0.1", 100),
            ("1.5", 1500),
            ("1u", 1),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
        ] {
            assert_eq!(milli_value(&Quantity(text.into())), Some(milli), "{text}");
        }
        assert_eq!(milli_value(&Quantity("64Mi".into())), Some(67_108_864_000));
        assert_eq!(milli_value(&Quantity("many".into())), None);
        assert_eq!(from_milli(1500).0, "1500m");
        assert_eq!(from_milli(2000).0, "2");
    }
}
