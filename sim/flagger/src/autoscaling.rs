//! The target's autoscaler and the primary's: HorizontalPodAutoscalers, and KEDA's ScaledObjects in the newer dialect.

use std::sync::Arc;

use canary::Dialect;
use crd::{KedaVersion, ScaledObject};
use kube::core::DynamicObject;
use program::Api;

use crate::kubernetes::{ATTEMPTS, is_conflict, is_not_found, text};
use crate::log::{Site, site};
use crate::scaled_object;
use crate::scaler;
use crate::tick::Tick;
use crate::workload::{Target, Which};

const SCALER_CREATED: Site = site("canary/deployment_controller.go:354", "canary/hpa_reconciler.go:94");
const SCALER_UPDATED: Site = site("canary/deployment_controller.go:376", "canary/hpa_reconciler.go:142");
const SCALED_OBJECT_CREATED: Site =
    site("canary/scaled_object_reconciler.go:89", "canary/scaled_object_reconciler.go:89");

/// What scales the target.
enum Scaler<'a> {
    Hpa(&'a str),
    ScaledObject(&'a str),
}

impl Tick {
    /// The target's autoscaler, of a kind that the dialect knows. The older one knows it of Deployments only.
    fn autoscaler(&self) -> Option<Scaler<'_>> {
        let reference = self.canary.spec.autoscaler_ref.as_ref()?;
        match (reference.kind.as_str(), self.shell.dialect) {
            ("HorizontalPodAutoscaler", Dialect::Rc1) if self.target() != Ok(Target::Deployment) => None,
            ("HorizontalPodAutoscaler", _) => Some(Scaler::Hpa(&reference.name)),
            ("ScaledObject", Dialect::Latest) => Some(Scaler::ScaledObject(&reference.name)),
            _ => None,
        }
    }

    /// The least number of replicas that the target's autoscaler asks for, if it can be read.
    pub async fn least_replicas(&self) -> Option<i32> {
        match self.autoscaler()? {
            Scaler::Hpa(name) => scaler::least(&*self.scalers().get(name).await.ok()?),
            Scaler::ScaledObject(name) => self.scaled_objects().get(name).await.ok()?.spec.min_replica_count,
        }
    }

    /// Makes the primary's autoscaler, or brings it to the target's figures.
    pub async fn ensure_scaler(&self, only_create: bool) -> Result<(), String> {
        let result = match self.autoscaler() {
            None => return Ok(()),
            Some(Scaler::Hpa(name)) => self.try_ensure_scaler(name, only_create).await,
            Some(Scaler::ScaledObject(name)) => self.ensure_scaled_object(name, only_create).await,
        };
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

    /// Keeps KEDA from scaling a target up again that is scaled to zero. A HorizontalPodAutoscaler rests by itself.
    pub async fn pause_target_scaler(&self) -> Result<(), String> {
        self.annotate_scaled_object(Some("0")).await
    }

    /// Lets KEDA scale the target again.
    pub async fn resume_target_scaler(&self) -> Result<(), String> {
        self.annotate_scaled_object(None).await
    }

    async fn annotate_scaled_object(&self, paused: Option<&str>) -> Result<(), String> {
        let Some(Scaler::ScaledObject(name)) = self.autoscaler() else { return Ok(()) };
        let api = self.scaled_objects();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let found = api.get(name).await.map_err(|error| self.scaled_object_error(name, &error))?;
            let mut object = Arc::unwrap_or_clone(found);
            let marks = object.metadata.annotations.get_or_insert_default();
            match paused {
                Some(replicas) => marks.insert(ScaledObject::PAUSED_REPLICAS.to_owned(), replicas.to_owned()),
                None => marks.remove(ScaledObject::PAUSED_REPLICAS),
            };
            match api.replace(name, &object).await {
                Err(error) if attempt < ATTEMPTS && is_conflict(&error) => {}
                result => return result.map(drop).map_err(|error| text(&error)),
            }
        }
    }

    fn scaled_objects(&self) -> Api<ScaledObject> {
        Api::namespaced_with(self.shell.client.clone(), self.canary.namespace(), &KedaVersion)
    }

    fn scaled_object_error(&self, name: &str, error: &kube::Error) -> String {
        format!("Keda ScaledObject {name}.{} get query error: {}", self.canary.namespace(), text(error))
    }

    async fn ensure_scaled_object(&self, name: &str, only_create: bool) -> Result<(), String> {
        let (api, namespace) = (self.scaled_objects(), self.canary.namespace());
        let target = api.get(name).await.map_err(|error| self.scaled_object_error(name, &error))?;
        let primary = format!("{name}-primary");
        let wanted = scaled_object::primary(&self.canary, &target);
        for attempt in 1..=ATTEMPTS {
            let existing = match api.get(&primary).await {
                Ok(existing) => existing,
                Err(error) if is_not_found(&error) => {
                    api.create(&wanted).await.map_err(|error| {
                        format!("creating Keda ScaledObject {primary}.{namespace} failed: {}", text(&error))
                    })?;
                    let message = format!("Keda ScaledObject {primary}.{namespace} created");
                    self.info(SCALED_OBJECT_CREATED, &message);
                    return Ok(());
                }
                Err(error) => {
                    let error = text(&error);
                    return Err(format!("Keda ScaledObject {primary}.{namespace} get query failed: {error}"));
                }
            };
            if only_create || existing.spec == wanted.spec {
                return Ok(());
            }
            let mut corrected = Arc::unwrap_or_clone(existing);
            corrected.spec = wanted.spec.clone();
            match api.replace(&primary, &corrected).await {
                Ok(_) => return Ok(()),
                Err(error) if attempt < ATTEMPTS && is_conflict(&error) => {}
                Err(error) => {
                    let error = text(&error);
                    return Err(format!("updating ScaledObject {primary}.{namespace} failed: {error}"));
                }
            }
        }
        Ok(())
    }

    fn scalers(&self) -> Api<DynamicObject> {
        let resource = scaler::resource(self.shell.dialect);
        Api::namespaced_with(self.shell.client.clone(), self.canary.namespace(), &resource)
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
                    let result = api.create(&created).await;
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
            match api.replace(&primary, &corrected).await {
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
}
