//! The core, tick by tick, over a world that answers at once.

mod properties;
mod runs;
mod world;
