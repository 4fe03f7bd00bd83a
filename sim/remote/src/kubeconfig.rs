//! A cluster by its context in a kubeconfig.

use std::path::Path;

use clock::Clock;
use http::Request;
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tower::ServiceBuilder;

use crate::connection::Connection;
use crate::tls;

/// A cluster, and who one is there.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    context: String,
    server: String,
    namespace: String,
}

impl Cluster {
    /// The cluster of a context, the current one unless named, in `kubeconfig`, or else in the files of `KUBECONFIG` or
    /// `~/.kube/config`. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The file or field that is missing or cannot be used, and what to do about it.
    pub async fn find(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        clock: Clock,
    ) -> Result<Cluster, String> {
        let file = match kubeconfig {
            Some(path) => Kubeconfig::read_from(path)
                .map_err(|error| format!("{}: {}", path.display(), causes(&error)))?,
            None => Kubeconfig::read().map_err(|error| {
                format!("no kubeconfig: {}; name one with --kubeconfig or KUBECONFIG", causes(&error))
            })?,
        };
        let place = kubeconfig.map_or_else(|| "the kubeconfig".to_owned(), |path| path.display().to_string());
        let known = || {
            let names: Vec<&str> = file.contexts.iter().map(|context| context.name.as_str()).collect();
            if names.is_empty() {
                "it has none".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            }
        };
        let context = match context.or(file.current_context.as_deref()).filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => {
                return Err(format!("{place}: no current-context: choose one with --context: {}", known()));
            }
        };
        let Some(found) = file.contexts.iter().find(|found| found.name == context) else {
            return Err(format!("{place}: no context {context:?}: {}", known()));
        };
        let cluster_name = found.context.as_ref().map(|found| found.cluster.clone()).unwrap_or_default();
        let cluster = file.clusters.iter().find(|cluster| cluster.name == cluster_name);
        let proxy = cluster.and_then(|cluster| cluster.cluster.as_ref()?.proxy_url.clone());
        let named = |problem: String| format!("{place}: context {context}: {problem}");
        if let Some(proxy) = proxy.filter(|proxy| !proxy.is_empty()) {
            return Err(named(format!(
                "proxy-url {proxy}: proxies are not supported: reach the cluster directly"
            )));
        }
        let options = KubeConfigOptions { context: Some(context.clone()), cluster: None, user: None };
        let config = Config::from_custom_kubeconfig(file.clone(), &options)
            .await
            .map_err(|error| named(causes(&error)))?;
        let server = config.cluster_url.to_string();
        let connection = Connection::new(
            &config.cluster_url,
            || tls::client_config(&config),
            config.tls_server_name.as_deref(),
            clock,
        )
        .map_err(named)?;
        let namespace = config.default_namespace.clone();
        let refused = |error: kube::Error| named(format!("user: {}", causes(&error)));
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(refused)?)
            .layer(config.extra_headers_layer().map_err(refused)?)
            .service(connection);
        let client = Client::new(service, namespace.clone());
        Ok(Cluster { client, context, server: server.trim_end_matches('/').to_owned(), namespace })
    }

    /// The context's name.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The context's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Asks for JSON.
    pub(crate) async fn json(&self, request: Request<Vec<u8>>) -> Result<Value, Refusal> {
        self.client.request(request).await.map_err(|error| self.refusal(error))
    }

    /// Asks for text.
    pub(crate) async fn text(&self, request: Request<Vec<u8>>) -> Result<String, Refusal> {
        self.client.request_text(request).await.map_err(|error| self.refusal(error))
    }

    fn refusal(&self, error: kube::Error) -> Refusal {
        let Cluster { context, server, .. } = self;
        match error {
            kube::Error::Api(status) => {
                let message = &status.message;
                let said = match status.code {
                    401 => format!("context {context}: {server} does not accept its credentials: {message}"),
                    403 => format!("context {context}: forbidden: {message}"),
                    code => format!("context {context}: {server} answered {code}: {message}"),
                };
                Refusal { code: Some(status.code), said }
            }
            kube::Error::Service(error) => {
                let why = causes(error.as_ref());
                Refusal { code: None, said: format!("context {context}: cannot reach {server}: {why}") }
            }
            error => Refusal { code: None, said: format!("context {context}: {server}: {}", causes(&error)) },
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The API server's code, if it answered.
    pub code: Option<u16>,
    /// A sentence.
    pub said: String,
}

/// An error with its causes, each once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        next = cause.source();
    }
    said
}
