//! Label and field selectors.
//!
//! Follows apimachinery's `labels` and `fields` packages: the string forms of the query parameters, and the
//! `LabelSelector` object of specs. Negative requirements (`!=`, `notin`, `!key`) hold for objects without the label.

use std::collections::BTreeSet;
use std::fmt;
use tree::Value;

/// What one requirement of a label selector demands of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// The label is there with one of the values (`=`, `==`, `in`).
    In(BTreeSet<String>),
    /// The label is missing or has none of the values (`!=`, `notin`).
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
    /// The label is a whole number above this.
    GreaterThan(i64),
    /// The label is a whole number below this.
    LessThan(i64),
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What it must be.
    pub operator: Operator,
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        match (&self.operator, value) {
            (Operator::In(values), Some(value)) => values.contains(value),
            (Operator::NotIn(values), Some(value)) => !values.contains(value),
            (Operator::Exists, found) => found.is_some(),
            (Operator::DoesNotExist, found) => found.is_none(),
            (Operator::GreaterThan(bound), Some(value)) => {
                value.parse::<i64>().is_ok_and(|number| number > *bound)
            }
            (Operator::LessThan(bound), Some(value)) => {
                value.parse::<i64>().is_ok_and(|number| number < *bound)
            }
            (Operator::NotIn(_), None) => true,
            (_, None) => false,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list =
            |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Operator::In(values) => write!(f, "{key} in ({})", list(values)),
            Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values)),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan(bound) => write!(f, "{key}>{bound}"),
            Operator::LessThan(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

/// A label selector: every requirement must hold. The empty selector matches everything.
///
/// Its [`Display`](fmt::Display) is the canonical query string, keys sorted, as `status.selector` of a Scale holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// `true` for the selector of a missing LabelSelector object, which matches nothing.
    nothing: bool,
    /// The requirements, sorted by key.
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// The selector that matches every object.
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    /// The selector that matches no object.
    pub fn nothing() -> LabelSelector {
        LabelSelector { nothing: true, requirements: Vec::new() }
    }

    /// Parses the `labelSelector` parameter: `app=web,tier in (a, b),!old`.
    ///
    /// # Errors
    /// A sentence naming the part that is not understood, or an invalid key or value.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        let mut parser = Parser { tokens: tokenize(text), position: 0 };
        let mut requirements = Vec::new();
        if parser.peek() != &Token::End {
            loop {
                requirements.push(
                    parser.requirement().map_err(|error| format!("unable to parse requirement: {error}"))?,
                );
                match parser.next() {
                    Token::End => break,
                    Token::Comma => {
                        if !matches!(parser.peek(), Token::Word(_) | Token::Not) {
                            return Err(format!("found '{}', expected: identifier after ','", parser.peek()));
                        }
                    }
                    other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
                }
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { nothing: false, requirements })
    }

    /// The selector of a spec: a LabelSelector object (`matchLabels`, `matchExpressions`). `null` selects nothing, `{}`
    /// everything.
    ///
    /// # Errors
    /// A sentence naming the expression that is not valid.
    pub fn from_object(selector: &Value) -> Result<LabelSelector, String> {
        if selector.is_null() {
            return Ok(LabelSelector::nothing());
        }
        let mut requirements = LabelSelector::from_labels(&selector["matchLabels"]).requirements;
        for expression in selector["matchExpressions"].as_array().map_or(&[][..], tree::Array::as_slice) {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values: BTreeSet<String> = expression["values"]
                .as_array()
                .map_or(&[][..], tree::Array::as_slice)
                .iter()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect();
            let operator = expression["operator"].as_str().unwrap_or_default();
            let operator = match (operator, values.is_empty()) {
                ("In", false) => Operator::In(values),
                ("NotIn", false) => Operator::NotIn(values),
                ("In" | "NotIn", true) => {
                    return Err(format!(
                        "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty (key {key:?})"
                    ));
                }
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::DoesNotExist,
                ("Exists" | "DoesNotExist", false) => {
                    return Err(format!(
                        "values: Invalid value: values set must be empty for exists and does not exist (key {key:?})"
                    ));
                }
                _ => {
                    return Err(format!("{operator:?} is not a valid label selector operator (key {key:?})"));
                }
            };
            valid_key(&key)?;
            requirements.push(Requirement { key, operator });
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { nothing: false, requirements })
    }

    /// The selector that demands each label of a map, as Services and ReplicationControllers have it.
    pub fn from_labels(labels: &Value) -> LabelSelector {
        let mut requirements: Vec<Requirement> = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.to_string(),
                operator: Operator::In(BTreeSet::from([value.as_str().unwrap_or_default().to_owned()])),
            })
            .collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { nothing: false, requirements }
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether the object's `metadata.labels` satisfy the selector.
    pub fn matches(&self, object: &Value) -> bool {
        self.is_everything() || self.matches_labels(&object["metadata"]["labels"])
    }

    /// Whether a map of labels satisfies the selector; `null` stands for no labels.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        !self.nothing
            && self.requirements.iter().all(|requirement| {
                requirement.holds(labels.get(requirement.key.as_str()).and_then(Value::as_str))
            })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Comma,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    Open,
    Close,
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Token::Word(word) => word,
            Token::Comma => ",",
            Token::Not => "!",
            Token::Equals => "=",
            Token::NotEquals => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::Open => "(",
            Token::Close => ")",
            Token::End => "",
        })
    }
}

fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let token = match character {
            character if character.is_whitespace() => continue,
            ',' => Token::Comma,
            '(' => Token::Open,
            ')' => Token::Close,
            '>' => Token::Greater,
            '<' => Token::Less,
            '!' if characters.next_if_eq(&'=').is_some() => Token::NotEquals,
            '!' => Token::Not,
            '=' => {
                characters.next_if_eq(&'=');
                Token::Equals
            }
            first => {
                let mut word = String::from(first);
                while let Some(next) =
                    characters.next_if(|next| !next.is_whitespace() && !",()><!=".contains(*next))
                {
                    word.push(next);
                }
                Token::Word(word)
            }
        };
        tokens.push(token);
    }
    tokens.push(Token::End);
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.position]
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.position].clone();
        if token != Token::End {
            self.position += 1;
        }
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = *self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => return Err(format!("found '{other}', expected: !, identifier, or 'end of string'")),
        };
        valid_key(&key)?;
        if negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist });
        }
        let operator = match self.peek().clone() {
            Token::End | Token::Comma => Operator::Exists,
            Token::Equals => {
                self.next();
                Operator::In(BTreeSet::from([self.value()?]))
            }
            Token::NotEquals => {
                self.next();
                Operator::NotIn(BTreeSet::from([self.value()?]))
            }
            Token::Greater => {
                self.next();
                Operator::GreaterThan(self.number()?)
            }
            Token::Less => {
                self.next();
                Operator::LessThan(self.number()?)
            }
            Token::Word(word) if word == "in" => {
                self.next();
                Operator::In(self.values()?)
            }
            Token::Word(word) if word == "notin" => {
                self.next();
                Operator::NotIn(self.values()?)
            }
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        Ok(Requirement { key, operator })
    }

    /// The value after `=` or `!=`; nothing stands for the empty value.
    fn value(&mut self) -> Result<String, String> {
        match self.peek().clone() {
            Token::Word(word) => {
                self.next();
                valid_value(&word)?;
                Ok(word)
            }
            Token::Comma | Token::End => Ok(String::new()),
            other => Err(format!("found '{other}', expected: identifier")),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let value = self.value()?;
        value
            .parse()
            .map_err(|_| format!("for 'Gt', 'Lt' operators, the value must be an integer, got {value:?}"))
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        if self.next() != Token::Open {
            return Err("expected: '(' after in or notin".to_owned());
        }
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    valid_value(&word)?;
                    values.insert(word);
                    match self.next() {
                        Token::Comma if *self.peek() == Token::Close => {
                            values.insert(String::new());
                        }
                        Token::Comma => {}
                        Token::Close => return Ok(values),
                        other => return Err(format!("found '{other}', expected: ',' or ')'")),
                    }
                }
                Token::Comma => {
                    values.insert(String::new());
                }
                Token::Close => {
                    values.insert(String::new());
                    return Ok(values);
                }
                other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
            }
        }
    }
}

/// One name of a label: up to 63 letters, digits, `-`, `_`, `.`, beginning and ending with a letter or digit.
fn is_name(text: &str) -> bool {
    let inner = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    text.len() <= 63
        && text.chars().all(inner)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

fn valid_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_ok = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_name));
    if prefix_ok && is_name(name) {
        return Ok(());
    }
    Err(format!(
        "key: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    ))
}

fn valid_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(format!(
        "values[0]: Invalid value: {value:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, at most 63 of them"
    ))
}

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field's path: `metadata.name`.
    pub field: String,
    /// The value it is compared with.
    pub value: String,
    /// `false` for `!=`.
    pub equal: bool,
}

/// A field selector: `metadata.name=web,status.phase!=Running`. The empty one matches everything.
///
/// Which fields a kind can be selected by is the server's to check, with [`FieldSelector::terms`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Parses the `fieldSelector` parameter. A backslash makes the next `,`, `=` or backslash a literal one.
    ///
    /// # Errors
    /// The real server's text for a term without an operator.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let invalid = || format!("invalid selector: '{text}'; can't understand '{part}'");
            let operator = part.find(['=', '!']).ok_or_else(invalid)?;
            let (field, rest) = part.split_at(operator);
            let (value, equal) = if let Some(value) = rest.strip_prefix("!=") {
                (value, false)
            } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
                (value, true)
            } else {
                return Err(invalid());
            };
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value), equal });
        }
        Ok(FieldSelector { terms })
    }

    /// The terms, in the order given.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The same selector with fields renamed, where `name` knows another one.
    pub(crate) fn renamed(mut self, name: impl Fn(&str) -> Option<String>) -> FieldSelector {
        for term in &mut self.terms {
            if let Some(name) = name(&term.field) {
                term.field = name;
            }
        }
        self
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, if a term demands one; `metadata.name` makes a list a look-up.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether an object matches, each field read at its own path. A missing field is the empty string.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            let found =
                term.field.split('.').try_fold(object, |value, key| value.get(key)).unwrap_or(&Value::Null);
            let same = match found {
                Value::Null => term.value.is_empty(),
                Value::String(text) => *text == term.value,
                Value::Bool(flag) => term.value == if *flag { "true" } else { "false" },
                other => serde_json::from_str::<Value>(&term.value).is_ok_and(|value| value == *other),
            };
            same == term.equal
        })
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, character) in text.char_indices() {
        if character == ',' && !escaped {
            parts.push(&text[start..index]);
            start = index + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tree::json;

    #[test]
    fn label_selectors_match_as_documented() {
        let labels = json!({"app": "web", "tier": "front", "example.com/cost": "7"});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app=db", false),
            ("app!=db", true),
            ("missing!=x", true),
            ("app in (web, db),tier notin (back)", true),
            ("app in (db)", false),
            ("missing in (x)", false),
            ("missing notin (x)", true),
            ("app", true),
            ("!app", false),
            ("! missing , app", true),
            ("missing", false),
            ("example.com/cost>6,example.com/cost<8", true),
            ("app>6", false),
            ("missing=", false),
            ("app=web,app=db", false),
            ("in in (web)", false),
        ];
        for (text, expected) in cases {
            let selector = LabelSelector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(selector.matches_labels(&labels), expected, "{text}");
            assert_eq!(selector.matches(&json!({"metadata": {"labels": labels}})), expected, "{text}");
            assert_eq!(LabelSelector::parse(&selector.to_string()).as_ref(), Ok(&selector), "{text}");
        }
    }

    #[test]
    fn malformed_label_selectors_are_refused() {
        for text in [
            "=web",
            "app=web,",
            "app in web",
            "app in (web",
            "a b",
            "app=web db",
            "-x=y",
            "x=!y",
            "!!x",
            "x=-y",
            "a//b=c",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn selectors_of_specs() {
        let labels = json!({"app": "web"});
        let cases = [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false),
        ];
        for (selector, expected) in cases {
            assert_eq!(
                LabelSelector::from_object(&selector).unwrap().matches_labels(&labels),
                expected,
                "{selector}"
            );
        }
        for selector in [
            json!({"matchExpressions": [{"key": "app", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["x"]}]}),
            json!({"matchExpressions": [{"key": "app", "operator": "Like", "values": ["x"]}]}),
        ] {
            assert!(LabelSelector::from_object(&selector).is_err(), "{selector}");
        }
        let selector = LabelSelector::from_object(&json!({"matchLabels": {"b": "2", "a": "1"}})).unwrap();
        assert_eq!(selector.to_string(), "a=1,b=2");
    }

    #[test]
    fn field_selectors() {
        let pod =
            json!({"metadata": {"name": "a,b"}, "spec": {"replicas": 2}, "status": {"phase": "Running"}});
        let cases = [
            ("", true),
            ("metadata.name=a\\,b", true),
            ("metadata.name!=x,status.phase==Running", true),
            ("status.phase!=Running", false),
            ("spec.nodeName=", true),
            ("spec.nodeName!=", false),
            ("spec.replicas=2", true),
        ];
        for (text, expected) in cases {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(&pod), expected, "{text}");
        }
        assert_eq!(FieldSelector::parse("metadata.name=a").unwrap().exact("metadata.name"), Some("a"));
        assert_eq!(
            FieldSelector::parse("a=b,metadata.name").unwrap_err(),
            "invalid selector: 'a=b,metadata.name'; can't understand 'metadata.name'"
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[ab(),!=<> in]{0,12}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }

        #[test]
        fn a_requirement_and_its_negation_part_the_objects(value in "[ab]", label in prop::option::of("[ab]")) {
            let labels = label.map_or(json!({}), |label| json!({"k": label}));
            let matches = |text: String| LabelSelector::parse(&text).unwrap().matches_labels(&labels);
            prop_assert_ne!(matches(format!("k={value}")), matches(format!("k!={value}")));
            prop_assert_ne!(matches(format!("k in ({value})")), matches(format!("k notin ({value})")));
            prop_assert_ne!(matches("k".to_owned()), matches("!k".to_owned()));
        }
    }
}
