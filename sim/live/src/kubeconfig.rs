//! Kubeconfigs: which clusters there are and how to get in.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::authority::Certificate;

/// One cluster and a user of it.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The context's and the cluster's name.
    pub name: &'a str,
    /// The API server's URL.
    pub server: String,
    /// The authority's certificate, as PEM.
    pub authority_pem: &'a str,
    /// The user's client certificate, if it has one.
    pub certificate: Option<&'a Certificate>,
    /// The user's token, if it has one.
    pub token: Option<&'a str>,
}

/// A kubeconfig, as YAML, with the first context as the current one.
///
/// # Panics
/// Never: a kubeconfig is plain maps, lists and strings.
pub fn kubeconfig(contexts: &[Context<'_>]) -> String {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let named = |what: &str, of: &dyn Fn(&Context<'_>) -> Value| -> Vec<Value> {
        contexts.iter().map(|context| json!({"name": context.name, what: of(context)})).collect()
    };
    let user = |context: &Context<'_>| {
        let mut user = json!({});
        if let Some(certificate) = context.certificate {
            user["client-certificate-data"] = json!(encode(&certificate.certificate_pem));
            user["client-key-data"] = json!(encode(&certificate.key_pem));
        }
        if let Some(token) = context.token {
            user["token"] = json!(token);
        }
        user
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": contexts.first().map_or("", |context| context.name),
        "clusters": named("cluster", &|context| json!({
            "server": context.server, "certificate-authority-data": encode(context.authority_pem)})),
        "contexts": named("context", &|context| json!({"cluster": context.name, "user": context.name})),
        "users": named("user", &user),
        "preferences": {},
    });
    serde_saphyr::to_string(&config).expect("a kubeconfig is plain maps, lists and strings")
}
