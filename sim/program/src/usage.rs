//! CPU accounting of one container.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// CPU time that a container has used since its start; the kubelet turns it into the figures that the
/// HorizontalPodAutoscaler reads. Cheap to clone; clones share the meter.
#[derive(Clone, Debug, Default)]
pub struct CpuMeter(Arc<AtomicU64>);

impl CpuMeter {
    /// Adds CPU time.
    pub fn add(&self, used: Duration) {
        self.0.fetch_add(u64::try_from(used.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// CPU time used so far.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
