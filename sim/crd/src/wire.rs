//! How the kinds of this crate are written: two macros, so that a kind's file lists fields and their meaning only.
//!
//! [`wire!`] makes a struct that reads and writes as Go's encoder does with `omitempty`: camelCase names, absent
//! fields take their default, default values are left out. Fields named under `required` are always written. Every
//! struct keeps what it does not know in `extra`, so that reading an object, changing it and writing it back loses
//! nothing. [`object!`] makes a namespaced object of such a spec and status that `kube::Api` can use.

/// Whether a value is left out when it is written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! wire {
    (
        $(#[$meta:meta])*
        struct $name:ident {
            $(required { $( $(#[$rmeta:meta])* $rfield:ident: $rtype:ty, )* })?
            $(optional { $( $(#[$ometa:meta])* $ofield:ident: $otype:ty, )* })?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($( $(#[$rmeta])* pub $rfield: $rtype, )*)?
            $($( $(#[$ometa])* #[serde(skip_serializing_if = "crate::wire::is_default")] pub $ofield: $otype, )*)?
            /// Fields that this crate does not name, kept as they are.
            #[serde(flatten)]
            pub extra: serde_json::Map<String, serde_json::Value>,
        }
    };
}

macro_rules! object {
    (
        $(#[$meta:meta])*
        struct $name:ident($kind:literal, $plural:literal, $group:literal, $version:ty) {
            spec: $spec:ty, status: $status:ty
            $(, $(#[$fmeta:meta])* $field:ident: $ftype:ty)* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// Group and version, as the API served or takes it.
            #[serde(default)]
            pub api_version: String,
            /// The kind's name.
            #[serde(default)]
            pub kind: String,
            /// Name, namespace, labels, owners and the rest.
            #[serde(default)]
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What is wanted.
            #[serde(default)]
            pub spec: $spec,
            /// What was last observed; written through the status subresource where the kind has one.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub status: Option<$status>,
            $( $(#[$fmeta])* #[serde(default, skip_serializing_if = "crate::wire::is_default")] pub $field: $ftype, )*
        }

        impl $name {
            /// The kind's name in manifests.
            pub const KIND: &'static str = $kind;
            /// The API group.
            pub const GROUP: &'static str = $group;
            /// The name in URLs.
            pub const PLURAL: &'static str = $plural;

            /// An object of the kind's default version.
            pub fn new(namespace: &str, name: &str, spec: $spec) -> Self {
                Self::versioned(&<$version>::default(), namespace, name, spec)
            }

            /// An object of the given served version.
            pub fn versioned(version: &$version, namespace: &str, name: &str, spec: $spec) -> Self {
                $name {
                    api_version: format!("{}/{}", $group, crate::wire::Version::name(version)),
                    kind: $kind.to_owned(),
                    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                        name: Some(name.to_owned()),
                        namespace: Some(namespace.to_owned()),
                        ..Default::default()
                    },
                    spec,
                    status: None,
                    $( $field: Default::default(), )*
                }
            }

            /// Group, default version and plural, for dynamic clients.
            pub fn api_resource() -> kube_core::ApiResource {
                kube_core::ApiResource::erase::<Self>(&Default::default())
            }

            /// The object's namespace, empty if it has none.
            pub fn namespace(&self) -> &str {
                self.metadata.namespace.as_deref().unwrap_or_default()
            }

            /// The object's name, empty if it has none yet.
            pub fn name(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }
        }

        impl kube_core::Resource for $name {
            type DynamicType = $version;
            type Scope = k8s_openapi::NamespaceResourceScope;

            fn kind(_: &$version) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group(_: &$version) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version(version: &$version) -> std::borrow::Cow<'_, str> {
                crate::wire::Version::name(version).into()
            }

            fn plural(_: &$version) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(crate) use {object, wire};

/// A version under which a kind is served.
pub(crate) trait Version {
    fn name(&self) -> &'static str;
}
