//! YAML documents as Rust types, with errors and values that know their place.
//!
//! A text becomes a tree of nodes first, and the nodes become the type. The YAML parser's own deserializer is large, and a
//! program that reads types with it directly compiles it again for each of them: 5,500 lines of LLVM IR a type, against 500
//! for the one here.

mod error;
mod node;
mod read;

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

pub use error::{Error, Problem};
pub use read::located;

/// A line and column of a file, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Reads a text of one document.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    node::document(text)?.read(PhantomData::<T>)
}
