//! The time that a schedule follows: real or virtual.

use std::future::Future;
use std::time::Duration;

/// A source of time.
pub trait Time: Sync {
    /// Time since a fixed moment.
    fn now(&self) -> Duration;

    /// Sleeps until [`now`](Time::now) is `at` or later.
    fn sleep_until(&self, at: Duration) -> impl Future<Output = ()> + Send;

    /// How far the clock may be off the schedule without anyone sleeping: zero on real time. On virtual time, whose
    /// timers round up (tokio's to a millisecond), the schedule keeps exact times as data and the clock follows
    /// within this much.
    fn granularity(&self) -> Duration {
        Duration::ZERO
    }
}
