//! cluster

mod controllers;

pub use controllers::{
    ControllerOptions, EventRecorder, PodCpu, PodMetrics, reference, start as start_controllers,
};
