//! Carries out steps.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::Value;

use super::client::Client;
use super::objects::reason;
use super::traffic::Stream;
use super::{Runner, StepError, check, fault, query, repository};
use crate::scenario::{
    CanaryCheck, Delete, GetStep, GitStep, Loaded, Located, ObjectCheck, Origin, PatchStep, PatchType,
    RequestCheck, Step, TrafficStep, kind_of,
};
use crate::timeline::Event;

impl Runner<'_> {
    /// Carries out one step, when its time has come.
    pub(super) async fn step(
        &self,
        source: &Loaded,
        index: usize,
        step: &Located<Step>,
    ) -> Result<(), StepError> {
        if let Some(pause) = step.after {
            self.clock.sleep(pause.0).await;
        }
        if let Some(moment) = &step.value.at {
            let base = match &moment.mark {
                None => std::time::Duration::ZERO,
                Some(mark) => {
                    let unreached =
                        || StepError::Unusable(format!("at: the mark {mark:?} belongs to a later step"));
                    self.mark(mark).ok_or_else(unreached)?.at
                }
            };
            self.clock.sleep_until_elapsed(base + moment.after).await;
        }
        if let Some(mark) = &step.mark {
            self.set_mark(mark);
        }
        let unusable = StepError::Unusable;
        if let Some(apply) = &step.apply {
            let objects = &source.manifests[&index];
            for cluster in apply.cluster.iter().chain(&apply.clusters) {
                let source = apply.kustomize.as_ref().or(apply.folder.as_ref()).or(apply.file.as_ref());
                let what = source.map_or_else(|| format!("{} objects", objects.len()), Clone::clone);
                self.say(step, format!("{what} to {cluster}"));
                for object in objects.iter().filter(|object| !self.leaves_out(object)) {
                    let namespace = apply.namespace.as_deref();
                    self.objects.apply(&self.world, cluster, namespace, object).await.map_err(unusable)?;
                }
            }
        }
        if let Some(delete) = &step.delete {
            self.delete(step, delete).await?;
        }
        if let Some(patch) = &step.patch {
            self.patch(step, patch).await?;
        }
        if let Some(assert) = &step.assert {
            self.say(step, check::wish(assert));
            let found = self.current(assert).await.map_err(unusable)?;
            check::object(assert, found.as_ref()).map_err(StepError::Unmet)?;
        }
        if let Some(wait) = step.wait.as_ref().filter(|_| self.left_out.is_empty()) {
            self.say(step, super::wish(wait));
            self.wait(wait).await?;
        }
        if let Some(sleep) = step.sleep {
            self.say(step, sleep.to_string());
            self.clock.sleep(sleep.0).await;
        }
        if let Some(git) = &step.git {
            self.git(step, git).await?;
        }
        if let Some(image) = &step.image {
            self.world.set_behaviour(&image.name, &image.behaviour).map_err(unusable)?;
            self.say(step, format!("{} behaves differently", image.name));
        }
        if let Some(traffic) = &step.traffic {
            self.change_traffic(step, traffic).await?;
        }
        if let Some(faults) = &step.fault {
            let done = fault::inject(&self.world, &self.api_faults, faults).await?;
            self.say(step, done);
        }
        if let Some(get) = &step.get {
            self.get(step, get).await?;
        }
        if let Some(asked) = &step.query {
            self.say(step, asked.promql.clone());
            let found = query::ask(&self.world, asked).await.map_err(StepError::Unmet)?;
            check::query(asked, found).map_err(StepError::Unmet)?;
        }
        if let Some(request) = &step.request {
            self.request(step, request).await?;
        }
        Ok(())
    }

    /// Whether an object is a workload that somebody wants to run elsewhere.
    fn leaves_out(&self, object: &Value) -> bool {
        let is_workload =
            matches!(object["kind"].as_str(), Some("Deployment" | "DaemonSet" | "StatefulSet" | "Pod"));
        is_workload && object["metadata"]["name"].as_str().is_some_and(|name| self.left_out.contains(name))
    }

    /// Writes into the timeline what a step does.
    fn say(&self, step: &Step, text: String) {
        let text = match &step.name {
            Some(name) => format!("{name} ({text})"),
            None => text,
        };
        let event = Event::Step { action: step.action(), text };
        self.world.logs().record_now(&self.clock, event);
    }

    async fn delete(&self, step: &Step, delete: &Delete) -> Result<(), StepError> {
        let kind = (delete.api_version.as_deref(), delete.kind.as_str());
        let namespace = delete.namespace.as_deref();
        let api = self.objects.api_of_object(&self.world, &delete.cluster, kind, namespace).await;
        let api = api.map_err(StepError::Unusable)?;
        let names = match (&delete.name, &delete.selector) {
            (Some(name), _) => vec![name.clone()],
            (None, selector) => {
                let selector = selector.as_deref().unwrap_or_default();
                let found = api.list(&ListParams::default().labels(selector)).await;
                let found = found.map_err(|error| StepError::Unusable(reason(&error)))?;
                found.into_iter().filter_map(|object| object.metadata.name).collect()
            }
        };
        let kind = &delete.kind;
        self.say(step, format!("{kind} {} in {}", names.join(", "), delete.cluster));
        for name in names {
            match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 && delete.ignore_missing => {}
                Err(error) => return Err(StepError::Unusable(format!("{kind} {name}: {}", reason(&error)))),
            }
        }
        Ok(())
    }

    async fn patch(&self, step: &Step, patch: &PatchStep) -> Result<(), StepError> {
        let kind = (patch.api_version.as_deref(), patch.kind.as_str());
        let namespace = patch.namespace.as_deref();
        let what = format!("{} {} in {}", patch.kind, patch.name, patch.cluster);
        self.say(step, what.clone());
        let api = self.objects.api_of_object(&self.world, &patch.cluster, kind, namespace).await;
        let api = api.map_err(StepError::Unusable)?;
        let body: Patch<Value> = match patch.r#type {
            PatchType::Merge => Patch::Merge(patch.patch.clone()),
            PatchType::Strategic => Patch::Strategic(patch.patch.clone()),
            PatchType::Json => {
                let operations = serde_json::from_value(patch.patch.clone());
                Patch::Json(operations.map_err(|error| StepError::Unusable(format!("{what}: {error}")))?)
            }
        };
        let parameters = PatchParams::default();
        let done = match patch.subresource.as_deref() {
            None => api.patch(&patch.name, &parameters, &body).await,
            Some(subresource) => api.patch_subresource(subresource, &patch.name, &parameters, &body).await,
        };
        done.map(drop).map_err(|error| StepError::Unusable(format!("{what}: {}", reason(&error))))
    }

    /// The object that a check speaks of, as it is now.
    pub(super) async fn current(&self, check: &ObjectCheck) -> Result<Option<tree::Value>, String> {
        let kind = (check.api_version.as_deref(), check.kind.as_str());
        let namespace = check.namespace.as_deref();
        let api = self.objects.api_of_object(&self.world, &check.cluster, kind, namespace).await?;
        let found = api.get_opt(&check.name).await;
        let found = found.map_err(|error| format!("{}: {}", check::describe(check), reason(&error)))?;
        Ok(found.and_then(|object| serde_json::to_value(object).ok()).map(Into::into))
    }

    /// The Canary that a check speaks of, as it is now.
    pub(super) async fn canary_now(&self, check: &CanaryCheck) -> Result<Option<tree::Value>, String> {
        let check = ObjectCheck {
            cluster: check.cluster.clone(),
            kind: "Canary".into(),
            namespace: Some(check.namespace.clone()),
            name: check.name.clone(),
            ..ObjectCheck::default()
        };
        self.current(&check).await
    }

    async fn git(&self, step: &Step, git: &GitStep) -> Result<(), StepError> {
        let done = repository::change(&self.world, &self.clock, git).map_err(StepError::Unusable)?;
        self.say(step, done);
        if let Some(notify) = &git.notify {
            let network = self.world.users(Some(&notify.cluster)).map_err(StepError::Unusable)?;
            // A git host that cannot deliver a webhook goes on: the controller polls anyway.
            if let Err(error) = repository::notify(network, notify, git).await {
                self.say(step, error);
            }
        }
        Ok(())
    }

    async fn change_traffic(&self, step: &Step, change: &TrafficStep) -> Result<(), StepError> {
        if let Some(name) = &change.start {
            self.say(step, format!("start {name}"));
            self.start_traffic(name).await.map_err(StepError::Unusable)?;
        }
        if let Some(name) = &change.stop {
            self.say(step, format!("stop {name}"));
            let streams = self.streams.lock().expect("no holder of this lock panics");
            if let Some(stream) = streams.get(name) {
                stream.stop();
            }
        }
        Ok(())
    }

    /// Starts a traffic of the scenario.
    pub(super) async fn start_traffic(&self, name: &str) -> Result<(), String> {
        let index = self.traffic_index(name).ok_or_else(|| format!("there is no traffic {name:?}"))?;
        let spec = &self.loaded.scenario.spec.traffic[usize::from(index)];
        let stream = Stream::start(&self.world, spec, index, &self.record, (self.clock, self.seed)).await;
        let stream = stream.map_err(|error| format!("traffic {name}: {error}"))?;
        self.streams.lock().expect("no holder of this lock panics").insert(name.to_owned(), stream);
        Ok(())
    }

    async fn get(&self, step: &Step, get: &GetStep) -> Result<(), StepError> {
        let known = kind_of(&get.kind);
        let kind = match (&get.api_version, known) {
            (Some(version), _) => (Some(version.as_str()), known.map_or(get.kind.as_str(), |(kind, _)| kind)),
            (None, Some((kind, version))) => (Some(version), kind),
            (None, None) => (None, get.kind.as_str()),
        };
        let all = if get.namespace.is_some() { "" } else { " --all-namespaces" };
        self.say(step, format!("{}{all} in {}", get.kind, get.cluster));
        let table = self.objects.table(&self.world, &get.cluster, kind, get.namespace.as_deref()).await;
        let table = table.map_err(StepError::Unusable)?;
        self.world.logs().record_now(&self.clock, Event::Table(table));
        Ok(())
    }

    async fn request(&self, step: &Step, check: &RequestCheck) -> Result<(), StepError> {
        let what = format!("{} {}", check.method, check.url.value);
        self.say(step, what.clone());
        let origin: &Origin = &check.from;
        let client = Client::at(&self.world, origin).await.map_err(StepError::Unusable)?;
        let request = client.request(&check.method, &check.url, &check.headers, check.body.as_deref());
        let answer = client.network().send(request.map_err(StepError::Unusable)?).await;
        let (status, text) = match &answer {
            Ok(response) => {
                (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
            }
            Err(error) => (0, error.to_string()),
        };
        if status != check.status {
            let wanted = check.status;
            return Err(StepError::Unmet(format!("{what}: status {status}, not {wanted}: {}", text.trim())));
        }
        match &check.contains {
            Some(part) if !text.contains(part.as_str()) => Err(StepError::Unmet(format!(
                "{what}: the answer does not contain {part:?}: {}",
                text.trim()
            ))),
            _ => Ok(()),
        }
    }
}
