//! VirtualService (`networking.istio.io`): how requests to a host are routed.
//!
//! Durations stay strings in Istio's form (`10s`), hosts and gateways stay as written: resolving them is the mesh's.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::version::IstioVersion;
use crate::wire::{object, wire};

object! {
    /// Rules for the traffic to one or more hosts.
    struct VirtualService("VirtualService", "virtualservices", "networking.istio.io", IstioVersion) {
        spec: VirtualServiceSpec, status: Value,
    }
}

wire! {
    /// The rules of a VirtualService.
    struct VirtualServiceSpec {
        optional {
            /// Names that clients ask for; dotless names belong to the object's namespace.
            hosts: Vec<String>,
            /// Who applies the rules: gateways by name, and `mesh` for sidecars. None means `mesh`.
            gateways: Vec<String>,
            /// HTTP rules; the first that matches is used.
            http: Vec<HttpRoute>,
            /// TCP rules, as written.
            tcp: Vec<Value>,
            /// TLS rules, as written.
            tls: Vec<Value>,
            /// Namespaces that see the rules: `*` (default), `.` or `~`.
            export_to: Vec<String>,
        }
    }
}

wire! {
    /// One HTTP rule: conditions and what to do.
    struct HttpRoute {
        optional {
            /// A name for logs.
            name: String,
            /// Conditions of which one must hold; none means every request.
            #[serde(rename = "match")]
            matches: Vec<HttpMatchRequest>,
            /// Weighted destinations.
            route: Vec<HttpRouteDestination>,
            /// Answers with a redirect instead.
            redirect: Option<HttpRedirect>,
            /// Answers with a fixed response instead.
            direct_response: Option<DirectResponse>,
            /// Continues in another VirtualService.
            delegate: Option<Delegate>,
            /// Changes path or authority before forwarding.
            rewrite: Option<HttpRewrite>,
            /// Time limit for the whole request, retries included.
            timeout: String,
            /// Retry policy; the mesh has a default.
            retries: Option<HttpRetry>,
            /// Injected delays and errors.
            fault: Option<HttpFaultInjection>,
            /// A destination that gets a copy of the requests.
            mirror: Option<Destination>,
            /// Destinations that get copies, each with its share.
            mirrors: Vec<HttpMirror>,
            /// The share of requests to mirror; all if absent.
            mirror_percentage: Option<Percent>,
            /// The same as a whole number, in old manifests.
            #[serde(rename = "mirror_percent")]
            mirror_percent: Option<u32>,
            /// Cross-origin rules.
            cors_policy: Option<CorsPolicy>,
            /// Changes to request and response headers.
            headers: Option<Headers>,
        }
    }
}

wire! {
    /// Conditions on a request that must all hold.
    struct HttpMatchRequest {
        optional {
            /// A name for logs.
            name: String,
            /// The path, without the query.
            uri: Option<StringMatch>,
            /// `http` or `https`.
            scheme: Option<StringMatch>,
            /// The method.
            method: Option<StringMatch>,
            /// The Host header.
            authority: Option<StringMatch>,
            /// Headers by lower-case name; an empty condition asks for presence.
            headers: BTreeMap<String, StringMatch>,
            /// Headers that must not match.
            without_headers: BTreeMap<String, StringMatch>,
            /// The port asked for.
            port: Option<u32>,
            /// Labels of the client's pod.
            source_labels: BTreeMap<String, String>,
            /// The client's namespace.
            source_namespace: String,
            /// Gateways that this block holds for, in place of the VirtualService's.
            gateways: Vec<String>,
            /// Query parameters by name.
            query_params: BTreeMap<String, StringMatch>,
            /// Compares exact and prefix paths without case.
            ignore_uri_case: bool,
        }
    }
}

wire! {
    /// A condition on a string; none of the fields set asks for presence only.
    struct StringMatch {
        optional {
            /// The whole value.
            exact: Option<String>,
            /// The value's beginning.
            prefix: Option<String>,
            /// A regular expression over the whole value.
            regex: Option<String>,
            /// The value's end (headers in Flagger's Canary only).
            suffix: Option<String>,
        }
    }
}

wire! {
    /// A destination and its share.
    struct HttpRouteDestination {
        required {
            /// Where to.
            destination: Destination,
            /// Share of the requests, relative to the sum; ignored for a lone destination.
            weight: i32,
        }
        optional {
            /// Header changes for this destination only.
            headers: Option<Headers>,
        }
    }
}

wire! {
    /// A service, perhaps a part of it.
    struct Destination {
        required {
            /// The service: dotless names belong to the rule's namespace, others are literal.
            host: String,
        }
        optional {
            /// A subset that a DestinationRule defines.
            subset: String,
            /// The service's port; needed if it has several.
            port: Option<PortSelector>,
        }
    }
}

wire! {
    /// A port by number.
    struct PortSelector {
        optional {
            /// The number.
            number: u32,
        }
    }
}

wire! {
    /// A mirror destination with its share.
    struct HttpMirror {
        required {
            /// Where copies go.
            destination: Destination,
        }
        optional {
            /// The share; all if absent.
            percentage: Option<Percent>,
        }
    }
}

wire! {
    /// A percentage, 0 to 100; an absent value is 0.
    struct Percent {
        optional {
            /// The percentage.
            value: f64,
        }
    }
}

wire! {
    /// A redirect.
    struct HttpRedirect {
        optional {
            /// The new path.
            uri: String,
            /// The new authority.
            authority: String,
            /// The new port.
            port: Option<u32>,
            /// The new scheme.
            scheme: String,
            /// 301 if absent.
            redirect_code: Option<u32>,
        }
    }
}

wire! {
    /// A fixed response.
    struct DirectResponse {
        required {
            /// The status code.
            status: u32,
        }
        optional {
            /// The body (`string` or `bytes`), as written.
            body: Option<Value>,
        }
    }
}

wire! {
    /// Another VirtualService to continue in.
    struct Delegate {
        optional {
            /// Its name.
            name: String,
            /// Its namespace; the root's if empty.
            namespace: String,
        }
    }
}

wire! {
    /// Changes to path and authority.
    struct HttpRewrite {
        optional {
            /// Replaces the matched prefix, or the whole path for other matches.
            uri: String,
            /// Replaces the Host header.
            authority: String,
            /// Replaces parts of the path by pattern.
            uri_regex_rewrite: Option<RegexRewrite>,
            /// Flagger's extension for the Gateway API; not Istio's.
            #[serde(rename = "type")]
            kind: String,
        }
    }
}

wire! {
    /// A pattern and its replacement.
    struct RegexRewrite {
        optional {
            /// The pattern.
            #[serde(rename = "match")]
            pattern: String,
            /// The replacement.
            rewrite: String,
        }
    }
}

wire! {
    /// A retry policy.
    struct HttpRetry {
        required {
            /// Retries after the first attempt; 0 switches them off.
            attempts: i32,
        }
        optional {
            /// Time limit per attempt.
            per_try_timeout: String,
            /// Conditions, comma-separated.
            retry_on: String,
            /// Whether retries may leave the locality.
            retry_remote_localities: Option<bool>,
        }
    }
}

wire! {
    /// Injected faults, drawn independently.
    struct HttpFaultInjection {
        optional {
            /// A delay before forwarding.
            delay: Option<FaultDelay>,
            /// An error instead of forwarding.
            abort: Option<FaultAbort>,
        }
    }
}

wire! {
    /// An injected delay.
    struct FaultDelay {
        optional {
            /// How long.
            fixed_delay: String,
            /// The share of requests; none if absent.
            percentage: Option<Percent>,
            /// The same as a whole number, in old manifests.
            percent: Option<u32>,
        }
    }
}

wire! {
    /// An injected error.
    struct FaultAbort {
        optional {
            /// The status code to answer with.
            http_status: Option<u32>,
            /// The gRPC status to answer with.
            grpc_status: String,
            /// The share of requests; none if absent.
            percentage: Option<Percent>,
            /// The same as a whole number, in old manifests.
            percent: Option<u32>,
        }
    }
}

wire! {
    /// Cross-origin rules.
    struct CorsPolicy {
        optional {
            /// Allowed origins, in old manifests.
            allow_origin: Vec<String>,
            /// Allowed origins.
            allow_origins: Vec<StringMatch>,
            /// Allowed methods.
            allow_methods: Vec<String>,
            /// Allowed request headers.
            allow_headers: Vec<String>,
            /// Response headers that scripts may read.
            expose_headers: Vec<String>,
            /// How long a preflight's answer holds.
            max_age: String,
            /// Whether credentials may be sent.
            allow_credentials: Option<bool>,
        }
    }
}

wire! {
    /// Header changes in both directions.
    struct Headers {
        optional {
            /// On the request.
            request: Option<HeaderOperations>,
            /// On the response.
            response: Option<HeaderOperations>,
        }
    }
}

wire! {
    /// Header changes.
    struct HeaderOperations {
        optional {
            /// Replaces values.
            set: BTreeMap<String, String>,
            /// Adds values.
            add: BTreeMap<String, String>,
            /// Removes headers.
            remove: Vec<String>,
        }
    }
}
