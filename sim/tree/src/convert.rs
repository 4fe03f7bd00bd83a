//! From and to other values.

use crate::{Array, Map, Number, Text, Value};

macro_rules! from {
    ($($source:ty => |$value:ident| $made:expr),* $(,)?) => {
        $(impl From<$source> for Value {
            fn from($value: $source) -> Value {
                $made
            }
        })*
    };
}

from! {
    bool => |value| Value::Bool(value),
    i32 => |value| Value::Number(value.into()),
    i64 => |value| Value::Number(value.into()),
    u16 => |value| Value::Number(value.into()),
    u32 => |value| Value::Number(value.into()),
    u64 => |value| Value::Number(value.into()),
    usize => |value| Value::Number(value.into()),
    f64 => |value| Number::from_f64(value).map_or(Value::Null, Value::Number),
    &str => |value| Value::String(value.into()),
    String => |value| Value::String(value.into()),
    &String => |value| Value::String(value.into()),
    Text => |value| Value::String(value),
    Number => |value| Value::Number(value),
    Array => |value| Value::Array(value),
    Map => |value| Value::Object(value),
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Value {
        items.into_iter().collect()
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Value {
        Value::Array(items.into_iter().map(Into::into).collect())
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Value {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => Value::Number(number),
            serde_json::Value::String(text) => text.into(),
            serde_json::Value::Array(items) => items.into_iter().collect(),
            serde_json::Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (name, value.into()));
                Value::Object(fields.collect())
            }
        }
    }
}

impl From<&serde_json::Value> for Value {
    fn from(value: &serde_json::Value) -> Value {
        value.clone().into()
    }
}

impl From<&Value> for serde_json::Value {
    fn from(value: &Value) -> serde_json::Value {
        match value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => serde_json::Value::Bool(*value),
            Value::Number(number) => serde_json::Value::Number(number.clone()),
            Value::String(text) => serde_json::Value::String(text.to_string()),
            Value::Array(items) => items.iter().map(serde_json::Value::from).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| (name.to_string(), serde_json::Value::from(value)))
                .collect(),
        }
    }
}
