//! The proxy: a sidecar between a pod and its network, or a gateway of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use clock::{Clock, Rng};
use crd::{Headers, TrafficPolicy};
use http::{HeaderValue, StatusCode, Uri, header};
use program::{
    Context, DialError, ExitCode, Handler, Lost, Main, Proxy, Reply, Request, Response, Stage, Target,
    respond,
};
use rand::{Rng as _, RngExt as _};

use crate::config::{Config, Entrance, Named, Service, host_fit};
use crate::control_plane::ControlPlane;
use crate::route::{self, Asked, Caller, Decision, Forward, Matched, Retries, Upstream};
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
/// How long a proxy serves on after SIGTERM (`terminationDrainDuration`), for load balancers to notice.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest pause before a first retry; the pause is random up to it, and doubles per retry.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// What a client's proxy tells the server's: in Envoy, headers and the client certificate.
struct PeerProxy {
    workload: Arc<Workload>,
    service: Arc<Named>,
    mutual_tls: bool,
}

/// An upstream as a proxy has it.
struct Cluster {
    upstream: Upstream,
    /// The place of its turns in [`State::turns`].
    turn: usize,
    /// What upstream's proxies are told.
    told: Arc<PeerProxy>,
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
        state: Mutex::new(State {
            random: seed.stream("envoy"),
            places: BTreeMap::new(),
            turns: Vec::new(),
            routed: None,
        }),
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

struct State {
    random: Rng,
    /// The places in `turns`, by service, port and subset.
    places: BTreeMap<(String, u16, String), usize>,
    /// How often it was whose turn; nothing before the first time.
    turns: Vec<Option<usize>>,
    /// The request that was routed last, and by what: as a rule the next is a copy of it.
    routed: Option<Routed>,
}

/// What applies to a request that came to a port, in a snapshot.
struct Routed {
    version: u64,
    config: Arc<Config>,
    request: Request,
    port: u16,
    /// The host and the port that it is for.
    host: String,
    asked_port: u16,
    matched: Matched,
    /// Its upstreams.
    clusters: Vec<Option<Arc<Cluster>>>,
}

impl Routed {
    fn is_of(&self, version: u64, request: &Request, port: u16) -> bool {
        self.port == port && self.version == version && self.request.is_copy_of(request)
    }
}

/// What a request is for, and who routes it.
struct Origin<'c> {
    host: String,
    port: u16,
    /// The gateways by which it came, none for a sidecar; nobody routes it if no gateway serves the host.
    gateways: Option<Vec<&'c str>>,
}

/// The port at which a request arrived last, and the service that it is of in a snapshot, if it is of one.
struct Arrived {
    version: u64,
    port: u16,
    service: Option<Arc<Named>>,
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

impl Envoy {
    /// A request that leaves the pod.
    fn leave(self: &Arc<Self>, request: Request) -> Reply {
        let Target { host, literal, port } = match request.target() {
            Ok(target) => target,
            Err(error) => return error.into(),
        };
        let port = *port;
        // Traffic is captured on its way to an address: a name that does not resolve never gets here.
        let address = match literal.map_or_else(|| self.context.network.resolve(host), Ok) {
            Ok(address) => address,
            Err(error) => return error.into(),
        };
        if self.excluded_outbound.contains(&port) {
            return self.context.network.dial(SocketAddr::new(address, port), request);
        }
        let to = SocketAddr::new(address, port);
        self.route(request, port, Some(to), |_, request| {
            let host = authority(request).or_else(|| request.uri().host()).unwrap_or_default();
            Ok(Origin { host: host.to_owned(), port, gateways: Some(Vec::new()) })
        })
    }

    /// A request that arrives at a gateway's port.
    fn enter(self: &Arc<Self>, port: u16, request: Request) -> Reply {
        self.route(request, port, None, |config, request| {
            let here = SocketAddr::new(self.context.network.local_ip(), port);
            // The Service in front of the gateway says which of its ports this is.
            let outer = config.inbound(here).map_or(port, |(_, outer)| *outer);
            let host = authority(request).or_else(|| request.uri().host()).unwrap_or_default();
            let mut listens = false;
            let mut gateways = Vec::new();
            for entrance in config.entrances.iter().filter(|entrance| self.is_selected(config, entrance)) {
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
            let gateways = (!gateways.is_empty()).then_some(gateways);
            Ok(Origin { host: host.to_owned(), port: outer, gateways })
        })
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn draw(&self) -> f64 {
        self.state().random.random::<f64>()
    }

    /// Routes a request that came to a port, on its way to an address if it leaves the pod. Unless it is a copy of the last
    /// one, it is asked where it comes from.
    fn route(
        self: &Arc<Self>,
        mut request: Request,
        port: u16,
        to: Option<SocketAddr>,
        origin: impl for<'c> FnOnce(&'c Config, &Request) -> Result<Origin<'c>, DialError>,
    ) -> Reply {
        let (decision, cluster) = match self.decide(&mut request, port, origin) {
            Ok(decided) => decided,
            Err(error) => return error.into(),
        };
        self.carry_out(decision, cluster, request, to)
    }

    /// What becomes of a request, and the upstream that it is sent to, if it is: it is as upstream gets it then.
    fn decide(
        &self,
        request: &mut Request,
        port: u16,
        origin: impl for<'c> FnOnce(&'c Config, &Request) -> Result<Origin<'c>, DialError>,
    ) -> Result<(Decision, Option<Arc<Cluster>>), DialError> {
        let version = self.control_plane.version();
        let State { random, places, turns, routed } = &mut *self.state();
        let routed = match routed {
            Some(last) if last.is_of(version, request, port) => last,
            last => {
                let config = self.control_plane.config();
                let Origin { host, port: asked_port, gateways } = origin(&config, request)?;
                let asked = asked(request, &host, asked_port);
                let Workload { namespace, labels, .. } = &*self.workload;
                let matched = gateways.map_or_else(Matched::nothing, |gateways| {
                    route::matching(&config, &Caller { gateways, namespace, labels }, &asked)
                });
                let clusters = matched.upstreams().map(|upstream| {
                    let upstream = upstream?.clone();
                    let key = (upstream.service.named.host.clone(), upstream.port, upstream.subset.clone());
                    let turn = *places.entry(key).or_insert_with(|| {
                        turns.push(None);
                        turns.len() - 1
                    });
                    let told = self.told(&upstream.service, is_mutual_tls(upstream.policy.as_deref()));
                    Some(Arc::new(Cluster { upstream, turn, told }))
                });
                let clusters = clusters.collect();
                let request = request.clone();
                last.insert(Routed { version, config, request, port, host, asked_port, matched, clusters })
            }
        };
        let asked = asked(request, &routed.host, routed.asked_port);
        let mut decision = route::follow(&routed.config, &routed.matched, &asked, || random.random::<f64>());
        let Decision::Forward(forward) = &mut decision else { return Ok((decision, None)) };
        let cluster = routed.clusters[forward.upstream].clone();
        let headers = cluster.as_ref().map_or(&[][..], |cluster| &cluster.upstream.headers);
        prepare(request, forward.rewrite.take(), headers, random);
        Ok((decision, cluster))
    }

    /// What the proxies of a service are told.
    fn told(&self, service: &Service, mutual_tls: bool) -> Arc<PeerProxy> {
        let (workload, service) = (Arc::clone(&self.workload), Arc::clone(&service.named));
        Arc::new(PeerProxy { workload, service, mutual_tls })
    }

    fn carry_out(
        self: &Arc<Self>,
        decision: Decision,
        cluster: Option<Arc<Cluster>>,
        request: Request,
        to: Option<SocketAddr>,
    ) -> Reply {
        let clock = self.context.clock;
        let started = clock.elapsed();
        match decision {
            Decision::Passthrough => match to {
                Some(to) => self.context.network.dial(to, request),
                None => DialError::Invalid("a gateway has nowhere to pass a request to".into()).into(),
            },
            Decision::Answer { status, body, flag, service } => {
                self.context.cpu.add(CPU);
                let mut response = local(status, body);
                response.settle(&clock, started, HOP);
                let service = service.as_ref().map_or_else(|| nobody(), |service| &service.named);
                self.count_outbound(Workload::unknown(), service, &Measured::of(&response, flag));
                response.into()
            }
            Decision::Redirect { status, location } => {
                let mut response = local(status, String::new());
                if let Ok(value) = HeaderValue::from_str(&location) {
                    response.headers_mut().insert(header::LOCATION, value);
                }
                response.settle(&clock, started, HOP);
                response.into()
            }
            Decision::Forward(Forward { delay, mirrors, .. }) => {
                let cluster = cluster.expect("a request is forwarded to one of the upstreams that there are");
                self.context.cpu.add(CPU);
                let outbound = Outbound { envoy: Arc::clone(self), cluster, delay, started, result: None };
                match delay {
                    None => outbound.send(request, &mirrors),
                    Some(delay) => Reply::later(async move {
                        clock.sleep(delay).await;
                        outbound.send(request, &mirrors).await
                    }),
                }
            }
        }
    }

    fn count_outbound(&self, destination: &Arc<Workload>, service: &Arc<Named>, result: &Measured) {
        let series = Series {
            reporter: Reporter::Source,
            source: &self.workload,
            destination,
            service,
            code: result.code,
            flags: result.flags,
            mutual_tls: false,
        };
        self.metrics.record(series, result.took);
    }

    /// The place of the next endpoint: in turn, or at random where the policy says so, and not one that was tried before
    /// if there is another.
    fn choose(&self, cluster: &Cluster, tried: &[SocketAddr]) -> Option<usize> {
        let Upstream { endpoints, policy, .. } = &cluster.upstream;
        let count = endpoints.len();
        if count == 0 {
            return None;
        }
        let simple = policy.as_ref().and_then(|policy| policy.load_balancer.as_ref());
        let State { random, turns, .. } = &mut *self.state();
        let start = if simple.is_some_and(|balancer| balancer.simple == "RANDOM") {
            random.random_range(0..count)
        } else {
            // Proxies do not all begin with the same endpoint.
            let turn = &mut turns[cluster.turn];
            let next = turn.unwrap_or_else(|| random.random_range(0..count)).wrapping_add(1);
            *turn.insert(next)
        };
        let mut in_order = (0..count).map(|offset| start.wrapping_add(offset) % count);
        let fresh = in_order.clone().find(|place| !tried.contains(&endpoints[*place].address));
        fresh.or_else(|| in_order.next())
    }

    fn mirror(&self, service: &Arc<Service>, port: u16, request: &Request) {
        let Some(endpoints) = service.ports.get(&port).filter(|endpoints| !endpoints.is_empty()) else {
            return;
        };
        let index = self.state().random.random_range(0..endpoints.len());
        let mut copy = request.clone();
        if let Some(host) =
            authority(request).and_then(|host| HeaderValue::from_str(&format!("{host}-shadow")).ok())
        {
            copy.headers_mut().insert(header::HOST, host);
        }
        let copy = copy.from_proxy(self.told(service, false));
        let (network, address) = (Arc::clone(&self.context.network), endpoints[index].address);
        self.context.tasks.spawn(async move {
            // Nobody waits for a shadow's answer.
            if let Ok(response) = network.dial(address, copy).await {
                let _ = network.arrive(response).await;
            }
        });
    }

    /// The service that a port of the pod is of, if it is of one.
    fn service_of(&self, port: u16) -> Option<Arc<Named>> {
        let version = self.control_plane.version();
        let mut last = self.arrived.lock().expect("no holder of this lock panics");
        let arrived = match &mut *last {
            Some(last) if last.port == port && last.version == version => last,
            last => {
                let here = SocketAddr::new(self.context.network.local_ip(), port);
                let config = self.control_plane.config();
                let found = config.inbound(here).filter(|_| !(15000..15100).contains(&port));
                let service = found.map(|(service, _)| Arc::clone(&service.named));
                last.insert(Arrived { version, port, service })
            }
        };
        arrived.service.clone()
    }

    /// A request that arrives at the pod.
    fn arrive(self: &Arc<Self>, request: Request, port: u16, app: Arc<dyn Handler>) -> Reply {
        // Ports behind no Service are passed through, and so are the proxy's own: no telemetry.
        let Some(of_port) = self.service_of(port) else { return app.handle(request) };
        let peer = request.told::<PeerProxy>();
        let service = match &peer {
            Some(peer) => Arc::clone(&peer.service),
            None => asked_service(&self.control_plane.config(), &request, &self.workload.namespace)
                .map_or(of_port, Arc::clone),
        };
        let started = self.context.clock.elapsed();
        self.context.cpu.add(CPU);
        let mut inbound = Inbound { envoy: Arc::clone(self), peer, service, started, result: None };
        match app.handle(request) {
            Reply::Now(result) => Reply::Now(result.map(|result| {
                let mut response = inbound.pass_on(result);
                response.then(inbound);
                Ok(response)
            })),
            Reply::Later(answer) => Reply::later(async move {
                let mut response = inbound.pass_on(answer.await);
                response.then(inbound);
                Ok(response)
            }),
        }
    }
}

/// Headers, path and host as the rule wants them.
fn prepare(
    request: &mut Request,
    rewrite: Option<(Option<String>, Option<String>)>,
    headers: &[Headers],
    random: &mut Rng,
) {
    if let Some((path, authority)) = rewrite {
        let mut parts = request.uri().clone().into_parts();
        if let Some(path) = path {
            let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
            parts.path_and_query = format!("{path}{query}").parse().ok().or(parts.path_and_query);
        }
        if let Some(host) = authority.and_then(|host| HeaderValue::from_str(&host).ok()) {
            request.headers_mut().insert(header::HOST, host);
        }
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    for headers in headers {
        if headers.request.is_some() {
            route::change_headers(request.headers_mut(), headers.request.as_ref());
        }
    }
    request.forward(|| {
        let (high, low) = (random.next_u64(), random.next_u64());
        (u128::from(high) << 64) | u128::from(low)
    });
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

/// A request that a proxy sends on.
struct Outbound {
    envoy: Arc<Envoy>,
    cluster: Arc<Cluster>,
    /// An injected delay.
    delay: Option<Duration>,
    started: Duration,
    /// Who answered, and what.
    result: Option<(Answerer, Measured)>,
}

/// The place of the endpoint that answered, among the upstream's; none if the proxy did.
type Answerer = Option<usize>;

/// One attempt to get an answer: from which endpoint, and the answer.
struct Attempt {
    to: usize,
    reply: Reply,
}

impl Outbound {
    fn send(mut self, request: Request, mirrors: &[(Arc<Service>, u16)]) -> Reply {
        for (service, port) in mirrors {
            self.envoy.mirror(service, *port, &request);
        }
        let Some(mut attempt) = self.attempt(&request, &[]) else {
            let nobody = (local(503, "no healthy upstream".to_owned()), "UH");
            return self.finish(None, nobody).into();
        };
        match attempt.reply {
            Reply::Now(Some(Ok(response))) if self.is_final(&response) => {
                let mut response = self.take(Some(attempt.to), Ok(response));
                response.then(self);
                response.into()
            }
            reply => {
                attempt.reply = reply;
                Reply::later(self.insist(request, attempt))
            }
        }
    }

    /// Whether an answer is what the client gets, whatever may happen until it has arrived.
    fn is_final(&self, response: &Response) -> bool {
        let Upstream { timeout, retries, .. } = &self.cluster.upstream;
        let in_time = |limit: Option<Duration>| limit.is_none_or(|limit| response.latency() < limit);
        let tries_again = retries.on_reset || retries.on_503 || retries.on_5xx;
        !tries_again && in_time(*timeout) && in_time(retries.per_try)
    }

    /// Sends the request to the next endpoint, if there is one.
    fn attempt(&self, request: &Request, tried: &[SocketAddr]) -> Option<Attempt> {
        let to = self.envoy.choose(&self.cluster, tried)?;
        let request = request.clone().from_proxy(Arc::clone(&self.cluster.told));
        Some(Attempt { to, reply: self.envoy.context.network.dial(self.address(to), request) })
    }

    /// The address of an endpoint.
    fn address(&self, endpoint: usize) -> SocketAddr {
        self.cluster.upstream.endpoints[endpoint].address
    }

    /// Waits for an answer within the rule's time.
    async fn insist(self, request: Request, first: Attempt) -> Result<Response, DialError> {
        let sent = self.try_again(&request, first);
        let (response, answerer, flag) = match self.cluster.upstream.timeout {
            None => sent.await,
            Some(limit) => match self.envoy.context.clock.timeout(limit, sent).await {
                Ok(answer) => answer,
                Err(_) => {
                    let response = local(504, "upstream request timeout".to_owned()).taking(limit);
                    (response, None, "UT")
                }
            },
        };
        Ok(self.finish(answerer, (response, flag)))
    }

    /// Waits for an attempt's answer, trying again as the rule allows: the answer, who gave it, and the response flag.
    async fn try_again(&self, request: &Request, first: Attempt) -> (Response, Answerer, &'static str) {
        let (envoy, retries) = (&self.envoy, &self.cluster.upstream.retries);
        let clock = envoy.context.clock;
        let began = clock.elapsed();
        let mut tried = vec![self.address(first.to)];
        let mut attempt = first;
        loop {
            let attempt_began = clock.elapsed();
            let arrived = async { envoy.context.network.arrive(attempt.reply.await?).await };
            let answered = match retries.per_try {
                None => Ok(arrived.await),
                Some(limit) => clock.timeout(limit, arrived).await,
            };
            let (mut response, flag, may_retry) = judge(answered, retries);
            let retries_left = tried.len() <= retries.attempts as usize;
            if !(may_retry && retries_left) {
                // Time lost before the last attempt counts too.
                let total = response.add_latency(attempt_began - began);
                response.took_upstream(total);
                return (response, Some(attempt.to), flag);
            }
            let ceiling = RETRY_PAUSE * (1 << (tried.len() - 1).min(4));
            clock.sleep(ceiling.mul_f64(envoy.draw())).await;
            let Some(next) = self.attempt(request, &tried) else {
                return (local(503, "no healthy upstream".to_owned()), None, "UH");
            };
            tried.push(self.address(next.to));
            attempt = next;
        }
    }

    /// The client's answer from what the only attempt gave.
    fn take(&mut self, answerer: Answerer, result: Result<Response, DialError>) -> Response {
        let (mut response, flag, _) = judge(Ok(result), &self.cluster.upstream.retries);
        let total = response.latency();
        response.took_upstream(total);
        self.pass_on(answerer, (response, flag))
    }

    /// Passes an answer on that has arrived.
    fn finish(mut self, answerer: Answerer, answer: (Response, &'static str)) -> Response {
        let mut response = self.pass_on(answerer, answer);
        response.then(self);
        response
    }

    /// Headers and time of an answer as the client gets it.
    fn pass_on(&mut self, answerer: Answerer, (mut response, flag): (Response, &'static str)) -> Response {
        for headers in &self.cluster.upstream.headers {
            if headers.response.is_some() {
                route::change_headers(response.headers_mut(), headers.response.as_ref());
            }
        }
        let waited = self.delay.unwrap_or_default();
        response.settle(&self.envoy.context.clock, self.started, HOP + waited);
        let flag = if self.delay.is_some() && flag == "-" { "DI" } else { flag };
        self.result = Some((answerer, Measured::of(&response, flag)));
        response
    }

    fn count(&self) {
        if let Some((answerer, measured)) = &self.result {
            let Upstream { endpoints, service, .. } = &self.cluster.upstream;
            let destination = match answerer {
                Some(place) => &endpoints[*place].workload,
                None => Workload::unknown(),
            };
            self.envoy.count_outbound(destination, &service.named, measured);
        }
    }
}

impl Stage for Outbound {
    fn done(&mut self, _: &Response) -> Result<(), Lost> {
        self.count();
        Ok(())
    }

    fn redo(&mut self, _: &Clock, result: Result<Response, DialError>) -> Result<Response, DialError> {
        let answerer = self.result.take().and_then(|(answerer, _)| answerer);
        let response = self.take(answerer, result);
        self.count();
        Ok(response)
    }
}

/// A request that has arrived at a pod.
struct Inbound {
    envoy: Arc<Envoy>,
    peer: Option<Arc<PeerProxy>>,
    service: Arc<Named>,
    started: Duration,
    result: Option<Measured>,
}

impl Inbound {
    /// What the client gets of what the application gave.
    fn pass_on(&mut self, result: Result<Response, DialError>) -> Response {
        let (mut response, flags) = match result {
            Ok(response) => (response, "-"),
            Err(DialError::Refused(_)) => (local(503, refusal()), "UF"),
            Err(_) => (local(503, refusal()), "UC"),
        };
        self.result = Some(Measured::of(&response, flags));
        response.settle(&self.envoy.context.clock, self.started, HOP);
        response
    }

    fn count(&self) {
        let Some(Measured { code, flags, took }) = &self.result else { return };
        let series = Series {
            reporter: Reporter::Destination,
            source: self.peer.as_ref().map_or_else(|| Workload::unknown(), |peer| &peer.workload),
            destination: &self.envoy.workload,
            service: &self.service,
            code: *code,
            flags,
            mutual_tls: self.peer.as_ref().is_some_and(|peer| peer.mutual_tls),
        };
        self.envoy.metrics.record(series, *took);
    }
}

impl Stage for Inbound {
    fn done(&mut self, _: &Response) -> Result<(), Lost> {
        self.count();
        Ok(())
    }

    fn redo(&mut self, _: &Clock, result: Result<Response, DialError>) -> Result<Response, DialError> {
        let response = self.pass_on(result);
        self.count();
        Ok(response)
    }
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

/// A request for a host and port as routing sees it.
fn asked<'a>(request: &'a Request, host: &'a str, port: u16) -> Asked<'a> {
    Asked {
        host,
        port,
        method: request.method().as_str(),
        path: request.uri().path(),
        query: request.uri().query().unwrap_or_default(),
        headers: request.headers(),
    }
}

/// The host of the `Host` header, without its port.
fn authority(request: &Request) -> Option<&str> {
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    let port = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    Some(port.map_or(host, |(host, _)| host))
}

/// The service that a client without a proxy means.
fn asked_service<'a>(config: &'a Config, request: &Request, namespace: &str) -> Option<&'a Arc<Named>> {
    let host = authority(request).or_else(|| request.uri().host())?;
    config.service(host, namespace).map(|service| &service.named)
}

/// The service of requests for none that is known.
fn nobody() -> &'static Arc<Named> {
    static NOBODY: OnceLock<Arc<Named>> = OnceLock::new();
    let unknown = || "unknown".to_owned();
    NOBODY.get_or_init(|| Arc::new(Named { host: unknown(), name: unknown(), namespace: unknown() }))
}

fn is_mutual_tls(policy: Option<&TrafficPolicy>) -> bool {
    policy.and_then(|policy| policy.tls.as_ref()).is_some_and(|tls| tls.mode == "ISTIO_MUTUAL")
}
