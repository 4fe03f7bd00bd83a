//! Waiting awake: whether to look for the next event again rather than to sleep.
//!
//! A thread that sleeps for less than a few dozen microseconds pays more for falling asleep and being woken than it
//! would for waiting, and so does the server that has to wake it; on a virtual machine an interrupt between two cores
//! alone costs that much. With few connections that is most of a request's time, and most of its CPU time, too.

use std::time::Duration;

/// How long to look. About what falling asleep and waking cost, so that a look in vain at most doubles that.
const LOOK: Duration = Duration::from_micros(20);
/// After looks in vain, at most 2 to this power waits are slept through before the next one.
const DOUBLINGS: u32 = 7;

/// Looks before it sleeps, as long as that pays: looks in vain become rare, so a slow server or a slow rate of
/// requests costs no processor, and neither does one that shares its core with us.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// When the look that goes on ends.
    until: Option<Duration>,
    /// Looks in vain since the last one that paid.
    vain: u32,
    /// Waits to sleep through before the next look.
    sleeps: u32,
}

impl Watch {
    /// Whether to look once more, when there is nothing to do at `now`. `progress` says whether there was anything
    /// since the last call.
    pub(crate) fn again(&mut self, now: Duration, progress: bool) -> bool {
        match (self.until, progress) {
            (None, false) => false,
            (Some(until), false) if now < until => true,
            (Some(_), false) => {
                self.until = None;
                self.vain = (self.vain + 1).min(DOUBLINGS);
                self.sleeps = (1 << self.vain) - 1;
                false
            }
            (None, true) if self.sleeps > 0 => {
                self.sleeps -= 1;
                false
            }
            (watching, true) => {
                if watching.is_some() {
                    self.vain = 0;
                }
                self.until = Some(now + LOOK);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time spent looking in a thousand waits for an event after `wait`.
    fn looked(wait: Duration) -> Duration {
        let (mut watch, mut now, mut looked) = (Watch::default(), Duration::ZERO, Duration::ZERO);
        for _ in 0..1000 {
            let event = now + wait;
            let mut progress = true;
            while now < event && watch.again(now, progress) {
                now += Duration::from_micros(1);
                looked += Duration::from_micros(1);
                progress = false;
            }
            now = event;
        }
        looked
    }

    #[test]
    fn looks_that_pay_go_on_and_others_become_rare() {
        assert_eq!(looked(Duration::from_micros(10)), Duration::from_millis(10), "never slept");
        let in_vain = looked(Duration::from_micros(100));
        assert!(in_vain < Duration::from_micros(20 * 20), "of 100 ms, {in_vain:?} were spent looking");
    }

    #[test]
    fn a_server_that_gets_fast_is_noticed() {
        let mut watch = Watch::default();
        let mut now = Duration::ZERO;
        for _ in 0..1000 {
            while watch.again(now, true) {
                now += LOOK;
                assert!(!watch.again(now, false));
            }
        }
        let slept = (0..).take_while(|_| !watch.again(now, true)).count();
        assert!(slept < 1 << DOUBLINGS, "{slept}");
        for _ in 0..100 {
            now += LOOK / 2;
            assert!(watch.again(now, true));
        }
    }
}
