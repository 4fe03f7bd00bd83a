//! The run on a terminal while it goes on.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::options::Options;
use crate::{Recorder, format_duration};

/// Seconds that the sparkline shows.
const SECONDS: usize = 40;
const QUANTILES: [f64; 3] = [0.50, 0.90, 0.99];
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A progress bar, a line of figures and a sparkline of requests per second.
pub(crate) struct Live {
    bar: ProgressBar,
    duration: Option<Duration>,
    requests: Option<u64>,
    warmup: Duration,
}

impl Live {
    /// For a run on a terminal; `None` when the output goes elsewhere or nobody wants it.
    pub(crate) fn new(options: &Options) -> Option<Self> {
        let watched = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        if options.quiet || !watched {
            return None;
        }
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("[{bar:40}] {prefix}\n{msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        let plan = &options.plan;
        Some(Live { bar, duration: plan.duration, requests: plan.requests, warmup: plan.warmup })
    }

    /// Draws the run as it is `elapsed` after its start.
    pub(crate) fn draw(&mut self, recorder: &Recorder, elapsed: Duration) {
        let progress = recorder.progress(SECONDS + 1, &QUANTILES);
        let recorded = elapsed.saturating_sub(self.warmup);
        let by_time = self.duration.map(|all| recorded.as_secs_f64() / all.as_secs_f64().max(1e-9));
        let by_count = self.requests.map(|all| progress.requests as f64 / all.max(1) as f64);
        let share = by_time.unwrap_or(0.0).max(by_count.unwrap_or(0.0)).min(1.0);
        self.bar.set_position((share * 1000.0) as u64);
        let whole = Duration::from_secs(elapsed.as_secs());
        self.bar.set_prefix(if recorded.is_zero() && !self.warmup.is_zero() {
            format!("{} warming up", format_duration(whole))
        } else {
            format!("{} {:3.0}%", format_duration(whole), share * 100.0)
        });
        // The second that is not over yet is left out.
        let (_, seconds) = progress.last_seconds.split_last().unwrap_or((&0, &[]));
        let now = seconds.last().copied().unwrap_or(0);
        let failed = progress.requests - progress.succeeded;
        let quantiles: Vec<String> = QUANTILES
            .iter()
            .zip(&progress.quantiles)
            .map(|(at, latency)| format!("p{:.0} {:.1}ms", at * 100.0, latency.as_secs_f64() * 1e3))
            .collect();
        self.bar.set_message(format!(
            "{} requests, {now}/s, {failed} errors ({:.2}%), {}\n{}",
            progress.requests,
            failed as f64 * 100.0 / progress.requests.max(1) as f64,
            quantiles.join(" "),
            sparkline(seconds)
        ));
    }

    /// Takes the drawing away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn sparkline(values: &[u32]) -> String {
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let last = BARS.len() as u64 - 1;
    let bar = |value: &u32| {
        let height = (u64::from(*value) * last).div_ceil(u64::from(most));
        BARS[usize::try_from(height.min(last)).unwrap_or(0)]
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_reach_from_nothing_to_the_most() {
        assert_eq!(sparkline(&[0, 1, 50, 100]), "▁▂▅█");
        assert_eq!(sparkline(&[0, 0]), "▁▁");
        assert_eq!(sparkline(&[]), "");
    }
}
