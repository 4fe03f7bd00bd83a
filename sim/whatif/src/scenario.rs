//! A setting as a scenario file for the whole testbed: the same Canary and the same model, with clusters, mesh,
//! Prometheus, Flagger and load tester in place of the fast path's draws.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::latency::Latency;
use crate::load_test::LoadTest;
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
/// The mark of the release; further ones have a number too.
pub const RELEASE: &str = "release";
/// The name of the users' traffic.
pub const USERS: &str = "users";
/// The least time in which the world comes to rest before a release.
const REST: Duration = Duration::from_secs(60);
/// The longest rest between two releases of one world: with a longer one, setting up a world takes less.
const REST_MOST: Duration = Duration::from_secs(180);
/// What Flagger says when a release has ended.
const END: &str = "^(Promotion completed!|Canary failed!)";

/// The mark of a scenario's release, counted from 0.
pub fn mark(release: usize) -> String {
    if release == 0 { RELEASE.to_owned() } else { format!("{RELEASE}-{}", release + 1) }
}

/// The tag of the version that a scenario's release brings, counted from 0.
pub fn tag(release: usize) -> String {
    format!("{}.0.0", release + 2)
}

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
    differences.push("a version is ready when a probe says so, which asks every second".to_owned());
    Ok(differences)
}

/// All fixtures, read once: a sweep has many settings.
static READ: LazyLock<BTreeMap<&str, Vec<Value>>> = LazyLock::new(|| {
    let all = [CRDS, FLAGGER, KUBECONFIG, INGRESS, LOAD_TESTER].into_iter().chain(PROMETHEUS);
    let read = |text| manifest::parse("fixture", text).expect("the fixtures are YAML");
    all.map(|text| (text, read(text).into_iter().map(|document| document.value).collect())).collect()
});

/// The objects of a fixture.
fn documents(text: &str, namespace: &str) -> Vec<Value> {
    let cluster_wide = ["Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"];
    READ[text]
        .iter()
        .cloned()
        .map(|mut value| {
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

/// How long a world of this setting rests between a release's end and the next release, for it to be as before the
/// first: no window holds anything of the last release, and none of its load tests runs. `None` where that does not
/// come by itself, or takes longer than a new world; releases have worlds of their own then:
///
/// - without an analysis: a rollout ends while the primary is still being replaced;
/// - queries of one's own that look back further than can be told, or at proxies that outlive a release;
/// - commands of webhooks that end nobody knows when, and gates that webhooks open or close: they stay so.
///
/// Versions that never become ready are no such case: Flagger scales them to zero in the end.
pub fn rest(setting: &Setting<'_>) -> Option<Duration> {
    let policy = setting.policy;
    let spec = &policy.canary.spec;
    let analysis = spec.analysis().filter(|_| !spec.skips_analysis())?;
    let checks = policy.checks.iter().map(|check| check.window);
    let mut window = checks.chain([policy.interval]).max().unwrap_or(0);
    let templates = setting.templates.iter().filter(|template| {
        let mut references = analysis.metrics.iter().filter_map(|metric| metric.template_ref.as_ref());
        references.any(|reference| reference.name == template.name())
    });
    let queries = analysis.metrics.iter().map(|metric| &metric.query);
    for query in queries.chain(templates.map(|template| &template.spec.query)) {
        window = window.max(longest_window(query)?);
    }
    let mut rest = window.saturating_add(setting.scrape);
    for hook in &analysis.webhooks {
        let metadata = hook.metadata.as_ref();
        let of = |key: &str| metadata.and_then(|metadata| metadata.get(key)).map(String::as_str);
        match of("cmd") {
            Some(command) if of("type").unwrap_or("cmd") == "cmd" => {
                // One command alone, which a time ends: a number of requests takes as long as the answers do.
                let test =
                    LoadTest::parse(&hook.name, command).filter(|_| !command.contains(['&', ';', '|']));
                let test = test.filter(|test| test.duration_ms.is_some())?;
                rest = rest.max(test.length(setting.mean_latency));
            }
            // The load tester answers when a command of any other type has ended.
            Some(_) => {}
            None if hook.url.ends_with("/open") || hook.url.ends_with("/close") => return None,
            None => {}
        }
    }
    let rest = Duration::from_millis(u64::try_from(rest).ok()?);
    // Whole seconds, as the times of all releases are.
    let rest = Duration::from_secs(rest.as_secs() + u64::from(rest.subsec_nanos() > 0)).max(REST);
    (rest <= REST_MOST).then_some(rest)
}

/// The longest window of a query in milliseconds, besides the metric's own interval; 0 without one. `None` if that cannot
/// be told, or if the query sees requests where they are sent: at proxies that stay when a canary goes.
fn longest_window(query: &str) -> Option<i64> {
    let at_canary = query.matches("reporter=\"destination\"").count();
    if query.contains("offset") || query.contains("envoy_") || query.matches("istio_").count() != at_canary {
        return None;
    }
    query.split('[').skip(1).try_fold(0, |longest, after| {
        let range = after.split([']', ':']).next()?;
        let variable = range.trim().strip_prefix("{{").and_then(|range| range.strip_suffix("}}"));
        let window = match variable {
            Some(variable) => (variable.trim() == "interval").then_some(0)?,
            None => promql::parse_duration(range).ok()?,
        };
        Some(window.max(longest))
    })
}

/// How long after the Canary's initialisation, or the end of the release before, a release comes: where it lies within the
/// interval is the seed's, as on the fast path. Scenarios of one setting differ in nothing but this and the seed itself.
pub fn release_after(setting: &Setting<'_>, release: usize, seed: u64) -> Duration {
    let rest = if release == 0 { REST } else { rest(setting).unwrap_or(REST) };
    let interval = u64::try_from(setting.policy.interval / 1000).unwrap_or_default().max(1);
    // A rest begins at a tick of Flagger: a longer one must not change where between two ticks the release lies.
    let late = (rest - REST).as_secs() % interval;
    let offset = (seed.wrapping_mul(7919) % interval + interval - late) % interval;
    rest + Duration::from_secs(offset)
}

/// The scenario's text, for one rollout.
///
/// # Errors
/// As [`differences`].
pub fn scenario(setting: &Setting<'_>, seed: u64) -> Result<String, String> {
    let document = document(setting, &[seed])?;
    let text = serde_saphyr::to_string(&document).map_err(|error| error.to_string())?;
    Ok(format!("# Written by coalmine whatif: one rollout for the full simulation.\n{text}"))
}

/// The text of a scenario with a rollout for each seed, one after the other; the first seed is the scenario's. It is for
/// programs: JSON, which is YAML too, in lines, as YAML is read line by line.
///
/// # Errors
/// As [`differences`].
pub fn sequence(setting: &Setting<'_>, seeds: &[u64]) -> Result<String, String> {
    Ok(format!("{:#}", document(setting, seeds)?))
}

fn document(setting: &Setting<'_>, seeds: &[u64]) -> Result<Value, String> {
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
                    "spec": {"containers": [{"name": "target", "image": format!("{IMAGE}:{OLD}"), "ports": [{"containerPort": port, "name": "http"}],
                        "readinessProbe": {"httpGet": {"path": "/readyz", "port": port}, "periodSeconds": 1}}]}}}}),
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
    let image = |release| format!("{IMAGE}:{}", tag(release));
    let mut images = json!({format!("{IMAGE}:{OLD}"): old});
    for (release, seed) in seeds.iter().enumerate() {
        if let Some(last) = release.checked_sub(1) {
            steps.push(json!({"wait": {"log": end(last), "timeout": "23h"}}));
            // Promoted, it is what the next release replaces. Rolled back, nobody runs it again.
            steps.push(json!({"mark": format!("{}-ended", mark(last)), "image": {"name": image(last), "behaviour": old}}));
        }
        let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image(release)}]);
        let pause = crate::Span::from_millis(release_after(setting, release, *seed).as_millis() as u64);
        steps.push(json!({"name": "the new version is released", "after": pause, "mark": mark(release),
            "patch": {"cluster": "data", "kind": "Deployment", "namespace": namespace, "name": target, "type": "json", "patch": patch}}));
        images[image(release)] = new.clone();
    }
    Ok(json!({
        "apiVersion": "coalmine.dev/v1alpha1",
        "kind": "Scenario",
        "metadata": {"name": format!("{}-{}", canary.name(), setting.version)},
        "description": format!("A rollout of a {} version under service model {}, made by coalmine whatif.", setting.version, model.name),
        "spec": {
            "seed": seeds.first(),
            "timeout": format!("{}h", 24 * seeds.len()),
            "clusters": [{"name": "asm", "role": "controlPlane"}, {"name": "data", "nodes": 3}],
            "mesh": {"controlPlane": "asm", "data": ["data"], "telemetry": telemetry},
            "images": images,
            "traffic": if rate { json!([users]) } else { json!([]) },
            "steps": steps,
            "until": {"log": end(seeds.len().saturating_sub(1)), "timeout": "23h"},
            "expect": [],
        },
    }))
}

/// The line at which a release has ended.
fn end(release: usize) -> Value {
    json!({"cluster": "data", "workload": "flagger", "since": mark(release), "matches": END})
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
    use crd::{Canary, CanaryAnalysis, CanarySpec};

    use super::*;
    use crate::ServiceModel;

    fn article() -> Canary {
        let manifest = include_str!("../../../fixtures/article/flagger/podinfo/canary.yaml");
        serde_saphyr::from_str(manifest).unwrap()
    }

    fn with_setting<T>(canary: Canary, test: impl Fn(&Setting<'_>) -> T) -> T {
        let policy = Policy::new(canary, canary::Dialect::Latest, &[], &|_| None);
        let model = ServiceModel::default();
        test(&Setting::new(&policy, &model, "good").unwrap())
    }

    #[test]
    fn scenarios_of_a_setting_differ_in_seed_and_release_alone() {
        with_setting(article(), |setting| {
            // What is the same, and the two that are not.
            let parts = |seed| {
                let text = scenario(setting, seed).unwrap();
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
            assert_eq!(release_after(setting, 0, 1), Duration::from_secs(89));
        });
    }

    #[test]
    fn a_sequence_goes_on_where_one_rollout_ends() {
        with_setting(article(), |setting| {
            let parse = |seeds: &[u64]| -> Value {
                let text = sequence(setting, seeds).unwrap();
                serde_saphyr::from_str::<Value>(&text).unwrap()["spec"].take()
            };
            let (one, three) = (parse(&[1]), parse(&[1, 2, 3]));
            let steps = |spec: &Value| spec["steps"].as_array().unwrap().clone();
            let (few, all) = (steps(&one), steps(&three));
            assert_eq!(few[..], all[..few.len()]);
            let ends = |spec: &Value| (spec["timeout"].clone(), spec["until"]["log"]["since"].clone());
            assert_eq!(ends(&one), (json!("24h"), json!("release")));
            assert_eq!(ends(&three), (json!("72h"), json!("release-3")));
            assert_eq!(one["images"].as_object().unwrap().len(), 2);
            let more: Vec<&Value> = all[few.len()..].iter().collect();
            let [wait, image, release, _, _, _] = more[..] else { panic!("{more:?}") };
            assert_eq!(wait["wait"]["log"], one["until"]["log"]);
            let old = &three["images"]["example/target:1.0.0"];
            let change = json!({"name": "example/target:2.0.0", "behaviour": old});
            assert_eq!(image, &json!({"mark": "release-ended", "image": change}));
            // After the load test's minute, at the second seed's place in the interval.
            assert_eq!((&release["mark"], &release["after"]), (&json!("release-2"), &json!("1m28s")));
            assert_eq!(release["patch"]["patch"][0]["value"], "example/target:3.0.0");
            assert_eq!(three["images"]["example/target:4.0.0"], three["images"]["example/target:2.0.0"]);
        });
    }

    #[test]
    fn a_world_rests_until_windows_and_load_tests_are_over() {
        let rest_of = |change: &dyn Fn(&mut CanarySpec)| {
            let mut canary = article();
            change(&mut canary.spec);
            with_setting(canary, |setting| rest(setting).map(|rest| rest.as_secs()))
        };
        let analysis =
            |change: &dyn Fn(&mut CanaryAnalysis)| rest_of(&|spec| change(spec.analysis.as_mut().unwrap()));
        let window = |window: &str| analysis(&|analysis| analysis.metrics[0].interval = window.to_owned());
        let command = |command: &str| {
            analysis(&|analysis| {
                let metadata = analysis.webhooks[0].metadata.as_mut().unwrap();
                metadata.insert("cmd".to_owned(), command.to_owned());
            })
        };
        // The article's load test takes a minute and its last answer.
        assert_eq!(analysis(&|_| {}), Some(61));
        assert_eq!(analysis(&|analysis| analysis.webhooks.clear()), Some(60));
        assert_eq!(analysis(&|analysis| analysis.interval = "2m".to_owned()), Some(125));
        assert_eq!(window("150s"), Some(155));
        assert_eq!(command("hey -z 2m -q 10 -c 2 http://podinfo-canary.test:9898/"), Some(121));
        // No known end, or a late one.
        assert_eq!(command("hey -n 1000 http://podinfo-canary.test:9898/"), None);
        assert_eq!(command("hey -z 1m http://podinfo/ && hey -z 1m http://podinfo/"), None);
        assert_eq!(command("hey -z 20m http://podinfo-canary.test:9898/"), None);
        assert_eq!(window("3m"), None);
        // What a release would leave behind.
        assert_eq!(rest_of(&|spec| spec.skip_analysis = true), None);
        let gate = |path: &str| {
            analysis(&|analysis| {
                analysis.webhooks[0].metadata = None;
                analysis.webhooks[0].url = format!("http://loadtester.test/gate/{path}");
            })
        };
        assert_eq!((gate("approve"), gate("open")), (Some(60), None));
        let query = |query: &str| analysis(&|analysis| analysis.metrics[0].query = query.to_owned());
        let errors = "rate(istio_requests_total{reporter=\"destination\"}[{{ interval }}])";
        assert_eq!(query(errors), Some(61));
        assert_eq!(query(&errors.replace("{{ interval }}", "90s")), Some(95));
        assert_eq!(query(&errors.replace("reporter=\"destination\"", "")), None);
        assert_eq!(query(&errors.replace("{{ interval }}", "{{ window }}")), None);
    }
}
