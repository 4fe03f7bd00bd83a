//! A testbed's state in a file: what its API servers hold, and its repositories. What programs have in memory is not in
//! it: they start anew, as after a power cut.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clock::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use testbed::World;
use testbed::scenario::Loaded;

const API_VERSION: &str = "coalmine.dev/v1alpha1";
const KIND: &str = "Snapshot";

/// The state of a testbed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    api_version: String,
    kind: String,
    /// The testbed's name.
    testbed: String,
    /// The testbed's time.
    pub(crate) time: Timestamp,
    /// Its place on the machine, which its addresses follow from.
    pub(crate) place: u8,
    clusters: Vec<ClusterState>,
    repositories: Vec<RepositoryState>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClusterState {
    name: String,
    state: tree::Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RepositoryState {
    url: String,
    /// What `git bundle` makes of it, in base64.
    bundle: String,
}

impl Snapshot {
    /// Reads a file that `coalmine snapshot` wrote.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn read(file: &Path) -> Result<Snapshot, String> {
        let problem = |why: String| format!("{}: {why}", file.display());
        let text = fs::read_to_string(file).map_err(|error| problem(error.to_string()))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            problem(format!("this is no snapshot that `coalmine snapshot` wrote, or it is cut off: {error}"))
        })?;
        if value["apiVersion"] != API_VERSION || value["kind"] != KIND {
            return Err(problem(format!(
                "this is {} of {}, not {KIND} of {API_VERSION}",
                value["kind"], value["apiVersion"]
            )));
        }
        serde_json::from_value(value).map_err(|error| problem(error.to_string()))
    }

    /// Whether it is of such a testbed: the clusters and repositories must be the same.
    ///
    /// # Errors
    /// A sentence that says what differs.
    pub fn check(&self, loaded: &Loaded) -> Result<(), String> {
        let spec = &loaded.scenario.spec;
        let differ = |what: &str, saved: Vec<&str>, named: Vec<&str>| match saved == named {
            true => Ok(()),
            false => Err(format!(
                "the snapshot is of testbed {:?} with the {what} {}, but {} has {}: give the file that was brought up then",
                self.testbed,
                saved.join(", "),
                loaded.file,
                named.join(", "),
            )),
        };
        let saved = self.clusters.iter().map(|cluster| cluster.name.as_str());
        let named = spec.clusters.iter().map(|cluster| cluster.name.as_str());
        differ("clusters", saved.collect(), named.collect())?;
        let saved = self.repositories.iter().map(|repository| repository.url.as_str());
        let named = spec.repositories.iter().map(|repository| repository.url.as_str());
        differ("repositories", saved.collect(), named.collect())
    }

    /// The state of a running testbed now.
    pub(crate) fn take(
        name: &str,
        place: u8,
        now: Timestamp,
        world: &World,
        urls: &[String],
    ) -> Result<Snapshot, String> {
        let clusters = world.clusters().into_iter().filter_map(|name| {
            let state = world.api(&name)?.snapshot();
            Some(ClusterState { name, state })
        });
        let repositories = urls.iter().map(|url| {
            let repository = world.remotes().get(url).map_err(|error| error.to_string())?;
            let bundle = git(repository.path(), &["bundle", "create", "--quiet", "-", "--all"], None)?;
            Ok(RepositoryState { url: url.clone(), bundle: STANDARD.encode(bundle) })
        });
        Ok(Snapshot {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            testbed: name.to_owned(),
            time: now,
            place,
            clusters: clusters.collect(),
            repositories: repositories.collect::<Result<_, String>>()?,
        })
    }

    /// Brings the state into a world that has just been started; `scratch` is a folder for files on the way.
    pub(crate) fn restore(&self, world: &World, scratch: &Path) -> Result<(), String> {
        for repository in &self.repositories {
            let problem = |why: String| format!("the snapshot's repository {}: {why}", repository.url);
            let bundle = STANDARD.decode(&repository.bundle).map_err(|error| problem(error.to_string()))?;
            let file = scratch.join("restored.bundle");
            let write = || fs::File::create(&file)?.write_all(&bundle);
            write().map_err(|error| problem(format!("{}: {error}", file.display())))?;
            let found = world.remotes().get(&repository.url).map_err(|error| problem(error.to_string()))?;
            let file_name = file.to_string_lossy();
            let fetched = git(
                found.path(),
                &["fetch", "--quiet", "--prune", "--update-head-ok", &file_name, "+refs/*:refs/*"],
                Some(&file),
            );
            fetched.map_err(problem)?;
        }
        for cluster in &self.clusters {
            let problem = |why: String| format!("the snapshot's cluster {}: {why}", cluster.name);
            let api =
                world.api(&cluster.name).ok_or_else(|| problem("there is no such cluster".to_owned()))?;
            let mut state = cluster.state.clone();
            for object in state["objects"].as_array_mut().into_iter().flatten() {
                // Load balancers get their addresses from this run's pool.
                if object["kind"] == "Service" && object["apiVersion"] == "v1" {
                    object["status"]["loadBalancer"] = tree::json!({});
                }
            }
            api.restore(&state).map_err(problem)?;
        }
        Ok(())
    }
}

/// Runs git on a repository, and removes `file` afterwards.
fn git(repository: &Path, arguments: &[&str], file: Option<&PathBuf>) -> Result<Vec<u8>, String> {
    let output = Command::new("git").arg("-C").arg(repository).args(arguments).stdin(Stdio::null()).output();
    if let Some(file) = file {
        let _ = fs::remove_file(file);
    }
    let output = output.map_err(|error| format!("cannot run git: {error}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("git {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim_end())),
    }
}
