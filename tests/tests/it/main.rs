//! Tests of the workspace as a whole, in one binary: its structure and its habits.

mod arrows;
mod live;
mod readme;
mod scenario_docs;
mod tidy;

use std::path::PathBuf;

/// The workspace's root.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is a folder of the workspace")
        .to_owned()
}
