//! Objects: fields by name.

use ecow::EcoVec;

use crate::{Text, Value};

/// The fields of an object, sorted by name. Cheap to clone; a change copies the fields if they are shared, but not what
/// is in them.
#[derive(Clone, Default, Eq)]
pub struct Map(EcoVec<(Text, Value)>);

impl Map {
    /// No fields.
    pub fn new() -> Map {
        Map::default()
    }

    /// Fields in any order; of those with the same name the last one counts.
    pub(crate) fn from_unsorted(mut fields: EcoVec<(Text, Value)>) -> Map {
        if !fields.is_sorted_by(|(one, _), (other, _)| one < other) {
            fields.make_mut().sort_by(|(one, _), (other, _)| one.cmp(other));
            let mut index = 1;
            while index < fields.len() {
                if fields[index - 1].0 == fields[index].0 {
                    fields.remove(index - 1);
                } else {
                    index += 1;
                }
            }
        }
        Map(fields)
    }

    /// Removes all fields.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(field, _)| field.as_str().cmp(name))
    }

    /// A field's value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.position(name).ok().map(|at| &self.0[at].1)
    }

    /// A field's value, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.position(name).ok()?;
        Some(&mut self.0.make_mut()[at].1)
    }

    /// Whether there is such a field.
    pub fn contains_key(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    /// Sets a field; returns what it was.
    pub fn insert(&mut self, name: impl AsRef<str> + Into<Text>, value: Value) -> Option<Value> {
        match self.position(name.as_ref()) {
            Ok(at) => Some(std::mem::replace(&mut self.0.make_mut()[at].1, value)),
            Err(at) => {
                self.0.insert(at, (name.into(), value));
                None
            }
        }
    }

    /// Removes a field; returns what it was.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.position(name).ok()?;
        Some(self.0.remove(at).1)
    }

    /// A field, there or not yet.
    pub fn entry(&mut self, name: impl AsRef<str> + Into<Text>) -> Entry<'_> {
        Entry { at: self.position(name.as_ref()).map_err(|at| (at, name.into())), map: self }
    }

    /// Keeps only the fields for which `keeps` is true.
    pub fn retain(&mut self, mut keeps: impl FnMut(&Text, &Value) -> bool) {
        if !self.iter().all(|(name, value)| keeps(name, value)) {
            self.0.retain(|(name, value)| keeps(name, value));
        }
    }

    /// The fields in order.
    pub fn iter(&self) -> Iter<'_> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The fields in order, to change their values.
    pub fn iter_mut(&mut self) -> IterMut<'_> {
        self.0.make_mut().iter_mut().map(|(name, value)| (&*name, value))
    }

    /// The fields' names in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Text> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The fields' values in order of the names.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The fields' values in order of the names, to change them.
    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Value> {
        self.0.make_mut().iter_mut().map(|(_, value)| value)
    }

    /// Whether both are the same fields in memory, or there are none in both.
    pub fn is_shared_with(&self, other: &Map) -> bool {
        self.len() == other.len() && (self.is_empty() || std::ptr::eq(self.0.as_ptr(), other.0.as_ptr()))
    }

    pub(crate) fn share_with(&mut self, other: &Map) -> bool {
        if self.is_shared_with(other) {
            return true;
        }
        let mut equal = self.len() == other.len();
        let mut others = other.0.iter().peekable();
        for (name, value) in self.0.make_mut() {
            while others.next_if(|(other, _)| other < name).is_some() {}
            match others.next_if(|(other, _)| other == name) {
                Some((other_name, other)) => {
                    equal &= value.share_with(other);
                    name.clone_from(other_name);
                }
                None => equal = false,
            }
        }
        if equal {
            *self = other.clone();
        }
        equal
    }
}

/// A field of a [`Map`], there or not yet.
pub struct Entry<'a> {
    map: &'a mut Map,
    at: Result<usize, (usize, Text)>,
}

impl<'a> Entry<'a> {
    /// The field's value, which is set to `value` if it is missing.
    pub fn or_insert(self, value: Value) -> &'a mut Value {
        self.or_insert_with(|| value)
    }

    /// The field's value, which is made if it is missing.
    pub fn or_insert_with(self, make: impl FnOnce() -> Value) -> &'a mut Value {
        let fields = &mut self.map.0;
        let at = match self.at {
            Ok(at) => at,
            Err((at, name)) => {
                fields.insert(at, (name, make()));
                at
            }
        };
        &mut fields.make_mut()[at].1
    }
}

type Iter<'a> =
    std::iter::Map<std::slice::Iter<'a, (Text, Value)>, fn(&'a (Text, Value)) -> (&'a Text, &'a Value)>;
type IterMut<'a> = std::iter::Map<
    std::slice::IterMut<'a, (Text, Value)>,
    fn(&'a mut (Text, Value)) -> (&'a Text, &'a mut Value),
>;

impl PartialEq for Map {
    fn eq(&self, other: &Map) -> bool {
        self.is_shared_with(other) || self.0 == other.0
    }
}

impl<T: Into<Text>> FromIterator<(T, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (T, Value)>>(fields: I) -> Map {
        Map::from_unsorted(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl Extend<(Text, Value)> for Map {
    fn extend<I: IntoIterator<Item = (Text, Value)>>(&mut self, fields: I) {
        for (name, value) in fields {
            self.insert(name, value);
        }
    }
}

impl IntoIterator for Map {
    type Item = (Text, Value);
    type IntoIter = ecow::vec::IntoIter<(Text, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = (&'a Text, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Map {
    type Item = (&'a Text, &'a mut Value);
    type IntoIter = IterMut<'a>;

    fn into_iter(self) -> IterMut<'a> {
        self.iter_mut()
    }
}
