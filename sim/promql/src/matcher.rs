//! Label matchers: `=`, `!=`, `=~`, `!~`, regular expressions anchored at both ends.

use std::borrow::Cow;
use std::fmt;

use regex::Regex;

use crate::Labels;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

/// A regular expression that Prometheus would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatcherError(pub String);

impl fmt::Display for MatcherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MatcherError {}

/// One condition on a label. A label that is not there has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How it compares.
    pub kind: MatchKind,
    /// The value or the regular expression, as written.
    pub value: String,
    pattern: Option<Pattern>,
}

/// A regular expression, with the shapes that queries mostly have told apart: they need no automaton.
#[derive(Clone, Debug)]
enum Pattern {
    /// `a|b|c`: these values and no others.
    OneOf(Vec<String>),
    /// `a.*`
    Prefix(String),
    /// `.*`
    Any,
    /// `.+`
    Some,
    Regex(Regex),
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, MatcherError> {
        let literal = |text: &str| !text.contains(|c: char| "\\.+*?()|[]{}^$".contains(c));
        if pattern.split('|').all(literal) {
            return Ok(Pattern::OneOf(pattern.split('|').map(str::to_owned).collect()));
        }
        match pattern {
            ".*" => Ok(Pattern::Any),
            ".+" => Ok(Pattern::Some),
            _ => match pattern.strip_suffix(".*") {
                Some(prefix) if literal(prefix) => Ok(Pattern::Prefix(prefix.to_owned())),
                _ => anchored(pattern).map(Pattern::Regex),
            },
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Pattern::OneOf(values) => values.iter().any(|one| one == value),
            Pattern::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Pattern::Any => true,
            Pattern::Some => !value.is_empty(),
            Pattern::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Compiles a regular expression anchored at both ends, `.` matching line breaks too, as Prometheus does.
pub(crate) fn anchored(pattern: &str) -> Result<Regex, MatcherError> {
    Regex::new(&format!("^(?s:{})$", escape_lone_braces(pattern))).map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        MatcherError(format!("error parsing regexp: {reason}: `{pattern}`"))
    })
}

/// In Go, a brace that begins no repetition stands for itself; here it has to be escaped.
fn escape_lone_braces(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains('{') {
        return Cow::Borrowed(pattern);
    }
    let repeats = |rest: &str| {
        let Some((inside, _)) = rest[1..].split_once('}') else { return false };
        let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        !least.is_empty() && number(least) && number(most)
    };
    let (mut escaped, mut in_class, mut after_backslash) = (String::new(), false, false);
    // `\p{…}` and `\x{…}` have braces of their own.
    let mut named = false;
    for (at, c) in pattern.char_indices() {
        if c == '{' && !in_class && !after_backslash && !named && !repeats(&pattern[at..]) {
            escaped.push('\\');
        }
        named = after_backslash && matches!(c, 'p' | 'P' | 'x');
        match c {
            '[' if !after_backslash => in_class = true,
            ']' if !after_backslash => in_class = false,
            _ => {}
        }
        after_backslash = c == '\\' && !after_backslash;
        escaped.push(c);
    }
    Cow::Owned(escaped)
}

impl Matcher {
    /// A matcher.
    ///
    /// # Errors
    /// If `value` should be a regular expression and is none.
    pub fn new(
        kind: MatchKind,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, MatcherError> {
        let (name, value) = (name.into(), value.into());
        let pattern = match kind {
            MatchKind::Equal | MatchKind::NotEqual => None,
            MatchKind::Regex | MatchKind::NotRegex => Some(Pattern::new(&value)?),
        };
        Ok(Matcher { name, kind, value, pattern })
    }

    /// A matcher that wants exactly this value.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Matcher { name: name.into(), kind: MatchKind::Equal, value: value.into(), pattern: None }
    }

    /// Whether a label's value satisfies the matcher; a label that is not there has the empty value.
    pub fn matches(&self, value: &str) -> bool {
        match (self.kind, &self.pattern) {
            (MatchKind::Equal, _) => self.value == value,
            (MatchKind::NotEqual, _) => self.value != value,
            (MatchKind::Regex, Some(pattern)) => pattern.matches(value),
            (MatchKind::NotRegex, Some(pattern)) => !pattern.matches(value),
            (_, None) => unreachable!("regex matchers carry their pattern"),
        }
    }

    /// Whether a label set satisfies the matcher.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or_default())
    }

    /// The only values that can satisfy the matcher, if they are few and known and none is empty.
    pub(crate) fn candidates(&self) -> Option<Vec<&str>> {
        let values = match (self.kind, &self.pattern) {
            (MatchKind::Equal, _) => vec![self.value.as_str()],
            (MatchKind::Regex, Some(Pattern::OneOf(values))) => values.iter().map(String::as_str).collect(),
            _ => return None,
        };
        values.iter().all(|value| !value.is_empty()).then_some(values)
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.kind {
            MatchKind::Equal => "=",
            MatchKind::NotEqual => "!=",
            MatchKind::Regex => "=~",
            MatchKind::NotRegex => "!~",
        };
        write!(f, "{}{operator}{}", self.name, crate::format::quote(&self.value))
    }
}
