//! The Python client.

use std::process::Command;

use super::{Server, tool};

#[test]
fn lists_watches_patches_and_deletes() {
    let Some(python) = tool("python/bin/python") else { return };
    let server = Server::start();
    let script = "
from kubernetes import client, config, dynamic, watch
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
assert 'default' in [n.metadata.name for n in core.list_namespace().items]
core.create_namespaced_config_map('default', {'metadata': {'name': 'made'}, 'data': {'a': 'b'}})
seen = [(e['type'], e['object'].metadata.name)
        for e in watch.Watch().stream(core.list_namespaced_config_map, 'default', timeout_seconds=1)]
assert ('ADDED', 'made') in seen, seen
assert core.patch_namespaced_config_map('made', 'default', {'data': {'c': 'd'}}).data == {'a': 'b', 'c': 'd'}
core.delete_namespaced_config_map('made', 'default')
try:
    core.read_namespaced_config_map('made', 'default')
    raise SystemExit('it is still there')
except client.rest.ApiException as error:
    assert error.status == 404, error
pod = {'spec': {'containers': [{'name': 'a', 'image': 'b'}]}, 'metadata': {'labels': {'x': 'y'}}}
apps.create_namespaced_deployment('default', {'metadata': {'name': 'd'}, 'spec': {
    'selector': {'matchLabels': {'x': 'y'}}, 'template': pod}})
found = apps.read_namespaced_deployment('d', 'default')
assert found.spec.replicas == 1 and found.spec.strategy.type == 'RollingUpdate', found
kinds = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version='apps/v1', kind='Deployment')
assert [d.metadata.name for d in kinds.get(namespace='default').items] == ['d']
print('done')
";
    let output = Command::new(python)
        .args(["-c", script])
        .env("KUBECONFIG", server.folder.0.join("kubeconfig"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim() == "done", "{out}\n{err}");
}
