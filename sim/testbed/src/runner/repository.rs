//! The scenario's git repositories.

use bytes::Bytes;
use clock::{Clock, Timestamp};
use gitops::git::{CommitInfo, Repository};
use program::Network;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::World;
use crate::scenario::{GitStep, Loaded, Notify, changed};

/// Who commits, unless told.
const AUTHOR: &str = "Coalmine <coalmine@example.com>";

/// Creates the repositories of a scenario in `workspace` and serves them.
pub(super) fn create(loaded: &Loaded, world: &World, workspace: &Path, at: Timestamp) -> Result<(), String> {
    for (index, (spec, files)) in
        loaded.scenario.spec.repositories.iter().zip(&loaded.repositories).enumerate()
    {
        let commit = CommitInfo { author: AUTHOR.into(), at, message: "Initial commit".into() };
        let path = workspace.join(format!("repository-{index}.git"));
        let repository = Repository::create(&path, spec.branch(), files, &commit)
            .map_err(|error| format!("repository {}: {error}", spec.url))?;
        world.remotes().insert(&spec.url, repository);
    }
    Ok(())
}

/// Carries out a `git` step; returns what it did, for the timeline.
pub(super) fn change(world: &World, clock: &Clock, step: &GitStep) -> Result<String, String> {
    let wrong = |error: gitops::git::GitError| format!("repository {}: {error}", step.repository);
    let repository = world.remotes().get(&step.repository).map_err(wrong)?;
    let commit = |message: String| CommitInfo {
        author: step.author.clone().unwrap_or_else(|| AUTHOR.into()),
        at: clock.now(),
        message,
    };
    let mut done = Vec::new();
    if let Some(from) = &step.from {
        repository.branch(&step.branch, from).map_err(wrong)?;
        done.push(format!("branch {} from {from}", step.branch));
    }
    if !step.changes.is_empty() {
        let mut files = BTreeMap::clone(&*repository.files(&step.branch).map_err(wrong)?);
        let mut changes = Vec::new();
        for change in &step.changes {
            let applied = changed(&files, change).map_err(|error| {
                format!("repository {}, branch {}: {error}", step.repository, step.branch)
            })?;
            applied.iter().for_each(|applied| applied.apply(&mut files));
            changes.extend(applied);
        }
        let message = step.message.clone().unwrap_or_else(|| summary(step));
        let hash = repository.commit(&step.branch, &changes, &commit(message.clone())).map_err(wrong)?;
        done.push(format!("commit {} on {}: {message}", short(&hash), step.branch));
    }
    if let Some(into) = &step.merge_into {
        let message = format!("Merge branch '{}' into {into}", step.branch);
        let hash = repository.merge(&step.branch, into, &commit(message)).map_err(wrong)?;
        done.push(format!("merge {} into {into} as {}", step.branch, short(&hash)));
    }
    Ok(done.join("; "))
}

/// A commit message for changes that have none.
fn summary(step: &GitStep) -> String {
    let one = step.changes.iter().find_map(|change| change.image.as_deref());
    match (one, step.changes.first()) {
        (Some(image), _) => format!("Release {image}"),
        (None, Some(change)) => format!("Change {}", change.file),
        (None, None) => "Change nothing".into(),
    }
}

fn short(hash: &str) -> &str {
    &hash[..hash.len().min(7)]
}

/// Sends a push webhook in GitHub's format, as the git host would.
pub(super) async fn notify(network: Arc<dyn Network>, notify: &Notify, step: &GitStep) -> Result<(), String> {
    let branch = step.merge_into.as_ref().unwrap_or(&step.branch);
    let payload = json!({
        "ref": format!("refs/heads/{branch}"),
        "repository": {"clone_url": step.repository, "html_url": step.repository.trim_end_matches(".git")},
    });
    let request = http::Request::post(&notify.url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header("X-GitHub-Event", "push")
        .body(Bytes::from(payload.to_string()))
        .map_err(|error| format!("{}: {error}", notify.url))?;
    let answer =
        network.send(request.into()).await.map_err(|error| format!("webhook {}: {error}", notify.url))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(format!("webhook {}: {}", notify.url, answer.status()))
}
