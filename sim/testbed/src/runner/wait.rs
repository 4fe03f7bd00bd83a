//! Waiting for conditions: every wait follows a watch or the timeline, and ends at a virtual time.

use std::ops::ControlFlow;
use std::time::Duration;

use clock::Clock;
use kube::Api;
use kube::api::DynamicObject;
use program::{Seen, Selection, list_and_watch};
use regex::Regex;
use tree::Value;

use super::{Runner, StepError, check, query};
use crate::scenario::{LogCheck, QueryCheck, Wait};
use crate::timeline::{Component, Event};

/// How often what cannot be watched is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How often a query is asked: Prometheus' usual scrape interval in these scenarios.
const QUERY_PERIOD: Duration = Duration::from_secs(5);
/// Lines of an object's last state that are shown.
const STATE_LINES_MAX: usize = 40;

/// An object that is waited for.
struct Target<'a> {
    cluster: &'a str,
    kind: (Option<&'a str>, &'a str),
    namespace: Option<&'a str>,
    name: &'a str,
}

impl Runner<'_> {
    /// Waits for a condition.
    pub(super) async fn wait(&self, wait: &Wait) -> Result<(), StepError> {
        let left = self.deadline().saturating_sub(self.clock.elapsed());
        let limit = wait.timeout.0.min(left);
        if let Some(object) = &wait.object {
            let target = Target {
                cluster: &object.cluster,
                kind: (object.api_version.as_deref(), &object.kind),
                namespace: object.namespace.as_deref(),
                name: &object.name,
            };
            return self.wait_object(target, limit, |found| check::object(object, found)).await;
        }
        if let Some(canary) = &wait.canary {
            let target = Target {
                cluster: &canary.cluster,
                kind: (None, "Canary"),
                namespace: Some(&canary.namespace),
                name: &canary.name,
            };
            return self.wait_object(target, limit, |found| check::canary(canary, found)).await;
        }
        if let Some(rollout) = &wait.rollout {
            let what =
                format!("Deployment {}/{} in {}", rollout.namespace, rollout.deployment, rollout.cluster);
            let target = Target {
                cluster: &rollout.cluster,
                kind: (None, "Deployment"),
                namespace: Some(&rollout.namespace),
                name: &rollout.deployment,
            };
            return self.wait_object(target, limit, |found| check::rollout(&what, found)).await;
        }
        if let Some(log) = &wait.log {
            return self.wait_log(log, limit).await;
        }
        if let Some(query) = &wait.query {
            return self.wait_query(query, limit).await;
        }
        Ok(())
    }

    async fn wait_object(
        &self,
        target: Target<'_>,
        limit: Duration,
        condition: impl Fn(Option<&Value>) -> Result<(), String> + Sync,
    ) -> Result<(), StepError> {
        let mut last: Option<Value> = None;
        let mut problem = "it was never looked at".to_owned();
        let follow = async {
            loop {
                let namespace = target.namespace;
                let api =
                    self.objects.api_of_object(&self.world, target.cluster, target.kind, namespace).await;
                match api {
                    Ok(api) => {
                        return follow(self.clock, api, target.name, &condition, &mut last, &mut problem)
                            .await;
                    }
                    // The kind's definition may still come.
                    Err(error) => problem = error,
                }
                self.clock.sleep(RETRY).await;
            }
        };
        let followed = self.clock.timeout(limit, follow).await;
        match followed {
            Ok(()) => Ok(()),
            Err(_) => Err(StepError::Unmet(format!(
                "after {} of virtual time {problem}{}",
                loadgen::format_duration(limit),
                last.map(|object| state(&object)).unwrap_or_default()
            ))),
        }
    }

    async fn wait_log(&self, check: &LogCheck, limit: Duration) -> Result<(), StepError> {
        let pattern = match &check.matches {
            Some(pattern) => {
                Some(Regex::new(pattern).map_err(|error| StepError::Unusable(error.to_string()))?)
            }
            None => None,
        };
        let timeline = self.world.logs();
        let component = Component {
            cluster: check.cluster.as_deref(),
            namespace: check.namespace.as_deref(),
            workload: &check.workload,
            container: check.container.as_deref(),
        };
        let mut seen = match &check.since {
            Some(mark) => self.mark(mark).map(|mark| mark.entry).unwrap_or_default(),
            None => timeline.len(),
        };
        let mut last = None;
        let follow = async {
            loop {
                {
                    let entries = timeline.entries();
                    for entry in &entries[seen.min(entries.len())..] {
                        let Event::Line { source, .. } = &entry.event else { continue };
                        if !component.has(source) {
                            continue;
                        }
                        let message = entry.message().unwrap_or_default();
                        let is = check.message.as_deref().is_none_or(|wanted| wanted == message)
                            && pattern.as_ref().is_none_or(|pattern| pattern.is_match(&message));
                        if is {
                            return;
                        }
                        last = Some(message.into_owned());
                    }
                    seen = entries.len();
                }
                timeline.longer_than(seen).await;
            }
        };
        match self.clock.timeout(limit, follow).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let wanted =
                    check.message.as_deref().or(check.matches.as_ref().map(|pattern| pattern.as_str()));
                let last = match last {
                    Some(line) => format!("its last line is {line:?}"),
                    None => "it printed nothing".into(),
                };
                Err(StepError::Unmet(format!(
                    "after {} of virtual time {} has not printed {:?}; {last}",
                    loadgen::format_duration(limit),
                    check.workload,
                    wanted.unwrap_or_default(),
                )))
            }
        }
    }

    async fn wait_query(&self, check: &QueryCheck, limit: Duration) -> Result<(), StepError> {
        let mut problem = "it was never asked".to_owned();
        let follow = async {
            loop {
                match query::ask(&self.world, check).await.and_then(|value| check::query(check, value)) {
                    Ok(()) => return,
                    Err(error) => problem = error,
                }
                self.clock.sleep(QUERY_PERIOD).await;
            }
        };
        match self.clock.timeout(limit, follow).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let limit = loadgen::format_duration(limit);
                Err(StepError::Unmet(format!("after {limit} of virtual time {problem}")))
            }
        }
    }
}

/// Watches one object until the condition holds.
async fn follow(
    clock: Clock,
    api: Api<DynamicObject>,
    name: &str,
    condition: &(impl Fn(Option<&Value>) -> Result<(), String> + Sync),
    last: &mut Option<Value>,
    problem: &mut String,
) {
    let only = Selection::fields(format!("metadata.name={name}"));
    let take = |seen: Seen| {
        *last = match seen {
            Seen::Listed(objects) => objects.first().map(|object| object.json().into()),
            Seen::Applied(object) => Some(object.json().into()),
            Seen::Deleted(_) => None,
            Seen::Failed(error) => {
                *problem = error;
                return ControlFlow::Continue(());
            }
        };
        match condition(last.as_ref()) {
            Ok(()) => ControlFlow::Break(()),
            Err(error) => {
                *problem = error;
                ControlFlow::Continue(())
            }
        }
    };
    let path = api.resource_url().to_owned();
    list_and_watch(clock, api.into_client(), &path, only, Box::new(take)).await;
}

/// An object's last state for a failure: its status, or all of it if it has none.
fn state(object: &Value) -> String {
    let (what, value) = match object.get("status") {
        Some(status) => ("status", status),
        None => ("state", object),
    };
    let yaml = serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string());
    let mut text = format!("; its last {what} was:");
    for (index, line) in yaml.lines().enumerate() {
        if index == STATE_LINES_MAX {
            text.push_str("\n    …");
            break;
        }
        text.push_str("\n    ");
        text.push_str(line);
    }
    text
}
