//! The Go structs of the built-in kinds, read from `types.txt` on first use.
//!
//! That file is made from the Rust types of `k8s-openapi`, which upstream's OpenAPI document gives: the test `types`
//! compares the two, and writes the file if `BLESS` is set.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use tree::{Map, Value, json};

const FILE: &str = include_str!("types.txt");

/// What a value looks like in JSON.
pub(super) enum Shape {
    Any,
    Bool,
    Int32,
    Int64,
    Double,
    Text,
    /// Text in base64.
    Bytes,
    IntOrText,
    Quantity,
    /// A time, and how it is written.
    Time(&'static str),
    /// The second if it is an object, else the first.
    Either(Box<[Shape; 2]>),
    List(Box<Shape>),
    Map(Box<Shape>),
    /// The struct of this index.
    Struct(usize),
}

pub(super) struct Field {
    pub shape: Shape,
    /// Whether it must be given. Otherwise Go writes it though it is empty, if it is among the expected ones.
    needed: bool,
}

pub(super) struct Struct {
    name: &'static str,
    pub fields: BTreeMap<&'static str, Field>,
    /// Those of the fields that are not optional.
    expected: Vec<&'static str>,
}

/// All structs.
pub(super) struct Types {
    pub structs: Vec<Struct>,
    /// The struct of a group and kind, `apps/Deployment`.
    kinds: BTreeMap<&'static str, Shape>,
}

impl Types {
    /// The structs of the built-in kinds.
    pub(super) fn kubernetes() -> &'static Types {
        static PARSED: OnceLock<Types> = OnceLock::new();
        PARSED.get_or_init(|| parse(FILE))
    }

    pub(super) fn kind(&self, group_kind: &str) -> Option<&Shape> {
        self.kinds.get(group_kind)
    }

    /// Adds the fields of a struct that are always there.
    ///
    /// # Errors
    /// The name of a field that must be given and is not.
    pub(super) fn fill(&self, index: usize, object: &mut Map) -> Result<(), &'static str> {
        let Struct { fields, expected, .. } = &self.structs[index];
        for name in expected {
            if object.contains_key(name) {
                continue;
            }
            let field = &fields[name];
            if field.needed {
                return Err(name);
            }
            object.insert((*name).to_owned(), self.zero(&field.shape)?);
        }
        Ok(())
    }

    /// What Go writes for a value that was not given.
    fn zero(&self, shape: &Shape) -> Result<Value, &'static str> {
        Ok(match shape {
            Shape::Any => Value::Null,
            Shape::Bool => json!(false),
            Shape::Int32 | Shape::Int64 | Shape::IntOrText => json!(0),
            Shape::Double => json!(0.0),
            Shape::Text | Shape::Bytes | Shape::Quantity => json!(""),
            Shape::Time(format) => json!(jiff::Timestamp::UNIX_EPOCH.strftime(format).to_string()),
            Shape::Either(shapes) => self.zero(&shapes[0])?,
            Shape::List(_) => json!([]),
            Shape::Map(_) => json!({}),
            Shape::Struct(index) => {
                let mut object = Map::new();
                self.fill(*index, &mut object)?;
                Value::Object(object)
            }
        })
    }

    /// A shape's name in messages.
    pub(super) fn name(&self, shape: &Shape) -> String {
        let name = match shape {
            Shape::Any => "anything",
            Shape::Bool => "a boolean",
            Shape::Int32 => "i32",
            Shape::Int64 => "i64",
            Shape::Double => "f64",
            Shape::Text => "a string",
            Shape::Bytes => "a base64-encoded string",
            Shape::IntOrText => "an integer or a string",
            Shape::Quantity => "a quantity such as 100m or 64Mi",
            Shape::Time(_) => "a time such as 2020-03-17T11:00:00Z",
            Shape::Either(shapes) => return self.name(&shapes[0]),
            Shape::List(_) => "a sequence",
            Shape::Map(_) => "a map",
            Shape::Struct(index) => return format!("an object: {}", self.structs[*index].name),
        };
        name.to_owned()
    }
}

/// `kind GROUP/KIND STRUCT`, `struct NAME`, and a struct's fields: two spaces, the name, the shape; after the name `!` if
/// it is always there, `+` if it must be given.
fn parse(text: &'static str) -> Types {
    let lines = || text.lines().filter(|line| !line.starts_with('#'));
    let names = lines().filter_map(|line| line.strip_prefix("struct "));
    let indices: BTreeMap<&str, usize> = names.enumerate().map(|(index, name)| (name, index)).collect();
    let mut types = Types { structs: Vec::new(), kinds: BTreeMap::new() };
    for line in lines() {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["kind", kind, of] => drop(types.kinds.insert(kind, shape(&indices, of))),
            ["struct", name] => {
                types.structs.push(Struct { name, fields: BTreeMap::new(), expected: Vec::new() })
            }
            ["", "", name, of] => {
                let field = Field { shape: shape(&indices, of), needed: name.ends_with('+') };
                let bare = name.trim_end_matches(['!', '+']);
                if let Some(last) = types.structs.last_mut() {
                    if bare != *name {
                        last.expected.push(bare);
                    }
                    last.fields.insert(bare, field);
                }
            }
            _ => {}
        }
    }
    types
}

fn shape(indices: &BTreeMap<&str, usize>, text: &str) -> Shape {
    if let Some(of) = text.strip_prefix("[]") {
        return Shape::List(Box::new(shape(indices, of)));
    }
    if let Some(of) = text.strip_prefix("{}") {
        return Shape::Map(Box::new(shape(indices, of)));
    }
    let or_schema =
        |other| Shape::Either(Box::new([shape(indices, other), shape(indices, "JSONSchemaProps")]));
    match text {
        "bool" => Shape::Bool,
        "i32" => Shape::Int32,
        "i64" => Shape::Int64,
        "f64" => Shape::Double,
        "string" => Shape::Text,
        "ByteString" => Shape::Bytes,
        "IntOrString" => Shape::IntOrText,
        "Quantity" => Shape::Quantity,
        "Time" => Shape::Time("%Y-%m-%dT%H:%M:%SZ"),
        "MicroTime" => Shape::Time("%Y-%m-%dT%H:%M:%S%.6fZ"),
        "JSONSchemaPropsOrBool" => or_schema("bool"),
        "JSONSchemaPropsOrArray" => or_schema("[]JSONSchemaProps"),
        "JSONSchemaPropsOrStringArray" => or_schema("[]string"),
        _ => indices.get(text).map_or(Shape::Any, |index| Shape::Struct(*index)),
    }
}
