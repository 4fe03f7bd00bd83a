//! What happens to a request: whether the canary gets it, whether it fails, how long it takes.

use crate::setting::{CUTS, Setting};

/// A new pod's first moments.
pub(crate) const COLD: usize = 1;
/// Everything fails together.
pub(crate) const BURST: usize = 2;
/// A load test runs, where the load matters.
pub(crate) const TESTED: usize = 4;
/// The number of combinations of circumstances.
const CIRCUMSTANCES: usize = 8;

/// The conditional probabilities by which kinds of requests are split off, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Law {
    /// The share of requests that the canary gets and that fail or take as long as the least cut: most stretches of
    /// a good version have none, and need no further draw.
    pub notable: f64,
    /// Of the requests that are not notable: that the canary gets at all.
    pub rest: f64,
    /// The share of requests that the canary gets and that are not notable.
    pub plain: f64,
    /// Of notable requests: that fail.
    pub error: f64,
    /// Of all requests that the canary gets, and so of those that fail: that take as long as the least cut.
    pub late: f64,
    /// Of requests that take as long as the least cut and are not split off yet: that take as long as this one.
    pub slow: [f64; CUTS],
}

impl Law {
    /// The law of requests of which the canary gets `share` percent, at a step of the error rate's prior, under a load
    /// (against the canary's capacity, 0 where it has no limit).
    #[cold]
    pub(crate) fn new(
        setting: &Setting<'_>,
        step: usize,
        share: u32,
        circumstances: usize,
        load: f64,
    ) -> Law {
        let model = setting.model;
        let mut error = setting.error_rates[step];
        let mut slowdown = setting.slowdown / (1.0 - load.min(0.99));
        if circumstances & COLD > 0
            && let Some(cold) = &model.cold_start
        {
            error = error.max(cold.error_rate);
            slowdown *= cold.slowdown;
        }
        if circumstances & BURST > 0
            && let Some(bursts) = &model.bursts
        {
            error = error.max(bursts.error_rate);
        }
        let share = f64::from(share) / 100.0;
        let survival = |cut: usize| setting.latency.above(setting.cuts[cut], slowdown);
        let slow = setting.cuts.len().checked_sub(1).map_or(0.0, survival);
        let notable = share * (error + (1.0 - error) * slow);
        let plain = share * (1.0 - error) * (1.0 - slow);
        let mut law = Law {
            notable,
            // A source that goes to the canary alone has no rest to split: rounding must not invent one.
            rest: if share >= 1.0 { 1.0 } else { ratio(plain, 1.0 - notable) },
            plain,
            error: if slow > 0.0 { ratio(share * error, notable) } else { 1.0 },
            late: slow,
            slow: [0.0; CUTS],
        };
        let mut before: f64 = 0.0;
        for cut in 0..setting.cuts.len() {
            let above = survival(cut).max(before);
            law.slow[cut] =
                if cut + 1 == setting.cuts.len() { 1.0 } else { ratio(above - before, slow - before) };
            before = above;
        }
        law
    }
}

/// The laws that a thread has met.
#[derive(Default)]
pub(crate) struct Laws {
    /// The place of each law in the list, and one more, by [`Laws::slot`]; 0 where nobody has been.
    places: Vec<u32>,
    list: Vec<Law>,
}

impl Laws {
    /// Where a law is remembered: by step of the prior, the users' share (where the load matters), this source's share
    /// (both in percent) and circumstances.
    #[inline]
    pub(crate) fn slot(step: usize, users: u32, share: u32, circumstances: usize) -> usize {
        ((step * 101 + users as usize) * 101 + share as usize) * CIRCUMSTANCES + circumstances
    }

    /// The place of a law that was met before.
    #[inline]
    pub(crate) fn find(&self, slot: usize) -> Option<usize> {
        self.places.get(slot).filter(|place| **place > 0).map(|place| *place as usize - 1)
    }

    /// Remembers a law; its place.
    pub(crate) fn keep(&mut self, slot: usize, law: Law) -> usize {
        if self.places.len() <= slot {
            self.places.resize(slot + 1, 0);
        }
        self.list.push(law);
        self.places[slot] = self.list.len() as u32;
        self.list.len() - 1
    }

    /// Puts a law that never comes again into the first place.
    pub(crate) fn pass(&mut self, law: Law) -> usize {
        match self.list.first_mut() {
            Some(first) => *first = law,
            None => self.list.push(law),
        }
        0
    }

    /// The law at a place.
    #[inline]
    pub(crate) fn at(&self, place: usize) -> &Law {
        &self.list[place]
    }
}

/// A part of a whole, 0 of nothing.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}
