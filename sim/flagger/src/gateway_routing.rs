//! The verbs of routing for the Gateway API.

use std::sync::Arc;

use canary::Routes;
use crd::{GatewayApiVersion, GatewayRoute};
use program::Api;

use crate::gateway_api::Recipe;
use crate::kubernetes::{is_not_found, text};
use crate::log::{Site, site};
use crate::tick::Tick;

const CREATED: Site = site("router/gateway_api.go:184", "router/gateway_api.go:184");
const UPDATED: Site = site("router/gateway_api.go:263", "router/gateway_api.go:263");

impl Tick {
    fn gateway_api(&self, version: GatewayApiVersion) -> Recipe<'_> {
        Recipe { canary: &self.canary, owned: self.shell.mesh_is_own, version }
    }

    fn gateway_routes(&self, version: GatewayApiVersion) -> Api<GatewayRoute> {
        Api::namespaced_with(self.shell.mesh.clone(), self.canary.namespace(), &version)
    }

    /// `HTTPRoute NAME.NAMESPACE` and what went wrong with it.
    fn gateway_error(&self, what: &str, error: &kube::Error, when: &str) -> String {
        let (apex, namespace) = (self.canary.spec.apex_name(), self.canary.namespace());
        format!("HTTPRoute {apex}.{namespace} {what} error: {}{when}", text(error))
    }

    /// Makes or corrects the HTTPRoute.
    pub async fn ensure_gateway_route(&self, version: GatewayApiVersion) -> Result<(), String> {
        let (apex, namespace) = (self.canary.spec.apex_name(), self.canary.namespace());
        let (api, recipe) = (self.gateway_routes(version), self.gateway_api(version));
        let wanted = recipe.route()?;
        let existing = match api.get(apex).await {
            Ok(existing) => existing,
            Err(error) if is_not_found(&error) => {
                let created = api.create(&wanted).await;
                created.map_err(|error| self.gateway_error("create", &error, ""))?;
                self.info(CREATED, &format!("HTTPRoute {apex}.{namespace} created"));
                return Ok(());
            }
            Err(error) => return Err(self.gateway_error("get", &error, "")),
        };
        if let Some(corrected) = recipe.correct(&existing)? {
            let updated = api.replace(apex, &corrected).await;
            updated.map_err(|error| self.gateway_error("update", &error, " while reconciling"))?;
            self.info(UPDATED, &format!("HTTPRoute {apex}.{namespace} updated"));
        }
        Ok(())
    }

    /// Reads the weights.
    pub async fn read_gateway_route(&self, version: GatewayApiVersion) -> Result<Routes, String> {
        let found = self.gateway_routes(version).get(self.canary.spec.apex_name()).await;
        let found = found.map_err(|error| self.gateway_error("get", &error, ""))?;
        self.gateway_api(version).routes(&found)
    }

    /// Writes the weights.
    pub async fn write_gateway_route(
        &mut self,
        version: GatewayApiVersion,
        routes: Routes,
    ) -> Result<(), String> {
        let apex = self.canary.spec.apex_name().to_owned();
        let api = self.gateway_routes(version);
        let found = api.get(&apex).await;
        let mut object = Arc::unwrap_or_clone(found.map_err(|error| self.gateway_error("get", &error, ""))?);
        let mut cookies = self.cookies();
        let drawn = || self.shell.cookie();
        self.gateway_api(version).set_routes(&mut object, routes, &mut cookies, drawn)?;
        let updated = api.replace(&apex, &object).await;
        updated.map_err(|error| self.gateway_error("update", &error, " while setting weights"))?;
        self.keep_cookies(cookies);
        Ok(())
    }
}
