//! The target and its primary: Deployments, the configuration they use, the primary's autoscaler.

use canary::{Dialect, Rollout, Scale};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use serde_json::json;

use crate::configs::{self, Kind, Refs};
use crate::deployment::{self, Recipe, Selector};
use crate::kubernetes::{ATTEMPTS, is_conflict, is_not_found, text};
use crate::log::{Level, Site, site};
use crate::owner::{self, Labels};
use crate::scaler;
use crate::tick::Tick;

const CREATED: Site = site("canary/deployment_controller.go:301", "canary/deployment_controller.go:315");
const CONFIG_MAP_MISSING: Site = site("canary/config_tracker.go:129", "canary/config_tracker.go:214");
const SECRET_MISSING: Site = site("canary/config_tracker.go:140", "canary/config_tracker.go:228");
const CONFIG_MAP_SYNCED: Site = site("canary/config_tracker.go:322", "canary/config_tracker.go:352");
const SECRET_SYNCED: Site = site("canary/config_tracker.go:360", "canary/config_tracker.go:406");
const SCALER_CREATED: Site = site("canary/deployment_controller.go:354", "canary/hpa_reconciler.go:94");
const SCALER_UPDATED: Site = site("canary/deployment_controller.go:376", "canary/hpa_reconciler.go:142");

/// Which of the two Deployments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The target.
    Target,
    /// The primary.
    Primary,
}

impl Tick {
    /// The Deployment's name.
    pub fn workload_name(&self, which: Which) -> String {
        let target = &self.canary.spec.target_ref.name;
        match which {
            Which::Target => target.clone(),
            Which::Primary => format!("{target}-primary"),
        }
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.shell.client.clone(), self.canary.namespace())
    }

    /// A Deployment as it is now.
    pub async fn deployment(&self, which: Which) -> Result<Deployment, String> {
        let name = self.workload_name(which);
        let found = self.deployments().get(&name).await;
        found.map_err(|error| self.lookup_error(&name, &error))
    }

    fn lookup_error(&self, name: &str, error: &kube::Error) -> String {
        let namespace = self.canary.namespace();
        match self.shell.dialect {
            Dialect::Rc1 if is_not_found(error) => format!("deployment {name}.{namespace} not found"),
            Dialect::Rc1 => format!("deployment {name}.{namespace} query error {}", text(error)),
            Dialect::Latest => format!("deployment {name}.{namespace} get query error: {}", text(error)),
        }
    }

    /// Reads the target's selector and ports.
    pub async fn load_target(&mut self) -> Result<(), String> {
        let reference = &self.canary.spec.target_ref;
        if !matches!(reference.kind.as_str(), "Deployment" | "") {
            return Err(format!(
                "Canary {} spec.targetRef.kind {:?} is not simulated: name a Deployment",
                self.key, reference.kind
            ));
        }
        let name = self.workload_name(Which::Target);
        let target = self.deployments().get(&name).await.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 if is_not_found(&error) => {
                format!("deployment {name}.{} not found, retrying", self.canary.namespace())
            }
            Dialect::Rc1 => text(&error),
            Dialect::Latest => self.lookup_error(&name, &error),
        })?;
        self.selector = Some(self.selector_of(&target)?);
        if self.canary.spec.service.port_discovery {
            self.ports = deployment::other_ports(&self.canary.spec, &target);
        }
        Ok(())
    }

    fn selector_of(&self, target: &Deployment) -> Result<Selector, String> {
        let labels = &self.shell.options.selector_labels;
        Selector::of(target, labels, self.shell.dialect).ok_or_else(|| {
            let (name, namespace) = (self.workload_name(Which::Target), self.canary.namespace());
            match self.shell.dialect {
                Dialect::Rc1 => format!(
                    "invalid label selector! Deployment {name}.{namespace} spec.selector.matchLabels must \
                     contain selector 'app: {name}'"
                ),
                Dialect::Latest => format!(
                    "getSelectorLabel failed: deployment {name}.{namespace} spec.selector.matchLabels must \
                     contain one of [{}]",
                    labels.join(" ")
                ),
            }
        })
    }

    /// Makes the primary if it is missing.
    pub async fn ensure_primary(&mut self) -> Result<(), String> {
        let name = self.workload_name(Which::Primary);
        let result = self.try_ensure_primary(&name).await;
        result.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 => format!("creating deployment {name}.{} failed: {error}", self.canary.namespace()),
            Dialect::Latest => format!("createPrimaryDeployment failed: {error}"),
        })
    }

    async fn try_ensure_primary(&mut self, name: &str) -> Result<(), String> {
        match self.deployments().get_metadata(name).await {
            Ok(_) => return Ok(()),
            Err(error) if is_not_found(&error) => {}
            // As upstream: an error that is not "not found" leaves the primary alone.
            Err(_) => return Ok(()),
        }
        let target = self.deployment(Which::Target).await?;
        let selector = self.selector_of(&target)?;
        let refs = self.refs(&target).await?;
        self.copy_configs(&refs).await?;
        let primary = self.recipe(&target, &selector, &refs, &self.shell.uuid()).create();
        let created = self.deployments().create(&PostParams::default(), &primary).await;
        created.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 => text(&error),
            Dialect::Latest => {
                format!("creating deployment {name}.{} failed: {}", self.canary.namespace(), text(&error))
            }
        })?;
        self.info(CREATED, &format!("Deployment {name}.{} created", self.canary.namespace()));
        Ok(())
    }

    fn recipe<'a>(
        &'a self,
        target: &'a Deployment,
        selector: &'a Selector,
        refs: &'a Refs,
        flagger_id: &'a str,
    ) -> Recipe<'a> {
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
        let name = self.workload_name(Which::Primary);
        let attempts = if self.shell.dialect == Dialect::Latest { ATTEMPTS } else { 1 };
        let failed = |error: String| {
            format!("updating deployment {name}.{} template spec failed: {error}", self.canary.namespace())
        };
        for attempt in 1..=attempts {
            let target = self.deployment(Which::Target).await?;
            let selector = self.selector_of(&target)?;
            let mut primary = self.deployment(Which::Primary).await?;
            let refs = self.refs(&target).await?;
            self.copy_configs(&refs).await?;
            self.recipe(&target, &selector, &refs, &self.shell.uuid()).promote(&mut primary);
            match self.deployments().replace(&name, &PostParams::default(), &primary).await {
                Err(error) if attempt < attempts && is_conflict(&error) => {}
                result => return result.map(drop).map_err(|error| failed(text(&error))),
            }
        }
        Ok(())
    }

    /// How a Deployment's rollout stands.
    pub async fn rollout_of(&self, which: Which) -> Result<Rollout, String> {
        Ok(deployment::rollout(&self.deployment(which).await?, self.shell.context.clock.now()))
    }

    /// Scales the target up or to zero.
    pub async fn scale(&self, scale: Scale) -> Result<(), String> {
        let target = self.deployment(Which::Target).await?;
        let current = target.spec.as_ref().and_then(|spec| spec.replicas).filter(|replicas| *replicas > 0);
        let replicas = match (scale, current, self.shell.dialect) {
            (Scale::Zero, ..) => 0,
            (Scale::Up, Some(current), _) => current,
            (Scale::Up, None, Dialect::Rc1) => 1,
            (Scale::Up, None, Dialect::Latest) => self.fit_replicas().await?,
        };
        self.set_replicas(target, replicas).await.map_err(|error| {
            let (name, namespace) = (self.workload_name(Which::Target), self.canary.namespace());
            match (self.shell.dialect, scale) {
                (Dialect::Rc1, _) => format!("scaling {name}.{namespace} to {replicas} failed: {error}"),
                (Dialect::Latest, Scale::Up) => {
                    format!("scaling up {name}.{namespace} to {replicas} failed: {error}")
                }
                (Dialect::Latest, Scale::Zero) => {
                    format!("deployment {name}.{namespace} patch query error: {error}")
                }
            }
        })
    }

    /// Scales the target to a number of replicas.
    pub async fn scale_to(&self, replicas: i32) -> Result<(), String> {
        let target = self.deployment(Which::Target).await?;
        self.set_replicas(target, replicas).await.map_err(|error| {
            let (name, namespace) = (self.workload_name(Which::Target), self.canary.namespace());
            format!("scale failed: scaling {name}.{namespace} to {replicas} failed: {error}")
        })
    }

    async fn set_replicas(&self, mut target: Deployment, replicas: i32) -> Result<(), String> {
        let name = self.workload_name(Which::Target);
        let result = match self.shell.dialect {
            Dialect::Rc1 => {
                target.spec.get_or_insert_default().replicas = Some(replicas);
                self.deployments().replace(&name, &PostParams::default(), &target).await
            }
            Dialect::Latest => {
                let patch = json!({"spec": {"replicas": replicas}});
                self.deployments().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
        };
        result.map(drop).map_err(|error| text(&error))
    }

    /// The replicas of a target that had none: the primary's, or the autoscaler's least.
    async fn fit_replicas(&self) -> Result<i32, String> {
        let Some(reference) = &self.canary.spec.autoscaler_ref else {
            let primary = self.deployment(Which::Primary).await?;
            let replicas = primary.spec.and_then(|spec| spec.replicas);
            return Ok(replicas.filter(|replicas| *replicas > 0).unwrap_or(1));
        };
        if reference.kind != "HorizontalPodAutoscaler" {
            return Ok(1);
        }
        let found = self.scalers().get(&reference.name).await.ok();
        Ok(found.and_then(|found| scaler::least(&found)).filter(|least| *least > 1).unwrap_or(1))
    }

    fn scalers(&self) -> Api<DynamicObject> {
        let resource = scaler::resource(self.shell.dialect);
        Api::namespaced_with(self.shell.client.clone(), self.canary.namespace(), &resource)
    }

    /// Makes the primary's autoscaler, or brings it to the target's figures.
    pub async fn ensure_scaler(&self, only_create: bool) -> Result<(), String> {
        let Some(reference) = &self.canary.spec.autoscaler_ref else { return Ok(()) };
        if reference.kind != "HorizontalPodAutoscaler" {
            return Ok(());
        }
        let result = self.try_ensure_scaler(&reference.name, only_create).await;
        let primary = self.workload_name(Which::Primary);
        let verb = if only_create { "creating" } else { "updating" };
        result.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 => {
                format!(
                    "{verb} HorizontalPodAutoscaler {primary}.{} failed: {error}",
                    self.canary.namespace()
                )
            }
            Dialect::Latest => error,
        })
    }

    async fn try_ensure_scaler(&self, name: &str, only_create: bool) -> Result<(), String> {
        let (api, dialect) = (self.scalers(), self.shell.dialect);
        let namespace = self.canary.namespace();
        let full = |name: &str| match dialect {
            Dialect::Rc1 => format!("HorizontalPodAutoscaler {name}.{namespace}"),
            Dialect::Latest => format!("HorizontalPodAutoscaler v2 {name}.{namespace}"),
        };
        let target = api.get(name).await.map_err(|error| match dialect {
            Dialect::Rc1 if is_not_found(&error) => format!("{} not found, retrying", full(name)),
            Dialect::Rc1 => text(&error),
            Dialect::Latest => {
                format!("HorizontalPodAutoscaler {name}.{namespace} get query error: {}", text(&error))
            }
        })?;
        let primary = format!("{name}-primary");
        let wrap = |verb: &str, error: &kube::Error| match dialect {
            Dialect::Rc1 => text(error),
            Dialect::Latest => format!("{verb} {} failed: {}", full(&primary), text(error)),
        };
        let attempts = if dialect == Dialect::Latest { ATTEMPTS } else { 1 };
        for attempt in 1..=attempts {
            let existing = match api.get(&primary).await {
                Ok(existing) => existing,
                Err(error) if is_not_found(&error) => {
                    let created = scaler::create(&self.canary, &target, dialect);
                    let result = api.create(&PostParams::default(), &created).await;
                    result.map_err(|error| wrap("creating", &error))?;
                    self.info(SCALER_CREATED, &format!("{} created", full(&primary)));
                    return Ok(());
                }
                Err(error) => return Err(wrap("getting", &error)),
            };
            if only_create {
                return Ok(());
            }
            let corrected = scaler::correct(&self.canary, &target, &existing, dialect);
            let Some(corrected) = corrected else { return Ok(()) };
            match api.replace(&primary, &PostParams::default(), &corrected).await {
                Ok(_) => {
                    self.info(SCALER_UPDATED, &format!("{} updated", full(&primary)));
                    return Ok(());
                }
                Err(error) if attempt < attempts && is_conflict(&error) => {}
                Err(error) => return Err(wrap("updating", &error)),
            }
        }
        Ok(())
    }

    /// The configuration that a target uses, with checksums.
    pub async fn refs(&self, target: &Deployment) -> Result<Refs, String> {
        let mut refs = Refs::new();
        let pod = target.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let (Some(pod), true) = (pod, self.shell.options.enable_config_tracking) else { return Ok(refs) };
        let dialect = self.shell.dialect;
        for ((kind, name), required) in configs::references(pod, dialect) {
            let sum = match kind {
                Kind::ConfigMap => {
                    let found = self.config_maps().get(&name).await;
                    found.map(|config| configs::config_map_checksum(&config, dialect))
                }
                Kind::Secret => {
                    let found = self.secrets().get(&name).await;
                    found.map(|secret| configs::secret_checksum(&secret, dialect))
                }
            };
            match sum {
                Ok(Some(sum)) => drop(refs.insert((kind, name), sum)),
                Ok(None) => {}
                Err(error) => self.missing(kind, &name, required, &text(&error))?,
            }
        }
        Ok(refs)
    }

    /// What a missing ConfigMap or Secret leads to: a line in the log, or the tick's end.
    fn missing(&self, kind: Kind, name: &str, required: bool, error: &str) -> Result<(), String> {
        let namespace = self.canary.namespace();
        let found = format!("{} {name}.{namespace} get query error: {error}", kind.name());
        let message = match self.shell.dialect {
            Dialect::Latest if required => {
                return Err(format!(
                    "GetTargetConfigs failed: {} {name}.{namespace} get query error: {found}",
                    kind.name()
                ));
            }
            Dialect::Latest => format!("{} {name}.{namespace} get query failed: {found}", kind.name()),
            Dialect::Rc1 => {
                let kind = if kind == Kind::ConfigMap { "configMap" } else { "secret" };
                format!("{kind} {name}.{namespace} query error {error}")
            }
        };
        let at = if kind == Kind::ConfigMap { CONFIG_MAP_MISSING } else { SECRET_MISSING };
        self.shell.log.print(Level::Error, at, &message);
        Ok(())
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.shell.client.clone(), self.canary.namespace())
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.shell.client.clone(), self.canary.namespace())
    }

    /// Writes the primary's copies of the configuration.
    async fn copy_configs(&self, refs: &Refs) -> Result<(), String> {
        let result = self.try_copy_configs(refs).await;
        result.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 => error,
            Dialect::Latest => format!("CreatePrimaryConfigs failed: {error}"),
        })
    }

    async fn try_copy_configs(&self, refs: &Refs) -> Result<(), String> {
        for (kind, name) in refs.keys() {
            let copy = format!("{name}-primary");
            let metadata = |labels: Option<Labels>| {
                let labels = match self.shell.dialect {
                    Dialect::Rc1 => labels.unwrap_or_default(),
                    Dialect::Latest => owner::without_flux(labels.as_ref()),
                };
                owner::metadata(&self.canary, &copy, labels, Labels::new())
            };
            match kind {
                Kind::ConfigMap => {
                    let from = self.config_maps().get(name).await.map_err(|error| text(&error))?;
                    let metadata = metadata(from.metadata.labels);
                    let object = ConfigMap { metadata, data: from.data, ..Default::default() };
                    put(&self.config_maps(), &copy, &object).await?;
                    self.info(CONFIG_MAP_SYNCED, &format!("ConfigMap {copy} synced"));
                }
                Kind::Secret => {
                    let from = self.secrets().get(name).await.map_err(|error| text(&error))?;
                    let metadata = metadata(from.metadata.labels);
                    let object =
                        Secret { metadata, data: from.data, type_: from.type_, ..Default::default() };
                    put(&self.secrets(), &copy, &object).await?;
                    self.info(SECRET_SYNCED, &format!("Secret {copy} synced"));
                }
            }
        }
        Ok(())
    }

    /// Logs about the Canary at level info.
    pub fn info(&self, at: Site, message: &str) {
        self.shell.log.about(Level::Info, at, &self.key, message);
    }
}

/// Replaces an object, or makes it.
async fn put<K>(api: &Api<K>, name: &str, object: &K) -> Result<(), String>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let result = match api.replace(name, &PostParams::default(), object).await {
        Err(error) if is_not_found(&error) => api.create(&PostParams::default(), object).await,
        result => result,
    };
    result.map(drop).map_err(|error| text(&error))
}
