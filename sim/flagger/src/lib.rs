//! The canary controller as a program: a shell of API clients, HTTP and metrics queries around the pure core
//! of `canary`.
//!
//! [`program`] is what runs behind Flagger's images. It watches Canaries, gives each a job that ticks at the
//! analysis interval, and implements `canary::Port` for a tick (`tick`, `port`) over the Kubernetes API
//! (`workload`, `routing`), webhooks, Prometheus and chat services. What is written where is decided by pure
//! functions (`deployment`, `configs`, `scaler`, `service`, `istio`) that tests compare with literal objects.

mod annotated_csv;
mod autoscaling;
mod config_copies;
mod configs;
mod controller;
mod daemon_set;
mod deployment;
mod events;
mod finalizer;
mod flags;
mod gateway_api;
mod gateway_routing;
mod http;
mod istio;
mod keptn;
mod kubernetes;
mod leader;
mod log;
mod notifier;
mod owner;
mod pods;
mod port;
mod prometheus;
mod providers;
mod recorder;
mod routing;
mod scaled_object;
mod scaler;
mod scaling;
mod server;
mod service;
mod service_target;
mod sha256;
mod shell;
mod startup;
mod tick;
mod webhook;
mod workload;

#[cfg(test)]
mod objects;

/// The program behind `weaveworks/flagger` and `ghcr.io/fluxcd/flagger`. The image's tag chooses the dialect
/// (`canary::Dialect::from_tag`), the arguments are Flagger's own flags; it ends with code 2 after a bad one,
/// with 1 where Flagger logs a fatal error, and with 0 when it is told to stop.
pub fn program() -> program::Main {
    program::program(startup::main)
}
