//! API servers on sockets: HTTPS on loopback, with a certificate authority of its own per testbed, client certificates
//! and bearer tokens, and the kubeconfigs that name them.
//!
//! The semantics are [`apiserver`]'s: this crate only carries requests to it. It knows nothing of testbeds.

mod authority;
mod credentials;
mod kubeconfig;
mod port;
mod server;
mod upgrade;

pub use authority::{Authority, Certificate, CertificateError};
pub use credentials::{Credentials, random_number};
pub use kubeconfig::{Context, kubeconfig};
pub use port::{Answer, Port, Reset};
pub use server::{Serving, serve};
pub use upgrade::{Executed, Pods};
