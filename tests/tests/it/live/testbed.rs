//! A whole testbed on sockets.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use local::{Local, Options, Snapshot, State};
use testbed::scenario::Loaded;

use super::{Folder, Kubectl, assert_has, kubectl, old_kubectl, until};

pub(super) const TESTBED: &str = "
apiVersion: coalmine.dev/v1alpha1
kind: Testbed
metadata: {name: small}
spec:
  clusters: [{name: one, nodes: 1}, {name: two, nodes: 1}]
  repositories: [{url: 'https://git.example.com/app.git', branch: main, files: {README.md: A sample.}}]
  steps:
  - apply:
      cluster: one
      objects:
      - apiVersion: apps/v1
        kind: Deployment
        metadata: {name: podinfo}
        spec:
          replicas: 2
          selector: {matchLabels: {app: podinfo}}
          template:
            metadata: {labels: {app: podinfo}}
            spec:
              containers:
              - {name: podinfod, image: 'stefanprodan/podinfo:3.1.0', ports: [{containerPort: 9898}],
                 command: [./podinfo, --port=9898, '--backend-url=http://nowhere.invalid/'], resources: {requests: {cpu: 100m}}}
      - apiVersion: v1
        kind: Service
        metadata: {name: podinfo}
        spec: {selector: {app: podinfo}, ports: [{port: 9898}]}
  - wait: {rollout: {cluster: one, namespace: default, deployment: podinfo}}
";

/// Brings the small testbed up, and runs `test` when it is set up.
pub(super) fn with_testbed(test: impl FnOnce(&State, &Path)) {
    let folder = Folder::new("testbed");
    let file = folder.write("small.yaml", TESTBED);
    with(&Loaded::read_testbed(Path::new(&file)).unwrap(), None, test);
}

/// Brings a testbed up in a thread, and runs `test` when it is set up, with a folder of its own.
pub(super) fn with(loaded: &Loaded, from: Option<Snapshot>, test: impl FnOnce(&State, &Path)) {
    let folder = Folder::new("testbed");
    let dir = folder.0.join("up");
    let options = Options {
        speed: 20.0,
        without: Vec::new(),
        seed: None,
        rbac: false,
        dir: Some(dir.clone()),
        from,
        keep: false,
    };
    let (told, hear) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let local = Local::open(loaded, &options).await.unwrap();
                tokio::select! {
                    () = local.live(|done| drop(told.send((done, local.state())))) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        let (done, state) = hear.recv().unwrap();
        // A failed assertion must end the testbed too, else the scope waits for ever.
        let tested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            done.unwrap();
            test(&state, &folder.0);
        }));
        let _ = stop.send(());
        running.join().unwrap();
        assert!(!dir.exists(), "the testbed left {} behind", dir.display());
        if let Err(panic) = tested {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The lines of a stream as they come.
fn hear(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (heard, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if heard.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

pub(super) fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-s", "-m", "10"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "curl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn jobs_run_to_their_end() {
    with_testbed(|state, home| {
        for program in [kubectl(), old_kubectl()].into_iter().flatten() {
            let kubectl =
                Kubectl { program, kubeconfig: state.kubeconfig.clone().into(), home: home.to_owned() };
            kubectl.ok("create job nap --image=busybox -- sleep 1");
            assert_has(&kubectl.ok("wait --for=condition=complete job/nap --timeout=20s"), "condition met");
            assert_has(&kubectl.ok("get jobs"), "1/1");
            assert_has(&kubectl.ok("get pods -l job-name=nap"), "Completed");
            kubectl.ok("create job bad --image=busybox -- false");
            kubectl.ok("patch job bad -p {\"spec\":{\"backoffLimit\":0}}");
            assert_has(&kubectl.ok("wait --for=condition=failed job/bad --timeout=20s"), "condition met");
            assert_has(&kubectl.ok("describe job bad"), "BackoffLimitExceeded");
            kubectl.ok("delete job nap bad");
            assert_has(&kubectl.run("get jobs").err, "No resources found");
        }
    });
}

#[test]
fn pods_are_reachable_logged_executed_in_and_forwarded_to() {
    with_testbed(|state, home| {
        assert_eq!(
            state.clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>(),
            ["one", "two"]
        );
        let service = state.addresses.iter().find(|forward| forward.name == "default/podinfo").unwrap();
        assert_has(&curl(&[&format!("http://{}/version", service.address)]), "3.1.0");
        assert_has(&curl(&[&state.status]), "small");
        for program in [kubectl(), old_kubectl()].into_iter().flatten() {
            let kubectl =
                Kubectl { program, kubeconfig: state.kubeconfig.clone().into(), home: home.to_owned() };
            assert_has(&kubectl.ok("--context two get namespaces"), "kube-system");
            assert_has(&kubectl.ok("get pods"), "1/1     Running");
            let ip = kubectl.ok("get pods -o jsonpath={.items[0].status.podIP}");
            assert_has(&curl(&[&format!("http://{ip}:9898/version")]), "3.1.0");
            assert_has(&kubectl.ok("rollout status deployment/podinfo"), "successfully rolled out");
            assert_has(&kubectl.ok("logs deployment/podinfo"), "Starting podinfo");
            let checked = kubectl.ok("exec deploy/podinfo -- podcli check http localhost:9898/readyz");
            assert_has(&checked, "check succeed");
            assert_eq!(kubectl.run("exec deploy/podinfo -- nothing").code, 126);

            let mut forward = kubectl
                .command("port-forward deployment/podinfo :9898 --address=127.0.0.1")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(forward.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            let address = line.split_whitespace().nth(2).unwrap_or_default();
            let answers = [
                curl(&[&format!("http://{address}/version")]),
                curl(&[&format!("http://{address}/version")]),
            ];
            forward.kill().unwrap();
            forward.wait().unwrap();
            answers.iter().for_each(|answer| assert_has(answer, "3.1.0"));
        }
        for program in [kubectl(), old_kubectl()].into_iter().flatten() {
            let kubectl =
                Kubectl { program, kubeconfig: state.kubeconfig.clone().into(), home: home.to_owned() };
            // Each echo that podinfo cannot pass on is a line of its log.
            let pod = kubectl.ok("get pods -o jsonpath={.items[0].metadata.name}");
            let ip = kubectl.ok("get pods -o jsonpath={.items[0].status.podIP}");
            let mut attached =
                kubectl.command(&format!("attach {pod}")).stdout(Stdio::piped()).spawn().unwrap();
            let lines = hear(attached.stdout.take().unwrap());
            until("attach shows what is printed", || {
                curl(&["-d", "x", &format!("http://{ip}:9898/echo")]);
                lines.try_iter().any(|line| line.contains("backend call failed"))
            });
            attached.kill().unwrap();
            attached.wait().unwrap();
        }
        let Some(program) = kubectl() else { return };
        let kubectl = Kubectl { program, kubeconfig: state.kubeconfig.clone().into(), home: home.to_owned() };
        // A container that crashed has the log of its run before, and one of its own.
        let pod = kubectl.ok("get pods -o jsonpath={.items[0].metadata.name}");
        let ip = kubectl.ok("get pods -o jsonpath={.items[0].status.podIP}");
        let none = kubectl.fails(&format!("logs --previous {pod}"));
        assert_has(&none, &format!("previous terminated container \"podinfod\" in pod \"{pod}\" not found"));
        let _ = Command::new("curl").args(["-s", "-m", "10", &format!("http://{ip}:9898/panic")]).output();
        until("the container runs again", || {
            let status = "{.status.containerStatuses[0].restartCount}{.status.containerStatuses[0].ready}";
            kubectl.ok(&format!("get pod {pod} -o jsonpath={status}")) == "1true"
        });
        assert_has(&kubectl.ok(&format!("logs --previous {pod}")), "Panic command received");
        let own = kubectl.ok(&format!("logs {pod}"));
        assert!(own.contains("Starting podinfo") && !own.contains("Panic command received"), "{own}");
        let mut follow =
            kubectl.command("logs -f deployment/podinfo").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(follow.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        follow.kill().unwrap();
        follow.wait().unwrap();
        assert_has(&line, "Starting podinfo");
        // A new image rolls out, and is undone.
        kubectl.ok("set image deployment/podinfo podinfod=stefanprodan/podinfo:3.1.1");
        kubectl.ok("rollout status deployment/podinfo --timeout=20s");
        assert_has(&curl(&[&format!("http://{}/version", service.address)]), "3.1.1");
        assert_has(&kubectl.ok("rollout history deployment/podinfo"), "2");
        kubectl.ok("rollout undo deployment/podinfo");
        kubectl.ok("rollout status deployment/podinfo --timeout=20s");
        assert_has(&curl(&[&format!("http://{}/version", service.address)]), "3.1.0");
        assert_has(&kubectl.ok("events"), "ScalingReplicaSet");
        assert_has(&kubectl.ok("top node"), "one-node-1");
    });
}

#[test]
fn repositories_can_be_cloned_and_pushed_to() {
    with_testbed(|state, home| {
        let clone = home.join("clone");
        let git = |arguments: &[&str]| {
            let output = Command::new("git")
                .args(["-c", "user.name=Tester", "-c", "user.email=tester@example.com"])
                .args(arguments)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "git {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        };
        let (url, folder) = (state.repositories[0].clone.as_str(), clone.to_str().unwrap());
        git(&["clone", "-q", url, folder]);
        std::fs::write(clone.join("NEWS.md"), "News.").unwrap();
        git(&["-C", folder, "add", "NEWS.md"]);
        git(&["-C", folder, "commit", "-q", "-m", "News"]);
        git(&["-C", folder, "push", "-q", "origin", "main"]);
        assert_has(&git(&["ls-remote", url]), "refs/heads/main");
        let head = git(&["-C", folder, "rev-parse", "HEAD"]);
        assert_has(&git(&["ls-remote", url, "main"]), head.trim());
    });
}
