//! What holds for all counters.

use promql::{Extrapolation, Labels, Storage, extrapolate};
use proptest::prelude::*;

use crate::ask;

proptest! {
    /// A counter that grows evenly has its slope as rate, wherever the window lies, if it does not start near zero.
    #[test]
    fn the_rate_of_a_line_is_its_slope(
        slope in 0.01f64..1000.0,
        interval_s in 1i64..60,
        shift_ms in 0i64..60_000,
        samples in 4i64..50,
    ) {
        let mut storage = Storage::new();
        let labels = Labels::from_pairs([("__name__", "x_total")]);
        for index in 0..=samples + 60 {
            let at_s = index * interval_s;
            storage.append_labelled(&labels, at_s * 1000, 1e6 + slope * at_s as f64).unwrap();
        }
        let range_s = samples * interval_s;
        let at = (range_s * 1000 + shift_ms % (interval_s * 1000)) as f64 / 1000.0;
        let answer = ask(promql::Options::default(), &storage, &format!("rate(x_total[{range_s}s])"), at);
        let rate: f64 = answer.strip_prefix("{} ").unwrap().parse().unwrap();
        prop_assert!((rate / slope - 1.0).abs() < 1e-3, "{rate} {slope}");
    }

    /// Growth is never negative and never more than doubles what was seen.
    #[test]
    fn increase_is_bounded(growth in prop::collection::vec(0.0f64..100.0, 2..40), gap in 0i64..100_000) {
        let times: Vec<i64> = (0..growth.len() as i64).map(|index| gap + index * 1000).collect();
        let values: Vec<f64> = growth.iter().scan(0.0, |sum, step| { *sum += step; Some(*sum) }).collect();
        let end = times[times.len() - 1] + gap;
        let seen = values[values.len() - 1] - values[0];
        let increase = extrapolate(Extrapolation::Increase, &times, &values, 0, end).unwrap();
        prop_assert!(increase >= seen - 1e-9);
        prop_assert!(increase <= seen * (1.0 + 2.2 / (times.len() - 1) as f64) + 1e-9);
    }
}
