//! What the format cannot say: names that must exist, fields that exclude one another, paths and patterns that must
//! parse. All problems are collected.

use std::collections::BTreeSet;

use apiserver::jsonpath::JsonPath;
use regex::Regex;

use super::error::suggestion;
use super::*;

/// What stands for everything outside the clusters in a cut.
const OUTSIDE: &str = "outside";

type Problems = Vec<(Position, String)>;

/// Everything that is wrong with a scenario, in order of finding. `setup` is its testbed.
pub(super) fn problems(scenario: &Scenario, setup: Option<&Scenario>) -> Problems {
    let spec = &scenario.spec;
    let earlier = setup.iter().flat_map(|setup| &setup.spec.steps);
    let mut check = Check {
        clusters: spec.clusters.iter().map(|cluster| cluster.name.as_str()).collect(),
        traffic: spec.traffic.iter().map(|traffic| traffic.name.as_str()).collect(),
        repositories: spec.repositories.iter().map(|repository| repository.url.as_str()).collect(),
        marks: earlier.chain(&spec.steps).filter_map(|step| step.mark.as_deref()).collect(),
        at: Position { line: 1, column: 1 },
        problems: Vec::new(),
    };
    check.scenario(scenario);
    check.problems
}

struct Check<'a> {
    clusters: Vec<&'a str>,
    traffic: Vec<&'a str>,
    repositories: Vec<&'a str>,
    marks: Vec<&'a str>,
    /// The place of what is being checked.
    at: Position,
    problems: Problems,
}

impl<'a> Check<'a> {
    fn problem(&mut self, message: impl Into<String>) {
        self.problems.push((self.at, message.into()));
    }

    fn scenario(&mut self, scenario: &'a Scenario) {
        let name = &scenario.metadata.name;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if name.is_empty() || !name.chars().all(plain) {
            self.problem(format!("metadata.name {name:?}: use lower-case letters, digits and dashes"));
        }
        let spec = &scenario.spec;
        if spec.clusters.is_empty() {
            self.problem("spec.clusters is empty: a scenario needs a cluster");
        }
        let mut seen = BTreeSet::new();
        for cluster in &spec.clusters {
            self.at = cluster.at;
            if !seen.insert(&cluster.name) {
                self.problem(format!("the cluster {:?} is there twice", cluster.name));
            }
            if cluster.role == RoleField::Data && cluster.nodes == 0 {
                self.problem(format!("the cluster {:?} has no nodes: nothing could run there", cluster.name));
            }
        }
        if let Some(mesh) = &spec.mesh {
            self.at = mesh.at;
            match &mesh.control_plane {
                Some(cluster) => self.cluster(cluster),
                None => self.problem("mesh: the field \"controlPlane\" is missing"),
            }
            for cluster in mesh.data.iter().flatten() {
                self.cluster(cluster);
                let is_data = |found: &Located<ClusterFields>| found.role == RoleField::Data;
                if spec.clusters.iter().any(|found| found.name == *cluster && !is_data(found)) {
                    self.problem(format!(
                        "mesh.data: the cluster {cluster:?} is a control plane: it runs no pods"
                    ));
                }
            }
            if mesh.data.is_none() {
                self.problem("mesh: the field \"data\" is missing: the clusters whose pods get sidecars");
            }
        }
        for (image, behaviour) in &spec.images {
            self.at = behaviour.at;
            self.behaviour(image, behaviour);
        }
        for repository in &spec.repositories {
            for change in &repository.changes {
                self.change(change);
            }
        }
        for traffic in &spec.traffic {
            self.at = traffic.at;
            self.traffic(traffic);
        }
        let mut marks = BTreeSet::new();
        for step in &spec.steps {
            self.at = step.at;
            self.step(step);
            if let Some(mark) = step.mark.as_ref().filter(|mark| !marks.insert(mark.as_str())) {
                self.problem(format!("the mark {mark:?} is there twice"));
            }
        }
        if let Some(until) = &spec.until {
            self.at = until.at;
            self.wait(until);
        }
        for expectation in &spec.expect {
            self.at = expectation.at;
            self.expectation(expectation);
        }
        self.at = Position { line: 1, column: 1 };
        if let Some(golden) = &spec.golden {
            self.cluster(&golden.cluster);
        }
    }

    fn behaviour(&mut self, image: &str, behaviour: &Behaviour) {
        if let Err(problem) = behaviour.check() {
            self.problem(format!("the image {image}: {problem}"));
        }
    }

    fn cluster(&mut self, name: &str) {
        if !self.clusters.contains(&name) {
            let near = suggestion(name, self.clusters.iter().copied());
            self.problem(format!("there is no cluster {name:?}{near}"));
        }
    }

    fn mark(&mut self, name: Option<&String>) {
        if let Some(name) = name.filter(|name| !self.marks.contains(&name.as_str())) {
            let near = suggestion(name, self.marks.iter().copied());
            self.problem(format!("no step has the mark {name:?}{near}"));
        }
    }

    fn moment(&mut self, moment: Option<&Moment>) {
        self.mark(moment.and_then(|moment| moment.mark.as_ref()));
    }

    fn traffic_name(&mut self, name: Option<&String>) {
        if let Some(name) = name.filter(|name| !self.traffic.contains(&name.as_str())) {
            let near = suggestion(name, self.traffic.iter().copied());
            self.problem(format!("there is no traffic {name:?}{near}"));
        }
    }

    fn pattern(&mut self, pattern: &Located<String>) {
        if let Err(error) = Regex::new(pattern) {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            self.problems.push((pattern.at, format!("the regular expression {:?}: {reason}", pattern.value)));
        }
    }

    fn one_of(&mut self, what: &str, given: &[(&str, bool)]) {
        let set: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let all: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
        match set.len() {
            1 => {}
            0 => self.problem(format!("{what} needs one of {}", all.join(", "))),
            _ => self.problem(format!("{what} takes only one of {} at a time", set.join(", "))),
        }
    }

    fn kind(&mut self, api_version: Option<&str>, kind: &str) {
        if api_version.is_none() && api_version_of(kind).is_none() {
            self.problem(format!("the kind {kind:?} is not one of the well-known ones: add its apiVersion"));
        }
    }

    fn object(&mut self, check: &ObjectCheck) {
        self.cluster(&check.cluster);
        self.kind(check.api_version.as_deref(), &check.kind);
        if let Some(path) = &check.path
            && let Err(error) = JsonPath::parse(path)
        {
            self.problems.push((path.at, error));
        }
        check.matches.iter().for_each(|pattern| self.pattern(pattern));
        let conditions = check.equals.is_some()
            || check.matches.is_some()
            || check.min.is_some()
            || check.max.is_some()
            || check.exists.is_some();
        if conditions && check.path.is_none() {
            self.problem("equals, matches, min, max and exists speak of a path: add one");
        }
        if check.path.is_some() && !conditions {
            self.problem("a path needs a condition: equals, matches, min, max or exists");
        }
        if check.absent && (check.path.is_some() || check.contains.is_some()) {
            self.problem("an object that must be absent has no path and contains nothing");
        }
    }

    fn canary(&mut self, check: &CanaryCheck) {
        self.cluster(&check.cluster);
        if let Some(phase) = &check.phase {
            const PHASES: [&str; 11] = [
                "Initializing",
                "Initialized",
                "Waiting",
                "Progressing",
                "WaitingPromotion",
                "Promoting",
                "Finalising",
                "Succeeded",
                "Failed",
                "Terminating",
                "Terminated",
            ];
            if !PHASES.contains(&phase.as_str()) {
                let near = suggestion(phase, PHASES.into_iter());
                self.problem(format!("a Canary has no phase {phase:?}{near}"));
            }
        }
    }

    fn query(&mut self, check: &QueryCheck) {
        self.cluster(&check.cluster);
        if check.value.is_none() && check.min.is_none() && check.max.is_none() && check.empty.is_none() {
            self.problem("the query needs a condition: value, min, max or empty");
        }
    }

    fn origin(&mut self, origin: &Origin) {
        let given = [
            ("gateway", origin.gateway.is_some()),
            ("pod", origin.pod.is_some()),
            ("cluster", origin.cluster.is_some()),
        ];
        self.one_of("from", &given);
        origin.gateway.iter().for_each(|gateway| self.cluster(&gateway.cluster));
        origin.pod.iter().for_each(|pod| self.cluster(&pod.cluster));
        origin.cluster.iter().for_each(|cluster| self.cluster(cluster));
    }

    fn url(&mut self, url: &Located<String>) {
        let parsed = url.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some());
        if parsed.is_none_or(|uri| uri.scheme_str() != Some("http")) {
            let problem = format!("{:?} is no URL: write http://HOST[:PORT]/PATH", url.value);
            self.problems.push((url.at, problem));
        }
    }

    fn traffic(&mut self, traffic: &Traffic) {
        if self.traffic.iter().filter(|name| **name == traffic.name).count() > 1 {
            self.problem(format!("the traffic {:?} is there twice", traffic.name));
        }
        self.origin(&traffic.from);
        self.url(&traffic.url);
        self.method(&traffic.method);
        self.headers(&traffic.headers);
        self.moment(traffic.start.as_ref());
        self.one_of("traffic", &[("open", traffic.open.is_some()), ("closed", traffic.closed.is_some())]);
        if let Some(open) = &traffic.open {
            self.one_of("open", &[("rate", open.rate.is_some()), ("schedule", !open.schedule.is_empty())]);
            let rates = open.rate.into_iter().chain(open.schedule.iter().map(|point| point.rate));
            for rate in rates {
                if !rate.is_finite() || !(0.0..=1e6).contains(&rate) {
                    self.problem(format!(
                        "a rate is a number from 0 to 1000000 requests per second, not {rate}"
                    ));
                }
            }
            if open.schedule.windows(2).any(|pair| pair[1].at < pair[0].at) {
                self.problem("the schedule's times must not go back");
            }
        }
        if let Some(closed) = &traffic.closed
            && !(1..=100_000).contains(&closed.clients)
        {
            self.problem(format!("clients is a number from 1 to 100000, not {}", closed.clients));
        }
    }

    fn method(&mut self, method: &str) {
        if http::Method::from_bytes(method.as_bytes()).is_err() {
            self.problem(format!("{method:?} is no HTTP method"));
        }
    }

    fn headers(&mut self, headers: &std::collections::BTreeMap<String, String>) {
        for (name, value) in headers {
            let name_is_wrong = http::HeaderName::from_bytes(name.as_bytes()).is_err();
            if name_is_wrong || http::HeaderValue::from_str(value).is_err() {
                self.problem(format!("{name:?}: {value:?} is no HTTP header"));
            }
        }
    }

    fn step(&mut self, step: &'a Step) {
        let actions = step.actions();
        match actions.as_slice() {
            [] if step.mark.is_none() => {
                self.problem("the step does nothing: give it an action (apply, wait, git, …) or a mark")
            }
            [] | [_] => {}
            several => self.problem(format!("a step has one action, not {}", several.join(", "))),
        }
        self.moment(step.at.as_ref());
        if let Some(apply) = &step.apply {
            self.apply(apply);
        }
        if let Some(delete) = &step.delete {
            self.cluster(&delete.cluster);
            self.kind(delete.api_version.as_deref(), &delete.kind);
            self.one_of(
                "delete",
                &[("name", delete.name.is_some()), ("selector", delete.selector.is_some())],
            );
        }
        if let Some(patch) = &step.patch {
            self.cluster(&patch.cluster);
            self.kind(patch.api_version.as_deref(), &patch.kind);
            if (patch.r#type == PatchType::Json) != patch.patch.is_array() {
                self.problem("a patch of type json is a list of operations, the other types are objects");
            }
        }
        step.assert.iter().for_each(|check| self.object(check));
        step.wait.iter().for_each(|wait| self.wait(wait));
        step.git.iter().for_each(|git| self.git(git));
        step.image.iter().for_each(|image| self.behaviour(&image.name, &image.behaviour));
        if let Some(traffic) = &step.traffic {
            self.one_of("traffic", &[("start", traffic.start.is_some()), ("stop", traffic.stop.is_some())]);
            self.traffic_name(traffic.start.as_ref());
            self.traffic_name(traffic.stop.as_ref());
        }
        step.fault.iter().for_each(|fault| self.fault(fault));
        if let Some(get) = &step.get {
            self.cluster(&get.cluster);
            if get.api_version.is_none() && kind_of(&get.kind).is_none() {
                self.problem(format!(
                    "the kind {:?} is not one of the well-known ones: add its apiVersion",
                    get.kind
                ));
            }
        }
        step.query.iter().for_each(|query| self.query(query));
        if let Some(request) = &step.request {
            self.origin(&request.from);
            self.url(&request.url);
            self.method(&request.method);
            self.headers(&request.headers);
        }
    }

    fn apply(&mut self, apply: &Apply) {
        let one = [("cluster", apply.cluster.is_some()), ("clusters", !apply.clusters.is_empty())];
        self.one_of("apply", &one);
        apply.cluster.iter().chain(&apply.clusters).for_each(|cluster| self.cluster(cluster));
        let sources = [
            ("file", apply.file.is_some()),
            ("files", !apply.files.is_empty()),
            ("folder", apply.folder.is_some()),
            ("kustomize", apply.kustomize.is_some()),
            ("objects", !apply.objects.is_empty()),
        ];
        self.one_of("apply", &sources);
    }

    fn wait(&mut self, wait: &Wait) {
        let given = [
            ("object", wait.object.is_some()),
            ("canary", wait.canary.is_some()),
            ("rollout", wait.rollout.is_some()),
            ("log", wait.log.is_some()),
            ("query", wait.query.is_some()),
        ];
        self.one_of("wait", &given);
        wait.object.iter().for_each(|check| self.object(check));
        wait.canary.iter().for_each(|check| self.canary(check));
        wait.rollout.iter().for_each(|check| self.cluster(&check.cluster));
        wait.query.iter().for_each(|check| self.query(check));
        if let Some(log) = &wait.log {
            log.cluster.iter().for_each(|cluster| self.cluster(cluster));
            self.one_of("log", &[("message", log.message.is_some()), ("matches", log.matches.is_some())]);
            log.matches.iter().for_each(|pattern| self.pattern(pattern));
            self.mark(log.since.as_ref());
        }
    }

    fn git(&mut self, git: &GitStep) {
        if !self.repositories.contains(&git.repository.as_str()) {
            let near = suggestion(&git.repository, self.repositories.iter().copied());
            self.problem(format!("there is no repository {:?}{near}", git.repository));
        }
        if git.from.is_none() && git.changes.is_empty() && git.merge_into.is_none() {
            self.problem("git does nothing: give it from, changes or mergeInto");
        }
        for change in &git.changes {
            self.change(change);
        }
        git.notify.iter().for_each(|notify| self.cluster(&notify.cluster));
    }

    fn change(&mut self, change: &Located<GitChange>) {
        let outer = std::mem::replace(&mut self.at, change.at);
        let given = [
            ("content", change.content.is_some()),
            ("replace", change.replace.is_some()),
            ("image", change.image.is_some()),
            ("remove", change.remove),
        ];
        self.one_of("a change", &given);
        self.at = outer;
    }

    fn fault(&mut self, fault: &FaultStep) {
        let given = [
            ("cut", fault.cut.is_some()),
            ("heal", fault.heal.is_some()),
            ("api", fault.api.is_some()),
            ("crash", fault.crash.is_some()),
            ("evict", fault.evict.is_some()),
        ];
        self.one_of("fault", &given);
        let clusters = fault.cut.iter().chain(&fault.heal).flat_map(|cut| &cut.between);
        let clusters = clusters.filter(|name| *name != OUTSIDE);
        let clusters = clusters.chain(fault.api.iter().map(|api| &api.cluster));
        let clusters = clusters.chain(fault.crash.iter().chain(&fault.evict).map(|crash| &crash.cluster));
        clusters.for_each(|cluster| self.cluster(cluster));
    }

    fn expectation(&mut self, expectation: &'a Expectation) {
        match expectation.checks().as_slice() {
            [_] => {}
            [] => self.problem("the expectation checks nothing: give it log, canary, object, metric, …"),
            several => self.problem(format!("an expectation has one check, not {}", several.join(", "))),
        }
        if let Some(log) = &expectation.log {
            log.cluster.iter().for_each(|cluster| self.cluster(cluster));
            self.mark(log.from.as_ref());
            self.mark(log.until.as_ref());
            log.only.iter().chain(&log.never).for_each(|pattern| self.pattern(pattern));
            if log.mode == LogMode::Regex {
                log.lines.iter().for_each(|pattern| self.pattern(pattern));
            }
        }
        expectation.object.iter().for_each(|check| self.object(check));
        expectation.metric.iter().for_each(|check| self.query(check));
        expectation.canary.iter().for_each(|check| self.canary(check));
        if let Some(share) = &expectation.share {
            self.window(share.traffic.as_ref(), share.from.as_ref(), share.until.as_ref());
            if share.min.is_none() && share.max.is_none() {
                self.problem("share needs min or max");
            }
        }
        if let Some(errors) = &expectation.errors {
            self.window(errors.traffic.as_ref(), errors.from.as_ref(), errors.until.as_ref());
            if errors.max.is_none() && errors.max_rate.is_none() && errors.min.is_none() {
                self.problem("errors needs max, maxRate or min");
            }
        }
        if let Some(latency) = &expectation.latency {
            self.window(latency.traffic.as_ref(), latency.from.as_ref(), latency.until.as_ref());
            if !(0.0..=1.0).contains(&latency.quantile) {
                self.problem(format!("quantile is a number from 0 to 1, not {}", latency.quantile));
            }
        }
        if let Some(count) = &expectation.requests {
            self.window(count.traffic.as_ref(), count.from.as_ref(), count.until.as_ref());
        }
        if let Some(duration) = &expectation.duration {
            self.mark(duration.from.as_ref());
            self.mark(duration.until.as_ref());
        }
    }

    fn window(&mut self, traffic: Option<&String>, from: Option<&String>, until: Option<&String>) {
        self.traffic_name(traffic);
        self.mark(from);
        self.mark(until);
    }
}

/// Kinds that need no `apiVersion`: the kind, its plural, its short name, its version.
const KINDS: [(&str, &str, &str, &str); 25] = [
    ("AlertProvider", "alertproviders", "", "flagger.app/v1beta1"),
    ("Application", "applications", "app", "argoproj.io/v1alpha1"),
    ("Canary", "canaries", "", "flagger.app/v1beta1"),
    ("ConfigMap", "configmaps", "cm", "v1"),
    ("DaemonSet", "daemonsets", "ds", "apps/v1"),
    ("Deployment", "deployments", "deploy", "apps/v1"),
    ("DestinationRule", "destinationrules", "dr", "networking.istio.io/v1alpha3"),
    ("EndpointSlice", "endpointslices", "", "discovery.k8s.io/v1"),
    ("Endpoints", "endpoints", "ep", "v1"),
    ("Event", "events", "ev", "v1"),
    ("Gateway", "gateways", "gw", "networking.istio.io/v1alpha3"),
    ("HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "autoscaling/v2"),
    ("Job", "jobs", "", "batch/v1"),
    ("MetricTemplate", "metrictemplates", "", "flagger.app/v1beta1"),
    ("Namespace", "namespaces", "ns", "v1"),
    ("Node", "nodes", "no", "v1"),
    ("Pod", "pods", "po", "v1"),
    ("ReplicaSet", "replicasets", "rs", "apps/v1"),
    ("Secret", "secrets", "", "v1"),
    ("Service", "services", "svc", "v1"),
    ("ServiceAccount", "serviceaccounts", "sa", "v1"),
    ("ServiceEntry", "serviceentries", "se", "networking.istio.io/v1alpha3"),
    ("StatefulSet", "statefulsets", "sts", "apps/v1"),
    ("VirtualService", "virtualservices", "vs", "networking.istio.io/v1alpha3"),
    ("CustomResourceDefinition", "customresourcedefinitions", "crd", "apiextensions.k8s.io/v1"),
];

/// The version of a well-known kind.
pub(crate) fn api_version_of(kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|(name, ..)| *name == kind).map(|(.., version)| *version)
}

/// Kind and version of a well-known kind by kind, plural or short name, whatever the case.
pub(crate) fn kind_of(word: &str) -> Option<(&'static str, &'static str)> {
    let word = word.to_lowercase();
    let is = |kind: &str, plural: &str, short: &str| {
        kind.to_lowercase() == word || plural == word || (!short.is_empty() && short == word)
    };
    KINDS
        .iter()
        .find(|(kind, plural, short, _)| is(kind, plural, short))
        .map(|(kind, .., version)| (*kind, *version))
}
