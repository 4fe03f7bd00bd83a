//! What a type asks its deserializer for.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::value::{BorrowedStrDeserializer, Error};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// A struct that a type is made of.
#[derive(Clone, Debug, Default)]
pub struct Struct {
    /// How it is reached: fields, `[]` for an item of a list, `{}` for a value of a map.
    pub path: Vec<String>,
    /// The fields' shapes.
    pub fields: BTreeMap<String, String>,
}

/// What was seen so far.
#[derive(Default)]
pub struct Trace {
    structs: RefCell<BTreeMap<String, Struct>>,
}

impl Trace {
    /// The structs of a type by name.
    pub fn of<T: DeserializeOwned>() -> BTreeMap<String, Struct> {
        let trace = Trace::default();
        let shape = RefCell::default();
        let root = Probe { trace: &trace, path: Vec::new(), shape: &shape };
        T::deserialize(root).map(drop).expect("a probe has what the type asks for");
        trace.structs.into_inner()
    }
}

/// Stands for the value at a path.
struct Probe<'a> {
    trace: &'a Trace,
    path: Vec<String>,
    /// What the value turns out to be.
    shape: &'a RefCell<String>,
}

impl<'a> Probe<'a> {
    fn is(&self, shape: &str) {
        self.shape.borrow_mut().push_str(shape);
    }

    fn below(&self, step: &str, shape: &'a RefCell<String>) -> Probe<'a> {
        let path = self.path.iter().cloned().chain([step.to_owned()]).collect();
        Probe { trace: self.trace, path, shape }
    }
}

fn name(visitor: &impl Expected) -> String {
    struct Shown<'a>(&'a dyn Expected);
    impl std::fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }
    Shown(visitor).to_string()
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let name = name(&visitor);
        match name.as_str() {
            "IntOrString" => {
                self.is(&name);
                visitor.visit_u64(0)
            }
            "JSONSchemaPropsOrBool" => {
                self.is(&name);
                visitor.visit_bool(false)
            }
            "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => {
                self.is(&name);
                visitor.visit_seq(Items { probe: self, rest: 0 })
            }
            _ => Err(Error::custom(format!("{}: {name} is no shape that is known", self.path.join(".")))),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is("bool");
        visitor.visit_bool(false)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is("i32");
        visitor.visit_i32(0)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is("i64");
        visitor.visit_i64(0)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is("f64");
        visitor.visit_f64(0.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is(if name(&visitor).contains("base64") { "ByteString" } else { "string" });
        visitor.visit_str("")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.is(name);
        let text = if name.ends_with("Time") { "2020-03-17T11:00:00Z" } else { "0" };
        visitor.visit_newtype_struct(BorrowedStrDeserializer::new(text))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is("[]");
        visitor.visit_seq(Items { probe: self, rest: 1 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is("{}");
        visitor.visit_map(Entries { probe: self, rest: 1 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.is(name);
        let unseen: BTreeMap<String, String> =
            fields.iter().map(|field| ((*field).to_owned(), "string".to_owned())).collect();
        if let Some(seen) = self.trace.structs.borrow().get(name) {
            let same = seen.fields.keys().eq(unseen.keys());
            assert!(same, "{}: another struct is called {name}", self.path.join("."));
        }
        let is_new = !self.trace.structs.borrow().contains_key(name);
        if is_new {
            let found = Struct { path: self.path.clone(), fields: unseen };
            self.trace.structs.borrow_mut().insert(name.to_owned(), found);
        }
        // Whole objects check what their apiVersion and kind say: text, which stays as it is noted above.
        let asked = fields.iter().copied().filter(|field| !matches!(*field, "apiVersion" | "kind"));
        let rest: Vec<&'static str> = if is_new { asked.collect() } else { Vec::new() };
        visitor.visit_map(Fields { probe: self, name, rest: rest.into_iter(), field: "" })
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

/// A list.
struct Items<'a> {
    probe: Probe<'a>,
    rest: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.rest == 0 {
            return Ok(None);
        }
        self.rest -= 1;
        seed.deserialize(self.probe.below("[]", self.probe.shape)).map(Some)
    }
}

/// A map.
struct Entries<'a> {
    probe: Probe<'a>,
    rest: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if self.rest == 0 {
            return Ok(None);
        }
        self.rest -= 1;
        seed.deserialize(BorrowedStrDeserializer::new("key")).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.probe.below("{}", self.probe.shape))
    }
}

/// A struct.
struct Fields<'a> {
    probe: Probe<'a>,
    name: &'static str,
    rest: std::vec::IntoIter<&'static str>,
    field: &'static str,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(field) = self.rest.next() else { return Ok(None) };
        self.field = field;
        seed.deserialize(BorrowedStrDeserializer::new(field)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let shape = RefCell::default();
        let value = seed.deserialize(self.probe.below(self.field, &shape))?;
        if let Some(found) = self.probe.trace.structs.borrow_mut().get_mut(self.name) {
            found.fields.insert(self.field.to_owned(), shape.into_inner());
        }
        Ok(value)
    }
}
