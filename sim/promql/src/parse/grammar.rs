//! Tokens to a tree, by recursive descent. Mistakes in the grammar end the parsing; those in types are noted, and count
//! if there is none in the grammar, as with Prometheus.

use crate::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Cardinality, Grouping, Kind as Type, Node, Selector,
    Subquery, When,
};
use crate::format::quote;
use crate::functions::Function;
use crate::labels::METRIC_NAME;
use crate::matcher::{MatchKind, Matcher};

use super::Mistake;
use super::lexer::{Keyword, Kind, Token, tokens};

/// The deepest tree. Prometheus has no such limit; here evaluation is recursive.
const DEEPEST: usize = 500;
/// The longest duration in milliseconds: that of Go's `time.Duration`.
const LONGEST_MS: f64 = 9_223_372_036_854.0;

/// An expression that has been read.
pub(super) struct Parsed {
    pub node: Node,
    /// Where it begins, in bytes.
    pub start: usize,
    /// Whether parentheses are around it: a range cannot follow them.
    in_parens: bool,
    /// How deep its tree is.
    pub depth: usize,
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
    /// The first mistake in types.
    pub mistyped: Option<Mistake>,
}

type Read<T> = Result<T, Mistake>;

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Parser { text, tokens: tokens(text), next: 0, mistyped: None }
    }

    /// The whole text as one expression.
    pub(super) fn query(mut self) -> Read<Node> {
        if *self.peek() == Kind::End {
            return Err(Mistake::at(0, "no expression found in input"));
        }
        let parsed = self.expression(0, 0)?;
        self.wants(&Kind::End, "", "")?;
        self.mistyped.map_or(Ok(parsed.node), Err)
    }

    /// The whole text as one selector with neither range nor modifiers.
    pub(super) fn selector_alone(mut self) -> Read<Vec<Matcher>> {
        let start = self.token().start;
        let matchers = match self.peek() {
            Kind::LeftBrace => self.selector(None, start)?,
            _ if self.may_name_metric() => {
                let name = self.take_text().to_owned();
                self.selector(Some(name), start)?
            }
            _ => return Err(self.unexpected("", "")),
        };
        self.wants(&Kind::End, "", "")?;
        self.mistyped.map_or(Ok(matchers.matchers), Err)
    }

    fn token(&self) -> &Token {
        &self.tokens[self.next]
    }

    fn peek(&self) -> &Kind {
        &self.token().kind
    }

    /// The token after the next one.
    fn peek_second(&self) -> &Kind {
        self.tokens.get(self.next + 1).map_or(&Kind::End, |token| &token.kind)
    }

    /// Goes on to the next token; the last one stays.
    fn advance(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    /// Takes the next token, and gives its text.
    fn take_text(&mut self) -> &'a str {
        let (start, end) = (self.token().start, self.token().end);
        self.advance();
        &self.text[start..end]
    }

    fn takes(&mut self, kind: &Kind) -> bool {
        let here = self.peek() == kind;
        if here {
            self.advance();
        }
        here
    }

    fn takes_keyword(&mut self, keyword: Keyword) -> bool {
        self.takes(&Kind::Keyword(keyword))
    }

    fn wants(&mut self, kind: &Kind, context: &str, expected: &str) -> Read<()> {
        if *self.peek() == *kind {
            self.advance();
            return Ok(());
        }
        Err(self.unexpected(context, expected))
    }

    /// The mistake that the next token is.
    fn unexpected(&self, context: &str, expected: &str) -> Mistake {
        let token = self.token();
        let text = &self.text[token.start..token.end];
        let what = match &token.kind {
            Kind::Mistake(message) => return Mistake::at(token.start, message.clone()),
            Kind::End => "end of input".to_owned(),
            Kind::Identifier if text.contains(':') => format!("metric identifier {}", quote(text)),
            Kind::Identifier => format!("identifier {}", quote(text)),
            Kind::Number(_) => format!("number {}", shortened(text)),
            Kind::Duration(_) => format!("duration {}", shortened(text)),
            Kind::Text(_) => format!("string {}", shortened(text)),
            Kind::Operator(_) | Kind::Matches | Kind::MatchesNot | Kind::At => format!("<op:{text}>"),
            Kind::Aggregate(_) => format!("<aggr:{text}>"),
            Kind::Keyword(_) => format!("<{text}>"),
            _ => quote(text),
        };
        let context = if context.is_empty() { String::new() } else { format!(" in {context}") };
        let expected = if expected.is_empty() { String::new() } else { format!(", expected {expected}") };
        Mistake::at(token.start, format!("unexpected {what}{context}{expected}"))
    }

    /// Notes a mistake in types, unless there is one already.
    pub(super) fn mistyped(&mut self, at: usize, message: String) {
        self.mistyped.get_or_insert(Mistake::at(at, message));
    }

    /// Operands with operators that bind at least as tightly as `least`. `depth` is how deep the parser is itself.
    fn expression(&mut self, least: u8, depth: usize) -> Read<Parsed> {
        if depth > DEEPEST {
            return Err(self.too_deep());
        }
        let mut left = self.operand(depth)?;
        loop {
            let &Kind::Operator(op) = self.peek() else { return Ok(left) };
            let precedence = op.precedence();
            if precedence < least {
                return Ok(left);
            }
            let op_at = self.token().start;
            let op_text = self.take_text();
            let modifiers = self.modifiers()?;
            // Operators group from the left, but for powers.
            let right =
                self.expression(if op == BinaryOp::Pow { precedence } else { precedence + 1 }, depth + 1)?;
            self.check_binary(op, (op_at, op_text), &modifiers, &left, &right);
            let deepest = left.depth.max(right.depth) + 1;
            if deepest > DEEPEST {
                return Err(self.too_deep());
            }
            left = Parsed {
                start: left.start,
                in_parens: false,
                depth: deepest,
                node: Node::Binary(Box::new(Binary {
                    op,
                    left: left.node,
                    right: right.node,
                    as_bool: modifiers.as_bool,
                    matching: modifiers.matching.unwrap_or(Grouping::Without(Vec::new())),
                    cardinality: modifiers.cardinality,
                    fill: modifiers.fill,
                })),
            };
        }
    }

    fn too_deep(&self) -> Mistake {
        Mistake::at(self.token().start, format!("expression is nested more than {DEEPEST} levels deep"))
    }

    /// An expression without binary operators.
    fn operand(&mut self, depth: usize) -> Read<Parsed> {
        let start = self.token().start;
        if let &Kind::Operator(op @ (BinaryOp::Add | BinaryOp::Sub)) = self.peek() {
            self.advance();
            // A sign binds as tightly as `*`: -a^b is -(a^b).
            let inner = self.expression(BinaryOp::Pow.precedence(), depth + 1)?;
            let kind = inner.node.kind();
            if !matches!(kind, Type::Scalar | Type::Vector) {
                self.mistyped(
                    start,
                    format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got \"{kind}\""
                    ),
                );
            }
            let node = match inner.node {
                node if op == BinaryOp::Add => node,
                Node::Number(number) => Node::Number(-number),
                node => Node::Negate(Box::new(node)),
            };
            return Ok(Parsed { node, start, in_parens: false, depth: inner.depth + 1 });
        }
        let mut parsed = self.primary(depth)?;
        parsed.start = start;
        loop {
            match self.peek() {
                Kind::LeftBracket if parsed.depth > DEEPEST => return Err(self.too_deep()),
                Kind::LeftBracket => parsed = self.range(parsed)?,
                Kind::Keyword(Keyword::Offset) => self.offset(&mut parsed)?,
                Kind::At => self.at_time(&mut parsed)?,
                _ => return Ok(parsed),
            }
        }
    }

    fn primary(&mut self, depth: usize) -> Read<Parsed> {
        let start = self.token().start;
        let leaf = |node| Ok(Parsed { node, start, in_parens: false, depth: 1 });
        match self.peek().clone() {
            Kind::Number(number) => {
                self.advance();
                leaf(Node::Number(number))
            }
            Kind::Duration(ms) => {
                self.advance();
                leaf(Node::Number(ms as f64 / 1000.0))
            }
            Kind::Text(text) => {
                self.advance();
                leaf(Node::Text(text))
            }
            Kind::LeftParen => {
                self.advance();
                let inner = self.expression(0, depth + 1)?;
                self.wants(&Kind::RightParen, "", "")?;
                Ok(Parsed { in_parens: true, ..inner })
            }
            Kind::LeftBrace => leaf(Node::Selector(self.selector(None, start)?)),
            Kind::Aggregate(op)
                if matches!(
                    self.peek_second(),
                    Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without)
                ) =>
            {
                self.aggregate(op, depth)
            }
            Kind::Identifier if *self.peek_second() == Kind::LeftParen => self.call(depth),
            _ if self.may_name_metric() => {
                let name = self.take_text().to_owned();
                leaf(Node::Selector(self.selector(Some(name), start)?))
            }
            _ => Err(self.unexpected("", "")),
        }
    }

    /// Whether the next token can be a metric's name: some keywords can.
    fn may_name_metric(&self) -> bool {
        matches!(
            self.peek(),
            Kind::Identifier
                | Kind::Aggregate(_)
                | Kind::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
                | Kind::Keyword(
                    Keyword::By
                        | Keyword::Without
                        | Keyword::Offset
                        | Keyword::Fill
                        | Keyword::FillLeft
                        | Keyword::FillRight
                )
        )
    }

    /// The matchers behind a metric's name, or without one.
    fn selector(&mut self, name: Option<String>, start: usize) -> Read<Selector> {
        let mut matchers: Vec<Matcher> =
            name.iter().map(|name| Matcher::equal(METRIC_NAME, name.as_str())).collect();
        let mut named = name;
        if self.takes(&Kind::LeftBrace) {
            while !self.takes(&Kind::RightBrace) {
                let matcher = self.matcher()?;
                if matcher.name == METRIC_NAME && matcher.kind == MatchKind::Equal {
                    if let Some(first) = &named {
                        self.mistyped(
                            start,
                            format!(
                                "metric name must not be set twice: {} or {}",
                                quote(first),
                                quote(&matcher.value)
                            ),
                        );
                    }
                    named = Some(matcher.value.clone());
                }
                matchers.push(matcher);
                if !self.takes(&Kind::Comma) && *self.peek() != Kind::RightBrace {
                    return Err(self.unexpected("label matching", "\",\" or \"}\""));
                }
            }
        }
        if matchers.iter().all(|matcher| matcher.matches("")) {
            self.mistyped(start, "vector selector must contain at least one non-empty matcher".into());
        }
        Ok(Selector { matchers, when: When::default() })
    }

    fn matcher(&mut self) -> Read<Matcher> {
        let start = self.token().start;
        let name = match self.peek().clone() {
            Kind::Identifier => self.take_text().to_owned(),
            Kind::Text(name) => {
                self.advance();
                // Alone, a quoted name is the metric's.
                if matches!(self.peek(), Kind::Comma | Kind::RightBrace) {
                    return Ok(Matcher::equal(METRIC_NAME, name));
                }
                name
            }
            _ => return Err(self.unexpected("label matching", "identifier or \"}\"")),
        };
        let kind = match self.peek() {
            Kind::Equal => MatchKind::Equal,
            Kind::Operator(BinaryOp::NotEqual) => MatchKind::NotEqual,
            Kind::Matches => MatchKind::Regex,
            Kind::MatchesNot => MatchKind::NotRegex,
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.advance();
        let Kind::Text(value) = self.peek().clone() else {
            return Err(self.unexpected("label matching", "string"));
        };
        self.advance();
        Matcher::new(kind, name, value).map_err(|error| Mistake::at(start, error.to_string()))
    }

    /// Takes a sign: whether it is a minus, and whether there is one at all.
    fn sign(&mut self) -> (bool, bool) {
        let negative = self.takes(&Kind::Operator(BinaryOp::Sub));
        (negative, negative || self.takes(&Kind::Operator(BinaryOp::Add)))
    }

    /// A duration, or a number of seconds. In milliseconds.
    fn duration(&mut self, context: &str, expected: &str, positive: bool) -> Read<i64> {
        let at = self.token().start;
        let ms = match *self.peek() {
            Kind::Duration(ms) => ms as f64,
            Kind::Number(seconds) => seconds * 1000.0,
            _ => return Err(self.unexpected(context, expected)),
        };
        self.advance();
        if ms.is_nan() || ms > LONGEST_MS {
            return Err(Mistake::at(at, "duration out of range"));
        }
        if positive && ms < 1.0 {
            return Err(Mistake::at(at, "duration must be greater than 0"));
        }
        Ok(ms as i64)
    }

    /// A range or a subquery behind an expression.
    fn range(&mut self, of: Parsed) -> Read<Parsed> {
        let bracket = self.token().start;
        self.advance();
        let range_ms = self.duration("subquery or range selector", "number or duration", true)?;
        if self.takes(&Kind::Colon) {
            let step_ms = match self.peek() {
                Kind::RightBracket => None,
                _ => Some(self.duration("subquery selector", "number, duration or \"]\"", true)?),
            };
            self.wants(&Kind::RightBracket, "subquery selector", "\"]\"")?;
            if of.node.kind() != Type::Vector {
                let kind = of.node.kind();
                self.mistyped(
                    of.start,
                    format!("subquery is only allowed on instant vector, got {kind} instead"),
                );
            }
            let subquery = Subquery { inner: of.node, range_ms, step_ms, when: When::default() };
            return Ok(Parsed {
                node: Node::Subquery(Box::new(subquery)),
                start: of.start,
                in_parens: false,
                depth: of.depth + 1,
            });
        }
        self.wants(&Kind::RightBracket, "subquery or range", "\":\" or \"]\"")?;
        let reason = match of.node {
            Node::Selector(selector) if !of.in_parens => match selector.when {
                When { offset_ms: 0, at: None } => {
                    return Ok(Parsed { node: Node::Range(selector, range_ms), ..of });
                }
                When { at: None, .. } => "no offset modifiers allowed before range",
                When { .. } => "no @ modifiers allowed before range",
            },
            _ => "ranges only allowed for vector selectors",
        };
        Err(Mistake::at(bracket, reason))
    }

    fn offset(&mut self, of: &mut Parsed) -> Read<()> {
        let start = of.start;
        self.advance();
        let (negative, _) = self.sign();
        let ms = self.duration("offset", "number or duration", false)?;
        let when = when_of(of).ok_or_else(|| {
            Mistake::at(
                start,
                "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            )
        })?;
        if when.offset_ms != 0 {
            return Err(Mistake::at(start, "offset may not be set multiple times"));
        }
        when.offset_ms = if negative { -ms } else { ms };
        Ok(())
    }

    fn at_time(&mut self, of: &mut Parsed) -> Read<()> {
        let start = of.start;
        self.advance();
        let at = self.token().start;
        let (negative, signed) = self.sign();
        let time = match *self.peek() {
            Kind::Number(seconds) => {
                let seconds = if negative { -seconds } else { seconds };
                if seconds.is_nan() || seconds.abs() * 1000.0 > LONGEST_MS {
                    let seconds = crate::format_float(seconds);
                    return Err(Mistake::at(
                        at,
                        format!("timestamp out of bounds for @ modifier: {seconds}"),
                    ));
                }
                self.advance();
                At::Time((seconds * 1000.0).round() as i64)
            }
            Kind::Identifier if !signed && *self.peek_second() == Kind::LeftParen => {
                let token = self.token();
                let time = match self.text[token.start..token.end].to_ascii_lowercase().as_str() {
                    "start" => At::Start,
                    "end" => At::End,
                    _ => return Err(self.unexpected("@", "timestamp")),
                };
                self.advance();
                self.advance();
                self.wants(&Kind::RightParen, "@", "timestamp")?;
                time
            }
            _ => return Err(self.unexpected("@", "timestamp")),
        };
        let when = when_of(of).ok_or_else(|| {
            Mistake::at(
                start,
                "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            )
        })?;
        if when.at.is_some() {
            return Err(Mistake::at(start, "@ <timestamp> may not be set multiple times"));
        }
        when.at = Some(time);
        Ok(())
    }

    fn call(&mut self, depth: usize) -> Read<Parsed> {
        let start = self.token().start;
        let name = self.take_text();
        let args = self.arguments(depth)?;
        let function = Function::from_name(name)
            .ok_or_else(|| Mistake::at(start, format!("unknown function with name {}", quote(name))))?;
        self.check_call(function, start, &args);
        let depth = args.iter().map(|arg| arg.depth).max().unwrap_or_default() + 1;
        let args = args.into_iter().map(|arg| arg.node).collect();
        Ok(Parsed { node: Node::Call(function, args), start, in_parens: false, depth })
    }

    /// Arguments in parentheses.
    fn arguments(&mut self, depth: usize) -> Read<Vec<Parsed>> {
        self.wants(&Kind::LeftParen, "aggregation", "")?;
        let mut args = Vec::new();
        if self.takes(&Kind::RightParen) {
            return Ok(args);
        }
        loop {
            args.push(self.expression(0, depth + 1)?);
            let comma = self.token().start;
            if self.takes(&Kind::RightParen) {
                return Ok(args);
            }
            self.wants(&Kind::Comma, "", "")?;
            if *self.peek() == Kind::RightParen {
                return Err(Mistake::at(comma, "trailing commas not allowed in function call args"));
            }
        }
    }

    fn aggregate(&mut self, op: AggregateOp, depth: usize) -> Read<Parsed> {
        let start = self.token().start;
        self.advance();
        let before = self.grouping()?;
        let args = self.arguments(depth)?;
        let grouping = match before {
            Some(grouping) => Some(grouping),
            None => self.grouping()?,
        };
        let wanted = 1 + usize::from(op.has_parameter());
        if args.is_empty() {
            return Err(Mistake::at(start, "no arguments for aggregate expression provided"));
        }
        if args.len() != wanted {
            let got = args.len();
            return Err(Mistake::at(
                start,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {got}"
                ),
            ));
        }
        self.check_aggregate(op, &args);
        let deepest = args.iter().map(|arg| arg.depth).max().unwrap_or_default() + 1;
        let mut args = args.into_iter().map(|arg| arg.node);
        let param = if op.has_parameter() { args.next() } else { None };
        let inner = args.next().expect("the arguments have been counted");
        let grouping = grouping.unwrap_or(Grouping::Only(Vec::new()));
        Ok(Parsed {
            node: Node::Aggregate(Box::new(Aggregate { op, inner, param, grouping })),
            start,
            in_parens: false,
            depth: deepest,
        })
    }

    /// `by (…)` or `without (…)`, if one comes next.
    fn grouping(&mut self) -> Read<Option<Grouping>> {
        Ok(if self.takes_keyword(Keyword::By) {
            Some(Grouping::Only(self.labels()?))
        } else if self.takes_keyword(Keyword::Without) {
            Some(Grouping::Without(self.labels()?))
        } else {
            None
        })
    }

    /// Labels in parentheses.
    fn labels(&mut self) -> Read<Vec<String>> {
        self.wants(&Kind::LeftParen, "grouping opts", "\"(\"")?;
        let mut labels = Vec::new();
        while !self.takes(&Kind::RightParen) {
            labels.push(self.label()?);
            if !self.takes(&Kind::Comma) && *self.peek() != Kind::RightParen {
                return Err(self.unexpected("grouping opts", "\",\" or \")\""));
            }
        }
        Ok(labels)
    }

    /// A label: a word, keywords too, or a quoted name.
    fn label(&mut self) -> Read<String> {
        if let Kind::Text(name) = self.peek().clone() {
            self.advance();
            return Ok(name);
        }
        let token = self.token();
        let word = &self.text[token.start..token.end];
        let is_label = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !matches!(token.kind, Kind::Mistake(_));
        if !is_label {
            return Err(self.unexpected("grouping opts", "label"));
        }
        Ok(self.take_text().to_owned())
    }

    /// What stands between a binary operator and its right side.
    fn modifiers(&mut self) -> Read<Modifiers> {
        let as_bool = self.takes_keyword(Keyword::Bool);
        let matching = if self.takes_keyword(Keyword::On) {
            Some(Grouping::Only(self.labels()?))
        } else if self.takes_keyword(Keyword::Ignoring) {
            Some(Grouping::Without(self.labels()?))
        } else {
            None
        };
        let mut cardinality = Cardinality::OneToOne;
        if matching.is_some() {
            let left = self.takes_keyword(Keyword::GroupLeft);
            if left || self.takes_keyword(Keyword::GroupRight) {
                let labels = if *self.peek() == Kind::LeftParen { self.labels()? } else { Vec::new() };
                cardinality =
                    if left { Cardinality::ManyToOne(labels) } else { Cardinality::OneToMany(labels) };
            }
        }
        let mut fill = (None, None);
        loop {
            let (left, right) = match self.peek() {
                Kind::Keyword(Keyword::Fill) => (true, true),
                Kind::Keyword(Keyword::FillLeft) => (true, false),
                Kind::Keyword(Keyword::FillRight) => (false, true),
                _ => break,
            };
            if *self.peek_second() != Kind::LeftParen {
                break;
            }
            self.advance();
            self.advance();
            let (negative, _) = self.sign();
            let &Kind::Number(number) = self.peek() else { return Err(self.unexpected("fill", "number")) };
            self.advance();
            self.wants(&Kind::RightParen, "fill", "\")\"")?;
            let number = if negative { -number } else { number };
            if left {
                fill.0 = Some(number);
            }
            if right {
                fill.1 = Some(number);
            }
        }
        Ok(Modifiers { as_bool, matching, cardinality, fill })
    }
}

/// What stands between a binary operator and its right side.
pub(super) struct Modifiers {
    pub as_bool: bool,
    pub matching: Option<Grouping>,
    pub cardinality: Cardinality,
    pub fill: (Option<f64>, Option<f64>),
}

/// Where `offset` and `@` of an expression go, if it can have them.
fn when_of(parsed: &mut Parsed) -> Option<&mut When> {
    match &mut parsed.node {
        _ if parsed.in_parens => None,
        Node::Selector(selector) | Node::Range(selector, _) => Some(&mut selector.when),
        Node::Subquery(subquery) => Some(&mut subquery.when),
        _ => None,
    }
}

/// A token's text in quotes, at most ten characters of it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(10) {
        Some((end, _)) => format!("{}...", quote(&text[..end])),
        None => quote(text),
    }
}
