//! A release from the first tick to the last, against API servers, as a program in a pod would do it.

use std::time::Duration;

use crd::{Canary, Phase, VirtualService};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, Patch, PatchParams};
use program::ExitCode;
use serde_json::json;

use crate::harness::Run;

#[test]
fn a_release_is_promoted_and_the_next_rolled_back() {
    clock::run_simulated("2020-03-17T11:00:00Z".parse().unwrap(), |clock| async move {
        let run = Run::start(clock, "1.0.0-rc.1", &[]).await;
        run.apply().await;
        run.until(Phase::Initialized).await;
        let started = [
            "Starting flagger version 1.0.0-rc.1 revision e59acc7bae6b2d1c9a3e97abb2dcadc9f0985c2d mesh provider istio",
            "Connected to Kubernetes API",
            "Waiting for canary informer cache to sync",
            "Waiting for metric template informer cache to sync",
            "Waiting for alert provider informer cache to sync",
            "Connected to metrics server http://prometheus:9090",
            "Starting HTTP server on port 8080",
            "Starting operator",
            "Started operator workers",
            "Synced test/podinfo",
            "Service podinfo-canary.test created",
            "Service podinfo-primary.test created",
            "ConfigMap settings-primary synced",
            "Deployment podinfo-primary.test created",
            "Halt advancement podinfo-primary.test waiting for rollout to finish: \
             observed deployment generation less then desired generation",
            "Scaling down podinfo.test",
            "Service podinfo.test created",
            "DestinationRule podinfo-canary.test created",
            "DestinationRule podinfo-primary.test created",
            "VirtualService podinfo.test created",
            "Initialization done! podinfo.test",
        ];
        let mut messages = run.messages();
        messages[1].truncate("Connected to Kubernetes API".len());
        assert_eq!(messages, started);
        assert_eq!(run.image("podinfo").await, ("podinfo:3.1.0".into(), Some(0)));
        assert_eq!(run.image("podinfo-primary").await, ("podinfo:3.1.0".into(), Some(2)));
        assert_eq!(run.weights().await, [("podinfo-primary".into(), 100), ("podinfo-canary".into(), 0)]);

        run.release("podinfo:3.1.1").await;
        run.until(Phase::Succeeded).await;
        let promoted = [
            "New revision detected! Scaling up podinfo.test",
            "Starting canary analysis for podinfo.test",
            "Advance podinfo.test canary weight 20",
            "Advance podinfo.test canary weight 40",
            "Copying podinfo.test template spec to podinfo-primary.test",
            "ConfigMap settings-primary synced",
            "Routing all traffic to primary",
            "Promotion completed! Scaling down podinfo.test",
        ];
        assert_eq!(run.last_run(), promoted);
        assert_eq!(run.image("podinfo").await, ("podinfo:3.1.1".into(), Some(0)));
        assert_eq!(run.image("podinfo-primary").await.0, "podinfo:3.1.1");
        let status = run.canary().await.status.unwrap();
        assert_eq!(status.last_applied_spec, status.last_promoted_spec);
        assert_eq!(status.conditions[0].reason, "Succeeded");
        assert!(status.tracked_configs.unwrap().contains_key("configmap/settings"));
        let asked = run.world.requests.lock().unwrap().clone();
        let payload = r#"loadtester.test {"name":"podinfo","namespace":"test","phase":"Progressing","metadata":{"cmd":"hey"}}"#;
        assert!(asked.iter().any(|asked| asked == payload), "{asked:#?}");

        *run.world.blind.lock().unwrap() = Some("duration");
        run.release("podinfo:3.1.2").await;
        run.until(Phase::Failed).await;
        let halt = "Halt advancement no values found for istio metric request-duration probably podinfo.test is not \
                    receiving traffic";
        let failed = [
            "New revision detected! Scaling up podinfo.test",
            "Starting canary analysis for podinfo.test",
            "Advance podinfo.test canary weight 20",
            halt,
            halt,
            "Rolling back podinfo.test failed checks threshold reached 2",
            "Canary failed! Scaling down podinfo.test",
        ];
        assert_eq!(run.last_run(), failed);
        assert_eq!(run.weights().await, [("podinfo-primary".into(), 100), ("podinfo-canary".into(), 0)]);
        assert_eq!(run.image("podinfo").await.1, Some(0));

        let events =
            Api::<Event>::namespaced(run.client.clone(), "test").list(&Default::default()).await.unwrap();
        let counted = events.iter().find(|event| event.message.as_deref() == Some(halt)).unwrap();
        assert_eq!((counted.type_.as_deref(), counted.count), (Some("Warning"), Some(2)));

        let handler = run.world.served.lock().unwrap().clone().unwrap();
        let request = http::Request::get("http://flagger:8080/metrics").body(Default::default()).unwrap();
        let metrics = handler.handle(request.into()).await.unwrap();
        let metrics = String::from_utf8(metrics.body().to_vec()).unwrap();
        assert!(
            metrics.contains("flagger_canary_status{name=\"podinfo\",namespace=\"test\"} 2"),
            "{metrics}"
        );

        run.termination.request();
        clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(*run.ended.lock().unwrap(), Some(ExitCode::SUCCESS));
        run.tasks.abort_all();
    });
}

#[test]
fn the_newer_release_reverts_a_deleted_canary() {
    clock::run_simulated("2026-03-17T11:00:00Z".parse().unwrap(), |clock| async move {
        let run = Run::start(clock, "1.44.0", &[]).await;
        run.apply().await;
        let api: Api<Canary> = Api::namespaced(run.client.clone(), "test");
        let patch = json!({"spec": {"revertOnDeletion": true}});
        api.patch("podinfo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        run.until(Phase::Initialized).await;
        run.release("podinfo:3.1.1").await;
        run.until(Phase::Succeeded).await;
        let promoted = [
            "New revision detected! Scaling up podinfo.test",
            "Starting canary analysis for podinfo.test",
            "Advance podinfo.test canary weight 20",
            "Advance podinfo.test canary weight 40",
            "Copying podinfo.test template spec to podinfo-primary.test",
            "ConfigMap settings-primary synced",
            "Routing all traffic to primary",
            "Promotion completed! Scaling down podinfo.test",
        ];
        let spoken: Vec<String> =
            run.last_run().into_iter().filter(|message| !message.contains("uses HTTP service")).collect();
        assert_eq!(spoken, promoted);
        assert_eq!(run.canary().await.metadata.finalizers.unwrap(), ["finalizer.flagger.app"]);
        // The mesh lives in another cluster: ownership would mean nothing there.
        let mesh: Api<VirtualService> = Api::namespaced(run.mesh.clone(), "test");
        assert_eq!(mesh.get("podinfo").await.unwrap().metadata.owner_references, None);

        api.delete("podinfo", &Default::default()).await.unwrap();
        clock.sleep(Duration::from_secs(30)).await;
        assert!(api.get_opt("podinfo").await.unwrap().is_none(), "{:#?}", run.messages());
        assert_eq!(run.image("podinfo").await, ("podinfo:3.1.1".into(), Some(2)));
        let messages = run.messages();
        assert!(messages.iter().any(|message| message == "Terminated canary podinfo.test"), "{messages:#?}");
        run.tasks.abort_all();
    });
}
