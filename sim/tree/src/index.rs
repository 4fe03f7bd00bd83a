//! `value["spec"]["replicas"]`, as with `serde_json`'s values: a field that is missing reads as `null`, and is made when
//! it is written.

use crate::{Map, Value};

/// A field's name or an item's position.
pub trait Index {
    /// The value there.
    fn get(self, value: &Value) -> Option<&Value>;
    /// The value there, to change it.
    fn get_mut(self, value: &mut Value) -> Option<&mut Value>;
    /// The value there, which is made if a field is missing.
    fn get_or_make(self, value: &mut Value) -> &mut Value;
}

impl<T: AsRef<str> + ?Sized> Index for &T {
    fn get(self, value: &Value) -> Option<&Value> {
        value.as_object()?.get(self.as_ref())
    }

    fn get_mut(self, value: &mut Value) -> Option<&mut Value> {
        value.as_object_mut()?.get_mut(self.as_ref())
    }

    fn get_or_make(self, value: &mut Value) -> &mut Value {
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        match value {
            Value::Object(fields) => fields.entry(self.as_ref()).or_insert(Value::Null),
            other => panic!("cannot access field {:?} of {other}", self.as_ref()),
        }
    }
}

impl Index for usize {
    fn get(self, value: &Value) -> Option<&Value> {
        value.as_array()?.get(self)
    }

    fn get_mut(self, value: &mut Value) -> Option<&mut Value> {
        value.as_array_mut()?.get_mut(self)
    }

    fn get_or_make(self, value: &mut Value) -> &mut Value {
        match value {
            Value::Array(items) => &mut items[self],
            other => panic!("cannot access item {self} of {other}"),
        }
    }
}

impl<I: Index> std::ops::Index<I> for Value {
    type Output = Value;

    fn index(&self, index: I) -> &Value {
        index.get(self).unwrap_or(Value::NULL)
    }
}

impl<I: Index> std::ops::IndexMut<I> for Value {
    fn index_mut(&mut self, index: I) -> &mut Value {
        index.get_or_make(self)
    }
}
