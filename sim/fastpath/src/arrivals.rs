//! How many requests of users arrive until a moment.

use crate::model::{Arrivals, Traffic};

/// The users' requests of one rollout.
#[derive(Clone, Debug)]
pub struct Users<'a> {
    traffic: &'a Traffic,
    /// Where in its course the rate is at the release, in seconds.
    start: f64,
    /// Expected requests from the course's beginning to the release.
    before: f64,
    /// The place of the first request between two, 0 to 1.
    place: f64,
    /// Requests per millisecond, if the rate stays the same.
    steady: Option<f64>,
}

impl<'a> Users<'a> {
    /// The requests of a rollout that draws these numbers.
    pub fn new(traffic: &'a Traffic, start: f64, place: f64) -> Self {
        if traffic.diurnal.is_none() && traffic.series.is_empty() {
            return Users { traffic, start: 0.0, before: 0.0, place, steady: Some(traffic.rate / 1000.0) };
        }
        let length = match (&traffic.diurnal, traffic.series.last()) {
            (_, Some((last, _))) => *last,
            (Some(diurnal), None) => diurnal.period.seconds(),
            (None, None) => 0.0,
        };
        let fixed =
            traffic.diurnal.and_then(|diurnal| diurnal.release_at).filter(|_| traffic.series.is_empty());
        let mut users = Users {
            traffic,
            start: fixed.map_or(length * start, |at| at.seconds()),
            before: 0.0,
            place,
            steady: None,
        };
        users.before = users.course(users.start);
        users
    }

    /// Expected requests in the first `at` seconds of the rate's course.
    fn course(&self, at: f64) -> f64 {
        let series = &self.traffic.series;
        if let (Some((last, _)), false) = (series.last(), series.is_empty()) {
            let whole: f64 = series.windows(2).map(|two| two[0].1 * (two[1].0 - two[0].0)).sum();
            let (rounds, mut rest) = ((at / last).floor(), at % last);
            let mut sum = rounds * whole;
            for two in series.windows(2) {
                let length = (two[1].0 - two[0].0).min(rest);
                sum += two[0].1 * length;
                rest -= length;
                if rest <= 0.0 {
                    break;
                }
            }
            return sum;
        }
        let rate = self.traffic.rate;
        match self.traffic.diurnal {
            None => rate * at,
            Some(diurnal) => {
                let turn = 2.0 * std::f64::consts::PI / diurnal.period.seconds();
                rate * (at + diurnal.amplitude * (turn * at).sin() / turn)
            }
        }
    }

    /// Whether the rate stays the same.
    #[inline]
    pub fn is_steady(&self) -> bool {
        self.steady.is_some()
    }

    /// Expected requests between two moments, in milliseconds from the release.
    #[inline]
    pub fn expected(&self, from: i64, to: i64) -> f64 {
        if let Some(rate) = self.steady {
            return rate * (to - from) as f64;
        }
        self.course(self.start + to as f64 / 1000.0) - self.course(self.start + from as f64 / 1000.0)
    }

    /// Requests between two moments if they arrive evenly spaced.
    #[inline]
    pub fn spaced(&self, from: i64, to: i64) -> u32 {
        let until = |at: i64| {
            let expected = match self.steady {
                Some(rate) => rate * at as f64,
                None => self.course(self.start + at as f64 / 1000.0) - self.before,
            };
            (expected + self.place + 1e-9).floor()
        };
        (until(to) - until(from)).clamp(0.0, f64::from(u32::MAX / 2)) as u32
    }

    /// Whether requests arrive evenly spaced.
    #[inline]
    pub fn are_spaced(&self) -> bool {
        self.traffic.arrivals == Arrivals::Constant
    }

    /// Requests per second at a moment.
    pub fn rate(&self, at: i64) -> f64 {
        self.expected(at, at + 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Diurnal;
    use crate::span::Span;

    #[test]
    fn requests_add_up_over_any_division() {
        let diurnal = Diurnal { amplitude: 0.5, period: Span::from_millis(600_000), release_at: None };
        for traffic in [
            Traffic { rate: 7.3, ..Traffic::default() },
            Traffic { rate: 7.3, diurnal: Some(diurnal), ..Traffic::default() },
            Traffic { series: vec![(0.0, 2.0), (30.0, 9.0), (60.0, 0.0)], ..Traffic::default() },
        ] {
            let users = Users::new(&traffic, 0.4, 0.7);
            let parts: u32 = (0..100).map(|part| users.spaced(part * 1_370, (part + 1) * 1_370)).sum();
            assert_eq!(parts, users.spaced(0, 137_000));
            let expected = users.expected(0, 137_000);
            assert!((expected - f64::from(parts)).abs() <= 1.0, "{expected} {parts}");
        }
    }
}
