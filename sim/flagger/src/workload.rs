//! The target and its primary: what the tick does to Deployments and DaemonSets, and which of them, or a Service, the
//! Canary targets.

use std::sync::Arc;

use canary::{Dialect, Rollout, Scale};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::Resource;
use program::{Api, Kind};

use crate::configs::Refs;
use crate::daemon_set;
use crate::deployment;
use crate::kubernetes::{ATTEMPTS, is_conflict, is_not_found, text};
use crate::log::{Level, Site, site};
use crate::pods::{self, Recipe, Selector, Templated};
use crate::tick::Tick;

const DEPLOYMENT_CREATED: Site =
    site("canary/deployment_controller.go:301", "canary/deployment_controller.go:315");
const DAEMON_SET_CREATED: Site =
    site("canary/daemonset_controller.go:300", "canary/daemonset_controller.go:319");

/// Which of the two workloads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The target.
    Target,
    /// The primary.
    Primary,
}

/// What a Canary targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Deployment.
    Deployment,
    /// A DaemonSet.
    DaemonSet,
    /// A Service, whose pods are somebody else's business.
    Service,
}

/// A kind of workload that has a primary.
pub trait Workload:
    Templated + Kind + Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone
{
    /// Where in the sources its making is logged.
    const CREATED: Site;

    /// The primary as it is first made.
    fn create(recipe: &Recipe<'_, Self>) -> Self;

    /// Brings an existing primary to the target's template.
    fn promote(recipe: &Recipe<'_, Self>, primary: &mut Self);

    /// Why a target cannot be released, if it cannot.
    fn refused(&self) -> Option<String> {
        None
    }
}

impl Workload for Deployment {
    const CREATED: Site = DEPLOYMENT_CREATED;

    fn create(recipe: &Recipe<'_, Self>) -> Self {
        recipe.create()
    }

    fn promote(recipe: &Recipe<'_, Self>, primary: &mut Self) {
        recipe.promote(primary);
    }
}

impl Workload for DaemonSet {
    const CREATED: Site = DAEMON_SET_CREATED;

    fn create(recipe: &Recipe<'_, Self>) -> Self {
        recipe.create()
    }

    fn promote(recipe: &Recipe<'_, Self>, primary: &mut Self) {
        recipe.promote(primary);
    }

    fn refused(&self) -> Option<String> {
        daemon_set::refused(self)
    }
}

impl Tick {
    /// What the Canary targets.
    ///
    /// # Errors
    /// That it is nothing that can be released here.
    pub fn target(&self) -> Result<Target, String> {
        let reference = &self.canary.spec.target_ref;
        match reference.kind.as_str() {
            "DaemonSet" => Ok(Target::DaemonSet),
            "Service" if reference.api_version == "serving.knative.dev/v1" => Err(format!(
                "Canary {} spec.targetRef is a Knative Service, which is not simulated: name a Deployment, DaemonSet \
                 or core Service",
                self.key
            )),
            "Service" => Ok(Target::Service),
            // As upstream: what it does not know is a Deployment.
            _ => Ok(Target::Deployment),
        }
    }

    /// A workload's name.
    pub fn workload_name(&self, which: Which) -> String {
        let target = &self.canary.spec.target_ref.name;
        match which {
            Which::Target => target.clone(),
            Which::Primary => format!("{target}-primary"),
        }
    }

    pub(crate) fn workloads<W: Workload>(&self) -> Api<W> {
        Api::namespaced(self.shell.client.clone(), self.canary.namespace())
    }

    /// A workload as it is now.
    pub async fn workload<W: Workload>(&self, which: Which) -> Result<Arc<W>, String> {
        let name = self.workload_name(which);
        let found = self.workloads::<W>().get(&name).await;
        found.map_err(|error| self.lookup_error::<W>(&name, &error))
    }

    fn lookup_error<W: Workload>(&self, name: &str, error: &kube::Error) -> String {
        let (noun, namespace) = (W::NOUN, self.canary.namespace());
        match self.shell.dialect {
            Dialect::Rc1 if is_not_found(error) => format!("{noun} {name}.{namespace} not found"),
            Dialect::Rc1 => format!("{noun} {name}.{namespace} query error {}", text(error)),
            Dialect::Latest => format!("{noun} {name}.{namespace} get query error: {}", text(error)),
        }
    }

    /// Reads the target's selector and ports.
    pub async fn load_target(&mut self) -> Result<(), String> {
        match self.target()? {
            Target::Deployment => self.load::<Deployment>().await,
            Target::DaemonSet => self.load::<DaemonSet>().await,
            Target::Service => Ok(()),
        }
    }

    async fn load<W: Workload>(&mut self) -> Result<(), String> {
        let name = self.workload_name(Which::Target);
        let target = self.workloads::<W>().get(&name).await.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 if is_not_found(&error) => {
                format!("{} {name}.{} not found, retrying", W::NOUN, self.canary.namespace())
            }
            Dialect::Rc1 => text(&error),
            Dialect::Latest => self.lookup_error::<W>(&name, &error),
        })?;
        self.selector = Some(self.selector_of(&*target)?);
        if self.canary.spec.service.port_discovery {
            self.ports = pods::other_ports(&self.canary.spec, target.template());
        }
        Ok(())
    }

    fn selector_of<W: Workload>(&self, target: &W) -> Result<Selector, String> {
        let labels = &self.shell.options.selector_labels;
        Selector::of(target, labels, self.shell.dialect).ok_or_else(|| {
            let (name, namespace) = (self.workload_name(Which::Target), self.canary.namespace());
            match self.shell.dialect {
                Dialect::Rc1 => format!(
                    "invalid label selector! {} {name}.{namespace} spec.selector.matchLabels must contain selector \
                     'app: {name}'",
                    W::KIND
                ),
                Dialect::Latest => format!(
                    "getSelectorLabel failed: {} {name}.{namespace} spec.selector.matchLabels must contain one of \
                     [{}]{}",
                    W::NOUN,
                    labels.join(" "),
                    if W::NOUN == "daemonset" { "'" } else { "" }
                ),
            }
        })
    }

    /// Makes the primary if it is missing.
    pub async fn ensure_primary(&mut self) -> Result<(), String> {
        match self.target()? {
            Target::Deployment => self.ensure::<Deployment>().await,
            Target::DaemonSet => self.ensure::<DaemonSet>().await,
            Target::Service => self.ensure_service_copies().await,
        }
    }

    async fn ensure<W: Workload>(&mut self) -> Result<(), String> {
        let name = self.workload_name(Which::Primary);
        let result = self.try_ensure::<W>(&name).await;
        result.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 => {
                format!("creating {} {name}.{} failed: {error}", W::NOUN, self.canary.namespace())
            }
            Dialect::Latest => format!("createPrimary{} failed: {error}", W::KIND),
        })
    }

    async fn try_ensure<W: Workload>(&mut self, name: &str) -> Result<(), String> {
        let (api, namespace) = (self.workloads::<W>(), self.canary.namespace().to_owned());
        match api.find(name).await {
            Ok(_) => return Ok(()),
            Err(error) if is_not_found(&error) => {}
            // As upstream: an error that is not "not found" leaves the primary alone.
            Err(_) => return Ok(()),
        }
        let target = self.workload::<W>(Which::Target).await?;
        if let Some(why) = target.refused() {
            return Err(why);
        }
        let selector = self.selector_of(&*target)?;
        let refs = self.refs(target.template()).await?;
        self.copy_configs(&refs).await?;
        let primary = W::create(&self.recipe(&target, &selector, &refs, &self.shell.uuid()));
        let created = api.create(&primary).await;
        created.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 => text(&error),
            Dialect::Latest => format!("creating {} {name}.{namespace} failed: {}", W::NOUN, text(&error)),
        })?;
        self.info(W::CREATED, &format!("{} {name}.{namespace} created", W::KIND));
        Ok(())
    }

    fn recipe<'a, W>(
        &'a self,
        target: &'a W,
        selector: &'a Selector,
        refs: &'a Refs,
        flagger_id: &'a str,
    ) -> Recipe<'a, W> {
        Recipe {
            canary: &self.canary,
            target,
            selector,
            refs,
            flagger_id,
            selector_labels: &self.shell.options.selector_labels,
            include_labels: &self.shell.options.include_label_prefix,
            dialect: self.shell.dialect,
        }
    }

    /// Copies template and configuration to the primary.
    pub async fn promote_primary(&mut self) -> Result<(), String> {
        match self.target()? {
            Target::Deployment => self.promote_to::<Deployment>().await,
            Target::DaemonSet => self.promote_to::<DaemonSet>().await,
            Target::Service => self.promote_service().await,
        }
    }

    async fn promote_to<W: Workload>(&mut self) -> Result<(), String> {
        let name = self.workload_name(Which::Primary);
        let newer = self.shell.dialect == Dialect::Latest;
        let attempts = if newer { ATTEMPTS } else { 1 };
        let failed = |error: String| {
            // The older release calls every workload a deployment here.
            let noun = if newer { W::NOUN } else { "deployment" };
            format!("updating {noun} {name}.{} template spec failed: {error}", self.canary.namespace())
        };
        for attempt in 1..=attempts {
            let target = self.workload::<W>(Which::Target).await?;
            let selector = self.selector_of(&*target)?;
            let mut primary = Arc::unwrap_or_clone(self.workload::<W>(Which::Primary).await?);
            let refs = self.refs(target.template()).await?;
            self.copy_configs(&refs).await?;
            W::promote(&self.recipe(&target, &selector, &refs, &self.shell.uuid()), &mut primary);
            match self.workloads::<W>().replace(&name, &primary).await {
                Err(error) if attempt < attempts && is_conflict(&error) => {}
                result => return result.map(drop).map_err(|error| failed(text(&error))),
            }
        }
        Ok(())
    }

    /// How a workload's rollout stands.
    pub async fn rollout_of(&self, which: Which) -> Result<Rollout, String> {
        let now = self.shell.context.clock.now();
        match self.target()? {
            Target::Deployment => Ok(deployment::rollout(&*self.workload(which).await?, now)),
            Target::DaemonSet => {
                let status = self.canary.status.as_ref();
                let since = status.and_then(|status| status.last_transition_time.as_ref());
                let since = since.map(|since| now.duration_since(since.0).try_into().unwrap_or_default());
                Ok(daemon_set::rollout(&*self.workload(which).await?, since))
            }
            Target::Service => Ok(Rollout { workload: canary::Workload::Service, ..Rollout::default() }),
        }
    }

    /// The hash by which a new revision of the target is noticed.
    pub async fn target_revision(&self) -> Result<String, String> {
        Ok(match self.target()? {
            Target::Deployment => {
                let target = self.workload::<Deployment>(Which::Target).await?;
                pods::hash(&target.spec.as_ref().map(|spec| &spec.template))
            }
            Target::DaemonSet => {
                pods::hash(&daemon_set::revision(Arc::unwrap_or_clone(self.workload(Which::Target).await?)))
            }
            Target::Service => pods::hash(&self.target_service().await?.spec),
        })
    }

    /// The configuration that the target uses, with checksums; `None` if it is not tracked.
    pub async fn target_refs(&self) -> Result<Option<Refs>, String> {
        let tracked = self.shell.options.enable_config_tracking;
        match self.target()? {
            Target::Deployment if tracked => {
                let target = self.workload::<Deployment>(Which::Target).await?;
                self.refs(target.template()).await.map(Some)
            }
            Target::DaemonSet if tracked => {
                let target = self.workload::<DaemonSet>(Which::Target).await?;
                self.refs(target.template()).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Scales the target up or to zero. Nothing scales a Service.
    pub async fn scale(&self, scale: Scale) -> Result<(), String> {
        match self.target()? {
            Target::Deployment => self.scale_deployment(scale).await,
            Target::DaemonSet => self.scale_daemon_set(scale).await,
            Target::Service => Ok(()),
        }
    }

    /// Gives a target that is no longer released what the primary has.
    pub async fn restore_target(&self) -> Result<(), String> {
        match self.target()? {
            Target::Deployment => self.restore_deployment().await,
            Target::DaemonSet => self
                .scale_daemon_set(Scale::Up)
                .await
                .map_err(|error| format!("ScaleFromZero failed: {error}")),
            Target::Service => Ok(()),
        }
    }

    /// Logs about the Canary at level info.
    pub fn info(&self, at: Site, message: &str) {
        self.shell.log.about(Level::Info, at, &self.key, message);
    }
}
