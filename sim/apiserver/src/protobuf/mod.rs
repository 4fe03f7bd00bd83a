//! Request bodies in protobuf: what client-go's typed clients send for built-in kinds.
//!
//! Answers are always JSON, which the same clients take. The messages are those of `kinds.proto` beside this file.

mod decode;
pub(crate) mod schema;

use tree::{Value, json};

use schema::Schema;

/// The media type of such bodies.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body starts with; `runtime.Unknown` follows.
const MAGIC: &[u8] = b"k8s\0";

/// The object in a request's body, as the JSON that the same client would have sent instead.
///
/// # Errors
/// A sentence that says what is wrong with the body.
pub(crate) fn object(body: &[u8]) -> Result<Value, String> {
    let envelope = body.strip_prefix(MAGIC).ok_or("the body does not start with \"k8s\\0\"")?;
    let envelope = decode::fields(envelope)?;
    let type_meta = decode::fields(last(&envelope, 1))?;
    let text = |number| String::from_utf8_lossy(last(&type_meta, number)).into_owned();
    let (api_version, kind) = (text(1), text(2));
    let schema = Schema::kubernetes();
    let name = schema
        .name_of(&api_version, &kind)
        .ok_or_else(|| format!("{kind} of {api_version:?} has no protobuf form"))?;
    let mut object = decode::message(schema, &name, last(&envelope, 2))?;
    if !object.is_object() {
        return Err(format!("{kind} is no kind of objects"));
    }
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

/// The bytes of a field; the last one counts, none is empty.
fn last<'a>(fields: &[decode::Field<'a>], number: u32) -> &'a [u8] {
    fields
        .iter()
        .rev()
        .find(|field| field.number == number)
        .and_then(decode::Field::bytes)
        .unwrap_or_default()
}
