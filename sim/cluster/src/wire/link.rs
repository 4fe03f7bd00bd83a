//! The network as a pod has it: where its requests go, by DNS and kube-proxy, and how long they take.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use clock::{Clock, Rng};
use program::{
    DialError, Endings, Handler, ListenError, Listening, Lost, Network, Proxy, Reply, Request, Response,
    Stage, Target,
};
use rand::RngExt as _;

use super::end::{Capture, Listener, PodEnd, Ports, Process};
use super::{ClusterNet, Wire, ipv4, lock};
use crate::dns;
use crate::kube_proxy::Table;

/// How long a connection attempt to nowhere takes to fail.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A pod's network as one of its processes has it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PodNetwork {
    link: Arc<Link>,
    process: Arc<Process>,
}

struct Link {
    wire: Wire,
    /// The cluster whose DNS and kube-proxy serve this pod.
    net: Option<Arc<ClusterNet>>,
    namespace: String,
    end: Arc<PodEnd>,
    draws: Mutex<Rng>,
    /// The name that was looked up last, if it has one address alone, and the version of the Services then.
    looked_up: Mutex<Option<(u64, String, IpAddr)>>,
    /// What is behind the addresses that were dialled last, where no draw decides.
    dialled: Mutex<Vec<Dialled>>,
}

/// The pod and the port behind an address, as long as nothing moves.
struct Dialled {
    to: SocketAddr,
    end: Weak<PodEnd>,
    port: u16,
    /// The versions of the Services, and of the pods.
    known: (u64, u64),
}

/// So many addresses are known: a proxy sends to the endpoints of few Services.
const DIALLED_MAX: usize = 16;

impl PodNetwork {
    /// The network of a pod with this end, whose DNS and kube-proxy are those of a cluster.
    pub(super) fn new(
        wire: Wire,
        net: Option<Arc<ClusterNet>>,
        namespace: &str,
        end: Arc<PodEnd>,
        draws: Rng,
    ) -> PodNetwork {
        let (draws, namespace) = (Mutex::new(draws), namespace.to_owned());
        let (looked_up, dialled) = (Mutex::default(), Mutex::default());
        let link = Link { wire, net, namespace, end, draws, looked_up, dialled };
        PodNetwork { link: Arc::new(link), process: Arc::default() }
    }

    pub(crate) fn end(&self) -> &Arc<PodEnd> {
        &self.link.end
    }

    /// The pod's network for a further process.
    pub(crate) fn process(&self) -> PodNetwork {
        PodNetwork { link: Arc::clone(&self.link), process: Arc::default() }
    }

    /// The process is over: its ports close, and requests that it has not answered fail. If it was the pod's proxy, the
    /// pod's traffic still goes to it, and is refused.
    pub(crate) fn end_process(&self) {
        self.process.end(&self.link.wire.0.endings);
        let ended = |listener: &Arc<Listener>| Arc::ptr_eq(&listener.process, &self.process);
        lock(&self.link.end.ports).listeners.retain(|_, listener| !ended(listener));
    }

    /// Takes the pod off the network; requests that it has not answered fail.
    pub(crate) fn close(&self) {
        let end = &self.link.end;
        if let Some(number) = ipv4(end.ip) {
            self.link.wire.state().pods.remove(&number);
        }
        self.link.wire.0.moves.fetch_add(1, Ordering::SeqCst);
        let Ports { listeners, capture } = std::mem::take(&mut *lock(&end.ports));
        let processes = listeners.values().map(|listener| &listener.process);
        for process in processes.chain(capture.as_ref().map(|capture| &capture.process)) {
            process.end(&self.link.wire.0.endings);
        }
        self.process.end(&self.link.wire.0.endings);
    }
}

impl Link {
    fn table(&self) -> Option<Arc<Table>> {
        self.net.as_ref().map(|net| net.services.table())
    }

    fn resolve(&self, host: &str) -> Result<IpAddr, DialError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let now = self.services_version();
        if let Some((version, name, ip)) = &*lock(&self.looked_up)
            && *version == now
            && name == host
        {
            return Ok(*ip);
        }
        if let Ok(ip) = host.parse() {
            return Ok(ip);
        }
        if host == "localhost" {
            return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let Some(table) = self.table() else { return self.public(host) };
        match dns::addresses(&table, &self.namespace, host) {
            None => self.public(host),
            Some(Err(alias)) => self.public(&alias),
            Some(Ok(found)) => match *found {
                [only] => {
                    *lock(&self.looked_up) = Some((now, host.to_owned(), only));
                    Ok(only)
                }
                ref several => Ok(several[lock(&self.draws).random_range(0..several.len())]),
            },
        }
    }

    fn public(&self, host: &str) -> Result<IpAddr, DialError> {
        let found = self.wire.state().hosts.get(host.trim_end_matches('.')).copied();
        found.ok_or_else(|| DialError::NoSuchHost(host.to_owned()))
    }

    /// How many changes of the Services that its DNS knows there have been.
    fn services_version(&self) -> u64 {
        self.net.as_ref().map_or(0, |net| net.services.version())
    }

    /// The pod behind an address: the address itself, or an endpoint of the Service that has it.
    fn target(&self, to: SocketAddr) -> Option<Result<(Arc<PodEnd>, u16), DialError>> {
        let now = (self.services_version(), self.wire.0.moves.load(Ordering::SeqCst));
        let mut dialled = lock(&self.dialled);
        let last = dialled.iter().find(|last| last.to == to && last.known == now);
        if let Some(last) = last
            && let Some(end) = last.end.upgrade()
        {
            return Some(Ok((end, last.port)));
        }
        let pod = |address: SocketAddr| self.wire.state().pods.get(&ipv4(address.ip())?).cloned();
        let (found, is_only) = match pod(to) {
            Some(end) => (Some((end, to.port())), true),
            None => {
                let (chosen, is_only) = self.endpoint(to)?;
                // One that is gone, though kube-proxy has not heard of it, is refused like no endpoint at all.
                (chosen.and_then(|chosen| Some((pod(chosen)?, chosen.port()))), is_only)
            }
        };
        let Some((end, port)) = found else { return Some(Err(DialError::Refused(to.to_string()))) };
        if is_only {
            dialled.retain(|last| last.to != to && last.known == now);
            if dialled.len() == DIALLED_MAX {
                dialled.remove(0);
            }
            dialled.push(Dialled { to, end: Arc::downgrade(&end), port, known: now });
        }
        Some(Ok((end, port)))
    }

    /// An endpoint of the Service that has an address, if it has any, and whether it is the only one; `None` if there is
    /// no such Service that this pod's cluster knows or that is reached from everywhere.
    fn endpoint(&self, to: SocketAddr) -> Option<(Option<SocketAddr>, bool)> {
        let table = self.table();
        if let Some(endpoints) = table.as_ref().and_then(|table| table.endpoints(to)) {
            return Some((self.choose(endpoints), endpoints.len() == 1));
        }
        let state = self.wire.state();
        let elsewhere = |net: &Arc<ClusterNet>| Some(self.choose(net.services.table().balanced(to)?));
        Some((state.clusters.iter().find_map(elsewhere)?, false))
    }

    /// One of a Service's endpoints, if it has any.
    fn choose(&self, endpoints: &[SocketAddr]) -> Option<SocketAddr> {
        match endpoints {
            [] => None,
            [only] => Some(*only),
            several => Some(several[lock(&self.draws).random_range(0..several.len())]),
        }
    }

    /// A connection to nowhere.
    fn unreachable(&self, to: SocketAddr) -> Reply {
        let clock = self.wire.0.clock;
        Reply::later(async move {
            clock.sleep(DIAL_TIMEOUT).await;
            Err(DialError::Unreachable(to.to_string()))
        })
    }

    fn dial(self: &Arc<Self>, to: SocketAddr, request: Request) -> Reply {
        if is_localhost(to.ip()) {
            return self.end.serve(to.port(), request);
        }
        let (end, port) = match self.target(to) {
            Some(Ok(found)) => found,
            Some(Err(error)) => return error.into(),
            // An address of a pod that is gone: the node it was on says so.
            None if matches!(to.ip(), IpAddr::V4(ip) if matches!(ip.octets()[0], 10 | 127)) => {
                return DialError::Refused(to.to_string()).into();
            }
            None => return self.unreachable(to),
        };
        let way = if end.ip == self.end.ip {
            Duration::ZERO
        } else {
            match self.wire.way(&self.end.cluster, &end.cluster) {
                Some(way) => way,
                None => return self.unreachable(to),
            }
        };
        let started = self.wire.0.clock.elapsed();
        let reply = end.deliver(port, request);
        let passage = Passage { link: Arc::clone(self), end, to, started, way };
        match reply {
            Reply::Now(result) => Reply::Now(result.map(|result| passage.bring(result))),
            Reply::Later(answer) => Reply::later(async move { passage.bring(answer.await) }),
        }
    }
}

/// The way of a response between two pods.
struct Passage {
    /// Who asked.
    link: Arc<Link>,
    /// Who answers.
    end: Arc<PodEnd>,
    /// The address that was asked.
    to: SocketAddr,
    started: Duration,
    way: Duration,
}

impl Passage {
    fn bring(self, result: Result<Response, DialError>) -> Result<Response, DialError> {
        let mut response = result?;
        response.pass(&self.end.clock, self.started, self.way);
        response.then(self);
        Ok(response)
    }
}

impl Stage for Passage {
    fn done(&mut self, _: &Response) -> Result<(), Lost> {
        match self.link.wire.way(&self.link.end.cluster, &self.end.cluster) {
            Some(_) => Ok(()),
            // Cut meanwhile: the answer is lost on its way.
            None => Err(Lost { after: DIAL_TIMEOUT, error: DialError::Unreachable(self.to.to_string()) }),
        }
    }

    fn redo(&mut self, clock: &Clock, result: Result<Response, DialError>) -> Result<Response, DialError> {
        let mut response = result?;
        response.pass(clock, self.started, self.way);
        if let Err(lost) = self.done(&response) {
            response.lose(lost);
        }
        Ok(response)
    }
}

impl Network for PodNetwork {
    fn local_ip(&self) -> IpAddr {
        self.link.end.ip
    }

    fn resolve(&self, host: &str) -> Result<IpAddr, DialError> {
        self.link.resolve(host)
    }

    fn exchange(&self, request: Request) -> Reply {
        let &Target { literal, port, .. } = match request.target() {
            Ok(target) => target,
            Err(error) => return error.into(),
        };
        if let Some(ip) = literal.filter(|ip| is_localhost(*ip)) {
            return self.link.dial(SocketAddr::new(ip, port), request);
        }
        if literal == Some(self.local_ip()) {
            // A pod reaches its own address past its proxy.
            return self.link.end.serve(port, request);
        }
        // The proxy's own requests are not redirected to it.
        let is_other = |capture: &&Capture| !Arc::ptr_eq(&capture.process, &self.process);
        let capture = lock(&self.link.end.ports).capture.as_ref().filter(is_other).cloned();
        if let Some(Capture { proxy, process }) = capture {
            let at = SocketAddr::new(self.local_ip(), port);
            if process.over.is_requested() {
                return DialError::Refused(at.to_string()).into();
            }
            let clock = self.link.wire.0.clock;
            let started = clock.elapsed();
            return process.answers(clock, at, started, proxy.outbound(request));
        }
        let ip = match literal {
            Some(ip) => ip,
            None => match self.link.resolve(request.uri().host().unwrap_or_default()) {
                Ok(ip) => ip,
                Err(error) => return error.into(),
            },
        };
        self.link.dial(SocketAddr::new(ip, port), request)
    }

    fn dial(&self, to: SocketAddr, request: Request) -> Reply {
        self.link.dial(to, request)
    }

    fn clock(&self) -> Clock {
        self.link.wire.0.clock
    }

    fn endings(&self) -> &Endings {
        &self.link.wire.0.endings
    }

    fn listen(&self, port: u16, handler: Arc<dyn Handler>) -> Result<Listening, ListenError> {
        let end = &self.link.end;
        let listeners = &mut lock(&end.ports).listeners;
        if self.process.over.is_requested() || listeners.contains_key(&port) {
            return Err(ListenError { port });
        }
        let listener = Arc::new(Listener {
            handler,
            process: Arc::clone(&self.process),
            clock: end.clock,
            at: SocketAddr::new(end.ip, port),
        });
        listeners.insert(port, Arc::clone(&listener));
        Ok(Listening::new(port, Box::new(ClosePort { end: Arc::clone(end), port, listener })))
    }

    fn capture(&self, proxy: Arc<dyn Proxy>) {
        lock(&self.link.end.ports).capture = Some(Capture { proxy, process: Arc::clone(&self.process) });
    }
}

struct ClosePort {
    end: Arc<PodEnd>,
    port: u16,
    listener: Arc<Listener>,
}

impl Drop for ClosePort {
    fn drop(&mut self) {
        let listeners = &mut lock(&self.end.ports).listeners;
        // The port may be another process's by now.
        if listeners.get(&self.port).is_some_and(|listener| Arc::ptr_eq(listener, &self.listener)) {
            listeners.remove(&self.port);
        }
    }
}

/// Whether an address is the sender's own. Pods on loopback have other parts of 127.0.0.0/8.
fn is_localhost(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [127, 0])
        || ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
}
