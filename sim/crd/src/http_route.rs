//! HTTPRoute (`gateway.networking.k8s.io`): the Gateway API's rules for HTTP requests.

use serde_json::Value;

use crate::version::GatewayApiVersion;
use crate::wire::{object, wire};

object! {
    /// Which requests at which gateways go to which Services.
    struct GatewayRoute("HTTPRoute", "httproutes", "gateway.networking.k8s.io", GatewayApiVersion) {
        spec: GatewayRouteSpec, status: GatewayRouteStatus,
    }
}

wire! {
    /// Gateways, hosts and rules.
    struct GatewayRouteSpec {
        optional {
            /// The gateways that the route attaches to.
            parent_refs: Vec<ParentReference>,
            /// The hosts that it serves; all of its gateways' if none.
            hostnames: Vec<String>,
            /// Its rules, the first that matches counts.
            rules: Vec<GatewayRouteRule>,
        }
    }
}

wire! {
    /// A gateway that a route attaches to.
    struct ParentReference {
        required {
            /// Its name.
            name: String,
        }
        optional {
            /// Its API group.
            group: Option<String>,
            /// Its kind.
            kind: Option<String>,
            /// Its namespace; the route's if absent.
            namespace: Option<String>,
            /// One of its listeners.
            section_name: Option<String>,
            /// One of its ports.
            port: Option<i32>,
        }
    }
}

wire! {
    /// What is done with some requests.
    struct GatewayRouteRule {
        optional {
            /// Conditions, one of which must hold.
            matches: Vec<GatewayRouteMatch>,
            /// Changes of requests and answers; each has a `type` and a field of its name.
            filters: Vec<Value>,
            /// Where requests go, by weight.
            backend_refs: Vec<GatewayBackend>,
            /// Time limits.
            timeouts: Option<GatewayTimeouts>,
        }
    }
}

wire! {
    /// Conditions that must hold together.
    struct GatewayRouteMatch {
        optional {
            /// The path's: `type` (`Exact`, `PathPrefix`, `RegularExpression`) and `value`.
            path: Option<GatewayPathMatch>,
            /// The headers'.
            headers: Vec<GatewayValueMatch>,
            /// The query parameters'.
            query_params: Vec<GatewayValueMatch>,
            /// The method.
            method: String,
        }
    }
}

wire! {
    /// A condition on a path.
    struct GatewayPathMatch {
        required {
            /// `Exact`, `PathPrefix` or `RegularExpression`.
            #[serde(rename = "type")]
            kind: String,
            /// What it must be, begin with, or match.
            value: String,
        }
    }
}

wire! {
    /// A condition on a named value.
    struct GatewayValueMatch {
        required {
            /// `Exact` or `RegularExpression`.
            #[serde(rename = "type")]
            kind: String,
            /// The header or parameter.
            name: String,
            /// What it must be or match.
            value: String,
        }
    }
}

wire! {
    /// A Service and its share of the requests.
    struct GatewayBackend {
        required {
            /// The API group, empty for Services.
            group: String,
            /// The kind.
            kind: String,
            /// The name.
            name: String,
            /// The share.
            weight: i32,
        }
        optional {
            /// The port.
            port: Option<i32>,
            /// Changes of requests to this backend and of its answers.
            filters: Vec<Value>,
        }
    }
}

wire! {
    /// Time limits of a rule.
    struct GatewayTimeouts {
        optional {
            /// Of the whole request.
            request: String,
            /// Of one try at a backend.
            backend_request: String,
        }
    }
}

wire! {
    /// What the gateways made of a route.
    struct GatewayRouteStatus {
        optional {
            /// By gateway.
            parents: Vec<GatewayRouteParent>,
        }
    }
}

wire! {
    /// What one gateway made of a route.
    struct GatewayRouteParent {
        required {
            /// The gateway.
            parent_ref: ParentReference,
        }
        optional {
            /// `Accepted` and others.
            conditions: Vec<GatewayCondition>,
        }
    }
}

wire! {
    /// A condition of a route at a gateway.
    struct GatewayCondition {
        required {
            /// `Accepted`, `ResolvedRefs`, …
            #[serde(rename = "type")]
            kind: String,
            /// `True`, `False` or `Unknown`.
            status: String,
        }
        optional {
            /// The generation that was judged.
            observed_generation: i64,
        }
    }
}
