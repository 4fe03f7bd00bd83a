//! Tests of the workspace as a whole; they live in `tests/`.
