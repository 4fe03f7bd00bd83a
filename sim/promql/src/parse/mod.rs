//! Text to [`Query`]: tokens, then a checked tree (grammar and messages: those of Prometheus 3).

mod check;
mod grammar;
mod lexer;

use std::sync::Arc;

use crate::ast::{Kind, Node};
use crate::error::QueryError;
use crate::matcher::Matcher;

use grammar::Parser;

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
        let root = Parser::new(text).query().map_err(|mistake| mistake.in_query(text))?;
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
    Parser::new(text).selector_alone().map_err(|mistake| mistake.in_query(text))
}

/// What is wrong with a query, and at which byte.
#[derive(Clone, Debug)]
struct Mistake {
    at: usize,
    message: String,
}

impl Mistake {
    fn at(at: usize, message: impl Into<String>) -> Self {
        Mistake { at, message: message.into() }
    }

    fn in_query(self, text: &str) -> QueryError {
        let place = if text.is_empty() { "unknown position".to_owned() } else { position(text, self.at) };
        QueryError::Parse(format!("{place}: parse error: {}", self.message))
    }
}

/// Line and column of a byte offset, as Prometheus counts: from 1, columns in bytes.
pub(crate) fn position(text: &str, at: usize) -> String {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!("{line}:{column}")
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
