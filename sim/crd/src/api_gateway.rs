//! Gateway (`gateway.networking.k8s.io`): the Gateway API's entry into a cluster.

use serde_json::Value;

use crate::version::GatewayApiVersion;
use crate::wire::{object, wire};

object! {
    /// Ports and hosts at which HTTPRoutes attach.
    struct ApiGateway("Gateway", "gateways", "gateway.networking.k8s.io", GatewayApiVersion) {
        spec: ApiGatewaySpec, status: Value,
    }
}

wire! {
    /// Who serves what.
    struct ApiGatewaySpec {
        required {
            /// Which implementation serves it.
            gateway_class_name: String,
            /// What is served.
            listeners: Vec<Listener>,
        }
        optional {
            /// Where it is served: for Istio, the Service of gateway pods that are there already.
            addresses: Vec<GatewayAddress>,
        }
    }
}

wire! {
    /// One port, and perhaps one host.
    struct Listener {
        required {
            /// Its name, by which routes may choose it.
            name: String,
            /// The port.
            port: i32,
            /// `HTTP`, `HTTPS`, `TLS`, `TCP` or `UDP`.
            protocol: String,
        }
        optional {
            /// The host, perhaps with a wildcard; any if absent.
            hostname: String,
            /// Which routes may attach.
            allowed_routes: Option<AllowedRoutes>,
            /// TLS, as written.
            tls: Option<Value>,
        }
    }
}

wire! {
    /// Which routes may attach to a listener.
    struct AllowedRoutes {
        optional {
            /// By namespace; the gateway's own if absent.
            namespaces: Option<RouteNamespaces>,
        }
    }
}

wire! {
    /// Namespaces of routes.
    struct RouteNamespaces {
        optional {
            /// `Same` (default), `All` or `Selector`.
            from: String,
            /// The selector, as written.
            selector: Option<Value>,
        }
    }
}

wire! {
    /// An address of a gateway.
    struct GatewayAddress {
        required {
            /// The address, or the Service's host name.
            value: String,
        }
        optional {
            /// `IPAddress` (default) or `Hostname`.
            #[serde(rename = "type")]
            kind: String,
        }
    }
}
