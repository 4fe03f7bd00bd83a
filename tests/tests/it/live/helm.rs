//! Helm, by its SDK for Python.

use std::process::Command;

use super::testbed::with_testbed;
use super::tool;

/// A chart with a Deployment that rolls out, a Service, a hook that must be done first, and a test of values.
const CHART: [(&str, &str); 5] = [
    ("Chart.yaml", "{apiVersion: v2, name: demo, version: 0.1.0, appVersion: 3.1.0}"),
    ("values.yaml", "{replicas: 1, tag: 3.1.0}"),
    (
        "templates/deployment.yaml",
        "apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}, labels: {app.kubernetes.io/managed-by: {{ .Release.Service }}}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      containers:
      - {name: podinfod, image: 'stefanprodan/podinfo:{{ .Values.tag }}', ports: [{containerPort: 9898}]}
",
    ),
    (
        "templates/service.yaml",
        "{apiVersion: v1, kind: Service, metadata: {name: {{ .Release.Name }}},
          spec: {selector: {app: {{ .Release.Name }}}, ports: [{port: 9898}]}}",
    ),
    (
        "templates/hook.yaml",
        "apiVersion: v1
kind: ConfigMap
metadata: {name: hook, annotations: {helm.sh/hook: 'pre-install,pre-upgrade'}}
data: {revision: '{{ .Release.Revision }}', version: {{ .Capabilities.KubeVersion.Version | quote }}}
",
    ),
];

const SCRIPT: &str = "
import sys
import helm_python as helm
chart, kubeconfig = sys.argv[1:]
config = helm.Config(kubeconfig_path=kubeconfig, kube_context='one', namespace='apps')
made = config.install(chart, 'web', namespace='apps', create_namespace=True, wait='watcher', timeout=60)
assert made['status'] == 'deployed' and made['revision'] == 1, made
planned = config.upgrade(chart, 'web', {'replicas': 9}, namespace='apps', dry_run='server')
assert 'replicas: 9' in planned['manifest'], planned
made = config.upgrade(chart, 'web', {'replicas': 3, 'tag': '3.1.1'}, namespace='apps', wait='watcher', timeout=60)
assert made['revision'] == 2, made
print('upgraded', flush=True)
input()
try:
    config.upgrade(chart, 'web', {'replicas': 'many'}, namespace='apps')
    raise SystemExit('a wrong value was taken')
except helm.HelmError as error:
    assert 'replicas' in str(error), error
config.rollback('web', version=1, wait='legacy', timeout=60)
history = [(entry['revision'], entry['status']) for entry in config.history('web')]
assert history[-1] == (4, 'deployed') and history[2][1] == 'failed', history
print('rolled back', flush=True)
input()
config.uninstall('web', wait='watcher', timeout=60)
assert config.list() == [], config.list()
print('done')
";

#[test]
fn a_chart_is_installed_upgraded_rolled_back_and_uninstalled() {
    let (Some(python), Some(kubectl)) = (tool("helm/bin/python"), super::kubectl()) else { return };
    with_testbed(|state, home| {
        let chart = home.join("chart");
        std::fs::create_dir_all(chart.join("templates")).unwrap();
        for (name, text) in CHART {
            std::fs::write(chart.join(name), text).unwrap();
        }
        let kubectl = super::Kubectl {
            program: kubectl.clone(),
            kubeconfig: state.kubeconfig.clone().into(),
            home: home.to_owned(),
        };
        let mut helm = Command::new(&python)
            .args(["-c", SCRIPT])
            .arg(&chart)
            .arg(&state.kubeconfig)
            .env("HOME", home)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = std::io::BufReader::new(helm.stdout.take().unwrap());
        let mut go_on = helm.stdin.take().unwrap();
        for (stage, deployment) in
            [("upgraded", "3/stefanprodan/podinfo:3.1.1"), ("rolled back", "1/stefanprodan/podinfo:3.1.0")]
        {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut said, &mut line).unwrap();
            if line.trim() != stage {
                let mut why = String::new();
                std::io::Read::read_to_string(&mut helm.stderr.take().unwrap(), &mut why).unwrap();
                panic!("Helm said {line:?}, not {stage:?}: {why}");
            }
            let fields = "{.spec.replicas}/{.spec.template.spec.containers[0].image}";
            assert_eq!(kubectl.ok(&format!("get deployment web -n apps -o jsonpath={fields}")), deployment);
            std::io::Write::write_all(&mut go_on, b"\n").unwrap();
        }
        let ended = helm.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        // Hooks stay; what Helm keeps of a release is gone with it.
        let left = kubectl.ok("get deployments,services,secrets,configmaps -n apps -o name");
        assert_eq!(left, "configmap/hook\nconfigmap/kube-root-ca.crt\n");
    });
}
