//! Objects through a client: what is stored, refused, watched and collected.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Error, ResourceExt as _};
use serde_json::{Value, json};

use crate::with_server;

fn from<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn deployment(name: &str, image: &str) -> Deployment {
    from(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}},
                 "template": {"metadata": {"labels": {"app": name}},
                              "spec": {"containers": [{"name": "main", "image": image}]}}}}))
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String, String) {
    match result {
        Err(Error::Api(status)) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[test]
fn writes_are_stamped_defaulted_and_checked() {
    with_server(|_, client, clock| async move {
        let api: Api<Deployment> = Api::namespaced(client.clone(), "default");
        let made = api.create(&PostParams::default(), &deployment("web", "nginx")).await.unwrap();
        let spec = made.spec.clone().unwrap();
        assert_eq!(spec.replicas, Some(1));
        assert_eq!(spec.strategy.unwrap().rolling_update.unwrap().max_surge, Some(from(json!("25%"))));
        assert_eq!(spec.template.spec.unwrap().containers[0].image_pull_policy.as_deref(), Some("Always"));
        assert_eq!(made.metadata.generation, Some(1));
        assert_eq!(made.creation_timestamp().unwrap().0, clock.now());

        let (code, reason, message) =
            refusal(api.create(&PostParams::default(), &deployment("web", "b")).await);
        assert_eq!((code, reason.as_str()), (409, "AlreadyExists"));
        assert_eq!(message, "deployments.apps \"web\" already exists");

        // A write that changes nothing keeps the version; a stale one is refused.
        let same = api.replace("web", &PostParams::default(), &made).await.unwrap();
        assert_eq!(same.resource_version(), made.resource_version());
        let mut newer = made.clone();
        newer.spec.as_mut().unwrap().replicas = Some(3);
        let newer = api.replace("web", &PostParams::default(), &newer).await.unwrap();
        assert_eq!(newer.metadata.generation, Some(2));
        let (code, _, message) = refusal(api.replace("web", &PostParams::default(), &made).await);
        assert_eq!(code, 409);
        assert!(
            message.starts_with("Operation cannot be fulfilled on deployments.apps \"web\":"),
            "{message}"
        );

        // Status and spec do not touch one another.
        let mut status = newer.clone();
        status.spec.as_mut().unwrap().replicas = Some(9);
        status.status = Some(from(json!({"replicas": 3})));
        let after = api.replace_status("web", &PostParams::default(), &status).await.unwrap();
        assert_eq!(after.spec.unwrap().replicas, Some(3));
        assert_eq!(after.status.unwrap().replicas, Some(3));
        assert_eq!(after.metadata.generation, Some(2));

        let broken: Deployment = from(json!({"metadata": {"name": "x"},
            "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "y"}},
                     "spec": {"containers": [{"name": "a", "image": "b"}]}}}}));
        let (code, _, message) = refusal(api.create(&PostParams::default(), &broken).await);
        assert_eq!(code, 422);
        assert!(
            message.contains(
                "spec.template.metadata.labels: Invalid value: {\"app\":\"y\"}: `selector` does not match"
            ),
            "{message}"
        );

        let elsewhere: Api<ConfigMap> = Api::namespaced(client, "nowhere");
        let map: ConfigMap = from(json!({"metadata": {"name": "a"}}));
        let (code, _, message) = refusal(elsewhere.create(&PostParams::default(), &map).await);
        assert_eq!((code, message.as_str()), (404, "namespaces \"nowhere\" not found"));
    });
}

#[test]
fn wrong_types_and_unknown_fields_are_named() {
    with_server(|_, client, _| async move {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
        let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &resource);
        let mut object = serde_json::to_value(deployment("web", "nginx")).unwrap();
        object["spec"]["replicas"] = json!("two");
        let (code, _, message) = refusal(api.create(&PostParams::default(), &from(object.clone())).await);
        assert_eq!(code, 400);
        assert!(message.contains("spec.replicas: invalid type: string \"two\""), "{message}");
        object["spec"]["replicas"] = json!(2);
        object["spec"]["replica"] = json!(2);
        api.create(&PostParams::default(), &from(object.clone())).await.unwrap();
        let strict = PatchParams {
            field_validation: Some(kube::api::ValidationDirective::Strict),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"spec": {"replica": 2}}));
        let (code, _, message) = refusal(api.patch("web", &strict, &patch).await);
        assert_eq!(code, 422);
        assert!(message.ends_with("strict decoding error: unknown field \"spec.replica\""), "{message}");
    });
}

#[test]
fn patches_of_all_kinds_apply() {
    with_server(|_, client, _| async move {
        let api: Api<Deployment> = Api::namespaced(client, "default");
        api.create(&PostParams::default(), &deployment("web", "nginx:1")).await.unwrap();
        let params = PatchParams::default();
        let merged =
            api.patch("web", &params, &Patch::Merge(json!({"spec": {"replicas": 2}}))).await.unwrap();
        assert_eq!(merged.spec.unwrap().replicas, Some(2));
        let image =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx:2"}]}}}});
        let strategic = api.patch("web", &params, &Patch::Strategic(image)).await.unwrap();
        let pod = strategic.spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.containers[0].image.as_deref(), Some("nginx:2"));
        assert_eq!(pod.containers[0].termination_message_path.as_deref(), Some("/dev/termination-log"));
        let operations: json_patch::Patch =
            from(json!([{"op": "test", "path": "/spec/replicas", "value": 9}]));
        let (code, ..) = refusal(api.patch("web", &params, &Patch::Json::<()>(operations)).await);
        assert_eq!(code, 422);

        let scale =
            api.patch_scale("web", &params, &Patch::Merge(json!({"spec": {"replicas": 5}}))).await.unwrap();
        assert_eq!(scale.spec.unwrap().replicas, Some(5));
        assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=web"));
        assert_eq!(api.get("web").await.unwrap().spec.unwrap().replicas, Some(5));
    });
}

#[test]
fn server_side_apply_shares_takes_and_drops_fields() {
    with_server(|_, client, _| async move {
        let api: Api<ConfigMap> = Api::namespaced(client, "default");
        let apply = |manager: &str, force: bool, data: Value| {
            let object =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
            let params = PatchParams { force, ..PatchParams::apply(manager) };
            let api = api.clone();
            async move { api.patch("c", &params, &Patch::Apply(object)).await }
        };
        apply("one", false, json!({"a": "1", "b": "1"})).await.unwrap();
        apply("two", false, json!({"b": "1", "c": "2"})).await.unwrap();
        let (code, _, message) = refusal(apply("two", false, json!({"a": "2", "b": "1", "c": "2"})).await);
        assert_eq!(
            (code, message.as_str()),
            (409, "Apply failed with 1 conflict: conflict with \"one\" using v1: .data.a")
        );
        // What one drops goes, unless two owns it too.
        let data = apply("one", false, json!({})).await.unwrap().data.unwrap();
        assert_eq!(serde_json::to_value(&data).unwrap(), json!({"b": "1", "c": "2"}));
        let data = apply("one", true, json!({"c": "9"})).await.unwrap().data.unwrap();
        assert_eq!(data["c"], "9");
        let data = apply("two", false, json!({"b": "1"})).await.unwrap().data.unwrap();
        assert_eq!(serde_json::to_value(&data).unwrap(), json!({"b": "1", "c": "9"}));
        // An ordinary write takes the fields that it changes.
        api.patch(
            "c",
            &PatchParams { field_manager: Some("hand".into()), ..Default::default() },
            &Patch::Merge(json!({"data": {"c": "0"}})),
        )
        .await
        .unwrap();
        let (code, _, message) = refusal(apply("one", false, json!({"c": "9"})).await);
        assert_eq!(code, 409);
        assert!(message.contains("conflict with \"hand\" using v1: .data.c"), "{message}");
    });
}

#[test]
fn watches_start_anywhere_and_say_when_it_is_too_late() {
    with_server(|_, client, clock| async move {
        let api: Api<ConfigMap> = Api::namespaced(client, "default");
        let map = |name: &str, app: &str| -> ConfigMap {
            from(json!({"metadata": {"name": name, "labels": {"app": app}}}))
        };
        let first = api.create(&PostParams::default(), &map("a", "x")).await.unwrap();
        api.create(&PostParams::default(), &map("b", "y")).await.unwrap();
        let version = first.resource_version().unwrap();
        let params = WatchParams::default().labels("app=y").timeout(100);
        let mut events = api.watch(&params, &version).await.unwrap().boxed();
        let described = |event: WatchEvent<ConfigMap>| match event {
            WatchEvent::Added(map) => format!("added {}", map.name_any()),
            WatchEvent::Modified(map) => format!("modified {}", map.name_any()),
            WatchEvent::Deleted(map) => format!("deleted {}", map.name_any()),
            WatchEvent::Bookmark(_) => "bookmark".to_owned(),
            WatchEvent::Error(error) => format!("error {}", error.code),
        };
        assert_eq!(described(events.try_next().await.unwrap().unwrap()), "added b");
        let relabel = Patch::Merge(json!({"metadata": {"labels": {"app": "y"}}}));
        api.patch("a", &PatchParams::default(), &relabel).await.unwrap();
        assert_eq!(described(events.try_next().await.unwrap().unwrap()), "added a");
        let relabel = Patch::Merge(json!({"metadata": {"labels": {"app": "x"}}}));
        api.patch("b", &PatchParams::default(), &relabel).await.unwrap();
        assert_eq!(described(events.try_next().await.unwrap().unwrap()), "deleted b");
        assert_eq!(described(events.try_next().await.unwrap().unwrap()), "bookmark");
        assert_eq!(clock.elapsed(), Duration::from_secs(60));
        let rest: Vec<String> = events.map(|event| described(event.unwrap())).collect().await;
        assert_eq!(clock.elapsed(), Duration::from_secs(100));
        assert_eq!(rest, ["bookmark"], "the last word before the timeout");

        for index in 0..600 {
            let patch = Patch::Merge(json!({"data": {"n": index.to_string()}}));
            api.patch("a", &PatchParams::default(), &patch).await.unwrap();
        }
        let mut events = api.watch(&WatchParams::default(), &version).await.unwrap().boxed();
        assert_eq!(described(events.try_next().await.unwrap().unwrap()), "error 410");
    });
}

#[test]
fn lists_select_and_page() {
    with_server(|_, client, _| async move {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        for name in ["a", "b", "c"] {
            api.create(&PostParams::default(), &from(json!({"metadata": {"name": name}}))).await.unwrap();
        }
        let page = api.list(&ListParams::default().limit(2)).await.unwrap();
        assert_eq!(page.items.len(), 2);
        let next = page.metadata.continue_.clone().unwrap();
        let rest = api.list(&ListParams::default().limit(2).continue_token(&next)).await.unwrap();
        let names: Vec<String> = rest.items.iter().map(|map| map.name_any()).collect();
        assert_eq!(names, ["c", "kube-root-ca.crt"]);
        let one = api.list(&ListParams::default().fields("metadata.name=b")).await.unwrap();
        assert_eq!(one.items.len(), 1);
        let (code, ..) = refusal(api.list(&ListParams::default().fields("data.x=b")).await);
        assert_eq!(code, 400);
    });
}

#[test]
fn owners_take_their_dependents_along_and_finalizers_hold() {
    with_server(|_, client, _| async move {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
        let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), "default");
        let owner = deployments.create(&PostParams::default(), &deployment("web", "a")).await.unwrap();
        let set: ReplicaSet = from(json!({"metadata": {"name": "web-1", "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": owner.uid().unwrap(),
                "controller": true, "blockOwnerDeletion": true}], "finalizers": ["example.com/hold"]},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
                     "spec": {"containers": [{"name": "a", "image": "b"}]}}}}));
        sets.create(&PostParams::default(), &set).await.unwrap();
        assert!(deployments.delete("web", &DeleteParams::foreground()).await.unwrap().is_left());
        assert!(deployments.get_opt("web").await.unwrap().is_some(), "foreground deletion waits");
        let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        sets.patch("web-1", &PatchParams::default(), &release).await.unwrap();
        assert!(sets.get_opt("web-1").await.unwrap().is_none());
        assert!(deployments.get_opt("web").await.unwrap().is_none());
    });
}

#[test]
fn a_namespace_empties_itself() {
    with_server(|_, client, _| async move {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &from(json!({"metadata": {"name": "test"}})))
            .await
            .unwrap();
        let pods: Api<Pod> = Api::namespaced(client.clone(), "test");
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "b"}]}});
        pods.create(&PostParams::default(), &from(pod)).await.unwrap();
        assert!(namespaces.delete("test", &DeleteParams::default()).await.unwrap().is_left());
        let waiting = namespaces.get("test").await.unwrap();
        assert_eq!(waiting.status.unwrap().phase.as_deref(), Some("Terminating"));
        assert_eq!(pods.get("p").await.unwrap().metadata.deletion_grace_period_seconds, Some(30));
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "test");
        let (code, ..) =
            refusal(maps.create(&PostParams::default(), &from(json!({"metadata": {"name": "x"}}))).await);
        assert_eq!(code, 403);
        pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
        assert!(namespaces.get_opt("test").await.unwrap().is_none());
    });
}

#[test]
fn custom_resources_are_served_pruned_defaulted_and_validated() {
    with_server(|_, client, _| async move {
        let crd = ApiResource::from_gvk(&GroupVersionKind::gvk(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
        ));
        let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &crd);
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "shirts.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "shirts", "kind": "Shirt"},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "required": ["color"], "properties": {
                            "color": {"type": "string", "enum": ["red", "blue"]},
                            "size": {"type": "integer", "default": 40, "minimum": 1}}},
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
        let made = definitions.create(&PostParams::default(), &from(definition)).await.unwrap();
        assert_eq!(made.data["status"]["conditions"][1]["type"], "Established");
        let shirt = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Shirt"));
        let shirts: Api<DynamicObject> = Api::namespaced_with(client, "default", &shirt);
        let make = |spec: Value| -> DynamicObject {
            from(
                json!({"apiVersion": "example.com/v1", "kind": "Shirt", "metadata": {"name": "s"}, "spec": spec}),
            )
        };
        let (code, _, message) =
            refusal(shirts.create(&PostParams::default(), &make(json!({"color": "green", "size": 0}))).await);
        assert_eq!(code, 422);
        assert!(
            message.contains("spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\""),
            "{message}"
        );
        assert!(
            message.contains(
                "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"
            ),
            "{message}"
        );
        let made = shirts
            .create(&PostParams::default(), &make(json!({"color": "red", "cut": "slim"})))
            .await
            .unwrap();
        assert_eq!(made.data["spec"], json!({"color": "red", "size": 40}));
        let status = json!({"status": {"worn": true}, "spec": {"color": "blue"}});
        let after = shirts.patch_status("s", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        assert_eq!(after.data["spec"]["color"], "red");
        assert_eq!(after.data["status"]["worn"], true);
        // Under another schema, what is stored is read as that has it, and no write is needed.
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "color": {"type": "string"}, "cut": {"type": "string", "default": "wide"}}},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
        let change =
            json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema}]);
        let change = Patch::Json::<()>(serde_json::from_value(change).unwrap());
        definitions.patch("shirts.example.com", &PatchParams::default(), &change).await.unwrap();
        let read = shirts.get("s").await.unwrap();
        assert_eq!(read.data["spec"], json!({"color": "red", "cut": "wide"}));
        assert_eq!(read.metadata.resource_version, after.metadata.resource_version);
        let label = json!({"metadata": {"labels": {"clean": "yes"}}});
        let after = shirts.patch("s", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
        assert_eq!(after.data["spec"], json!({"color": "red", "cut": "wide"}));
        definitions.delete("shirts.example.com", &DeleteParams::default()).await.unwrap();
        let (code, ..) = refusal(shirts.get("s").await);
        assert_eq!(code, 404);
    });
}

#[test]
fn services_get_addresses_secrets_their_data_and_old_autoscalers_are_converted() {
    with_server(|_, client, _| async move {
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let service: Service = from(json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}));
        let made = services.create(&PostParams::default(), &service).await.unwrap();
        assert_eq!(made.spec.unwrap().cluster_ip.as_deref(), Some("10.96.0.10"));
        let again = services
            .replace("web", &PostParams::default(), &{
                let mut service = service.clone();
                service.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
                service
            })
            .await
            .unwrap();
        assert_eq!(again.spec.unwrap().cluster_ip.as_deref(), Some("10.96.0.10"));

        let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
        let secret: Secret = from(json!({"metadata": {"name": "s"}, "stringData": {"key": "text"}}));
        let made = secrets.create(&PostParams::default(), &secret).await.unwrap();
        assert_eq!(made.data.unwrap()["key"].0, b"text");

        let old = ApiResource::from_gvk(&GroupVersionKind::gvk(
            "autoscaling",
            "v2beta1",
            "HorizontalPodAutoscaler",
        ));
        let old: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &old);
        let hpa = json!({"apiVersion": "autoscaling/v2beta1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 4, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 99}}]}});
        let made = old.create(&PostParams::default(), &from(hpa)).await.unwrap();
        assert_eq!(made.data["spec"]["metrics"][0]["resource"]["targetAverageUtilization"], 99);
        let new: Api<HorizontalPodAutoscaler> = Api::namespaced(client, "default");
        let metrics = new.get("h").await.unwrap().spec.unwrap().metrics.unwrap();
        assert_eq!(metrics[0].resource.as_ref().unwrap().target.average_utilization, Some(99));
    });
}
