//! A server's whole state as one document, and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use tree::{Value, json};

use crate::addresses::Addresses;
use crate::custom;
use crate::resource::{self, Resource};
use crate::server::ApiServer;
use crate::store::Place;

const DEFINITION: &str = "CustomResourceDefinition";

impl ApiServer {
    /// All objects, in the versions that they are stored in, with their uids and resourceVersions. Tokens of
    /// ServiceAccounts are not among them.
    pub fn snapshot(&self) -> Value {
        let state = self.state();
        let objects: Vec<&Value> = state
            .store
            .collections
            .values()
            .flat_map(|collection| collection.objects.values().map(|stored| &stored.value))
            .collect();
        json!({"resourceVersion": state.store.version.to_string(), "objects": objects})
    }

    /// Takes over what [`ApiServer::snapshot`] gave, in place of everything that is there. All watches end, and their
    /// clients must list anew.
    ///
    /// # Errors
    /// A sentence that names what is wrong with the document; nothing has changed then.
    pub fn restore(&self, snapshot: &Value) -> Result<(), String> {
        let version = number(&snapshot["resourceVersion"]).ok_or("it has no resourceVersion")?;
        let objects = snapshot["objects"].as_array().ok_or("it has no list of objects")?;
        let mut served: BTreeMap<String, Arc<Resource>> = resource::built_in();
        for definition in objects.iter().filter(|object| object["kind"] == DEFINITION) {
            let made = custom::resource(definition).map_err(|causes| {
                let causes: Vec<String> =
                    causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
                format!("{} {}: {}", DEFINITION, definition["metadata"]["name"], causes.join("; "))
            })?;
            served.insert(made.qualified.to_string(), Arc::new(made));
        }
        let kinds: BTreeMap<(String, &str), &Arc<Resource>> = served
            .values()
            .map(|resource| ((resource.api_version(&resource.storage), resource.kind.as_str()), resource))
            .collect();
        let mut placed = Vec::new();
        for (index, object) in objects.iter().enumerate() {
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            let metadata = &object["metadata"];
            let (api_version, kind) = (text("apiVersion"), text("kind"));
            let name = metadata["name"].as_str().unwrap_or_default();
            let what = format!("objects[{index}] ({kind} of {api_version:?} {name:?})");
            let resource = kinds
                .get(&(api_version.to_owned(), kind))
                .ok_or_else(|| format!("{what}: there is no such kind"))?;
            if name.is_empty() || metadata["uid"].as_str().is_none_or(str::is_empty) {
                return Err(format!("{what}: it has no name or no uid"));
            }
            if number(&metadata["resourceVersion"]).is_none_or(|own| own > version) {
                return Err(format!(
                    "{what}: its resourceVersion is none of the snapshot's, which ends at {version}"
                ));
            }
            let namespace = metadata["namespace"].as_str().unwrap_or_default();
            if resource.namespaced == namespace.is_empty() {
                return Err(format!(
                    "{what}: it {} a namespace",
                    if resource.namespaced { "lacks" } else { "has" }
                ));
            }
            let key = (namespace.to_owned(), name.to_owned());
            placed.push((Place { collection: Arc::clone(&resource.qualified), key }, object.clone()));
        }
        let mut addresses = Addresses::new(self.service_cidr());
        for (_, service) in placed.iter().filter(|(place, _)| &*place.collection == "services") {
            addresses.restore(service);
        }
        let mut state = self.state();
        // Nobody may take what was there before for what is there now.
        let version = version.max(state.store.version + 1);
        state.store.load(served.into_values(), placed, version);
        state.addresses = addresses;
        // The run's own streams would draw the same uids and names again.
        let seed = self.seed().child(&format!("restored at {version}"));
        state.uids = seed.stream("uid");
        state.names = seed.stream("generateName");
        Ok(())
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}
