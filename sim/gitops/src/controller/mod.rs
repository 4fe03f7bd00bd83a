//! Argo CD's application controller as a program: keeps clusters in step with git.
//!
//! Applications are taken from the controller's own namespace. Each is compared when it changes, when one of its
//! objects changes, when somebody asks (`argocd.argoproj.io/refresh`, or a push webhook), and every
//! `timeout.reconciliation` (180 s, as in Argo CD before 3.0). Behaviour follows Argo CD's `controller/appcontroller.go`.

mod compare;
mod destination;
mod reconcile;
mod sync;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crd::Application;
use k8s_openapi::api::core::v1::ConfigMap;
use program::{Api, Change, Context, ExitCode, Informer, Main, Selection, WorkQueue};

use crate::git::Remotes;
use reconcile::{Reconciler, Why};

/// The time between two looks at git when nothing else asks for one.
const RESYNC: Duration = Duration::from_secs(180);

/// The program behind the `argocd` images. The container whose name or arguments say `application-controller` syncs;
/// `server` takes push webhooks; the others (repo server, Redis, Dex) have no work of their own here and only run.
pub fn program(remotes: Remotes) -> Main {
    program::program(move |context: Context| {
        let remotes = remotes.clone();
        async move {
            let role = |name: &str| {
                context.identity.container.contains(name) || context.args.iter().any(|arg| arg.contains(name))
            };
            if role("application-controller") {
                controller(context, remotes).await
            } else if role("server") && !role("repo-server") {
                webhook::serve(context).await
            } else {
                context.termination.requested().await;
                ExitCode::SUCCESS
            }
        }
    })
}

/// Prints a line as Argo CD's logger does.
fn log(context: &Context, level: &str, message: &str, application: Option<&str>) {
    let at = context.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let application = application.map(|name| format!(" application={name}")).unwrap_or_default();
    context.log.print(&format!("time=\"{at}\" level={level} msg={message:?}{application}"));
}

async fn controller(context: Context, remotes: Remotes) -> ExitCode {
    let namespace = context.identity.namespace.clone();
    let client = context.apis.in_cluster();
    let resync = resync(&context, &client, &namespace).await;
    log(&context, "info", &format!("Application Controller is starting, resync {}s", resync.as_secs()), None);

    let queue: WorkQueue<String> = WorkQueue::new(context.clock);
    let reasons: Reasons = Reasons::default();
    watch_applications(&context, Api::namespaced(client.clone(), &namespace), &queue, &reasons);
    let mut reconciler = Reconciler::new(context.clone(), remotes, queue.clone(), reasons.clone(), resync);
    let work = async {
        loop {
            let name = queue.next().await;
            let why = reasons.take(&name);
            reconciler.reconcile(&name, why).await;
        }
    };
    tokio::select! { biased;
        () = context.termination.requested() => ExitCode::SUCCESS,
        code = work => code,
    }
}

/// `timeout.reconciliation` of `argocd-cm`, e.g. `60s`.
async fn resync(context: &Context, client: &kube::Client, namespace: &str) -> Duration {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let configured = api.get_opt("argocd-cm").await.ok().flatten();
    let data = configured.as_ref().and_then(|map| map.data.as_ref());
    let Some(text) = data.and_then(|data| data.get("timeout.reconciliation")) else { return RESYNC };
    match text.parse::<jiff::SignedDuration>().ok().and_then(|found| Duration::try_from(found).ok()) {
        Some(found) if !found.is_zero() => found,
        _ => {
            log(
                context,
                "warning",
                &format!("argocd-cm: timeout.reconciliation: {text:?} is no duration"),
                None,
            );
            RESYNC
        }
    }
}

/// Why each queued Application is to be looked at; the strongest reason wins.
#[derive(Clone, Default)]
pub(crate) struct Reasons(Arc<Mutex<BTreeMap<String, Why>>>);

impl Reasons {
    /// Notes a reason.
    pub fn add(&self, name: &str, why: Why) {
        let mut reasons = self.0.lock().expect("no holder of this lock panics");
        let entry = reasons.entry(name.to_owned()).or_insert(why);
        *entry = (*entry).max(why);
    }

    fn take(&self, name: &str) -> Why {
        self.0.lock().expect("no holder of this lock panics").remove(name).unwrap_or(Why::LiveChanged)
    }
}

fn watch_applications(
    context: &Context,
    api: Api<Application>,
    queue: &WorkQueue<String>,
    reasons: &Reasons,
) {
    let (queue, reasons) = (queue.clone(), reasons.clone());
    let same = |old: &Application, new: &Application| {
        let asks = |one: &Application| serde_json::to_value((&one.spec, &one.operation)).unwrap_or_default();
        asks(old) == asks(new)
    };
    Informer::start(&context.tasks, context.clock, api, Selection::default(), move |change| {
        let Change::Applied { old, new } = change else { return };
        let asked = new.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(reconcile::REFRESH));
        if asked || old.is_none_or(|old| !same(old, new)) {
            reasons.add(new.name(), Why::Refresh);
            queue.add(new.name().to_owned());
        }
    });
}
