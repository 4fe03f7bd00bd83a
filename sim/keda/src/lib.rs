//! KEDA's operator as a program: it scales workloads by ScaledObjects.
//!
//! - [`program`] watches ScaledObjects, makes a HorizontalPodAutoscaler of each, asks Prometheus, and scales to and
//!   from zero, which the autoscaler cannot;
//! - [`Figures`] are its answers to the autoscalers: the external metrics API;
//! - `hpa` and `activity` decide, as pure functions.
//!
//! Behaviour follows KEDA 2.17. Triggers are `cpu`, `memory` (which has no source here) and `prometheus`; any other, and
//! `fallback`, `scalingModifiers` and trigger authentication, leave the ScaledObject not ready, with a message. Figures
//! are those of the last poll, as with `useCachedMetrics`.

mod activity;
mod figures;
mod hpa;
mod operator;
mod trigger;

pub use figures::Figures;

/// The program behind `ghcr.io/kedacore/keda` images. Its figures go to `figures`, under its cluster's name.
pub fn program(figures: Figures) -> program::Main {
    program::program(move |context| operator::run(context, figures.clone()))
}
