//! Virtual time: the timers of the simulated run on this thread. Time goes on when all tasks wait, to the first timer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Timers round up to this.
pub const GRANULARITY: Duration = Duration::from_millis(1);

thread_local! {
    /// The run's elapsed time.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static WAITING: RefCell<Waiting> = const { RefCell::new(Waiting { timers: BTreeMap::new(), set: 0 }) };
}

/// Timers by the millisecond at which they go off, those that were set first first.
struct Waiting {
    timers: BTreeMap<(u64, u64), Waker>,
    /// How many timers have been set.
    set: u64,
}

/// When a timer goes off that is set to this elapsed time of a run.
pub fn tick(due: Duration) -> Duration {
    Duration::from_millis(millis(due))
}

fn millis(due: Duration) -> u64 {
    let whole = due.as_secs().saturating_mul(1000).saturating_add(u64::from(due.subsec_millis()));
    whole.saturating_add(u64::from(!due.subsec_nanos().is_multiple_of(1_000_000)))
}

/// The run's elapsed time.
pub(crate) fn now() -> Duration {
    NOW.get()
}

/// A timer: ready once the run's elapsed time has come to what it is set to.
pub(crate) struct Timer {
    due: Duration,
    /// Its place among those that wait.
    place: Option<(u64, u64)>,
}

impl Timer {
    pub(crate) fn until(due: Duration) -> Timer {
        Timer { due, place: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if now() >= self.due {
            return Poll::Ready(());
        }
        let millis = millis(self.due);
        let last = WAITING.with_borrow_mut(|waiting| {
            let place = *self.place.get_or_insert_with(|| {
                waiting.set += 1;
                (millis, waiting.set)
            });
            waiting.timers.insert(place, context.waker().clone())
        });
        // To drop a waker may be the end of other timers.
        drop(last);
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(place) = self.place
            && millis(now()) < place.0
        {
            let waker = WAITING.with_borrow_mut(|waiting| waiting.timers.remove(&place));
            drop(waker);
        }
    }
}

/// Goes on to the first timer, and wakes all who wait for that moment.
fn go_on() {
    let first =
        WAITING.with_borrow(|waiting| waiting.timers.first_key_value().map(|((millis, _), _)| *millis));
    let Some(millis) = first else { return };
    NOW.set(Duration::from_millis(millis));
    let next = || {
        WAITING.with_borrow_mut(|waiting| {
            let first = waiting.timers.first_entry()?;
            (first.key().0 <= millis).then(|| first.remove())
        })
    };
    while let Some(waker) = next() {
        waker.wake();
    }
}

/// Runs `main` to its end on a runtime of this thread whose time is virtual and starts at zero. Tasks that are still
/// running then are dropped.
pub(crate) fn run<T>(main: impl Future<Output = T>) -> T {
    NOW.set(Duration::ZERO);
    let root = Arc::new(Root { is_awake: AtomicBool::new(true), waker: Mutex::default() });
    let waiting = Arc::clone(&root);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            // The runtime looks after its tasks, but not after what it blocks on.
            if !waiting.is_awake.load(Ordering::Relaxed) {
                go_on();
            }
        })
        .build()
        .expect("a current-thread runtime without I/O needs nothing from the system");
    let waker = Waker::from(Arc::clone(&root));
    let mut main = pin!(main);
    runtime.block_on(std::future::poll_fn(|context| {
        root.is_awake.store(false, Ordering::Relaxed);
        *root.waker.lock().expect("no holder of this lock panics") = Some(context.waker().clone());
        main.as_mut().poll(&mut Context::from_waker(&waker))
    }))
}

/// The waker of what the runtime blocks on, which remembers whether it was called.
struct Root {
    is_awake: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Wake for Root {
    fn wake(self: Arc<Self>) {
        self.is_awake.store(true, Ordering::Relaxed);
        if let Some(waker) = &*self.waker.lock().expect("no holder of this lock panics") {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_go_off_in_order() {
        let order: Arc<Mutex<Vec<(&str, u128)>>> = Arc::default();
        let sleeper = |name: &'static str, micros: u64| {
            let order = Arc::clone(&order);
            tokio::spawn(async move {
                Timer::until(Duration::from_micros(micros)).await;
                order.lock().unwrap().push((name, now().as_millis()));
            })
        };
        run(async {
            let mut given_up = Box::pin(Timer::until(Duration::from_millis(4)));
            assert!(poll_once(given_up.as_mut()).await.is_pending());
            drop(given_up);
            // Of those within a millisecond the first that was set is the first.
            let sleepers = [("late", 6_001), ("b", 4_900), ("a", 3_000), ("c", 4_100)];
            for sleeper in sleepers.map(|(name, micros)| sleeper(name, micros)) {
                sleeper.await.unwrap();
            }
        });
        assert_eq!(*order.lock().unwrap(), [("a", 3), ("b", 5), ("c", 5), ("late", 7)]);
        assert!(WAITING.with_borrow(|waiting| waiting.timers.is_empty()));
    }

    /// Asks a future once.
    async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }

    #[test]
    fn time_stands_still_while_there_is_work() {
        run(async {
            let sleeping = Timer::until(Duration::from_secs(1));
            let working = async {
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                    assert_eq!(now(), Duration::ZERO);
                }
            };
            tokio::join!(sleeping, working);
            assert_eq!(now(), Duration::from_secs(1));
        });
    }
}
