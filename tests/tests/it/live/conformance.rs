//! The conformance checklist, line by line, with real kubectls against an API server alone.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Server, assert_has, kubectl, old_kubectl};

const TWO_CONTAINERS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: two, labels: {app: two}}
spec:
  replicas: 2
  selector: {matchLabels: {app: two}}
  template:
    metadata: {labels: {app: two}}
    spec:
      containers:
      - {name: main, image: 'nginx:1', ports: [{containerPort: 80}], env: [{name: A, value: b}]}
      - {name: side, image: 'side:1'}
";

const SHIRTS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: shirts.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: shirts, kind: Shirt, shortNames: [sh], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.count, statusReplicasPath: .status.count}}
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Size, type: integer, jsonPath: .spec.size, priority: 1}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [color]
            properties:
              color: {type: string, enum: [red, blue], description: What it looks like.}
              size: {type: integer, default: 40}
              count: {type: integer}
              fit: {x-kubernetes-int-or-string: true}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

#[test]
fn line_1_discovery_and_explain() {
    let server = Server::start();
    for program in [kubectl(), old_kubectl()].into_iter().flatten() {
        let kubectl = server.kubectl(&program);
        assert_has(&kubectl.ok("version -o json"), "v1.33.0+coalmine");
        let resources = kubectl.ok("api-resources -o wide");
        for part in ["deployments", "horizontalpodautoscalers", "cj ", "poddisruptionbudgets"] {
            assert_has(&resources, part);
        }
        assert_has(&kubectl.ok("get all -A"), "service/kubernetes");
        assert_has(&kubectl.ok("auth can-i create pods"), "yes");
        let file = server.folder.write("crd.yaml", SHIRTS);
        kubectl.ok(&format!("apply -f {file}"));
        assert_has(&kubectl.ok("explain shirt.spec.color"), "What it looks like.");
        assert_has(&kubectl.ok("explain deployment.spec.strategy.rollingUpdate"), "maxUnavailable");
    }
    let Some(program) = kubectl() else { return };
    let kubectl = server.kubectl(&program);
    assert_has(&kubectl.ok("explain configmap.binaryData"), "map[string]string");
    assert_has(&kubectl.ok("explain deployment.spec.strategy.rollingUpdate.maxSurge"), "IntOrString");
    assert_has(&kubectl.ok("explain pod.spec.containers.livenessProbe.httpGet.path"), "<string>");
    assert_has(&kubectl.ok("auth whoami"), "kubernetes-admin");
}

#[test]
fn events_are_served_in_both_groups() {
    let Some(program) = kubectl() else { return };
    let server = Server::start();
    let kubectl = server.kubectl(&program);
    let event =
        "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: e, namespace: default}, type: Normal,
        reason: Testing, action: Test, note: A note., eventTime: '2026-01-01T00:00:00.000000Z',
        reportingController: example.com/tester, reportingInstance: tester-0,
        regarding: {apiVersion: v1, kind: Pod, name: p, namespace: default}}";
    let file = server.folder.write("event.yaml", event);
    assert_has(&kubectl.ok(&format!("create -f {file}")), "event.events.k8s.io/e created");
    assert_eq!(
        kubectl.ok("get events.v1. e -o jsonpath={.message}{.involvedObject.name}{.reportingComponent}"),
        "A note.pexample.com/tester"
    );
    let seen = "get events.events.k8s.io --field-selector regarding.name=p -o jsonpath={.items[*].note}";
    assert_eq!(kubectl.ok(seen), "A note.");
    assert_eq!(kubectl.ok(&seen.replace("=p", "=q")), "");
    kubectl.ok("annotate events.events.k8s.io e a=b");
    assert_eq!(kubectl.ok("get events.v1. e -o jsonpath={.metadata.annotations.a}"), "b");
    assert_has(&kubectl.ok("events"), "A note.");
    assert_has(&kubectl.ok("explain event.note --api-version=events.k8s.io/v1"), "<string>");
    kubectl.ok("delete events.events.k8s.io e");
    assert_has(&kubectl.fails("get events.v1. e"), "not found");
}

#[test]
fn line_2_protobuf_writes_store_what_json_writes_store() {
    let Some(program) = kubectl() else { return };
    let server = Server::start();
    let kubectl = server.kubectl(&program);
    kubectl.ok("create namespace json");
    kubectl.ok("create namespace protobuf");
    // `create -f` sends JSON, `create KIND` protobuf.
    for (name, made) in [
        ("secret", "create secret generic web --from-literal=key=text"),
        ("configmap", "create configmap web --from-literal=key=text"),
        ("serviceaccount", "create serviceaccount web"),
        ("rolebinding", "create rolebinding web --clusterrole=view --serviceaccount=json:web"),
        ("role", "create role web --verb=get,list --resource=pods,deployments.apps --resource-name=web"),
        ("deployment", "create deployment web --image=nginx:1 --replicas=2 --port=8080"),
        ("pod", "run web --image=nginx:1 --port=80 --env=A=b --labels=app=web,tier=1"),
        ("service", "create service nodeport web --tcp=80:8080 --node-port=30080"),
        ("service", "create service externalname web --external-name=example.com"),
        ("job", "create job web --image=busybox -- date"),
        ("cronjob", "create cronjob web --image=busybox --schedule=0_3_*_*_1 -- date"),
        ("ingress", "create ingress web --rule=web.example.com/path*=web:80,tls=web --class=nginx"),
        ("quota", "create quota web --hard=cpu=1,pods=2 --scopes=BestEffort"),
        ("pdb", "create poddisruptionbudget web --selector=app=web --max-unavailable=50%"),
    ] {
        let made = made.split(' ').map(|part| part.replace('_', " ")).collect::<Vec<_>>();
        let run = |extra: &[&str]| {
            let (verb, rest) = made.split_at(2);
            let output = kubectl.command("").args(verb).args(extra).args(rest).output().unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["-n", "protobuf"]);
        let manifest = run(&["-n", "json", "--dry-run=client", "-o", "json"]);
        let file = server.folder.write("made.json", &manifest);
        kubectl.ok(&format!("create -n json -f {file}"));
        let get = |namespace: &str| -> Value {
            let text = kubectl.ok(&format!("get {name} web -n {namespace} -o json"));
            let object: Value = serde_json::from_str(&text).unwrap();
            // A Job's selector names its uid.
            let text = text.replace(object["metadata"]["uid"].as_str().unwrap(), "UID");
            let mut object: Value = serde_json::from_str(&text).unwrap();
            object.as_object_mut().unwrap().remove("metadata");
            for field in ["clusterIP", "clusterIPs"] {
                object["spec"].as_object_mut().map(|spec| spec.remove(field));
            }
            object
        };
        assert_eq!(get("protobuf"), get("json"), "{name}");
        kubectl.ok(&format!("delete {name} web -n protobuf --cascade=orphan"));
        kubectl.ok(&format!("delete {name} web -n json --cascade=orphan"));
    }
    kubectl.ok("create deployment web --image=nginx:1 -n protobuf");
    kubectl.ok("expose deployment web --port=80 --target-port=8080 -n protobuf");
    kubectl.ok("autoscale deployment web --min=2 --max=5 --cpu=80% -n protobuf");
    assert_eq!(kubectl.ok("get hpa web -n protobuf -o jsonpath={.spec.maxReplicas}"), "5");
    kubectl.ok("scale deployment web --replicas=3 -n protobuf");
    assert_eq!(kubectl.ok("get deployment web -n protobuf -o jsonpath={.spec.replicas}"), "3");
}

#[test]
fn line_3_apply_validation_dry_run_and_diff() {
    let server = Server::start();
    let file = server.folder.write("two.yaml", TWO_CONTAINERS);
    for program in [kubectl(), old_kubectl()].into_iter().flatten() {
        let kubectl = server.kubectl(&program);
        assert_has(&kubectl.ok(&format!("apply -f {file}")), "deployment.apps/two created");
        assert_has(&kubectl.ok(&format!("apply -f {file}")), "deployment.apps/two unchanged");
        let more = server.folder.write("more.yaml", &TWO_CONTAINERS.replace("replicas: 2", "replicas: 3"));
        let version = || kubectl.ok("get deployment two -o jsonpath={.metadata.resourceVersion}");
        let before = version();
        let diff = kubectl.run(&format!("diff -f {more}"));
        assert_eq!(diff.code, 1, "{diff:?}");
        assert_has(&diff.out, "+  replicas: 3");
        assert_has(&kubectl.ok(&format!("apply --dry-run=server -f {more}")), "configured");
        assert_eq!(version(), before);
        assert_has(&kubectl.ok(&format!("apply -f {more}")), "deployment.apps/two configured");
        assert_ne!(version(), before);
        // A container that is no longer named goes: kubectl knows, by the schema or by itself, what lists merge by.
        let less = server
            .folder
            .write("less.yaml", &TWO_CONTAINERS.replace("      - {name: side, image: 'side:1'}\n", ""));
        kubectl.ok(&format!("apply -f {less}"));
        assert_eq!(
            kubectl.ok("get deployment two -o jsonpath={.spec.template.spec.containers[*].name}"),
            "main"
        );
        kubectl.ok("delete deployment two");
    }
    if let Some(program) = old_kubectl() {
        let wrong = server.folder.write("wrong.yaml", &TWO_CONTAINERS.replace("replicas: 2", "replica: 2"));
        let refused = server.kubectl(&program).fails(&format!("apply -f {wrong}"));
        assert_has(&refused, "unknown field \"replica\" in io.k8s.api.apps.v1.DeploymentSpec");
    }
    let Some(program) = kubectl() else { return };
    let kubectl = server.kubectl(&program);
    let wrong = server.folder.write("wrong.yaml", &TWO_CONTAINERS.replace("replicas: 2", "replica: 2"));
    let refused = kubectl.fails(&format!("apply -f {wrong}"));
    assert_has(&refused, "strict decoding error: unknown field \"spec.replica\"");
    let warned = kubectl.run(&format!("apply --validate=warn -f {wrong}"));
    assert_eq!(warned.code, 0, "{warned:?}");
    assert_has(&warned.err, "Warning: unknown field \"spec.replica\"");
}

#[test]
fn line_4_strategic_patches_keep_what_they_do_not_name() {
    let server = Server::start();
    let file = server.folder.write("two.yaml", TWO_CONTAINERS);
    for program in [kubectl(), old_kubectl()].into_iter().flatten() {
        let kubectl = server.kubectl(&program);
        kubectl.ok(&format!("apply -f {file}"));
        kubectl.ok("set image deployment/two main=nginx:2");
        let images = kubectl.ok("get deployment two -o jsonpath={.spec.template.spec.containers[*].image}");
        assert_eq!(images, "nginx:2 side:1");
        kubectl.ok("set env deployment/two -c main B=c");
        let names =
            kubectl.ok("get deployment two -o jsonpath={.spec.template.spec.containers[0].env[*].name}");
        assert_eq!(names, "A B");
        kubectl.ok("rollout restart deployment/two");
        kubectl.ok("scale deployment/two --replicas=5 --current-replicas=2");
        kubectl.ok("label deployment two x=y");
        kubectl.ok("annotate deployment two note=text");
        let patch = "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"side\",\"$patch\":\"delete\"}]}}}}";
        kubectl.ok(&format!("patch deployment two -p {patch}"));
        let names = kubectl.ok("get deployment two -o jsonpath={.spec.template.spec.containers[*].name}");
        assert_eq!(names, "main");
        let deployment = kubectl.ok("describe deployment two");
        assert_has(&deployment, "restartedAt");
        assert_has(&deployment, "5 desired");
        kubectl.ok("delete deployment two");
    }
}

#[test]
fn line_5_server_side_apply_conflicts() {
    let Some(program) = kubectl() else { return };
    let server = Server::start();
    let kubectl = server.kubectl(&program);
    let two = server.folder.write("two.yaml", TWO_CONTAINERS);
    let more = server.folder.write("more.yaml", &TWO_CONTAINERS.replace("replicas: 2", "replicas: 3"));
    assert_has(&kubectl.ok(&format!("apply --server-side -f {two}")), "serverside-applied");
    let conflict = kubectl.fails(&format!("apply --server-side --field-manager=other -f {more}"));
    assert_has(&conflict, "Apply failed with 1 conflict: conflict with \"kubectl\"");
    kubectl.ok(&format!("apply --server-side --field-manager=other --force-conflicts -f {more}"));
    assert_eq!(kubectl.ok("get deployment two -o jsonpath={.spec.replicas}"), "3");
    let conflict = kubectl.fails(&format!("apply --server-side -f {two}"));
    assert_has(&conflict, "conflict with \"other\"");
    let managed = kubectl.ok("get deployment two -o yaml --show-managed-fields");
    assert_has(&managed, "f:replicas");
    // Scaling makes the field its own manager's.
    kubectl.ok("scale deployment/two --replicas=7");
    let conflict = kubectl.fails(&format!("apply --server-side --field-manager=other -f {more}"));
    assert_has(&conflict, ".spec.replicas");
}

#[test]
fn line_7_tables() {
    let Some(program) = kubectl() else { return };
    let server = Server::start();
    let kubectl = server.kubectl(&program);
    let file = server.folder.write("two.yaml", TWO_CONTAINERS);
    kubectl.ok(&format!("apply -f {file}"));
    let another = std::fs::read_to_string(&file).unwrap().replace("name: two", "name: another");
    let another = server.folder.write("another.yaml", &another);
    kubectl.ok(&format!("apply -f {another}"));
    kubectl.ok("run single --image=nginx:4");
    let columns =
        |text: &str| text.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    for (what, expected) in [
        ("deployments", "NAME READY UP-TO-DATE AVAILABLE AGE"),
        ("deployments -o wide", "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR"),
        ("deployments -A", "NAMESPACE NAME READY UP-TO-DATE AVAILABLE AGE"),
        ("deployments --show-labels", "NAME READY UP-TO-DATE AVAILABLE AGE LABELS"),
        ("deployments -L app", "NAME READY UP-TO-DATE AVAILABLE AGE APP"),
        ("pods -o wide", "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"),
        ("services", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE"),
        ("configmaps", "NAME DATA AGE"),
        ("serviceaccounts", "NAME AGE"),
        ("namespaces", "NAME STATUS AGE"),
    ] {
        let found = columns(&kubectl.ok(&format!("get {what}")));
        // Newer servers print no Secrets of ServiceAccounts; ours prints what 1.33 does.
        let expected = if what == "serviceaccounts" { "NAME SECRETS AGE" } else { expected };
        assert_eq!(found, expected, "{what}");
    }
    let sorted = kubectl.ok("get deployments --sort-by=.metadata.name");
    assert!(sorted.find("another").unwrap() < sorted.find("two").unwrap(), "{sorted}");
    assert_has(&kubectl.ok("get pod single"), "0/1     Pending");

    let mut watch = kubectl.command("get deployments -w").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut until = |part: &str| {
        for line in lines.by_ref() {
            let line = line.unwrap();
            if line.contains(part) {
                return line;
            }
        }
        panic!("the watch ended without {part:?}");
    };
    until("two");
    kubectl.ok("scale deployment/two --replicas=9");
    until("0/9");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn line_12_deletion_and_waiting() {
    let Some(program) = kubectl() else { return };
    let server = Server::start();
    let kubectl = server.kubectl(&program);
    kubectl.ok("create namespace test");
    kubectl.ok("create configmap -n test c --from-literal=a=b");
    kubectl.ok("delete namespace test");
    assert_has(&kubectl.fails("get configmap -n test c"), "not found");
    kubectl.ok("create namespace test");
    assert_eq!(kubectl.ok("get configmap -n test -o jsonpath={.items[*].metadata.name}"), "kube-root-ca.crt");
    kubectl.ok("run p --image=a");
    kubectl.ok("delete pod p --now");
    kubectl.ok("wait --for=delete pod/p --timeout=5s");
    assert_has(&kubectl.fails("delete namespace default"), "is forbidden: this namespace may not be deleted");
    assert_has(&kubectl.fails("get pod nothing"), "Error from server (NotFound): pods \"nothing\" not found");
}

#[test]
fn line_13_custom_resources() {
    let Some(program) = kubectl() else { return };
    let server = Server::start();
    let kubectl = server.kubectl(&program);
    let file = server.folder.write("crd.yaml", SHIRTS);
    kubectl.ok(&format!("apply -f {file}"));
    kubectl.ok("wait --for=condition=Established crd/shirts.example.com --timeout=5s");
    let shirt = "{apiVersion: example.com/v1, kind: Shirt, metadata: {name: s}, spec: {color: red, fit: 3}}";
    let file = server.folder.write("shirt.yaml", shirt);
    assert_has(&kubectl.ok(&format!("apply -f {file}")), "shirt.example.com/s created");
    assert_has(&kubectl.ok(&format!("apply -f {file}")), "unchanged");
    let table = kubectl.ok("get sh -o wide");
    assert_has(&table, "NAME   COLOR   SIZE");
    assert_has(&table, "s      red     40");
    assert_has(&kubectl.ok("get all"), "shirt.example.com/s");
    assert_has(
        &kubectl.fails("patch shirt s -p {\"spec\":{\"size\":1}}"),
        "the body of the request was in an unknown format",
    );
    kubectl.ok("patch shirt s --type=merge -p {\"spec\":{\"size\":1}}");
    kubectl.ok("scale shirt s --replicas=4");
    assert_eq!(kubectl.ok("get shirt s -o jsonpath={.spec.count}"), "4");
    let file = server.folder.write("green.yaml", &shirt.replace("red", "green"));
    let refused = kubectl.fails(&format!("apply -f {file}"));
    assert_has(&refused, "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"");
    kubectl.ok("delete crd shirts.example.com");
    // kubectl may have its list of resources from before the deletion: then the server says it.
    let gone = kubectl.fails("get shirts");
    assert!(
        gone.contains("the server doesn't have a resource type \"shirts\"")
            || gone.contains("the server could not find the requested resource"),
        "{gone}"
    );
}

#[test]
fn versions_of_a_custom_resource_are_views_of_one_object() {
    let Some(program) = kubectl() else { return };
    let server = Server::start();
    let kubectl = server.kubectl(&program);
    let old = "
  - name: v1beta1
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
    let file = server.folder.write("crd.yaml", &format!("{}{}", SHIRTS.trim_end(), old));
    kubectl.ok(&format!("apply -f {file}"));
    let shirt = "{apiVersion: example.com/v1beta1, kind: Shirt, metadata: {name: s}, spec: {color: red}}";
    let file = server.folder.write("shirt.yaml", shirt);
    kubectl.ok(&format!("apply -f {file}"));
    let of = |version: &str| {
        kubectl.ok(&format!(
            "get shirts.{version}.example.com s -o jsonpath={{.apiVersion}}{{.kind}}{{.spec.color}}"
        ))
    };
    assert_eq!(of("v1"), "example.com/v1Shirtred");
    assert_eq!(of("v1beta1"), "example.com/v1beta1Shirtred");
    kubectl.ok("patch shirts.v1.example.com s --type=merge -p {\"spec\":{\"color\":\"blue\"}}");
    assert_eq!(of("v1beta1"), "example.com/v1beta1Shirtblue");
}

#[test]
fn credentials_and_roles() {
    let Some(program) = kubectl() else { return };
    let server = Server::start();
    let kubectl = server.kubectl(&program);
    let curl = |headers: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command
            .args(["-s", "-o", "-", "-w", " %{http_code}", "--cacert"])
            .arg(server.folder.0.join("ca.crt"));
        for header in headers {
            command.args(["-H", header]);
        }
        let output = command.arg(format!("{}{path}", server.serving.url())).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_has(&curl(&[], "/api/v1/namespaces"), "\"reason\":\"Unauthorized\"");
    assert_has(&curl(&["Authorization: Bearer wrong"], "/api/v1/namespaces"), " 401");
    let bearer = format!("Authorization: Bearer {}", server.token);
    assert_has(&curl(&[&bearer], "/api/v1/namespaces"), " 200");

    // A ServiceAccount's token is known, and may do what its roles say once roles are enforced.
    kubectl.ok("create serviceaccount robot");
    let token = kubectl.ok("create token robot");
    let robot = format!("Authorization: Bearer {}", token.trim());
    assert_has(&curl(&[&robot], "/api/v1/namespaces/default/pods"), " 200");
    server.api.enforce_rbac();
    let refused = curl(&[&robot], "/api/v1/namespaces/default/pods");
    assert_has(&refused, " 403");
    assert_has(
        &refused,
        r#"pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""#,
    );
    kubectl.ok("create rolebinding robot --clusterrole=view --serviceaccount=default:robot");
    assert_has(&curl(&[&robot], "/api/v1/namespaces/default/pods"), " 200");
    assert_has(&curl(&[&robot], "/api/v1/namespaces/default/secrets"), " 403");
    assert_has(&curl(&[&robot], "/api/v1/namespaces/kube-system/pods"), " 403");
    assert_has(&curl(&[&robot], "/apis"), " 200");
    let as_robot = "--as=system:serviceaccount:default:robot";
    assert_has(&kubectl.ok(&format!("auth can-i list pods {as_robot}")), "yes");
    assert_has(&kubectl.run(&format!("auth can-i delete pods {as_robot}")).out, "no");
    assert_has(&kubectl.fails(&format!("delete pod x {as_robot}")), "cannot delete resource \"pods\"");
    kubectl.ok("get pods");
}

#[test]
fn bodies_that_are_too_large_or_broken_are_refused() {
    let server = Server::start();
    let large = server.folder.write("large.json", &format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20)));
    let send = |file: &str, kind: &str| {
        let output = Command::new("curl")
            .args(["-s", "-w", " %{http_code}", "--cacert"])
            .arg(server.folder.0.join("ca.crt"))
            .args([
                "-H",
                &format!("Authorization: Bearer {}", server.token),
                "-H",
                &format!("Content-Type: {kind}"),
            ])
            .args(["--data-binary", &format!("@{file}")])
            .arg(format!("{}/api/v1/namespaces/default/configmaps", server.serving.url()))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_has(&send(&large, "application/json"), "limit is 3145728");
    let broken = server.folder.write("broken.json", "{\"metadata\": ");
    assert_has(&send(&broken, "application/json"), " 400");
    assert_has(&send(&broken, "application/vnd.kubernetes.protobuf"), "does not start with");
    assert_has(&send(&broken, "text/csv"), " 415");
}
