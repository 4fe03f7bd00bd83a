//! `events.k8s.io/v1`: another view on the core group's Events, whose fields have other names there.

use std::borrow::Cow;

use tree::Value;

use crate::request::Target;

/// The version of the core group's Events that is served in the group `events.k8s.io`.
pub(crate) const VERSION: &str = "events.k8s.io/v1";
const GROUP: &str = "events.k8s.io";

/// Fields whose names differ: in the core group, and in `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// A core Event as `events.k8s.io` shows it.
pub(crate) fn from_core(event: &mut Value) {
    rename(event, |name| NAMES.iter().find(|(core, _)| *core == name).map(|(_, other)| *other));
}

/// An Event of `events.k8s.io` as the core group has it.
pub(crate) fn to_core(event: &mut Value) {
    rename(event, |name| NAMES.iter().find(|(_, other)| *other == name).map(|(core, _)| *core));
}

fn rename(event: &mut Value, new: impl Fn(&str) -> Option<&'static str>) {
    let Some(fields) = event.as_object_mut() else { return };
    let renamed = std::mem::take(fields).into_iter();
    *fields = renamed.map(|(name, value)| (new(&name).map_or(name, Into::into), value)).collect();
}

/// A request for Events of `events.k8s.io` as one for the core group's, which are the same objects.
pub(crate) fn in_core<'a, 'p>(target: &'a Target<'p>) -> Cow<'a, Target<'p>> {
    if target.group != GROUP || target.version != "v1" || target.plural != "events" {
        return Cow::Borrowed(target);
    }
    Cow::Owned(Target { group: "".into(), version: VERSION.into(), ..target.clone() })
}

/// The path, in the core group, of a field that a selector of `events.k8s.io` names.
pub(crate) fn core_field(field: &str) -> Option<String> {
    if field == "reportingController" {
        return Some("reportingComponent".to_owned());
    }
    field.strip_prefix("regarding.").map(|rest| format!("involvedObject.{rest}"))
}
