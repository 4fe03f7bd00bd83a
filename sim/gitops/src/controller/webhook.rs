//! Argo CD's server, as far as git hosts talk to it: push webhooks on `/api/webhook`.

use std::sync::Arc;

use crd::Application;
use http::{Method, StatusCode};
use kube::api::{ListParams, Patch};
use program::{Api, Context, ExitCode, Request, respond};
use serde_json::{Value, json};

use super::log;
use super::reconcile::REFRESH;
use crate::git::normalised;

/// The port of Argo CD's server.
const PORT: u16 = 8080;

/// Serves until the container ends.
pub(crate) async fn serve(context: Context) -> ExitCode {
    let handler = {
        let context = context.clone();
        move |request: Request| {
            let context = context.clone();
            async move {
                Ok(match (request.method(), request.uri().path()) {
                    (&Method::POST, "/api/webhook") => match serde_json::from_slice(request.body()) {
                        Ok(push) => {
                            pushed(&context, &push).await;
                            respond(StatusCode::OK, "")
                        }
                        Err(_) => respond(StatusCode::BAD_REQUEST, "Webhook processing failed: invalid JSON"),
                    },
                    (_, "/healthz") => respond(StatusCode::OK, "ok"),
                    _ => respond(StatusCode::NOT_FOUND, "404 page not found\n"),
                })
            }
        }
    };
    let listening = match context.network.listen(PORT, Arc::new(handler)) {
        Ok(listening) => listening,
        Err(error) => {
            log(&context, "fatal", &error.to_string(), None);
            return ExitCode::FAILURE;
        }
    };
    context.termination.requested().await;
    drop(listening);
    ExitCode::SUCCESS
}

/// Asks for a refresh of all Applications that follow the pushed branch (GitHub's payload: `ref`, `repository`).
async fn pushed(context: &Context, push: &Value) {
    let branch = push["ref"].as_str().unwrap_or_default().trim_start_matches("refs/heads/");
    let repository = &push["repository"];
    let urls: Vec<String> = ["clone_url", "html_url", "url"]
        .iter()
        .filter_map(|key| repository[*key].as_str())
        .map(normalised)
        .collect();
    log(context, "info", &format!("Received push event repo: {}, revision: {branch}", urls.join(" ")), None);
    let api: Api<Application> = Api::namespaced(context.apis.in_cluster(), &context.identity.namespace);
    let Ok(applications) = api.list(&ListParams::default()).await else { return };
    for application in applications {
        let follows = application.spec.source.iter().chain(&application.spec.sources).any(|source| {
            let revision = source.target_revision.as_str();
            urls.contains(&normalised(&source.repo_url))
                && (revision == branch || revision.is_empty() || revision == "HEAD")
        });
        if follows {
            let patch = json!({"metadata": {"annotations": {REFRESH: "normal"}}});
            let asked = api.patch(application.name(), &Patch::Merge(&patch)).await;
            if let Err(error) = asked {
                log(context, "warning", &format!("Failed to refresh app: {error}"), Some(application.name()));
            }
        }
    }
}
