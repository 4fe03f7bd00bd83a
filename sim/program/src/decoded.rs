//! Objects read from their JSON text, shared by everybody who has the same text.
//!
//! An API server in the same process gives an object's text to all who ask for it, as answer to a read or a write and
//! in each watch, and it is the same text in the same place. So an object that somebody holds is found again by where
//! its text is, and is read once, however many controllers and caches see it.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use kinds::Kind;

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
    known: BTreeMap<(usize, TypeId), Known>,
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
pub(crate) fn decoded<K: Kind>(text: &Bytes) -> Result<Arc<K>, serde_json::Error> {
    let kind = TypeId::of::<K>();
    let known = DECODED.with_borrow(|decoded| decoded.find(text, kind));
    if let Some(object) = known.and_then(|object| object.downcast().ok()) {
        return Ok(object);
    }
    let object: Arc<K> = Arc::new(K::from_json(text)?);
    DECODED.with_borrow_mut(|decoded| decoded.keep(text, kind, object.clone()));
    Ok(object)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};

    use super::*;

    const TEXT: &[u8] = br#"{"metadata":{"name":"settings"}}"#;

    #[test]
    fn one_text_is_one_object_while_somebody_holds_it() {
        let text = Bytes::from_static(TEXT);
        let settings = decoded::<ConfigMap>(&text).unwrap();
        assert!(Arc::ptr_eq(&settings, &decoded(&text.clone()).unwrap()));
        let secret = decoded::<Secret>(&text).unwrap();
        assert_eq!(secret.metadata.name.as_deref(), Some("settings"), "as another kind");
        assert!(decoded::<ConfigMap>(&text.slice(..4)).is_err(), "a part of it is another text");
        let elsewhere = Bytes::from(TEXT.to_vec());
        assert!(!Arc::ptr_eq(&settings, &decoded(&elsewhere).unwrap()));
    }

    #[test]
    fn texts_of_no_use_are_forgotten() {
        let held = Bytes::from(TEXT.to_vec());
        let first = decoded::<ConfigMap>(&held).unwrap();
        for _ in 0..3 * TEXTS_LEAST {
            decoded::<ConfigMap>(&Bytes::from(TEXT.to_vec())).unwrap();
        }
        let known = DECODED.with_borrow(|decoded| decoded.known.len());
        assert!(known <= TEXTS_LEAST, "{known} texts");
        assert!(Arc::ptr_eq(&first, &decoded(&held).unwrap()));
    }
}
