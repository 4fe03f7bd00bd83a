//! The proxy: a sidecar between a pod and its network, or a gateway of its own. What leaves the pod or comes to a gateway is
//! [`routing`]'s, what is sent on is [`outbound`]'s, what arrives at the pod [`inbound`]'s.

mod inbound;
mod outbound;
mod routing;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use program::{Context, ExitCode, Handler, Main, Proxy, Reply, Request, Response, respond};

use self::inbound::Arrived;
use self::routing::State;
use crate::config::Named;
use crate::control_plane::ControlPlane;
use crate::telemetry::Metrics;
use crate::workload::Workload;

/// What passing a proxy takes.
const HOP: Duration = Duration::from_micros(300);

/// CPU time that a proxy uses per request.
const CPU: Duration = Duration::from_micros(350);

/// The port of the proxy's metrics.
const STATS_PORT: u16 = 15090;

/// The port of its health check.
const HEALTH_PORT: u16 = 15021;

/// The pod annotation that lists ports to which requests go past the proxy.
const EXCLUDED_OUTBOUND: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";

/// How long a proxy serves on after SIGTERM (`terminationDrainDuration`), for load balancers to notice.
const DRAIN: Duration = Duration::from_secs(5);

/// The program behind `istio/proxyv2` images.
pub(crate) fn program(control_plane: ControlPlane) -> Main {
    program::program(move |context: Context| {
        let control_plane = control_plane.clone();
        async move { run(context, control_plane).await }
    })
}

async fn run(context: Context, control_plane: ControlPlane) -> ExitCode {
    let identity = &context.identity;
    let is_gateway = context.args.iter().any(|arg| arg == "router");
    let labels = identity.labels.clone();
    let workload = Workload::new(
        &identity.cluster,
        &identity.namespace,
        &identity.workload,
        &identity.service_account,
        labels,
    );
    let seed = control_plane.seed().child(&identity.namespace).child(&identity.pod);
    let excluded = identity.annotations.get(EXCLUDED_OUTBOUND).map(String::as_str).unwrap_or_default();
    let envoy = Arc::new(Envoy {
        metrics: Metrics::new(control_plane.telemetry()),
        workload: Arc::new(workload),
        state: Mutex::new(State::new(seed.stream("envoy"))),
        arrived: Mutex::default(),
        excluded_outbound: excluded.split(',').filter_map(|port| port.trim().parse().ok()).collect(),
        context: context.clone(),
        control_plane,
    });
    let mut listening = Vec::new();
    let own: [(u16, Arc<dyn Handler>); 2] =
        [(STATS_PORT, Arc::new(Stats(Arc::clone(&envoy)))), (HEALTH_PORT, Arc::new(Health))];
    for (port, handler) in own {
        listening.push(context.network.listen(port, handler));
    }
    if is_gateway {
        for (port, _) in identity.ports.iter().filter(|(port, _)| !(15000..15100).contains(port)) {
            listening.push(
                context
                    .network
                    .listen(*port, Arc::new(GatewayPort { envoy: Arc::clone(&envoy), port: *port })),
            );
        }
    } else {
        context.network.capture(envoy.clone());
    }
    if let Some(taken) = listening.iter().find_map(|result| result.as_ref().err()) {
        context.log.print(&format!("critical envoy main: error initializing: {taken}"));
        return ExitCode::FAILURE;
    }
    context.log.print("info\tEnvoy proxy is ready");
    context.termination.requested().await;
    context.clock.sleep(DRAIN).await;
    ExitCode::SUCCESS
}

struct Envoy {
    context: Context,
    control_plane: ControlPlane,
    workload: Arc<Workload>,
    metrics: Metrics,
    /// Ports to which the pod's requests go past the proxy.
    excluded_outbound: BTreeSet<u16>,
    state: Mutex<State>,
    arrived: Mutex<Option<Arrived>>,
}

struct Stats(Arc<Envoy>);

impl Handler for Stats {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        let answer = match request.uri().path() {
            "/stats/prometheus" | "/metrics" => respond(StatusCode::OK, self.0.metrics.page()),
            _ => respond(StatusCode::NOT_FOUND, ""),
        };
        answer.into()
    }
}

struct Health;

impl Handler for Health {
    fn handle(self: Arc<Self>, _: Request) -> Reply {
        respond(StatusCode::OK, "").into()
    }
}

/// A port that a gateway's pod listens on.
struct GatewayPort {
    envoy: Arc<Envoy>,
    port: u16,
}

impl Handler for GatewayPort {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        self.envoy.enter(self.port, request)
    }
}

impl Proxy for Envoy {
    fn outbound(self: Arc<Self>, request: Request) -> Reply {
        self.leave(request)
    }

    fn inbound(self: Arc<Self>, request: Request, port: u16, app: Arc<dyn Handler>) -> Reply {
        self.arrive(request, port, app)
    }
}

/// What a client's proxy tells the server's: in Envoy, headers and the client certificate.
struct PeerProxy {
    workload: Arc<Workload>,
    service: Arc<Named>,
    mutual_tls: bool,
}

/// What telemetry says of an answer.
struct Measured {
    code: u16,
    flags: &'static str,
    took: Duration,
}

impl Measured {
    fn of(response: &Response, flags: &'static str) -> Measured {
        Measured { code: response.status().as_u16(), flags, took: response.latency() }
    }
}

fn refusal() -> String {
    "upstream connect error or disconnect/reset before headers. reset reason: connection failure".to_owned()
}

fn local(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = respond(status, body);
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("envoy"));
    response
}

/// The host of the `Host` header, without its port.
fn authority(request: &Request) -> Option<&str> {
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    let port = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    Some(port.map_or(host, |(host, _)| host))
}
