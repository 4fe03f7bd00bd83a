//! One thing that is wrong.

use serde::Serialize;
use whatif::manifest::Document;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// It bites under some circumstances.
    Warning,
    /// The release does not do what the policy says.
    Error,
}

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The rule's code.
    pub code: &'static str,
    /// How bad it is.
    pub level: Level,
    /// The file.
    pub file: String,
    /// The line of the field, or of the object if the field is not written.
    pub line: usize,
    /// The object: `Kind namespace/name`.
    pub object: String,
    /// The field's path.
    pub field: String,
    /// Why it bites, with the numbers.
    pub why: String,
    /// What to change.
    pub fix: String,
    /// The scenario that shows it, in this repository.
    pub scenario: String,
}

/// The line on which the last part of a path is written in a document, or the document's own.
pub(crate) fn line_of(document: &Document, field: &str) -> usize {
    let lines: Vec<&str> = document.text.lines().collect();
    let mut at = 0;
    let mut found = None;
    for part in field.split('.') {
        let (key, index) = match part.split_once('[') {
            Some((key, rest)) => (key, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let is_key = |line: &&str| {
            let text = line.trim_start().trim_start_matches("- ");
            text.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
        };
        let Some(next) = lines.iter().skip(at).position(is_key).map(|offset| at + offset) else { break };
        at = next;
        found = Some(next);
        if let Some(index) = index {
            let is_item = |line: &&str| line.trim_start().starts_with("- ");
            let first = lines.iter().skip(at + 1).find(|line| is_item(line)).copied().unwrap_or_default();
            let column = first.len() - first.trim_start().len();
            let items = lines.iter().enumerate().skip(at + 1);
            let mut items =
                items.filter(|(_, line)| is_item(line) && line.len() - line.trim_start().len() == column);
            if let Some((line, _)) = items.nth(index) {
                at = line;
                found = Some(line);
            }
        }
    }
    document.line + found.unwrap_or(0)
}
