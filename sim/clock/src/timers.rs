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

/// Timers that go off within so many milliseconds have a list for each: they are most.
const NEAR: usize = 1024;
const WORDS: usize = NEAR / 64;

thread_local! {
    /// The run's elapsed time, in milliseconds, and as it is asked for.
    static NOW: Cell<(u64, Duration)> = const { Cell::new((0, Duration::ZERO)) };
    static WAITING: RefCell<Waiting> = const { RefCell::new(Waiting::NONE) };
}

/// Timers by the millisecond at which they go off, those that were set first first.
struct Waiting {
    /// Those that go off less than [`NEAR`] milliseconds from now: in the list at the millisecond's remainder.
    near: Vec<Vec<(u64, Waker)>>,
    /// A bit for each list that is not empty.
    used: [u64; WORDS],
    /// All others, by millisecond and number.
    far: BTreeMap<(u64, u64), Waker>,
    /// How many timers have been set.
    set: u64,
}

/// The place of a timer: the millisecond at which it goes off, and its number.
type Place = (u64, u64);

impl Waiting {
    const NONE: Waiting = Waiting { near: Vec::new(), used: [0; WORDS], far: BTreeMap::new(), set: 0 };

    /// A new timer.
    fn add(&mut self, now: u64, millis: u64, waker: Waker) -> Place {
        self.set += 1;
        let place = (millis, self.set);
        self.put(now, place, waker);
        place
    }

    /// Puts a timer behind those of the same millisecond.
    fn put(&mut self, now: u64, place: Place, waker: Waker) {
        if !is_near(now, place.0) {
            self.far.insert(place, waker);
            return;
        }
        if self.near.is_empty() {
            self.near.resize_with(NEAR, Vec::new);
        }
        let list = index(place.0);
        self.near[list].push((place.1, waker));
        self.used[list / 64] |= 1 << (list % 64);
    }

    /// Whom a timer wakes.
    fn waker(&mut self, now: u64, place: Place) -> Option<&mut Waker> {
        if !is_near(now, place.0) {
            return self.far.get_mut(&place);
        }
        let list = self.near.get_mut(index(place.0))?;
        let found = find(list, place.1)?;
        Some(&mut list[found].1)
    }

    /// Gives a timer up.
    fn remove(&mut self, now: u64, place: Place) -> Option<Waker> {
        if !is_near(now, place.0) {
            return self.far.remove(&place);
        }
        let at = index(place.0);
        let list = self.near.get_mut(at)?;
        let found = find(list, place.1)?;
        let (_, waker) = list.remove(found);
        if list.is_empty() {
            self.used[at / 64] &= !(1 << (at % 64));
        }
        Some(waker)
    }

    /// The first millisecond after `now` at which a timer goes off.
    fn first(&self, now: u64) -> Option<u64> {
        let from = index(now + 1);
        let mut word = from / 64;
        let mut bits = self.used[word] & (!0 << (from % 64));
        // The word begun with comes last, too: with the bits before `from`.
        for _ in 0..=WORDS {
            if bits != 0 {
                let list = word * 64 + bits.trailing_zeros() as usize;
                return Some(now + 1 + ((list + NEAR - from) % NEAR) as u64);
            }
            word = (word + 1) % WORDS;
            bits = self.used[word];
        }
        self.far.first_key_value().map(|((millis, _), _)| *millis)
    }

    /// It is `now`: what goes off, to be given back by [`Waiting::keep`].
    fn reach(&mut self, now: u64) -> Vec<(u64, Waker)> {
        while let Some(first) = self.far.first_entry().filter(|first| is_near(now, first.key().0)) {
            let (place, waker) = first.remove_entry();
            self.put(now, place, waker);
        }
        let list = index(now);
        self.used[list / 64] &= !(1 << (list % 64));
        std::mem::take(&mut self.near[list])
    }

    /// Keeps a list's memory.
    fn keep(&mut self, now: u64, list: Vec<(u64, Waker)>) {
        self.near[index(now)] = list;
    }
}

fn is_near(now: u64, millis: u64) -> bool {
    millis - now < NEAR as u64
}

/// Where a timer is in a list: their numbers ascend.
fn find(list: &[(u64, Waker)], number: u64) -> Option<usize> {
    list.binary_search_by_key(&number, |(number, _)| *number).ok()
}

/// The list of a millisecond, if it is near.
fn index(millis: u64) -> usize {
    (millis % NEAR as u64) as usize
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
#[inline]
pub(crate) fn now() -> Duration {
    NOW.get().1
}

/// The run's elapsed time in milliseconds.
fn now_millis() -> u64 {
    NOW.get().0
}

fn set_now(millis: u64) {
    NOW.set((millis, Duration::from_millis(millis)));
}

/// A timer: ready once the run's elapsed time has come to what it is set to.
pub(crate) struct Timer {
    /// The millisecond at which it goes off.
    millis: u64,
    /// Its place among those that wait.
    place: Option<Place>,
}

impl Timer {
    pub(crate) fn until(due: Duration) -> Timer {
        Timer { millis: millis(due), place: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (now, waker, place) = (now_millis(), context.waker(), self.place);
        if now >= self.millis {
            return Poll::Ready(());
        }
        let last = WAITING.with_borrow_mut(|waiting| match place {
            None => {
                self.place = Some(waiting.add(now, self.millis, waker.clone()));
                None
            }
            Some(place) => waiting
                .waker(now, place)
                .filter(|known| !known.will_wake(waker))
                .map(|known| std::mem::replace(known, waker.clone())),
        });
        // To drop a waker may be the end of other timers.
        drop(last);
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let now = now_millis();
        if let Some(place) = self.place
            && now < place.0
        {
            let waker = WAITING.with_borrow_mut(|waiting| waiting.remove(now, place));
            drop(waker);
        }
    }
}

/// Goes on to the first timer, and wakes all who wait for that moment.
fn go_on() {
    let reached = WAITING.with_borrow_mut(|waiting| {
        let first = waiting.first(now_millis())?;
        set_now(first);
        Some((first, waiting.reach(first)))
    });
    let Some((first, mut list)) = reached else { return };
    list.drain(..).for_each(|(_, waker)| waker.wake());
    WAITING.with_borrow_mut(|waiting| waiting.keep(first, list));
}

/// Runs `main` to its end on a runtime of this thread whose time is virtual and starts at zero. Tasks that are still
/// running then are dropped.
pub(crate) fn run<T>(main: impl Future<Output = T>) -> T {
    set_now(0);
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
        assert_eq!(WAITING.with_borrow(|waiting| waiting.first(0)), None);
    }

    #[test]
    fn timers_near_and_far_go_off_in_order() {
        let near = NEAR as u64;
        let last = 3 * near + 5;
        let order: Arc<Mutex<Vec<(usize, u128)>>> = Arc::default();
        let set = |number: usize, millis: u64| {
            let order = Arc::clone(&order);
            tokio::spawn(async move {
                Timer::until(Duration::from_millis(millis)).await;
                order.lock().unwrap().push((number, now().as_millis()));
            })
        };
        let early = [last, 1, near, near - 1, 2 * near, near + 1];
        // One is for the millisecond of another that was far when it was set.
        let late = [last, last - 1];
        run(async {
            let mut sleepers = Vec::new();
            sleepers.extend(early.into_iter().enumerate().map(|(number, millis)| set(number, millis)));
            Timer::until(Duration::from_millis(2 * near + 6)).await;
            sleepers.extend(late.into_iter().enumerate().map(|(number, millis)| set(6 + number, millis)));
            for sleeper in sleepers {
                sleeper.await.unwrap();
            }
            for far in [2, 9 * near] {
                let mut given_up = Box::pin(Timer::until(now() + Duration::from_millis(far)));
                assert!(poll_once(given_up.as_mut()).await.is_pending());
                assert!(poll_once(given_up.as_mut()).await.is_pending());
            }
        });
        let all = [early.as_slice(), &late].concat();
        let expected = [1, 3, 2, 5, 4, 7, 0, 6].map(|number| (number, u128::from(all[number])));
        assert_eq!(*order.lock().unwrap(), expected);
        assert_eq!(WAITING.with_borrow(|waiting| waiting.first(0)), None);
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
