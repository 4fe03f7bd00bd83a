//! What is wrong with a scenario file: sentences that begin with the place.

use super::Position;

/// Everything that was found wrong with a scenario, each problem with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// One problem a line: `FILE:LINE:COLUMN: what is wrong`.
    pub problems: Vec<String>,
}

impl std::fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ScenarioError {}

impl ScenarioError {
    /// One problem of a file.
    pub(super) fn of(file: &str, at: Option<Position>, message: impl std::fmt::Display) -> Self {
        let place = at.map_or_else(|| file.to_owned(), |at| format!("{file}:{at}"));
        ScenarioError { problems: vec![format!("{place}: {message}")] }
    }

    /// A parser's error in our words: the place, and the nearest name that would have been right.
    pub(super) fn of_yaml(file: &str, error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let at = error.location().filter(|at| at.line() > 0);
        let at = at.map(|at| Position { line: at.line(), column: at.column() });
        let message = match error {
            serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
                format!("unknown field {field:?}{}", advice(field, expected))
            }
            serde_saphyr::Error::SerdeUnknownVariant { variant, expected, .. } => {
                format!("unknown value {variant:?}{}", advice(variant, expected))
            }
            serde_saphyr::Error::SerdeMissingField { field, .. } => format!("the field {field:?} is missing"),
            serde_saphyr::Error::SerdeInvalidType { unexpected, expected, .. } => {
                format!("found {unexpected} where {expected} belongs")
            }
            serde_saphyr::Error::Message { msg, .. } => msg.clone(),
            other => {
                // The renderer repeats the place, which stands in front already.
                let text = other.render();
                text.split(" at line ").next().unwrap_or(&text).trim().to_owned()
            }
        };
        ScenarioError::of(file, at, message)
    }
}

/// `: did you mean "x"? (one of a, b, x)`.
fn advice<S: AsRef<str>>(found: &str, expected: &[S]) -> String {
    let names: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
    let known = if names.is_empty() {
        "; no fields are known here".to_owned()
    } else {
        format!(" (known: {})", names.join(", "))
    };
    match nearest(found, names.iter().copied()) {
        Some(name) => format!(": did you mean {name:?}?{known}"),
        None => known,
    }
}

/// The name that is most like `found`, if any is alike.
pub(crate) fn nearest<'a>(found: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let found = found.to_lowercase();
    names
        .map(|name| (strsim::damerau_levenshtein(&found, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().max(found.len()) / 3)
        .min()
        .map(|(_, name)| name)
}

/// `; did you mean "x"?`, or what there is.
pub(crate) fn suggestion<'a>(found: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(found, names.clone()) {
        Some(name) => format!("; did you mean {name:?}?"),
        None => {
            let names: Vec<&str> = names.collect();
            if names.is_empty() {
                "; there are none".into()
            } else {
                format!("; there are: {}", names.join(", "))
            }
        }
    }
}
