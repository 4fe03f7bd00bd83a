//! The resources that a server serves: names, versions, subresources.
//!
//! Built-in resources are the table at the end; custom ones are made from their CRD by [`crate::custom`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::managed_fields::ListKeys;
use crate::structural::Schema;
use crate::table::Printer;

/// When `metadata.generation` counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// Never, and the field is absent.
    None,
    /// When `spec` changes.
    Spec,
    /// When `spec` or the annotations change (Deployments).
    SpecAndAnnotations,
    /// When anything but metadata (and status, if it is a subresource) changes (custom resources).
    Content,
}

/// Where the `scale` subresource finds its figures: paths as field names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    pub spec_replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    /// A string field with the selector; built-in kinds give `spec.selector`, an object.
    pub selector: Option<Vec<String>>,
}

/// One version of a resource.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// `v1`; with a group in front (`events.k8s.io/v1`) if this version is served in another group than the resource's.
    pub name: String,
    pub served: bool,
    pub status: bool,
    pub scale: Option<ScalePaths>,
    /// Custom resources only.
    pub schema: Option<Schema>,
    pub keys: ListKeys,
    pub printer: Printer,
}

/// One resource: all versions of a kind under one plural.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub group: String,
    pub plural: String,
    /// `deployments.apps`, or `pods` in the core group: the key of the store, and the name in messages.
    pub qualified: Arc<str>,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// In the order of preference.
    pub versions: Vec<Version>,
    /// The version that objects are kept in.
    pub storage: String,
    pub custom: bool,
    pub generation: Generation,
}

impl Resource {
    /// `Deployment.apps`, or `Pod` in the core group.
    pub(crate) fn qualified_kind(&self) -> String {
        qualified(&self.kind, &self.group)
    }

    /// `apps/Deployment`, or `/Pod` in the core group.
    pub(crate) fn group_kind(&self) -> String {
        format!("{}/{}", self.group, self.kind)
    }

    pub(crate) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    pub(crate) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// The group and the version proper that one of the versions is served as.
    pub(crate) fn served_as<'a>(&'a self, version: &'a Version) -> (&'a str, &'a str) {
        version.name.split_once('/').unwrap_or((&self.group, &version.name))
    }

    /// The version that is served as this group and version.
    pub(crate) fn serving(&self, group: &str, version: &str) -> Option<&Version> {
        self.versions.iter().find(|found| found.served && self.served_as(found) == (group, version))
    }

    /// The version that objects are kept in.
    pub(crate) fn stored(&self) -> &Version {
        self.version(&self.storage).expect("the storage version is one of the versions")
    }
}

/// `NAME.GROUP`, or `NAME` in the core group.
pub(crate) fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// Status and scale subresources of a built-in kind.
const NONE: (bool, bool) = (false, false);
const STATUS: (bool, bool) = (true, false);
const SCALE: (bool, bool) = (true, true);

type Row = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
    bool,
    &'static [&'static str],
    bool,
    (bool, bool),
    Generation,
);

use Generation::{None as Never, Spec, SpecAndAnnotations};

/// Group, versions (preferred first, which is the one stored), plural, kind, namespaced, short names, in category
/// `all`, subresources, generation.
const BUILT_IN: &[Row] = &[
    ("", &["v1"], "configmaps", "ConfigMap", true, &["cm"], false, NONE, Never),
    ("", &["v1"], "endpoints", "Endpoints", true, &["ep"], false, NONE, Never),
    ("", &["v1", crate::events::VERSION], "events", "Event", true, &["ev"], false, NONE, Never),
    ("", &["v1"], "limitranges", "LimitRange", true, &["limits"], false, NONE, Never),
    ("", &["v1"], "namespaces", "Namespace", false, &["ns"], false, STATUS, Never),
    ("", &["v1"], "nodes", "Node", false, &["no"], false, STATUS, Never),
    ("", &["v1"], "persistentvolumeclaims", "PersistentVolumeClaim", true, &["pvc"], false, STATUS, Never),
    ("", &["v1"], "persistentvolumes", "PersistentVolume", false, &["pv"], false, STATUS, Never),
    ("", &["v1"], "pods", "Pod", true, &["po"], true, STATUS, Spec),
    ("", &["v1"], "replicationcontrollers", "ReplicationController", true, &["rc"], true, SCALE, Spec),
    ("", &["v1"], "resourcequotas", "ResourceQuota", true, &["quota"], false, STATUS, Never),
    ("", &["v1"], "secrets", "Secret", true, &[], false, NONE, Never),
    ("", &["v1"], "serviceaccounts", "ServiceAccount", true, &["sa"], false, NONE, Never),
    ("", &["v1"], "services", "Service", true, &["svc"], true, STATUS, Never),
    (
        "admissionregistration.k8s.io",
        &["v1"],
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        false,
        &[],
        false,
        NONE,
        Spec,
    ),
    (
        "admissionregistration.k8s.io",
        &["v1"],
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        false,
        &[],
        false,
        NONE,
        Spec,
    ),
    (
        "apiextensions.k8s.io",
        &["v1"],
        "customresourcedefinitions",
        "CustomResourceDefinition",
        false,
        &["crd", "crds"],
        false,
        STATUS,
        Spec,
    ),
    ("apps", &["v1"], "controllerrevisions", "ControllerRevision", true, &[], false, NONE, Never),
    ("apps", &["v1"], "daemonsets", "DaemonSet", true, &["ds"], true, STATUS, Spec),
    ("apps", &["v1"], "deployments", "Deployment", true, &["deploy"], true, SCALE, SpecAndAnnotations),
    ("apps", &["v1"], "replicasets", "ReplicaSet", true, &["rs"], true, SCALE, Spec),
    ("apps", &["v1"], "statefulsets", "StatefulSet", true, &["sts"], true, SCALE, Spec),
    (
        "autoscaling",
        &["v2", "v1", "v2beta2", "v2beta1"],
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        true,
        &["hpa"],
        true,
        STATUS,
        Never,
    ),
    ("batch", &["v1"], "cronjobs", "CronJob", true, &["cj"], true, STATUS, Spec),
    ("batch", &["v1"], "jobs", "Job", true, &[], true, STATUS, Spec),
    ("coordination.k8s.io", &["v1"], "leases", "Lease", true, &[], false, NONE, Never),
    ("discovery.k8s.io", &["v1"], "endpointslices", "EndpointSlice", true, &[], false, NONE, Spec),
    ("networking.k8s.io", &["v1"], "ingressclasses", "IngressClass", false, &[], false, NONE, Spec),
    ("networking.k8s.io", &["v1"], "ingresses", "Ingress", true, &["ing"], false, STATUS, Spec),
    ("networking.k8s.io", &["v1"], "networkpolicies", "NetworkPolicy", true, &["netpol"], false, NONE, Spec),
    ("policy", &["v1"], "poddisruptionbudgets", "PodDisruptionBudget", true, &["pdb"], false, STATUS, Spec),
    (
        "rbac.authorization.k8s.io",
        &["v1"],
        "clusterrolebindings",
        "ClusterRoleBinding",
        false,
        &[],
        false,
        NONE,
        Never,
    ),
    ("rbac.authorization.k8s.io", &["v1"], "clusterroles", "ClusterRole", false, &[], false, NONE, Never),
    ("rbac.authorization.k8s.io", &["v1"], "rolebindings", "RoleBinding", true, &[], false, NONE, Never),
    ("rbac.authorization.k8s.io", &["v1"], "roles", "Role", true, &[], false, NONE, Never),
    ("scheduling.k8s.io", &["v1"], "priorityclasses", "PriorityClass", false, &["pc"], false, NONE, Never),
    ("storage.k8s.io", &["v1"], "storageclasses", "StorageClass", false, &["sc"], false, NONE, Never),
];

/// The built-in resources by qualified name.
pub(crate) fn built_in() -> BTreeMap<String, Arc<Resource>> {
    let path = |path: &[&str]| path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    BUILT_IN
        .iter()
        .map(|(group, versions, plural, kind, namespaced, short, all, (status, scale), generation)| {
            let group_kind = format!("{group}/{kind}");
            let version = |name: &&str| Version {
                name: (*name).to_owned(),
                served: true,
                status: *status,
                scale: scale.then(|| ScalePaths {
                    spec_replicas: path(&["spec", "replicas"]),
                    status_replicas: path(&["status", "replicas"]),
                    selector: None,
                }),
                schema: None,
                keys: ListKeys::built_in(&group_kind),
                printer: Printer::built_in(&group_kind),
            };
            let resource = Resource {
                group: (*group).to_owned(),
                plural: (*plural).to_owned(),
                qualified: qualified(plural, group).into(),
                singular: kind.to_lowercase(),
                kind: (*kind).to_owned(),
                list_kind: format!("{kind}List"),
                namespaced: *namespaced,
                short_names: short.iter().map(|name| (*name).to_owned()).collect(),
                categories: if *all { vec!["all".to_owned()] } else { Vec::new() },
                versions: versions.iter().map(version).collect(),
                storage: versions[0].to_owned(),
                custom: false,
                generation: *generation,
            };
            (resource.qualified.to_string(), Arc::new(resource))
        })
        .collect()
}
