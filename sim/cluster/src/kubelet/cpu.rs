//! CPU usage per pod in windows of 15 seconds, as the metrics server collects it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Kubelet;
use crate::controllers::PodCpu;

/// The metrics server's default resolution.
const WINDOW: Duration = Duration::from_secs(15);

pub(super) fn start(kubelet: &Kubelet) {
    let watched = kubelet.clone();
    kubelet.0.parts.tasks.spawn(async move {
        let clock = watched.0.parts.clock;
        // CPU time by pod uid and container at the window's start.
        let mut before: BTreeMap<(String, String), Duration> = BTreeMap::new();
        loop {
            clock.sleep(WINDOW).await;
            let pods: Vec<_> = watched.pods().values().cloned().collect();
            let mut now = BTreeMap::new();
            let mut figures = BTreeMap::new();
            for pod in pods {
                let uid = pod.uid();
                let mut millicores = BTreeMap::new();
                let mut complete = true;
                for (container, total) in pod.cpu() {
                    let key = (uid.clone(), container.clone());
                    match before.get(&key) {
                        // A restarted container counts from 0 again.
                        Some(start) => {
                            let used = total.saturating_sub(*start);
                            let millis = used.as_nanos() / (WINDOW.as_nanos() / 1000);
                            millicores.insert(container, i64::try_from(millis).unwrap_or(i64::MAX));
                        }
                        None => complete = false,
                    }
                    now.insert(key, total);
                }
                if complete && !millicores.is_empty() {
                    figures.insert(uid, PodCpu { millicores, window: WINDOW, timestamp: clock.now() });
                }
            }
            before = now;
            *watched.0.cpu.lock().expect("no holder of this lock panics") = figures;
        }
    });
}
