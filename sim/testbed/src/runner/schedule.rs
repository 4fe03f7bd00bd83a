//! When an open model's requests are due. Pure arithmetic.

use std::time::Duration;

use clock::Rng;
use rand::Rng as _;

use crate::scenario::{Arrivals, Open, RatePoint, Span};

/// The due times of an open model whose rate changes linearly between points.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    points: Vec<(f64, f64)>,
    /// The time of the request before, in seconds since the start.
    at: f64,
    rng: Option<Rng>,
}

impl Schedule {
    /// The schedule of a model; `rng` is drawn from for Poisson arrivals only.
    pub(super) fn new(open: &Open, rng: Rng) -> Self {
        let constant = open.rate.map(|rate| RatePoint { at: Span::default(), rate });
        let points: Vec<(f64, f64)> = constant
            .iter()
            .chain(&open.schedule)
            .map(|point| (point.at.0.as_secs_f64(), point.rate))
            .collect();
        Schedule { points, at: 0.0, rng: (open.arrivals == Arrivals::Poisson).then_some(rng) }
    }

    /// The rate from `at` on: the rate now, its change per second, and until when that holds.
    fn segment(&self, at: f64) -> (f64, f64, f64) {
        let next = self.points.iter().position(|(time, _)| *time > at);
        match next {
            Some(0) => (0.0, 0.0, self.points[0].0),
            Some(index) => {
                let ((from, low), (to, high)) = (self.points[index - 1], self.points[index]);
                let slope = (high - low) / (to - from);
                (low + slope * (at - from), slope, to)
            }
            None => (self.points.last().map_or(0.0, |(_, rate)| *rate), 0.0, f64::INFINITY),
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    /// The next due time: where the rate's integral has grown by one request (or by an exponential draw).
    fn next(&mut self) -> Option<Duration> {
        let mut need = match &mut self.rng {
            None => 1.0,
            Some(rng) => {
                // 53 random bits in (0, 1]: the logarithm of zero never comes up.
                let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
                -uniform.ln()
            }
        };
        loop {
            let (rate, slope, end) = self.segment(self.at);
            let length = end - self.at;
            let area =
                if end.is_finite() { rate * length + slope * length * length / 2.0 } else { f64::INFINITY };
            if area < need || (rate <= 0.0 && slope <= 0.0) {
                if !end.is_finite() {
                    return None;
                }
                need -= area.max(0.0);
                self.at = end;
                continue;
            }
            // The smaller root of rate·t + slope·t²/2 = need, in the form that is exact for small slopes.
            let root = (rate * rate + 2.0 * slope * need).max(0.0).sqrt();
            self.at = (self.at + 2.0 * need / (rate + root)).min(end);
            return Some(Duration::from_secs_f64(self.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(yaml: &str, count: usize) -> Vec<u128> {
        let open: Open = yaml::parse(yaml).unwrap();
        let rng = clock::Seed::new(1).stream("test");
        Schedule::new(&open, rng)
            .take(count)
            .map(|due| (due.as_secs_f64() * 1000.0).round() as u128)
            .collect()
    }

    #[test]
    fn rates_steps_and_ramps() {
        assert_eq!(due("{rate: 10}", 3), [100, 200, 300]);
        let step = "{schedule: [{at: 0s, rate: 1}, {at: 2s, rate: 1}, {at: 2s, rate: 2}]}";
        assert_eq!(due(step, 4), [1000, 2000, 2500, 3000]);
        // From 0 to 10 per second within 10 s: n requests after √(2n) seconds.
        let ramp = "{schedule: [{at: 0s, rate: 0}, {at: 10s, rate: 10}]}";
        assert_eq!(due(ramp, 8)[7], 4000);
        assert_eq!(
            due("{schedule: [{at: 0s, rate: 1}, {at: 2s, rate: 1}, {at: 2s, rate: 0}]}", 9),
            [1000, 2000]
        );
        assert_eq!(due("{schedule: [{at: 5s, rate: 1}]}", 1), [6000]);
    }

    #[test]
    fn poisson_arrivals_have_the_rate() {
        let open: Open = yaml::parse("{rate: 100, arrivals: poisson}").unwrap();
        let within = Schedule::new(&open, clock::Seed::new(7).stream("test"))
            .take_while(|due| *due < Duration::from_secs(100))
            .count();
        assert!((9_700..10_300).contains(&within), "{within} requests in 100 s at 100/s");
    }
}
