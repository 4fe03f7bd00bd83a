//! A setting as a scenario file for the whole testbed: the same Canary and the same model, with clusters, mesh,
//! Prometheus, Flagger and load tester in place of the fast path's draws.

use std::time::Duration;

use serde_json::{Value, json};

use crate::latency::Latency;
use crate::manifest;
use crate::model::{Arrivals, Rate, Telemetry};
use crate::policy::Policy;
use crate::setting::Setting;

const CRDS: &str = crd::manifests::FLAGGER;
const FLAGGER: &str = include_str!("../../../fixtures/article/flagger/flagger/flagger.yaml");
const KUBECONFIG: &str = include_str!("../../../fixtures/article/flagger/flagger/istio-kubeconfig.yaml");
const INGRESS: &str = include_str!("../../../fixtures/article/istio/ingressgateway/ingressgateway.yaml");
const PROMETHEUS: [&str; 3] = [
    include_str!("../../../fixtures/article/flagger/prometheus/rbac.yaml"),
    include_str!("../../../fixtures/article/flagger/prometheus/config.yaml"),
    include_str!("../../../fixtures/article/flagger/prometheus/prometheus.yaml"),
];
const LOAD_TESTER: &str = include_str!("../../../fixtures/article/flagger/loadtester/loadtester.yaml");

/// The image of the released target, without its tag.
pub const IMAGE: &str = "example/target";
/// The tag of the version that runs now.
const OLD: &str = "1.0.0";
/// The tag of the version that is released.
pub const NEW: &str = "2.0.0";
/// The mark of the release.
pub const RELEASE: &str = "release";
/// The name of the users' traffic.
pub const USERS: &str = "users";

/// What of a setting the testbed models otherwise than the fast path, or the fast path not at all.
///
/// # Errors
/// What the testbed cannot do.
pub fn differences(setting: &Setting<'_>) -> Result<Vec<String>, String> {
    let model = setting.model;
    let mut differences = Vec::new();
    let refuse =
        |what: &str| Err(format!("service model {}: {what}: the fast path alone does that", model.name));
    let has_histogram = matches!(setting.latency, Latency::Histogram { .. } | Latency::File { .. })
        || matches!(model.baseline.latency, Latency::Histogram { .. } | Latency::File { .. });
    if has_histogram {
        return refuse("a measured latency histogram");
    }
    if model.traffic.diurnal.is_some() || model.traffic.replay.is_some() {
        return refuse("a traffic that follows the day or a recording");
    }
    if model.capacity.is_some() {
        return refuse("a capacity");
    }
    if model.bursts.is_some() || model.cold_start.is_some() {
        return refuse("bursts and cold starts");
    }
    let version = &model.versions[setting.version];
    if !matches!(version.error_rate, None | Some(Rate::Fixed(_))) {
        return refuse("a prior of the error rate");
    }
    let spec = &setting.policy.canary.spec;
    if spec.autoscaler_ref.is_some() {
        differences.push("the autoscaler is left out: one replica of each version".to_owned());
    }
    if spec.analysis().is_some_and(|analysis| !analysis.matches.is_empty()) {
        differences.push("A/B: the conditions themselves decide, not matchShare".to_owned());
    }
    differences
        .push("the primary's rolling update takes what it takes, not the model's promotion time".to_owned());
    Ok(differences)
}

fn documents(text: &str, namespace: &str) -> Vec<Value> {
    let documents = manifest::parse("fixture", text).expect("the fixtures are YAML");
    let cluster_wide = ["Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"];
    documents
        .into_iter()
        .map(|document| {
            let mut value = document.value;
            if !cluster_wide.contains(&value["kind"].as_str().unwrap_or_default()) {
                value["metadata"]["namespace"] = json!(namespace);
            }
            value
        })
        .collect()
}

/// Replaces a text in all strings of a value.
fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text.contains(from) => *text = text.replace(from, to),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, from, to)),
        _ => {}
    }
}

/// How long after the Canary's initialisation the release comes: where it lies within the interval is the seed's, as on the
/// fast path. Scenarios of one setting differ in nothing but this and the seed itself.
pub fn release_after(setting: &Setting<'_>, seed: u64) -> Duration {
    let interval = u64::try_from(setting.policy.interval / 1000).unwrap_or_default();
    let offset = if interval > 0 { seed.wrapping_mul(7919) % interval } else { 0 };
    Duration::from_secs(60 + offset)
}

/// The scenario's text.
///
/// # Errors
/// As [`differences`].
pub fn scenario(setting: &Setting<'_>, seed: u64) -> Result<String, String> {
    differences(setting)?;
    let (policy, model) = (setting.policy, setting.model);
    let canary = &policy.canary;
    let namespace = if canary.namespace().is_empty() { "default" } else { canary.namespace() };
    let spec = &canary.spec;
    let target = spec.target_ref.name.as_str();
    let port = spec.service.port;
    let telemetry = match setting.telemetry {
        Telemetry::Seconds => "seconds",
        Telemetry::Milliseconds => "milliseconds",
    };

    let mut shipped = serde_json::to_value(canary).map_err(|error| error.to_string())?;
    shipped["metadata"] = json!({"name": canary.name(), "namespace": namespace});
    if let Some(spec) = shipped["spec"].as_object_mut() {
        spec.remove("autoscalerRef");
        spec.remove("status");
    }
    let namespaces = json!([
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"istio-injection": "enabled"}}},
    ]);
    let (gateways, through_gateway) = gateways(policy, namespace);
    let mut prometheus: Vec<Value> =
        PROMETHEUS.iter().flat_map(|text| documents(text, "istio-system")).collect();
    for object in &mut prometheus {
        replace(
            object,
            "scrape_interval: 5s",
            &format!("scrape_interval: {}", model.prometheus.scrape_interval),
        );
        if model.prometheus.version == 3 {
            replace(object, "prom/prometheus:v2.12.0", "prom/prometheus:v3.5.0");
        }
    }
    let mut flagger = documents(KUBECONFIG, "istio-system");
    flagger.extend(documents(FLAGGER, "istio-system"));
    if policy.dialect == canary::Dialect::Latest {
        flagger.iter_mut().for_each(|object| {
            replace(object, "weaveworks/flagger:1.0.0-rc.1", "ghcr.io/fluxcd/flagger:1.44.0")
        });
    }
    let testers = spec.analysis().map_or(Vec::new(), |analysis| {
        let hosts = analysis.webhooks.iter().filter_map(|hook| {
            let host = hook.url.split_once("://")?.1.split(['/', ':']).next()?.to_owned();
            let (name, rest) = host.split_once('.').unwrap_or((&host, namespace));
            Some((name.to_owned(), rest.split('.').next().unwrap_or(namespace).to_owned()))
        });
        let mut hosts: Vec<(String, String)> = hosts.collect();
        hosts.sort();
        hosts.dedup();
        hosts
    });
    let mut objects = vec![
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": target, "namespace": namespace, "labels": {"app": target}},
            "spec": {"selector": {"matchLabels": {"app": target}},
                "template": {"metadata": {"labels": {"app": target}},
                    "spec": {"containers": [{"name": "target", "image": format!("{IMAGE}:{OLD}"), "ports": [{"containerPort": port, "name": "http"}]}]}}}}),
    ];
    for (name, space) in &testers {
        let mut tester = documents(LOAD_TESTER, space);
        tester.iter_mut().for_each(|object| replace(object, "loadtester", name));
        // The image and the program keep their names.
        tester.iter_mut().for_each(|object| {
            replace(object, &format!("flagger-{name}"), "flagger-loadtester");
            replace(object, &format!("./{name}"), "./loadtester");
        });
        objects.extend(tester);
    }
    let templates = setting.templates.iter().filter_map(|template| serde_json::to_value(template).ok());
    objects.extend(templates);

    let users = if through_gateway {
        json!({"name": USERS, "from": {"gateway": {"cluster": "data"}}, "url": format!("http://{}/", spec.service.hosts[0])})
    } else {
        json!({"name": USERS, "from": {"pod": {"cluster": "data", "namespace": namespace, "name": "users"}},
            "url": format!("http://{}.{namespace}:{port}/", spec.apex_name())})
    };
    let mut users = users;
    let arrivals = match model.traffic.arrivals {
        Arrivals::Poisson => "poisson",
        Arrivals::Constant => "constant",
    };
    users["open"] = json!({"rate": model.traffic.rate, "arrivals": arrivals});
    let new = json!({"errorRate": setting.error_rates[0], "latency": setting.latency, "slowdown": setting.slowdown,
        "errorStatus": if setting.errors_show { 500 } else { 404 },
        "startup": crate::Span::from_millis(setting.startup.unwrap_or(0).max(0) as u64),
        "neverReady": setting.startup.is_none(), "pull": "0s"});
    let old =
        json!({"errorRate": model.baseline.error_rate, "latency": model.baseline.latency, "pull": "0s"});
    let rate = model.traffic.rate > 0.0;
    let place = json!({"cluster": "data", "namespace": namespace, "name": canary.name()});
    let mut steps = vec![
        json!({"apply": {"cluster": "asm", "objects": namespaces}}),
        json!({"apply": {"cluster": "asm", "objects": gateways}}),
        json!({"apply": {"cluster": "data", "objects": namespaces}}),
        json!({"apply": {"cluster": "data", "objects": documents(INGRESS, "istio-system")}}),
        json!({"apply": {"cluster": "data", "objects": documents(CRDS, "")}}),
        json!({"apply": {"cluster": "data", "objects": prometheus}}),
        json!({"wait": {"rollout": {"cluster": "data", "namespace": "istio-system", "deployment": "prometheus"}}}),
        json!({"apply": {"cluster": "data", "objects": flagger}}),
        json!({"wait": {"rollout": {"cluster": "data", "namespace": "istio-system", "deployment": "flagger"}}}),
        json!({"apply": {"cluster": "data", "objects": objects}}),
        json!({"apply": {"cluster": "data", "objects": [shipped]}}),
        json!({"wait": {"canary": with(&place, "phase", json!("Initialized")), "timeout": "10m"}}),
    ];
    if rate {
        steps.push(json!({"traffic": {"start": USERS}}));
    }
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": format!("{IMAGE}:{NEW}")}]);
    let pause = crate::Span::from_millis(release_after(setting, seed).as_millis() as u64);
    steps.push(json!({"name": "the new version is released", "after": pause, "mark": RELEASE,
        "patch": {"cluster": "data", "kind": "Deployment", "namespace": namespace, "name": target, "type": "json", "patch": image}}));
    let document = json!({
        "apiVersion": "coalmine.dev/v1alpha1",
        "kind": "Scenario",
        "metadata": {"name": format!("{}-{}", canary.name(), setting.version)},
        "description": format!("A rollout of a {} version under service model {}, made by coalmine whatif.", setting.version, model.name),
        "spec": {
            "seed": seed,
            "timeout": "24h",
            "clusters": [{"name": "asm", "role": "controlPlane"}, {"name": "data", "nodes": 3}],
            "mesh": {"controlPlane": "asm", "data": ["data"], "telemetry": telemetry},
            "images": {format!("{IMAGE}:{OLD}"): old, format!("{IMAGE}:{NEW}"): new},
            "traffic": if rate { json!([users]) } else { json!([]) },
            "steps": steps,
            "until": {"log": {"cluster": "data", "workload": "flagger", "since": RELEASE, "matches": "^(Promotion completed!|Canary failed!)"}, "timeout": "23h"},
            "expect": [],
        },
    });
    let text = serde_saphyr::to_string(&document).map_err(|error| error.to_string())?;
    Ok(format!("# Written by coalmine whatif: one rollout for the full simulation.\n{text}"))
}

fn with(value: &Value, key: &str, more: Value) -> Value {
    let mut value = value.clone();
    value[key] = more;
    value
}

/// The Gateways that the Canary names, and whether users come in by one.
fn gateways(policy: &Policy, namespace: &str) -> (Value, bool) {
    let service = &policy.canary.spec.service;
    let named = service.gateways.iter().filter(|gateway| *gateway != "mesh");
    let objects: Vec<Value> = named
        .map(|gateway| {
            let gateway = gateway.trim_end_matches(".svc.cluster.local");
            let (space, name) = match (gateway.split_once('/'), gateway.split_once('.')) {
                (Some((space, name)), _) => (if space == "." { namespace } else { space }, name),
                (None, Some((name, space))) => (space, name),
                (None, None) => (namespace, gateway),
            };
            json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "Gateway", "metadata": {"name": name, "namespace": space},
                "spec": {"selector": {"istio": "ingressgateway"}, "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]}})
        })
        .collect();
    let through = !objects.is_empty() && !service.hosts.is_empty();
    (json!(objects), through)
}

#[cfg(test)]
mod tests {
    use crd::Canary;

    use super::*;
    use crate::ServiceModel;

    #[test]
    fn scenarios_of_a_setting_differ_in_seed_and_release_alone() {
        let manifest = include_str!("../../../fixtures/article/flagger/podinfo/canary.yaml");
        let canary: Canary = serde_saphyr::from_str(manifest).unwrap();
        let policy = Policy::new(canary, canary::Dialect::Latest, &[], &|_| None);
        let model = ServiceModel::default();
        let setting = Setting::new(&policy, &model, "good").unwrap();
        // What is the same, and the two that are not.
        let parts = |seed| {
            let text = scenario(&setting, seed).unwrap();
            let mut document: Value = serde_saphyr::from_str(&text).unwrap();
            let own = document["spec"]["seed"].take();
            let steps = document["spec"]["steps"].as_array_mut().unwrap();
            let release = steps.iter_mut().find(|step| step["mark"] == RELEASE).unwrap();
            let after = release["after"].take();
            (document, own, after)
        };
        let ((same, one, early), (too, other, late)) = (parts(1), parts(2));
        assert_eq!(same, too);
        assert_eq!((one, early), (json!(1), json!("1m29s")));
        assert_eq!((other, late), (json!(2), json!("1m28s")));
        assert_eq!(release_after(&setting, 1), Duration::from_secs(89));
    }
}
