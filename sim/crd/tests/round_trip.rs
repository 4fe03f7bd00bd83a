//! Objects survive being read and written, unknown fields included, and their URLs are the API's.

use crd::{Application, Canary, HookType, IstioVersion, Phase, VirtualService};
use kube_core::Resource;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn round_trip<T: Serialize + DeserializeOwned>(object: Value) -> T {
    let typed: T = serde_json::from_value(object.clone()).expect("the object is well-formed");
    assert_eq!(serde_json::to_value(&typed).expect("objects are JSON"), object);
    typed
}

#[test]
fn a_canary_keeps_what_it_does_not_know() {
    let canary: Canary = round_trip(json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "progressDeadlineSeconds": 60,
            "service": {
                "port": 9898, "targetPort": "http", "future": {"a": [1]},
                "gateways": ["public-gateway.istio-system.svc.cluster.local"],
                "trafficPolicy": {"tls": {"mode": "DISABLE"}, "tunnel": {"protocol": "CONNECT"}},
            },
            "analysis": {
                "interval": "30s", "threshold": 5, "maxWeight": 50, "stepWeight": 10,
                "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99.5}, "interval": "30s"}],
                "webhooks": [{"name": "load-test", "url": "http://loadtester.test/", "type": "pre-rollout",
                              "metadata": {"cmd": "hey"}}],
            },
        },
        "status": {
            "phase": "Progressing", "failedChecks": 0, "canaryWeight": 0, "iterations": 0,
            "lastTransitionTime": "2020-03-17T11:04:01Z",
            "conditions": [{"type": "Promoted", "status": "Unknown", "reason": "Progressing"}],
        },
    }));
    assert_eq!(canary.spec.apex_name(), "podinfo");
    assert_eq!(canary.spec.analysis().map(|a| a.webhooks[0].kind), Some(HookType::PreRollout));
    assert_eq!(canary.status.map(|s| s.phase), Some(Phase::Progressing));
}

#[test]
fn weights_of_zero_are_written() {
    let service: VirtualService = round_trip(json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService",
        "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {
            "hosts": ["app.istio.example.com", "podinfo"],
            "http": [{"match": [{"headers": {"cookie": {}}}],
                      "route": [{"destination": {"host": "podinfo-primary"}, "weight": 100},
                                {"destination": {"host": "podinfo-canary"}, "weight": 0}]}],
        },
    }));
    assert_eq!(service.spec.http[0].route[1].weight, 0);
    assert_eq!(
        VirtualService::url_path(&IstioVersion::V1Beta1, Some("test")),
        "/apis/networking.istio.io/v1beta1/namespaces/test/virtualservices"
    );
}

#[test]
fn an_application_has_a_top_level_operation() {
    let application: Application = round_trip(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"name": "podinfo", "namespace": "argocd"},
        "spec": {
            "project": "default",
            "destination": {"server": "https://mesh02:6443", "namespace": "test"},
            "source": {"repoURL": "https://git/argocd-samples.git", "path": "flagger/podinfo", "targetRevision": "latest"},
            "syncPolicy": {"automated": {}},
        },
        "operation": {"sync": {"revision": "latest"}},
    }));
    assert!(application.operation.is_some());
    assert_eq!(Application::api_resource().plural, "applications");
}
