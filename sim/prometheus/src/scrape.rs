//! Scraping: a loop per target, on the grid of its interval.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clock::Timestamp;
use indexmap::IndexMap;
use program::{Context, Request, Tasks};
use promql::{FixedState, Labels, STALE_MARKER, SeriesRef, Storage};

use crate::config::{Config, Job, Kubernetes};
use crate::discovery::{Discovery, OfPods};
use crate::exposition::{self, Sample};
use crate::relabel::{self, Draft};

/// What is scraped.
#[derive(Debug)]
pub(crate) struct Target {
    pub job: Arc<Job>,
    /// As discovered.
    pub discovered: Arc<Draft>,
    pub identity: Arc<Identity>,
}

/// What makes a target another one than others.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    /// The job's name.
    pub job: String,
    pub url: String,
    /// After relabelling, without `__` labels.
    pub labels: Draft,
}

#[derive(Clone, Debug)]
pub(crate) struct LastScrape {
    pub at: Timestamp,
    pub took: Duration,
    pub error: String,
}

/// The targets that are scraped.
#[derive(Clone, Default)]
pub(crate) struct Targets(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    running: BTreeMap<Arc<Identity>, Running>,
    of_pods: OfPods,
    relabelled: Relabelled,
}

struct Running {
    target: Arc<Target>,
    tasks: Tasks,
    series: Arc<Mutex<Known>>,
    last: Last,
}

/// How a target's last scrape went, once there was one.
type Last = Arc<Mutex<Option<LastScrape>>>;

/// What became of discovered labels the last time: most are there the next time, too.
#[derive(Default)]
struct Relabelled {
    config: Option<Arc<Config>>,
    /// By job, in the configuration's order.
    jobs: Vec<(Arc<Job>, Made)>,
}

/// A job's targets, by the labels with which they were discovered; `None` for those that are not to be scraped.
type Made = BTreeMap<Arc<Draft>, Option<Arc<Target>>>;

impl Relabelled {
    /// What is known of another configuration is of no use.
    fn for_config(&mut self, config: &Arc<Config>) {
        if !self.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, config)) {
            let jobs = config.jobs.iter().map(|job| (Arc::new(job.clone()), Made::new())).collect();
            *self = Relabelled { config: Some(Arc::clone(config)), jobs };
        }
    }
}

/// The series of one target.
#[derive(Default)]
struct Known {
    /// By the text that names them, in the order of the last page: most pages repeat it.
    seen: IndexMap<Arc<str>, Seen, FixedState>,
    scrape: u64,
    report: Option<[SeriesRef; 3]>,
}

/// A series, when it was last seen, and which line of the page it was then.
struct Seen {
    series: SeriesRef,
    scrape: u64,
    line: u64,
}

type Shared = Arc<Mutex<Storage>>;

impl Targets {
    /// All targets, in order, and how their last scrapes went.
    pub(crate) fn list(&self) -> Vec<(Arc<Target>, Option<LastScrape>)> {
        let state = self.lock();
        let last = |last: &Last| last.lock().expect("no holder of this lock panics").clone();
        state.running.values().map(|running| (Arc::clone(&running.target), last(&running.last))).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Brings the loops to what is discovered now: new targets start, vanished ones end and go stale.
    pub(crate) fn sync(
        &self,
        context: &Context,
        config: &Arc<Config>,
        discovery: &Discovery,
        storage: &Shared,
    ) {
        let mut state = self.lock();
        let State { running, of_pods, relabelled } = &mut *state;
        relabelled.for_config(config);
        let mut wanted: BTreeMap<Arc<Identity>, Arc<Target>> = BTreeMap::new();
        // Jobs that look for the same find the same.
        let mut looked: Vec<(&Kubernetes, Vec<Arc<Draft>>)> = Vec::new();
        for found in config.jobs.iter().flat_map(|job| &job.kubernetes) {
            if !looked.iter().any(|(known, _)| *known == found) {
                looked.push((found, discovery.targets(found, of_pods)));
            }
        }
        of_pods.forget_others();
        let look = |wanted: &Kubernetes| looked.iter().find(|(known, _)| *known == wanted);
        for (job, known) in &mut relabelled.jobs {
            let discovered = job.kubernetes.iter().filter_map(look).flat_map(|(_, drafts)| drafts);
            let fixed: Vec<Arc<Draft>> = job
                .static_groups
                .iter()
                .flat_map(|group| group.targets.iter().map(|address| (&group.labels, address)))
                .map(|(labels, address)| {
                    let mut labels = labels.clone();
                    labels.insert("__address__".to_owned(), address.clone());
                    Arc::new(labels)
                })
                .collect();
            let mut now_known = Made::new();
            for draft in discovered.chain(&fixed) {
                let (draft, made) = known
                    .remove_entry(draft)
                    .unwrap_or_else(|| (Arc::clone(draft), target(job, draft).map(Arc::new)));
                if let Some(target) = &made {
                    wanted.entry(Arc::clone(&target.identity)).or_insert_with(|| Arc::clone(target));
                }
                now_known.insert(draft, made);
            }
            *known = now_known;
        }
        let now = context.clock.now().as_millisecond();
        running.retain(|identity, entry| {
            let keep = wanted.contains_key(identity);
            if !keep {
                entry.tasks.abort_all();
                let mut known = entry.series.lock().expect("no holder of this lock panics");
                known.end(&mut storage.lock().expect("no holder of this lock panics"), now);
            }
            keep
        });
        for (identity, target) in wanted {
            if running.contains_key(&identity) {
                continue;
            }
            let tasks = Tasks::default();
            let series: Arc<Mutex<Known>> = Arc::default();
            let last = Last::default();
            let scraper = Scraper {
                context: context.clone(),
                target: Arc::clone(&target),
                series: Arc::clone(&series),
                last: Arc::clone(&last),
                storage: Arc::clone(storage),
            };
            tasks.spawn(scraper.run());
            running.insert(identity, Running { target, tasks, series, last });
        }
    }

    /// Ends all loops.
    pub(crate) fn stop(&self) {
        self.lock().running.values().for_each(|running| running.tasks.abort_all());
    }
}

/// The target of a draft, unless relabelling drops it.
fn target(job: &Arc<Job>, discovered: &Arc<Draft>) -> Option<Target> {
    let mut labels = Draft::clone(discovered);
    let mut default = |name: &str, value: &str| {
        labels.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    default("job", &job.name);
    default("__metrics_path__", &job.path);
    default("__scheme__", &job.scheme);
    for (name, values) in &job.params {
        if let Some(first) = values.first() {
            default(&format!("__param_{name}"), first);
        }
    }
    if !relabel::apply(&job.relabel, &mut labels) {
        return None;
    }
    let mut address = labels.get("__address__").filter(|address| !address.is_empty())?.clone();
    if !address.contains(':') {
        address.push_str(if labels["__scheme__"] == "https" { ":443" } else { ":80" });
    }
    let query: Vec<String> = labels
        .iter()
        .filter_map(|(name, value)| Some(format!("{}={value}", name.strip_prefix("__param_")?)))
        .collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let url = format!("{}://{address}{}{query}", labels["__scheme__"], labels["__metrics_path__"]);
    labels.entry("instance".to_owned()).or_insert(address);
    labels.retain(|name, _| !name.starts_with("__"));
    let identity = Arc::new(Identity { job: job.name.clone(), url, labels });
    Some(Target { job: Arc::clone(job), discovered: Arc::clone(discovered), identity })
}

struct Scraper {
    context: Context,
    target: Arc<Target>,
    series: Arc<Mutex<Known>>,
    last: Last,
    storage: Shared,
}

impl Scraper {
    async fn run(self) {
        let clock = self.context.clock;
        let interval = self.target.job.interval;
        // Targets are spread over the interval by a hash of what they are, as Prometheus spreads them.
        let seed = self
            .target
            .identity
            .labels
            .iter()
            .fold(clock::Seed::new(0), |seed, (name, value)| seed.child(name).child(value));
        let spread = seed.child(&self.target.identity.url).value() as u128 % interval.as_nanos().max(1);
        let now = clock.now().as_nanosecond().unsigned_abs();
        let into = now % interval.as_nanos().max(1);
        let wait = (spread + interval.as_nanos() - into) % interval.as_nanos().max(1);
        let mut due = clock.elapsed() + Duration::from_nanos(u64::try_from(wait).unwrap_or(0));
        let request = http::Request::get(&self.target.identity.url)
            .header(http::header::ACCEPT, "text/plain;version=0.0.4;q=1,*/*;q=0.1")
            .header(http::header::USER_AGENT, "Prometheus")
            .body(Bytes::new());
        let request = request.map(Request::from).map_err(|error| error.to_string());
        loop {
            clock.sleep_until_elapsed(due).await;
            let at = clock.now();
            let (result, took) = match &request {
                Ok(request) => self.fetch(request.clone()).await,
                Err(error) => (Err(error.clone()), Duration::ZERO),
            };
            let error = self.take(at, took, result);
            *self.last.lock().expect("no holder of this lock panics") = Some(LastScrape { at, took, error });
            while due <= clock.elapsed() {
                due += interval;
            }
        }
    }

    async fn fetch(&self, request: Request) -> (Result<Bytes, String>, Duration) {
        let clock = self.context.clock;
        let started = clock.elapsed();
        let get = |error: &str| format!("Get {:?}: {error}", self.target.identity.url);
        match self.context.network.send_within(self.target.job.timeout, request).await {
            Err(_) => (Err(get("context deadline exceeded")), self.target.job.timeout),
            Ok(Err(error)) => (Err(get(&error.to_string())), clock.elapsed() - started),
            Ok(Ok(response)) => {
                let took = response.latency();
                if response.status() == http::StatusCode::OK {
                    (Ok(response.into_body()), took)
                } else {
                    let status = response.status();
                    let text = format!(
                        "server returned HTTP status {} {}",
                        status.as_u16(),
                        status.canonical_reason().unwrap_or_default()
                    );
                    (Err(text), took)
                }
            }
        }
    }

    /// Stores a scrape's samples; returns what went wrong, empty for nothing.
    fn take(&self, at: Timestamp, took: Duration, result: Result<Bytes, String>) -> String {
        let at_ms = at.as_millisecond();
        let mut storage = self.storage.lock().expect("no holder of this lock panics");
        let mut known = self.series.lock().expect("no holder of this lock panics");
        known.scrape += 1;
        let job = &self.target.job;
        let mut in_order = true;
        let stored = result.and_then(|body| {
            let mut page = exposition::Page(&body);
            let mut count: u64 = 0;
            let mut next = 0;
            while let Some(sample) = page.next(known.likely(next)) {
                let sample = sample?;
                count += 1;
                if job.sample_limit > 0 && count > job.sample_limit {
                    return Err("sample limit exceeded".to_owned());
                }
                let (place, value, own_time) = match sample {
                    Sample::Likely(value) => (next, value, None),
                    Sample::Line(line) => {
                        let place = match known.seen.get_index_of(line.series) {
                            Some(place) => place,
                            None => {
                                let own = &self.target.identity.labels;
                                let Some(labels) = series_labels(job, own, line.series)? else { continue };
                                known.add(line.series, storage.series(&labels))
                            }
                        };
                        (place, line.value, line.at_ms)
                    }
                };
                in_order &= place == next;
                next = place + 1;
                let scrape = known.scrape;
                let seen = &mut known.seen[place];
                (seen.scrape, seen.line) = (scrape, count);
                let series = seen.series;
                let at_ms = own_time.filter(|_| job.honor_timestamps).unwrap_or(at_ms);
                // Out-of-order and duplicate samples are dropped, as Prometheus drops them.
                let _ = storage.append(series, at_ms, value);
            }
            Ok(count)
        });
        if stored.is_err() {
            known.scrape += 1;
        }
        known.mark_unseen(&mut storage, at_ms);
        if !in_order {
            known.seen.sort_unstable_by_key(|_, seen| seen.line);
        }
        let report = *known.report.get_or_insert_with(|| {
            ["up", "scrape_duration_seconds", "scrape_samples_scraped"].map(|name| {
                let mut labels = self.target.identity.labels.clone();
                labels.insert("__name__".to_owned(), name.to_owned());
                storage.series(&Labels::from_pairs(labels))
            })
        });
        let up = f64::from(u8::from(stored.is_ok()));
        let count = stored.as_ref().map_or(0.0, |count| *count as f64);
        for (series, value) in report.into_iter().zip([up, took.as_secs_f64(), count]) {
            let _ = storage.append(series, at_ms, value);
        }
        stored.err().unwrap_or_default()
    }
}

/// The labels under which a series is stored; `None` if relabelling drops it.
fn series_labels(job: &Job, target: &Draft, text: &str) -> Result<Option<Labels>, String> {
    let mut labels: Draft = exposition::labels(text)?.into_iter().collect();
    for (name, value) in target {
        if job.honor_labels && labels.get(name).is_some_and(|own| !own.is_empty()) {
            continue;
        }
        if let Some(own) = labels.insert(name.clone(), value.clone()) {
            labels.insert(format!("exported_{name}"), own);
        }
    }
    Ok(relabel::apply(&job.metric_relabel, &mut labels).then(|| Labels::from_pairs(labels)))
}

impl Known {
    /// The text at a place; empty without one.
    fn likely(&self, place: usize) -> &str {
        self.seen.get_index(place).map_or("", |(text, _)| text)
    }

    fn add(&mut self, text: &str, series: SeriesRef) -> usize {
        let seen = Seen { series, scrape: self.scrape, line: 0 };
        self.seen.insert_full(text.into(), seen).0
    }

    /// Ends series that the last scrape did not have.
    fn mark_unseen(&mut self, storage: &mut Storage, at_ms: i64) {
        let scrape = self.scrape;
        self.seen.retain(|_, seen| {
            let keep = seen.scrape == scrape;
            if !keep {
                let _ = storage.append(seen.series, at_ms, STALE_MARKER);
            }
            keep
        });
    }

    /// Ends all series: the target is gone.
    fn end(&mut self, storage: &mut Storage, at_ms: i64) {
        self.scrape += 1;
        self.mark_unseen(storage, at_ms);
        for series in self.report.take().into_iter().flatten() {
            let _ = storage.append(series, at_ms, STALE_MARKER);
        }
    }
}
