//! What is wrong with a document.

use std::fmt;

use serde::de::{Expected, Unexpected};

use crate::Position;

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<(Option<Position>, Problem)>);

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A field that is not known, and those that are.
    UnknownField(String, &'static [&'static str]),
    /// A word that is not known, and those that are.
    UnknownVariant(String, &'static [&'static str]),
    /// A field that must be given.
    MissingField(&'static str),
    /// Anything else, as a sentence.
    Other(String),
}

impl Error {
    pub(crate) fn new(at: Option<Position>, problem: Problem) -> Error {
        Error(Box::new((at, problem)))
    }

    pub(crate) fn of_syntax(error: &serde_saphyr::Error) -> Error {
        let error = error.without_snippet();
        let at = error.location().filter(|at| at.line() > 0);
        let at = at.map(|at| Position { line: at.line(), column: at.column() });
        // The renderer repeats the place.
        let text = error.render();
        let text = text.split(" at line ").next().unwrap_or(&text).trim();
        Error::new(at, Problem::Other(text.to_owned()))
    }

    /// The error, at this place unless it has one already.
    pub(crate) fn within(mut self, at: Position) -> Error {
        self.0.0.get_or_insert(at);
        self
    }

    /// Where it is wrong.
    pub fn at(&self) -> Option<Position> {
        self.0.0
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.0.1
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.at() {
            write!(f, "line {line}, column {column}: ")?;
        }
        self.problem().fmt(f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |f: &mut fmt::Formatter<'_>, known: &[&str]| match known {
            [] => Ok(()),
            known => write!(f, " (known: {})", known.join(", ")),
        };
        match self {
            Problem::UnknownField(name, names) => {
                write!(f, "unknown field {name:?}")?;
                known(f, names)
            }
            Problem::UnknownVariant(name, names) => {
                write!(f, "unknown value {name:?}")?;
                known(f, names)
            }
            Problem::MissingField(name) => write!(f, "the field {name:?} is missing"),
            Problem::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error::new(None, Problem::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Error {
        Error::new(None, Problem::Other(format!("found {found} where {expected} belongs")))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Error {
        Error::new(None, Problem::UnknownVariant(variant.to_owned(), expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Error {
        Error::new(None, Problem::UnknownField(field.to_owned(), expected))
    }

    fn missing_field(field: &'static str) -> Error {
        Error::new(None, Problem::MissingField(field))
    }
}
