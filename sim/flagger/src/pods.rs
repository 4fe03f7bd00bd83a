//! Workloads with a pod template, Deployments and DaemonSets: how their pods are told apart, and what the primary's
//! pods take from the target's.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use canary::Dialect;
use crd::{Canary, CanarySpec};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::configs::{self, Refs};
use crate::owner::{self, Labels};

/// A workload with a pod template.
pub trait Templated {
    /// The kind in messages.
    const NOUN: &'static str;
    /// The kind's name.
    const KIND: &'static str;

    /// The workload's metadata.
    fn metadata(&self) -> &ObjectMeta;

    /// The labels that it selects its pods by.
    fn match_labels(&self) -> Option<&Labels>;

    /// Its pods' template.
    fn template(&self) -> Option<&PodTemplateSpec>;
}

impl Templated for Deployment {
    const NOUN: &'static str = "deployment";
    const KIND: &'static str = "Deployment";

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn match_labels(&self) -> Option<&Labels> {
        self.spec.as_ref()?.selector.match_labels.as_ref()
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }
}

impl Templated for DaemonSet {
    const NOUN: &'static str = "daemonset";
    const KIND: &'static str = "DaemonSet";

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn match_labels(&self) -> Option<&Labels> {
        self.spec.as_ref()?.selector.match_labels.as_ref()
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }
}

/// The pod label by which Services and Deployments tell primary and canary apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The label.
    pub label: String,
    /// Its value on the target's pods; the primary's adds `-primary`.
    pub value: String,
}

impl Selector {
    /// The first of the labels that the target selects its pods by.
    pub fn of<W: Templated>(target: &W, labels: &[String], dialect: Dialect) -> Option<Selector> {
        let selected = target.match_labels()?;
        let (label, value) = labels.iter().find_map(|label| selected.get_key_value(label))?;
        // The older release takes it for granted that the value is the workload's name.
        let value = match dialect {
            Dialect::Rc1 => target.metadata().name.clone().unwrap_or_default(),
            Dialect::Latest => value.clone(),
        };
        Some(Selector { label: label.clone(), value })
    }

    /// The label's value on the primary's pods.
    pub fn primary(&self) -> String {
        format!("{}-primary", self.value)
    }
}

/// What a primary is made of.
pub struct Recipe<'a, W> {
    /// The Canary.
    pub canary: &'a Canary,
    /// The target.
    pub target: &'a W,
    /// How pods are told apart.
    pub selector: &'a Selector,
    /// The target's configuration that has copies.
    pub refs: &'a Refs,
    /// The annotation that makes every promotion a rollout.
    pub flagger_id: &'a str,
    /// The pod labels that may be selectors.
    pub selector_labels: &'a [String],
    /// Prefixes of the target's labels that the primary keeps.
    pub include_labels: &'a [String],
    /// The release that is followed.
    pub dialect: Dialect,
}

impl<W: Templated> Recipe<'_, W> {
    /// The primary's own labels.
    fn labels(&self) -> Labels {
        let mut labels = match self.dialect {
            Dialect::Rc1 => Labels::new(),
            Dialect::Latest => owner::included(self.target.metadata().labels.as_ref(), self.include_labels),
        };
        labels.insert(self.selector.label.clone(), self.selector.primary());
        labels
    }

    /// The primary's metadata as it is first made.
    pub fn metadata(&self) -> ObjectMeta {
        let annotations = match self.dialect {
            Dialect::Rc1 => Labels::new(),
            Dialect::Latest => owner::without_flux(self.target.metadata().annotations.as_ref()),
        };
        let name = format!("{}-primary", self.canary.spec.target_ref.name);
        owner::metadata(self.canary, &name, self.labels(), annotations)
    }

    /// Brings an existing primary's labels and annotations to the target's.
    pub fn mark(&self, primary: &mut ObjectMeta) {
        primary.labels = Some(self.labels());
        let kept = owner::included(self.target.metadata().annotations.as_ref(), self.include_labels);
        primary.annotations = Some(kept).filter(|kept| !kept.is_empty());
    }

    /// How the primary selects its pods.
    pub fn label_selector(&self) -> LabelSelector {
        let label = (self.selector.label.clone(), self.selector.primary());
        LabelSelector { match_labels: Some(BTreeMap::from([label])), ..Default::default() }
    }

    /// The primary's pods.
    pub fn template(&self) -> PodTemplateSpec {
        let from = self.target.template().cloned().unwrap_or_default();
        let metadata = from.metadata.unwrap_or_default();
        let kept = |labels: Option<Labels>| match self.dialect {
            Dialect::Rc1 => labels.unwrap_or_default(),
            Dialect::Latest => owner::without_flux(labels.as_ref()),
        };
        let mut labels = kept(metadata.labels);
        labels.insert(self.selector.label.clone(), self.selector.primary());
        let mut annotations = kept(metadata.annotations);
        annotations.insert("flagger-id".to_owned(), self.flagger_id.to_owned());
        let mut spec = from.spec;
        if let Some(spec) = &mut spec {
            configs::rename(spec, self.refs, self.dialect);
            if self.dialect == Dialect::Latest && W::NOUN == "deployment" {
                for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
                    self.suffix(constraint.label_selector.as_mut());
                }
                let rules = spec.affinity.as_mut().and_then(|affinity| affinity.pod_anti_affinity.as_mut());
                if let Some(rules) = rules {
                    for term in
                        rules.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten()
                    {
                        self.suffix(term.pod_affinity_term.label_selector.as_mut());
                    }
                    for term in rules.required_during_scheduling_ignored_during_execution.iter_mut().flatten()
                    {
                        self.suffix(term.label_selector.as_mut());
                    }
                }
            }
        }
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels),
                annotations: Some(annotations),
                ..Default::default()
            }),
            spec,
        }
    }

    /// Makes a selector of the target's own pods one of the primary's.
    fn suffix(&self, selector: Option<&mut LabelSelector>) {
        let target = &self.canary.spec.target_ref.name;
        let Some(selector) = selector else { return };
        for expression in selector.match_expressions.iter_mut().flatten() {
            if self.selector_labels.contains(&expression.key) {
                let mut values = expression.values.iter_mut().flatten();
                if let Some(value) = values.find(|value| *value == target) {
                    value.push_str("-primary");
                }
            }
        }
        for (key, value) in selector.match_labels.iter_mut().flatten() {
            if self.selector_labels.contains(key) && value == target {
                value.push_str("-primary");
            }
        }
    }
}

/// The containers' ports that the Canary's own port does not cover, by name.
pub fn other_ports(spec: &CanarySpec, template: Option<&PodTemplateSpec>) -> BTreeMap<String, i32> {
    let covered = |name: Option<&str>, port: i32| match &spec.service.target_port {
        None | Some(IntOrString::Int(0)) => port == spec.service.port,
        Some(IntOrString::Int(number)) => port == *number,
        Some(IntOrString::String(text)) => name == Some(text),
    };
    let mut ports = BTreeMap::new();
    let spec = template.and_then(|template| template.spec.as_ref());
    for container in spec.map_or(&[][..], |spec| &spec.containers) {
        if matches!(container.name.as_str(), "istio-proxy" | "envoy") {
            continue;
        }
        for (index, port) in container.ports.iter().flatten().enumerate() {
            if !covered(port.name.as_deref(), port.container_port) {
                let name = port.name.clone().unwrap_or_else(|| format!("tcp-{}-{index}", container.name));
                ports.insert(name, port.container_port);
            }
        }
    }
    ports
}

/// A stable hash of a pod template, in the form of Flagger's: a 32-bit FNV-1a in decimal, its digits written
/// in letters that spell no words.
pub fn hash(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_vec(value).expect("Kubernetes objects are always JSON");
    let mut hash: u32 = 0x811c_9dc5;
    for byte in json {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let safe = |digit: u8| char::from(b"456789bcdf"[usize::from(digit - b'0')]);
    hash.to_string().bytes().map(safe).collect()
}

/// A random UUID, version 4.
pub fn uuid(bits: u128) -> String {
    let mut bytes = bits.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}
