//! What makes a release policy lie, found in its manifests with no simulation.
//!
//! Each [`Rule`] has a code, and a scenario that shows it happen in the full simulation; each [`Finding`] names object
//! and field, says why it bites with the numbers of this policy, and how to mend it. It is a crate of its own because
//! it looks at manifests of all kinds, where `whatif` knows a Canary only; it takes that crate's reading of a policy
//! and its arithmetic. It decides from documents alone: no clock, no client, no randomness.

mod docs;
mod facts;
mod finding;
mod rules;

pub use docs::reference;
pub use facts::Facts;
pub use finding::{Finding, Level};
pub use rules::{RULES, Rule, check};
