//! Scalars of scenario files: durations, moments of a run, and values that remember where they stand.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use yaml::Position;

/// A length of virtual time as Go and Kubernetes write it: `30s`, `1m30s`, `250ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Parses a duration.
    ///
    /// # Errors
    /// A sentence with the text and an example.
    pub fn parse(text: &str) -> Result<Span, String> {
        loadgen::parse_duration(text)
            .map(Span)
            .map_err(|_| format!("{text:?} is no duration: write e.g. 30s, 1m30s or 250ms"))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&loadgen::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Span::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of virtual time: 30s, 1m30s, 250ms.",
            "type": "string",
            "pattern": "^([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$",
        })
    }
}

/// A moment of the run: a duration since its start (`4m19s`), or since a mark (`release+4m19s`, `release`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The mark to count from; the run's start without one.
    pub mark: Option<String>,
    /// How long after it.
    pub after: Duration,
}

impl Moment {
    /// Parses a moment.
    ///
    /// # Errors
    /// A sentence with the text and an example.
    pub fn parse(text: &str) -> Result<Moment, String> {
        let wrong = |_| format!("{text:?} is no moment: write e.g. 4m19s (since the start) or release+30s");
        if let Some((mark, after)) = text.split_once('+') {
            let after = Span::parse(after.trim()).map_err(wrong)?.0;
            return Ok(Moment { mark: Some(mark.trim().to_owned()), after });
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(Moment { mark: None, after: Span::parse(text).map_err(wrong)?.0 });
        }
        if text.is_empty() {
            return Err(wrong(String::new()));
        }
        Ok(Moment { mark: Some(text.to_owned()), after: Duration::ZERO })
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.mark {
            None => f.write_str(&loadgen::format_duration(self.after)),
            Some(mark) if self.after.is_zero() => f.write_str(mark),
            Some(mark) => write!(f, "{mark}+{}", loadgen::format_duration(self.after)),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Moment::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A moment: a duration since the run's start (4m19s) or since a mark (release+4m19s).",
            "type": "string",
            "minLength": 1,
        })
    }
}

/// A value that remembers where it stands in its file.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it begins.
    pub at: Position,
}

impl<T> std::ops::Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (at, value) = yaml::located(deserializer)?;
        Ok(Located { value, at })
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
