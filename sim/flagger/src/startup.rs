//! From the command line to the running controller.

use std::sync::{Arc, Mutex};

use canary::{Dialect, QueryError};
use crd::{AlertProvider, Canary, MetricTemplate};
use k8s_openapi::NamespaceResourceScope;
use kube::{Client, Resource};
use program::{Api, Context, ExitCode, Informer, Kind, Selection, connect_kubeconfig};

use crate::controller::{self, Watch};
use crate::events::Events;
use crate::flags::{self, Options};
use crate::kubernetes::text;
use crate::leader;
use crate::log::{Level, Logger, Site, site};
use crate::notifier::Notifier;
use crate::prometheus::Prometheus;
use crate::recorder::Recorder;
use crate::server;
use crate::shell::Shell;

const STARTING: Site = site("flagger/main.go:110", "flagger/main.go:151");
const NO_CLIENT: Site = site("flagger/main.go:114", "flagger/main.go:155");
const NO_MESH_CLIENT: Site = site("flagger/main.go:130", "flagger/main.go:182");
const NAMESPACE: Site = site("flagger/main.go:148", "flagger/main.go:203");
const NO_METRICS_CLIENT: Site = site("flagger/main.go:153", "flagger/main.go:208");
const METRICS: Site = site("flagger/main.go:158", "flagger/main.go:213");
const NO_METRICS: Site = site("flagger/main.go:160", "flagger/main.go:215");
const CANARIES: Site = site("flagger/main.go:235", "flagger/main.go:302");
const TEMPLATES: Site = site("flagger/main.go:242", "flagger/main.go:309");
const PROVIDERS: Site = site("flagger/main.go:249", "flagger/main.go:316");
const NO_NOTIFIER: Site = site("flagger/main.go:323", "flagger/main.go:392");
const NOTIFIER: Site = site("flagger/main.go:325", "flagger/main.go:394");
const NO_DEFINITION: Site = site("flagger/main.go:343", "flagger/main.go:411");
const NO_VERSION: Site = site("flagger/main.go:360", "flagger/main.go:428");
const VERSION: Site = site("flagger/main.go:381", "flagger/main.go:449");
const BROADCASTER: Site = site("controller/controller.go:78", "controller/controller.go:102");
const SERVER: Site = site("server/server.go:29", "server/server.go:45");
const SERVER_CRASHED: Site = site("server/server.go:34", "server/server.go:50");
const SERVER_STOPPED: Site = site("server/server.go:46", "server/server.go:62");

/// A fatal error: where and what.
struct Fatal(Site, String);

/// The program.
pub async fn main(context: Context) -> ExitCode {
    let tag = tag(&context.identity.image).to_owned();
    let (dialect, version) = (Dialect::from_tag(&tag), Dialect::version(&tag));
    let options = match flags::parse(&context.args, dialect) {
        Ok(options) => options,
        Err(usage) => {
            context.log.print(&usage.text);
            return ExitCode(usage.code);
        }
    };
    if options.version {
        context.log.print(&format!("Flagger version {version} revision  {}", revision(dialect)));
        return ExitCode::SUCCESS;
    }
    let log = Logger::new(context.log.clone(), context.clock, Level::parse(&options.log_level), dialect);
    match run(context, options, dialect, &version, &log).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fatal(at, message)) => {
            log.print(Level::Fatal, at, &message);
            ExitCode::FAILURE
        }
    }
}

async fn run(
    context: Context,
    mut options: Options,
    dialect: Dialect,
    version: &str,
    log: &Logger,
) -> Result<(), Fatal> {
    let (revision, provider) = (revision(dialect), &options.mesh_provider);
    let message = format!("Starting flagger version {version} revision {revision} mesh provider {provider}");
    log.print(Level::Info, STARTING, &message);
    if dialect == Dialect::Latest && options.kubeconfig_service_mesh.is_empty() {
        options.kubeconfig_service_mesh = options.kubeconfig.clone();
    }
    let client = client(&context, &options.kubeconfig)
        .map_err(|error| Fatal(NO_CLIENT, format!("Error building kubeconfig: {error}")))?;
    let mesh = self::client(&context, &options.kubeconfig_service_mesh)
        .map_err(|error| Fatal(NO_MESH_CLIENT, format!("Error building host kubeconfig: {error}")))?;

    registered::<Canary>(&client, &options).await?;
    registered::<MetricTemplate>(&client, &options).await?;
    registered::<AlertProvider>(&client, &options).await?;
    let info = client.apiserver_version().await;
    let info =
        info.map_err(|error| Fatal(NO_VERSION, format!("Error calling Kubernetes API: {}", text(&error))))?;
    log.print(Level::Info, VERSION, &format!("Connected to Kubernetes API {}", info.git_version));

    let watch = Watch::new(context.clock, log.clone(), dialect);
    let informers = Informers { context: &context, client: &client, options: &options };
    log.print(Level::Info, CANARIES, "Waiting for canary informer cache to sync");
    let changes = watch.clone();
    let canaries = informers.start::<Canary>(move |change| changes.changed(change)).await;
    log.print(Level::Info, TEMPLATES, "Waiting for metric template informer cache to sync");
    let templates = informers.start::<MetricTemplate>(|_| {}).await;
    log.print(Level::Info, PROVIDERS, "Waiting for alert provider informer cache to sync");
    let alert_providers = informers.start::<AlertProvider>(|_| {}).await;

    if !options.namespace.is_empty() {
        log.print(Level::Info, NAMESPACE, &format!("Watching namespace {}", options.namespace));
    }
    let server = Prometheus::new(&options.metrics_server, dialect)
        .map_err(|error| Fatal(NO_METRICS_CLIENT, format!("Error building prometheus client: {error}")))?;
    let url = &options.metrics_server;
    match server.is_online(&context).await {
        Ok(()) => log.print(Level::Info, METRICS, &format!("Connected to metrics server {url}")),
        Err(error) => {
            let error = match &error {
                QueryError::Failed(error) => error,
                _ => "no values found",
            };
            log.print(Level::Error, NO_METRICS, &format!("Metrics server {url} unreachable {error}"));
        }
    }
    let notifier = notifier(&context, &mut options, dialect, log);

    let recorder = Recorder::default();
    recorder.info(version, &options.mesh_provider);
    log.print(Level::Info, SERVER, &format!("Starting HTTP server on port {}", options.port));
    let listening = server::serve(&context, options.port, recorder.clone(), dialect)
        .map_err(|error| Fatal(SERVER_CRASHED, format!("HTTP server crashed {error}")))?;

    log.print(Level::Debug, BROADCASTER, "Creating event broadcaster");
    let shell = Arc::new(Shell {
        events: Events::start(&context.tasks, context.clock, client.clone()),
        random: Mutex::new(context.seed.stream("flagger")),
        mesh_is_own: options.kubeconfig_service_mesh == options.kubeconfig,
        context,
        options,
        dialect,
        client,
        mesh,
        log: log.clone(),
        recorder,
        notifier,
        templates,
        alert_providers,
    });
    let leading = shell.options.enable_leader_election;
    if leading {
        leader::lead(&shell, controller::run(Arc::clone(&shell), canaries, watch)).await;
    } else {
        controller::run(Arc::clone(&shell), canaries, watch).await;
    }
    drop(listening);
    log.print(Level::Info, SERVER_STOPPED, "HTTP server stopped");
    Ok(())
}

/// The image's tag, `latest` without one.
fn tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split_once(':').map_or("latest", |(_, tag)| tag)
}

/// The commit that the dialect's release was built from.
fn revision(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Rc1 => "e59acc7bae6b2d1c9a3e97abb2dcadc9f0985c2d",
        Dialect::Latest => "16ae286c8961f53d3262d8de019b698b9a857bd7",
    }
}

/// A client for the cluster of a kubeconfig file, or for the pod's own.
fn client(context: &Context, path: &str) -> Result<Client, String> {
    if path.is_empty() {
        return Ok(context.apis.in_cluster());
    }
    let config = context.files.read_to_string(path)?;
    connect_kubeconfig(context.apis.as_ref(), &config).map_err(|error| error.to_string())
}

fn api<K>(client: &Client, options: &Options) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match options.namespace.as_str() {
        "" => Api::all(client.clone()),
        namespace => Api::namespaced(client.clone(), namespace),
    }
}

/// Makes sure that the cluster knows a kind.
async fn registered<K>(client: &Client, options: &Options) -> Result<(), Fatal>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    let served = api::<K>(client, options).is_served().await;
    served.map_err(|error| {
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        Fatal(NO_DEFINITION, format!("{kind} CRD is not registered {}", text(&error)))
    })
}

struct Informers<'a> {
    context: &'a Context,
    client: &'a Client,
    options: &'a Options,
}

impl Informers<'_> {
    /// Starts a cache and waits until it is filled.
    async fn start<K>(
        &self,
        on_change: impl Fn(program::Change<'_, K>) + Send + Sync + 'static,
    ) -> Informer<K>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        let api = api::<K>(self.client, self.options);
        let (tasks, clock) = (&self.context.tasks, self.context.clock);
        let informer = Informer::start(tasks, clock, api, Selection::default(), on_change);
        informer.synced().await;
        informer
    }
}

/// The chat service of Canaries that name none; the environment wins over the flags.
fn notifier(context: &Context, options: &mut Options, dialect: Dialect, log: &Logger) -> Option<Notifier> {
    for (variable, flag) in [
        ("SLACK_URL", &mut options.slack_url),
        ("SLACK_TOKEN", &mut options.slack_token),
        ("MSTEAMS_URL", &mut options.msteams_url),
        ("EVENT_WEBHOOK_URL", &mut options.event_webhook),
        ("CLUSTER_NAME", &mut options.cluster_name),
    ] {
        if let Some(value) = context.env.get(variable).filter(|value| !value.is_empty()) {
            value.clone_into(flag);
        }
    }
    let (kind, url) = match options.msteams_url.as_str() {
        "" => ("slack", &options.slack_url),
        teams => ("msteams", &teams.to_owned()),
    };
    if url.is_empty() {
        return None;
    }
    match Notifier::new(kind, url, &options.slack_user, &options.slack_channel, dialect) {
        Ok(notifier) => {
            let shown: String = url.chars().take(30).collect();
            if dialect == Dialect::Rc1 || url.chars().count() > 30 {
                log.print(Level::Info, NOTIFIER, &format!("Notifications enabled for {shown}"));
            }
            let token = if dialect == Dialect::Latest { options.slack_token.as_str() } else { "" };
            Some(notifier.with_token(token))
        }
        Err(error) => {
            log.print(Level::Error, NO_NOTIFIER, &format!("Notifier {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_from_images() {
        assert_eq!(tag("weaveworks/flagger:1.0.0-rc.1"), "1.0.0-rc.1");
        assert_eq!(tag("registry.example:5000/flagger"), "latest");
        assert_eq!(tag("ghcr.io/fluxcd/flagger:1.44.0@sha256:0123"), "1.44.0");
    }
}
