//! Custom resources: what a CustomResourceDefinition makes the server serve.

use tree::{Value, json};

use crate::managed_fields::ListKeys;
use crate::resource::{Generation, Resource, ScalePaths, Version, qualified};
use crate::structural::{Cause, Schema};
use crate::table::Printer;

/// Fills in a definition's defaults and the status that the real server's controllers give it.
pub(crate) fn complete(definition: &mut Value, now: &str) {
    let spec = &mut definition["spec"];
    let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_owned();
    if spec["names"]["singular"].as_str().is_none_or(str::is_empty) {
        spec["names"]["singular"] = json!(kind.to_lowercase());
    }
    if spec["names"]["listKind"].as_str().is_none_or(str::is_empty) {
        spec["names"]["listKind"] = json!(format!("{kind}List"));
    }
    if spec["conversion"].is_null() {
        spec["conversion"] = json!({"strategy": "None"});
    }
    let names = spec["names"].clone();
    let storage: Vec<Value> = versions(definition)
        .iter()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now});
    if definition["status"]["conditions"].is_null() {
        definition["status"]["conditions"] = json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]);
        definition["status"]["storedVersions"] = json!(storage);
    }
    definition["status"]["acceptedNames"] = names;
}

/// The resource that a completed definition describes.
///
/// # Errors
/// Everything that is wrong with the definition.
pub(crate) fn resource(definition: &Value) -> Result<Resource, Vec<Cause>> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let mut causes = Vec::new();
    for (field, value) in [
        ("spec.group", &spec["group"]),
        ("spec.names.plural", &spec["names"]["plural"]),
        ("spec.names.kind", &spec["names"]["kind"]),
        ("spec.scope", &spec["scope"]),
    ] {
        if value.as_str().is_none_or(str::is_empty) {
            causes.push(cause("FieldValueRequired", field, "Required value"));
        }
    }
    let name = &definition["metadata"]["name"];
    if causes.is_empty() && *name != format!("{plural}.{group}") {
        let message = format!("Invalid value: {name}: must be spec.names.plural+\".\"+spec.group");
        causes.push(cause("FieldValueInvalid", "metadata.name", &message));
    }
    let stored: Vec<String> = versions(definition)
        .iter()
        .filter(|version| version["storage"] == true)
        .map(|version| text(&version["name"]))
        .collect();
    if stored.len() != 1 {
        let message = format!(
            "Invalid value: {}: must have exactly one version marked as storage version",
            spec["versions"]
        );
        causes.push(cause("FieldValueInvalid", "spec.versions", &message));
    }
    let mut found = Vec::new();
    for (index, version) in versions(definition).iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            causes.push(cause(
                "FieldValueRequired",
                &format!("{path}.schema.openAPIV3Schema"),
                "Required value: schemas are required",
            ));
            continue;
        }
        let compiled = Schema::compile(schema);
        let printer = Printer::custom(&version["additionalPrinterColumns"]);
        let scale = &version["subresources"]["scale"];
        match (compiled, printer) {
            (Ok(schema_compiled), Ok(printer)) => found.push(Version {
                name: text(&version["name"]),
                served: version["served"] != false,
                status: !version["subresources"]["status"].is_null(),
                scale: scale.is_object().then(|| ScalePaths {
                    spec_replicas: path_of(&scale["specReplicasPath"]),
                    status_replicas: path_of(&scale["statusReplicasPath"]),
                    selector: scale["labelSelectorPath"]
                        .is_string()
                        .then(|| path_of(&scale["labelSelectorPath"])),
                }),
                schema: Some(schema_compiled),
                keys: ListKeys::from_schema(schema),
                printer,
            }),
            (Err(problems), _) => causes.extend(problems.into_iter().map(|mut problem| {
                problem.field = format!("{path}.schema.openAPIV3Schema{}", dotted(&problem.field));
                problem
            })),
            (_, Err(problem)) => causes.push(cause(
                "FieldValueInvalid",
                &format!("{path}.additionalPrinterColumns"),
                &format!("Invalid value: {problem}"),
            )),
        }
    }
    if !causes.is_empty() {
        return Err(causes);
    }
    found.sort_by_key(|version| std::cmp::Reverse(priority(&version.name)));
    Ok(Resource {
        qualified: qualified(&plural, &group).into(),
        group,
        plural,
        singular: text(&spec["names"]["singular"]),
        kind: text(&spec["names"]["kind"]),
        list_kind: text(&spec["names"]["listKind"]),
        namespaced: spec["scope"] == "Namespaced",
        short_names: texts(&spec["names"]["shortNames"]),
        categories: texts(&spec["names"]["categories"]),
        versions: found,
        storage: stored[0].clone(),
        custom: true,
        generation: Generation::Content,
    })
}

fn versions(definition: &Value) -> &[Value] {
    definition["spec"]["versions"].as_array().map(tree::Array::as_slice).unwrap_or_default()
}

fn cause(reason: &'static str, field: &str, message: &str) -> Cause {
    Cause { reason, message: message.to_owned(), field: field.to_owned() }
}

fn dotted(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(".{path}") }
}

fn path_of(path: &Value) -> Vec<String> {
    path.as_str().unwrap_or_default().split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Kubernetes' order of version names: v2 before v1 before v1beta2 before v1beta1 before v1alpha1 before the rest.
fn priority(name: &str) -> (u8, u64, u64) {
    let parsed = || {
        let rest = name.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u64 = rest[..digits].parse().ok()?;
        let (stability, minor) = match &rest[digits..] {
            "" => (3, 0),
            suffix => match suffix.strip_prefix("beta") {
                Some(minor) => (2, minor.parse().ok()?),
                None => (1, suffix.strip_prefix("alpha")?.parse().ok()?),
            },
        };
        Some((stability, major, minor))
    };
    parsed().unwrap_or((0, 0, 0))
}
