//! Where the scenario's own requests come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Uri, header};
use k8s_openapi::api::core::v1::Service;
use program::{Api, Network, Request};

use crate::World;
use crate::scenario::Origin;

/// A client somewhere, and how it reaches a URL.
pub(super) struct Client {
    network: Arc<dyn Network>,
    /// The address to connect to instead of the URL's host, which then goes into the `Host` header.
    connect_to: Option<String>,
}

impl Client {
    /// The client at an origin.
    pub(super) async fn at(world: &World, origin: &Origin) -> Result<Client, String> {
        if let Some(pod) = &origin.pod {
            let network = world.client_pod(&pod.cluster, &pod.namespace, &pod.name).await?;
            return Ok(Client { network, connect_to: None });
        }
        if let Some(cluster) = &origin.cluster {
            return Ok(Client { network: world.users(Some(cluster))?, connect_to: None });
        }
        let Some(gateway) = &origin.gateway else { return Err("from says nothing".into()) };
        let api: Api<Service> = Api::namespaced(
            world
                .client(&gateway.cluster)
                .ok_or_else(|| format!("there is no cluster {:?}", gateway.cluster))?,
            &gateway.namespace,
        );
        let what =
            format!("the gateway's Service {}/{} in {}", gateway.namespace, gateway.service, gateway.cluster);
        let service = api
            .get_opt(&gateway.service)
            .await
            .map_err(|error| format!("{what}: {}", super::objects::reason(&error)))?
            .ok_or_else(|| format!("{what} does not exist"))?;
        let address = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref())
            .and_then(|balancer| balancer.ingress.iter().flatten().find_map(|ingress| ingress.ip.clone()))
            .ok_or_else(|| format!("{what} has no address: is it of type LoadBalancer?"))?;
        Ok(Client { network: world.users(Some(&gateway.cluster))?, connect_to: Some(address) })
    }

    /// A request to a URL.
    ///
    /// # Errors
    /// A sentence on the part that is no HTTP; method and headers were checked when the scenario was read.
    pub(super) fn request(
        &self,
        method: &str,
        url: &str,
        headers: &BTreeMap<String, String>,
        body: Option<&str>,
    ) -> Result<Request, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("{url}: no host"))?;
        let target = match &self.connect_to {
            None => uri.clone(),
            Some(address) => {
                let port = authority.port_u16().unwrap_or(80);
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                let text = format!("http://{address}:{port}{path}");
                text.parse().map_err(|error| format!("{text}: {error}"))?
            }
        };
        let mut builder = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        if !headers.keys().any(|name| name.eq_ignore_ascii_case("host")) {
            builder = builder.header(header::HOST, authority.as_str());
        }
        let body = body.map(|body| Bytes::from(body.to_owned())).unwrap_or_default();
        builder.body(body).map(Request::from).map_err(|error| error.to_string())
    }

    /// Its network.
    pub(super) fn network(&self) -> &dyn Network {
        &*self.network
    }
}
