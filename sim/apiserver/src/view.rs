//! How an answer shows objects: in which version, whole, as a table, or metadata alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use clock::Clock;
use tree::{Value, json};

use crate::autoscaling;
use crate::events;
use crate::resource::Resource;
use crate::store::{Change, Stored};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Table { include: Include },
    Partial,
}

/// What a table's row holds beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// A form and version for the objects of one resource.
pub(crate) struct View {
    resource: Arc<Resource>,
    version: String,
    form: Form,
    clock: Clock,
    /// A watched table names its columns in the first event only.
    columns_told: AtomicBool,
}

impl View {
    pub(crate) fn new(resource: Arc<Resource>, version: &str, form: Form, clock: Clock) -> Self {
        View { resource, version: version.to_owned(), form, clock, columns_told: AtomicBool::new(false) }
    }

    /// The object in the view's version.
    pub(crate) fn converted(&self, object: &Value) -> Value {
        from_storage(&self.resource, &self.version, object)
    }

    /// One object as an answer.
    pub(crate) fn one(&self, object: &Stored) -> Bytes {
        match self.form {
            Form::Object if self.version == self.resource.storage => object.text().clone(),
            Form::Object => self.converted(&object.value).to_string().into(),
            Form::Partial => partial(&object.value).to_string().into(),
            Form::Table { include } => {
                let version = object.value["metadata"]["resourceVersion"].clone();
                self.table([&object.value], version, include, true).to_string().into()
            }
        }
    }

    /// A list as an answer.
    pub(crate) fn list(&self, objects: &[Arc<Stored>], metadata: &Value) -> Bytes {
        match self.form {
            Form::Table { include } => {
                let objects = objects.iter().map(|object| &object.value);
                let mut table = self.table(objects, Value::Null, include, true);
                table["metadata"] = metadata.clone();
                table.to_string().into()
            }
            Form::Partial => {
                let items: Vec<Value> = objects.iter().map(|object| partial(&object.value)).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                       "metadata": metadata, "items": items})
                .to_string()
                .into()
            }
            Form::Object => {
                let head = format!(
                    "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
                    json!(self.resource.list_kind),
                    json!(self.resource.api_version(&self.version)),
                );
                let mut text = head.into_bytes();
                for (index, object) in objects.iter().enumerate() {
                    if index > 0 {
                        text.push(b',');
                    }
                    text.extend_from_slice(&self.one(object));
                }
                text.extend_from_slice(b"]}");
                text.into()
            }
        }
    }

    /// One line of a watch.
    pub(crate) fn event(&self, change: Change, object: &Stored) -> Bytes {
        match self.form {
            Form::Object if self.version == self.resource.storage => object.line(change),
            Form::Object | Form::Partial => change.line(&self.one(object)),
            Form::Table { include } => {
                let first = !self.columns_told.swap(true, Ordering::Relaxed);
                let version = object.value["metadata"]["resourceVersion"].clone();
                change.line(&self.table([&object.value], version, include, first).to_vec())
            }
        }
    }

    /// A bookmark: an object of the watched kind with nothing but a resourceVersion.
    pub(crate) fn bookmark(&self, version: u64, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Object => json!({"kind": self.resource.kind,
                "apiVersion": self.resource.api_version(&self.version), "metadata": metadata}),
            Form::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table { .. } => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": version.to_string()}, "columnDefinitions": Value::Null,
                "rows": [{"cells": [], "object": {"kind": "PartialObjectMetadata",
                          "apiVersion": "meta.k8s.io/v1", "metadata": metadata}}]}),
        };
        format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()
    }

    fn table<'a>(
        &self,
        objects: impl IntoIterator<Item = &'a Value>,
        version: Value,
        include: Include,
        columns: bool,
    ) -> Value {
        let printer = &self.resource.version(&self.version).unwrap_or_else(|| self.resource.stored()).printer;
        let now = self.clock.now();
        let rows: Vec<Value> = objects
            .into_iter()
            .map(|object| {
                let mut row = json!({"cells": printer.cells(object, now)});
                match include {
                    Include::None => {}
                    Include::Metadata => row["object"] = partial(object),
                    Include::Object => row["object"] = self.converted(object),
                }
                row
            })
            .collect();
        let definitions = if columns { printer.column_definitions() } else { Value::Null };
        json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version},
               "columnDefinitions": definitions, "rows": rows})
    }
}

fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// An object as a version of its resource shows it.
pub(crate) fn from_storage(resource: &Resource, version: &str, object: &Value) -> Value {
    if version == resource.storage {
        return object.clone();
    }
    let mut object = object.clone();
    if resource.kind == "HorizontalPodAutoscaler" && resource.group == "autoscaling" {
        autoscaling::from_v2(version, &mut object);
    }
    if version == events::VERSION {
        events::from_core(&mut object);
    }
    object["apiVersion"] = json!(resource.api_version(version));
    object
}

/// An object of some version of its resource as it is stored.
pub(crate) fn to_storage(resource: &Resource, version: &str, object: &mut Value) -> Result<(), String> {
    if version != resource.storage {
        if resource.kind == "HorizontalPodAutoscaler" && resource.group == "autoscaling" {
            autoscaling::to_v2(version, object)?;
        }
        if version == events::VERSION {
            events::to_core(object);
        }
        object["apiVersion"] = json!(resource.api_version(&resource.storage));
    }
    Ok(())
}
