//! DestinationRule (`networking.istio.io`): what happens to traffic once a service is chosen.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::version::IstioVersion;
use crate::virtual_service::PortSelector;
use crate::wire::{object, wire};

object! {
    /// Policy for the traffic to one host.
    struct DestinationRule("DestinationRule", "destinationrules", "networking.istio.io", IstioVersion) {
        spec: DestinationRuleSpec, status: Value,
    }
}

wire! {
    /// The policy of a DestinationRule.
    struct DestinationRuleSpec {
        required {
            /// The service: dotless names belong to the object's namespace.
            host: String,
        }
        optional {
            /// The policy for the whole host.
            traffic_policy: Option<TrafficPolicy>,
            /// Named parts of the service.
            subsets: Vec<Subset>,
            /// Namespaces that see the rule: `*` (default), `.` or `~`.
            export_to: Vec<String>,
        }
    }
}

wire! {
    /// A named part of a service: the endpoints with these labels.
    struct Subset {
        required {
            /// The name that routes use.
            name: String,
        }
        optional {
            /// Labels of its pods.
            labels: BTreeMap<String, String>,
            /// Overrides the host's policy.
            traffic_policy: Option<TrafficPolicy>,
        }
    }
}

wire! {
    /// Load balancing, connection limits, ejection and TLS.
    struct TrafficPolicy {
        optional {
            /// How an endpoint is chosen.
            load_balancer: Option<LoadBalancer>,
            /// Limits on connections and requests.
            connection_pool: Option<ConnectionPool>,
            /// When an endpoint is ejected.
            outlier_detection: Option<OutlierDetection>,
            /// How clients connect.
            tls: Option<TlsSettings>,
            /// Policies for single ports, which replace the above.
            port_level_settings: Vec<PortTrafficPolicy>,
        }
    }
}

wire! {
    /// A policy for one port.
    struct PortTrafficPolicy {
        optional {
            /// The port.
            port: Option<PortSelector>,
            /// How an endpoint is chosen.
            load_balancer: Option<LoadBalancer>,
            /// Limits on connections and requests.
            connection_pool: Option<ConnectionPool>,
            /// When an endpoint is ejected.
            outlier_detection: Option<OutlierDetection>,
            /// How clients connect.
            tls: Option<TlsSettings>,
        }
    }
}

wire! {
    /// How an endpoint is chosen.
    struct LoadBalancer {
        optional {
            /// `ROUND_ROBIN`, `LEAST_REQUEST`, `LEAST_CONN`, `RANDOM` or `PASSTHROUGH`.
            simple: String,
            /// Sticky by hash.
            consistent_hash: Option<ConsistentHash>,
            /// Ranking by region, zone and subzone.
            locality_lb_setting: Option<LocalityLoadBalancer>,
            /// Slow start for new endpoints.
            warmup_duration_secs: String,
        }
    }
}

wire! {
    /// What the hash is taken from.
    struct ConsistentHash {
        optional {
            /// A request header.
            http_header_name: String,
            /// A cookie, set if absent.
            http_cookie: Option<HttpCookie>,
            /// The client's address.
            use_source_ip: bool,
            /// A query parameter.
            http_query_parameter_name: String,
            /// Least number of points on the ring (1024).
            minimum_ring_size: Option<u64>,
        }
    }
}

wire! {
    /// The cookie of a sticky session.
    struct HttpCookie {
        required {
            /// Its name.
            name: String,
        }
        optional {
            /// Its path.
            path: String,
            /// Its lifetime.
            ttl: String,
        }
    }
}

wire! {
    /// Locality ranking; without outlier detection it has no effect.
    struct LocalityLoadBalancer {
        optional {
            /// Whether it is on.
            enabled: Option<bool>,
            /// Shares by locality.
            distribute: Vec<LocalityDistribute>,
            /// Where traffic goes when a region fails.
            failover: Vec<LocalityFailover>,
            /// Labels that rank endpoints.
            failover_priority: Vec<String>,
        }
    }
}

wire! {
    /// Shares for traffic from one locality.
    struct LocalityDistribute {
        optional {
            /// `region/zone/*`.
            from: String,
            /// Weight by locality.
            to: BTreeMap<String, u32>,
        }
    }
}

wire! {
    /// A region and the region that replaces it.
    struct LocalityFailover {
        optional {
            /// The failing region.
            from: String,
            /// Its replacement.
            to: String,
        }
    }
}

wire! {
    /// Limits on connections and requests.
    struct ConnectionPool {
        optional {
            /// For all connections.
            tcp: Option<TcpConnectionPool>,
            /// For HTTP.
            http: Option<HttpConnectionPool>,
        }
    }
}

wire! {
    /// Limits on connections.
    struct TcpConnectionPool {
        optional {
            /// Most open connections.
            max_connections: Option<i32>,
            /// Time to connect (10 s).
            connect_timeout: String,
        }
    }
}

wire! {
    /// Limits on requests.
    struct HttpConnectionPool {
        optional {
            /// Whether HTTP/1 is upgraded.
            h2_upgrade_policy: String,
            /// Most requests waiting for a connection.
            http1_max_pending_requests: Option<i32>,
            /// Most requests at a time.
            http2_max_requests: Option<i32>,
            /// Requests after which a connection closes.
            max_requests_per_connection: Option<i32>,
            /// Most retries at a time.
            max_retries: Option<i32>,
            /// Time after which an idle connection closes.
            idle_timeout: String,
        }
    }
}

wire! {
    /// When an endpoint is ejected, and for how long.
    struct OutlierDetection {
        optional {
            /// Old name of the 5xx count.
            consecutive_errors: Option<i32>,
            /// 5xx answers in a row (5).
            #[serde(rename = "consecutive5xxErrors")]
            consecutive_5xx_errors: Option<u32>,
            /// 502, 503 and 504 in a row.
            consecutive_gateway_errors: Option<u32>,
            /// Time between checks (10 s).
            interval: String,
            /// Ejection time, times the ejections so far (30 s).
            base_ejection_time: String,
            /// Most endpoints ejected, in percent (10).
            max_ejection_percent: Option<i32>,
            /// Below this share of healthy endpoints ejection is off.
            min_health_percent: Option<i32>,
        }
    }
}

wire! {
    /// How clients connect.
    struct TlsSettings {
        required {
            /// `DISABLE`, `SIMPLE`, `MUTUAL` or `ISTIO_MUTUAL`.
            mode: String,
        }
        optional {
            /// File of the client's certificate.
            client_certificate: String,
            /// File of the client's key.
            private_key: String,
            /// File of the accepted authorities.
            ca_certificates: String,
            /// Accepted names.
            subject_alt_names: Vec<String>,
            /// Server name to ask for.
            sni: String,
        }
    }
}
