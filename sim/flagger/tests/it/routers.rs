//! Who else may route than Istio.

use crd::{GatewayRoute, Phase};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use program::ExitCode;
use serde_json::json;

use crate::harness::Run;

fn started() -> clock::Timestamp {
    "2026-03-17T11:00:00Z".parse().unwrap()
}

#[test]
fn the_kubernetes_provider_promotes_blue_green() {
    for tag in ["1.0.0-rc.1", "1.44.0"] {
        clock::run_simulated(started(), |clock| async move {
            let run = Run::start(clock, tag, &["-mesh-provider=kubernetes"]).await;
            run.apply().await;
            let api: Api<crd::Canary> = Api::namespaced(run.client.clone(), "test");
            let patch =
                json!({"spec": {"analysis": {"stepWeight": null, "maxWeight": null, "iterations": 2}}});
            api.patch("podinfo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            run.until(Phase::Initialized).await;
            run.release("podinfo:3.1.1").await;
            run.until(Phase::Succeeded).await;
            let promoted = [
                "New revision detected! Scaling up podinfo.test",
                "Starting canary analysis for podinfo.test",
                "Advance podinfo.test canary iteration 1/2",
                "Advance podinfo.test canary iteration 2/2",
                "Copying podinfo.test template spec to podinfo-primary.test",
                "ConfigMap settings-primary synced",
                "Promotion completed! Scaling down podinfo.test",
            ];
            assert_eq!(run.last_run(), promoted);
            let services: Api<Service> = Api::namespaced(run.client.clone(), "test");
            let apex = services.get("podinfo").await.unwrap().spec.unwrap().selector.unwrap();
            assert_eq!(apex["app"], "podinfo-primary");
            let asked = run.world.details.lock().unwrap().join("\n");
            assert!(asked.contains("http_request_duration_seconds_count"), "{asked}");
            run.tasks.abort_all();
        });
    }
}

#[test]
fn the_gateway_api_splits_by_http_route() {
    clock::run_simulated(started(), |clock| async move {
        let run = Run::start(clock, "1.44.0", &["-mesh-provider=gatewayapi:v1"]).await;
        run.apply().await;
        let api: Api<crd::Canary> = Api::namespaced(run.client.clone(), "test");
        run.clock.sleep(std::time::Duration::from_secs(30)).await;
        let refused = "GatewayRefs must be specified when using Gateway API as a provider.";
        assert!(run.messages().iter().any(|message| message == refused), "{:#?}", run.messages());
        let patch = json!({"spec": {"service": {"hosts": ["app.example.com"], "gatewayRefs": [{"name": "gateway"}]}}});
        api.patch("podinfo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        run.until(Phase::Initialized).await;
        run.release("podinfo:3.1.1").await;
        run.until(Phase::Progressing).await;
        let routes: Api<GatewayRoute> = Api::namespaced(run.mesh.clone(), "test");
        let weights = async || {
            let route = routes.get("podinfo").await.unwrap();
            route.spec.rules[0].backend_refs.iter().map(|backend| backend.weight).collect::<Vec<_>>()
        };
        let mut seen = vec![weights().await];
        while run.canary().await.status.unwrap().phase != Phase::Succeeded {
            run.clock.sleep(std::time::Duration::from_secs(1)).await;
            let now = weights().await;
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        assert_eq!(seen, [[100, 0], [80, 20], [60, 40], [100, 0]]);
        run.tasks.abort_all();
    });
}

#[test]
fn providers_without_a_router_and_unknown_flags_say_so() {
    clock::run_simulated(started(), |clock| async move {
        let run = Run::start(clock, "1.44.0", &["-mesh-provider=linkerd"]).await;
        run.apply().await;
        run.clock.sleep(std::time::Duration::from_secs(60)).await;
        let refused = "Canary podinfo.test provider \"linkerd\" is not simulated: use \"istio\", \"kubernetes\" or \
                       \"gatewayapi:v1\"";
        assert!(run.messages().iter().any(|message| message == refused), "{:#?}", run.messages());
        run.tasks.abort_all();

        let run = Run::start(clock, "1.44.0", &["-no-such-flag"]).await;
        run.clock.sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(*run.ended.lock().unwrap(), Some(ExitCode(2)));
        let lines: Vec<String> = run.logs.lines(|_| true).into_iter().map(|(_, line)| line).collect();
        assert!(lines[0].starts_with("flag provided but not defined: -no-such-flag"), "{lines:#?}");
        run.tasks.abort_all();
    });
}
