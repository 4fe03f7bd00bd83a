//! The objects made for a Canary, compared with literal manifests.

use std::collections::BTreeMap;

use canary::{Dialect, Routes};
use crd::{Canary, VirtualService};
use k8s_openapi::api::apps::v1::Deployment;
use kube::core::DynamicObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::configs::{Kind, Refs};
use crate::istio::{self, Cookies};
use crate::pods::{self, Selector};
use crate::scaler;
use crate::service::{self, Role};

const CANARY: &str = r"
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: podinfo, namespace: test, uid: u-1}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: podinfo}
  autoscalerRef: {apiVersion: autoscaling/v2beta1, kind: HorizontalPodAutoscaler, name: podinfo}
  service:
    port: 9898
    gateways: [public-gateway.istio-system.svc.cluster.local]
    hosts: [app.istio.example.com]
    trafficPolicy: {tls: {mode: DISABLE}}
    retries: {attempts: 3, perTryTimeout: 1s}
  analysis: {interval: 30s, threshold: 10, maxWeight: 50, stepWeight: 5}
";

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: podinfo
  namespace: test
  labels: {app: podinfo, team: a, kustomize.toolkit.fluxcd.io/name: apps}
spec:
  replicas: 0
  minReadySeconds: 5
  strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}
  selector: {matchLabels: {app: podinfo}}
  template:
    metadata:
      annotations: {prometheus.io/scrape: "true"}
      labels: {app: podinfo, tier: front}
    spec:
      containers:
        - name: podinfod
          image: stefanprodan/podinfo:3.1.0
          envFrom: [{configMapRef: {name: settings}}]
          ports: [{containerPort: 9898, name: http}, {containerPort: 9797, name: http-metrics}, {containerPort: 9999}]
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector: {matchLabels: {app: podinfo}}
"#;

fn read<T: DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).unwrap()
}

fn check(object: &impl Serialize, expected: &str) {
    let object = serde_json::to_value(object).unwrap();
    let expected: Value = read(expected);
    assert_eq!(object, expected, "got:\n{}", serde_json::to_string_pretty(&object).unwrap());
}

const OWNER: &str = "{apiVersion: flagger.app/v1beta1, kind: Canary, name: podinfo, uid: u-1, controller: true, \
                     blockOwnerDeletion: true}";

#[test]
fn the_primary_is_a_copy_of_the_target() {
    let (canary, target): (Canary, Deployment) = (read(CANARY), read(DEPLOYMENT));
    let labels = ["name".to_owned(), "app".to_owned()];
    let refs = Refs::from([((Kind::ConfigMap, "settings".to_owned()), "0".to_owned())]);
    let included = ["te".to_owned()];
    let recipe = |dialect, selector| pods::Recipe {
        canary: &canary,
        target: &target,
        selector,
        refs: &refs,
        flagger_id: "an-id",
        selector_labels: &labels,
        include_labels: &included,
        dialect,
    };
    let selector = Selector::of(&target, &labels, Dialect::Rc1).unwrap();
    assert_eq!(Selector::of(&target, &labels[..1], Dialect::Rc1), None);
    let expected = |labels: &str, affinity: &str| {
        format!(
            r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: podinfo-primary, namespace: test, labels: {labels}, ownerReferences: [{OWNER}]}}
spec:
  replicas: 1
  minReadySeconds: 5
  strategy: {{type: RollingUpdate, rollingUpdate: {{maxUnavailable: 1}}}}
  selector: {{matchLabels: {{app: podinfo-primary}}}}
  template:
    metadata:
      annotations: {{prometheus.io/scrape: "true", flagger-id: an-id}}
      labels: {{app: podinfo-primary, tier: front}}
    spec:
      containers:
        - name: podinfod
          image: stefanprodan/podinfo:3.1.0
          envFrom: [{{configMapRef: {{name: settings-primary}}}}]
          ports:
            - {{containerPort: 9898, name: http}}
            - {{containerPort: 9797, name: http-metrics}}
            - {{containerPort: 9999}}
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector: {{matchLabels: {{app: {affinity}}}}}
"#
        )
    };
    check(&recipe(Dialect::Rc1, &selector).create(), &expected("{app: podinfo-primary}", "podinfo"));
    let newer = recipe(Dialect::Latest, &selector);
    let created = newer.create();
    check(&created, &expected("{app: podinfo-primary, team: a}", "podinfo-primary"));

    // A promotion keeps the primary's own replicas while an autoscaler sets them.
    let mut primary = created.clone();
    let spec = primary.spec.as_mut().unwrap();
    spec.replicas = Some(4);
    spec.template = Default::default();
    newer.promote(&mut primary);
    let mut promoted = created;
    promoted.spec.as_mut().unwrap().replicas = Some(4);
    assert_eq!(primary, promoted);
}

#[test]
fn services_select_primary_and_target() {
    let (mut canary, target): (Canary, Deployment) = (read(CANARY), read(DEPLOYMENT));
    let selector = Selector::of(&target, &["app".to_owned()], Dialect::Rc1).unwrap();
    let none = BTreeMap::new();
    let recipe =
        service::Recipe { canary: &canary, selector: &selector, ports: &none, dialect: Dialect::Rc1 };
    let expected = |name: &str, pods: &str| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: test, labels: {{app: {name}}}, ownerReferences: [{OWNER}]}}
spec:
  type: ClusterIP
  selector: {{app: {pods}}}
  ports: [{{name: http, protocol: TCP, port: 9898, targetPort: 9898}}]
"
        )
    };
    check(&recipe.create(Role::Apex), &expected("podinfo", "podinfo-primary"));
    check(&recipe.create(Role::Primary), &expected("podinfo-primary", "podinfo-primary"));
    check(&recipe.create(Role::Canary), &expected("podinfo-canary", "podinfo"));

    // A Service that was there before is taken over: its selector and ports, nothing else.
    let mut existing = recipe.create(Role::Apex);
    assert_eq!(recipe.correct(Role::Apex, &existing), None);
    existing.metadata.owner_references = None;
    let spec = existing.spec.as_mut().unwrap();
    spec.cluster_ip = Some("10.0.0.7".to_owned());
    spec.selector = Some(BTreeMap::from([("app".to_owned(), "podinfo".to_owned())]));
    let corrected = recipe.correct(Role::Apex, &existing).unwrap();
    assert_eq!(corrected.metadata, existing.metadata);
    let spec = corrected.spec.unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.0.0.7"));
    assert_eq!(spec.selector.unwrap()["app"], "podinfo-primary");

    canary.spec.service.port_discovery = true;
    let ports = pods::other_ports(&canary.spec, pods::Templated::template(&target));
    let ports: Vec<_> = ports.iter().map(|(name, port)| (name.as_str(), *port)).collect();
    assert_eq!(ports, [("http-metrics", 9797), ("tcp-podinfod-2", 9999)]);
}

#[test]
fn istio_splits_between_the_two() {
    let canary: Canary = read(CANARY);
    let recipe = istio::Recipe { canary: &canary, owned: true, dialect: Dialect::Rc1 };
    check(
        &recipe.destination_rule(Role::Canary),
        &format!(
            "
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {{name: podinfo-canary, namespace: test, ownerReferences: [{OWNER}]}}
spec: {{host: podinfo-canary, trafficPolicy: {{tls: {{mode: DISABLE}}}}}}
"
        ),
    );
    let expected = |primary: i32, canary: i32, mirror: &str| {
        format!(
            "
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {{name: podinfo, namespace: test, ownerReferences: [{OWNER}]}}
spec:
  hosts: [app.istio.example.com, podinfo]
  gateways: [public-gateway.istio-system.svc.cluster.local]
  http:
    - route:
        - {{destination: {{host: podinfo-primary}}, weight: {primary}}}
        - {{destination: {{host: podinfo-canary}}, weight: {canary}}}
      retries: {{attempts: 3, perTryTimeout: 1s}}
      {mirror}
"
        )
    };
    let mut object = recipe.virtual_service().unwrap();
    check(&object, &expected(100, 0, ""));
    let set = |object: &mut VirtualService, routes| {
        recipe.set_routes(object, routes, &mut Cookies::default(), || unreachable!());
    };
    let routes = Routes { primary: 95, canary: 5, mirrored: false };
    set(&mut object, routes);
    check(&object, &expected(95, 5, ""));
    assert_eq!(recipe.routes(&object), Ok(routes));
    assert_eq!(recipe.correct(&object), Ok(None), "weights alone are no difference");
    let mirrored = Routes { mirrored: true, ..Routes::PRIMARY };
    set(&mut object, mirrored);
    check(&object, &expected(100, 0, "mirror: {host: podinfo-canary}"));
    assert_eq!(recipe.routes(&object), Ok(mirrored));
    assert_eq!(recipe.correct(&object), Ok(None));

    object.spec.hosts.pop();
    let corrected = recipe.correct(&object).unwrap().unwrap();
    check(&corrected, &expected(100, 0, ""));
    object.spec.http.clear();
    assert_eq!(
        recipe.routes(&object).unwrap_err(),
        "VirtualService podinfo.test does not contain routes for podinfo-primary and podinfo-canary"
    );
}

#[test]
fn ab_tests_and_sticky_sessions_have_rules_of_their_own() {
    let mut canary: Canary = read(CANARY);
    canary.spec.service.gateways.clear();
    canary.spec.analysis = Some(read("{iterations: 5, match: [{headers: {x-user: {exact: a}}}]}"));
    let recipe = istio::Recipe { canary: &canary, owned: false, dialect: Dialect::Latest };
    let mut object = recipe.virtual_service().unwrap();
    recipe.set_routes(&mut object, Routes::CANARY, &mut Cookies::default(), || unreachable!());
    check(
        &object.spec,
        "
hosts: [app.istio.example.com, podinfo]
gateways: [mesh]
http:
  - match: [{headers: {x-user: {exact: a}}}]
    route:
      - {destination: {host: podinfo-primary}, weight: 0}
      - {destination: {host: podinfo-canary}, weight: 100}
    retries: {attempts: 3, perTryTimeout: 1s}
  - route: [{destination: {host: podinfo-primary}, weight: 0}]
    retries: {attempts: 3, perTryTimeout: 1s}
",
    );
    assert_eq!(recipe.routes(&object), Ok(Routes::CANARY));

    canary.spec.analysis =
        Some(read("{stepWeight: 10, sessionAffinity: {cookieName: flagger-cookie, path: /}}"));
    canary.spec.service.retries = None;
    let recipe = istio::Recipe { canary: &canary, owned: false, dialect: Dialect::Latest };
    let mut object = recipe.virtual_service().unwrap();
    let mut cookies = Cookies::default();
    let routes = Routes { primary: 90, canary: 10, mirrored: false };
    recipe.set_routes(&mut object, routes, &mut cookies, || "abcdefghij".to_owned());
    check(
        &object.spec.http,
        "
- match: [{headers: {Cookie: {regex: .*flagger-cookie.*abcdefghij.*}}}]
  route:
    - {destination: {host: podinfo-primary}, weight: 0}
    - {destination: {host: podinfo-canary}, weight: 100}
- route:
    - {destination: {host: podinfo-primary}, weight: 90}
    - destination: {host: podinfo-canary}
      weight: 10
      headers: {response: {add: {Set-Cookie: flagger-cookie=abcdefghij; Max-Age=86400; Path=/}}}
",
    );
    assert_eq!(recipe.routes(&object), Ok(routes));
    assert_eq!(recipe.correct(&object), Ok(None), "sticky rules are no difference");
    recipe.set_routes(&mut object, Routes::PRIMARY, &mut cookies, || unreachable!());
    assert_eq!(cookies.previous, "flagger-cookie=abcdefghij");
    assert_eq!(cookies.canary, "");
    check(
        &object.spec.http[0].headers,
        "{response: {add: {Set-Cookie: flagger-cookie=abcdefghij; Max-Age=-1}}}",
    );
}

#[test]
fn the_primary_has_an_autoscaler_of_its_own() {
    let canary: Canary = read(CANARY);
    let target: DynamicObject = read(
        "
apiVersion: autoscaling/v2beta1
kind: HorizontalPodAutoscaler
metadata: {name: podinfo, namespace: test, uid: u-2}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: podinfo}
  minReplicas: 2
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, targetAverageUtilization: 99}}]
",
    );
    let created = scaler::create(&canary, &target, Dialect::Rc1);
    check(
        &created,
        &format!(
            "
apiVersion: autoscaling/v2beta1
kind: HorizontalPodAutoscaler
metadata: {{name: podinfo-primary, namespace: test, ownerReferences: [{OWNER}]}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: podinfo-primary}}
  minReplicas: 2
  maxReplicas: 4
  metrics: [{{type: Resource, resource: {{name: cpu, targetAverageUtilization: 99}}}}]
"
        ),
    );
    assert!(scaler::correct(&canary, &target, &created, Dialect::Rc1).is_none());
    let mut raised = target.clone();
    raised.data["spec"]["maxReplicas"] = 6.into();
    let corrected = scaler::correct(&canary, &raised, &created, Dialect::Rc1).unwrap();
    assert_eq!(corrected.data["spec"]["maxReplicas"], 6);
    assert_eq!(corrected.data["spec"]["scaleTargetRef"]["name"], "podinfo-primary");
    assert_eq!(scaler::least(&corrected), Some(2));
}
