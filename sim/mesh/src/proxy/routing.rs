//! What becomes of a request that leaves the pod or comes to a gateway: decided by [`route`], remembered for the next one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, OnceLock};

use clock::Rng;
use crd::{Headers, TrafficPolicy};
use http::{HeaderValue, Uri, header};
use program::{DialError, Reply, Request, Target};
use rand::{Rng as _, RngExt as _};

use super::outbound::Outbound;
use super::{CPU, Envoy, HOP, Measured, PeerProxy, authority, local};
use crate::config::{Config, Entrance, Named, Service, host_fit};
use crate::route::{self, Asked, Caller, Decision, Forward, Matched, Upstream};
use crate::workload::Workload;

/// An upstream as a proxy has it.
pub(super) struct Cluster {
    pub upstream: Upstream,
    /// The place of its turns in [`State::turns`].
    pub turn: usize,
    /// What upstream's proxies are told.
    pub told: Arc<PeerProxy>,
}

/// What a proxy draws from and remembers, all under one lock: a request needs all of it.
pub(super) struct State {
    pub random: Rng,
    /// The places in `turns`, by service, port and subset.
    places: BTreeMap<(String, u16, String), usize>,
    /// How often it was whose turn; nothing before the first time.
    pub turns: Vec<Option<usize>>,
    /// The request that was routed last, and by what: as a rule the next is a copy of it.
    routed: Option<Routed>,
}

impl State {
    /// A proxy that has routed nothing.
    pub(super) fn new(random: Rng) -> State {
        State { random, places: BTreeMap::new(), turns: Vec::new(), routed: None }
    }
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

impl Envoy {
    /// A request that leaves the pod.
    pub(super) fn leave(self: &Arc<Self>, request: Request) -> Reply {
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
    pub(super) fn enter(self: &Arc<Self>, port: u16, request: Request) -> Reply {
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

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    pub(super) fn draw(&self) -> f64 {
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
    pub(super) fn told(&self, service: &Service, mutual_tls: bool) -> Arc<PeerProxy> {
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
                let outbound = Outbound::new(Arc::clone(self), cluster, delay, started);
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

/// The service of requests for none that is known.
fn nobody() -> &'static Arc<Named> {
    static NOBODY: OnceLock<Arc<Named>> = OnceLock::new();
    let unknown = || "unknown".to_owned();
    NOBODY.get_or_init(|| Arc::new(Named { host: unknown(), name: unknown(), namespace: unknown() }))
}

fn is_mutual_tls(policy: Option<&TrafficPolicy>) -> bool {
    policy.and_then(|policy| policy.tls.as_ref()).is_some_and(|tls| tls.mode == "ISTIO_MUTUAL")
}
