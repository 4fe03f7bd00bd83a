//! Listing and watching objects of any kind as JSON: one loop for all kinds, so that the code that follows a watch is
//! compiled once. What a kind's own code does is to read the object at the end ([`Object::typed`]).
//!
//! kube's own watcher pauses for a random time after errors; this one pauses for a fixed second.
//!
//! A change reaches every cache of its kind at about the same time, as the same text. So the last few objects are kept
//! with the text that they were read from: the first cache reads it, the others share its object.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// The pause before the list or the watch is tried again after an error.
const RETRY: Duration = Duration::from_secs(1);

/// How many objects a page of a list has.
const PAGE: u32 = 500;

/// How many objects are kept with their text.
const KEPT: usize = 64;

/// Which objects of a kind are watched; all of them by default.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    labels: Option<String>,
    fields: Option<String>,
}

impl Selection {
    /// Those that a label selector selects.
    pub fn labels(selector: impl Into<String>) -> Self {
        Selection { labels: Some(selector.into()), fields: None }
    }

    /// Those that a field selector selects, e.g. `metadata.name=podinfo`.
    pub fn fields(selector: impl Into<String>) -> Self {
        Selection { labels: None, fields: Some(selector.into()) }
    }
}

/// What a watch sees.
#[derive(Debug)]
pub enum Seen<'a> {
    /// All objects, at first and whenever the watch has lost its place.
    Listed(Vec<Object<'a>>),
    /// An object is new or has changed.
    Applied(Object<'a>),
    /// An object is gone; its last state.
    Deleted(Object<'a>),
    /// The API server refused or broke off. It is tried again after a second.
    Failed(String),
}

/// An object as it came.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a>(&'a str);

/// An object's kind, the text that it was read from, and the object.
type Kept = (TypeId, Box<str>, Arc<dyn Any + Send + Sync>);

thread_local! {
    /// The objects read last, the newest in front.
    static READ: RefCell<VecDeque<Kept>> = const { RefCell::new(VecDeque::new()) };
}

impl Object<'_> {
    /// The object as its kind; nothing if it is none, which an API server that checks its objects does not send.
    pub fn typed<K: DeserializeOwned + Any + Send + Sync>(self) -> Option<Arc<K>> {
        let kind = TypeId::of::<K>();
        let known = READ.with_borrow(|read| {
            let same = |(of, text, _): &&Kept| *of == kind && **text == *self.0;
            read.iter().find(same).map(|(_, _, object)| Arc::clone(object))
        });
        if let Some(object) = known.and_then(|object| object.downcast().ok()) {
            return Some(object);
        }
        let object: Arc<K> = Arc::new(serde_json::from_str(self.0).ok()?);
        READ.with_borrow_mut(|read| {
            read.truncate(KEPT - 1);
            read.push_front((kind, self.0.into(), object.clone()));
        });
        Some(object)
    }

    /// The object as JSON.
    pub fn json(self) -> Value {
        serde_json::from_str(self.0).unwrap_or_default()
    }

    fn version(self) -> Option<String> {
        Some(serde_json::from_str::<Head>(self.0).ok()?.metadata.resource_version)
    }
}

/// What the watch itself reads of an object or a list.
#[derive(Deserialize)]
struct Head {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    more: String,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Why a list or a watch ended.
enum Ended {
    /// The receiver has seen enough.
    Enough,
    Failed(String),
    /// The server no longer has the changes since that version.
    Expired(String),
}

/// Lists the objects below `path` (e.g. `/api/v1/pods`), then follows their changes for as long as `take` goes on.
pub async fn list_and_watch(
    clock: Clock,
    client: Client,
    path: &str,
    selection: Selection,
    mut take: Box<dyn FnMut(Seen<'_>) -> ControlFlow<()> + Send + '_>,
) {
    let watch = Watch { client, request: kube::core::Request::new(path), selection };
    let mut version = None;
    loop {
        let ended = match &mut version {
            None => watch.list(&mut take).await.map(|listed| version = Some(listed)),
            Some(version) => watch.follow(version, &mut take).await,
        };
        let problem = match ended {
            Ok(()) => continue,
            Err(Ended::Enough) => return,
            Err(Ended::Failed(problem)) => problem,
            Err(Ended::Expired(problem)) => {
                version = None;
                problem
            }
        };
        if take(Seen::Failed(problem)).is_break() {
            return;
        }
        clock.sleep(RETRY).await;
    }
}

struct Watch {
    client: Client,
    request: kube::core::Request,
    selection: Selection,
}

type Take<'a> = dyn FnMut(Seen<'_>) -> ControlFlow<()> + Send + 'a;

impl Watch {
    /// Gives the list's version.
    async fn list(&self, take: &mut Take<'_>) -> Result<String, Ended> {
        let mut pages = Vec::new();
        let mut params = ListParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let version = loop {
            let request = self.request.list(&params).map_err(failed)?;
            let text = self.client.request_text(request).await.map_err(failed)?;
            let Head { metadata } = serde_json::from_str(&text).map_err(failed)?;
            pages.push(text);
            if metadata.more.is_empty() {
                break metadata.resource_version;
            }
            params.continue_token = Some(metadata.more);
        };
        let mut objects = Vec::new();
        for page in &pages {
            let page: Page<'_> = serde_json::from_str(page).map_err(failed)?;
            objects.extend(page.items.into_iter().map(|item| Object(item.get())));
        }
        match take(Seen::Listed(objects)) {
            ControlFlow::Continue(()) => Ok(version),
            ControlFlow::Break(()) => Err(Ended::Enough),
        }
    }

    /// Follows one watch to its end, and keeps `version` at the last change.
    async fn follow(&self, version: &mut String, take: &mut Take<'_>) -> Result<(), Ended> {
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            ..WatchParams::default()
        };
        let request = self.request.watch(&params, version).map_err(failed)?;
        let response = self.client.send(request.map(Body::from)).await.map_err(failed)?;
        let refused = !response.status().is_success();
        let mut body = response.into_body();
        if refused {
            let text = body.collect().await.map_err(failed)?.to_bytes();
            return Err(status(&String::from_utf8_lossy(&text)));
        }
        // The last object, whose version is where the next watch begins.
        let mut last = String::new();
        let ended = self.read(&mut body, &mut last, take).await;
        if let Some(newer) = Object(&last).version() {
            *version = newer;
        }
        ended
    }

    async fn read(&self, body: &mut Body, last: &mut String, take: &mut Take<'_>) -> Result<(), Ended> {
        let mut buffer: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            // A server that breaks off is asked again from where it was.
            let Ok(frame) = frame else { return Ok(()) };
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else { continue };
            let lines = std::str::from_utf8(&buffer[..end]).map_err(failed)?;
            for line in lines.lines() {
                take_line(line, last, take)?;
            }
            buffer.drain(..=end);
        }
        Ok(())
    }
}

fn take_line(line: &str, last: &mut String, take: &mut Take<'_>) -> Result<(), Ended> {
    let Line { kind, object } = serde_json::from_str(line).map_err(failed)?;
    let object = Object(object.get());
    if kind == "ERROR" {
        return Err(status(object.0));
    }
    last.clear();
    last.push_str(object.0);
    let seen = match kind {
        "ADDED" | "MODIFIED" => Seen::Applied(object),
        "DELETED" => Seen::Deleted(object),
        _ => return Ok(()),
    };
    match take(seen) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Ended::Enough),
    }
}

fn failed(error: impl std::fmt::Display) -> Ended {
    Ended::Failed(error.to_string())
}

/// What a Status that came in place of an answer says.
fn status(text: &str) -> Ended {
    #[derive(Deserialize)]
    struct Status {
        code: u16,
        message: String,
    }
    match serde_json::from_str(text) {
        Ok(Status { code: 410, message }) => Ended::Expired(message),
        Ok(Status { message, .. }) => Ended::Failed(message),
        Err(_) => Ended::Failed(text.trim().to_owned()),
    }
}
