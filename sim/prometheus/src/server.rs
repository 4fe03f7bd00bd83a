//! The program: flags, configuration, web server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use program::{Context, ExitCode, Handler, Main, Reply, Request, Response, respond};
use promql::{Engine, Options, Storage};
use tokio::sync::Notify;

use crate::api;
use crate::config::{self, Config};
use crate::discovery::Discovery;
use crate::scrape::{LastScrape, Target, Targets};

/// How often old samples are removed.
const TRIM_PERIOD: Duration = Duration::from_secs(300);
/// How long changes of discovered objects are gathered before targets are brought in line; upstream waits 5 seconds.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(5);

/// The program behind `prom/prometheus` images.
pub fn program() -> Main {
    program::program(|context: Context| async move { run(context).await })
}

fn log(context: &Context, level: &str, message: &str) {
    let at = context.clock.now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    context.log.print(&format!("level={level} ts={at} caller=main.go:1 msg={message:?}"));
}

/// Flags by name, without dashes; those that say nothing are `true`.
fn flags(args: &[String]) -> BTreeMap<String, String> {
    let mut flags: BTreeMap<String, String> = BTreeMap::new();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else { continue };
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match args.next_if(|next| !next.starts_with('-')) {
                Some(value) => (name, value.clone()),
                None => (name, "true".to_owned()),
            },
        };
        flags.insert(name.to_owned(), value);
    }
    flags
}

async fn run(context: Context) -> ExitCode {
    let flags = flags(&context.args);
    let version =
        context.identity.image.rsplit(':').next().unwrap_or("latest").trim_start_matches('v').to_owned();
    log(&context, "info", &format!("Starting Prometheus version={version}"));
    let path =
        flags.get("config.file").cloned().unwrap_or_else(|| "/etc/prometheus/prometheus.yml".to_owned());
    let loaded = load(&context, &path);
    let (config, text) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            log(&context, "error", &format!("error loading config from {path:?}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let port = flags
        .get("web.listen-address")
        .and_then(|address| address.rsplit(':').next()?.parse().ok())
        .unwrap_or(9090);
    // Ranges have been open at the left since 3.0.
    let closed_left =
        version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 3);
    let engine = Engine::new(Options {
        closed_left,
        default_step_ms: i64::try_from(config.evaluation_interval.as_millis()).unwrap_or(60_000),
        ..Options::default()
    });
    let retention = ["storage.tsdb.retention.time", "storage.tsdb.retention"]
        .iter()
        .find_map(|name| promql::parse_duration(flags.get(*name)?).ok())
        .unwrap_or(15 * 86_400_000);
    let server = Arc::new(Server {
        context: context.clone(),
        engine,
        flags,
        version,
        path,
        storage: Arc::default(),
        targets: Targets::default(),
        loaded: Mutex::new(Loaded { config: Arc::new(config), text, discovery: Discovery::default() }),
        changed: Arc::new(Notify::new()),
    });
    server.apply();
    let _listening = match context.network.listen(port, server.clone()) {
        Ok(listening) => listening,
        Err(error) => {
            log(&context, "error", &format!("Unable to start web listener: {error}"));
            return ExitCode::FAILURE;
        }
    };
    log(&context, "info", "Server is ready to receive web requests.");
    let (syncing, trimming) = (Arc::clone(&server), Arc::clone(&server));
    context.tasks.spawn(async move {
        loop {
            syncing.changed.notified().await;
            syncing.sync();
            syncing.context.clock.sleep(DISCOVERY_PAUSE).await;
        }
    });
    context.tasks.spawn(async move {
        loop {
            trimming.context.clock.sleep(TRIM_PERIOD).await;
            let oldest = trimming.now_ms() - retention;
            trimming.storage.lock().expect("no holder of this lock panics").trim(oldest);
        }
    });
    context.termination.requested().await;
    server.targets.stop();
    log(&context, "warn", "Received SIGTERM, exiting gracefully...");
    ExitCode::SUCCESS
}

fn load(context: &Context, path: &str) -> Result<(Config, String), String> {
    let text = context.files.read_to_string(path)?;
    let config = config::parse(&text, &context.identity.namespace)?;
    for file in &config.rule_files {
        log(context, "warn", &format!("rule_files: {file}: rules are not evaluated here"));
    }
    Ok((config, text))
}

struct Loaded {
    config: Arc<Config>,
    text: String,
    discovery: Discovery,
}

/// The running server.
pub(crate) struct Server {
    context: Context,
    engine: Engine,
    flags: BTreeMap<String, String>,
    version: String,
    path: String,
    storage: Arc<Mutex<Storage>>,
    targets: Targets,
    loaded: Mutex<Loaded>,
    changed: Arc<Notify>,
}

impl Server {
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn flags(&self) -> &BTreeMap<String, String> {
        &self.flags
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.context.clock.now().as_millisecond()
    }

    pub(crate) fn config_text(&self) -> String {
        self.loaded.lock().expect("no holder of this lock panics").text.clone()
    }

    pub(crate) fn targets(&self) -> Vec<(Arc<Target>, Option<LastScrape>)> {
        self.targets.list()
    }

    pub(crate) fn with_storage<T>(&self, read: impl FnOnce(&Storage) -> T) -> T {
        read(&self.storage.lock().expect("no holder of this lock panics"))
    }

    /// Starts discovery for the loaded configuration.
    fn apply(&self) {
        let mut loaded = self.loaded.lock().expect("no holder of this lock panics");
        loaded.discovery = Discovery::start(&self.context, &loaded.config, &self.changed);
        self.changed.notify_one();
    }

    /// Brings the targets in line with what is discovered.
    fn sync(&self) {
        let (config, discovery) = {
            let loaded = self.loaded.lock().expect("no holder of this lock panics");
            (Arc::clone(&loaded.config), loaded.discovery.clone())
        };
        self.targets.sync(&self.context, &config, &discovery, &self.storage);
    }

    fn reload(&self) -> Response {
        match load(&self.context, &self.path) {
            Ok((config, text)) => {
                {
                    let mut loaded = self.loaded.lock().expect("no holder of this lock panics");
                    loaded.config = Arc::new(config);
                    loaded.text = text;
                }
                self.apply();
                log(&self.context, "info", "Completed loading of configuration file");
                respond(StatusCode::OK, "")
            }
            Err(error) => {
                let text = format!(
                    "failed to reload config: couldn't load configuration (--config.file={:?}): {error}",
                    self.path
                );
                log(&self.context, "error", &text);
                respond(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }

    fn answer(&self, request: &Request) -> Response {
        match request.uri().path() {
            "/-/healthy" => respond(StatusCode::OK, "Prometheus is Healthy.\n"),
            "/-/ready" => respond(StatusCode::OK, "Prometheus is Ready.\n"),
            "/-/reload" if request.method() == http::Method::POST => {
                if self.flags.contains_key("web.enable-lifecycle") {
                    self.reload()
                } else {
                    respond(StatusCode::FORBIDDEN, "Lifecycle API is not enabled.")
                }
            }
            "/metrics" => {
                let (series, samples) =
                    self.with_storage(|storage| (storage.series_count(), storage.sample_count()));
                let page = format!(
                    "# TYPE prometheus_build_info gauge\nprometheus_build_info{{version=\"{}\"}} 1\n\
                     # TYPE prometheus_tsdb_head_series gauge\nprometheus_tsdb_head_series {series}\n\
                     # TYPE prometheus_tsdb_head_samples_appended_total counter\nprometheus_tsdb_head_samples_appended_total {samples}\n",
                    self.version
                );
                respond(StatusCode::OK, page)
            }
            path => match path.strip_prefix("/api/v1/") {
                Some(path) => api::answer(self, path, request),
                None => respond(StatusCode::NOT_FOUND, "404 page not found\n"),
            },
        }
    }
}

impl Handler for Server {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        let answer = self.answer(&request);
        answer.into()
    }
}
