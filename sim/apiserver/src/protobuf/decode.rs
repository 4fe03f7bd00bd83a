//! From protobuf to JSON as Go's JSON encoder writes the same struct.
//!
//! Go's generated encoders write every value field, zero or not; JSON leaves them out. So a zero is dropped unless its
//! Go field is a pointer.

use base64::Engine as _;
use jiff::Timestamp;
use tree::{Map, Value, json};

use super::schema::{Kind, Presence, Schema};

/// How deep messages may nest: a CRD's schema is the deepest that is of use.
const DEPTH_MAX: usize = 100;

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// One field on the wire.
pub(super) struct Field<'a> {
    pub number: u32,
    value: Wire<'a>,
}

impl<'a> Field<'a> {
    pub(super) fn bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Wire::Bytes(bytes) => Some(bytes),
            Wire::Number(_) => None,
        }
    }
}

/// The fields of a message, in the order in which they were written.
pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<Field<'_>>, String> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).map_err(|_| "a field number is too large")?;
        let value = match key & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            1 => Wire::Number(u64::from_le_bytes(fixed(&mut bytes)?)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| CUT)?;
                let (field, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
                bytes = rest;
                Wire::Bytes(field)
            }
            5 => Wire::Number(u64::from(u32::from_le_bytes(fixed(&mut bytes)?))),
            other => return Err(format!("wire type {other} of field {number} is unknown")),
        };
        fields.push(Field { number, value });
    }
    Ok(fields)
}

const CUT: &str = "the body ends within a field";

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(CUT)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number has more than 64 bits".to_owned())
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (first, rest) = bytes.split_first_chunk::<N>().ok_or(CUT)?;
    *bytes = rest;
    Ok(*first)
}

/// The JSON of a message.
pub(super) fn message(schema: &Schema, name: &str, bytes: &[u8]) -> Result<Value, String> {
    convert(schema, name, bytes, 0)
}

fn convert(schema: &Schema, name: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err(format!("{name} nests deeper than {DEPTH_MAX} messages"));
    }
    if let Some(special) = special(schema, name, bytes, depth)? {
        return Ok(special);
    }
    let Some(message) = schema.message(name) else { return Err(format!("{name} is unknown")) };
    let mut object = Map::new();
    for field in fields(bytes)? {
        // Fields that are newer than this server are left out, as any protobuf decoder does.
        let Some(declared) = message.fields.get(&field.number) else { continue };
        let here = |problem: String| format!("{}: {problem}", declared.name);
        if let Kind::Map(values) = &declared.kind {
            let (key, value) = entry(schema, values, &field, depth).map_err(here)?;
            let map = object.entry(&declared.name).or_insert_with(|| json!({}));
            map[&key] = value;
            continue;
        }
        let value = one(schema, &declared.kind, &field, depth).map_err(here)?;
        match declared.presence {
            Presence::Repeated => {
                // Numbers may come packed; Go does not, other writers do.
                let list = object.entry(&declared.name).or_insert_with(|| json!([]));
                if let Some(list) = list.as_array_mut() {
                    list.push(value);
                }
            }
            Presence::Inline => {
                if let Value::Object(fields) = value {
                    object.extend(fields);
                }
            }
            Presence::Explicit => {
                object.insert(declared.name.clone(), value);
            }
            Presence::Implicit if is_zero(&value) => {}
            Presence::Implicit => {
                object.insert(declared.name.clone(), value);
            }
        }
    }
    Ok(Value::Object(object))
}

fn entry(schema: &Schema, values: &Kind, field: &Field<'_>, depth: usize) -> Result<(String, Value), String> {
    let pair = fields(field.bytes().ok_or("expected a map entry")?)?;
    let (mut key, mut value) = (String::new(), None);
    for part in &pair {
        match part.number {
            1 => key = text(part)?,
            2 => value = Some(one(schema, values, part, depth)?),
            _ => {}
        }
    }
    let empty = || match values {
        Kind::Scalar(_) => json!(""),
        _ => json!({}),
    };
    Ok((key, value.unwrap_or_else(empty)))
}

fn one(schema: &Schema, kind: &Kind, field: &Field<'_>, depth: usize) -> Result<Value, String> {
    match (kind, &field.value) {
        (Kind::Message(name), Wire::Bytes(bytes)) => convert(schema, name, bytes, depth + 1),
        (Kind::Scalar(scalar), Wire::Number(number)) => match scalar.as_str() {
            "bool" => Ok(json!(*number != 0)),
            "double" => Ok(json!(f64::from_bits(*number))),
            // Negative numbers are sign-extended to 64 bits, of int32 too.
            "int32" | "int64" => Ok(json!(number.cast_signed())),
            _ => Err(format!("expected {scalar}, found a number")),
        },
        (Kind::Scalar(scalar), Wire::Bytes(bytes)) => match scalar.as_str() {
            "string" => text(field).map(Value::from),
            "bytes" => Ok(json!(base64::engine::general_purpose::STANDARD.encode(bytes))),
            _ => Err(format!("expected {scalar}, found bytes")),
        },
        _ => Err("the wire type does not fit the field".to_owned()),
    }
}

fn text(field: &Field<'_>) -> Result<String, String> {
    let bytes = field.bytes().ok_or("expected text, found a number")?;
    String::from_utf8(bytes.to_vec()).map_err(|_| "the text is not UTF-8".to_owned())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// Messages whose JSON is not an object of their fields.
fn special(schema: &Schema, name: &str, bytes: &[u8], depth: usize) -> Result<Option<Value>, String> {
    let short = name.rsplit('.').next().unwrap_or_default();
    let is = |package: &str| name.strip_suffix(short) == Some(package);
    let numbers = |wanted: u32| -> Result<Option<i64>, String> {
        Ok(fields(bytes)?.iter().rev().find_map(|field| match field.value {
            Wire::Number(number) if field.number == wanted => Some(number.cast_signed()),
            _ => None,
        }))
    };
    let part = |wanted: u32| -> Result<Option<&[u8]>, String> {
        Ok(fields(bytes)?.iter().rev().find(|field| field.number == wanted).and_then(Field::bytes))
    };
    let string = |wanted: u32| -> Result<String, String> {
        Ok(part(wanted)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default())
    };
    let json_text = |wanted: u32| -> Result<Value, String> {
        match part(wanted)? {
            None | Some([]) => Ok(Value::Null),
            Some(text) => serde_json::from_slice(text).map_err(|error| format!("{short}: {error}")),
        }
    };
    const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.";
    const EXTENSIONS: &str = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.";
    let value = match short {
        "Time" | "MicroTime" if is(META) => {
            if bytes.is_empty() {
                Value::Null
            } else {
                let nanos = i32::try_from(numbers(2)?.unwrap_or(0)).unwrap_or(0);
                let at =
                    Timestamp::new(numbers(1)?.unwrap_or(0), nanos).map_err(|error| error.to_string())?;
                let format = if short == "Time" { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
                json!(at.strftime(format).to_string())
            }
        }
        "FieldsV1" if is(META) => json_text(1)?,
        "RawExtension" => json_text(1)?,
        "JSON" if is(EXTENSIONS) => json_text(1)?,
        "Quantity" => json!(string(1)?),
        "IntOrString" => match numbers(1)?.unwrap_or(0) {
            0 => json!(numbers(2)?.unwrap_or(0)),
            _ => json!(string(3)?),
        },
        "Verbs" | "ExtraValue" => {
            let items: Vec<Value> = fields(bytes)?
                .iter()
                .filter(|field| field.number == 1)
                .map(text)
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .map(Value::from)
                .collect();
            json!(items)
        }
        "JSONSchemaPropsOrBool" => match part(2)? {
            Some(props) => convert(schema, &format!("{EXTENSIONS}JSONSchemaProps"), props, depth + 1)?,
            None => json!(numbers(1)?.unwrap_or(0) != 0),
        },
        "JSONSchemaPropsOrArray" => match part(1)? {
            Some(props) => convert(schema, &format!("{EXTENSIONS}JSONSchemaProps"), props, depth + 1)?,
            None => {
                let mut items = Vec::new();
                for field in fields(bytes)?.iter().filter(|field| field.number == 2) {
                    let props = field.bytes().ok_or("expected a message")?;
                    items.push(convert(schema, &format!("{EXTENSIONS}JSONSchemaProps"), props, depth + 1)?);
                }
                json!(items)
            }
        },
        _ => return Ok(None),
    };
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u8, wire: u8) -> u8 {
        number << 3 | wire
    }

    fn nested(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![key(number, 2), u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [nested(1, api_version.as_bytes()), nested(2, kind.as_bytes())].concat();
        [b"k8s\0".to_vec(), nested(1, &meta), nested(2, raw)].concat()
    }

    #[test]
    fn zeros_of_values_go_and_zeros_of_pointers_stay() {
        // generateName: "", generation: 0 and creationTimestamp: {} are values, immutable: false is a pointer.
        let number = [key(7, 0), 0];
        let metadata = [nested(1, b"web"), nested(2, b""), number.to_vec(), nested(8, b"")].concat();
        let raw = [nested(1, &metadata), vec![key(4, 0), 0]].concat();
        let found = super::super::object(&body("v1", "ConfigMap", &raw)).unwrap();
        assert_eq!(
            found,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "immutable": false})
        );
    }

    #[test]
    fn options_of_requests_carry_their_resources_group() {
        let raw = [key(1, 0), 0];
        let found = super::super::object(&body("apps/v1", "DeleteOptions", &raw)).unwrap();
        assert_eq!(found["gracePeriodSeconds"], 0);
        let error = super::super::object(&body("example.com/v1", "Shirt", &raw)).unwrap_err();
        assert_eq!(error, "Shirt of \"example.com/v1\" has no protobuf form");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = super::super::object(&bytes);
            let _ = super::super::object(&body("v1", "Pod", &bytes));
            let _ = super::super::object(&body("apiextensions.k8s.io/v1", "CustomResourceDefinition", &bytes));
        }
    }
}
