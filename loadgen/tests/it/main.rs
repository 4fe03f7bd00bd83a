//! The load generator through its public interface.

mod assertions;
mod bounds;
mod command_lines;
mod hey;
mod schedule;

#[cfg(feature = "cli")]
mod beside_hey;
#[cfg(feature = "cli")]
mod binary;
#[cfg(feature = "cli")]
mod misbehaviour;
#[cfg(feature = "cli")]
mod proxy;
#[cfg(feature = "cli")]
mod responses;
#[cfg(feature = "cli")]
mod secure;
#[cfg(feature = "cli")]
mod server;
