//! The control loop: Canaries are synced as they come, and each has a job that ticks at its own interval.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use canary::Dialect;
use crd::Canary;
use program::{Api, Change, Informer, WorkQueue};
use tokio::sync::Notify;

use crate::finalizer;
use crate::kubernetes::text;
use crate::log::{Level, Logger, Site, site};
use crate::owner;
use crate::port;
use crate::shell::Shell;

const STARTING: Site = site("controller/controller.go:153", "controller/controller.go:195");
const STARTED: Site = site("controller/controller.go:162", "controller/controller.go:204");
const STOPPING: Site = site("controller/controller.go:170", "controller/controller.go:212");
const RENAMED: Site = site("controller/controller.go:129", "controller/controller.go:156");
const OPTING_OUT: Site = site("controller/controller.go:170", "controller/controller.go:170");
const DELETING: Site = site("controller/controller.go:139", "controller/controller.go:181");
const UNINITIALIZED: Site = site("controller/controller.go:232", "controller/controller.go:302");
const SYNCED: Site = site("controller/controller.go:239", "controller/controller.go:316");
const SHARED_TARGET: Site = site("controller/scheduler.go:77", "controller/scheduler.go:147");

/// An object's namespace and name.
pub type Key = (String, String);

/// Canaries that have been synced, by `NAME.NAMESPACE`.
type Synced = Arc<Mutex<BTreeMap<String, Arc<Canary>>>>;

/// What the watch on Canaries leads to.
#[derive(Clone)]
pub struct Watch {
    /// Canaries to sync.
    pub queue: WorkQueue<Key>,
    /// Canaries that are no longer to be reverted when they are deleted.
    pub opted_out: WorkQueue<Key>,
    synced: Synced,
    log: Logger,
    dialect: Dialect,
}

impl Watch {
    /// Starts with nothing synced.
    pub fn new(clock: clock::Clock, log: Logger, dialect: Dialect) -> Self {
        let (queue, opted_out) = (WorkQueue::new(clock), WorkQueue::new(clock));
        Watch { queue, opted_out, synced: Synced::default(), log, dialect }
    }

    /// Takes a change from the informer.
    pub fn changed(&self, change: Change<'_, Canary>) {
        let key = |canary: &Canary| (canary.namespace().to_owned(), canary.name().to_owned());
        match change {
            Change::Applied { old: None, new } => self.queue.retry(key(new)),
            Change::Applied { old: Some(old), new } => {
                let revertible = self.dialect == Dialect::Latest;
                if old.spec != new.spec {
                    let (before, after) = (&old.spec.service.name, &new.spec.service.name);
                    if !before.is_empty() && before != after {
                        let message = format!(
                            "The service name changed to {after}, remove {before} objects to avoid routing conflicts"
                        );
                        self.log.about(Level::Warn, RENAMED, &owner::key(old), &message);
                    }
                    self.queue.retry(key(new));
                } else if revertible {
                    let marked = finalizer::is_marked(new);
                    if (new.metadata.deletion_timestamp.is_some() && marked)
                        || (!marked && new.spec.revert_on_deletion)
                    {
                        self.queue.retry(key(new));
                    }
                }
                if revertible && old.spec.revert_on_deletion && !new.spec.revert_on_deletion {
                    let message = format!("{} opting out, deleting finalizers", owner::key(new));
                    self.log.print(Level::Info, OPTING_OUT, &message);
                    self.opted_out.add(key(new));
                }
            }
            Change::Deleted(old) => {
                let key = owner::key(old);
                self.log.print(Level::Info, DELETING, &format!("Deleting {key} from cache"));
                self.lock().remove(&key);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Canary>>> {
        self.synced.lock().expect("no holder of this lock panics")
    }
}

/// Runs until the program is told to stop.
pub async fn run(shell: Arc<Shell>, canaries: Informer<Canary>, watch: Watch) {
    let log = shell.log.clone();
    log.print(Level::Info, STARTING, "Starting operator");
    {
        let (shell, watch) = (Arc::clone(&shell), watch.clone());
        let tasks = shell.context.tasks.clone();
        tasks.spawn(async move {
            loop {
                let key = watch.queue.next().await;
                let error = sync(&shell, &canaries, &watch, &key).await.err();
                match error {
                    // As upstream: what could not be synced waits for its next change.
                    Some(error) => klog(&shell, &format!("error syncing '{}/{}': {error}", key.0, key.1)),
                    None => watch.queue.forget(&key),
                }
            }
        });
    }
    {
        let (shell, watch) = (Arc::clone(&shell), watch.clone());
        let tasks = shell.context.tasks.clone();
        tasks.spawn(async move {
            loop {
                let (namespace, name) = watch.opted_out.next().await;
                if let Err(error) = finalizer::unmark(&shell, &namespace, &name).await {
                    klog(&shell, &format!("Failed to remove finalizers for {name}.{namespace}: {error}"));
                }
            }
        });
    }
    log.print(Level::Info, STARTED, "Started operator workers");

    let (clock, termination) = (shell.context.clock, shell.context.termination.clone());
    let mut jobs = Jobs::default();
    let mut ticker = Ticker::new(clock.elapsed(), shell.options.control_loop_interval);
    loop {
        tokio::select! { biased;
            () = termination.requested() => {
                log.print(Level::Info, STOPPING, "Shutting down operator workers");
                return;
            }
            () = clock.sleep_until_elapsed(ticker.due()) => {
                ticker.take(clock.elapsed());
                let current = watch.lock().clone();
                jobs.schedule(&shell, &current);
            }
        }
    }
}

/// An error of a worker, as klog prints it.
fn klog(shell: &Shell, message: &str) {
    let now = shell.context.clock.now().to_zoned(jiff::tz::TimeZone::UTC);
    let line = format!("E{} {:7} controller.go:204] {message}", now.strftime("%m%d %H:%M:%S.%6f"), 1);
    shell.context.log.print(&line);
}

async fn sync(
    shell: &Arc<Shell>,
    canaries: &Informer<Canary>,
    watch: &Watch,
    (namespace, name): &Key,
) -> Result<(), String> {
    let Some(canary) = canaries.get(namespace, name) else {
        klog(shell, &format!("{namespace}/{name} in work queue no longer exists"));
        return Ok(());
    };
    let revertible = shell.dialect == Dialect::Latest && canary.spec.revert_on_deletion;
    if shell.dialect == Dialect::Latest {
        if shell.options.no_cross_namespace_refs {
            refuse_foreign_references(&canary).map_err(|error| format!("invalid canary spec: {error}"))?;
        }
        if revertible && canary.metadata.deletion_timestamp.is_some() {
            return finalizer::finalize(shell, &canary).await;
        }
    }
    if canary.status.as_ref().is_none_or(|status| status.conditions.is_empty()) {
        let mut started = Canary::clone(&canary);
        let now = crate::events::seconds(shell.context.clock.now());
        canary::initializing(started.status.get_or_insert_default(), &canary.spec, now);
        let api: Api<Canary> = shell.canaries(namespace);
        if let Err(error) = api.replace_status(name, &started).await {
            let error = match shell.dialect {
                Dialect::Rc1 => format!("{namespace}/{name} status condition update error: {}", text(&error)),
                Dialect::Latest => {
                    format!("{namespace}/{name} unable to set initializing status: {}", text(&error))
                }
            };
            shell.log.print(Level::Error, UNINITIALIZED, &error);
            return Err(error);
        }
    }
    watch.lock().insert(owner::key(&canary), Arc::clone(&canary));
    if revertible && !finalizer::is_marked(&canary) {
        finalizer::mark(shell, namespace, name).await.map_err(|error| {
            format!("unable to add finalizer to canary {name}.{namespace}: failed after retries: {error}")
        })?;
    }
    shell.log.print(Level::Info, SYNCED, &format!("Synced {namespace}/{name}"));
    Ok(())
}

/// Refuses templates and providers of other namespaces.
fn refuse_foreign_references(canary: &Canary) -> Result<(), String> {
    let foreign = |namespace: &str| !namespace.is_empty() && namespace != canary.namespace();
    let Some(analysis) = canary.spec.analysis() else { return Ok(()) };
    let blocked = |kind: &str, name: &str, namespace: &str| {
        Err(format!("can't access {kind} {name}.{namespace}, cross-namespace references are blocked"))
    };
    for reference in analysis.metrics.iter().filter_map(|metric| metric.template_ref.as_ref()) {
        if foreign(&reference.namespace) {
            return blocked("metric template", &reference.name, &reference.namespace);
        }
    }
    for reference in analysis.alerts.iter().map(|alert| &alert.provider_ref) {
        if foreign(&reference.namespace) {
            return blocked("alert provider", &reference.name, &reference.namespace);
        }
    }
    Ok(())
}

/// Go's `time.Ticker`: due times lie on a grid, and of those missed one is kept.
struct Ticker {
    due: Duration,
    interval: Duration,
}

impl Ticker {
    fn new(now: Duration, interval: Duration) -> Self {
        Ticker { due: now + interval, interval }
    }

    fn due(&self) -> Duration {
        self.due
    }

    /// Takes the tick that is due; the next is the grid's first after `now`.
    fn take(&mut self, now: Duration) {
        while self.due <= now {
            self.due += self.interval;
        }
    }
}

/// The jobs by Canary.
#[derive(Default)]
struct Jobs(BTreeMap<String, Job>);

struct Job {
    interval: Duration,
    stop: Arc<Stop>,
    /// Held while the Canary's tick runs: ticks of one Canary never overlap, even when its job is replaced.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Stop {
    stopped: std::sync::atomic::AtomicBool,
    wake: Notify,
}

impl Stop {
    fn set(&self) {
        self.stopped.store(true, std::sync::atomic::Ordering::SeqCst);
        self.wake.notify_one();
    }

    fn is_set(&self) -> bool {
        self.stopped.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Jobs {
    /// Brings the jobs to the Canaries: starts those of new ones, restarts those whose interval changed,
    /// stops those of deleted ones.
    fn schedule(&mut self, shell: &Arc<Shell>, current: &BTreeMap<String, Arc<Canary>>) {
        let mut targets: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, canary) in current {
            let interval = interval(canary);
            let running = self.0.get(key);
            if running.is_none_or(|job| job.interval != interval) {
                let turn = running.map(|job| Arc::clone(&job.turn)).unwrap_or_default();
                if let Some(job) = running {
                    job.stop.set();
                }
                let job = Job::start(shell, canary, interval, turn);
                self.0.insert(key.clone(), job);
            }
            let target = format!("{}.{}", canary.spec.target_ref.name, canary.namespace());
            targets.entry(target).or_default().push(key);
            *totals.entry(canary.namespace()).or_default() += 1;
        }
        self.0.retain(|key, job| {
            let keep = current.contains_key(key);
            if !keep {
                job.stop.set();
            }
            keep
        });
        for (target, keys) in targets.iter().filter(|(_, keys)| keys.len() > 1) {
            for key in keys {
                let message = format!(
                    "Bad things will happen! Found more than one canary with the same target {target}"
                );
                shell.log.about(Level::Error, SHARED_TARGET, key, &message);
            }
        }
        for (namespace, count) in totals {
            shell.recorder.total(namespace, count);
        }
    }
}

impl Job {
    /// Starts to tick: at once, then on the grid of the interval that starts now.
    fn start(
        shell: &Arc<Shell>,
        canary: &Canary,
        interval: Duration,
        turn: Arc<tokio::sync::Mutex<()>>,
    ) -> Self {
        let stop = Arc::new(Stop::default());
        let job = Job { interval, stop: Arc::clone(&stop), turn: Arc::clone(&turn) };
        let (namespace, name) = (canary.namespace().to_owned(), canary.name().to_owned());
        let (shell, clock) = (Arc::clone(shell), shell.context.clock);
        let tasks = shell.context.tasks.clone();
        tasks.spawn(async move {
            let mut ticker = Ticker::new(clock.elapsed(), interval);
            while !stop.is_set() {
                {
                    let _turn = turn.lock().await;
                    port::run(&shell, &namespace, &name).await;
                }
                if stop.is_set() {
                    break;
                }
                tokio::select! { biased;
                    () = stop.wake.notified() => break,
                    () = clock.sleep_until_elapsed(ticker.due()) => ticker.take(clock.elapsed()),
                }
            }
        });
        job
    }
}

/// The time between a Canary's ticks: its analysis interval, a minute if it has none, at least ten seconds.
fn interval(canary: &Canary) -> Duration {
    let text = canary.spec.analysis().map_or("", |analysis| analysis.interval.as_str());
    let interval = canary::parse_duration(text).filter(|_| !text.is_empty());
    interval.map_or(Duration::from_secs(60), |interval| interval.max(Duration::from_secs(10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stay_on_their_grid() {
        let seconds = Duration::from_secs;
        let mut ticker = Ticker::new(seconds(100), seconds(30));
        assert_eq!(ticker.due(), seconds(130));
        ticker.take(seconds(130));
        assert_eq!(ticker.due(), seconds(160));
        // A tick took from 130 to 225: one of the two that were missed is taken at once, the next keeps the
        // grid.
        ticker.take(seconds(225));
        assert_eq!(ticker.due(), seconds(250));
    }

    #[test]
    fn intervals_have_a_default_and_a_floor() {
        let check = |text: &str, expected| {
            let mut canary = Canary::new("test", "podinfo", Default::default());
            let analysis = canary.spec.analysis.get_or_insert_default();
            analysis.interval = text.to_owned();
            assert_eq!(interval(&canary), Duration::from_secs(expected), "{text:?}");
        };
        check("30s", 30);
        check("1s", 10);
        check("", 60);
        check("soon", 60);
    }
}
