//! The server: one request in, one answer out.
//!
//! In process it is a tower service under a kube client ([`ApiServer::client_service`]); a listener hands it the same
//! requests. There is no second code path.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clock::{Clock, Rng, Seed};
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::addresses::Addresses;
use crate::body::Body;
use crate::discovery;
use crate::failure::Failure;
use crate::request::{self, Parameters, Target};
use crate::resource::{self, Resource, Version};
use crate::store::{Place, Store};
use crate::write;

/// How to make a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's name, used in messages only.
    pub name: String,
    /// The run's clock: stamps objects and ends watches.
    pub clock: Clock,
    /// Where uids and generated names come from.
    pub seed: Seed,
    /// The first two octets of Services' cluster IPs: `[10, 96]` gives 10.96.0.0/16.
    pub service_cidr: [u8; 2],
}

/// An admission hook: what a mutating webhook would do.
pub trait Admission: Send + Sync {
    /// Looks at an object that is about to be created, and may change it. `kind` has its group in front: `/Pod`,
    /// `apps/Deployment`. `namespace` is the object's Namespace, if it
    /// has one. Called with the server locked: it must not call the API.
    ///
    /// # Errors
    /// Why the object is refused; the request fails with 403 and this text.
    fn admit(&self, kind: &str, object: &mut Value, namespace: Option<&Value>) -> Result<(), String>;
}

/// Where `pods/log` comes from.
pub trait PodLogs: Send + Sync {
    /// The log of a pod's container so far, or of its only one; `tail` limits the lines.
    ///
    /// # Errors
    /// Why there is none, for a 400.
    fn read(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        tail: Option<usize>,
    ) -> Result<String, String>;
}

/// What a fault does to a request instead of, or before, serving it.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The request fails.
    Fail(Failure),
    /// The request is served later.
    Delay(Duration),
    /// The connection breaks: the client sees an error of the transport.
    Break,
}

/// What a fault can tell requests apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who asks: the name given to [`ApiServer::client_service`].
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'static str,
    /// The plural, e.g. `pods`.
    pub resource: String,
    /// The namespace, if one is named.
    pub namespace: Option<String>,
    /// The object's name, if one is named.
    pub name: Option<String>,
}

/// Injected faults.
pub trait Faults: Send + Sync {
    /// Looks at a request before it is served.
    fn strike(&self, asked: &Asked) -> Option<Fault>;
}

/// One cluster's API server. Cheap to clone; clones share the store.
#[derive(Clone)]
pub struct ApiServer(Arc<Shared>);

struct Shared {
    options: Options,
    state: Mutex<State>,
    admission: Mutex<Option<Arc<dyn Admission>>>,
    pod_logs: Mutex<Option<Arc<dyn PodLogs>>>,
    faults: Mutex<Option<Arc<dyn Faults>>>,
}

/// Everything that a request changes.
pub(crate) struct State {
    pub store: Store,
    pub uids: Rng,
    pub names: Rng,
    pub addresses: Addresses,
}

/// A request as the handlers see it.
pub(crate) struct Call<'a> {
    pub resource: &'a Arc<Resource>,
    pub version: &'a Version,
    pub target: &'a Target,
    pub parameters: &'a Parameters,
    pub body: &'a [u8],
    pub content_type: &'a str,
    pub accept: &'a str,
    pub manager: String,
    /// The request's `apiVersion`.
    pub api_version: String,
}

impl Call<'_> {
    /// The object's name; an error for requests to a whole collection.
    pub(crate) fn name(&self) -> Result<&str, Failure> {
        self.target.name.as_deref().ok_or_else(Failure::method_not_allowed)
    }

    pub(crate) fn place(&self, name: &str) -> Place {
        Place {
            collection: self.resource.qualified().into(),
            key: (self.target.namespace.clone().unwrap_or_default(), name.to_owned()),
        }
    }
}

impl ApiServer {
    /// A server with the Namespaces that every cluster has.
    pub fn new(options: Options) -> Self {
        let mut store = Store::new();
        for resource in resource::built_in().into_values() {
            store.serve(resource);
        }
        let seed = options.seed;
        let state = State {
            store,
            uids: seed.stream("uid"),
            names: seed.stream("generateName"),
            addresses: Addresses::new(options.service_cidr),
        };
        let server = ApiServer(Arc::new(Shared {
            options,
            state: Mutex::new(state),
            admission: Mutex::default(),
            pod_logs: Mutex::default(),
            faults: Mutex::default(),
        }));
        let now = server.0.options.clock.now();
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            write::bootstrap_namespace(&mut server.state(), namespace, now);
        }
        write::bootstrap_kubernetes_service(&mut server.state(), now);
        server
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    /// Sets the admission hook, which sees every object that is created from now on.
    pub fn set_admission(&self, admission: Arc<dyn Admission>) {
        *lock(&self.0.admission) = Some(admission);
    }

    /// Sets where `pods/log` comes from.
    pub fn set_pod_logs(&self, logs: Arc<dyn PodLogs>) {
        *lock(&self.0.pod_logs) = Some(logs);
    }

    /// Sets or ends fault injection.
    pub fn set_faults(&self, faults: Option<Arc<dyn Faults>>) {
        *lock(&self.0.faults) = faults;
    }

    /// Ends all watches, as a restart of the server would; clients connect again.
    pub fn drop_watches(&self) {
        self.state().store.drop_watches();
    }

    /// The server as a tower service for a kube client that acts as `user`.
    pub fn client_service(&self, user: &str) -> ClientService {
        ClientService { server: self.clone(), user: user.into() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Answers one request of `user`.
    pub async fn handle(&self, user: &str, request: Request<Bytes>) -> Result<Response<Body>, Broken> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let text = |name: header::HeaderName| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let parameters = Parameters::parse(head.uri.query());
        let accept = text(header::ACCEPT);
        let Some(target) = request::target(path) else {
            let state = self.state();
            return Ok(
                discovery::answer(&state.store, path).unwrap_or_else(|| failed(&Failure::no_such_path()))
            );
        };
        let asked = Asked {
            user: user.to_owned(),
            verb: verb(&head.method, &target, &parameters),
            resource: target.plural.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
        };
        let fault = lock(&self.0.faults).as_ref().and_then(|faults| faults.strike(&asked));
        match fault {
            Some(Fault::Fail(failure)) => return Ok(failed(&failure)),
            Some(Fault::Break) => return Err(Broken),
            Some(Fault::Delay(delay)) => self.0.options.clock.sleep(delay).await,
            None => {}
        }
        let manager = parameters.get("fieldManager").unwrap_or_else(|| {
            text(header::USER_AGENT).split('/').next().filter(|agent| !agent.is_empty()).unwrap_or(user)
        });
        let answer = self.serve(
            &head.method,
            &target,
            &parameters,
            Incoming {
                body: &body,
                content_type: text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim(),
                accept,
                manager,
            },
        );
        Ok(answer.unwrap_or_else(|failure| failed(&failure)))
    }

    fn serve(
        &self,
        method: &Method,
        target: &Target,
        parameters: &Parameters,
        incoming: Incoming<'_>,
    ) -> Result<Response<Body>, Failure> {
        let clock = self.0.options.clock;
        if method == Method::POST
            && let Some(answer) = crate::review::answer(target, incoming.body)
        {
            return answer.map(|object| answered(StatusCode::CREATED, object.to_string()));
        }
        let mut state = self.state();
        let collection = resource::qualified(&target.plural, &target.group);
        let resource = state
            .store
            .collection(&collection)
            .map(|found| Arc::clone(&found.resource))
            .ok_or_else(Failure::no_such_path)?;
        let version = resource
            .version(&target.version)
            .filter(|version| version.served)
            .ok_or_else(Failure::no_such_path)?;
        if target.namespace.is_some() && !resource.namespaced {
            return Err(Failure::no_such_path());
        }
        let call = Call {
            resource: &resource,
            version,
            target,
            parameters,
            body: incoming.body,
            content_type: incoming.content_type,
            accept: incoming.accept,
            manager: incoming.manager.to_owned(),
            api_version: resource.api_version(&target.version),
        };
        if target.name.is_none() {
            return match *method {
                Method::GET => crate::read::list_or_watch(&mut state, &call, clock),
                Method::POST => write::create(&mut state, &call, clock, self.admission().as_deref()),
                Method::DELETE => write::delete_collection(&mut state, &call, clock),
                _ => Err(Failure::method_not_allowed()),
            };
        }
        match (target.plural.as_str(), target.subresource.as_deref()) {
            ("pods", Some("log")) if *method == Method::GET => {
                let place = call.place(call.name()?);
                if state.store.get(&place).is_none() {
                    return Err(Failure::not_found(&resource, call.name()?));
                }
                drop(state);
                self.pod_log(&call)
            }
            ("pods", Some("binding")) if *method == Method::POST => write::bind(&mut state, &call, clock),
            ("pods", Some("eviction")) if *method == Method::POST => write::evict(&mut state, &call, clock),
            ("serviceaccounts", Some("token")) if *method == Method::POST => {
                write::token(&state, &call, clock)
            }
            ("namespaces", Some("finalize")) if *method == Method::PUT => {
                write::update(&mut state, &call, clock)
            }
            (_, Some("scale")) => crate::scale::serve(&mut state, &call, method, clock),
            (_, Some("status")) if !version.status => Err(Failure::no_such_path()),
            (_, Some(other)) if other != "status" => Err(Failure::no_such_path()),
            (_, subresource) => match *method {
                Method::GET if parameters.is_true("watch") => {
                    crate::read::list_or_watch(&mut state, &call, clock)
                }
                Method::GET => crate::read::get(&state, &call, clock),
                Method::PUT => write::update(&mut state, &call, clock),
                Method::PATCH => write::patch(&mut state, &call, clock, self.admission().as_deref()),
                Method::DELETE if subresource.is_none() => write::delete(&mut state, &call, clock),
                _ => Err(Failure::method_not_allowed()),
            },
        }
    }

    fn admission(&self) -> Option<Arc<dyn Admission>> {
        lock(&self.0.admission).clone()
    }

    fn pod_log(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        let logs = lock(&self.0.pod_logs).clone();
        let namespace = call.target.namespace.as_deref().unwrap_or_default();
        let tail =
            call.parameters.number("tailLines")?.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
        let text = match logs {
            None => String::new(),
            Some(logs) => logs
                .read(namespace, call.name()?, call.parameters.get("container"), tail)
                .map_err(Failure::bad_request)?,
        };
        let mut answer = answered(StatusCode::OK, text);
        answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        Ok(answer)
    }
}

struct Incoming<'a> {
    body: &'a [u8],
    content_type: &'a str,
    accept: &'a str,
    manager: &'a str,
}

fn verb(method: &Method, target: &Target, parameters: &Parameters) -> &'static str {
    match (method.as_str(), &target.name) {
        ("GET", _) if parameters.is_true("watch") => "watch",
        ("GET", Some(_)) => "get",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => "unknown",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held is our own bug; the state behind it is still whole, because objects are
    // replaced and never edited.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An answer with a JSON body.
pub(crate) fn answered(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Body::whole(body));
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

/// The answer to a failed request.
pub(crate) fn failed(failure: &Failure) -> Response<Body> {
    let code = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = answered(code, failure.status().to_string());
    if let Some(after) = failure.retry_after() {
        answer.headers_mut().insert(header::RETRY_AFTER, after.as_secs().into());
    }
    answer
}

/// The Status of a successful deletion.
pub(crate) fn deleted(resource: &Resource, name: &str, uid: &Value) -> Value {
    let mut details = json!({"name": name, "kind": resource.plural, "uid": uid});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// The connection to the server broke ([`Fault::Break`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection reset by peer")]
pub struct Broken;

/// A server as a tower service, made by [`ApiServer::client_service`].
#[derive(Clone)]
pub struct ClientService {
    server: ApiServer,
    user: Arc<str>,
}

impl<B> tower::Service<Request<B>> for ClientService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Debug,
{
    type Response = Response<Body>;
    type Error = Broken;
    type Future = BoxFuture<'static, Result<Response<Body>, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, user) = (self.server.clone(), Arc::clone(&self.user));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
            server.handle(&user, Request::from_parts(head, body)).await
        })
    }
}
