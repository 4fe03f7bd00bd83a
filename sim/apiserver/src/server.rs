//! The server: one request in, one answer out.
//!
//! In process it is a tower service under a kube client ([`ApiServer::client_service`]); a listener hands it the same
//! requests. There is no second code path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clock::{Clock, Rng, Seed};
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tree::{Value, json};

use crate::addresses::Addresses;
use crate::body::Body;
use crate::discovery;
use crate::events;
use crate::failure::Failure;
use crate::metrics::{self, Metrics};
use crate::rbac;
use crate::request::{self, Parameters, Target};
use crate::resource::{self, Resource, Version};
use crate::review;
use crate::store::{Place, Store};
use crate::user::User;
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

/// Which part of a log is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// The container; the pod's only one without.
    pub container: Option<String>,
    /// Whether to go on with what is printed later.
    pub follow: bool,
    /// The id of the container's run whose log is meant, as the pod's status has it; all runs' without.
    pub container_id: Option<String>,
    /// At most that many of the lines so far.
    pub tail: Option<usize>,
    /// Only lines that are younger.
    pub since: Option<Duration>,
    /// Whether each line starts with its time.
    pub timestamps: bool,
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

    /// The same with everything that a client can ask for. Without an own implementation nothing is followed and
    /// times are not told.
    ///
    /// # Errors
    /// Why there is none, for a 400.
    fn stream(&self, namespace: &str, pod: &str, query: &LogQuery) -> Result<Body, String> {
        self.read(namespace, pod, query.container.as_deref(), query.tail).map(Body::whole)
    }
}

/// A request that takes over its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// What for.
    pub purpose: Purpose,
}

/// What a connection is taken over for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run a command in a container (the pod's first without a name).
    Exec {
        /// The container.
        container: Option<String>,
        /// The command and its arguments.
        command: Vec<String>,
    },
    /// To see what a container (the pod's first without a name) prints from now on.
    Attach {
        /// The container.
        container: Option<String>,
    },
    /// To reach the pod's ports, named here by some clients only.
    PortForward {
        /// The ports.
        ports: Vec<u16>,
    },
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
    metrics: Mutex<Option<Arc<dyn Metrics>>>,
    faults: Mutex<Option<Arc<dyn Faults>>>,
    enforces_rbac: AtomicBool,
}

/// Everything that a request changes.
pub(crate) struct State {
    pub store: Store,
    pub uids: Rng,
    pub names: Rng,
    pub addresses: Addresses,
    /// The tokens of ServiceAccounts, and the randomness of the next one.
    pub tokens: BTreeMap<String, User>,
    pub token_source: Rng,
    /// Whether `metadata.managedFields` begin with an object's creation.
    pub tracks_managers: bool,
}

/// A request as the handlers see it.
pub(crate) struct Call<'a> {
    pub resource: &'a Arc<Resource>,
    pub version: &'a Version,
    pub target: &'a Target<'a>,
    pub parameters: &'a Parameters,
    pub body: &'a [u8],
    pub content_type: &'a str,
    pub accept: &'a str,
    pub manager: &'a str,
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
            collection: Arc::clone(&self.resource.qualified),
            key: (self.target.namespace.as_deref().unwrap_or_default().to_owned(), name.to_owned()),
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
            tokens: BTreeMap::new(),
            token_source: seed.stream("tokens"),
            tracks_managers: false,
        };
        let server = ApiServer(Arc::new(Shared {
            options,
            state: Mutex::new(state),
            admission: Mutex::default(),
            pod_logs: Mutex::default(),
            metrics: Mutex::default(),
            faults: Mutex::default(),
            enforces_rbac: AtomicBool::new(false),
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

    /// Sets where `metrics.k8s.io` comes from; the group is served from now on.
    pub fn set_metrics(&self, metrics: Arc<dyn Metrics>) {
        *lock(&self.0.metrics) = Some(metrics);
    }

    /// Enforces role-based access control from now on, with the ClusterRoles and bindings that every cluster has.
    /// Users in the group `system:masters`, as the clients of [`ApiServer::client_service`] are, may do everything.
    pub fn enforce_rbac(&self) {
        if self.0.enforces_rbac.swap(true, Ordering::Relaxed) {
            return;
        }
        let now = self.0.options.clock.now();
        let mut state = self.state();
        for (plural, object) in rbac::defaults() {
            write::bootstrap(&mut state, &format!("{plural}.rbac.authorization.k8s.io"), object, now);
        }
    }

    /// Keeps `metadata.managedFields` from an object's creation on, as a real server does. By default they begin with
    /// the first server-side apply, which gives what is there to `before-first-apply`: most objects of a simulation
    /// are never applied to, and the fields cost more than the objects.
    pub fn track_field_managers(&self) {
        self.state().tracks_managers = true;
    }

    /// Draws the tokens of ServiceAccounts from `seed` from now on. Where strangers can reach the server it must be
    /// truly random: by default tokens follow from the run's seed.
    pub fn set_token_seed(&self, seed: Seed) {
        self.state().token_source = seed.stream("tokens");
    }

    /// The user that a ServiceAccount's token stands for.
    pub fn authenticate(&self, token: &str) -> Option<User> {
        self.state().tokens.get(token).cloned()
    }

    /// Sets or ends fault injection.
    pub fn set_faults(&self, faults: Option<Arc<dyn Faults>>) {
        *lock(&self.0.faults) = faults;
    }

    /// Forgets whatever was set to be asked (admission, logs, metrics, faults): it may hold clients of this server, and then
    /// neither would ever be dropped.
    pub fn detach(&self) {
        let Shared { admission, pod_logs, metrics, faults, .. } = &*self.0;
        let hooks =
            (lock(admission).take(), lock(pod_logs).take(), lock(metrics).take(), lock(faults).take());
        drop(hooks);
    }

    /// Ends all watches, as a restart of the server would; clients connect again.
    pub fn drop_watches(&self) {
        self.state().store.drop_watches();
    }

    /// The server as a tower service for a kube client that acts as `user`.
    pub fn client_service(&self, user: &str) -> ClientService {
        ClientService { server: self.clone(), user: Arc::new(User::administrator(user)) }
    }

    pub(crate) fn service_cidr(&self) -> [u8; 2] {
        self.0.options.service_cidr
    }

    pub(crate) fn seed(&self) -> Seed {
        self.0.options.seed
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Answers one request of `user`, an administrator.
    ///
    /// # Errors
    /// [`Broken`] if a fault breaks the connection.
    pub async fn handle(&self, user: &str, request: Request<Bytes>) -> Result<Response<Body>, Broken> {
        self.handle_as(&User::administrator(user), request).await
    }

    /// Checks a request that wants to take over its connection (`pods/exec`, `attach`, `portforward`); `None` for
    /// other requests. The caller answers it.
    pub fn upgrade(&self, user: &User, head: &http::request::Parts) -> Option<Result<Upgrade, Failure>> {
        let target = request::target(head.uri.path())?;
        let part = target.subresource.as_deref()?;
        if target.plural != "pods" || !matches!(part, "exec" | "attach" | "portforward") {
            return None;
        }
        let parameters = Parameters::parse(head.uri.query());
        let purpose = match part {
            "exec" => Purpose::Exec {
                container: parameters.get("container").map(str::to_owned),
                command: parameters.all("command").map(str::to_owned).collect(),
            },
            "attach" => Purpose::Attach { container: parameters.get("container").map(str::to_owned) },
            _ => Purpose::PortForward {
                ports: parameters
                    .all("ports")
                    .flat_map(|ports| ports.split(','))
                    .filter_map(|port| port.parse().ok())
                    .collect(),
            },
        };
        let checked = || {
            let state = self.state();
            self.authorize(&state, user, "create", Some(&target), "")?;
            let pods = state.store.collection("pods").ok_or_else(Failure::no_such_path)?;
            let text = |part: &Option<Cow<'_, str>>| part.as_deref().unwrap_or_default().to_owned();
            let key = (text(&target.namespace), text(&target.name));
            if !pods.objects.contains_key(&key) {
                return Err(Failure::not_found(&pods.resource, &key.1));
            }
            Ok(Upgrade { namespace: key.0, pod: key.1, purpose })
        };
        Some(checked())
    }

    /// The user that `user` acts as, by the `Impersonate-User` and `Impersonate-Group` headers.
    ///
    /// # Errors
    /// 403 if `user` may not.
    pub fn impersonate(&self, user: &User, wanted: User) -> Result<User, Failure> {
        if self.0.enforces_rbac.load(Ordering::Relaxed) {
            let state = self.state();
            let groups = wanted.groups.iter().filter(|group| *group != crate::user::AUTHENTICATED);
            let subjects =
                std::iter::once(("users", &wanted.name)).chain(groups.map(|group| ("groups", group)));
            for (resource, name) in subjects {
                let attributes =
                    rbac::Attributes { verb: "impersonate", resource, name, ..rbac::Attributes::default() };
                if rbac::allows(&state.store, user, &attributes).is_none() {
                    return Err(Failure::unauthorized_for(&attributes, user));
                }
            }
        }
        Ok(wanted)
    }

    fn authorize(
        &self,
        state: &State,
        user: &User,
        verb: &str,
        target: Option<&Target<'_>>,
        path: &str,
    ) -> Result<(), Failure> {
        if !self.0.enforces_rbac.load(Ordering::Relaxed) {
            return Ok(());
        }
        let wanted = match target {
            Some(target) => rbac::Attributes {
                verb,
                group: &target.group,
                resource: &target.plural,
                subresource: target.subresource.as_deref().unwrap_or_default(),
                // A Namespace is in itself, for the purpose of its own roles.
                namespace: match (&*target.plural, &target.name) {
                    ("namespaces", Some(name)) => name,
                    _ => target.namespace.as_deref().unwrap_or_default(),
                },
                name: target.name.as_deref().unwrap_or_default(),
                path: "",
            },
            None => rbac::Attributes { verb, path, ..rbac::Attributes::default() },
        };
        match rbac::allows(&state.store, user, &wanted) {
            Some(_) => Ok(()),
            None => Err(Failure::unauthorized_for(&wanted, user)),
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// [`Broken`] if a fault breaks the connection.
    pub async fn handle_as(&self, user: &User, request: Request<Bytes>) -> Result<Response<Body>, Broken> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let text = |name: header::HeaderName| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let parameters = Parameters::parse(head.uri.query());
        let accept = text(header::ACCEPT);
        let Some(target) = request::target(path) else {
            let metrics = lock(&self.0.metrics).is_some();
            let state = self.state();
            let verb = head.method.as_str().to_ascii_lowercase();
            if let Err(failure) = self.authorize(&state, user, &verb, None, path) {
                return Ok(failed(&failure));
            }
            return Ok(discovery::answer(&state.store, path, accept, metrics)
                .unwrap_or_else(|| failed(&Failure::no_such_path())));
        };
        let verb = verb(&head.method, &target, &parameters);
        let fault = lock(&self.0.faults).as_ref().and_then(|faults| {
            faults.strike(&Asked {
                user: user.name.clone(),
                verb,
                resource: target.plural.to_string(),
                namespace: target.namespace.as_deref().map(str::to_owned),
                name: target.name.as_deref().map(str::to_owned),
            })
        });
        match fault {
            Some(Fault::Fail(failure)) => return Ok(failed(&failure)),
            Some(Fault::Break) => return Err(Broken),
            Some(Fault::Delay(delay)) => self.0.options.clock.sleep(delay).await,
            None => {}
        }
        let manager = parameters.get("fieldManager").unwrap_or_else(|| {
            text(header::USER_AGENT).split('/').next().filter(|agent| !agent.is_empty()).unwrap_or(&user.name)
        });
        let answer = self.serve(
            &head.method,
            &target,
            &parameters,
            Incoming {
                user,
                verb,
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
        target: &Target<'_>,
        parameters: &Parameters,
        incoming: Incoming<'_>,
    ) -> Result<Response<Body>, Failure> {
        let clock = self.0.options.clock;
        let mut state = self.state();
        self.authorize(&state, incoming.user, incoming.verb, Some(target), "")?;
        if review::is_review(target) {
            if method != Method::POST {
                return Err(Failure::method_not_allowed());
            }
            let enforced = self.0.enforces_rbac.load(Ordering::Relaxed);
            let asked = crate::body::parse(incoming.content_type, incoming.body)?;
            let answer = review::answer(&state, enforced, incoming.user, target, asked)?;
            return Ok(answered(StatusCode::CREATED, answer.to_string()));
        }
        if target.group == metrics::GROUP
            && let Some(measured) = lock(&self.0.metrics).clone()
        {
            if method != Method::GET {
                return Err(Failure::method_not_allowed());
            }
            let answer = metrics::answer(&state.store, &*measured, target, parameters, clock.now())?;
            return Ok(answered(StatusCode::OK, answer.to_string()));
        }
        let target = &*events::in_core(target);
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
            manager: incoming.manager,
            api_version: resource.api_version(&target.version),
        };
        if target.name.is_none() {
            return match *method {
                Method::GET if parameters.is_true("watch") => crate::read::watch(&mut state, &call, clock),
                Method::GET => {
                    let listing = crate::read::list(&state, &call, clock)?;
                    // A long list is written without holding up other requests.
                    drop(state);
                    Ok(listing.answer())
                }
                Method::POST => write::create(&mut state, &call, clock, self.admission().as_deref()),
                Method::DELETE => write::delete_collection(&mut state, &call, clock),
                _ => Err(Failure::method_not_allowed()),
            };
        }
        match (&*target.plural, target.subresource.as_deref()) {
            ("pods", Some("log")) if *method == Method::GET => {
                let place = call.place(call.name()?);
                let Some(pod) = state.store.get(&place).cloned() else {
                    return Err(Failure::not_found(&resource, call.name()?));
                };
                drop(state);
                self.pod_log(&call, &pod.value)
            }
            ("pods", Some("binding")) if *method == Method::POST => write::bind(&mut state, &call, clock),
            ("pods", Some("eviction")) if *method == Method::POST => write::evict(&mut state, &call, clock),
            ("serviceaccounts", Some("token")) if *method == Method::POST => {
                write::token(&mut state, &call, clock)
            }
            ("namespaces", Some("finalize")) if *method == Method::PUT => {
                write::update(&mut state, &call, clock)
            }
            ("pods", Some("exec" | "attach" | "portforward")) => {
                Err(Failure::bad_request("Upgrade request required"))
            }
            (_, Some("scale")) => crate::scale::serve(&mut state, &call, method, clock),
            (_, Some("status")) if !version.status => Err(Failure::no_such_path()),
            (_, Some(other)) if other != "status" => Err(Failure::no_such_path()),
            (_, subresource) => match *method {
                Method::GET if parameters.is_true("watch") => crate::read::watch(&mut state, &call, clock),
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

    fn pod_log(&self, call: &Call<'_>, pod: &Value) -> Result<Response<Body>, Failure> {
        let logs = lock(&self.0.pod_logs).clone();
        let namespace = call.target.namespace.as_deref().unwrap_or_default();
        let parameters = call.parameters;
        let container = parameters.get("container");
        let query = LogQuery {
            container: container.map(str::to_owned),
            follow: parameters.is_true("follow"),
            container_id: run_of(pod, container, parameters.is_true("previous"))
                .map_err(Failure::bad_request)?,
            tail: parameters.number("tailLines")?.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            since: parameters.number("sinceSeconds")?.map(Duration::from_secs),
            timestamps: parameters.is_true("timestamps"),
        };
        let body = match logs {
            None => Body::whole(""),
            Some(logs) => logs.stream(namespace, call.name()?, &query).map_err(Failure::bad_request)?,
        };
        let mut answer = Response::new(body);
        answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        Ok(answer)
    }
}

/// The id of the run whose log is meant: the container's current or newest one, or with `previous` the one before it.
/// `None` if the pod's status says nothing.
fn run_of(pod: &Value, container: Option<&str>, previous: bool) -> Result<Option<String>, String> {
    let status = &pod["status"];
    let statuses = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut statuses = statuses.iter().filter_map(|list| status[*list].as_array()).flatten();
    let found = match container {
        Some(name) => statuses.find(|status| status["name"] == name),
        None => statuses.next(),
    };
    let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
    let id = |state: &Value| state["containerID"].as_str().map(str::to_owned);
    let last = found.map(|found| &found["lastState"]["terminated"]).filter(|last| last.is_object());
    if previous {
        let name = found.and_then(|found| found["name"].as_str()).or(container).unwrap_or_default();
        let none = || format!("previous terminated container {name:?} in pod {pod:?} not found");
        return last.and_then(id).map(Some).ok_or_else(none);
    }
    let Some(found) = found else { return Ok(None) };
    match (&found["state"]["waiting"], last) {
        (Value::Null, _) => Ok(id(found)),
        (_, Some(last)) => Ok(id(last)),
        (waiting, None) => {
            let (name, reason) = (&found["name"], waiting["reason"].as_str().unwrap_or_default());
            Err(format!("container {name} in pod {pod:?} is waiting to start: {reason}"))
        }
    }
}

struct Incoming<'a> {
    user: &'a User,
    verb: &'static str,
    body: &'a [u8],
    content_type: &'a str,
    accept: &'a str,
    manager: &'a str,
}

fn verb(method: &Method, target: &Target<'_>, parameters: &Parameters) -> &'static str {
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
    user: Arc<User>,
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
            server.handle_as(&user, Request::from_parts(head, body)).await
        })
    }
}
