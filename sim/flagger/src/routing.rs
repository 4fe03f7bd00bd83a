//! Services in the Canary's cluster, routes in the mesh's.

use std::sync::Arc;

use canary::{Dialect, Routes};
use crd::{DestinationRule, GatewayApiVersion, VirtualService};
use k8s_openapi::api::core::v1::Service;
use program::Api;

use crate::istio::{self, CONFIG_ANNOTATION, Cookies, KUBECTL_ANNOTATION};
use crate::kubernetes::{is_not_found, text};
use crate::log::{Level, Site, site};
use crate::owner;
use crate::service::{self, Role};
use crate::tick::Tick;
use crate::workload::Target;

const SERVICE_CREATED: Site = site("router/kubernetes_deployment.go:137", "router/kubernetes_default.go:182");
const SERVICE_UPDATED: Site = site("router/kubernetes_deployment.go:161", "router/kubernetes_default.go:270");
const RULE_CREATED: Site = site("router/istio.go:77", "router/istio.go:104");
const RULE_UPDATED: Site = site("router/istio.go:95", "router/istio.go:120");
const ROUTE_CREATED: Site = site("router/istio.go:203", "router/istio.go:289");
const ROUTE_UPDATED: Site = site("router/istio.go:227", "router/istio.go:367");
const UNKNOWN: Site = site("router/factory.go:214", "router/factory.go:214");
const UNREVERTED: Site = site("router/istio.go:600", "router/istio.go:600");
const USES_TCP: Site = site("router/istio.go:390", "router/istio.go:390");
const USES_HTTP: Site = site("router/istio.go:419", "router/istio.go:419");

/// Who routes the traffic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mesh {
    Istio,
    GatewayApi(GatewayApiVersion),
    /// Nobody: Services only, blue/green.
    Kubernetes,
}

/// Providers whose routers are not simulated, by the name before the first colon.
const UNSIMULATED: [&str; 13] = [
    "apisix",
    "appmesh",
    "contour",
    "gloo",
    "knative",
    "kuma",
    "linkerd",
    "nginx",
    "osm",
    "skipper",
    "smi",
    "supergloo",
    "traefik",
];

impl Tick {
    fn mesh(&self) -> Result<Mesh, String> {
        let provider = self.provider.as_str();
        let newer = self.shell.dialect == Dialect::Latest;
        let kind = provider.split(':').next().unwrap_or_default();
        match provider {
            "kubernetes" => Ok(Mesh::Kubernetes),
            "none" if !newer => Ok(Mesh::Kubernetes),
            _ if newer && provider.starts_with("gatewayapi:v1beta1") => {
                Ok(Mesh::GatewayApi(GatewayApiVersion::V1Beta1))
            }
            _ if newer && provider.starts_with("gatewayapi:v1") => {
                Ok(Mesh::GatewayApi(GatewayApiVersion::V1))
            }
            // As upstream.
            _ if !newer && provider.starts_with("supergloo:istio") => Ok(Mesh::Istio),
            _ if UNSIMULATED.contains(&kind) => Err(format!(
                "Canary {} provider {provider:?} is not simulated: use \"istio\", \"kubernetes\" or \"gatewayapi:v1\"",
                self.key
            )),
            // As upstream: what it does not know is Istio.
            _ => Ok(Mesh::Istio),
        }
    }

    /// The cookies of the run, as the status holds them.
    pub(crate) fn cookies(&self) -> Cookies {
        let status = self.canary.status.clone().unwrap_or_default();
        Cookies {
            canary: status.session_affinity_cookie,
            primary: status.primary_session_affinity_cookie,
            previous: status.previous_session_affinity_cookie,
        }
    }

    /// Keeps the cookies for the next write of the status.
    pub(crate) fn keep_cookies(&mut self, cookies: Cookies) {
        if cookies == self.cookies() {
            return;
        }
        let status = Arc::make_mut(&mut self.canary).status.get_or_insert_default();
        status.session_affinity_cookie = cookies.canary;
        status.primary_session_affinity_cookie = cookies.primary;
        status.previous_session_affinity_cookie = cookies.previous;
    }

    /// Makes or corrects one Service.
    pub async fn ensure_service(&self, role: Role) -> Result<(), String> {
        if self.target()? == Target::Service {
            // Whoever made the target makes its Services.
            return Ok(());
        }
        let result = self.try_ensure_service(role).await;
        result.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 => error,
            Dialect::Latest => format!("reconcileService failed: {error}"),
        })
    }

    async fn try_ensure_service(&self, role: Role) -> Result<(), String> {
        let selector = self.selector.as_ref().ok_or("the target has not been read yet")?;
        let (dialect, namespace) = (self.shell.dialect, self.canary.namespace());
        let recipe = service::Recipe { canary: &self.canary, selector, ports: &self.ports, dialect };
        let api: Api<Service> = Api::namespaced(self.shell.client.clone(), namespace);
        let name = role.service(&self.canary);
        let existing = match api.get(&name).await {
            Ok(existing) => existing,
            Err(error) if is_not_found(&error) => {
                let created = api.create(&recipe.create(role)).await;
                created.map_err(|error| match dialect {
                    Dialect::Rc1 => text(&error),
                    Dialect::Latest => format!("service {name}.{namespace} create error: {}", text(&error)),
                })?;
                self.info(SERVICE_CREATED, &format!("Service {name}.{namespace} created"));
                return Ok(());
            }
            Err(error) => {
                return Err(match dialect {
                    Dialect::Rc1 => format!("service {name} query error {}", text(&error)),
                    Dialect::Latest => format!("service {name} get query error: {}", text(&error)),
                });
            }
        };
        if let Some(corrected) = recipe.correct(role, &existing) {
            let result = api.replace(&name, &corrected).await;
            result.map_err(|error| match dialect {
                Dialect::Rc1 => format!("service {name} update error {}", text(&error)),
                Dialect::Latest => format!("service {name} update error: {}", text(&error)),
            })?;
            self.info(SERVICE_UPDATED, &format!("Service {name} updated"));
        }
        Ok(())
    }

    /// Makes or corrects the mesh's objects.
    pub async fn ensure_routes(&self) -> Result<(), String> {
        match self.mesh()? {
            Mesh::Kubernetes => return Ok(()),
            Mesh::GatewayApi(version) => return self.ensure_gateway_route(version).await,
            Mesh::Istio => {}
        }
        if self.shell.dialect == Dialect::Latest && self.provider != "istio" {
            let message = format!("unknown mesh router provider '{}', using istio", self.provider);
            self.shell.log.print(Level::Warn, UNKNOWN, &message);
        }
        let wrap = |what: &str, error: String| match self.shell.dialect {
            Dialect::Rc1 => error,
            Dialect::Latest => format!("{what} failed: {error}"),
        };
        for role in [Role::Canary, Role::Primary] {
            self.ensure_rule(role).await.map_err(|error| wrap("reconcileDestinationRule", error))?;
        }
        self.ensure_virtual_service().await.map_err(|error| wrap("reconcileVirtualService", error))
    }

    fn istio(&self) -> istio::Recipe<'_> {
        let owned = self.shell.mesh_is_own || self.shell.dialect == Dialect::Rc1;
        istio::Recipe { canary: &self.canary, owned, dialect: self.shell.dialect }
    }

    fn virtual_services(&self) -> Api<VirtualService> {
        let version = istio::version(self.shell.dialect);
        Api::namespaced_with(self.shell.mesh.clone(), self.canary.namespace(), &version)
    }

    /// An error as the dialect words it; the newer one puts a colon before the cause.
    fn mesh_error(&self, kind: &str, name: &str, what: &str, error: &kube::Error) -> String {
        let colon = if self.shell.dialect == Dialect::Latest { ":" } else { "" };
        format!("{kind} {name}.{} {what}{colon} {}", self.canary.namespace(), text(error))
    }

    async fn ensure_rule(&self, role: Role) -> Result<(), String> {
        let (name, namespace) = (role.service(&self.canary), self.canary.namespace());
        let version = istio::version(self.shell.dialect);
        let api: Api<DestinationRule> = Api::namespaced_with(self.shell.mesh.clone(), namespace, &version);
        let wanted = self.istio().destination_rule(role);
        let failed = |what: &str, error: &kube::Error| self.mesh_error("DestinationRule", &name, what, error);
        let existing = match api.get(&name).await {
            Ok(existing) => existing,
            Err(error) if is_not_found(&error) => {
                let created = api.create(&wanted).await;
                created.map_err(|error| failed("create error", &error))?;
                self.info(RULE_CREATED, &format!("DestinationRule {name}.{namespace} created"));
                return Ok(());
            }
            Err(error) => return Err(failed(self.query_error(), &error)),
        };
        if existing.spec != wanted.spec {
            let mut corrected = Arc::unwrap_or_clone(existing);
            corrected.spec = wanted.spec;
            let result = api.replace(&name, &corrected).await;
            result.map_err(|error| failed("update error", &error))?;
            self.info(RULE_UPDATED, &format!("DestinationRule {name}.{namespace} updated"));
        }
        Ok(())
    }

    fn query_error(&self) -> &'static str {
        match self.shell.dialect {
            Dialect::Rc1 => "query error",
            Dialect::Latest => "get query error",
        }
    }

    async fn ensure_virtual_service(&self) -> Result<(), String> {
        let (apex, namespace) = (self.canary.spec.apex_name(), self.canary.namespace());
        let (api, recipe) = (self.virtual_services(), self.istio());
        let failed = |what: &str, error: &kube::Error| self.mesh_error("VirtualService", apex, what, error);
        let existing = match api.get(apex).await {
            Ok(existing) => existing,
            Err(error) if is_not_found(&error) => {
                let created = api.create(&recipe.virtual_service()?).await;
                created.map_err(|error| failed("create error", &error))?;
                self.info(ROUTE_CREATED, &format!("VirtualService {apex}.{namespace} created"));
                return Ok(());
            }
            Err(error) => return Err(self.route_lookup_error(&error)),
        };
        if let Some(corrected) = recipe.correct(&existing)? {
            let result = api.replace(apex, &corrected).await;
            result.map_err(|error| failed("update error", &error))?;
            self.info(ROUTE_UPDATED, &format!("VirtualService {apex}.{namespace} updated"));
        }
        Ok(())
    }

    fn route_lookup_error(&self, error: &kube::Error) -> String {
        let (apex, namespace) = (self.canary.spec.apex_name(), self.canary.namespace());
        format!("VirtualService {apex}.{namespace} {} {}", self.query_error(), text(error))
    }

    async fn virtual_service(&self) -> Result<Arc<VirtualService>, String> {
        let apex = self.canary.spec.apex_name();
        self.virtual_services().get(apex).await.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 if is_not_found(&error) => {
                format!("VirtualService {apex}.{} not found", self.canary.namespace())
            }
            _ => self.route_lookup_error(&error),
        })
    }

    /// Reads the weights.
    pub async fn read_routes(&self) -> Result<Routes, String> {
        let mesh = self.mesh()?;
        if let Mesh::GatewayApi(version) = mesh {
            return self.read_gateway_route(version).await;
        }
        if mesh == Mesh::Kubernetes {
            // Nothing is routed: a run that has begun counts as all on the canary.
            let begun = self.canary.status.as_ref().is_some_and(|status| status.iterations > 0);
            return Ok(if begun { Routes::CANARY } else { Routes::PRIMARY });
        }
        let object = self.virtual_service().await?;
        if self.shell.dialect == Dialect::Latest {
            let tcp = self.canary.spec.service.app_protocol.eq_ignore_ascii_case("tcp");
            let (at, kind) = if tcp { (USES_TCP, "TCP") } else { (USES_HTTP, "HTTP") };
            self.shell.log.print(Level::Info, at, &format!("Canary {} uses {kind} service", self.key));
        }
        self.istio().routes(&object)
    }

    /// Writes the weights.
    pub async fn write_routes(&mut self, routes: Routes) -> Result<(), String> {
        match self.mesh()? {
            Mesh::Kubernetes => return Ok(()),
            Mesh::GatewayApi(version) => return self.write_gateway_route(version, routes).await,
            Mesh::Istio => {}
        }
        let mut object = Arc::unwrap_or_clone(self.virtual_service().await?);
        let mut cookies = self.cookies();
        self.istio().set_routes(&mut object, routes, &mut cookies, || self.shell.cookie());
        let apex = self.canary.spec.apex_name();
        let result = self.virtual_services().replace(apex, &object).await;
        result.map_err(|error| {
            let namespace = self.canary.namespace();
            format!("VirtualService {apex}.{namespace} update failed: {}", text(&error))
        })?;
        self.keep_cookies(cookies);
        Ok(())
    }

    /// Points an apex Service that was there before the Canary back at the target.
    pub async fn restore_apex(&self) -> Result<(), String> {
        if self.target()? == Target::Service {
            return Ok(());
        }
        let (name, namespace) = (Role::Apex.service(&self.canary), self.canary.namespace());
        let selector = self.selector.as_ref().ok_or("the target has not been read yet")?;
        let api: Api<Service> = Api::namespaced(self.shell.client.clone(), namespace);
        let found = api.get(&name).await;
        let found =
            found.map_err(|error| format!("service {name}.{namespace} get query error: {}", text(&error)))?;
        if owner::owned(&found.metadata, self.canary.name()).is_some() {
            return Ok(());
        }
        let applied = found.metadata.annotations.as_ref().and_then(|marks| marks.get(KUBECTL_ANNOTATION));
        let pods = match applied {
            Some(applied) => {
                let stored = serde_json::from_str::<Service>(applied).map_err(|_| {
                    format!("router {name}.{namespace} failed to unMarshal annotation {KUBECTL_ANNOTATION}")
                })?;
                stored.spec.and_then(|spec| spec.selector)
            }
            None => Some([(selector.label.clone(), selector.value.clone())].into()),
        };
        let mut service = Arc::unwrap_or_clone(found);
        service.spec.get_or_insert_default().selector = pods;
        let result = api.replace(&name, &service).await;
        result.map(drop).map_err(|error| format!("service {name} update error: {}", text(&error)))
    }

    /// Makes the VirtualService what it was before the Canary.
    pub async fn restore_routes(&self) -> Result<(), String> {
        if self.mesh()? != Mesh::Istio {
            return Ok(());
        }
        let (apex, namespace) = (self.canary.spec.apex_name(), self.canary.namespace());
        let mut object = Arc::unwrap_or_clone(self.virtual_service().await?);
        let marks = object.metadata.annotations.clone().unwrap_or_default();
        let unreadable =
            |mark: &str| format!("VirtualService {apex}.{namespace} failed to unMarshal annotation {mark}");
        object.spec = if let Some(applied) = marks.get(KUBECTL_ANNOTATION) {
            let stored = serde_json::from_str::<VirtualService>(applied);
            stored.map_err(|_| unreadable(KUBECTL_ANNOTATION))?.spec
        } else if let Some(original) = marks.get(CONFIG_ANNOTATION) {
            serde_json::from_str(original).map_err(|_| unreadable(CONFIG_ANNOTATION))?
        } else {
            let message = format!(
                "VirtualService {apex}.{namespace} original configuration not found, unable to revert"
            );
            self.shell.log.print(Level::Warn, UNREVERTED, &message);
            return Ok(());
        };
        let result = self.virtual_services().replace(apex, &object).await;
        result.map(drop).map_err(|error| self.mesh_error("VirtualService", apex, "update error", &error))
    }
}
