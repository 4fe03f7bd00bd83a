//! Durations for people.

use std::time::Duration;

/// A virtual time as `4m19s`, or `4m19.5s` where it is no whole second.
pub fn virtual_time(time: Duration) -> String {
    let millis = (time.as_secs_f64() * 10.0).round() / 10.0;
    let (minutes, seconds) = ((millis / 60.0).floor() as u64, millis % 60.0);
    let seconds = if seconds.fract() == 0.0 { format!("{seconds:.0}s") } else { format!("{seconds:.1}s") };
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

/// A latency to three digits: `2.13ms`, `512µs`, `1.50s`.
pub fn latency(latency: Duration) -> String {
    let micros = latency.as_secs_f64() * 1e6;
    if micros < 999.5 {
        format!("{micros:.0}µs")
    } else if micros < 999_500.0 {
        let millis = micros / 1e3;
        let digits = if millis < 9.995 { 2 } else { usize::from(millis < 99.95) };
        format!("{millis:.digits$}ms")
    } else {
        format!("{:.2}s", micros / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(virtual_time(Duration::from_millis(259_000)), "4m19s");
        assert_eq!(virtual_time(Duration::from_millis(1_500)), "1.5s");
        assert_eq!(virtual_time(Duration::from_millis(59_990)), "1m0s");
        assert_eq!(virtual_time(Duration::from_secs(3_725)), "1h2m5s");
        assert_eq!(latency(Duration::from_micros(512)), "512µs");
        assert_eq!(latency(Duration::from_micros(2_134)), "2.13ms");
        assert_eq!(latency(Duration::from_micros(12_340)), "12.3ms");
        assert_eq!(latency(Duration::from_millis(999)), "999ms");
        assert_eq!(latency(Duration::from_millis(1_500)), "1.50s");
    }
}
