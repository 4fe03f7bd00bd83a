//! A request that is sent on: which endpoint, how often, and what the client gets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use http::{HeaderValue, header};
use program::{DialError, Lost, Reply, Request, Response, Stage};
use rand::RngExt as _;

use super::routing::{Cluster, State};
use super::{Envoy, HOP, Measured, authority, local, refusal};
use crate::config::{Named, Service};
use crate::route::{self, Retries, Upstream};
use crate::telemetry::{Reporter, Series};
use crate::workload::Workload;

/// The longest pause before a first retry; the pause is random up to it, and doubles per retry.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// A request that a proxy sends on.
pub(super) struct Outbound {
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
    pub(super) fn new(
        envoy: Arc<Envoy>,
        cluster: Arc<Cluster>,
        delay: Option<Duration>,
        started: Duration,
    ) -> Outbound {
        Outbound { envoy, cluster, delay, started, result: None }
    }

    pub(super) fn send(mut self, request: Request, mirrors: &[(Arc<Service>, u16)]) -> Reply {
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

impl Envoy {
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

    pub(super) fn count_outbound(
        &self,
        destination: &Arc<Workload>,
        service: &Arc<Named>,
        result: &Measured,
    ) {
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
