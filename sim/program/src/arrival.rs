//! How a response arrives: what is ahead of it happens, part after part, each at its time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::vec::IntoIter;

use clock::{Clock, Elapsed};
use tokio::sync::Notify;

use crate::response::Ahead;
use crate::{DialError, Lost, Response};

/// Tells those who wait for answers that some process has ended. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Endings(Arc<(AtomicU64, Notify)>);

impl Endings {
    /// A process has ended: its [`Termination`](crate::Termination) says so.
    pub fn announce(&self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    /// How many there have been.
    pub fn count(&self) -> u64 {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Waits until there have been more than `count`.
    pub async fn more_than(&self, count: u64) {
        let mut ending = pin!(self.0.1.notified());
        ending.as_mut().enable();
        if self.count() == count {
            ending.await;
        }
    }
}

/// A response on its way to its receiver, who asks for it when its time has come ([`Arrival::advance`]) and when a
/// process has ended ([`Arrival::look`]).
pub struct Arrival {
    result: Result<Response, DialError>,
    ahead: IntoIter<Ahead>,
    /// Whether it is another result than the one that the stages have seen: it has times of its own.
    is_another: bool,
    /// The response is lost, which is known then.
    lost: Option<(Duration, DialError)>,
}

impl Arrival {
    /// The arrival of a response.
    pub fn of(mut response: Response) -> Arrival {
        let ahead = response.take_ahead().into_iter();
        Arrival { result: Ok(response), ahead, is_another: false, lost: None }
    }

    /// Goes on as far as it is time for; the clock's elapsed time at which it goes on, `None` if it has arrived.
    pub fn advance(&mut self, clock: &Clock) -> Option<Duration> {
        let now = clock.elapsed();
        loop {
            if let Some((due, error)) = self.lost.take() {
                if now < due {
                    self.lost = Some((due, error));
                    return Some(due);
                }
                self.fail(error);
            }
            if let Some(Ahead::Until(due)) = self.ahead.as_slice().first()
                && now < *due
            {
                return Some(*due);
            }
            let lost = match self.ahead.next()? {
                Ahead::Guard(..) | Ahead::Until(_) => None,
                Ahead::Lost(lost) => Some(lost),
                Ahead::Stage(mut stage) => match &self.result {
                    Ok(response) if !self.is_another => stage.done(response).err(),
                    _ => {
                        let result =
                            std::mem::replace(&mut self.result, Err(DialError::Invalid(String::new())));
                        self.result = stage.redo(clock, result);
                        if let Ok(response) = &mut self.result {
                            let ahead = response.take_ahead().into_iter().chain(self.ahead.by_ref());
                            self.ahead = ahead.collect::<Vec<_>>().into_iter();
                        }
                        None
                    }
                },
            };
            self.lost = lost.map(|Lost { after, error }| (now + after, error));
        }
    }

    /// A process has ended: whether the answer fails by that. If so, it goes on at once.
    pub fn look(&mut self) -> bool {
        let is_broken = |part: &Ahead| matches!(part, Ahead::Guard(process, _) if process.is_requested());
        let broken = self.ahead.as_slice().iter().position(is_broken);
        let Some(Ahead::Guard(_, at)) = broken.and_then(|place| self.ahead.nth(place)) else { return false };
        self.lost = None;
        self.fail(DialError::Reset(at.to_string()));
        true
    }

    fn fail(&mut self, error: DialError) {
        (self.result, self.is_another) = (Err(error), true);
        let others = self.ahead.by_ref().filter(|part| !matches!(part, Ahead::Until(_)));
        self.ahead = others.collect::<Vec<_>>().into_iter();
    }

    /// What has arrived.
    ///
    /// # Errors
    /// [`DialError`] if it is no response.
    pub fn result(self) -> Result<Response, DialError> {
        self.result
    }

    /// Waits for it, at most until the clock's elapsed time comes to `deadline`.
    ///
    /// # Errors
    /// [`Elapsed`] if it has not arrived by then.
    pub(crate) async fn wait(
        mut self,
        clock: &Clock,
        endings: &Endings,
        deadline: Option<Duration>,
    ) -> Result<Result<Response, DialError>, Elapsed> {
        let deadline = deadline.map(clock::tick);
        while let Some(due) = self.advance(clock) {
            let until = deadline.map_or(due, |deadline| due.min(deadline));
            let mut sleep = pin!(clock.sleep_until_elapsed(until));
            loop {
                let ended = endings.count();
                if self.look() {
                    break;
                }
                tokio::select! { biased;
                    () = &mut sleep => {
                        if deadline.is_some_and(|deadline| clock::tick(due) > deadline) {
                            return Err(Elapsed);
                        }
                        break;
                    }
                    () = endings.more_than(ended) => {}
                }
            }
        }
        Ok(self.result)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use http::StatusCode;

    use super::*;
    use crate::{Stage, Termination, respond};

    const AT: &str = "10.16.0.2:80";

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn simulate<F: Future<Output = ()>>(test: impl FnOnce(Clock) -> F) {
        clock::run_simulated("2020-03-17T11:00:00Z".parse().unwrap(), test);
    }

    /// A proxy that writes down what it passes on and when; of an error it makes a 503.
    struct Proxy {
        name: &'static str,
        clock: Clock,
        loses: bool,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Proxy {
        fn note(&self, what: &str) {
            self.seen.lock().unwrap().push(format!("{} {what} {:?}", self.name, self.clock.elapsed()));
        }
    }

    impl Stage for Proxy {
        fn done(&mut self, response: &Response) -> Result<(), Lost> {
            self.note(response.status().as_str());
            let error = DialError::Unreachable(AT.into());
            if self.loses { Err(Lost { after: ms(30), error }) } else { Ok(()) }
        }

        fn redo(&mut self, _: &Clock, result: Result<Response, DialError>) -> Result<Response, DialError> {
            let response = result.unwrap_or_else(|_| respond(StatusCode::SERVICE_UNAVAILABLE, ""));
            self.note(&format!("again {}", response.status().as_str()));
            Ok(response)
        }
    }

    /// A response from a process by way of two proxies: it takes 20 ms to the first and 5 ms more to the second.
    fn response(clock: Clock, process: &Termination, loses: bool) -> (Response, Arc<Mutex<Vec<String>>>) {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let proxy = |name, loses| Proxy { name, clock, loses, seen: Arc::clone(&seen) };
        let at: SocketAddr = AT.parse().unwrap();
        let started = clock.elapsed();
        let mut response = respond(StatusCode::OK, "").taking(Duration::from_micros(19_700));
        response.pass(&clock, started, Duration::ZERO);
        response.guard(process, at);
        response.then(proxy("inner", loses));
        response.settle(&clock, started, ms(5));
        response.then(proxy("outer", false));
        (response, seen)
    }

    #[test]
    fn what_is_ahead_happens_in_order_and_in_time() {
        simulate(|clock| async move {
            let (response, seen) = response(clock, &Termination::default(), false);
            assert!(!response.has_arrived() && seen.lock().unwrap().is_empty());
            let arrived = Arrival::of(response).wait(&clock, &Endings::default(), None).await;
            assert_eq!(arrived.unwrap().unwrap().latency(), Duration::from_micros(24_700));
            assert_eq!(*seen.lock().unwrap(), ["inner 200 20ms", "outer 200 25ms"]);
        });
    }

    #[test]
    fn an_answer_ends_with_its_process() {
        simulate(|clock| async move {
            let (process, endings) = (Termination::default(), Endings::default());
            let (response, seen) = response(clock, &process, false);
            let ends = async {
                clock.sleep(ms(7)).await;
                // Somebody else's end changes nothing.
                endings.announce();
                clock.sleep(ms(1)).await;
                process.request();
                endings.announce();
            };
            let arrived = Arrival::of(response).wait(&clock, &endings, None);
            let (arrived, ()) = futures::join!(arrived, ends);
            assert_eq!(arrived.unwrap().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(*seen.lock().unwrap(), ["inner again 503 8ms", "outer again 503 8ms"]);
        });
    }

    #[test]
    fn an_answer_may_be_lost_and_may_be_late() {
        simulate(|clock| async move {
            let endings = Endings::default();
            let (lost, seen) = response(clock, &Termination::default(), true);
            let arrived = Arrival::of(lost).wait(&clock, &endings, None).await;
            assert_eq!(arrived.unwrap().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(*seen.lock().unwrap(), ["inner 200 20ms", "outer again 503 50ms"]);
            let (late, seen) = response(clock, &Termination::default(), false);
            let arrived = Arrival::of(late).wait(&clock, &endings, Some(clock.elapsed() + ms(22))).await;
            assert_eq!((arrived.unwrap_err(), clock.elapsed()), (Elapsed, ms(72)));
            assert_eq!(*seen.lock().unwrap(), ["inner 200 70ms"]);
        });
    }
}
