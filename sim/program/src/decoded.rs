//! Objects read from their JSON text, shared by everybody who has the same text.
//!
//! An API server in the same process gives an object's text to all who ask for it, as answer to a read or a write and
//! in each watch, and it is the same text in the same place. So an object that somebody holds is found again by where
//! its text is, and is read once, however many controllers and caches see it.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use serde::de::DeserializeOwned;

/// How many objects are kept though nobody holds them any more: those that were read last.
const KEPT: usize = 256;
/// How many texts are remembered before the first look at which of them are still of use.
const TEXTS_LEAST: usize = 1024;

type Shared = dyn Any + Send + Sync;

/// A text, which stays where it is as long as it is known here, and its object.
struct Known {
    text: Bytes,
    object: Weak<Shared>,
}

/// What one thread has read.
#[derive(Default)]
struct Decoded {
    /// By the place of the text, and the kind that it was read as.
    known: HashMap<(usize, TypeId), Known>,
    /// The objects read last, the oldest in front.
    recent: VecDeque<Arc<Shared>>,
    /// How many texts may be known before those of no use are forgotten.
    texts_max: usize,
}

impl Decoded {
    fn find(&self, text: &Bytes, kind: TypeId) -> Option<Arc<Shared>> {
        let known = self.known.get(&(text.as_ptr() as usize, kind))?;
        (known.text.len() == text.len()).then(|| known.object.upgrade()).flatten()
    }

    fn keep(&mut self, text: &Bytes, kind: TypeId, object: Arc<Shared>) {
        if self.known.len() >= self.texts_max {
            self.known.retain(|_, known| known.object.strong_count() > 0);
            self.texts_max = (2 * self.known.len()).max(TEXTS_LEAST);
        }
        let known = Known { text: text.clone(), object: Arc::downgrade(&object) };
        self.known.insert((text.as_ptr() as usize, kind), known);
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(object);
    }
}

thread_local! {
    static DECODED: RefCell<Decoded> = RefCell::default();
}

/// The object that a text is.
///
/// # Errors
/// What of the text is not of the kind.
pub(crate) fn decoded<K>(text: &Bytes) -> Result<Arc<K>, serde_json::Error>
where
    K: DeserializeOwned + Any + Send + Sync,
{
    let kind = TypeId::of::<K>();
    let known = DECODED.with_borrow(|decoded| decoded.find(text, kind));
    if let Some(object) = known.and_then(|object| object.downcast().ok()) {
        return Ok(object);
    }
    let object: Arc<K> = Arc::new(serde_json::from_slice(text)?);
    DECODED.with_borrow_mut(|decoded| decoded.keep(text, kind, object.clone()));
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_one_object_while_somebody_holds_it() {
        let text = Bytes::from_static(b"[1,2]");
        let numbers = decoded::<Vec<u8>>(&text).unwrap();
        assert!(Arc::ptr_eq(&numbers, &decoded(&text.clone()).unwrap()));
        assert_eq!(*decoded::<Vec<f64>>(&text).unwrap(), [1.0, 2.0], "as another kind");
        assert!(decoded::<Vec<u8>>(&text.slice(..4)).is_err(), "a part of it is another text");
        let elsewhere = Bytes::from(text.to_vec());
        assert!(!Arc::ptr_eq(&numbers, &decoded(&elsewhere).unwrap()));
    }

    #[test]
    fn texts_of_no_use_are_forgotten() {
        let held = Bytes::from(b"[0]".to_vec());
        let first = decoded::<Vec<u8>>(&held).unwrap();
        for _ in 0..3 * TEXTS_LEAST {
            decoded::<Vec<u8>>(&Bytes::from(b"[1]".to_vec())).unwrap();
        }
        let known = DECODED.with_borrow(|decoded| decoded.known.len());
        assert!(known <= TEXTS_LEAST, "{known} texts");
        assert!(Arc::ptr_eq(&first, &decoded(&held).unwrap()));
    }
}
