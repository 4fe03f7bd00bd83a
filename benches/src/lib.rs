//! Workspace benches: see the targets beside this file.
