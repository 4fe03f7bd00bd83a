//! The service mesh: routes and telemetry as pure functions, sidecars and gateways as programs, a control plane that
//! joins clusters.
//!
//! - [`route`]: where a request goes, given [`config::Config`], caller, request and random draws;
//! - [`telemetry`]: the standard metrics; [`injector`]: what sidecar injection adds to a pod;
//! - [`ControlPlane`]: watches rules in one cluster and services in all, and runs the proxies' program.
//!
//! VirtualServices may delegate to others; HTTPRoutes of the Gateway API are served beside them. Behaviour follows Istio
//! 1.4 and later (see each file). Not done: mutual TLS beyond its labels, TCP and TLS routes, outlier detection, connection pool limits, `exportTo`.

pub mod config;
mod control_plane;
mod delegate;
mod gateway_api;
pub mod injector;
mod proxy;
pub mod route;
pub mod telemetry;
mod workload;

pub use control_plane::{ControlPlane, Options};
pub use injector::Injection;
pub use telemetry::Telemetry;
pub use workload::Workload;
