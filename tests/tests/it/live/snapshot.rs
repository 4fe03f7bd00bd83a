//! A testbed's state, saved and loaded.

use std::path::Path;
use std::process::Command;

use local::Snapshot;
use testbed::scenario::Loaded;

use super::testbed::{TESTBED, curl, with};
use super::{Folder, Kubectl, assert_has, kubectl, until};

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Tester", "-c", "user.email=tester@example.com"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const DEFINITION: &str = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition,
  metadata: {name: hats.example.com}, spec: {group: example.com, scope: Namespaced, names: {plural: hats, kind: Hat},
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object,
    x-kubernetes-preserve-unknown-fields: true}}}]}}";

#[test]
fn a_testbed_goes_on_where_it_was_saved() {
    let Some(program) = kubectl() else { return };
    let folder = Folder::new("snapshot");
    let loaded = Loaded::read_testbed(Path::new(&folder.write("small.yaml", TESTBED))).unwrap();
    let identity = "-o jsonpath={.metadata.uid}/{.metadata.resourceVersion}";
    let file = folder.0.join("saved.json");
    let mut before = Vec::new();
    let mut head = String::new();
    with(&loaded, None, |state, home| {
        let kubectl = Kubectl {
            program: program.clone(),
            kubeconfig: state.kubeconfig.clone().into(),
            home: home.to_owned(),
        };
        kubectl.ok("create configmap kept --from-literal=a=b");
        let definition = folder.write("hats.yaml", DEFINITION);
        kubectl.ok(&format!("apply -f {definition}"));
        let hat = folder
            .write("hat.yaml", "{apiVersion: example.com/v1, kind: Hat, metadata: {name: kept}, size: 5}");
        kubectl.ok(&format!("apply -f {hat}"));
        let clone = home.join("clone");
        let clone = clone.to_str().unwrap();
        git(&["clone", "-q", &state.repositories[0].clone, clone]);
        git(&["-C", clone, "commit", "-q", "--allow-empty", "-m", "Kept"]);
        git(&["-C", clone, "push", "-q", "origin", "main"]);
        head = git(&["-C", clone, "rev-parse", "HEAD"]);
        let bearer = format!("Authorization: Bearer {}", state.stop_token);
        let url = format!("{}snapshot", state.status);
        assert_has(&curl(&["-X", "POST", &url]), "the token is wrong");
        before = ["configmap kept", "hat kept", "crd hats.example.com", "namespace default"]
            .map(|what| kubectl.ok(&format!("get {what} {identity}")))
            .into();
        std::fs::write(&file, curl(&["-X", "POST", "-H", &bearer, &url])).unwrap();
    });

    let saved = Snapshot::read(&file).unwrap();
    with(&loaded, Some(saved.clone()), |state, home| {
        let kubectl = Kubectl {
            program: program.clone(),
            kubeconfig: state.kubeconfig.clone().into(),
            home: home.to_owned(),
        };
        let after = ["configmap kept", "hat kept", "crd hats.example.com", "namespace default"]
            .map(|what| kubectl.ok(&format!("get {what} {identity}")));
        assert_eq!(after.as_slice(), before.as_slice());
        assert_eq!(kubectl.ok("get hat kept -o jsonpath={.size}"), "5");
        assert_has(&git(&["ls-remote", &state.repositories[0].clone, "main"]), head.trim());
        // Its programs run again, and what comes is new.
        kubectl.ok("rollout status deployment/podinfo --timeout=20s");
        let ip = || kubectl.ok("get pods -o jsonpath={.items[0].status.podIP}");
        until("podinfo answers again", || {
            let url = format!("http://{}:9898/version", ip());
            let answer = Command::new("curl").args(["-s", "-m", "5", &url]).output().unwrap();
            String::from_utf8_lossy(&answer.stdout).contains("3.1.0")
        });
        kubectl.ok("create configmap new");
        kubectl.ok("set image deployment/podinfo podinfod=stefanprodan/podinfo:3.1.1");
        kubectl.ok("rollout status deployment/podinfo --timeout=20s");
        let text = std::fs::read_to_string(&file).unwrap();
        let uid = kubectl.ok("get configmap new -o jsonpath={.metadata.uid}");
        assert!(!text.contains(&uid), "a uid of before is given again");
    });

    // Files that are of no use say why.
    let read = |text: &str| Snapshot::read(Path::new(&folder.write("bad.json", text))).unwrap_err();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_has(
        &read(&text[..text.len() / 2]),
        "bad.json: this is no snapshot that `coalmine snapshot` wrote, or it is cut off",
    );
    assert_has(
        &read("{\"kind\": \"List\"}"),
        "this is \"List\" of null, not Snapshot of coalmine.dev/v1alpha1",
    );
    assert_has(&read(&text.replace("\"place\"", "\"plaice\"")), "unknown field `plaice`");
    assert_has(&Snapshot::read(&folder.0.join("none.json")).unwrap_err(), "none.json: No such file");
    let other =
        folder.write("other.yaml", &TESTBED.replace("{name: two, nodes: 1}", "{name: three, nodes: 1}"));
    let other = Loaded::read_testbed(Path::new(&other)).unwrap();
    assert_has(&saved.check(&other).unwrap_err(), "with the clusters one, two, but");
}

#[test]
fn a_server_takes_over_a_whole_state_or_nothing() {
    let server = super::Server::start();
    let state = server.api.snapshot();
    let broken = |change: &dyn Fn(&mut tree::Value)| {
        let mut changed = state.clone();
        change(&mut changed["objects"][0]);
        server.api.restore(&changed).unwrap_err()
    };
    assert_has(&broken(&|object| object["kind"] = "Nothing".into()), "objects[0] (Nothing of");
    assert_has(&broken(&|object| object["metadata"]["uid"] = "".into()), "it has no name or no uid");
    let far = |object: &mut tree::Value| object["metadata"]["resourceVersion"] = "99999".into();
    assert_has(&broken(&far), "its resourceVersion is none of the snapshot's");
    assert_eq!(server.api.snapshot(), state, "a refused state changed something");
    server.api.restore(&state).unwrap();
    assert_eq!(server.api.snapshot()["objects"], state["objects"]);
}
