//! Scaling the target: Deployments by replicas, DaemonSets by a node selector that no node fits.

use std::sync::Arc;

use canary::{Dialect, Scale};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::api::Patch;
use serde_json::json;

use crate::daemon_set;
use crate::kubernetes::text;
use crate::tick::Tick;
use crate::workload::Which;

impl Tick {
    /// Scales the target Deployment up or to zero.
    pub async fn scale_deployment(&self, scale: Scale) -> Result<(), String> {
        let target = self.workload::<Deployment>(Which::Target).await?;
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

    async fn set_replicas(&self, target: Arc<Deployment>, replicas: i32) -> Result<(), String> {
        let (name, api) = (self.workload_name(Which::Target), self.workloads::<Deployment>());
        let result = match self.shell.dialect {
            Dialect::Rc1 => {
                let mut target = Arc::unwrap_or_clone(target);
                target.spec.get_or_insert_default().replicas = Some(replicas);
                api.replace(&name, &target).await
            }
            Dialect::Latest => {
                let patch = json!({"spec": {"replicas": replicas}});
                api.patch(&name, &Patch::Merge(patch)).await
            }
        };
        result.map(drop).map_err(|error| text(&error))
    }

    /// The replicas of a target that had none: the primary's, or the autoscaler's least.
    async fn fit_replicas(&self) -> Result<i32, String> {
        let found = if self.canary.spec.autoscaler_ref.is_some() {
            self.least_replicas().await
        } else {
            let primary = self.workload::<Deployment>(Which::Primary).await?;
            primary.spec.as_ref().and_then(|spec| spec.replicas)
        };
        Ok(found.filter(|replicas| *replicas > 1).unwrap_or(1))
    }

    /// Gives the target Deployment the primary's replicas.
    pub async fn restore_deployment(&self) -> Result<(), String> {
        let Ok(primary) = self.workload::<Deployment>(Which::Primary).await else {
            let scaled = self.scale_deployment(Scale::Up).await;
            return scaled.map_err(|error| format!("ScaleFromZero failed: {error}"));
        };
        let replicas = primary.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let target = self.workload(Which::Target).await?;
        self.set_replicas(target, replicas).await.map_err(|error| {
            let (name, namespace) = (self.workload_name(Which::Target), self.canary.namespace());
            format!("scale failed: scaling {name}.{namespace} to {replicas} failed: {error}")
        })
    }

    /// Schedules the target DaemonSet to its nodes again, or to none.
    pub async fn scale_daemon_set(&self, scale: Scale) -> Result<(), String> {
        let mut target = Arc::unwrap_or_clone(self.workload::<DaemonSet>(Which::Target).await?);
        daemon_set::schedule(&mut target, scale == Scale::Up);
        let (name, namespace) = (self.workload_name(Which::Target), self.canary.namespace());
        let result = self.workloads::<DaemonSet>().replace(&name, &target).await;
        result.map(drop).map_err(|error| {
            let verb = match (self.shell.dialect, scale) {
                (_, Scale::Up) => "scaling up",
                (Dialect::Rc1, Scale::Zero) => "scaling down",
                (Dialect::Latest, Scale::Zero) => "updating",
            };
            format!("{verb} daemonset {name}.{namespace} failed: {}", text(&error))
        })
    }
}
