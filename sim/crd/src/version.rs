//! The versions under which the kinds of this crate are served.

use crate::wire::Version;

/// The version of Istio's networking API to read and write. Objects are the same under each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IstioVersion {
    /// `networking.istio.io/v1alpha3`: all that Istio served in early 2020, and still served.
    #[default]
    V1Alpha3,
    /// `networking.istio.io/v1beta1`: since Istio 1.5.
    V1Beta1,
    /// `networking.istio.io/v1`: since Istio 1.22.
    V1,
}

impl Version for IstioVersion {
    fn name(&self) -> &'static str {
        match self {
            IstioVersion::V1Alpha3 => "v1alpha3",
            IstioVersion::V1Beta1 => "v1beta1",
            IstioVersion::V1 => "v1",
        }
    }
}

/// The version of Flagger's API: `flagger.app/v1beta1`, the only one since 1.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlaggerVersion;

impl Version for FlaggerVersion {
    fn name(&self) -> &'static str {
        "v1beta1"
    }
}

/// The version of Argo CD's API: `argoproj.io/v1alpha1`, the only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArgoVersion;

impl Version for ArgoVersion {
    fn name(&self) -> &'static str {
        "v1alpha1"
    }
}

/// The version of the Gateway API: `gateway.networking.k8s.io/v1`, or the beta that some charts still name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GatewayApiVersion {
    /// `v1`.
    #[default]
    V1,
    /// `v1beta1`.
    V1Beta1,
}

impl Version for GatewayApiVersion {
    fn name(&self) -> &'static str {
        match self {
            GatewayApiVersion::V1 => "v1",
            GatewayApiVersion::V1Beta1 => "v1beta1",
        }
    }
}

/// The version of KEDA's API: `keda.sh/v1alpha1`, the only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KedaVersion;

impl Version for KedaVersion {
    fn name(&self) -> &'static str {
        "v1alpha1"
    }
}
