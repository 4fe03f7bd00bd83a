//! Sets of fields, as trees: `f:spec` / `k:{"name":"web"}` / `f:image`.

use std::collections::BTreeMap;

use tree::{Map, Value, json};

use crate::shape::{Cursor, List};

/// A set of fields of one object. A node may itself be a member, and hold members below.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields {
    member: bool,
    below: BTreeMap<String, Fields>,
}

impl Fields {
    /// All fields of `value`: leaves, atomic values, list items, and empty objects.
    pub(super) fn of(value: &Value, at: Cursor<'_>) -> Fields {
        let mut fields = Fields::default();
        match value {
            Value::Object(object) if !at.is_atomic() => {
                for (name, value) in object {
                    fields.add_field(name, value, None, at.field(name));
                }
            }
            Value::Array(items) => match at.list() {
                List::Atomic => {}
                List::Set => {
                    for item in items {
                        let leaf = Fields { member: true, below: BTreeMap::new() };
                        fields.below.insert(format!("v:{item}"), leaf);
                    }
                }
                List::Map(_) => {
                    for item in items {
                        let mut below = Fields::of(item, at.items());
                        below.member = true;
                        fields.below.insert(key_of(item, at), below);
                    }
                }
            },
            _ => {}
        }
        fields
    }

    /// Adds the field `name` with all fields of its value, but for those that `same` has with the same values.
    pub(super) fn add_field(&mut self, name: &str, value: &Value, same: Option<&Value>, at: Cursor<'_>) {
        if value.is_null() || same == Some(value) {
            return;
        }
        let mut below = match (value, same) {
            (Value::Object(object), Some(Value::Object(same))) if !at.is_atomic() && !object.is_empty() => {
                let mut below = Fields::default();
                for (name, value) in object {
                    below.add_field(name, value, same.get(name), at.field(name));
                }
                if below.is_empty() {
                    return;
                }
                below
            }
            _ => Fields::of(value, at),
        };
        below.member |= below.below.is_empty();
        self.below.insert(format!("f:{name}"), below);
    }

    pub(super) fn parse(value: &Value) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in value.as_object().into_iter().flatten() {
            if name == "." {
                fields.member = true;
            } else {
                let mut below = Fields::parse(value);
                below.member |= below.below.is_empty();
                fields.below.insert(name.to_string(), below);
            }
        }
        fields
    }

    pub(super) fn to_json(&self) -> Value {
        let mut object = Map::new();
        if self.member && !self.below.is_empty() {
            object.insert(".", json!({}));
        }
        for (name, below) in &self.below {
            object.insert(name.clone(), below.to_json());
        }
        Value::Object(object)
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// The mere presence of a field is nobody's.
    pub(super) fn forget_presence_of(&mut self, field: &str) {
        let name = format!("f:{field}");
        if let Some(below) = self.below.get_mut(&name) {
            below.member = false;
            if below.is_empty() {
                self.below.remove(&name);
            }
        }
    }

    pub(super) fn common(&self, other: &Fields) -> Fields {
        let below = self
            .below
            .iter()
            .filter_map(|(name, fields)| {
                let common = fields.common(other.below.get(name)?);
                (!common.is_empty()).then(|| (name.clone(), common))
            })
            .collect();
        Fields { member: self.member && other.member, below }
    }

    pub(super) fn remove(&mut self, other: &Fields) {
        self.member &= !other.member;
        for (name, fields) in &other.below {
            if let Some(mine) = self.below.get_mut(name) {
                mine.remove(fields);
                if mine.is_empty() {
                    self.below.remove(name);
                }
            }
        }
    }

    /// Removes what `other` needs: its members, and the presence of everything that holds one of them.
    pub(super) fn remove_needed(&mut self, other: &Fields) {
        self.member &= other.is_empty();
        for (name, fields) in &other.below {
            if let Some(mine) = self.below.get_mut(name) {
                mine.remove_needed(fields);
                if mine.is_empty() {
                    self.below.remove(name);
                }
            }
        }
    }

    pub(super) fn add(&mut self, other: &Fields) {
        self.member |= other.member;
        for (name, fields) in &other.below {
            self.below.entry(name.clone()).or_default().add(fields);
        }
    }

    /// Those of these fields that are leaves and have different values in two objects.
    pub(super) fn changed_leaves(self, one: &Value, other: &Value, at: Cursor<'_>) -> Fields {
        let mut changed = Fields::default();
        if self.below.is_empty() {
            changed.member = self.member && one != other && is_leaf(one, other, at);
            return changed;
        }
        for (name, fields) in self.below {
            let (next_one, next_other) = (step(one, &name, at), step(other, &name, at));
            let below = fields.changed_leaves(next_one, next_other, enter(at, &name));
            if !below.is_empty() {
                changed.below.insert(name, below);
            }
        }
        changed
    }

    /// The members' paths as messages print them: `.spec.containers[name="web"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, paths: &mut Vec<String>) {
        if self.member {
            paths.push(path.to_owned());
        }
        for (name, below) in &self.below {
            let (kind, rest) = name.split_at(2);
            let step = match kind {
                "f:" => format!(".{rest}"),
                "k:" => {
                    let keys: Value = serde_json::from_str(rest).unwrap_or_default();
                    let keys: Vec<String> = keys
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(key, value)| format!("{key}={value}"))
                        .collect();
                    format!("[{}]", keys.join(","))
                }
                _ => format!("[={rest}]"),
            };
            below.collect_paths(&format!("{path}{step}"), paths);
        }
    }

    /// Removes these fields from an object.
    pub(super) fn take_from(&self, object: &mut Value, at: Cursor<'_>) {
        for (name, below) in &self.below {
            let next = enter(at, name);
            let (kind, rest) = name.split_at(2);
            match (kind, &mut *object) {
                ("f:", Value::Object(fields)) => {
                    if let Some(value) = fields.get_mut(rest) {
                        below.take_from(value, next);
                        if below.member && (below.below.is_empty() || holds_nothing(value)) {
                            fields.remove(rest);
                        } else if !below.below.is_empty() && holds_nothing(value) {
                            // What emptied with its last field goes with it.
                            fields.remove(rest);
                        }
                    }
                }
                ("k:", Value::Array(items)) => {
                    let index = items.iter().position(|item| key_of(item, at) == *name);
                    if let Some(index) = index {
                        if below.member {
                            items.remove(index);
                        } else {
                            below.take_from(&mut items[index], next);
                        }
                    }
                }
                ("v:", Value::Array(items)) => items.retain(|item| !is_text_of(item, rest)),
                _ => {}
            }
        }
    }
}

/// `applied` over `live`: objects merge, associative lists merge by key, everything else is replaced.
pub(super) fn merge(live: &Value, applied: &Value, at: Cursor<'_>) -> Value {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) if !at.is_atomic() => {
            let mut merged = live.clone();
            for (name, value) in applied.iter().filter(|(_, value)| !value.is_null()) {
                let value = match live.get(name) {
                    Some(before) => merge(before, value, at.field(name)),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(applied)) => match at.list() {
            List::Atomic => Value::Array(applied.clone()),
            List::Set => {
                let mut merged = live.clone();
                merged.extend(applied.iter().filter(|item| !live.contains(item)).cloned());
                Value::Array(merged)
            }
            List::Map(_) => {
                let mut merged = live.clone();
                for item in applied {
                    let key = key_of(item, at);
                    match merged.iter_mut().find(|found| key_of(found, at) == key) {
                        Some(found) => *found = merge(found, item, at.items()),
                        None => merged.push(item.clone()),
                    }
                }
                Value::Array(merged)
            }
        },
        (_, applied) => applied.clone(),
    }
}

/// The path element of an item of an associative list.
fn key_of(item: &Value, at: Cursor<'_>) -> String {
    let mut keys = Map::new();
    if let List::Map(names) = at.list() {
        names.each(|name, default, default_text| {
            let value = match (&item[name], default, default_text) {
                (Value::Null, Some(default), _) => default.clone(),
                (Value::Null, None, Some(text)) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
                (value, ..) => value.clone(),
            };
            if !value.is_null() {
                keys.insert(name.to_owned(), value);
            }
        });
    }
    format!("k:{}", Value::Object(keys))
}

fn enter<'a>(at: Cursor<'a>, name: &str) -> Cursor<'a> {
    match name.split_at(2) {
        ("f:", field) => at.field(field),
        _ => at.items(),
    }
}

fn step<'a>(value: &'a Value, name: &str, at: Cursor<'_>) -> &'a Value {
    match name.split_at(2) {
        ("f:", field) => &value[field],
        ("k:", _) => value
            .as_array()
            .into_iter()
            .flatten()
            .find(|item| key_of(item, at) == name)
            .unwrap_or(&Value::Null),
        (_, rest) => {
            value.as_array().into_iter().flatten().find(|item| is_text_of(item, rest)).unwrap_or(&Value::Null)
        }
    }
}

fn is_leaf(one: &Value, other: &Value, at: Cursor<'_>) -> bool {
    let is_tree = |value: &Value| match value {
        Value::Object(fields) => !at.is_atomic() && !fields.is_empty(),
        Value::Array(items) => !matches!(at.list(), List::Atomic) && !items.is_empty(),
        _ => false,
    };
    !(is_tree(one) && is_tree(other))
}

fn holds_nothing(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Whether a set's item is the one that a path element spells as JSON.
fn is_text_of(item: &Value, text: &str) -> bool {
    let parsed: Result<Value, _> = serde_json::from_str(text);
    parsed.is_ok_and(|parsed| parsed == *item)
}
