//! The clusters' API servers behind HTTPS, and the kubeconfigs for them.

use std::sync::Arc;

use apiserver::User;
use clock::Seed;
use live::{Authority, Context, Credentials, Serving, kubeconfig, serve};
use testbed::World;
use tokio::net::TcpListener;

use crate::folder::Folder;
use crate::pods::WorldPods;
use crate::status::Cluster;

/// The user in the kubeconfigs.
const ADMINISTRATOR: &str = "kubernetes-admin";

/// All API servers of a testbed on their sockets.
pub(crate) struct Apis {
    serving: Vec<Serving>,
    clusters: Vec<Cluster>,
}

impl Apis {
    pub(crate) async fn serve(world: &Arc<World>, folder: &Folder, rbac: bool) -> Result<Apis, String> {
        let certificates = |error: live::CertificateError| error.to_string();
        let authority = Authority::new("coalmine").map_err(certificates)?;
        let authority_pem = authority.certificate_pem();
        let user = User::administrator(ADMINISTRATOR);
        let certificate = authority.client(&user).map_err(certificates)?;
        let tls = authority.server_config().map_err(certificates)?;
        let (mut serving, mut clusters, mut contexts) = (Vec::new(), Vec::new(), Vec::new());
        for name in world.clusters() {
            let Some(api) = world.api(&name) else { continue };
            api.track_field_managers();
            api.set_token_seed(Seed::new(live::random_number()));
            if rbac {
                api.enforce_rbac();
            }
            let credentials = Arc::new(Credentials::default());
            credentials.add_certificate(&certificate, user.clone());
            let token = credentials.add_token(user.clone());
            let listener = TcpListener::bind("127.0.0.1:0")
                .await
                .map_err(|error| format!("cluster {name}: no port for its API server: {error}"))?;
            let pods = Arc::new(WorldPods::new(Arc::clone(world), &name));
            let opened = serve(listener, Arc::clone(&tls), api, credentials, Some(pods))
                .map_err(|error| format!("cluster {name}: its API server cannot listen: {error}"))?;
            contexts.push((name, opened.url(), token));
            serving.push(opened);
        }
        let all: Vec<Context<'_>> = contexts
            .iter()
            .map(|(name, server, token)| Context {
                name,
                server: server.clone(),
                authority_pem: &authority_pem,
                certificate: Some(&certificate),
                token: Some(token),
            })
            .collect();
        folder.write("kubeconfig", &kubeconfig(&all))?;
        folder.write("ca.crt", &authority_pem)?;
        for context in &all {
            let file = folder
                .write(&format!("{}.kubeconfig", context.name), &kubeconfig(std::slice::from_ref(context)))?;
            clusters.push(Cluster {
                name: context.name.to_owned(),
                server: context.server.clone(),
                kubeconfig: file.display().to_string(),
                token: context.token.unwrap_or_default().to_owned(),
                dns: None,
            });
        }
        Ok(Apis { serving, clusters })
    }

    pub(crate) fn clusters(&self) -> Vec<Cluster> {
        debug_assert_eq!(self.serving.len(), self.clusters.len());
        self.clusters.clone()
    }
}
