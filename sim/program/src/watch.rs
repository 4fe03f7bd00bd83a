//! Listing and watching objects of any kind as JSON: one loop for all kinds, so that the code that follows a watch is
//! compiled once. What a kind's own code does is to read the object at the end ([`Object::typed`]).
//!
//! kube's own watcher pauses for a random time after errors; this one pauses for a fixed second.
//!
//! A change reaches every cache of its kind as the same text: the first cache reads it, the others share its object.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use clock::Clock;
use http_body_util::BodyExt as _;
use kinds::Kind;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::decoded::decoded;
use crate::objects::answer;

/// The pause before the list or the watch is tried again after an error.
const RETRY: Duration = Duration::from_secs(1);

/// How many objects a page of a list has.
const PAGE: u32 = 500;

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
pub enum Seen {
    /// All objects, at first and whenever the watch has lost its place.
    Listed(Vec<Object>),
    /// An object is new or has changed.
    Applied(Object),
    /// An object is gone; its last state.
    Deleted(Object),
    /// The API server refused or broke off. It is tried again after a second.
    Failed(String),
}

/// An object as it came.
#[derive(Clone, Debug)]
pub struct Object(Bytes);

impl Object {
    /// The object as its kind; nothing if it is none, which an API server that checks its objects does not send.
    pub fn typed<K: Kind>(&self) -> Option<Arc<K>> {
        decoded(&self.0).ok()
    }

    /// The object as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.0).unwrap_or_default()
    }

    fn version(&self) -> Option<String> {
        Some(serde_json::from_slice::<Head>(&self.0).ok()?.metadata.resource_version)
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
    mut take: Box<dyn FnMut(Seen) -> ControlFlow<()> + Send + '_>,
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

type Take<'a> = dyn FnMut(Seen) -> ControlFlow<()> + Send + 'a;

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
            let text = answer(&self.client, self.request.list(&params)).await.map_err(failed)?;
            let Head { metadata } = serde_json::from_slice(&text).map_err(failed)?;
            pages.push(text);
            if metadata.more.is_empty() {
                break metadata.resource_version;
            }
            params.continue_token = Some(metadata.more);
        };
        let mut objects = Vec::new();
        for page in &pages {
            let Page { items } = serde_json::from_slice(page).map_err(failed)?;
            objects.extend(items.into_iter().map(|item| Object(page.slice_ref(item.get().as_bytes()))));
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
        let mut last = None;
        let ended = self.read(&mut body, &mut last, take).await;
        if let Some(newer) = last.as_ref().and_then(Object::version) {
            *version = newer;
        }
        ended
    }

    async fn read(
        &self,
        body: &mut Body,
        last: &mut Option<Object>,
        take: &mut Take<'_>,
    ) -> Result<(), Ended> {
        // The beginning of a line whose end has not come.
        let mut begun: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            // A server that breaks off is asked again from where it was.
            let Ok(frame) = frame else { return Ok(()) };
            let Ok(mut data) = frame.into_data() else { continue };
            while let Some(end) = memchr::memchr(b'\n', &data) {
                let mut line = data.split_to(end);
                data.advance(1);
                if !begun.is_empty() {
                    begun.extend_from_slice(&line);
                    line = std::mem::take(&mut begun).into();
                }
                take_line(&line, last, take)?;
            }
            begun.extend_from_slice(&data);
        }
        Ok(())
    }
}

/// How lines begin with an API server's own spacing and order of fields.
const PLAIN: [(&[u8], &str); 3] = [
    (br#"{"type":"MODIFIED","object":"#, "MODIFIED"),
    (br#"{"type":"ADDED","object":"#, "ADDED"),
    (br#"{"type":"DELETED","object":"#, "DELETED"),
];

fn take_line(line: &Bytes, last: &mut Option<Object>, take: &mut Take<'_>) -> Result<(), Ended> {
    let plain = PLAIN.iter().find_map(|(start, kind)| {
        let object = line.strip_prefix(*start)?.strip_suffix(b"}")?;
        Some((*kind, line.slice_ref(object)))
    });
    let (kind, object) = match plain {
        Some(plain) => plain,
        None => {
            let Line { kind, object } = serde_json::from_slice(line).map_err(failed)?;
            (kind, line.slice_ref(object.get().as_bytes()))
        }
    };
    if kind == "ERROR" {
        return Err(status(&String::from_utf8_lossy(&object)));
    }
    let object = last.insert(Object(object)).clone();
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
