//! apiserver

pub mod jsonpath;
pub mod managed_fields;
pub mod patch;
pub mod selector;
pub mod structural;
pub mod table;
