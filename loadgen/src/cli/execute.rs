//! Carries out a run on threads, while the main thread watches signals and the terminal.
#![expect(clippy::disallowed_methods, reason = "the command line lives in real time")]

use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::cli::live::Live;
use crate::cli::options::{Options, Output};
use crate::hey;
use crate::net::{Counts, Dialer, RealTime, SocketTarget};
use crate::{Mix, Recorder, Report, Share, StopSignal};

/// How long requests on their way are waited for after an interrupt.
const GRACE: Duration = Duration::from_secs(2);
/// How often the terminal is drawn.
const FRAME: Duration = Duration::from_millis(250);
/// Descriptors that a run needs besides its connections.
const DESCRIPTORS: u64 = 64;

/// A run that is over.
pub(crate) struct Executed {
    pub report: Report,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Requests that were given up on their way.
    pub abandoned: u64,
}

/// Carries out a run.
///
/// # Errors
/// When the system has no timers, threads or descriptors for it.
pub(crate) fn execute(options: &Options) -> Result<Executed, String> {
    raise_descriptor_limit(options.plan.connections);
    let recorder = Arc::new(match options.output {
        Output::Csv => csv_recorder(),
        Output::Summary | Output::Json => Recorder::default(),
    });
    let runtime = runtime()?;
    let (stop, counts, origin) = (StopSignal::default(), Counts::default(), Instant::now());
    let share = Share::of(&options.plan, Duration::ZERO, &recorder, &stop);
    let (mix, dialer) = (Arc::new(options.mix.clone()), Arc::new(Dialer::new(options.route.clone())));
    let (give_up, given_up) = watch::channel(false);
    let (done, mut all_done) = mpsc::channel(1);
    let mut live = Live::new(options);
    std::thread::scope(|scope| {
        let threads: Vec<_> = parts(options.plan.connections, options.threads)
            .map(|workers| {
                let part = Part {
                    share: &share,
                    workers,
                    mix: Arc::clone(&mix),
                    options,
                    dialer: Arc::clone(&dialer),
                    counts: counts.clone(),
                    origin,
                    given_up: given_up.clone(),
                    _done: done.clone(),
                };
                scope.spawn(move || part.run())
            })
            .collect();
        drop(done);
        let interrupted =
            runtime.block_on(watch_over(&recorder, &stop, &give_up, &mut all_done, live.as_mut(), origin));
        if let Some(live) = &live {
            live.finish();
        }
        let failed = threads.into_iter().filter_map(|thread| thread.join().ok()).find_map(Result::err);
        let interrupted = interrupted?;
        match failed {
            Some(error) => Err(error),
            None => Ok(Executed { report: recorder.finish(), interrupted, abandoned: counts.abandoned() }),
        }
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Only names are looked up on other threads.
        .max_blocking_threads(4)
        .build()
        .map_err(|error| format!("no event loop: {error}"))
}

/// Workers evenly over threads.
fn parts(connections: usize, threads: usize) -> impl Iterator<Item = Range<usize>> {
    let threads = threads.clamp(1, connections.max(1));
    (0..threads).map(move |index| connections * index / threads..connections * (index + 1) / threads)
}

/// What one thread does.
struct Part<'a> {
    share: &'a Share<'a>,
    workers: Range<usize>,
    mix: Arc<Mix>,
    options: &'a Options,
    dialer: Arc<Dialer>,
    counts: Counts,
    origin: Instant,
    given_up: watch::Receiver<bool>,
    /// Closed by its end, however it comes.
    _done: mpsc::Sender<()>,
}

impl Part<'_> {
    fn run(mut self) -> Result<(), String> {
        let runtime = runtime()?;
        runtime.block_on(async {
            let time = RealTime::since(self.origin).map_err(|error| format!("no timer: {error}"))?;
            let options = self.options.target.clone();
            let target = SocketTarget::new(self.mix, options, self.dialer, time.clone(), self.counts);
            tokio::select! { biased;
                () = time.drive(self.share.work(self.workers, &target, &time)) => {}
                _ = self.given_up.wait_for(|given_up| *given_up) => {}
            }
            Ok(())
        })
    }
}

/// Waits for the run's end: draws its progress, stops it on the first interrupt, gives up on the second or when the
/// grace is over. Returns whether it was interrupted.
async fn watch_over(
    recorder: &Recorder,
    stop: &StopSignal,
    give_up: &watch::Sender<bool>,
    all_done: &mut mpsc::Receiver<()>,
    mut live: Option<&mut Live>,
    origin: Instant,
) -> Result<bool, String> {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        // Nothing that a run could not do without.
        all_done.recv().await;
        return Ok(false);
    };
    let mut frames = tokio::time::interval(FRAME);
    let mut grace = std::pin::pin!(tokio::time::sleep(Duration::MAX / 4));
    loop {
        tokio::select! { biased;
            _ = all_done.recv() => return Ok(stop.is_stopped()),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = &mut grace, if stop.is_stopped() => {
                let _ = give_up.send(true);
                continue;
            }
            _ = frames.tick(), if live.is_some() => {
                if let Some(live) = &mut live {
                    live.draw(recorder, origin.elapsed());
                }
                continue;
            }
        }
        if stop.is_stopped() {
            let _ = give_up.send(true);
        }
        stop.stop();
        grace.as_mut().reset(tokio::time::Instant::now() + GRACE);
    }
}

/// Prints a row per answer while the run goes on.
fn csv_recorder() -> Recorder {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut open = writeln!(out, "{}", hey::CSV_HEADER).is_ok();
    Recorder::observed(move |sample| {
        if open && let Some(row) = hey::csv_row(sample) {
            open = writeln!(out, "{row}").is_ok();
        }
    })
}

/// Raises the soft limit of open files towards what the connections need, as far as the hard one lets it. If that is
/// not enough, the connections that fail say so.
fn raise_descriptor_limit(connections: usize) {
    let need = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(DESCRIPTORS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < need) {
        let raised = maximum.map_or(need, |maximum| maximum.min(need));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
    }
}
