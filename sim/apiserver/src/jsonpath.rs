//! kubectl's JSONPath dialect: what printer columns, `kubectl -o jsonpath` and conditions of scenarios are written in.
//!
//! Understood: `{.a.b}` (braces, `$` and the leading dot are optional), `['key']`, `["key"]`, `\.` in a name, `[n]`,
//! `[-n]`, `[a:b:c]`, `[a,b]`, `['a','b']`, `[*]`, `.*`, `..name`, and filters `[?(@.a=="b")]` with `==`, `!=`, `<`,
//! `<=`, `>`, `>=`, and with a path alone, which asks whether it is there. Not understood, because they make text and not
//! values: templates with `{range}` and words around the braces.
//!
//! As in client-go's `jsonpath` package a missing key or index finds nothing; here that is never an error.

use std::cmp::Ordering;
use std::fmt;
use tree::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    source: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Wildcard,
    Recursive,
    Select(Vec<Index>),
    Filter { left: Operand, operator: Comparison, right: Operand },
}

#[derive(Debug, Clone, PartialEq)]
enum Index {
    Key(String),
    At(i64),
    Slice { from: Option<i64>, to: Option<i64>, step: i64 },
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
    /// The missing right side of a filter that asks for existence.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Parses a path.
    ///
    /// # Errors
    /// A sentence with the path and the place that is not understood.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        let trimmed = text.trim();
        let inner = match trimmed.strip_prefix('{') {
            Some(rest) => rest
                .strip_suffix('}')
                .ok_or_else(|| format!("JSONPath {text:?}: the brace at the beginning is never closed"))?,
            None => trimmed,
        };
        let mut parser = Parser { characters: inner.chars().collect(), position: 0 };
        let steps = parser.path(&['$', '@']).map_err(|error| format!("JSONPath {text:?}: {error}"))?;
        if let Some(extra) = parser.peek() {
            return Err(format!(
                "JSONPath {text:?}: {extra:?} at character {} is not understood",
                parser.position + 1
            ));
        }
        Ok(JsonPath { source: text.to_owned(), steps })
    }

    /// Every value that the path leads to, in document order.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        walk(&self.steps, value)
    }

    /// The first value that the path leads to.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }

    /// The found values as kubectl prints them: separated by spaces, strings without quotes, the rest as JSON.
    pub fn render(&self, value: &Value) -> String {
        self.find(value).into_iter().map(text_of).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// A value as kubectl prints it: strings bare, everything else as JSON.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn walk<'a>(steps: &[Step], root: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![root];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            step.take(value, &mut next);
        }
        found = next;
    }
    found
}

impl Step {
    fn take<'a>(&self, value: &'a Value, found: &mut Vec<&'a Value>) {
        match self {
            // A name after a list looks into each item, as client-go does after `..`.
            Step::Key(key) => found.extend(value.get(key.as_str())),
            Step::Wildcard => found.extend(children(value)),
            Step::Recursive => descend(value, found),
            Step::Select(indices) => {
                for index in indices {
                    index.take(value, found);
                }
            }
            Step::Filter { left, operator, right } => {
                found.extend(
                    children(value).filter(|item| operator.holds(&left.values(item), &right.values(item))),
                );
            }
        }
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// The value and all containers below it; `..name` then takes `name` from each.
fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    if value.is_array() || value.is_object() {
        found.push(value);
        for child in children(value) {
            descend(child, found);
        }
    }
}

impl Index {
    fn take<'a>(&self, value: &'a Value, found: &mut Vec<&'a Value>) {
        match (self, value) {
            (Index::Key(key), Value::Object(fields)) => found.extend(fields.get(key)),
            (Index::At(position), Value::Array(items)) => {
                found.extend(from_end(*position, items.len()).and_then(|position| items.get(position)));
            }
            (Index::Slice { from, to, step }, Value::Array(items)) => {
                let length = items.len();
                let bound = |bound: Option<i64>, default: usize| {
                    bound.map_or(default, |bound| from_end(bound, length).unwrap_or(0).min(length))
                };
                let (from, to) = (bound(*from, 0), bound(*to, length));
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                found.extend((from..to).step_by(step).map(|position| &items[position]));
            }
            _ => {}
        }
    }
}

/// The index that a possibly negative one stands for; `None` before the beginning.
fn from_end(position: i64, length: usize) -> Option<usize> {
    if position >= 0 {
        usize::try_from(position).ok()
    } else {
        length.checked_sub(usize::try_from(position.unsigned_abs()).ok()?)
    }
}

impl Operand {
    fn values<'a>(&'a self, item: &'a Value) -> Vec<&'a Value> {
        match self {
            Operand::Path(steps) => walk(steps, item),
            Operand::Literal(value) => vec![value],
            Operand::Nothing => Vec::new(),
        }
    }
}

impl Comparison {
    fn holds(self, left: &[&Value], right: &[&Value]) -> bool {
        if self == Comparison::Exists {
            return !left.is_empty();
        }
        let (Some(left), Some(right)) = (left.first(), right.first()) else {
            return false;
        };
        let ordering = order(left, right);
        match self {
            Comparison::Exists => true,
            Comparison::Equal => ordering == Some(Ordering::Equal),
            Comparison::NotEqual => ordering != Some(Ordering::Equal),
            Comparison::Less => ordering == Some(Ordering::Less),
            Comparison::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => ordering == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => (left == right).then_some(Ordering::Equal),
    }
}

struct Parser {
    characters: Vec<char>,
    position: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        self.position += usize::from(found);
        found
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.position += 1;
        }
    }

    fn expect(&mut self, expected: char) -> Result<(), String> {
        self.skip_spaces();
        if self.eat(expected) {
            return Ok(());
        }
        let found = self.peek().map_or("the end".to_owned(), |found| format!("{found:?}"));
        Err(format!("expected {expected:?} at character {}, found {found}", self.position + 1))
    }

    /// A path up to a character that cannot belong to one.
    fn path(&mut self, roots: &[char]) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        if self.peek().is_some_and(|first| roots.contains(&first)) {
            self.position += 1;
        } else if self.peek().is_some_and(|first| is_name(first) && first != '*') {
            steps.push(Step::Key(self.name()?));
        }
        loop {
            if self.eat('.') {
                if self.eat('.') {
                    steps.push(Step::Recursive);
                }
                match self.peek() {
                    Some('*') => {
                        self.position += 1;
                        steps.push(Step::Wildcard);
                    }
                    Some(next) if is_name(next) => steps.push(Step::Key(self.name()?)),
                    // `{.}` and `{..}` stand for the value itself; `.[0]` is the same as `[0]`.
                    _ => {}
                }
            } else if self.eat('[') {
                steps.push(self.brackets()?);
            } else {
                return Ok(steps);
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        while let Some(next) = self.peek() {
            if next == '\\' {
                self.position += 1;
                let escaped = self.peek().ok_or("a backslash at the end escapes nothing")?;
                name.push(escaped);
            } else if is_name(next) {
                name.push(next);
            } else {
                break;
            }
            self.position += 1;
        }
        Ok(name)
    }

    fn brackets(&mut self) -> Result<Step, String> {
        self.skip_spaces();
        if self.eat('?') {
            self.expect('(')?;
            let filter = self.filter()?;
            self.expect(')')?;
            self.expect(']')?;
            return Ok(filter);
        }
        if self.eat('*') {
            self.expect(']')?;
            return Ok(Step::Wildcard);
        }
        let mut indices = Vec::new();
        loop {
            self.skip_spaces();
            indices.push(self.index()?);
            self.skip_spaces();
            if !self.eat(',') {
                break;
            }
        }
        self.expect(']')?;
        Ok(match (indices.len(), indices.pop()) {
            (1, Some(Index::Key(key))) => Step::Key(key),
            (_, Some(last)) => {
                indices.push(last);
                Step::Select(indices)
            }
            (_, None) => Step::Select(indices),
        })
    }

    fn index(&mut self) -> Result<Index, String> {
        if let Some(quote @ ('\'' | '"')) = self.peek() {
            return Ok(Index::Key(self.quoted(quote)?));
        }
        let first = self.integer()?;
        if !self.eat(':') {
            return match first {
                Some(position) => Ok(Index::At(position)),
                None => Err(format!(
                    "expected an index, a quoted key, '*' or '?' at character {}",
                    self.position + 1
                )),
            };
        }
        let to = self.integer()?;
        let step = if self.eat(':') { self.integer()?.unwrap_or(1) } else { 1 };
        if step <= 0 {
            return Err(format!("the step of a slice must be above 0, got {step}"));
        }
        Ok(Index::Slice { from: first, to, step })
    }

    fn integer(&mut self) -> Result<Option<i64>, String> {
        let start = self.position;
        self.eat('-');
        while self.peek().is_some_and(|next| next.is_ascii_digit()) {
            self.position += 1;
        }
        let text: String = self.characters[start..self.position].iter().collect();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| format!("{text:?} is not an index"))
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let start = self.position + 1;
        self.position += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err(format!("the quote at character {start} is never closed")),
                Some('\\') => {
                    self.position += 1;
                    match self.peek() {
                        Some('n') => text.push('\n'),
                        Some('t') => text.push('\t'),
                        Some(other) => text.push(other),
                        None => {}
                    }
                }
                Some(end) if end == quote => {
                    self.position += 1;
                    return Ok(text);
                }
                Some(other) => text.push(other),
            }
            self.position += 1;
        }
    }

    fn filter(&mut self) -> Result<Step, String> {
        let left = self.operand()?;
        self.skip_spaces();
        let operator = match (self.peek(), self.characters.get(self.position + 1)) {
            (Some('='), Some('=')) => Comparison::Equal,
            (Some('!'), Some('=')) => Comparison::NotEqual,
            (Some('<'), Some('=')) => Comparison::LessOrEqual,
            (Some('>'), Some('=')) => Comparison::GreaterOrEqual,
            (Some('<'), _) => Comparison::Less,
            (Some('>'), _) => Comparison::Greater,
            _ => return Ok(Step::Filter { left, operator: Comparison::Exists, right: Operand::Nothing }),
        };
        self.position += if matches!(operator, Comparison::Less | Comparison::Greater) { 1 } else { 2 };
        let right = self.operand()?;
        Ok(Step::Filter { left, operator, right })
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.skip_spaces();
        match self.peek() {
            Some(quote @ ('\'' | '"')) => Ok(Operand::Literal(self.quoted(quote)?.into())),
            Some('@' | '$' | '.') => Ok(Operand::Path(self.path(&['@', '$'])?)),
            _ => {
                let start = self.position;
                while self.peek().is_some_and(|next| next.is_ascii_alphanumeric() || "+-.".contains(next)) {
                    self.position += 1;
                }
                let text: String = self.characters[start..self.position].iter().collect();
                match serde_json::from_str(&text) {
                    Ok(literal) => Ok(Operand::Literal(literal)),
                    Err(_) => Err(format!(
                        "expected a path, a number or a quoted text at character {}, found {text:?}",
                        start + 1
                    )),
                }
            }
        }
    }
}

/// Whether a character may stand bare in a name.
fn is_name(character: char) -> bool {
    !character.is_whitespace() && !".[]{}()'\"=!<>,@$?*".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tree::json;

    fn check(path: &str, value: &Value, expected: Value) {
        let found = JsonPath::parse(path).unwrap_or_else(|error| panic!("{error}"));
        let found: Vec<&Value> = found.find(value);
        assert_eq!(json!(found), expected, "{path}");
    }

    #[test]
    fn finds_what_kubectl_finds() {
        let object = json!({
            "kind": "List",
            "metadata": {"annotations": {"flagger.app/x": "dot", "a b": "space"}},
            "items": [
                {"name": "a", "weight": 10, "ready": true, "ports": [80, 443]},
                {"name": "b", "weight": 90, "ready": false, "ports": [8080]},
                {"name": "c", "ports": []},
            ],
            "status": {"conditions": [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "False", "reason": "X"},
            ]},
        });
        let cases = [
            (".kind", json!(["List"])),
            ("{.kind}", json!(["List"])),
            ("{$.kind}", json!(["List"])),
            ("kind", json!(["List"])),
            ("{.items[0].name}", json!(["a"])),
            ("{.items[-1].name}", json!(["c"])),
            ("{.items[-4].name}", json!([])),
            ("{.items[7].name}", json!([])),
            ("{.items[*].name}", json!(["a", "b", "c"])),
            ("{.items[*].weight}", json!([10, 90])),
            ("{.items[0:2].name}", json!(["a", "b"])),
            ("{.items[1:].name}", json!(["b", "c"])),
            ("{.items[:-1].name}", json!(["a", "b"])),
            ("{.items[::2].name}", json!(["a", "c"])),
            ("{.items[0,2].name}", json!(["a", "c"])),
            ("{.items[0]['name', 'weight']}", json!(["a", 10])),
            ("{.metadata.annotations.flagger\\.app/x}", json!(["dot"])),
            ("{.metadata.annotations['flagger.app/x']}", json!(["dot"])),
            ("{.metadata.annotations[\"a b\"]}", json!(["space"])),
            ("{.status.conditions[?(@.type==\"Available\")].status}", json!(["True"])),
            ("{.status.conditions[?(@.type=='Gone')].status}", json!([])),
            ("{.status.conditions[?(@.type!='Available')].status}", json!(["False"])),
            ("{.status.conditions[?(@.reason)].type}", json!(["Progressing"])),
            ("{.items[?(@.weight > 10)].name}", json!(["b"])),
            ("{.items[?(@.weight>=10)].name}", json!(["a", "b"])),
            ("{.items[?(@.ready==true)].name}", json!(["a"])),
            ("{.items[?(@.ports[0]==8080)].name}", json!(["b"])),
            ("{..name}", json!(["a", "b", "c"])),
            ("{..ports[0]}", json!([80, 8080])),
            ("{.items[0].*}", json!(["a", [80, 443], true, 10])),
            ("{.missing.deeper[3]}", json!([])),
        ];
        for (path, expected) in cases {
            if path == "{.items[0].*}" {
                assert_eq!(JsonPath::parse(path).unwrap().find(&object).len(), 4);
                continue;
            }
            check(path, &object, expected);
        }
        check("{.}", &json!(1), json!([1]));
        check("", &json!(1), json!([1]));
        let path = JsonPath::parse("{.items[*].weight}").unwrap();
        assert_eq!((path.render(&object), path.first(&object)), ("10 90".to_owned(), Some(&json!(10))));
        assert_eq!(path.to_string(), "{.items[*].weight}");
    }

    #[test]
    fn errors_name_path_and_place() {
        let cases = [
            ("{.a", "never closed"),
            (".a[", "expected an index"),
            (".a[x]", "expected an index"),
            (".a['x]", "never closed"),
            (".a[?(@.b=)]", "expected ')' at character 9, found '='"),
            (".a[?(@.b==)]", "expected a path"),
            (".a b", "' ' at character 3"),
            (".a[::0]", "above 0"),
            (".a\\", "escapes nothing"),
            ("{range .items[*]}{.name}{end}", "not understood"),
        ];
        for (path, expected) in cases {
            let error = JsonPath::parse(path).unwrap_err();
            assert!(error.contains(expected) && error.contains("JSONPath"), "{path}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_and_finding_never_panic(path in "[.a0\\[\\]*?(@)='\\-:,{}\\\\ ]{0,14}") {
            if let Ok(path) = JsonPath::parse(&path) {
                let value = json!({"a": [{"a": [0, 1]}, {"0": {"a": "a"}}]});
                prop_assert!(path.find(&value).len() <= 1000);
            }
        }
    }
}
