//! flagger
