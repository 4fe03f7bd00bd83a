//! The proxy: a sidecar between a pod and its network, or a gateway of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clock::Rng;
use crd::TrafficPolicy;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use program::{
    Context, DialError, ExitCode, Handler, Latency, Main, Peer, Proxy, Request, Response, add_latency,
    latency, respond, settle,
};
use rand::{Rng as _, RngExt as _};

use crate::config::{Config, Endpoint, Entrance, Service, host_fit};
use crate::control_plane::ControlPlane;
use crate::route::{self, Asked, Caller, Decision, Forward, Retries};
use crate::telemetry::{Metrics, Reporter, Series};
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
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const UPSTREAM_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// How long a proxy serves on after SIGTERM (`terminationDrainDuration`), for load balancers to notice.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest pause before a first retry; the pause is random up to it, and doubles per retry.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// What a client's proxy tells the server's: in Envoy, headers and the client certificate.
#[derive(Clone)]
struct PeerProxy {
    workload: Arc<Workload>,
    service: Arc<Service>,
    mutual_tls: bool,
}

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
        random: Mutex::new(seed.stream("envoy")),
        turns: Mutex::default(),
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

/// How often it was whose turn, by service, port and subset.
type Turns = BTreeMap<(Arc<str>, u16, String), usize>;

struct Envoy {
    context: Context,
    control_plane: ControlPlane,
    workload: Arc<Workload>,
    metrics: Metrics,
    random: Mutex<Rng>,
    /// Ports to which the pod's requests go past the proxy.
    excluded_outbound: BTreeSet<u16>,
    /// Whose turn it is, by service, port and subset.
    turns: Mutex<Turns>,
}

struct Stats(Arc<Envoy>);

impl Handler for Stats {
    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Response, DialError>> {
        let answer = match request.uri().path() {
            "/stats/prometheus" | "/metrics" => respond(StatusCode::OK, self.0.metrics.page()),
            _ => respond(StatusCode::NOT_FOUND, ""),
        };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

struct Health;

impl Handler for Health {
    fn handle(&self, _: Request) -> BoxFuture<'_, Result<Response, DialError>> {
        Box::pin(std::future::ready(Ok(respond(StatusCode::OK, ""))))
    }
}

/// A port that a gateway's pod listens on.
struct GatewayPort {
    envoy: Arc<Envoy>,
    port: u16,
}

impl Handler for GatewayPort {
    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Response, DialError>> {
        Box::pin(self.envoy.enter(self.port, request))
    }
}

impl Proxy for Envoy {
    fn outbound(&self, request: Request) -> BoxFuture<'_, Result<Response, DialError>> {
        Box::pin(self.leave(request))
    }

    fn inbound(
        &self,
        request: Request,
        port: u16,
        app: Arc<dyn Handler>,
    ) -> BoxFuture<'_, Result<Response, DialError>> {
        Box::pin(self.arrive(request, port, app))
    }
}

impl Envoy {
    /// A request that leaves the pod.
    async fn leave(&self, request: Request) -> Result<Response, DialError> {
        let uri = request.uri();
        let dialled = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(80);
        // Traffic is captured on its way to an address: a name that does not resolve never gets here.
        let address = self.context.network.resolve(dialled)?;
        if self.excluded_outbound.contains(&port) {
            return self.context.network.dial(SocketAddr::new(address, port), request).await;
        }
        let config = self.control_plane.config();
        let caller = self.caller(Vec::new());
        let host = authority(&request).unwrap_or(dialled);
        let decision = self.decide(&config, &caller, host, port, &request);
        self.carry_out(decision, request, Some(SocketAddr::new(address, port))).await
    }

    /// A request that arrives at a gateway's port.
    async fn enter(&self, port: u16, request: Request) -> Result<Response, DialError> {
        let config = self.control_plane.config();
        let here = SocketAddr::new(self.context.network.local_ip(), port);
        // The Service in front of the gateway says which of its ports this is.
        let outer = config.inbound(here).map_or(port, |(_, outer)| *outer);
        let host = authority(&request).or_else(|| request.uri().host()).unwrap_or_default();
        let mut listens = false;
        let mut gateways = Vec::new();
        for entrance in config.entrances.iter().filter(|entrance| self.is_selected(&config, entrance)) {
            for (_, hosts) in entrance.servers.iter().filter(|(port, _)| *port == outer) {
                listens = true;
                if hosts.iter().any(|pattern| host_fit(pattern, host).is_some()) {
                    gateways.push(entrance.key.as_str());
                    break;
                }
            }
        }
        if !listens {
            return Err(DialError::Refused(here.to_string()));
        }
        let caller = self.caller(gateways);
        let decision = if caller.gateways.is_empty() {
            Decision::Answer { status: 404, body: String::new(), flag: "NR", service: None }
        } else {
            self.decide(&config, &caller, host, outer, &request)
        };
        self.carry_out(decision, request, None).await
    }

    /// This proxy as one that routes, for requests that came in by these gateways.
    fn caller<'a>(&'a self, gateways: Vec<&'a str>) -> Caller<'a> {
        Caller { gateways, namespace: &self.workload.namespace, labels: &self.workload.labels }
    }

    /// Whether this pod is one of a gateway's.
    fn is_selected(&self, config: &Config, entrance: &Entrance) -> bool {
        if let Some(host) = &entrance.service {
            let own = self.context.network.local_ip();
            let mut endpoints = config.by_host(host).into_iter().flat_map(|service| service.ports.values());
            return endpoints.any(|all| all.iter().any(|endpoint| endpoint.address.ip() == own));
        }
        let labels = &self.workload.labels;
        entrance.selector.iter().all(|(name, value)| labels.get(name) == Some(value))
    }

    fn decide(
        &self,
        config: &Config,
        caller: &Caller<'_>,
        host: &str,
        port: u16,
        request: &Request,
    ) -> Decision {
        let asked = Asked {
            host,
            port,
            method: request.method().as_str(),
            path: request.uri().path(),
            query: request.uri().query().unwrap_or_default(),
            headers: request.headers(),
        };
        route::route(config, caller, &asked, || self.draw())
    }

    fn draw(&self) -> f64 {
        self.random.lock().expect("no holder of this lock panics").random::<f64>()
    }

    async fn carry_out(
        &self,
        decision: Decision,
        mut request: Request,
        to: Option<SocketAddr>,
    ) -> Result<Response, DialError> {
        let clock = self.context.clock;
        let started = clock.elapsed();
        match decision {
            Decision::Passthrough => match to {
                Some(to) => self.context.network.dial(to, request).await,
                None => Err(DialError::Invalid("a gateway has nowhere to pass a request to".into())),
            },
            Decision::Answer { status, body, flag, service } => {
                self.context.cpu.add(CPU);
                let mut response = local(status, body);
                settle(&clock, started, HOP, &mut response).await;
                let service = service.as_ref().map_or_else(|| nobody("unknown"), service_labels);
                self.count_outbound(&Workload::unknown(), service, &response, flag);
                Ok(response)
            }
            Decision::Redirect { status, location } => {
                let mut response = local(status, String::new());
                if let Ok(value) = HeaderValue::from_str(&location) {
                    response.headers_mut().insert(header::LOCATION, value);
                }
                settle(&clock, started, HOP, &mut response).await;
                Ok(response)
            }
            Decision::Forward(forward) => {
                self.context.cpu.add(CPU);
                self.prepare(&mut request, &forward);
                if let Some(delay) = forward.delay {
                    clock.sleep(delay).await;
                }
                for (service, port) in &forward.mirrors {
                    self.mirror(service, *port, &request);
                }
                let sent = self.send(&forward, &request);
                let (mut response, destination, flag) = match forward.timeout {
                    None => sent.await,
                    Some(limit) => match clock.timeout(limit, sent).await {
                        Ok(answer) => answer,
                        Err(_) => {
                            let mut response = local(504, "upstream request timeout".to_owned());
                            response.extensions_mut().insert(Latency(limit));
                            (response, Workload::unknown(), "UT")
                        }
                    },
                };
                for headers in &forward.headers {
                    route::change_headers(response.headers_mut(), headers.response.as_ref());
                }
                let waited = forward.delay.unwrap_or_default();
                settle(&clock, started, HOP + waited, &mut response).await;
                let flag = if forward.delay.is_some() && flag == "-" { "DI" } else { flag };
                self.count_outbound(&destination, service_labels(&forward.service), &response, flag);
                Ok(response)
            }
        }
    }

    fn count_outbound(
        &self,
        destination: &Arc<Workload>,
        service: (Arc<str>, Arc<str>, Arc<str>),
        response: &Response,
        flags: &'static str,
    ) {
        let series = Series {
            reporter: Reporter::Source,
            source: Arc::clone(&self.workload),
            destination: Arc::clone(destination),
            service,
            code: response.status().as_u16(),
            flags,
            mutual_tls: false,
        };
        self.metrics.record(series, latency(response));
    }

    /// Headers, path and host as the rule wants them.
    fn prepare(&self, request: &mut Request, forward: &Forward) {
        if let Some((path, authority)) = &forward.rewrite {
            let mut parts = request.uri().clone().into_parts();
            if let Some(path) = path {
                let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
                parts.path_and_query = format!("{path}{query}").parse().ok().or(parts.path_and_query);
            }
            if let Some(host) = authority.as_ref().and_then(|host| HeaderValue::from_str(host).ok()) {
                request.headers_mut().insert(header::HOST, host);
            }
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
        for headers in &forward.headers {
            route::change_headers(request.headers_mut(), headers.request.as_ref());
        }
        if !request.headers().contains_key(&REQUEST_ID) {
            let (high, low) = {
                let mut random = self.random.lock().expect("no holder of this lock panics");
                (random.next_u64(), random.next_u64())
            };
            request.headers_mut().insert(REQUEST_ID, request_id(high, low));
        }
        request.headers_mut().insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }

    /// Sends a request, trying again as the rule allows: the answer, who gave it, and the response flag.
    async fn send(&self, forward: &Forward, request: &Request) -> (Response, Arc<Workload>, &'static str) {
        let clock = self.context.clock;
        let began = clock.elapsed();
        let mut tried: Vec<SocketAddr> = Vec::new();
        loop {
            let Some(endpoint) = self.choose(forward, &tried) else {
                return (local(503, "no healthy upstream".to_owned()), Workload::unknown(), "UH");
            };
            tried.push(endpoint.address);
            let attempt_began = clock.elapsed();
            let mut copy = copy(request);
            copy.extensions_mut().insert(PeerProxy {
                workload: Arc::clone(&self.workload),
                service: Arc::clone(&forward.service),
                mutual_tls: is_mutual_tls(forward.policy.as_deref()),
            });
            let dialled = self.context.network.dial(endpoint.address, copy);
            let answered = match forward.retries.per_try {
                None => Ok(dialled.await),
                Some(limit) => clock.timeout(limit, dialled).await,
            };
            let (mut response, flag, may_retry) = judge(answered, &forward.retries);
            let retries_left = tried.len() <= forward.retries.attempts as usize;
            if !(may_retry && retries_left) {
                // Time lost before the last attempt counts too.
                let lost = attempt_began - began;
                let total = add_latency(&mut response, lost);
                let millis = HeaderValue::from(u64::try_from(total.as_millis()).unwrap_or(u64::MAX));
                response.headers_mut().insert(UPSTREAM_TIME, millis);
                return (response, Arc::clone(&endpoint.workload), flag);
            }
            let ceiling = RETRY_PAUSE * (1 << (tried.len() - 1).min(4));
            clock.sleep(ceiling.mul_f64(self.draw())).await;
        }
    }

    /// The next endpoint: in turn, or at random where the policy says so, and not one that was tried before if there is
    /// another.
    fn choose<'a>(&self, forward: &'a Forward, tried: &[SocketAddr]) -> Option<&'a Endpoint> {
        let count = forward.endpoints.len();
        if count == 0 {
            return None;
        }
        let simple = forward.policy.as_ref().and_then(|policy| policy.load_balancer.as_ref());
        let start = if simple.is_some_and(|balancer| balancer.simple == "RANDOM") {
            self.random.lock().expect("no holder of this lock panics").random_range(0..count)
        } else {
            let key = (Arc::clone(&forward.service.host), forward.port, forward.subset.clone());
            let mut turns = self.turns.lock().expect("no holder of this lock panics");
            let turn = turns.entry(key).or_insert_with(|| {
                // Proxies do not all begin with the same endpoint.
                self.random.lock().expect("no holder of this lock panics").random_range(0..count)
            });
            *turn = turn.wrapping_add(1);
            *turn
        };
        let in_order = (0..count).map(|offset| &forward.endpoints[(start + offset) % count]);
        let fresh = in_order.clone().find(|endpoint| !tried.contains(&endpoint.address));
        fresh.or_else(|| in_order.clone().next())
    }

    fn mirror(&self, service: &Arc<Service>, port: u16, request: &Request) {
        let Some(endpoints) = service.ports.get(&port).filter(|endpoints| !endpoints.is_empty()) else {
            return;
        };
        let index =
            self.random.lock().expect("no holder of this lock panics").random_range(0..endpoints.len());
        let mut copy = copy(request);
        if let Some(host) =
            authority(request).and_then(|host| HeaderValue::from_str(&format!("{host}-shadow")).ok())
        {
            copy.headers_mut().insert(header::HOST, host);
        }
        copy.extensions_mut().insert(PeerProxy {
            workload: Arc::clone(&self.workload),
            service: Arc::clone(service),
            mutual_tls: false,
        });
        let (network, address) = (Arc::clone(&self.context.network), endpoints[index].address);
        self.context.tasks.spawn(async move {
            // Nobody waits for a shadow's answer.
            let _ = network.dial(address, copy).await;
        });
    }

    /// A request that arrives at the pod.
    async fn arrive(
        &self,
        request: Request,
        port: u16,
        app: Arc<dyn Handler>,
    ) -> Result<Response, DialError> {
        let config = self.control_plane.config();
        let here = SocketAddr::new(self.context.network.local_ip(), port);
        let peer = request.extensions().get::<PeerProxy>().cloned();
        // Ports behind no Service are passed through, and so are the proxy's own: no telemetry.
        let Some((service, _)) = config.inbound(here).filter(|_| !(15000..15100).contains(&port)) else {
            return app.handle(request).await;
        };
        let service = peer.as_ref().map_or_else(
            || {
                asked_service(&config, &request, &self.workload.namespace)
                    .unwrap_or_else(|| service_labels(service))
            },
            |peer| service_labels(&peer.service),
        );
        let clock = self.context.clock;
        let started = clock.elapsed();
        self.context.cpu.add(CPU);
        let source = match &peer {
            Some(peer) => Arc::clone(&peer.workload),
            None => Workload::unknown(),
        };
        let (mut response, flags) = match app.handle(request).await {
            Ok(response) => (response, "-"),
            Err(DialError::Refused(_)) => (local(503, refusal()), "UF"),
            Err(_) => (local(503, refusal()), "UC"),
        };
        let measured = latency(&response);
        settle(&clock, started, HOP, &mut response).await;
        let series = Series {
            reporter: Reporter::Destination,
            source,
            destination: Arc::clone(&self.workload),
            service,
            code: response.status().as_u16(),
            flags,
            mutual_tls: peer.is_some_and(|peer| peer.mutual_tls),
        };
        self.metrics.record(series, measured);
        Ok(response)
    }
}

/// A random UUID (version 4) as text.
fn request_id(high: u64, low: u64) -> HeaderValue {
    let random = (u128::from(high) << 64) | u128::from(low);
    let versioned = random & !(0xf << 76) & !(0b11 << 62) | (0x4 << 76) | (0b10 << 62);
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    for (digit, place) in places.enumerate() {
        let value = (versioned >> (124 - 4 * digit)) & 0xf;
        text[place] = b"0123456789abcdef"[value as usize];
    }
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are visible")
}

/// What an attempt came to: the answer, the response flag, and whether it may be tried again.
fn judge(
    answered: Result<Result<Response, DialError>, clock::Elapsed>,
    retries: &Retries,
) -> (Response, &'static str, bool) {
    match answered {
        Err(_) => (local(504, "upstream request timeout".to_owned()), "UT", retries.on_5xx),
        Ok(Ok(response)) => {
            let status = response.status().as_u16();
            let again = (status == 503 && retries.on_503) || (status >= 500 && retries.on_5xx);
            (response, "-", again)
        }
        Ok(Err(DialError::Reset(_))) => (
            local(503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination".to_owned()),
            "UC",
            retries.on_reset,
        ),
        Ok(Err(_)) => (local(503, refusal()), "UF", true),
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

/// The request again: bodies are shared, extensions of the client stay with the client.
fn copy(request: &Request) -> Request {
    let mut copy: Request = http::Request::new(Bytes::clone(request.body()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    if let Some(peer) = request.extensions().get::<Peer>() {
        copy.extensions_mut().insert(peer.clone());
    }
    copy
}

/// The host of the `Host` header, without its port.
fn authority(request: &Request) -> Option<&str> {
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    let port = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    Some(port.map_or(host, |(host, _)| host))
}

/// The service that a client without a proxy means.
fn asked_service(
    config: &Config,
    request: &Request,
    namespace: &str,
) -> Option<(Arc<str>, Arc<str>, Arc<str>)> {
    let host = authority(request).or_else(|| request.uri().host())?;
    config.service(host, namespace).map(service_labels)
}

fn service_labels(service: &Arc<Service>) -> (Arc<str>, Arc<str>, Arc<str>) {
    (Arc::clone(&service.host), Arc::clone(&service.name), Arc::clone(&service.namespace))
}

fn nobody(name: &str) -> (Arc<str>, Arc<str>, Arc<str>) {
    (name.into(), name.into(), name.into())
}

fn is_mutual_tls(policy: Option<&TrafficPolicy>) -> bool {
    policy.and_then(|policy| policy.tls.as_ref()).is_some_and(|tls| tls.mode == "ISTIO_MUTUAL")
}
