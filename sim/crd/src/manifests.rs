//! The definitions of the custom resources, to be applied to an API server.

/// Flagger's kinds: Canary, MetricTemplate, AlertProvider.
pub const FLAGGER: &str = include_str!("../manifests/flagger.yaml");

/// Argo CD's kinds: Application, AppProject.
pub const ARGOCD: &str = include_str!("../manifests/argocd.yaml");

/// Istio's kinds: VirtualService, DestinationRule, Gateway.
pub const ISTIO: &str = include_str!("../manifests/istio.yaml");

/// The Gateway API's kinds, as far as the mesh and the canary controller use them: HTTPRoute, Gateway.
pub const GATEWAY_API: &str = include_str!("../manifests/gateway-api.yaml");

/// KEDA's kinds, as far as the operator and the canary controller use them: ScaledObject.
pub const KEDA: &str = include_str!("../manifests/keda.yaml");
