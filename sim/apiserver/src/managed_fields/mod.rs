//! Who owns which field: server-side apply and the tracking of ordinary writes.
//!
//! Follows structured-merge-diff as the API server uses it. A manager's fields are a [`Fields`] tree, kept in
//! `metadata.managedFields` in the form FieldsV1. Only objects that were ever applied are tracked: a real server tracks
//! all, but nobody can tell before the first apply, which then finds the live fields owned by `before-first-apply`.

mod fields;

use tree::{Map, Value, json};

use crate::shape::Cursor;
pub use crate::shape::ListKeys;
use fields::Fields;

/// The writer of a request, as an entry of `metadata.managedFields` names it.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager: the `fieldManager` parameter, or the user agent up to its first `/`.
    pub manager: &'a str,
    /// The time of the request, RFC 3339 in whole seconds.
    pub time: &'a str,
    /// The `apiVersion` in which the request speaks.
    pub api_version: &'a str,
    /// `status`, `scale`, or empty for the object itself.
    pub subresource: &'a str,
}

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The manager that owns the field, as it is printed: `"kubectl" using apps/v1`.
    pub manager: String,
    /// The field's path: `.spec.replicas`.
    pub field: String,
}

/// The message of the 409 answer.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    let noun = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
    let mut message = format!("Apply failed with {} {noun}: ", conflicts.len());
    let mut managers: Vec<&str> = conflicts.iter().map(|conflict| conflict.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let told: Vec<String> = managers
        .iter()
        .map(|manager| {
            let mut fields = conflicts.iter().filter(|conflict| conflict.manager == *manager);
            match (fields.clone().count(), fields.next()) {
                (1, Some(conflict)) => format!("conflict with {manager}: {}", conflict.field),
                _ => {
                    let fields: Vec<String> = conflicts
                        .iter()
                        .filter(|conflict| conflict.manager == *manager)
                        .map(|conflict| format!("\n- {}", conflict.field))
                        .collect();
                    format!("conflicts with {manager}:{}", fields.concat())
                }
            }
        })
        .collect();
    message.push_str(&told.join("\n"));
    message
}

/// One entry of `metadata.managedFields`.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    time: String,
    subresource: String,
    fields: Fields,
}

impl Entry {
    fn read(entry: &Value) -> Entry {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        Entry {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            time: text("time"),
            subresource: text("subresource"),
            fields: Fields::parse(&entry["fieldsV1"]),
        }
    }

    fn write(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_json(),
        });
        if !self.time.is_empty() {
            entry["time"] = json!(self.time);
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }

    fn is_of(&self, writer: &Writer<'_>, operation: &str) -> bool {
        self.manager == writer.manager
            && self.operation == operation
            && self.subresource == writer.subresource
    }

    fn new(writer: &Writer<'_>, operation: &str, fields: Fields) -> Entry {
        Entry {
            manager: writer.manager.to_owned(),
            operation: operation.to_owned(),
            api_version: writer.api_version.to_owned(),
            time: writer.time.to_owned(),
            subresource: writer.subresource.to_owned(),
            fields,
        }
    }

    fn printed(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        text.push_str(&format!(" using {}", self.api_version));
        text
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let list = object["metadata"]["managedFields"].as_array();
    list.into_iter().flatten().filter(|entry| entry["fieldsV1"].is_object()).map(Entry::read).collect()
}

fn write_entries(object: &mut Value, entries: &[Entry]) {
    let written: Vec<Value> =
        entries.iter().filter(|entry| !entry.fields.is_empty()).map(Entry::write).collect();
    if written.is_empty() {
        object["metadata"].as_object_mut().map(|fields| fields.remove("managedFields"));
    } else {
        object["metadata"]["managedFields"] = written.into();
    }
}

/// Server-side apply: the live object with `applied` merged in, fields dropped that the manager owned alone and no
/// longer applies, and ownership brought up to date.
///
/// # Errors
/// The conflicts, unless `force`.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
    keys: &ListKeys,
) -> Result<Value, Vec<Conflict>> {
    let root = keys.root();
    let wanted = owned(applied, root);
    let Some(live) = live else {
        let mut object = applied.clone();
        write_entries(&mut object, &[Entry::new(writer, "Apply", wanted)]);
        return Ok(object);
    };
    let mut managers = entries(live);
    if managers.is_empty() {
        let before = Writer { manager: "before-first-apply", subresource: "", ..*writer };
        managers.push(Entry::new(&before, "Update", owned(live, root)));
    }
    let mine = managers.iter().position(|entry| entry.is_of(writer, "Apply"));
    let before = mine.map(|index| managers.remove(index).fields).unwrap_or_default();

    let mut conflicts = Vec::new();
    for entry in &mut managers {
        let contested = wanted.common(&entry.fields).changed_leaves(live, applied, root);
        if contested.is_empty() {
            continue;
        }
        if force {
            entry.fields.remove(&contested);
        } else {
            let manager = entry.printed();
            let fields = contested.paths();
            conflicts.extend(fields.into_iter().map(|field| Conflict { manager: manager.clone(), field }));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }

    let mut object = fields::merge(live, applied, root);
    let mut dropped = before;
    dropped.remove_needed(&wanted);
    for entry in &managers {
        dropped.remove_needed(&entry.fields);
    }
    dropped.take_from(&mut object, root);
    managers.retain(|entry| !entry.fields.is_empty());
    managers.push(Entry::new(writer, "Apply", wanted));
    // An apply that changes nothing keeps its time, so that the object is the same as before.
    if let Some(unchanged) = unchanged_entry(live, &managers[managers.len() - 1]) {
        let last = managers.len() - 1;
        managers[last].time = unchanged;
    }
    object["metadata"]["managedFields"] = Value::Null;
    write_entries(&mut object, &sorted(managers));
    Ok(object)
}

fn unchanged_entry(live: &Value, entry: &Entry) -> Option<String> {
    entries(live)
        .into_iter()
        .find(|old| {
            old.manager == entry.manager
                && old.operation == entry.operation
                && old.subresource == entry.subresource
                && old.fields == entry.fields
        })
        .map(|old| old.time)
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| {
        (&a.operation, &a.time, &a.manager, &a.subresource).cmp(&(
            &b.operation,
            &b.time,
            &b.manager,
            &b.subresource,
        ))
    });
    entries
}

/// Gives all fields of a new object to the writer who created it.
pub fn track_create(object: &mut Value, writer: &Writer<'_>, keys: &ListKeys) {
    let fields = owned(object, keys.root());
    write_entries(object, &[Entry::new(writer, "Update", fields)]);
}

/// Tracks an ordinary write (create, update, patch) of an object that has been applied before: the fields that it
/// changed become its manager's.
pub fn track_update(before: &Value, after: &mut Value, writer: &Writer<'_>, keys: &ListKeys) {
    let mut managers = entries(before);
    if managers.is_empty() {
        return;
    }
    let root = keys.root();
    // What is the same in both is nobody's change.
    let (old, new) = (owned_but(before, after, root), owned_but(after, before, root));
    let mut changed = new.clone();
    let mut same = new.common(&old);
    same.remove(&same.clone().changed_leaves(before, after, root));
    changed.remove(&same);
    let mut gone = old;
    gone.remove(&new);
    if changed.is_empty() && gone.is_empty() {
        return;
    }
    for entry in &mut managers {
        entry.fields.remove(&gone);
        if !entry.is_of(writer, "Update") {
            entry.fields.remove(&changed);
        }
    }
    match managers.iter_mut().find(|entry| entry.is_of(writer, "Update")) {
        Some(entry) => {
            entry.fields.add(&changed);
            entry.time = writer.time.to_owned();
        }
        None => managers.push(Entry::new(writer, "Update", changed)),
    }
    write_entries(after, &sorted(managers));
}

/// The fields of an object that managers can own.
fn owned(object: &Value, root: Cursor<'_>) -> Fields {
    owned_but(object, &Value::Null, root)
}

/// The fields of an object that managers can own, without those that `same` has with the same values.
fn owned_but(object: &Value, same: &Value, root: Cursor<'_>) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in object.as_object().into_iter().flatten() {
        match name.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let tracked: Map = value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(field, _)| !UNTRACKED.contains(&field.as_str()))
                    .map(|(field, value)| (field.clone(), value.clone()))
                    .collect();
                fields.add_field(name, &Value::Object(tracked), same.get(name), root.field(name));
            }
            _ => fields.add_field(name, value, same.get(name), root.field(name)),
        }
    }
    fields.forget_presence_of("metadata");
    fields
}

/// Fields of the metadata that nobody owns.
const UNTRACKED: [&str; 10] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];
