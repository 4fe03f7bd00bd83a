//! Reading: get, list, watch.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use clock::Clock;
use http::{Response, StatusCode, header};
use tree::{Value, json};

use crate::body::Body;
use crate::events;
use crate::failure::Failure;
use crate::selector::{FieldSelector, LabelSelector};
use crate::server::{Call, State, answered};
use crate::store::{Collection, Key, Stored};
use crate::view::{Form, Include, View};
use crate::watch::{Selection, Watch};

pub(crate) fn get(state: &State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let name = call.name()?;
    let stored = state.store.get(&call.place(name)).ok_or_else(|| Failure::not_found(call.resource, name))?;
    let view = view(call, clock)?;
    Ok(answered(StatusCode::OK, view.one(stored)))
}

/// The form that the Accept header asks for.
pub(crate) fn view(call: &Call<'_>, clock: Clock) -> Result<View, Failure> {
    let mut form = None;
    for accepted in call.accept.split(',').filter(|accepted| !accepted.trim().is_empty()) {
        let mut parts = accepted.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let kind = parts.find_map(|part| part.strip_prefix("as="));
        let include = match call.parameters.get("includeObject") {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        };
        form = match (media, kind) {
            ("application/json", Some("Table")) => Some(Form::Table { include }),
            ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                Some(Form::Partial)
            }
            ("application/json" | "application/*" | "*/*", None) => Some(Form::Object),
            _ => None,
        };
        if form.is_some() {
            break;
        }
    }
    if form.is_none() && !call.accept.trim().is_empty() {
        return Err(Failure::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json",
        ));
    }
    let form = form.unwrap_or(Form::Object);
    Ok(View::new(Arc::clone(call.resource), &call.target.version, form, clock))
}

pub(crate) fn selection(call: &Call<'_>) -> Result<Selection, Failure> {
    let parameter = |name| call.parameters.get(name);
    let labels = match parameter("labelSelector") {
        Some(text) => LabelSelector::parse(text)
            .map_err(|error| Failure::bad_request(format!("unable to parse requirement: {error}")))?,
        None => LabelSelector::everything(),
    };
    let mut fields = match parameter("fieldSelector") {
        Some(text) => FieldSelector::parse(text).map_err(Failure::bad_request)?,
        None => FieldSelector::default(),
    };
    if call.version.name == events::VERSION {
        fields = fields.renamed(events::core_field);
    }
    for term in fields.terms() {
        if !is_selectable(call, &term.field) {
            return Err(Failure::bad_request(format!(
                "Unable to find {:?} that match label selector {:?}, field selector {:?}: field label not supported: {}",
                call.resource.qualified,
                parameter("labelSelector").unwrap_or_default(),
                parameter("fieldSelector").unwrap_or_default(),
                term.field,
            )));
        }
    }
    if let Some(name) = &call.target.name {
        fields = FieldSelector::parse(&format!("metadata.name={name}")).map_err(Failure::bad_request)?;
    }
    Ok(Selection { labels, fields })
}

fn is_selectable(call: &Call<'_>, field: &str) -> bool {
    if matches!(field, "metadata.name" | "metadata.namespace") {
        return true;
    }
    match call.resource.group_kind().as_str() {
        "/Pod" => matches!(
            field,
            "spec.nodeName"
                | "spec.restartPolicy"
                | "spec.schedulerName"
                | "spec.serviceAccountName"
                | "spec.hostNetwork"
                | "status.phase"
                | "status.podIP"
                | "status.nominatedNodeName"
        ),
        "/Event" => {
            field.starts_with("involvedObject.")
                || matches!(field, "reason" | "type" | "reportingComponent" | "source")
        }
        "/Secret" => field == "type",
        "/Namespace" => field == "status.phase",
        "/Node" => field == "spec.unschedulable",
        "apps/ReplicaSet" | "/ReplicationController" => field == "status.replicas",
        "batch/Job" => field == "status.successful",
        _ => false,
    }
}

/// The objects of a collection in a scope, in order: all of a namespace or of the cluster, after a key.
fn scope<'a>(
    collection: &'a Collection,
    namespace: Option<&str>,
    after: Option<&Key>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Stored>)> {
    let start = match (after, namespace) {
        (Some(key), _) => Bound::Excluded(key.clone()),
        (None, Some(namespace)) => Bound::Included((namespace.to_owned(), String::new())),
        (None, None) => Bound::Unbounded,
    };
    let namespace = namespace.map(str::to_owned);
    collection
        .objects
        .range((start, Bound::Unbounded))
        .take_while(move |(key, _)| namespace.as_ref().is_none_or(|namespace| key.0 == *namespace))
}

/// The objects of a list that are shown at once, and how many are left.
struct Page<'a> {
    selection: &'a Selection,
    limit: usize,
    found: Vec<(&'a Key, &'a Arc<Stored>)>,
    rest: usize,
}

impl<'a> Page<'a> {
    fn take(&mut self, key: &'a Key, stored: &'a Arc<Stored>) {
        if !self.selection.matches(stored) {
        } else if self.found.len() < self.limit {
            self.found.push((key, stored));
        } else {
            self.rest += 1;
        }
    }
}

/// A list, before it is written.
pub(crate) struct Listing {
    view: View,
    objects: Vec<Arc<Stored>>,
    metadata: Value,
}

impl Listing {
    pub(crate) fn answer(&self) -> Response<Body> {
        answered(StatusCode::OK, self.view.list(&self.objects, &self.metadata))
    }
}

pub(crate) fn list(state: &State, call: &Call<'_>, clock: Clock) -> Result<Listing, Failure> {
    let parameters = call.parameters;
    let forbidden = |field: &str, why: &str| {
        Failure::new(422, "Invalid", format!("{field}: Forbidden: {field} is forbidden {why}"))
    };
    let matching = parameters.get("resourceVersionMatch");
    if matching.is_some() && parameters.get("resourceVersion").is_none() {
        return Err(forbidden("resourceVersionMatch", "unless resourceVersion is provided"));
    }
    if matching.is_some() && parameters.get("continue").is_some() {
        return Err(forbidden("resourceVersionMatch", "when continue is provided"));
    }
    if parameters.get("sendInitialEvents").is_some() {
        return Err(forbidden("sendInitialEvents", "for list"));
    }
    let current = state.store.version;
    check_not_future(call, current)?;
    let wanted = parameters.number("resourceVersion")?.filter(|version| *version > 0);
    let (selection, view) = (selection(call)?, view(call, clock)?);
    let Some(collection) = state.store.collection(&call.resource.qualified) else {
        return Err(Failure::no_such_path());
    };
    let continued = parameters.get("continue").map(continued).transpose()?;
    let version = match &continued {
        Some((started, _)) => *started,
        None if matching == Some("Exact") => wanted.unwrap_or(current),
        None => current,
    };
    let after = continued.as_ref().map(|(_, key)| key);
    let namespace = call.target.namespace.as_deref();
    let limit = parameters.number("limit")?.filter(|limit| *limit > 0);
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    // All pages of a list, and an exact one, show the state of one version.
    let past = if version == current { BTreeMap::new() } else { collection.changed_since(version)? };
    let then = |(key, stored)| match past.get(key) {
        Some(before) => before.as_ref().map(|before| (key, before)),
        None => Some((key, stored)),
    };
    let gone: BTreeMap<&Key, &Arc<Stored>> = past
        .iter()
        .filter(|(key, _)| {
            !collection.objects.contains_key(*key)
                && namespace.is_none_or(|namespace| key.0 == namespace)
                && after.is_none_or(|after| *key > after)
        })
        .filter_map(|(key, before)| Some((key, before.as_ref()?)))
        .collect();
    let mut page = Page { selection: &selection, limit, found: Vec::new(), rest: 0 };
    let mut gone = gone.into_iter().peekable();
    for entry in scope(collection, namespace, after) {
        while let Some((key, stored)) = gone.next_if(|(key, _)| *key < entry.0) {
            page.take(key, stored);
        }
        if let Some((key, stored)) = then(entry) {
            page.take(key, stored);
        }
    }
    for (key, stored) in gone {
        page.take(key, stored);
    }
    let Page { found, rest, .. } = page;
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if rest > 0
        && let Some((key, _)) = found.last()
    {
        metadata["continue"] = json!(continue_token(version, key));
        if selection.labels.is_everything() && selection.fields.is_everything() {
            metadata["remainingItemCount"] = json!(rest);
        }
    }
    Ok(Listing { view, objects: found.into_iter().map(|(_, stored)| Arc::clone(stored)).collect(), metadata })
}

fn continue_token(version: u64, key: &Key) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": [key.0, key.1]});
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.to_string())
}

fn continued(token: &str) -> Result<(u64, Key), Failure> {
    let parse = || {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok()?;
        let token: Value = serde_json::from_slice(&bytes).ok()?;
        let text = |index: usize| token["start"][index].as_str().map(str::to_owned);
        Some((token["rv"].as_u64()?, (text(0)?, text(1)?)))
    };
    parse().ok_or_else(|| Failure::bad_request("continue key is not valid: illegal base64 data or JSON"))
}

fn check_not_future(call: &Call<'_>, current: u64) -> Result<(), Failure> {
    match call.parameters.number("resourceVersion")? {
        Some(wanted) if wanted > current => {
            let mut failure = Failure::new(
                504,
                "Timeout",
                format!("Timeout: Too large resource version: {wanted}, current: {current}"),
            );
            failure.details = json!({
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            });
            Err(failure)
        }
        _ => Ok(()),
    }
}

pub(crate) fn watch(state: &mut State, call: &Call<'_>, clock: Clock) -> Result<Response<Body>, Failure> {
    let parameters = call.parameters;
    let streams_initial = parameters.is_true("sendInitialEvents");
    if streams_initial && parameters.get("resourceVersionMatch") != Some("NotOlderThan") {
        return Err(Failure::new(
            422,
            "Invalid",
            "sendInitialEvents: Forbidden: resourceVersionMatch must be set to NotOlderThan when sendInitialEvents is set",
        ));
    }
    let selection = selection(call)?;
    let view = view(call, clock)?;
    let from = parameters.number("resourceVersion")?.filter(|version| *version > 0);
    let current = state.store.version;
    let announces = streams_initial || (from.is_none() && parameters.get("sendInitialEvents").is_none());
    let collection = &call.resource.qualified;
    let initial = match state.store.collection(collection).filter(|_| announces) {
        Some(found) => scope(found, call.target.namespace.as_deref(), None)
            .filter(|(_, stored)| selection.matches(stored))
            .map(|(_, stored)| Arc::clone(stored))
            .collect(),
        None => Vec::new(),
    };
    let after = if announces { None } else { from };
    let (missed, events) = match state.store.watch(collection, call.target.namespace.as_deref(), after) {
        Ok(found) => found,
        // A watch that comes too late is told so within the stream: clients ignore its HTTP status.
        Err(failure) => {
            let line = format!("{}\n", json!({"type": "ERROR", "object": failure.status()}));
            return Ok(streamed(Body::whole(line)));
        }
    };
    let timeout = parameters.number("timeoutSeconds")?.map(Duration::from_secs);
    let watch = Watch {
        clock,
        view,
        selection,
        initial,
        version: current,
        marks_initial_end: streams_initial,
        missed,
        events,
        bookmarks: parameters.is_true("allowWatchBookmarks"),
        timeout,
    };
    Ok(streamed(Body::Stream(watch.stream())))
}

fn streamed(body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}
