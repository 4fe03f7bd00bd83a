//! The messages of the built-in kinds, read from `kinds.proto` on first use.

use std::collections::BTreeMap;
use std::sync::OnceLock;

const FILE: &str = include_str!("kinds.proto");

/// A field's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `string`, `bytes`, `bool`, `int32`, `int64`, `double`.
    Scalar(String),
    /// The full name of a message.
    Message(String),
    /// A map from strings.
    Map(Box<Kind>),
}

/// How often a field is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// A Go value: written even when it is zero, which means absent.
    Implicit,
    /// A Go pointer: zero is a value.
    Explicit,
    Repeated,
    /// An embedded Go struct, whose fields are its parent's in JSON.
    Inline,
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Its name in JSON.
    pub name: String,
    pub kind: Kind,
    pub presence: Presence,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// By number.
    pub fields: BTreeMap<u32, Field>,
}

/// All messages by full name.
pub(crate) struct Schema {
    messages: BTreeMap<String, Message>,
}

impl Schema {
    /// The messages of the built-in kinds.
    pub(crate) fn kubernetes() -> &'static Schema {
        static PARSED: OnceLock<Schema> = OnceLock::new();
        PARSED.get_or_init(|| parse(FILE))
    }

    pub(crate) fn message(&self, name: &str) -> Option<&Message> {
        self.messages.get(name)
    }

    /// The full name of a kind's message.
    pub(crate) fn name_of(&self, api_version: &str, kind: &str) -> Option<String> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let package = match group {
            "" => "k8s.io.api.core",
            "apiextensions.k8s.io" => "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions",
            _ => "k8s.io.api",
        };
        let name = match group {
            "" | "apiextensions.k8s.io" => format!("{package}.{version}.{kind}"),
            group => format!("{package}.{}.{version}.{kind}", group.split('.').next().unwrap_or_default()),
        };
        let meta = format!("k8s.io.apimachinery.pkg.apis.meta.v1.{kind}");
        // Options of requests carry the group of the request's resource.
        [name, meta].into_iter().find(|name| self.messages.contains_key(name))
    }
}

fn parse(text: &str) -> Schema {
    let mut messages = BTreeMap::new();
    let (mut package, mut name, mut message) = ("", String::new(), Message::default());
    for line in text.lines().filter(|line| !line.starts_with("//")) {
        let line = line.trim().trim_end_matches(';');
        if let Some(found) = line.strip_prefix("package ") {
            package = found;
        } else if let Some(found) = line.strip_prefix("message ") {
            name = format!("{package}.{}", found.trim_end_matches(" {"));
        } else if line == "}" {
            messages.insert(std::mem::take(&mut name), std::mem::take(&mut message));
        } else if let Some((number, field)) = field(package, line) {
            message.fields.insert(number, field);
        }
    }
    Schema { messages }
}

/// `[optional|repeated|inline] TYPE NAME = NUMBER`.
fn field(package: &str, line: &str) -> Option<(u32, Field)> {
    let (declaration, number) = line.split_once(" = ")?;
    let (declaration, name) = declaration.rsplit_once(' ')?;
    let (presence, kind) = match declaration.split_once(' ') {
        Some(("optional", kind)) => (Presence::Explicit, kind),
        Some(("repeated", kind)) => (Presence::Repeated, kind),
        Some(("inline", kind)) => (Presence::Inline, kind),
        _ => (Presence::Implicit, declaration),
    };
    Some((number.parse().ok()?, Field { name: name.to_owned(), kind: kind_of(package, kind), presence }))
}

fn kind_of(package: &str, text: &str) -> Kind {
    if let Some(inner) = text.strip_prefix("map<string, ") {
        return Kind::Map(Box::new(kind_of(package, inner.trim_end_matches('>'))));
    }
    match text {
        "string" | "bytes" | "bool" | "int32" | "int64" | "double" => Kind::Scalar(text.to_owned()),
        _ => match text.strip_prefix('.') {
            Some(full) => Kind::Message(full.to_owned()),
            None => Kind::Message(format!("{package}.{text}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_a_field_names_exists() {
        let schema = Schema::kubernetes();
        assert!(schema.messages.len() > 20, "{} messages", schema.messages.len());
        let mut fields = 0;
        for (name, message) in &schema.messages {
            for field in message.fields.values() {
                fields += 1;
                let mut kind = &field.kind;
                while let Kind::Map(inner) = kind {
                    kind = inner;
                }
                if let Kind::Message(of) = kind {
                    assert!(schema.messages.contains_key(of), "{name}.{}: no message {of}", field.name);
                }
            }
        }
        assert!(fields > 80, "{fields} fields");
        assert!(!FILE.contains("reserved "), "reserved lines would be read as fields");
    }
}
