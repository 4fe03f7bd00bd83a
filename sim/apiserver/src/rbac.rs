//! Role-based access control: who may do what, by the Roles and bindings in the store.

use tree::{Value, json};

use crate::store::Store;
use crate::user::{AUTHENTICATED, MASTERS, User};

const GROUP: &str = "rbac.authorization.k8s.io";

/// What somebody wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    /// The plural; empty for a path that is no resource.
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// The path, if it is no resource.
    pub path: &'a str,
}

impl Attributes<'_> {
    /// The refusal's text, as the real server words it.
    pub(crate) fn refusal(&self, user: &User) -> String {
        let who = format!("User {:?} cannot {}", user.name, self.verb);
        if self.resource.is_empty() {
            return format!("{who} path {:?}", self.path);
        }
        let what = match self.subresource {
            "" => self.resource.to_owned(),
            part => format!("{}/{part}", self.resource),
        };
        let place = match self.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!("{who} resource {what:?} in API group {:?} {place}", self.group)
    }
}

/// Whether a user may do it, and by which binding.
pub(crate) fn allows(store: &Store, user: &User, wanted: &Attributes<'_>) -> Option<String> {
    if user.is_in(MASTERS) {
        return Some(format!("the user is in the group {MASTERS:?}"));
    }
    let mut rules = rules_of(store, user, wanted.namespace).into_iter();
    rules.find(|(_, rule)| covers(rule, wanted)).map(|(binding, _)| binding)
}

/// The rules that apply to a user in a namespace, each with the binding that gives it.
pub(crate) fn rules_of(store: &Store, user: &User, namespace: &str) -> Vec<(String, Value)> {
    let mut rules = Vec::new();
    let bindings = |plural: &str| {
        let collection = store.collection(&format!("{plural}.{GROUP}"));
        collection.into_iter().flat_map(|collection| collection.objects.iter())
    };
    let cluster_wide = bindings("clusterrolebindings").map(|(key, stored)| (key, stored, true));
    let namespaced = bindings("rolebindings")
        .filter(|(key, _)| !namespace.is_empty() && key.0 == namespace)
        .map(|(key, stored)| (key, stored, false));
    for (key, stored, everywhere) in cluster_wide.chain(namespaced) {
        let binding = &stored.value;
        let subjects = binding["subjects"].as_array().map(tree::Array::as_slice).unwrap_or_default();
        if !subjects.iter().any(|subject| is_subject(subject, user, &key.0)) {
            continue;
        }
        let role = &binding["roleRef"];
        let name = role["name"].as_str().unwrap_or_default();
        let (collection, place) = match role["kind"].as_str() {
            Some("Role") => ("roles", key.0.as_str()),
            _ => ("clusterroles", ""),
        };
        let place = crate::store::Place {
            collection: format!("{collection}.{GROUP}").as_str().into(),
            key: (place.to_owned(), name.to_owned()),
        };
        let Some(role) = store.get(&place) else { continue };
        let kind = if everywhere { "ClusterRoleBinding" } else { "RoleBinding" };
        let by = format!("RBAC: allowed by {kind} {:?} of {} {name:?}", key.1, binding["roleRef"]["kind"]);
        for rule in role.value["rules"].as_array().into_iter().flatten() {
            // Paths that are no resources belong to the cluster.
            if everywhere || rule["nonResourceURLs"].is_null() {
                rules.push((by.clone(), rule.clone()));
            }
        }
    }
    rules
}

fn is_subject(subject: &Value, user: &User, binding_namespace: &str) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == user.name,
        Some("Group") => user.is_in(name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or(binding_namespace);
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn covers(rule: &Value, wanted: &Attributes<'_>) -> bool {
    let lists = |field: &str, item: &str| {
        let items = rule[field].as_array().map(tree::Array::as_slice).unwrap_or_default();
        items.iter().any(|found| found == "*" || *found == item)
    };
    if !lists("verbs", wanted.verb) {
        return false;
    }
    if wanted.resource.is_empty() {
        let paths = rule["nonResourceURLs"].as_array().map(tree::Array::as_slice).unwrap_or_default();
        return paths.iter().filter_map(Value::as_str).any(|path| match path.strip_suffix('*') {
            Some(prefix) => wanted.path.starts_with(prefix),
            None => wanted.path == path,
        });
    }
    let resource = match wanted.subresource {
        "" => wanted.resource.to_owned(),
        part => format!("{}/{part}", wanted.resource),
    };
    let any_of_part = format!("*/{}", wanted.subresource);
    let names = rule["resourceNames"].as_array().map(tree::Array::as_slice).unwrap_or_default();
    lists("apiGroups", wanted.group)
        && (lists("resources", &resource)
            || (!wanted.subresource.is_empty() && lists("resources", &any_of_part)))
        && (names.is_empty() || names.iter().any(|name| *name == wanted.name))
}

/// The ClusterRoles and bindings that every cluster has: plural and object.
pub(crate) fn defaults() -> Vec<(&'static str, Value)> {
    const READ: [&str; 3] = ["get", "list", "watch"];
    const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let core = [
        "pods",
        "pods/log",
        "pods/status",
        "services",
        "services/status",
        "endpoints",
        "configmaps",
        "events",
        "persistentvolumeclaims",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "serviceaccounts",
        "limitranges",
        "resourcequotas",
        "namespaces",
    ];
    let others = ["apps", "autoscaling", "batch", "discovery.k8s.io", "networking.k8s.io", "policy"];
    let view = || vec![rule(&[""], &core, &READ), rule(&others, &["*"], &READ)];
    let edit = || {
        let changeable: Vec<&str> = core
            .iter()
            .copied()
            .filter(|name| !matches!(*name, "namespaces" | "limitranges" | "resourcequotas" | "pods/log"))
            .chain(["secrets", "pods/exec", "pods/attach", "pods/portforward", "pods/eviction"])
            .collect();
        let mut rules = view();
        rules.push(rule(&[""], &["secrets"], &READ));
        rules.push(rule(&[""], &changeable, &WRITE));
        rules.push(rule(&others, &["*"], &WRITE));
        rules.push(rule(&["coordination.k8s.io"], &["leases"], &["*"]));
        rules
    };
    let admin = || {
        let mut rules = edit();
        rules.push(rule(&[GROUP], &["roles", "rolebindings"], &["*"]));
        rules
    };
    let role = |name: &str, rules: Vec<Value>| {
        let object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": rules});
        ("clusterroles", object)
    };
    let binding = |name: &str, role: &str, group: &str| {
        let object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group}]});
        ("clusterrolebindings", object)
    };
    let everything = vec![rule(&["*"], &["*"], &["*"]), json!({"nonResourceURLs": ["*"], "verbs": ["*"]})];
    let discovery =
        vec![json!({"nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez",
        "/openapi", "/openapi/*", "/readyz", "/version", "/version/"], "verbs": ["get"]})];
    let reviews = vec![
        rule(
            &["authorization.k8s.io"],
            &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            &["create"],
        ),
        rule(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
    ];
    vec![
        role("admin", admin()),
        role("cluster-admin", everything),
        role("edit", edit()),
        role("system:basic-user", reviews),
        role("system:discovery", discovery),
        role("view", view()),
        binding("cluster-admin", "cluster-admin", MASTERS),
        binding("system:basic-user", "system:basic-user", AUTHENTICATED),
        binding("system:discovery", "system:discovery", AUTHENTICATED),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_cover_groups_subresources_names_and_paths() {
        let rule = json!({"apiGroups": ["", "apps"], "resources": ["pods", "*/scale"], "verbs": ["get"],
                          "resourceNames": ["a"]});
        let wants = |group, resource, subresource, name| Attributes {
            verb: "get",
            group,
            resource,
            subresource,
            name,
            namespace: "test",
            path: "",
        };
        assert!(covers(&rule, &wants("", "pods", "", "a")));
        assert!(covers(&rule, &wants("apps", "deployments", "scale", "a")));
        assert!(!covers(&rule, &wants("", "pods", "log", "a")));
        assert!(!covers(&rule, &wants("", "pods", "", "b")));
        assert!(!covers(&rule, &wants("batch", "pods", "", "a")));
        let paths = json!({"nonResourceURLs": ["/healthz", "/api*"], "verbs": ["get"]});
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        assert!(covers(&paths, &path("/apis/apps")));
        assert!(!covers(&paths, &path("/healthz/x")));
        assert!(!covers(&paths, &wants("", "pods", "", "a")));
    }
}
