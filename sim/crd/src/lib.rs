//! The custom resources of a progressive delivery: typed objects, no client.
//!
//! One file per kind: Flagger's [`Canary`], [`MetricTemplate`] and [`AlertProvider`], Istio's [`VirtualService`],
//! [`DestinationRule`] and [`Gateway`], the Gateway API's HTTPRoute ([`GatewayRoute`]), KEDA's [`ScaledObject`], Argo CD's [`Application`] and [`AppProject`]. Each implements
//! [`kube_core::Resource`], so `kube::Api` works on it, and names its `api_resource()`.
//! Fields that a struct does not name survive in its `extra` map. Istio's kinds are served under several versions:
//! their dynamic type is the [`IstioVersion`] to ask for.
//!
//! This crate decides nothing and asks nobody: who reads or writes these objects lives elsewhere.

mod alert_provider;
mod api_gateway;
mod app_project;
mod application;
mod canary;
mod destination_rule;
mod gateway;
mod http_route;
pub mod manifests;
mod metric_template;
mod scaled_object;
mod version;
mod virtual_service;
mod wire;

pub use alert_provider::{AlertProvider, AlertProviderSpec};
pub use api_gateway::{AllowedRoutes, ApiGateway, ApiGatewaySpec, GatewayAddress, Listener, RouteNamespaces};
pub use app_project::{AppProject, AppProjectSpec, GroupKind, OrphanedResources, ProjectDestination};
pub use application::{
    Application, ApplicationCondition, ApplicationDestination, ApplicationSource, ApplicationSourceDirectory,
    ApplicationSourceHelm, ApplicationSourceKustomize, ApplicationSpec, ApplicationStatus,
    ApplicationSummary, ComparedTo, HealthStatus, HelmParameter, IgnoreDifference, Operation,
    OperationInitiator, OperationState, ResourceResult, ResourceStatus, RetryBackoff, RetryStrategy,
    RevisionHistory, SyncOperation, SyncOperationResource, SyncOperationResult, SyncPolicy,
    SyncPolicyAutomated, SyncStatus,
};
pub use canary::{
    AutoscalerReference, Canary, CanaryAlert, CanaryAnalysis, CanaryCondition, CanaryMetric, CanaryService,
    CanarySpec, CanaryStatus, CanaryWebhook, CrossNamespaceReference, CustomMetadata, HookType,
    LocalReference, Phase, ScalerReplicas, SessionAffinity, ThresholdRange, UnmanagedMetadata,
};
pub use destination_rule::{
    ConnectionPool, ConsistentHash, DestinationRule, DestinationRuleSpec, HttpConnectionPool, HttpCookie,
    LoadBalancer, LocalityDistribute, LocalityFailover, LocalityLoadBalancer, OutlierDetection,
    PortTrafficPolicy, Subset, TcpConnectionPool, TlsSettings, TrafficPolicy,
};
pub use gateway::{Gateway, GatewayPort, GatewaySpec, Server, ServerTls};
pub use http_route::{
    GatewayBackend, GatewayCondition, GatewayPathMatch, GatewayRoute, GatewayRouteMatch, GatewayRouteParent,
    GatewayRouteRule, GatewayRouteSpec, GatewayRouteStatus, GatewayTimeouts, GatewayValueMatch,
    ParentReference,
};
pub use metric_template::{MetricProvider, MetricTemplate, MetricTemplateSpec};
pub use scaled_object::{
    ScaleTarget, ScaleTrigger, ScaledObject, ScaledObjectAdvanced, ScaledObjectHpa, ScaledObjectSpec,
};
pub use version::{ArgoVersion, FlaggerVersion, GatewayApiVersion, IstioVersion, KedaVersion};
pub use virtual_service::{
    CorsPolicy, Delegate, Destination, DirectResponse, FaultAbort, FaultDelay, HeaderOperations, Headers,
    HttpFaultInjection, HttpMatchRequest, HttpMirror, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute,
    HttpRouteDestination, Percent, PortSelector, RegexRewrite, StringMatch, VirtualService,
    VirtualServiceSpec,
};

kinds::kinds!(
    AlertProvider,
    ApiGateway,
    Application,
    Canary,
    DestinationRule,
    Gateway,
    GatewayRoute,
    MetricTemplate,
    ScaledObject,
    VirtualService,
);
