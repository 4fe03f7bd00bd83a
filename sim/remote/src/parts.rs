//! Work under way: its objects, its progress, what its parts print.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clock::Clock;
use http::{Method, Request, header};
use serde_json::{Value, json};

use crate::kubeconfig::{Cluster, Refusal};
use crate::objects::{self, CONTAINER, INPUT_MAX, Work};
use crate::outlook::{self, Outlook};

/// How often is looked how the work goes.
const GLANCE: Duration = Duration::from_millis(500);
/// How many looks in a row may fail before the cluster counts as lost.
const PATIENCE: u32 = 60;
/// After how many looks without a pod is asked why.
const WONDER: u32 = 10;
/// How many lines of a failed part's log are shown.
const LINES: usize = 10;

/// The parts of a piece of work, as pods of an Indexed Job.
pub struct Parts<'c> {
    cluster: &'c Cluster,
    clock: Clock,
    work: &'c Work,
    name: String,
}

impl<'c> Parts<'c> {
    /// Creates the objects.
    ///
    /// # Errors
    /// A sentence: the input is too large, the cluster cannot be reached, or it refuses. Nothing is left behind.
    pub async fn start(cluster: &'c Cluster, work: &'c Work, clock: Clock) -> Result<Parts<'c>, String> {
        if work.input.len() > INPUT_MAX {
            return Err(format!(
                "the input has {} bytes, and a ConfigMap holds at most {INPUT_MAX}: give fewer or smaller files",
                work.input.len()
            ));
        }
        let is_label = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        };
        if !is_label(&work.namespace) {
            return Err(format!("{:?} is no name of a namespace", work.namespace));
        }
        let said = |refusal: Refusal| refusal.said;
        let namespace = &work.namespace;
        let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
        let map = cluster
            .json(request(Method::POST, &maps, Some(&objects::config_map(work))))
            .await
            .map_err(said)?;
        let name = map["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let parts = Parts { cluster, clock, work, name };
        let job = request(Method::POST, &parts.jobs(), Some(&objects::job(work, &parts.name)));
        match cluster.json(job).await {
            Ok(job) => {
                let mut patch = request(Method::PATCH, &parts.map(), Some(&objects::owned_by(&job)));
                let kind = header::HeaderValue::from_static("application/merge-patch+json");
                patch.headers_mut().insert(header::CONTENT_TYPE, kind);
                // It is deleted at the end anyway: this is for runs that do not get there.
                let _ = cluster.json(patch).await;
                Ok(parts)
            }
            Err(refusal) => {
                let _ = parts.remove().await;
                Err(refusal.said)
            }
        }
    }

    /// The name of the Job and the ConfigMap.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn jobs(&self) -> String {
        format!("/apis/batch/v1/namespaces/{}/jobs", self.work.namespace)
    }

    fn job(&self) -> String {
        format!("{}/{}", self.jobs(), self.name)
    }

    fn map(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps/{}", self.work.namespace, self.name)
    }

    fn pods(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.work.namespace)
    }

    /// Waits until all parts are done and gives what each has printed, by its number. `told` hears of the progress.
    ///
    /// # Errors
    /// A sentence: a part that failed with the last lines of its log, a pod that cannot start, a cluster that is lost.
    pub async fn collect(&self, told: &mut (dyn FnMut(&str) + Send)) -> Result<Vec<String>, String> {
        let mut logs: BTreeMap<u64, String> = BTreeMap::new();
        let mut heard: BTreeSet<String> = BTreeSet::new();
        let (mut failures, mut without_pods) = (0, 0);
        let mut last = None;
        loop {
            let looked = match self.look().await {
                Ok(outlook) => self.fetch(&outlook, &mut logs).await.map(|()| outlook),
                Err(refusal) => Err(refusal),
            };
            let outlook = match looked {
                Ok(outlook) => outlook,
                Err(Refusal { code: Some(404), .. }) => {
                    return Err(format!(
                        "context {}: the Job {}/{} or one of its pods was deleted meanwhile",
                        self.cluster.context(),
                        self.work.namespace,
                        self.name
                    ));
                }
                Err(refusal) => {
                    failures += 1;
                    if failures >= PATIENCE || matches!(refusal.code, Some(401 | 403)) {
                        return Err(refusal.said);
                    }
                    self.clock.sleep(GLANCE).await;
                    continue;
                }
            };
            failures = 0;
            if let Some((said, pod)) = &outlook.trouble {
                return Err(self.trouble(said, pod.as_deref()).await);
            }
            let mut remarks = outlook.remarks.clone();
            without_pods = if outlook.pods == 0 { without_pods + 1 } else { 0 };
            if without_pods == WONDER {
                remarks.extend(self.complaints().await);
            }
            for remark in remarks {
                if heard.insert(remark.clone()) {
                    told(&remark);
                }
            }
            let progress = (logs.len(), outlook.running);
            if last != Some(progress) {
                last = Some(progress);
                told(&format!("{} of {} shards done, {} running", progress.0, self.work.parts, progress.1));
            }
            if logs.len() as u64 >= self.work.parts {
                return Ok(logs.into_values().collect());
            }
            self.clock.sleep(GLANCE).await;
        }
    }

    async fn look(&self) -> Result<Outlook, Refusal> {
        let job = self.cluster.json(request(Method::GET, &self.job(), None)).await?;
        let path = format!("{}?labelSelector=job-name%3D{}", self.pods(), self.name);
        let mut pods = self.cluster.json(request(Method::GET, &path, None)).await?;
        let pods = match pods["items"].take() {
            Value::Array(pods) => pods,
            _ => Vec::new(),
        };
        Ok(outlook::read(&job, &pods, self.work.hopeless))
    }

    /// Fetches the logs of parts that are done, before their pods go.
    async fn fetch(&self, outlook: &Outlook, logs: &mut BTreeMap<u64, String>) -> Result<(), Refusal> {
        for (index, pod) in &outlook.done {
            if !logs.contains_key(index) {
                logs.insert(*index, self.log(pod, None).await?);
            }
        }
        Ok(())
    }

    async fn log(&self, pod: &str, tail: Option<usize>) -> Result<String, Refusal> {
        let tail = tail.map_or_else(String::new, |lines| format!("&tailLines={lines}"));
        let path = format!("{}/{pod}/log?container={CONTAINER}{tail}", self.pods());
        self.cluster.text(request(Method::GET, &path, None)).await
    }

    async fn trouble(&self, said: &str, pod: Option<&str>) -> String {
        let context = self.cluster.context();
        let mut said = format!("context {context}, namespace {}: {said}", self.work.namespace);
        if let Some(pod) = pod {
            let log = self.log(pod, Some(LINES)).await.unwrap_or_else(|refusal| refusal.said);
            if log.trim().is_empty() {
                said.push_str("; its log is empty");
            } else {
                said.push_str("; the end of its log:");
                log.lines().for_each(|line| said.push_str(&format!("\n  {line}")));
            }
        }
        said
    }

    /// What the Job's events complain about.
    async fn complaints(&self) -> Vec<String> {
        let path = format!(
            "/api/v1/namespaces/{}/events?fieldSelector=involvedObject.name%3D{}",
            self.work.namespace, self.name
        );
        let Ok(events) = self.cluster.json(request(Method::GET, &path, None)).await else {
            return Vec::new();
        };
        let warnings =
            events["items"].as_array().into_iter().flatten().filter(|event| event["type"] == "Warning");
        warnings
            .map(|event| format!("no pod yet: {}", event["message"].as_str().unwrap_or_default()))
            .collect()
    }

    /// Deletes the objects, pods included.
    ///
    /// # Errors
    /// A sentence that names what is left.
    pub async fn remove(&self) -> Result<(), String> {
        let options = json!({"propagationPolicy": "Background"});
        let mut left = Vec::new();
        for (kind, path) in [("Job", self.job()), ("ConfigMap", self.map())] {
            match self.cluster.json(request(Method::DELETE, &path, Some(&options))).await {
                Ok(_) | Err(Refusal { code: Some(404), .. }) => {}
                Err(refusal) => {
                    left.push(format!(
                        "{kind} {}/{} is left behind: {}",
                        self.work.namespace, self.name, refusal.said
                    ));
                }
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    }
}

fn request(method: Method, path: &str, body: Option<&Value>) -> Request<Vec<u8>> {
    let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("namespaces and names that the API server knows are paths");
    request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    request
}
