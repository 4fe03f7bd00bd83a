//! A request that arrives at the pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use program::{DialError, Handler, Lost, Reply, Request, Response, Stage};

use super::{CPU, Envoy, HOP, Measured, PeerProxy, authority, local, refusal};
use crate::config::{Config, Named};
use crate::telemetry::{Reporter, Series};
use crate::workload::Workload;

/// The port at which a request arrived last, and the service that it is of in a snapshot, if it is of one.
pub(super) struct Arrived {
    version: u64,
    port: u16,
    service: Option<Arc<Named>>,
}

impl Envoy {
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
    pub(super) fn arrive(self: &Arc<Self>, request: Request, port: u16, app: Arc<dyn Handler>) -> Reply {
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

/// The service that a client without a proxy means.
fn asked_service<'a>(config: &'a Config, request: &Request, namespace: &str) -> Option<&'a Arc<Named>> {
    let host = authority(request).or_else(|| request.uri().host())?;
    config.service(host, namespace).map(|service| &service.named)
}
