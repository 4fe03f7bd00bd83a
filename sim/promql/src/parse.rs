//! Text to [`Query`]: the promql-parser crate's grammar, then our own tree with names resolved.
//!
//! The crate reports neither positions nor, for syntax errors, reasons; [`diagnose`] finds what it can so that the
//! message reads like Prometheus' (`1:5: parse error: …`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{
    AggregateExpr, AtModifier, BinaryExpr, Call, Expr, LabelModifier, Offset, VectorMatchCardinality,
    VectorSelector, token,
};

use crate::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Cardinality, Grouping, Kind, Node, Selector, Subquery, When,
};
use crate::error::QueryError;
use crate::functions::Function;
use crate::labels::METRIC_NAME;
use crate::matcher::{MatchKind, Matcher};

/// The longest duration in a query that the parser may see, in seconds: the crate panics on numbers beyond a u64.
const LONGEST_SECONDS: f64 = 9_223_372_036.0;

/// A query, parsed and checked. Cheap to clone: keep it and evaluate it many times.
#[derive(Clone, Debug)]
pub struct Query {
    pub(crate) root: Arc<Node>,
    text: Arc<str>,
}

impl Query {
    /// Parses a query. Functions that Prometheus calls experimental are parsed too; the engine's options decide.
    ///
    /// # Errors
    /// [`QueryError::Parse`] with Prometheus' kind of message.
    pub fn parse(text: &str) -> Result<Query, QueryError> {
        let expr = parse_expr(text)?;
        let root = convert(expr).map_err(|message| positioned(text, &message))?;
        Ok(Query { root: Arc::new(hoist(root)), text: text.into() })
    }

    /// The query as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the query gives: `scalar`, `string`, `instant vector` or `range vector`.
    pub fn kind(&self) -> String {
        self.root.kind().to_string()
    }

    /// Whether the query can be evaluated over a range of steps: ranges and strings cannot.
    ///
    /// # Errors
    /// Prometheus' message for what cannot.
    pub fn check_range(&self) -> Result<(), QueryError> {
        match self.root.kind() {
            Kind::Scalar | Kind::Vector => Ok(()),
            kind => Err(QueryError::Parse(format!(
                "invalid expression type \"{kind}\" for range query, must be Scalar or instant Vector"
            ))),
        }
    }
}

/// Parses a selector such as `up{job="x"}`, as the API's `match[]` parameters hold.
///
/// # Errors
/// [`QueryError::Parse`] if the text is no selector.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, QueryError> {
    match parse_expr(text)? {
        Expr::VectorSelector(selector) if selector.offset.is_none() && selector.at.is_none() => {
            matchers(selector.name, selector.matchers).map_err(|message| positioned(text, &message))
        }
        _ => Err(positioned(text, "unexpected expression in selector, expected label matchers")),
    }
}

fn parse_expr(text: &str) -> Result<Expr, QueryError> {
    if text.trim().is_empty() {
        return Err(QueryError::Parse("unknown position: parse error: no expression found in input".into()));
    }
    if let Some(at) = excessive_duration(text) {
        return Err(QueryError::Parse(format!("{}: parse error: duration out of range", position(text, at))));
    }
    promql_parser::parser::parse(text).map_err(|message| {
        if message == "invalid promql query" || message.starts_with("unclosed") {
            let (at, reason) = diagnose(text);
            QueryError::Parse(format!("{}: parse error: {reason}", position(text, at)))
        } else {
            positioned(text, &message)
        }
    })
}

/// Adds a position to a message: that of the name it quotes, if the text holds it, else the start. The crate's names
/// of types become Prometheus'.
fn positioned(text: &str, message: &str) -> QueryError {
    let mut message = message.replace('\'', "\"");
    for (theirs, ours) in [("matrix", "range vector"), ("vector", "instant vector")] {
        message = message.replace(&format!("type {theirs} in"), &format!("type {ours} in"));
        if let Some(rest) = message.strip_suffix(&format!("got {theirs}")) {
            message = format!("{rest}got {ours}");
        }
    }
    let quoted = message.split('"').nth(1).filter(|name| !name.is_empty());
    let at = quoted.and_then(|name| {
        let at = text.find(name)?;
        // A wrong argument: behind the function's parenthesis.
        Some(if message.starts_with("expected type") { at + name.len() + 1 } else { at })
    });
    QueryError::Parse(format!("{}: parse error: {message}", position(text, at.unwrap_or(0))))
}

/// Line and column of a byte offset, as Prometheus counts: from 1, columns in bytes.
pub(crate) fn position(text: &str, at: usize) -> String {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!("{line}:{column}")
}

/// Guesses what a syntax error is about: unbalanced brackets, two operands in a row, an end that came too early.
fn diagnose(text: &str) -> (usize, String) {
    let tokens = scan(text);
    let mut open: Vec<(u8, usize)> = Vec::new();
    let mut after_operand = false;
    for (index, token) in tokens.iter().enumerate() {
        let word = &text[token.0..token.1];
        let in_braces = matches!(open.last(), Some((b'{', _)));
        match word.as_bytes()[0] {
            bracket @ (b'(' | b'{' | b'[') => {
                open.push((bracket, token.0));
                after_operand = false;
            }
            close @ (b')' | b'}' | b']') => {
                let wanted = match open.pop() {
                    Some((b'(', _)) => b')',
                    Some((b'{', _)) => b'}',
                    Some((_, _)) => b']',
                    None => 0,
                };
                if wanted != close {
                    return (token.0, format!("unexpected \"{word}\""));
                }
                if close == b')' && !after_operand && index > 0 && !text[..token.0].trim_end().ends_with('(')
                {
                    return (token.0, "unexpected right parenthesis \")\"".to_owned());
                }
                after_operand = true;
            }
            b',' => after_operand = false,
            first if first.is_ascii_alphanumeric() || b"_\"'`.:".contains(&first) => {
                let keyword = KEYWORDS.contains(&word.to_ascii_lowercase().as_str());
                if after_operand && !keyword && !in_braces && !matches!(open.last(), Some((b'[', _))) {
                    let what = if first.is_ascii_digit() {
                        format!("number \"{word}\"")
                    } else if b"\"'`".contains(&first) {
                        format!("string {word}")
                    } else {
                        format!("identifier \"{word}\"")
                    };
                    return (token.0, format!("unexpected {what}"));
                }
                after_operand = !keyword;
            }
            _ if !after_operand && !in_braces && open.is_empty() && !matches!(word, "-" | "+") => {
                return (token.0, format!("unexpected <op:{word}>"));
            }
            _ => after_operand = false,
        }
    }
    match open.last() {
        Some((b'(', _)) if after_operand && !text.trim_end().ends_with('(') => {
            (text.len(), "unclosed left parenthesis".to_owned())
        }
        Some((b'{', _)) => (text.len(), "unexpected end of input inside braces".to_owned()),
        Some((b'[', _)) => (text.len(), "unclosed left bracket".to_owned()),
        _ => (text.trim_end().len(), "unexpected end of input".to_owned()),
    }
}

/// Words that may stand between operands.
const KEYWORDS: [&str; 14] = [
    "and",
    "or",
    "unless",
    "atan2",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "start",
    "end",
];

/// Splits a query roughly into words, strings, brackets and operators (byte ranges), without comments.
fn scan(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:".contains(&byte) || byte >= 0x80;
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'#' => {
                at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at);
                continue;
            }
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            quote @ (b'"' | b'\'' | b'`') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' && quote != b'`' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
            }
            byte if is_word(byte) => {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
            }
            byte => {
                at += 1;
                if b"=!<>~".contains(&byte) {
                    while at < bytes.len() && b"=~".contains(&bytes[at]) {
                        at += 1;
                    }
                }
            }
        }
        tokens.push((start, at));
    }
    tokens
}

/// The place of a bare number that stands for a duration and is too long for one.
fn excessive_duration(text: &str) -> Option<usize> {
    let tokens = scan(text);
    let (mut in_brackets, mut after_offset) = (false, false);
    for (start, end) in tokens {
        let word = &text[start..end];
        match word {
            "[" => in_brackets = true,
            "]" => in_brackets = false,
            "+" | "-" => continue,
            _ => {
                let number = word.trim_start_matches(':').parse::<f64>();
                if (in_brackets || after_offset) && number.is_ok_and(|n| n.is_nan() || n > LONGEST_SECONDS) {
                    return Some(start);
                }
            }
        }
        after_offset = word.eq_ignore_ascii_case("offset");
    }
    None
}

fn convert(expr: Expr) -> Result<Node, String> {
    Ok(match expr {
        Expr::NumberLiteral(number) => Node::Number(number.val),
        Expr::StringLiteral(text) => Node::Text(text.val),
        Expr::Paren(paren) => convert(*paren.expr)?,
        Expr::Unary(unary) => Node::Negate(Box::new(convert(*unary.expr)?)),
        Expr::VectorSelector(selector) => Node::Selector(convert_selector(selector)?),
        Expr::MatrixSelector(matrix) => {
            Node::Range(convert_selector(matrix.vs)?, milliseconds(matrix.range)?)
        }
        Expr::Subquery(subquery) => Node::Subquery(Box::new(Subquery {
            inner: convert(*subquery.expr)?,
            range_ms: milliseconds(subquery.range)?,
            step_ms: subquery.step.map(milliseconds).transpose()?.filter(|step| *step > 0),
            when: when(subquery.at, subquery.offset)?,
        })),
        Expr::Call(call) => convert_call(call)?,
        Expr::Aggregate(aggregate) => convert_aggregate(aggregate)?,
        Expr::Binary(binary) => convert_binary(binary)?,
        Expr::Extension(_) => return Err("unexpected extension node".into()),
    })
}

fn milliseconds(duration: Duration) -> Result<i64, String> {
    i64::try_from(duration.as_millis())
        .ok()
        .filter(|ms| *ms <= (LONGEST_SECONDS * 1000.0) as i64)
        .ok_or_else(|| "duration out of range".to_owned())
}

fn when(at: Option<AtModifier>, offset: Option<Offset>) -> Result<When, String> {
    let at = match at {
        None => None,
        Some(AtModifier::Start) => Some(At::Start),
        Some(AtModifier::End) => Some(At::End),
        Some(AtModifier::At(time)) => Some(At::Time(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => milliseconds(since)?,
            Err(before) => -milliseconds(before.duration())?,
        })),
    };
    let offset_ms = match offset {
        None => 0,
        Some(Offset::Pos(duration)) => milliseconds(duration)?,
        Some(Offset::Neg(duration)) => -milliseconds(duration)?,
    };
    Ok(When { at, offset_ms })
}

fn convert_selector(selector: VectorSelector) -> Result<Selector, String> {
    let when = when(selector.at, selector.offset)?;
    Ok(Selector { matchers: matchers(selector.name, selector.matchers)?, when })
}

fn matchers(name: Option<String>, parsed: Matchers) -> Result<Vec<Matcher>, String> {
    if !parsed.or_matchers.is_empty() {
        return Err("unexpected <op:or> in label matching, expected \",\" or \"}\"".into());
    }
    let mut matchers: Vec<Matcher> = name.into_iter().map(|name| Matcher::equal(METRIC_NAME, name)).collect();
    for matcher in parsed.matchers {
        matchers.push(match matcher.op {
            MatchOp::Equal => Matcher::equal(matcher.name, matcher.value),
            MatchOp::NotEqual => Matcher::new(MatchKind::NotEqual, matcher.name, matcher.value)
                .map_err(|error| error.to_string())?,
            MatchOp::Re(regex) => Matcher::compiled(MatchKind::Regex, matcher.name, matcher.value, regex),
            MatchOp::NotRe(regex) => {
                Matcher::compiled(MatchKind::NotRegex, matcher.name, matcher.value, regex)
            }
        });
    }
    if matchers.iter().all(|matcher| matcher.matches("")) {
        return Err("vector selector must contain at least one non-empty matcher".into());
    }
    Ok(matchers)
}

fn convert_call(call: Call) -> Result<Node, String> {
    let name = call.func.name;
    let function = Function::from_name(name).ok_or_else(|| format!("function \"{name}\" is not enabled"))?;
    let args = call.args.args.into_iter().map(|arg| convert(*arg)).collect::<Result<Vec<_>, _>>()?;
    for (index, arg) in args.iter().enumerate() {
        let types = &call.func.arg_types;
        let Some(wanted) = types.get(index).or(types.last()) else { continue };
        let wanted = match wanted.to_string().as_str() {
            "scalar" => Kind::Scalar,
            "string" => Kind::Text,
            "matrix" => Kind::Matrix,
            _ => Kind::Vector,
        };
        if arg.kind() != wanted {
            return Err(format!("expected type {wanted} in call to function \"{name}\", got {}", arg.kind()));
        }
    }
    Ok(Node::Call(function, args))
}

fn convert_aggregate(aggregate: AggregateExpr) -> Result<Node, String> {
    let op = match aggregate.op.id() {
        token::T_SUM => AggregateOp::Sum,
        token::T_AVG => AggregateOp::Avg,
        token::T_MIN => AggregateOp::Min,
        token::T_MAX => AggregateOp::Max,
        token::T_COUNT => AggregateOp::Count,
        token::T_GROUP => AggregateOp::Group,
        token::T_STDDEV => AggregateOp::Stddev,
        token::T_STDVAR => AggregateOp::Stdvar,
        token::T_TOPK => AggregateOp::TopK,
        token::T_BOTTOMK => AggregateOp::BottomK,
        token::T_QUANTILE => AggregateOp::Quantile,
        token::T_COUNT_VALUES => AggregateOp::CountValues,
        token::T_LIMITK => AggregateOp::LimitK,
        token::T_LIMIT_RATIO => AggregateOp::LimitRatio,
        _ => return Err(format!("unknown aggregation \"{}\"", aggregate.op)),
    };
    Ok(Node::Aggregate(Box::new(Aggregate {
        op,
        inner: convert(*aggregate.expr)?,
        param: aggregate.param.map(|param| convert(*param)).transpose()?,
        grouping: match aggregate.modifier {
            None => Grouping::Only(Vec::new()),
            Some(LabelModifier::Include(labels)) => Grouping::Only(labels.labels),
            Some(LabelModifier::Exclude(labels)) => Grouping::Without(labels.labels),
        },
    })))
}

fn convert_binary(binary: BinaryExpr) -> Result<Node, String> {
    let op = match binary.op.id() {
        token::T_ADD => BinaryOp::Add,
        token::T_SUB => BinaryOp::Sub,
        token::T_MUL => BinaryOp::Mul,
        token::T_DIV => BinaryOp::Div,
        token::T_MOD => BinaryOp::Mod,
        token::T_POW => BinaryOp::Pow,
        token::T_ATAN2 => BinaryOp::Atan2,
        token::T_EQLC => BinaryOp::Equal,
        token::T_NEQ => BinaryOp::NotEqual,
        token::T_GTR => BinaryOp::Greater,
        token::T_LSS => BinaryOp::Less,
        token::T_GTE => BinaryOp::GreaterOrEqual,
        token::T_LTE => BinaryOp::LessOrEqual,
        token::T_LAND => BinaryOp::And,
        token::T_LOR => BinaryOp::Or,
        token::T_LUNLESS => BinaryOp::Unless,
        _ => return Err(format!("unknown operator \"{}\"", binary.op)),
    };
    let modifier = binary.modifier.unwrap_or_default();
    Ok(Node::Binary(Box::new(Binary {
        op,
        left: convert(*binary.lhs)?,
        right: convert(*binary.rhs)?,
        as_bool: modifier.return_bool,
        matching: match modifier.matching {
            Some(LabelModifier::Include(labels)) => Grouping::Only(labels.labels),
            Some(LabelModifier::Exclude(labels)) => Grouping::Without(labels.labels),
            None => Grouping::Without(Vec::new()),
        },
        cardinality: match modifier.card {
            VectorMatchCardinality::ManyToOne(labels) => Cardinality::ManyToOne(labels.labels),
            VectorMatchCardinality::OneToMany(labels) => Cardinality::OneToMany(labels.labels),
            VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => Cardinality::OneToOne,
        },
        fill: (modifier.fill_values.lhs, modifier.fill_values.rhs),
    })))
}

/// Wraps the largest parts of the tree that give the same at every step into [`Node::Constant`].
fn hoist(node: Node) -> Node {
    if is_constant(&node) {
        return match node {
            Node::Number(_) | Node::Text(_) => node,
            node => Node::Constant(Box::new(node)),
        };
    }
    match node {
        Node::Call(function, args) => Node::Call(
            function,
            // A range is no value of its own: the function reads the series behind it.
            args.into_iter().map(|arg| if arg.kind() == Kind::Matrix { arg } else { hoist(arg) }).collect(),
        ),
        Node::Aggregate(mut aggregate) => {
            aggregate.inner = hoist(aggregate.inner);
            aggregate.param = aggregate.param.map(hoist);
            Node::Aggregate(aggregate)
        }
        Node::Binary(mut binary) => {
            binary.left = hoist(binary.left);
            binary.right = hoist(binary.right);
            Node::Binary(binary)
        }
        Node::Negate(inner) => Node::Negate(Box::new(hoist(*inner))),
        node => node,
    }
}

fn is_constant(node: &Node) -> bool {
    match node {
        Node::Number(_) | Node::Text(_) | Node::Constant(_) => true,
        Node::Selector(selector) | Node::Range(selector, _) => selector.when.at.is_some(),
        Node::Subquery(subquery) => subquery.when.at.is_some(),
        Node::Call(function, args) => !function.depends_on_step() && args.iter().all(is_constant),
        Node::Aggregate(aggregate) => {
            is_constant(&aggregate.inner) && aggregate.param.as_ref().is_none_or(is_constant)
        }
        Node::Binary(binary) => is_constant(&binary.left) && is_constant(&binary.right),
        Node::Negate(inner) => is_constant(inner),
    }
}
