//! Workspace tests: see the targets beside this file.
