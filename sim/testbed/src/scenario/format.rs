//! The scenario document: what there is before the first step.

use std::collections::BTreeMap;

use clock::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Behaviour, Expectation, Located, Span, Step, Traffic, Wait};

/// A scenario: a system, what happens to it, and what must come of it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// The format's version.
    pub api_version: ApiVersion,
    /// The document's kind.
    pub kind: Kind,
    /// The scenario's name.
    pub metadata: Metadata,
    /// What the scenario shows, in a sentence or two.
    #[serde(default)]
    pub description: String,
    /// The scenario.
    pub spec: Spec,
}

/// Versions of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first.
    #[serde(rename = "coalmine.dev/v1alpha1")]
    V1Alpha1,
}

/// The kind of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Kind {
    /// A scenario.
    Scenario,
}

/// The kind of a testbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TestbedKind {
    /// A testbed.
    Testbed,
}

/// A testbed: a system, and the steps that set it up. Several scenarios can start from one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Testbed {
    /// The format's version.
    pub api_version: ApiVersion,
    /// The document's kind.
    pub kind: TestbedKind,
    /// The testbed's name.
    pub metadata: Metadata,
    /// What the testbed is, in a sentence or two.
    #[serde(default)]
    pub description: String,
    /// The testbed.
    pub spec: TestbedSpec,
}

/// A testbed's content.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestbedSpec {
    /// What the clocks show when a simulated run starts.
    #[serde(default = "start")]
    #[schemars(with = "String")]
    pub start: Timestamp,
    /// The clusters.
    pub clusters: Vec<Located<ClusterFields>>,
    /// The service mesh over the clusters.
    pub mesh: Option<Located<MeshFields>>,
    /// How images behave, by image with tag.
    #[serde(default)]
    pub images: BTreeMap<String, Located<Behaviour>>,
    /// Git repositories that exist when the run starts.
    #[serde(default)]
    pub repositories: Vec<Located<RepositoryFields>>,
    /// How the system is set up, in order.
    #[serde(default)]
    pub steps: Vec<Located<Step>>,
}

/// A scenario's name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Lower-case letters, digits and dashes.
    pub name: String,
}

/// The scenario's content.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The seed of all randomness, unless the command line gives one.
    #[serde(default = "one")]
    pub seed: u64,
    /// What the clocks show when the run starts: the testbed's moment, or the morning of the article's release.
    #[schemars(with = "Option<String>")]
    pub start: Option<Timestamp>,
    /// Virtual time after which a run that has not ended fails.
    #[serde(default = "hour")]
    pub timeout: Span,
    /// The testbed that the scenario starts from: a file, relative to the scenario. What the scenario says of clusters,
    /// mesh, images and repositories is added to it; where both speak of the same one, the scenario counts.
    pub testbed: Option<Located<String>>,
    /// The clusters.
    #[serde(default)]
    pub clusters: Vec<Located<ClusterFields>>,
    /// The service mesh over the clusters.
    pub mesh: Option<Located<MeshFields>>,
    /// How images behave, by image with tag. Images that are not named behave well.
    #[serde(default)]
    pub images: BTreeMap<String, Located<Behaviour>>,
    /// Git repositories that exist when the run starts.
    #[serde(default)]
    pub repositories: Vec<Located<RepositoryFields>>,
    /// Client traffic.
    #[serde(default)]
    pub traffic: Vec<Located<Traffic>>,
    /// What happens, in order.
    #[serde(default)]
    pub steps: Vec<Located<Step>>,
    /// What the run waits for after the last step.
    pub until: Option<Located<Wait>>,
    /// What must be true in the end.
    #[serde(default)]
    pub expect: Vec<Located<Expectation>>,
    /// The log of one component, kept in a file beside the scenario and compared byte for byte.
    pub golden: Option<Golden>,
}

fn one() -> u64 {
    1
}

fn start() -> Timestamp {
    // The day of the article's release.
    Timestamp::new(1_584_442_800, 0).expect("a constant within range")
}

fn hour() -> Span {
    Span(std::time::Duration::from_secs(3600))
}

/// A cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterFields {
    /// Its name.
    pub name: String,
    /// How many nodes it has.
    #[serde(default = "two")]
    pub nodes: u32,
    /// Whether it runs workloads, or is a managed control plane: an API and nothing else.
    #[serde(default)]
    pub role: RoleField,
}

fn two() -> u32 {
    2
}

/// What a cluster is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RoleField {
    /// It runs workloads.
    #[default]
    Data,
    /// It holds a managed mesh's configuration and runs nothing.
    ControlPlane,
}

/// A service mesh.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshFields {
    /// The cluster that holds the mesh's configuration.
    pub control_plane: Option<String>,
    /// The clusters that are part of the mesh.
    pub data: Option<Vec<String>>,
    /// The unit of the request duration histogram: `istio_request_duration_seconds` until Istio 1.4's old telemetry,
    /// `istio_request_duration_milliseconds` (the default) since.
    pub telemetry: Option<TelemetryField>,
    /// The version of the injected proxies.
    pub proxy: Option<String>,
}

/// Units of the request duration histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TelemetryField {
    /// `istio_request_duration_seconds`.
    Seconds,
    /// `istio_request_duration_milliseconds`.
    #[default]
    Milliseconds,
}

/// A git repository with one commit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepositoryFields {
    /// The URL at which it is served to GitOps controllers.
    pub url: String,
    /// Its branch: `main`, or the testbed's.
    pub branch: Option<String>,
    /// A folder whose files it has, relative to the scenario.
    pub folder: Option<String>,
    /// Further files, by path; they replace files of the folder.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Changes of those files, or of the testbed's repository with this URL, made before the first commit.
    #[serde(default)]
    pub changes: Vec<Located<super::GitChange>>,
}

impl RepositoryFields {
    /// Its branch.
    pub fn branch(&self) -> &str {
        self.branch.as_deref().unwrap_or("main")
    }
}

impl Spec {
    /// What the clocks show when the run starts.
    pub fn start(&self) -> Timestamp {
        self.start.unwrap_or_else(start)
    }

    /// Takes over what the scenario leaves to its testbed.
    pub(super) fn take_over(&mut self, testbed: &Spec) {
        self.start = self.start.or(testbed.start);
        self.clusters.splice(0..0, testbed.clusters.iter().cloned());
        match (&mut self.mesh, &testbed.mesh) {
            (Some(own), Some(theirs)) => {
                let (own, theirs) = (&mut own.value, theirs.value.clone());
                own.control_plane = own.control_plane.take().or(theirs.control_plane);
                own.data = own.data.take().or(theirs.data);
                own.telemetry = own.telemetry.or(theirs.telemetry);
                own.proxy = own.proxy.take().or(theirs.proxy);
            }
            (own, theirs) => *own = own.take().or_else(|| theirs.clone()),
        }
        for (image, behaviour) in &testbed.images {
            self.images.entry(image.clone()).or_insert_with(|| behaviour.clone());
        }
        let (mut merged, own) = (Vec::new(), std::mem::take(&mut self.repositories));
        for theirs in &testbed.repositories {
            if !own.iter().any(|own| own.url == theirs.url) {
                merged.push(theirs.clone());
            }
        }
        merged.extend(own.into_iter().map(|mut own| {
            let theirs = testbed.repositories.iter().find(|theirs| theirs.url == own.url);
            own.value.branch = own.value.branch.take().or_else(|| theirs?.branch.clone());
            own
        }));
        self.repositories = merged;
    }
}

impl From<Testbed> for Scenario {
    /// The scenario that sets the testbed up and expects nothing.
    fn from(testbed: Testbed) -> Scenario {
        let TestbedSpec { start, clusters, mesh, images, repositories, steps } = testbed.spec;
        Scenario {
            api_version: testbed.api_version,
            kind: Kind::Scenario,
            metadata: testbed.metadata,
            description: testbed.description,
            spec: Spec {
                seed: one(),
                start: Some(start),
                timeout: hour(),
                testbed: None,
                clusters,
                mesh,
                images,
                repositories,
                traffic: Vec::new(),
                steps,
                until: None,
                expect: Vec::new(),
                golden: None,
            },
        }
    }
}

/// A golden file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Golden {
    /// The file, relative to the scenario.
    pub file: String,
    /// The cluster whose log it is.
    pub cluster: String,
    /// The workload whose log it is.
    #[serde(default = "flagger")]
    pub workload: String,
}

fn flagger() -> String {
    "flagger".into()
}
