//! Git repositories and kustomizations, through the public interface.

use std::collections::BTreeMap;

use bytes::Bytes;
use gitops::git::{Change, CommitInfo, GitError, Repository};
use gitops::{kustomize, manifests};

fn files(entries: &[(&str, &str)]) -> BTreeMap<String, Bytes> {
    entries.iter().map(|(path, text)| ((*path).to_owned(), Bytes::from((*text).to_owned()))).collect()
}

fn commit(second: i64, message: &str) -> CommitInfo {
    CommitInfo {
        author: "Dev <dev@example.com>".into(),
        at: clock::Timestamp::from_second(second).unwrap(),
        message: message.into(),
    }
}

struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("coalmine-gitops-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_history_has_the_same_hashes_everywhere() {
    let folder = Folder::new("history");
    let start = files(&[("app/a.yaml", "a: 1\n"), ("app/b.yaml", "b: 1\n")]);
    let repo = Repository::create(&folder.0, "latest", &start, &commit(1_584_442_800, "start")).unwrap();
    assert_eq!(repo.resolve("latest").unwrap(), repo.resolve("HEAD").unwrap());
    repo.branch("bump", "latest").unwrap();
    repo.commit(
        "bump",
        &[Change::Write("app/a.yaml".into(), "a: 2\n".into())],
        &commit(1_584_442_900, "bump"),
    )
    .unwrap();
    repo.commit("latest", &[Change::Remove("app/b.yaml".into())], &commit(1_584_442_950, "drop b")).unwrap();
    let merged = repo.merge("bump", "latest", &commit(1_584_443_000, "Merge bump")).unwrap();
    assert_eq!(*repo.files("latest").unwrap(), files(&[("app/a.yaml", "a: 2\n")]));

    let again = Folder::new("history-again");
    let twin = Repository::create(&again.0, "latest", &start, &commit(1_584_442_800, "start")).unwrap();
    twin.branch("bump", "latest").unwrap();
    twin.commit(
        "bump",
        &[Change::Write("app/a.yaml".into(), "a: 2\n".into())],
        &commit(1_584_442_900, "bump"),
    )
    .unwrap();
    twin.commit("latest", &[Change::Remove("app/b.yaml".into())], &commit(1_584_442_950, "drop b")).unwrap();
    assert_eq!(twin.merge("bump", "latest", &commit(1_584_443_000, "Merge bump")).unwrap(), merged);
}

#[test]
fn unknown_branches_and_conflicts_say_so() {
    let folder = Folder::new("conflict");
    let repo = Repository::create(&folder.0, "latest", &files(&[("a", "1\n")]), &commit(1, "start")).unwrap();
    assert_eq!(
        repo.resolve("lates").unwrap_err().to_string(),
        "unable to resolve 'lates' to a commit SHA: the repository has the branches latest"
    );
    repo.branch("other", "latest").unwrap();
    repo.commit("other", &[Change::Write("a".into(), "2\n".into())], &commit(2, "two")).unwrap();
    repo.commit("latest", &[Change::Write("a".into(), "3\n".into())], &commit(3, "three")).unwrap();
    let conflict = repo.merge("other", "latest", &commit(4, "merge")).unwrap_err();
    assert_eq!(
        conflict,
        GitError::Conflict { branch: "other".into(), into: "latest".into(), files: "a".into() }
    );
}

#[test]
fn a_kustomization_sets_namespace_images_and_labels() {
    let tree = files(&[
        ("base/kustomization.yaml", "resources: [deployment.yaml, ns.yaml]\n"),
        ("base/ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"),
        (
            "base/deployment.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: podinfo}\nspec:\n  selector: {matchLabels: {app: podinfo}}\n  template:\n    metadata: {labels: {app: podinfo}}\n    spec: {containers: [{name: podinfod, image: 'stefanprodan/podinfo:3.1.0'}]}\n",
        ),
        (
            "prod/kustomization.yaml",
            "namespace: test\nresources: [../base]\nimages: [{name: stefanprodan/podinfo, newTag: 3.1.1}]\ncommonLabels: {team: web}\npatches:\n- target: {kind: Deployment}\n  patch: |\n    - {op: add, path: /spec/replicas, value: 2}\n",
        ),
    ]);
    let objects = kustomize::build(&tree, "prod").unwrap();
    let deployment = &objects[0];
    assert_eq!(deployment["metadata"]["namespace"], "test");
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(
        deployment["spec"]["template"]["spec"]["containers"][0]["image"],
        "stefanprodan/podinfo:3.1.1"
    );
    assert_eq!(deployment["spec"]["selector"]["matchLabels"]["team"], "web");
    assert_eq!(objects[1]["metadata"]["name"], "test");
}

#[test]
fn broken_sources_name_the_file() {
    let error =
        |tree: &[(&str, &str)], path: &str| manifests::render(&files(tree), path).unwrap_err().to_string();
    assert_eq!(error(&[("a/x.yaml", "")], "b"), "b: app path does not exist");
    assert!(error(&[("a/kustomization.yaml", "resource: []\n")], "a").starts_with("a/kustomization.yaml: "));
    assert_eq!(
        error(&[("a/kustomization.yaml", "resources: [x.yaml]\n")], "a"),
        "a/kustomization.yaml: resources: x.yaml: no such file or folder"
    );
    assert_eq!(
        error(&[("a/x.yaml", "apiVersion: v1\nkind: Service\n")], "a"),
        "a/x.yaml: document 1: Service: metadata.name is missing"
    );
    assert!(error(&[("a/x.yaml", "kind: [")], "a").starts_with("a/x.yaml: "));
}
