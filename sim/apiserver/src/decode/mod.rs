//! Checks that an object of a built-in kind has the fields and types of its Go struct, and drops the fields it has not.
//!
//! The structs are a table, `types.txt`. (Code that reads and writes each of them as a Rust type is larger than all the
//! rest of the server.)

mod types;

use base64::Engine as _;
use jiff::Timestamp;
use serde::de::Unexpected;
use tree::{Map, Number, Value, json};

use types::{Shape, Types};

/// Brings an object of a built-in kind into the form in which Go would write it after reading it; returns the paths of
/// the fields that the kind does not have, which are gone. Parts shared with `known`, an object that has been decoded
/// before (or null), are left as they are.
///
/// # Errors
/// The field whose type is wrong, and what was found there.
pub(crate) fn decode(group_kind: &str, object: &mut Value, known: &Value) -> Result<Vec<String>, String> {
    let types = Types::kubernetes();
    let mut unknown = Vec::new();
    if let Some(shape) = types.kind(group_kind) {
        Reader { types, unknown: &mut unknown }.read(shape, object, known).map_err(Wrong::text)?;
    }
    Ok(unknown)
}

/// What is wrong, and where. Places are put together from the inside out, so that they cost nothing where all is well.
struct Wrong {
    place: String,
    problem: String,
}

impl Wrong {
    fn text(self) -> String {
        let Wrong { place, problem } = self;
        if place.is_empty() { problem } else { format!("{place}: {problem}") }
    }
}

/// A place within the item or field `step`.
fn within(step: &str, place: &str) -> String {
    let dot = if place.is_empty() || place.starts_with('[') { "" } else { "." };
    format!("{step}{dot}{place}")
}

struct Reader<'a> {
    types: &'a Types,
    unknown: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self, shape: &Shape, value: &mut Value, known: &Value) -> Result<(), Wrong> {
        if is_known(value, known) {
            return Ok(());
        }
        let problem = match (shape, &mut *value) {
            (Shape::Any, _) | (Shape::Bool, Value::Bool(_)) => return Ok(()),
            (Shape::Text | Shape::IntOrText | Shape::Quantity, Value::String(_)) => return Ok(()),
            (Shape::Int32 | Shape::IntOrText, Value::Number(number)) if is_integer(number) => {
                match number.as_i64().map(i32::try_from) {
                    Some(Ok(_)) => return Ok(()),
                    _ => mismatch("invalid value", value, "i32"),
                }
            }
            (Shape::Int64, Value::Number(number)) if is_integer(number) => {
                if number.is_i64() {
                    return Ok(());
                }
                mismatch("invalid value", value, "i64")
            }
            (Shape::Double, Value::Number(number)) => {
                *value = json!(number.as_f64());
                return Ok(());
            }
            (Shape::Quantity, Value::Number(number)) => {
                *value = json!(number.to_string());
                return Ok(());
            }
            (Shape::Bytes, Value::String(text)) => {
                match base64::engine::general_purpose::STANDARD.decode(text) {
                    Ok(_) => return Ok(()),
                    Err(error) => error.to_string(),
                }
            }
            (Shape::Time(format), Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(time) => {
                    *text = time.strftime(format).to_string().into();
                    return Ok(());
                }
                Err(error) => error.to_string(),
            },
            (Shape::Either(shapes), Value::Object(_)) => return self.read(&shapes[1], value, known),
            (Shape::Either(shapes), _) => return self.read(&shapes[0], value, known),
            (Shape::List(of), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.inside(|| format!("[{index}]"), of, item, &known[index])?;
                }
                return Ok(());
            }
            (Shape::Map(of), Value::Object(fields)) => {
                for (name, field) in fields {
                    self.inside(|| name.to_string(), of, field, &known[name])?;
                }
                return Ok(());
            }
            (Shape::Struct(index), Value::Object(fields)) => return self.fields(*index, fields, known),
            _ => mismatch("invalid type", value, &self.types.name(shape)),
        };
        Err(Wrong { place: String::new(), problem })
    }

    /// Reads a value that is inside of another, `step` away.
    fn inside(
        &mut self,
        step: impl Fn() -> String,
        shape: &Shape,
        value: &mut Value,
        known: &Value,
    ) -> Result<(), Wrong> {
        let before = self.unknown.len();
        let read = self.read(shape, value, known);
        for place in &mut self.unknown[before..] {
            *place = within(&step(), place);
        }
        read.map_err(|Wrong { place, problem }| Wrong { place: within(&step(), &place), problem })
    }

    fn fields(&mut self, index: usize, given: &mut Map, known: &Value) -> Result<(), Wrong> {
        let of = &self.types.structs[index];
        let mut dropped = Vec::new();
        for (name, value) in given.iter_mut() {
            match of.fields.get(name.as_str()) {
                Some(_) if value.is_null() => dropped.push(name.clone()),
                Some(field) => self.inside(|| name.to_string(), &field.shape, value, &known[name])?,
                None => {
                    // Nulls and empty values may go unnoticed: Go's encoder drops them too.
                    if !is_empty(value) {
                        self.unknown.push(name.to_string());
                    }
                    dropped.push(name.clone());
                }
            }
        }
        for name in dropped {
            given.remove(&name);
        }
        self.types
            .fill(index, given)
            .map_err(|missing| Wrong { place: String::new(), problem: format!("missing field `{missing}`") })
    }
}

fn mismatch(what: &str, found: &Value, expected: &str) -> String {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => Unexpected::Bool(*value).to_string(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Unexpected::Unsigned(number).to_string(),
            (None, Some(number)) => Unexpected::Signed(number).to_string(),
            (None, None) => Unexpected::Float(number.as_f64().unwrap_or_default()).to_string(),
        },
        Value::String(text) => Unexpected::Str(text).to_string(),
        Value::Array(_) => Unexpected::Seq.to_string(),
        Value::Object(_) => Unexpected::Map.to_string(),
    };
    format!("{what}: {found}, expected {expected}")
}

fn is_integer(number: &Number) -> bool {
    number.is_i64() || number.is_u64()
}

/// Whether a value is shared with one that has been looked at before; nothing is with null.
pub(crate) fn is_known(value: &Value, known: &Value) -> bool {
    !known.is_null() && value.is_shared_with(known)
}

/// Whether Go's encoder leaves a value out.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
