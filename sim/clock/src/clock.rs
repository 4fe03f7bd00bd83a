//! The run's clock: virtual time, or real time sped up.
#![allow(
    clippy::disallowed_methods,
    reason = "this file is the run's clock: everything else takes its time from here"
)]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::timers::{self, Timer};

/// A clock that all parts of one run share. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Timestamp,
    time: Time,
}

/// What makes time go on.
#[derive(Clone, Copy, Debug)]
enum Time {
    /// The simulated run of this thread: [`run_simulated`].
    Virtual,
    /// Real time, sped up.
    Real { origin: Instant, speed: f64 },
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
    /// A clock that reads the system's time now and advances `speed` times as fast as real time.
    ///
    /// # Panics
    /// If `speed` is not a positive finite number: the caller checks what a user typed.
    pub fn live(speed: f64) -> Self {
        assert!(speed.is_finite() && speed > 0.0, "clock speed must be positive, got {speed}");
        Clock { epoch: Timestamp::now(), time: Time::Real { origin: Instant::now(), speed } }
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
    #[inline]
    pub fn elapsed(&self) -> Duration {
        match self.time {
            Time::Virtual => timers::now(),
            Time::Real { origin, speed } => since(origin, speed),
        }
    }

    /// The time at which the run started.
    pub fn epoch(&self) -> Timestamp {
        self.epoch
    }

    /// Sleeps for `duration` of the run's time. Timers round up to one millisecond.
    pub async fn sleep(&self, duration: Duration) {
        match self.time {
            Time::Virtual => Timer::until(timers::now().saturating_add(duration)).await,
            Time::Real { speed, .. } => tokio::time::sleep(real(duration, speed)).await,
        }
    }

    /// Sleeps until the run has lasted for `elapsed`; returns at once if it has.
    pub async fn sleep_until_elapsed(&self, elapsed: Duration) {
        match self.time {
            Time::Virtual => Timer::until(elapsed).await,
            Time::Real { origin, speed } => tokio::time::sleep_until(origin + real(elapsed, speed)).await,
        }
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
        let mut future = pin!(future);
        let mut over = pin!(self.sleep(limit));
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => over.as_mut().poll(context).map(|()| Err(Elapsed)),
        })
        .await
    }
}

/// How long a run that started then has lasted.
#[inline(never)]
fn since(origin: Instant, speed: f64) -> Duration {
    if speed == 1.0 { origin.elapsed() } else { origin.elapsed().mul_f64(speed) }
}

fn real(duration: Duration, speed: f64) -> Duration {
    if speed == 1.0 { duration } else { duration.div_f64(speed) }
}

/// Runs `main` to its end on a fresh current-thread runtime whose time is virtual and starts at `epoch`. Tasks that
/// are still running then are dropped. The clock is of use within that run alone.
pub fn run_simulated<F, T>(epoch: Timestamp, main: impl FnOnce(Clock) -> F) -> T
where
    F: Future<Output = T>,
{
    timers::run(async { main(Clock { epoch, time: Time::Virtual }).await })
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
