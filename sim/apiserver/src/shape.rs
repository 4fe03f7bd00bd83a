//! The shape of each kind as patches see it: which lists merge, and by which keys.
//!
//! Two formats read it. Strategic merge patch takes a list's `patchMergeKey`; server-side apply takes its
//! `x-kubernetes-list-type` and map keys. The two disagree in places (container ports: `containerPort` alone, or with
//! `protocol`), so each [`Field`] holds both. Only fields that differ from the default are listed: an unlisted list is
//! replaced whole, an unlisted object merges field by field.
//!
//! Built-in kinds come from the static graph below (upstream: the `patchStrategy` and `+listType` tags of
//! `k8s.io/api`), custom kinds from their CRD's schema.

use std::collections::BTreeMap;
use std::sync::Arc;
use tree::Value;

/// An object type: its fields that patches treat in a special way.
#[derive(Debug)]
pub(crate) struct Type {
    fields: &'static [Field],
}

/// The key of an associative list, and the value that a missing one stands for.
pub(crate) type StaticKey = (&'static str, Option<&'static str>);

#[derive(Debug)]
enum StaticList {
    Atomic,
    Set,
    Map(&'static [StaticKey]),
}

/// How strategic merge patch treats a list or an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Objects merge, lists are replaced.
    Default,
    /// A list of objects that merges by this key.
    ByKey(&'static str),
    /// A list of scalars that is a set.
    Scalars,
    /// An object that is replaced.
    Replace,
}

/// A field of a [`Type`].
#[derive(Debug)]
pub(crate) struct Field {
    name: &'static str,
    ty: Option<&'static Type>,
    list: StaticList,
    merge: Merge,
    /// Server-side apply takes the object as one value.
    atomic: bool,
    /// Go writes the field even when it is empty, so no manager ever owns the mere presence of it.
    always: bool,
}

impl Field {
    const fn new(name: &'static str, ty: Option<&'static Type>) -> Field {
        Field { name, ty, list: StaticList::Atomic, merge: Merge::Default, atomic: false, always: false }
    }

    /// A list that merges by the same key in both formats.
    const fn by(
        name: &'static str,
        key: &'static str,
        keys: &'static [StaticKey],
        ty: Option<&'static Type>,
    ) -> Field {
        let mut field = Field::new(name, ty);
        field.list = StaticList::Map(keys);
        field.merge = Merge::ByKey(key);
        field
    }

    /// A list that only server-side apply merges.
    const fn applied_by(name: &'static str, keys: &'static [StaticKey]) -> Field {
        let mut field = Field::new(name, None);
        field.list = StaticList::Map(keys);
        field
    }

    /// A list that only strategic merge patch merges.
    const fn patched_by(name: &'static str, key: &'static str) -> Field {
        let mut field = Field::new(name, None);
        field.merge = Merge::ByKey(key);
        field
    }

    /// A list of scalars that is a set in both formats.
    const fn set(name: &'static str) -> Field {
        let mut field = Field::new(name, None);
        field.list = StaticList::Set;
        field.merge = Merge::Scalars;
        field
    }

    const fn object(name: &'static str, ty: &'static Type) -> Field {
        Field::new(name, Some(ty))
    }

    const fn atomic(name: &'static str) -> Field {
        let mut field = Field::new(name, None);
        field.atomic = true;
        field
    }

    const fn always(mut self) -> Field {
        self.always = true;
        self
    }

    const fn replaced(mut self) -> Field {
        self.merge = Merge::Replace;
        self
    }
}

const NAME: &[StaticKey] = &[("name", None)];
const TYPE: &[StaticKey] = &[("type", None)];
const IP: &[StaticKey] = &[("ip", None)];

const fn metadata() -> Field {
    Field::object("metadata", &OBJECT_META).always()
}
const fn spec(ty: &'static Type) -> Field {
    Field::object("spec", ty).always()
}
const fn status(ty: &'static Type) -> Field {
    Field::object("status", ty).always()
}
const fn by_name(name: &'static str, ty: Option<&'static Type>) -> Field {
    Field::by(name, "name", NAME, ty)
}

static OBJECT_META: Type =
    Type { fields: &[Field::by("ownerReferences", "uid", &[("uid", None)], None), Field::set("finalizers")] };

static CONDITIONS: Type = Type { fields: &[Field::by("conditions", "type", TYPE, None)] };

static ENV_VAR: Type = Type { fields: &[Field::object("valueFrom", &ENV_VAR_SOURCE)] };

static ENV_VAR_SOURCE: Type = Type {
    fields: &[
        Field::atomic("fieldRef"),
        Field::atomic("resourceFieldRef"),
        Field::atomic("configMapKeyRef"),
        Field::atomic("secretKeyRef"),
    ],
};

static RESOURCES: Type = Type { fields: &[Field::applied_by("claims", NAME)] };

static CONTAINER: Type = Type {
    fields: &[
        Field::by("ports", "containerPort", &[("containerPort", None), ("protocol", Some("TCP"))], None),
        by_name("env", Some(&ENV_VAR)),
        Field::by("volumeMounts", "mountPath", &[("mountPath", None)], None),
        Field::by("volumeDevices", "devicePath", &[("devicePath", None)], None),
        Field::object("resources", &RESOURCES).always(),
    ],
};

static SPREAD: Type = Type { fields: &[Field::atomic("labelSelector")] };

static POD_SPEC: Type = Type {
    fields: &[
        by_name("containers", Some(&CONTAINER)).always(),
        by_name("initContainers", Some(&CONTAINER)),
        by_name("ephemeralContainers", Some(&CONTAINER)),
        by_name("volumes", None),
        by_name("imagePullSecrets", None),
        by_name("schedulingGates", None),
        by_name("resourceClaims", None),
        Field::by("hostAliases", "ip", IP, None),
        Field::by(
            "topologySpreadConstraints",
            "topologyKey",
            &[("topologyKey", None), ("whenUnsatisfiable", None)],
            Some(&SPREAD),
        ),
        Field::atomic("nodeSelector"),
    ],
};

static POD_STATUS: Type = Type {
    fields: &[
        Field::by("conditions", "type", TYPE, None),
        Field::by("podIPs", "ip", IP, None),
        Field::patched_by("hostIPs", "ip"),
        by_name("resourceClaimStatuses", None),
    ],
};

static POD: Type = Type { fields: &[metadata(), spec(&POD_SPEC), status(&POD_STATUS)] };

static POD_TEMPLATE: Type = Type { fields: &[metadata(), spec(&POD_SPEC)] };

static EMPTY: Type = Type { fields: &[] };

/// The spec of Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs.
static WORKLOAD_SPEC: Type = Type {
    fields: &[
        Field::atomic("selector"),
        Field::object("template", &POD_TEMPLATE).always(),
        Field::object("strategy", &EMPTY).always(),
        Field::object("updateStrategy", &EMPTY).always(),
    ],
};

static WORKLOAD: Type = Type { fields: &[metadata(), spec(&WORKLOAD_SPEC), status(&CONDITIONS)] };

static JOB_STATUS: Type = Type { fields: &[Field::patched_by("conditions", "type")] };

static JOB: Type = Type { fields: &[metadata(), spec(&WORKLOAD_SPEC), status(&JOB_STATUS)] };

static JOB_TEMPLATE: Type = Type { fields: &[metadata(), spec(&WORKLOAD_SPEC)] };

static CRON_JOB_SPEC: Type = Type { fields: &[Field::object("jobTemplate", &JOB_TEMPLATE).always()] };

static CRON_JOB: Type = Type { fields: &[metadata(), spec(&CRON_JOB_SPEC), status(&EMPTY)] };

static SERVICE_SPEC: Type = Type {
    fields: &[
        Field::by("ports", "port", &[("port", None), ("protocol", Some("TCP"))], None),
        Field::atomic("selector"),
    ],
};

static SERVICE_STATUS: Type = Type {
    fields: &[Field::by("conditions", "type", TYPE, None), Field::object("loadBalancer", &EMPTY).always()],
};

static SERVICE: Type = Type { fields: &[metadata(), spec(&SERVICE_SPEC), status(&SERVICE_STATUS)] };

static SERVICE_ACCOUNT: Type =
    Type { fields: &[metadata(), by_name("secrets", None), Field::patched_by("imagePullSecrets", "name")] };

static NODE_SPEC: Type = Type { fields: &[Field::set("podCIDRs")] };

static NODE_STATUS: Type = Type {
    fields: &[Field::by("conditions", "type", TYPE, None), Field::by("addresses", "type", TYPE, None)],
};

static NODE: Type = Type { fields: &[metadata(), spec(&NODE_SPEC), status(&NODE_STATUS)] };

static AUTOSCALER_SPEC: Type = Type { fields: &[Field::atomic("scaleTargetRef")] };

static AUTOSCALER: Type = Type { fields: &[metadata(), spec(&AUTOSCALER_SPEC), status(&CONDITIONS)] };

static DISRUPTION_SPEC: Type = Type { fields: &[Field::atomic("selector").replaced()] };

static DISRUPTION_BUDGET: Type = Type { fields: &[metadata(), spec(&DISRUPTION_SPEC), status(&CONDITIONS)] };

static CLAIM_SPEC: Type = Type {
    fields: &[
        Field::atomic("selector"),
        Field::atomic("dataSource"),
        Field::object("resources", &EMPTY).always(),
    ],
};

static CLAIM: Type = Type { fields: &[metadata(), spec(&CLAIM_SPEC), status(&CONDITIONS)] };

static CONTROLLER_SPEC: Type =
    Type { fields: &[Field::atomic("selector"), Field::object("template", &POD_TEMPLATE)] };

static CONTROLLER: Type = Type { fields: &[metadata(), spec(&CONTROLLER_SPEC), status(&CONDITIONS)] };

static NETWORK_POLICY_SPEC: Type = Type { fields: &[Field::atomic("podSelector")] };

static NETWORK_POLICY: Type = Type { fields: &[metadata(), spec(&NETWORK_POLICY_SPEC)] };

static ROLE_BINDING: Type = Type { fields: &[metadata(), Field::atomic("roleRef")] };

static WEBHOOKS: Type = Type { fields: &[metadata(), by_name("webhooks", None)] };

static ENDPOINTS: Type = Type { fields: &[metadata()] };

/// A kind of which only metadata and conditions are special.
static PLAIN: Type = Type { fields: &[metadata(), spec(&EMPTY), status(&CONDITIONS)] };

/// The shape of a built-in kind, named `apps/Deployment`, or `/Pod` for the core group.
fn built_in(group_kind: &str) -> &'static Type {
    match group_kind {
        "/Pod" => &POD,
        "/PodTemplate" => &CONTROLLER_SPEC,
        "/Service" => &SERVICE,
        "/ServiceAccount" => &SERVICE_ACCOUNT,
        "/Node" => &NODE,
        "/PersistentVolumeClaim" => &CLAIM,
        "/ReplicationController" => &CONTROLLER,
        "/Endpoints" | "discovery.k8s.io/EndpointSlice" => &ENDPOINTS,
        "apps/Deployment" | "apps/ReplicaSet" | "apps/StatefulSet" | "apps/DaemonSet" => &WORKLOAD,
        "batch/Job" => &JOB,
        "batch/CronJob" => &CRON_JOB,
        "autoscaling/HorizontalPodAutoscaler" => &AUTOSCALER,
        "policy/PodDisruptionBudget" => &DISRUPTION_BUDGET,
        "networking.k8s.io/NetworkPolicy" => &NETWORK_POLICY,
        "rbac.authorization.k8s.io/RoleBinding" | "rbac.authorization.k8s.io/ClusterRoleBinding" => {
            &ROLE_BINDING
        }
        "admissionregistration.k8s.io/ValidatingWebhookConfiguration"
        | "admissionregistration.k8s.io/MutatingWebhookConfiguration" => &WEBHOOKS,
        _ => &PLAIN,
    }
}

/// The shape of a custom kind, or of a part of it, from its schema.
#[derive(Debug, Default)]
pub(crate) struct SchemaShape {
    fields: BTreeMap<String, SchemaShape>,
    additional: Option<Box<SchemaShape>>,
    items: Option<Box<SchemaShape>>,
    list: SchemaList,
    atomic: bool,
    /// The object is a whole resource: its metadata is shaped like every metadata.
    resource: bool,
}

#[derive(Debug, Default)]
enum SchemaList {
    #[default]
    Atomic,
    Set,
    Map(Vec<(String, Option<Value>)>),
}

impl SchemaShape {
    fn compile(schema: &Value) -> SchemaShape {
        let nested = |schema: &Value| schema.is_object().then(|| Box::new(SchemaShape::compile(schema)));
        let items = &schema["items"];
        let list = match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => SchemaList::Set,
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array();
                let mut keys: Vec<(String, Option<Value>)> = keys
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(|key| (key.to_owned(), items["properties"][key].get("default").cloned()))
                    .collect();
                keys.sort_by(|a, b| a.0.cmp(&b.0));
                SchemaList::Map(keys)
            }
            _ => SchemaList::Atomic,
        };
        SchemaShape {
            fields: schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, schema)| (name.to_string(), SchemaShape::compile(schema)))
                .collect(),
            additional: nested(&schema["additionalProperties"]),
            items: nested(items),
            list,
            atomic: schema["x-kubernetes-map-type"] == "atomic",
            resource: schema["x-kubernetes-embedded-resource"] == true,
        }
    }
}

/// Which lists of a kind merge under server-side apply, and by which keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ListKeys(Root);

#[derive(Debug, Clone)]
enum Root {
    BuiltIn(&'static Type),
    Custom(Arc<SchemaShape>),
}

impl ListKeys {
    /// The keys of a built-in kind, named `apps/Deployment`, or `/Pod` for the core group.
    pub fn built_in(group_kind: &str) -> ListKeys {
        ListKeys(Root::BuiltIn(built_in(group_kind)))
    }

    /// The keys that a CRD version's `openAPIV3Schema` declares (`x-kubernetes-list-type`, `-list-map-keys`,
    /// `-map-type`). Lists without a type are atomic.
    pub fn from_schema(schema: &Value) -> ListKeys {
        let mut shape = SchemaShape::compile(schema);
        shape.resource = true;
        ListKeys(Root::Custom(Arc::new(shape)))
    }

    pub(crate) fn root(&self) -> Cursor<'_> {
        match &self.0 {
            Root::BuiltIn(ty) => Cursor::Type(ty),
            Root::Custom(shape) => Cursor::Schema(shape),
        }
    }
}

/// A place in a shape, while walking an object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cursor<'a> {
    /// The value of a built-in field.
    Field(&'static Field),
    /// An object of a built-in type: the root, or an item of a list.
    Type(&'static Type),
    /// A value that a CRD's schema describes.
    Schema(&'a SchemaShape),
    /// A value that the built-in graph does not list: default rules.
    Unlisted,
    /// A value that a CRD's schema does not describe (preserved unknown fields).
    Undescribed,
}

/// What a list is under server-side apply.
#[derive(Debug, Clone, Copy)]
pub(crate) enum List<'a> {
    /// One value, owned as a whole.
    Atomic,
    /// Scalars, each owned by itself.
    Set,
    /// Objects that are told apart by keys.
    Map(Keys<'a>),
}

/// The keys of an associative list, sorted by name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys<'a> {
    BuiltIn(&'static [StaticKey]),
    Schema(&'a [(String, Option<Value>)]),
}

impl Keys<'_> {
    /// Calls `take` with each key and the default of a missing one, as JSON text.
    pub(crate) fn each(self, mut take: impl FnMut(&str, Option<&Value>, Option<&str>)) {
        match self {
            Keys::BuiltIn(keys) => keys.iter().for_each(|(key, default)| take(key, None, *default)),
            Keys::Schema(keys) => keys.iter().for_each(|(key, default)| take(key, default.as_ref(), None)),
        }
    }
}

impl<'a> Cursor<'a> {
    /// The root of a built-in kind, for strategic merge patch.
    pub(crate) fn built_in(group_kind: &str) -> Cursor<'static> {
        Cursor::Type(built_in(group_kind))
    }

    /// The place of a field of the object here.
    pub(crate) fn field(self, name: &str) -> Cursor<'a> {
        let of = |ty: &'static Type| {
            ty.fields.iter().find(|field| field.name == name).map_or(Cursor::Unlisted, Cursor::Field)
        };
        match self {
            Cursor::Type(ty) => of(ty),
            Cursor::Field(field) => field.ty.map_or(Cursor::Unlisted, of),
            Cursor::Schema(shape) if shape.resource && name == "metadata" => Cursor::Type(&OBJECT_META),
            Cursor::Schema(shape) => match (shape.fields.get(name), &shape.additional) {
                (Some(field), _) => Cursor::Schema(field),
                (None, Some(additional)) => Cursor::Schema(additional),
                (None, None) => Cursor::Undescribed,
            },
            Cursor::Unlisted => Cursor::Unlisted,
            Cursor::Undescribed => Cursor::Undescribed,
        }
    }

    /// The place of the items of the list here.
    pub(crate) fn items(self) -> Cursor<'a> {
        match self {
            Cursor::Field(field) => field.ty.map_or(Cursor::Unlisted, Cursor::Type),
            Cursor::Schema(shape) => shape.items.as_deref().map_or(Cursor::Undescribed, Cursor::Schema),
            Cursor::Undescribed => Cursor::Undescribed,
            Cursor::Type(_) | Cursor::Unlisted => Cursor::Unlisted,
        }
    }

    /// What the list here is under server-side apply.
    pub(crate) fn list(self) -> List<'a> {
        match self {
            Cursor::Field(field) => match field.list {
                StaticList::Atomic => List::Atomic,
                StaticList::Set => List::Set,
                StaticList::Map(keys) => List::Map(Keys::BuiltIn(keys)),
            },
            Cursor::Schema(shape) => match &shape.list {
                SchemaList::Atomic => List::Atomic,
                SchemaList::Set => List::Set,
                SchemaList::Map(keys) => List::Map(Keys::Schema(keys)),
            },
            _ => List::Atomic,
        }
    }

    /// Whether server-side apply takes the object here as one value.
    pub(crate) fn is_atomic(self) -> bool {
        match self {
            Cursor::Field(field) => field.atomic,
            Cursor::Schema(shape) => shape.atomic,
            _ => false,
        }
    }

    /// How strategic merge patch treats the value here.
    pub(crate) fn merge(self) -> Merge {
        match self {
            Cursor::Field(field) => field.merge,
            _ => Merge::Default,
        }
    }
}
