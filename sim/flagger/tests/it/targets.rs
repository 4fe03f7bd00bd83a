//! What else a Canary may target than a Deployment, and what else may scale it.

use crd::{Phase, ScaledObject};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{Run, canary};

fn started() -> clock::Timestamp {
    "2026-03-17T11:00:00Z".parse().unwrap()
}

#[test]
fn daemon_sets_are_released_by_node_selector() {
    for tag in ["1.0.0-rc.1", "1.44.0"] {
        clock::run_simulated(started(), |clock| async move {
            let run = Run::start(clock, tag, &[]).await;
            run.create(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": {"name": "podinfo", "namespace": "test"},
                "spec": {"selector": {"matchLabels": {"app": "podinfo"}}, "template": {
                    "metadata": {"labels": {"app": "podinfo"}},
                    "spec": {"containers": [{"name": "podinfod", "image": "podinfo:3.1.0"}]}}}}))
                .await;
            let target = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"});
            run.create(canary(json!({"targetRef": target}))).await;
            run.until(Phase::Initialized).await;
            let api: Api<DaemonSet> = Api::namespaced(run.client.clone(), "test");
            let pod = |daemons: DaemonSet| daemons.spec.unwrap().template.spec.unwrap();
            let selector = async || pod(api.get("podinfo").await.unwrap()).node_selector;
            assert_eq!(selector().await.unwrap()["flagger.app/scale-to-zero"], "true");
            assert_eq!(pod(api.get("podinfo-primary").await.unwrap()).node_selector, None);

            let image = json!({"spec": {"template": {"spec": {"containers": [
                {"name": "podinfod", "image": "podinfo:3.1.1"}]}}}});
            api.patch("podinfo", &PatchParams::default(), &Patch::Strategic(image)).await.unwrap();
            run.until(Phase::Progressing).await;
            assert_eq!(selector().await, None);
            run.until(Phase::Succeeded).await;
            let primary = pod(api.get("podinfo-primary").await.unwrap());
            assert_eq!(primary.containers[0].image.as_deref(), Some("podinfo:3.1.1"));
            assert_eq!(primary.node_selector, None);
            assert!(selector().await.is_some());
            assert_eq!(
                run.messages().iter().filter(|message| message.starts_with("New revision")).count(),
                1,
                "being scaled to zero is no revision: {:#?}",
                run.messages()
            );
            run.tasks.abort_all();
        });
    }
}

#[test]
fn services_are_released_by_what_they_point_at() {
    clock::run_simulated(started(), |clock| async move {
        let run = Run::start(clock, "1.44.0", &[]).await;
        let service = |version: &str| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo", "namespace": "test"},
                   "spec": {"selector": {"app": "podinfo", "version": version}, "ports": [{"port": 80}]}})
        };
        run.create(service("blue")).await;
        let target = json!({"apiVersion": "v1", "kind": "Service", "name": "podinfo"});
        run.create(canary(json!({"targetRef": target, "service": {"port": 80}}))).await;
        run.until(Phase::Initialized).await;
        let api: Api<Service> = Api::namespaced(run.client.clone(), "test");
        let version = async |name: &str| {
            let service = api.get(name).await.unwrap();
            service.spec.unwrap().selector.unwrap()["version"].clone()
        };
        let patch = json!({"spec": {"selector": {"version": "green"}}});
        api.patch("podinfo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        run.until(Phase::Progressing).await;
        assert_eq!(version("podinfo-canary").await, "green");
        assert_eq!(version("podinfo-primary").await, "blue");
        run.until(Phase::Succeeded).await;
        assert_eq!(version("podinfo-primary").await, "green");

        *run.world.blind.lock().unwrap() = Some("requests_total");
        let patch = json!({"spec": {"selector": {"version": "red"}}});
        api.patch("podinfo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        run.until(Phase::Failed).await;
        assert_eq!(version("podinfo-primary").await, "green");
        let halt = "Halt advancement no values found for istio:service metric request-success-rate probably \
                    podinfo.test is not receiving traffic: running query failed: no values found";
        assert!(run.last_run().iter().any(|message| message == halt), "{:#?}", run.last_run());
        run.tasks.abort_all();
    });
}

#[test]
fn keda_is_paused_while_the_canary_rests() {
    clock::run_simulated(started(), |clock| async move {
        let run = Run::start(clock, "1.44.0", &[]).await;
        run.create(json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": "podinfo-so", "namespace": "test"},
            "spec": {"scaleTargetRef": {"name": "podinfo"}, "minReplicaCount": 3, "maxReplicaCount": 6,
                "triggers": [{"type": "prometheus", "metadata": {"query": "sum(x{app=\"podinfo\"})"}}]}}))
            .await;
        run.apply().await;
        let reference =
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
        let canaries: Api<crd::Canary> = Api::namespaced(run.client.clone(), "test");
        let patch = json!({"spec": {"autoscalerRef": reference}});
        canaries.patch("podinfo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        run.until(Phase::Initialized).await;
        let api: Api<ScaledObject> = Api::namespaced(run.client.clone(), "test");
        let paused = async || {
            let object = api.get("podinfo-so").await.unwrap();
            object.metadata.annotations.and_then(|marks| marks.get(ScaledObject::PAUSED_REPLICAS).cloned())
        };
        assert_eq!(paused().await.as_deref(), Some("0"));
        let primary = api.get("podinfo-so-primary").await.unwrap();
        assert_eq!(primary.spec.scale_target_ref.name, "podinfo-primary");
        assert_eq!(primary.spec.triggers[0].metadata["query"], "sum(x{app=\"podinfo-primary\"})");

        run.release("podinfo:3.1.1").await;
        run.until(Phase::Progressing).await;
        assert_eq!(paused().await, None);
        assert_eq!(run.image("podinfo").await.1, Some(3), "the ScaledObject's least");
        run.until(Phase::Succeeded).await;
        assert_eq!(paused().await.as_deref(), Some("0"));
        run.tasks.abort_all();
    });
}

#[test]
fn the_primary_follows_configuration() {
    clock::run_simulated(started(), |clock| async move {
        let run = Run::start(clock, "1.44.0", &[]).await;
        run.apply().await;
        run.until(Phase::Initialized).await;
        let api: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(run.client.clone(), "test");
        let color = async |name: &str| api.get(name).await.unwrap().data.unwrap()["color"].clone();
        let patch = |value: Value| Patch::Merge(value);
        api.patch("settings", &PatchParams::default(), &patch(json!({"data": {"color": "blue"}})))
            .await
            .unwrap();
        run.until(Phase::Progressing).await;
        assert!(run.messages().contains(&"configmap settings has changed".to_owned()));
        assert_eq!(color("settings-primary").await, "red");
        run.until(Phase::Succeeded).await;
        assert_eq!(color("settings-primary").await, "blue");
        run.tasks.abort_all();
    });
}
