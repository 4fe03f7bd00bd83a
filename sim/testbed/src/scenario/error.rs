//! What is wrong with a scenario file: sentences that begin with the place.

use yaml::{Position, Problem};

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

    /// A parser's error with the file's name, and the nearest name that would have been right.
    pub(super) fn of_yaml(file: &str, error: &yaml::Error) -> Self {
        let message = match error.problem() {
            Problem::UnknownField(field, known) => format!("unknown field {field:?}{}", advice(field, known)),
            Problem::UnknownVariant(variant, known) => {
                format!("unknown value {variant:?}{}", advice(variant, known))
            }
            other => other.to_string(),
        };
        ScenarioError::of(file, error.at(), message)
    }
}

/// `: did you mean "x"? (one of a, b, x)`.
fn advice(found: &str, names: &[&str]) -> String {
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
