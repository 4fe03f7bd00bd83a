//! Real time, with timers finer than the runtime's millisecond, and time limits that cost nothing until they pass.
#![expect(clippy::disallowed_methods, reason = "the socket side is where real time comes from")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use tokio::time::Sleep;

use crate::Time;
use crate::net::watch::Watch;

/// Time since a moment in this process.
///
/// Sleeping needs [`RealTime::drive`] on the same runtime. On Linux the timers are a `timerfd`, set as much too early
/// as this machine is found to wake late, and the clock is watched for the rest; elsewhere the runtime's timer is used
/// up to two milliseconds before.
#[derive(Clone)]
pub struct RealTime {
    origin: Instant,
    timers: Arc<Timers>,
}

impl RealTime {
    /// Time that counts from now.
    ///
    /// # Errors
    /// When the system has no timer left.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start() -> std::io::Result<Self> {
        RealTime::since(Instant::now())
    }

    /// Time that counts from `origin`: threads that share a run share it.
    ///
    /// # Errors
    /// As [`RealTime::start`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn since(origin: Instant) -> std::io::Result<Self> {
        let timers = Timers {
            heap: Mutex::default(),
            alarm: Alarm::new()?,
            in_use: AtomicBool::new(false),
            seen: AtomicU64::new(0),
        };
        Ok(RealTime { origin, timers: Arc::new(timers) })
    }

    /// When the clock was last looked at, which [`drive`](RealTime::drive) does before each turn of the work.
    fn seen(&self) -> Duration {
        Duration::from_nanos(self.timers.seen.load(Ordering::Relaxed))
    }

    /// Runs `work` and this time's timers. Waits awake where sleeping would take longer.
    pub async fn drive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), outer: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&bell));
        let mut watch = Watch::default();
        // Many workers in one task: the runtime's budget for a task would send them round in circles.
        tokio::task::unconstrained(poll_fn(|context| {
            bell.outer.register(context.waker());
            let now = self.now();
            let progress = bell.rung.swap(false, Ordering::AcqRel) || self.timers.is_due(now);
            if progress {
                let mut inner = Context::from_waker(&waker);
                let in_use = self.timers.in_use();
                self.timers.ring(self, &mut inner);
                if let Poll::Ready(done) = work.as_mut().poll(&mut inner) {
                    return Poll::Ready(done);
                }
                if !in_use {
                    // The first to sleep began just now.
                    self.timers.ring(self, &mut inner);
                }
            }
            let now = self.now();
            if watch.again(now, progress) || self.timers.is_near(now) {
                // The runtime looks for events and comes back.
                context.waker().wake_by_ref();
            }
            Poll::Pending
        }))
        .await
    }
}

/// Tells whether it was the work that was woken.
struct Bell {
    rung: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.outer.wake();
    }
}

impl Time for RealTime {
    fn now(&self) -> Duration {
        let now = self.origin.elapsed();
        self.timers.seen.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        now
    }

    async fn sleep_until(&self, at: Duration) {
        poll_fn(|context| {
            if self.now() >= at {
                return Poll::Ready(());
            }
            self.timers.add(at, context.waker(), self);
            Poll::Pending
        })
        .await;
    }
}

struct Timers {
    heap: Mutex<Heap>,
    alarm: Alarm,
    in_use: AtomicBool,
    /// Nanoseconds when the clock was last looked at.
    seen: AtomicU64,
}

#[derive(Default)]
struct Heap {
    sleepers: BinaryHeap<Reverse<Sleeper>>,
    added: u64,
    /// Whom the alarm is set for.
    armed: Option<Duration>,
    /// For whom the alarm has come.
    watched: Option<Duration>,
    /// How much too early the alarm is set.
    lead: Duration,
}

/// The most that the alarm is set too early.
const LEAD_MAX: Duration = Duration::from_micros(200);
/// The most that one late alarm adds to the lead: a thread that was not given its core for milliseconds says nothing
/// about the next time.
const LEAD_STEP: Duration = Duration::from_micros(20);

impl Heap {
    fn next(&self) -> Option<Duration> {
        self.sleepers.peek().map(|Reverse(next)| next.at)
    }

    /// The alarm came at `now`: from here on the clock is watched. Half of what it was late is added to the lead, an
    /// eighth of what it was early is taken off.
    fn learn(&mut self, now: Duration) {
        let Some(at) = self.armed else { return };
        if at > now + LEAD_MAX {
            // What came is an alarm that was set before.
            self.armed = None;
            return;
        }
        let (late, early) = (now.saturating_sub(at), at.saturating_sub(now));
        self.lead = (self.lead + (late / 2).min(LEAD_STEP)).saturating_sub(early / 8).min(LEAD_MAX);
        self.watched = Some(at);
    }
}

struct Sleeper {
    at: Duration,
    /// Among equal times, the first comes first.
    order: u64,
    waker: Waker,
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Sleeper {}

impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl Timers {
    fn in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().expect("no holder of this lock panics")
    }

    fn add(&self, at: Duration, waker: &Waker, time: &RealTime) {
        let mut heap = self.lock();
        heap.added += 1;
        let order = heap.added;
        heap.sleepers.push(Reverse(Sleeper { at, order, waker: waker.clone() }));
        self.arm(&mut heap, time.now());
        self.in_use.store(true, Ordering::Relaxed);
    }

    /// Sets the alarm for who is next, unless it is, or there is no time for it. Returns whether it did.
    fn arm(&self, heap: &mut Heap, now: Duration) -> bool {
        if let Some(next) = heap.next()
            && heap.armed != Some(next)
            && let Some(after) = next.checked_sub(now + heap.lead)
        {
            heap.armed = Some(next);
            self.alarm.set(after);
            return true;
        }
        false
    }

    /// Whether someone is due.
    fn is_due(&self, now: Duration) -> bool {
        self.in_use() && self.lock().next().is_some_and(|next| next <= now)
    }

    /// Whether someone is due so soon that the clock is to be watched.
    fn is_near(&self, now: Duration) -> bool {
        self.in_use() && {
            let heap = self.lock();
            heap.next().is_some_and(|next| next <= now + heap.lead || heap.watched == Some(next))
        }
    }

    /// Wakes who is due, sets the alarm for who is next.
    fn ring(&self, time: &RealTime, context: &mut Context<'_>) {
        // Until someone sleeps there is nothing to do.
        if !self.in_use() {
            return;
        }
        loop {
            let rung = self.alarm.poll_rung(context).is_ready();
            let mut heap = self.lock();
            let now = time.now();
            if rung {
                // Before it is set for the next.
                heap.learn(now);
            }
            while heap.next().is_some_and(|next| next <= now) {
                if let Some(Reverse(sleeper)) = heap.sleepers.pop() {
                    sleeper.waker.wake();
                }
            }
            let set = self.arm(&mut heap, now);
            if !rung && !set {
                return;
            }
        }
    }
}

#[cfg(target_os = "linux")]
struct Alarm(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Alarm {
    #[expect(
        deprecated,
        reason = "its replacement is unsafe; an OwnedFd that is never given away is what it asks for"
    )]
    fn new() -> std::io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interest = tokio::io::Interest::READABLE;
        Ok(Alarm(tokio::io::unix::AsyncFd::with_interest(timer, interest)?))
    }

    fn set(&self, after: Duration) {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let spec = |duration: Duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        };
        // Zero would switch it off.
        let value = spec(after.max(Duration::from_nanos(1)));
        let timer = Itimerspec { it_interval: spec(Duration::ZERO), it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &timer).expect("the time is valid");
    }

    /// Whether the alarm has gone off since the last call. Each expiry is an event of its own, so there is no need
    /// to read the descriptor.
    fn poll_rung(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.0.poll_read_ready(context) {
            Poll::Ready(Ok(mut guard)) => {
                guard.clear_ready();
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

/// The runtime's timers are this coarse, and a bit.
#[cfg(not(target_os = "linux"))]
const COARSE: Duration = Duration::from_millis(2);

#[cfg(not(target_os = "linux"))]
struct Alarm(Mutex<Option<Pin<Box<Sleep>>>>);

#[cfg(not(target_os = "linux"))]
impl Alarm {
    fn new() -> std::io::Result<Self> {
        Ok(Alarm(Mutex::new(Some(Box::pin(tokio::time::sleep(Duration::ZERO))))))
    }

    fn set(&self, after: Duration) {
        let at = tokio::time::Instant::now() + after.saturating_sub(COARSE);
        *self.0.lock().expect("no holder of this lock panics") = Some(Box::pin(tokio::time::sleep_until(at)));
    }

    /// Within the last stretch the task is polled again and again.
    fn poll_rung(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.0.lock().expect("no holder of this lock panics");
        match alarm.as_mut().map(|sleep| sleep.as_mut().poll(context)) {
            Some(Poll::Ready(())) => {
                *alarm = None;
                context.waker().wake_by_ref();
            }
            None => context.waker().wake_by_ref(),
            Some(Poll::Pending) => {}
        }
        Poll::Pending
    }
}

/// A time limit that is set again and again but seldom passes: the runtime's timer is touched only when it does.
#[derive(Default)]
pub(crate) struct Deadline(Option<Armed>);

/// A timer that will wake somebody.
struct Armed {
    /// When it does.
    at: Duration,
    sleep: Pin<Box<Sleep>>,
    waker: Waker,
}

impl Deadline {
    /// Waits for `work` until `at`; `None` if that came first.
    pub(crate) async fn limit<T>(
        &mut self,
        time: &RealTime,
        at: Option<Duration>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            let Some(at) = at else { return Poll::Pending };
            let instant = || tokio::time::Instant::from_std(time.origin + at);
            let armed = self.0.get_or_insert_with(|| Armed {
                at,
                sleep: Box::pin(tokio::time::sleep_until(instant())),
                waker: Waker::noop().clone(),
            });
            // Still set, to this limit or an earlier one, and going to wake this task: nothing to do.
            if time.seen() < armed.at && armed.waker.will_wake(context.waker()) {
                return Poll::Pending;
            }
            armed.waker.clone_from(context.waker());
            while armed.sleep.as_mut().poll(context).is_ready() {
                if time.now() >= at {
                    return Poll::Ready(None);
                }
                armed.sleep.as_mut().reset(instant());
                armed.at = at;
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_learn_how_late_they_come() {
        let mut heap = Heap::default();
        let mut watched = Duration::ZERO;
        for round in 1..=400_u32 {
            let at = Duration::from_millis(1) * round;
            // Every tenth comes some milliseconds late, which is no reason to come early for the next.
            let late =
                Duration::from_micros(if round % 10 == 0 { 5_000 } else { 70 + u64::from(round % 3) * 5 });
            heap.armed = Some(at);
            heap.learn(at - heap.lead + late);
            if round > 200 {
                watched += heap.lead.saturating_sub(late);
            }
        }
        assert!(heap.lead > Duration::from_micros(75) && heap.lead <= LEAD_MAX, "{:?}", heap.lead);
        assert!(watched < 200 * Duration::from_micros(40), "{:?} in 200 alarms", watched);
    }
}
