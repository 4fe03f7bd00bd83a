//! Checks that an object of a built-in kind has the fields and types of its Go struct, and drops the fields it has not.
//!
//! The structs are a table, `types.txt`. (Code that reads and writes each of them as a Rust type is larger than all the
//! rest of the server.)

mod types;

use std::fmt::Write as _;

use base64::Engine as _;
use jiff::Timestamp;
use serde::de::Unexpected;
use serde_json::{Map, Value, json};

use types::{Shape, Types};

/// An object without its unknown fields, and the paths of those.
pub(crate) struct Decoded {
    pub object: Value,
    pub unknown: Vec<String>,
}

/// Decodes an object of a built-in kind.
///
/// # Errors
/// The field whose type is wrong, and what was found there.
pub(crate) fn decode(group_kind: &str, object: &Value) -> Result<Decoded, String> {
    let types = Types::kubernetes();
    let Some(shape) = types.kind(group_kind) else {
        return Ok(Decoded { object: object.clone(), unknown: Vec::new() });
    };
    let mut reader = Reader { types, path: Vec::new(), unknown: Vec::new() };
    let read = reader.read(shape, object);
    read.map(|object| Decoded { object, unknown: reader.unknown })
}

enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

struct Reader<'a> {
    types: &'a Types,
    path: Vec<Step<'a>>,
    unknown: Vec<String>,
}

impl<'a> Reader<'a> {
    /// The value as Go would write it after reading it.
    fn read(&mut self, shape: &'a Shape, value: &'a Value) -> Result<Value, String> {
        match (shape, value) {
            (Shape::Any, _) | (Shape::Bool, Value::Bool(_)) | (Shape::Text, Value::String(_)) => {
                Ok(value.clone())
            }
            (Shape::Int32, Value::Number(number)) if is_integer(value) => {
                let fits = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
                if fits { Ok(value.clone()) } else { Err(self.wrong("invalid value", value, "i32")) }
            }
            (Shape::Int64, Value::Number(number)) if is_integer(value) => {
                if number.is_i64() {
                    Ok(value.clone())
                } else {
                    Err(self.wrong("invalid value", value, "i64"))
                }
            }
            (Shape::Double, Value::Number(number)) => Ok(json!(number.as_f64())),
            (Shape::IntOrText, Value::String(_)) => Ok(value.clone()),
            (Shape::IntOrText, Value::Number(_)) if is_integer(value) => self.read(&Shape::Int32, value),
            (Shape::Quantity, Value::String(_)) => Ok(value.clone()),
            (Shape::Quantity, Value::Number(number)) => Ok(json!(number.to_string())),
            (Shape::Bytes, Value::String(text)) => {
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                decoded.map(|_| value.clone()).map_err(|error| self.here(&error.to_string()))
            }
            (Shape::Time(format), Value::String(text)) => {
                let time: Timestamp =
                    text.parse().map_err(|error: jiff::Error| self.here(&error.to_string()))?;
                Ok(json!(time.strftime(format).to_string()))
            }
            (Shape::Either(shapes), Value::Object(_)) => self.read(&shapes[1], value),
            (Shape::Either(shapes), _) => self.read(&shapes[0], value),
            (Shape::List(of), Value::Array(items)) => self.list(of, items),
            (Shape::Map(of), Value::Object(fields)) => {
                let mut read = Map::new();
                for (name, value) in fields {
                    self.path.push(Step::Field(name));
                    read.insert(name.clone(), self.read(of, value)?);
                    self.path.pop();
                }
                Ok(Value::Object(read))
            }
            (Shape::Struct(index), Value::Object(fields)) => self.fields(*index, fields),
            _ => Err(self.wrong("invalid type", value, &self.types.name(shape))),
        }
    }

    fn list(&mut self, of: &'a Shape, items: &'a [Value]) -> Result<Value, String> {
        let mut read = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            self.path.push(Step::Item(index));
            read.push(self.read(of, item)?);
            self.path.pop();
        }
        Ok(Value::Array(read))
    }

    fn fields(&mut self, index: usize, given: &'a Map<String, Value>) -> Result<Value, String> {
        let known = &self.types.structs[index].fields;
        let mut read = Map::new();
        for (name, value) in given {
            let Some(field) = known.get(name.as_str()) else {
                // Nulls and empty values may go unnoticed: Go's encoder drops them too.
                if !is_empty(value) {
                    self.path.push(Step::Field(name));
                    self.unknown.push(self.place());
                    self.path.pop();
                }
                continue;
            };
            if !value.is_null() {
                self.path.push(Step::Field(name));
                read.insert(name.clone(), self.read(&field.shape, value)?);
                self.path.pop();
            }
        }
        self.types
            .fill(index, &mut read)
            .map_err(|missing| self.here(&format!("missing field `{missing}`")))?;
        Ok(Value::Object(read))
    }

    fn place(&self) -> String {
        let mut place = String::new();
        for step in &self.path {
            let _ = match step {
                Step::Item(index) => write!(place, "[{index}]"),
                Step::Field(name) if place.is_empty() => write!(place, "{name}"),
                Step::Field(name) => write!(place, ".{name}"),
            };
        }
        place
    }

    fn here(&self, problem: &str) -> String {
        match self.place().as_str() {
            "" => problem.to_owned(),
            place => format!("{place}: {problem}"),
        }
    }

    fn wrong(&self, what: &str, found: &Value, expected: &str) -> String {
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
        self.here(&format!("{what}: {found}, expected {expected}"))
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
