//! Gateway (`networking.istio.io`): the ports and hosts that gateway pods serve.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::version::IstioVersion;
use crate::wire::{object, wire};

object! {
    /// Servers at the mesh's edge.
    struct Gateway("Gateway", "gateways", "networking.istio.io", IstioVersion) {
        spec: GatewaySpec, status: Value,
    }
}

wire! {
    /// Which pods serve what.
    struct GatewaySpec {
        optional {
            /// Labels of the gateway pods, in any namespace and cluster.
            selector: BTreeMap<String, String>,
            /// What they serve.
            servers: Vec<Server>,
        }
    }
}

wire! {
    /// One port and its hosts.
    struct Server {
        required {
            /// The port.
            port: GatewayPort,
        }
        optional {
            /// `[namespace/]host`, `*` for all.
            hosts: Vec<String>,
            /// TLS on this port.
            tls: Option<ServerTls>,
            /// A name for logs.
            name: String,
            /// The address to listen on.
            bind: String,
        }
    }
}

wire! {
    /// A port of the gateway.
    struct GatewayPort {
        required {
            /// The number.
            number: u32,
        }
        optional {
            /// A name.
            name: String,
            /// `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `TCP` or `TLS`.
            protocol: String,
            /// The pod's port, if another.
            target_port: Option<u32>,
        }
    }
}

wire! {
    /// TLS on a gateway's port.
    struct ServerTls {
        optional {
            /// `PASSTHROUGH`, `SIMPLE`, `MUTUAL` and others.
            mode: String,
            /// Redirects plain requests.
            https_redirect: bool,
            /// The Secret with certificate and key.
            credential_name: String,
        }
    }
}
