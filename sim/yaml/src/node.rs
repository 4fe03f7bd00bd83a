//! A document as a tree.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use crate::{Error, Position};

/// A value of a document.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where it stands; of an alias, where its anchor is.
    pub at: Position,
    /// As it is written, if that can be taken for text: `3.10`, `yes`.
    pub written: Option<Box<str>>,
    pub content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(Box<str>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// The tree of a text's only document.
pub(crate) fn document(text: &str) -> Result<Node, Error> {
    let options = serde_saphyr::options! { with_snippet: false };
    let raw: Spanned<Raw> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| Error::of_syntax(&error))?;
    Ok(node(raw, text))
}

/// What the parser gives.
enum Raw {
    Scalar(Content),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

/// A node with the way that it is written in the text.
fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let at = Position { line: raw.referenced.line(), column: raw.referenced.column() };
    let is_word = matches!(raw.value, Raw::Scalar(Content::Bool(_) | Content::Number(_)));
    let written = is_word.then(|| {
        let span = raw.defined.span();
        let (begin, length) = (span.byte_offset()? as usize, span.byte_len()? as usize);
        text.get(begin..begin + length).map(|written| written.trim().into())
    });
    let content = match raw.value {
        Raw::Scalar(content) => content,
        Raw::List(items) => Content::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(fields) => Content::Map(
            fields.into_iter().map(|(key, value)| (node(key, text), node(value, text))).collect(),
        ),
    };
    Node { at, written: written.flatten(), content }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Number(value.into())))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Raw, E> {
        let number = serde_json::Number::from_f64(value);
        number
            .map(|number| Raw::Scalar(Content::Number(number)))
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Content::Text(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Raw::Map(fields))
    }
}
