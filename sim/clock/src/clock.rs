//! The run's clock: a wall-clock reading that advances with tokio's time.
#![allow(
    clippy::disallowed_methods,
    reason = "this file is the run's clock: everything else takes its time from here"
)]

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The clock's timers round up to this.
pub const GRANULARITY: Duration = Duration::from_millis(1);

/// When a timer goes off that is set to this elapsed time of a run.
pub fn tick(due: Duration) -> Duration {
    let millis = due.as_nanos().div_ceil(GRANULARITY.as_nanos());
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// A clock that all parts of one run share. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Timestamp,
    origin: Instant,
    speed: f64,
    /// Whether the thread that asks knows the time: see [`run_simulated`].
    is_known: bool,
}

thread_local! {
    /// The elapsed time of the simulated run on this thread, once somebody has asked since it went on: everybody asks
    /// all the time, and the way to tokio's clock is long.
    static KNOWN: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// The time given to [`Clock::timeout`] passed before the future finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

impl Clock {
    /// A clock that reads `epoch` now and follows tokio's time, paused or not. Must be made inside the runtime
    /// that the run lives in.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Clock { epoch, origin: Instant::now(), speed: 1.0, is_known: false }
    }

    /// A clock that reads the system's time now and advances `speed` times as fast as real time.
    ///
    /// # Panics
    /// If `speed` is not a positive finite number: the caller checks what a user typed.
    pub fn live(speed: f64) -> Self {
        assert!(speed.is_finite() && speed > 0.0, "clock speed must be positive, got {speed}");
        Clock { epoch: Timestamp::now(), origin: Instant::now(), speed, is_known: false }
    }

    /// A clock that reads `epoch` now and advances `speed` times as fast as real time: it goes on where another one was.
    ///
    /// # Panics
    /// As [`Clock::live`].
    pub fn live_from(epoch: Timestamp, speed: f64) -> Self {
        Clock { epoch, ..Clock::live(speed) }
    }

    /// The current time of the run.
    pub fn now(&self) -> Timestamp {
        self.epoch
            + SignedDuration::try_from(self.elapsed()).expect("a run lasts less than 292 billion years")
    }

    /// Time since the run's start.
    pub fn elapsed(&self) -> Duration {
        if self.is_known {
            return KNOWN.get().unwrap_or_else(|| {
                let elapsed = self.origin.elapsed();
                KNOWN.set(Some(elapsed));
                elapsed
            });
        }
        let real = self.origin.elapsed();
        if self.speed == 1.0 { real } else { real.mul_f64(self.speed) }
    }

    /// The time at which the run started.
    pub fn epoch(&self) -> Timestamp {
        self.epoch
    }

    /// Sleeps for `duration` of the run's time. Timers round up to one millisecond.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(self.real(duration)).await;
    }

    /// Sleeps until the run has lasted for `elapsed`; returns at once if it has.
    pub async fn sleep_until_elapsed(&self, elapsed: Duration) {
        tokio::time::sleep_until(self.origin + self.real(elapsed)).await;
    }

    /// Sleeps until the run's time is `at`; returns at once if that is past.
    pub async fn sleep_until(&self, at: Timestamp) {
        let since_start = Duration::try_from(at.duration_since(self.epoch)).unwrap_or(Duration::ZERO);
        self.sleep_until_elapsed(since_start).await;
    }

    /// Runs `future` for at most `limit` of the run's time.
    ///
    /// # Errors
    /// [`Elapsed`] if the limit passed first.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(self.real(limit), future).await.map_err(|_| Elapsed)
    }

    fn real(&self, duration: Duration) -> Duration {
        if self.speed == 1.0 { duration } else { duration.div_f64(self.speed) }
    }
}

/// Runs `main` to its end on a fresh current-thread runtime whose time is virtual and starts at `epoch`. Tasks that
/// are still running then are dropped.
pub fn run_simulated<F, T>(epoch: Timestamp, main: impl FnOnce(Clock) -> F) -> T
where
    F: Future<Output = T>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        // Virtual time goes on while all tasks wait, and at no other moment.
        .on_thread_unpark(|| KNOWN.set(None))
        .build()
        .expect("a current-thread runtime without I/O needs nothing from the system");
    KNOWN.set(None);
    runtime.block_on(async { main(Clock { is_known: true, ..Clock::starting_at(epoch) }).await })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_hours_pass_at_once_and_are_exact() {
        let epoch: Timestamp = "2020-03-17T11:00:00Z".parse().unwrap();
        run_simulated(epoch, |clock| async move {
            clock.sleep(Duration::from_secs(7200)).await;
            assert_eq!(clock.now().to_string(), "2020-03-17T13:00:00Z");
            assert_eq!(
                clock.timeout(Duration::from_secs(1), std::future::pending::<()>()).await,
                Err(Elapsed)
            );
            clock.sleep_until(epoch).await;
            assert_eq!(clock.elapsed(), Duration::from_secs(7201));
        });
    }
}
