//! The target's ConfigMaps and Secrets: their checksums, and the primary's copies.

use canary::Dialect;
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Secret};
use program::Api;

use crate::configs::{self, Kind, Refs};
use crate::kubernetes::{is_not_found, text};
use crate::log::{Level, Site, site};
use crate::owner::{self, Labels};
use crate::tick::Tick;

const CONFIG_MAP_MISSING: Site = site("canary/config_tracker.go:129", "canary/config_tracker.go:214");
const SECRET_MISSING: Site = site("canary/config_tracker.go:140", "canary/config_tracker.go:228");
const CONFIG_MAP_SYNCED: Site = site("canary/config_tracker.go:322", "canary/config_tracker.go:352");
const SECRET_SYNCED: Site = site("canary/config_tracker.go:360", "canary/config_tracker.go:406");

impl Tick {
    /// The configuration that a target uses, with checksums.
    pub async fn refs(&self, template: Option<&PodTemplateSpec>) -> Result<Refs, String> {
        let mut refs = Refs::new();
        let pod = template.and_then(|template| template.spec.as_ref());
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
    pub async fn copy_configs(&self, refs: &Refs) -> Result<(), String> {
        let result = self.try_copy_configs(refs).await;
        result.map_err(|error| match self.shell.dialect {
            Dialect::Rc1 => error,
            Dialect::Latest => format!("CreatePrimaryConfigs failed: {error}"),
        })
    }

    async fn try_copy_configs(&self, refs: &Refs) -> Result<(), String> {
        for (kind, name) in refs.keys() {
            let copy = format!("{name}-primary");
            let metadata = |labels: &Option<Labels>| {
                let labels = match self.shell.dialect {
                    Dialect::Rc1 => labels.clone().unwrap_or_default(),
                    Dialect::Latest => {
                        owner::included(labels.as_ref(), &self.shell.options.include_label_prefix)
                    }
                };
                owner::metadata(&self.canary, &copy, labels, Labels::new())
            };
            match kind {
                Kind::ConfigMap => {
                    let from = self.config_maps().get(name).await.map_err(|error| text(&error))?;
                    let metadata = metadata(&from.metadata.labels);
                    let object = ConfigMap { metadata, data: from.data.clone(), ..Default::default() };
                    put(&self.config_maps(), &copy, &object).await?;
                    self.info(CONFIG_MAP_SYNCED, &format!("ConfigMap {copy} synced"));
                }
                Kind::Secret => {
                    let from = self.secrets().get(name).await.map_err(|error| text(&error))?;
                    let metadata = metadata(&from.metadata.labels);
                    let object = Secret {
                        metadata,
                        data: from.data.clone(),
                        type_: from.type_.clone(),
                        ..Default::default()
                    };
                    put(&self.secrets(), &copy, &object).await?;
                    self.info(SECRET_SYNCED, &format!("Secret {copy} synced"));
                }
            }
        }
        Ok(())
    }
}

/// Replaces an object, or makes it.
async fn put<K: program::Kind>(api: &Api<K>, name: &str, object: &K) -> Result<(), String> {
    let result = match api.replace(name, object).await {
        Err(error) if is_not_found(&error) => api.create(object).await,
        result => result,
    };
    result.map(drop).map_err(|error| text(&error))
}
