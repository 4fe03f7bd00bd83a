//! A pod's end of the network: who listens on its ports, and the proxy that its traffic goes through.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::Clock;
use program::{DialError, Endings, Handler, Proxy, Reply, Request, Response, Termination};

use super::lock;

/// A pod's end of the network.
pub(crate) struct PodEnd {
    pub cluster: Arc<str>,
    pub ip: IpAddr,
    pub clock: Clock,
    pub(super) ports: Mutex<Ports>,
}

/// Who takes the requests to a pod, and those that it sends.
#[derive(Default)]
pub(super) struct Ports {
    pub listeners: BTreeMap<u16, Arc<Listener>>,
    pub capture: Option<Capture>,
}

impl PodEnd {
    /// What listens on a port, past the pod's proxy.
    pub(crate) fn listener(&self, port: u16) -> Option<Arc<dyn Handler>> {
        let listener = lock(&self.ports).listeners.get(&port).cloned();
        listener.map(|listener| -> Arc<dyn Handler> { listener })
    }

    /// Hands a request to what listens on a port, past the pod's proxy.
    pub(crate) fn serve(&self, port: u16, request: Request) -> Reply {
        match self.listener(port) {
            Some(listener) => listener.handle(request),
            None => self.refused(port).into(),
        }
    }

    /// Delivers a request from the network.
    pub(super) fn deliver(&self, port: u16, request: Request) -> Reply {
        let (listener, capture) = {
            let ports = lock(&self.ports);
            (ports.listeners.get(&port).cloned(), ports.capture.clone())
        };
        // Without a listener there is nothing that a proxy could pass the request to.
        let Some(listener) = listener else { return self.refused(port).into() };
        let Some(Capture { proxy, process }) = capture else { return listener.handle(request) };
        if process.over.is_requested() {
            return self.refused(port).into();
        }
        let started = self.clock.elapsed();
        let reply = proxy.inbound(request, port, listener);
        process.answers(self.clock, SocketAddr::new(self.ip, port), started, reply)
    }

    fn refused(&self, port: u16) -> DialError {
        DialError::Refused(SocketAddr::new(self.ip, port).to_string())
    }
}

/// A process of a pod, as the network sees it: with it end its listeners, its proxying and the requests that it has not
/// answered.
#[derive(Default)]
pub(super) struct Process {
    pub over: Termination,
}

impl Process {
    /// It ends: requests that it has not answered fail.
    pub(super) fn end(&self, endings: &Endings) {
        self.over.request();
        endings.announce();
    }

    /// An answer that this process gives at an address; it may end first.
    pub(super) fn answers(
        self: &Arc<Self>,
        clock: Clock,
        at: SocketAddr,
        started: Duration,
        reply: Reply,
    ) -> Reply {
        match reply {
            Reply::Now(result) => Reply::Now(result.map(|result| self.sends(&clock, at, started, result))),
            Reply::Later(answer) => {
                let process = Arc::clone(self);
                Reply::later(async move {
                    let result = tokio::select! { biased;
                        answer = answer => answer,
                        () = process.over.requested() => Err(DialError::Reset(at.to_string())),
                    };
                    process.sends(&clock, at, started, result)
                })
            }
        }
    }

    /// A handler that says nothing of its latency took the time that has passed.
    fn sends(
        &self,
        clock: &Clock,
        at: SocketAddr,
        started: Duration,
        result: Result<Response, DialError>,
    ) -> Result<Response, DialError> {
        let mut response = result?;
        response.pass(clock, started, Duration::ZERO);
        response.guard(&self.over, at);
        Ok(response)
    }
}

/// A port that a process listens on. As a handler it is the process behind the port, with its death.
pub(super) struct Listener {
    pub handler: Arc<dyn Handler>,
    pub process: Arc<Process>,
    pub clock: Clock,
    pub at: SocketAddr,
}

impl Handler for Listener {
    fn handle(self: Arc<Self>, request: Request) -> Reply {
        let started = self.clock.elapsed();
        let reply = Arc::clone(&self.handler).handle(request);
        self.process.answers(self.clock, self.at, started, reply)
    }
}

/// The proxy that a pod's traffic goes through, and the process that it is part of.
#[derive(Clone)]
pub(super) struct Capture {
    pub proxy: Arc<dyn Proxy>,
    pub process: Arc<Process>,
}
