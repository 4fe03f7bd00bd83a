//! What is told to people.

use crate::dialect::Dialect;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// For the record.
    Info,
    /// Somebody has to act.
    Warn,
    /// A release has failed.
    Error,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert<'a> {
    /// The sentence.
    pub message: std::borrow::Cow<'a, str>,
    /// Whether the Canary's settings are shown below it.
    pub with_fields: bool,
}

/// Whether an alert of `severity` reaches a provider that is configured for `wanted` (`info`, `warn`, `error`, or
/// nothing).
pub fn reaches(wanted: &str, severity: Severity, dialect: Dialect) -> bool {
    match (wanted, severity) {
        ("info", _) | ("warn", Severity::Warn) | ("error", Severity::Error) => true,
        ("error", Severity::Warn) => dialect == Dialect::Rc1,
        ("warn", Severity::Error) => dialect == Dialect::Latest,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_filter_per_dialect() {
        use Severity::*;
        let check = |wanted: &str, reached: [bool; 3], dialect| {
            assert_eq!(
                [Info, Warn, Error].map(|severity| reaches(wanted, severity, dialect)),
                reached,
                "{wanted}"
            );
        };
        check("info", [true, true, true], Dialect::Rc1);
        check("warn", [false, true, false], Dialect::Rc1);
        check("warn", [false, true, true], Dialect::Latest);
        check("error", [false, true, true], Dialect::Rc1);
        check("error", [false, false, true], Dialect::Latest);
        check("", [false, false, false], Dialect::Latest);
    }
}
