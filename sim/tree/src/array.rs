//! Lists.

use std::ops::{Deref, DerefMut};

use ecow::EcoVec;

use crate::Value;

/// The items of a list. Cheap to clone; a change copies the list if it is shared, but not what is in its items.
#[derive(Clone, Default, Eq)]
pub struct Array(EcoVec<Value>);

impl Array {
    /// An empty list.
    pub fn new() -> Array {
        Array::default()
    }

    /// The items.
    pub fn as_slice(&self) -> &[Value] {
        &self.0
    }

    /// Adds an item at the end.
    pub fn push(&mut self, item: Value) {
        self.0.push(item);
    }

    /// Adds an item before the one at `index`.
    pub fn insert(&mut self, index: usize, item: Value) {
        self.0.insert(index, item);
    }

    /// Takes out the item at `index`.
    pub fn remove(&mut self, index: usize) -> Value {
        self.0.remove(index)
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps only the items for which `keeps` is true.
    pub fn retain(&mut self, mut keeps: impl FnMut(&Value) -> bool) {
        if !self.iter().all(&mut keeps) {
            self.0.retain(|item| keeps(item));
        }
    }

    /// Whether both are the same list in memory, or both are empty.
    pub fn is_shared_with(&self, other: &Array) -> bool {
        self.len() == other.len() && (self.is_empty() || std::ptr::eq(self.as_ptr(), other.as_ptr()))
    }

    pub(crate) fn share_with(&mut self, other: &Array) -> bool {
        if self.is_shared_with(other) {
            return true;
        }
        let mut equal = self.len() == other.len();
        for (item, other) in self.0.make_mut().iter_mut().zip(other.iter()) {
            equal &= item.share_with(other);
        }
        if equal {
            *self = other.clone();
        }
        equal
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Array) -> bool {
        self.is_shared_with(other) || self[..] == other[..]
    }
}

impl Deref for Array {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.0
    }
}

impl DerefMut for Array {
    fn deref_mut(&mut self) -> &mut [Value] {
        self.0.make_mut()
    }
}

impl From<Vec<Value>> for Array {
    fn from(items: Vec<Value>) -> Array {
        Array(items.into_iter().collect())
    }
}

impl FromIterator<Value> for Array {
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Array {
        Array(items.into_iter().collect())
    }
}

impl Extend<Value> for Array {
    fn extend<I: IntoIterator<Item = Value>>(&mut self, items: I) {
        self.0.extend(items);
    }
}

impl IntoIterator for Array {
    type Item = Value;
    type IntoIter = ecow::vec::IntoIter<Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Array {
    type Item = &'a Value;
    type IntoIter = std::slice::Iter<'a, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Array {
    type Item = &'a mut Value;
    type IntoIter = std::slice::IterMut<'a, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}
