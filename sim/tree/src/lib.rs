//! JSON values whose copies share their parts.
//!
//! A [`Value`] is used like `serde_json`'s, but a clone of one costs next to nothing: objects, lists and longer texts
//! are counted references, and a change copies only what is on the way to it. So the versions of an object that a store
//! keeps have in common what did not change, and to compare two of them is quick: what is shared is equal.

mod array;
mod convert;
mod index;
mod map;
mod parse;
mod print;
mod value;

pub use array::Array;
pub use ecow::EcoString as Text;
pub use map::{Entry, Map};
pub use serde_json::Number;
pub use value::Value;

/// Makes a [`Value`] from JSON with expressions in it, as `serde_json::json!` does.
#[macro_export]
macro_rules! json {
    ([]) => { $crate::Value::Array($crate::Array::new()) };
    ({}) => { $crate::Value::Object($crate::Map::new()) };
    ($value:literal) => { $crate::Value::from($value) };
    ($($json:tt)+) => { $crate::Value::from($crate::macros::json!($($json)+)) };
}

#[doc(hidden)]
pub mod macros {
    pub use serde_json::json;
}
