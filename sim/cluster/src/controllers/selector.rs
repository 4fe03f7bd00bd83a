//! Label selectors: the structured form of workloads and the string form of the scale subresource.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

type Labels = BTreeMap<String, String>;

/// Whether a selector selects an object with these labels. An empty selector selects everything.
pub(super) fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted))
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let among = || requirement.values.iter().flatten();
            match (requirement.operator.as_str(), value(&requirement.key)) {
                ("In", Some(value)) => among().any(|wanted| wanted == value),
                ("NotIn", Some(value)) => among().all(|wanted| wanted != value),
                ("Exists", value) => value.is_some(),
                ("NotIn" | "DoesNotExist", None) => true,
                _ => false,
            }
        })
}

/// Whether a Service's plain selector selects an object with these labels.
pub(super) fn selects_all_of(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(key, wanted)| labels.and_then(|labels| labels.get(key)) == Some(wanted))
}

/// Whether a selector has no requirement and so selects everything.
pub(super) fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Reads the string form: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
///
/// # Errors
/// The requirement that cannot be read.
pub(super) fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut requirements = Vec::new();
    let (mut rest, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                rest.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    rest.push(&text[start..]);
    for part in rest.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        let (key, operator, values) = if let Some(key) = part.strip_prefix('!') {
            (key, "DoesNotExist", None)
        } else if let Some((key, value)) = part.split_once("!=") {
            (key, "NotIn", Some(vec![value]))
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (key, "In", Some(vec![value]))
        } else if let Some((key, list)) = part.split_once('(') {
            let list =
                list.strip_suffix(')').ok_or_else(|| format!("unable to parse requirement: {part}"))?;
            let values = list.split(',').collect();
            match key.trim().rsplit_once(' ') {
                Some((key, "in")) => (key, "In", Some(values)),
                Some((key, "notin")) => (key, "NotIn", Some(values)),
                _ => return Err(format!("unable to parse requirement: {part}")),
            }
        } else {
            (part, "Exists", None)
        };
        requirements.push(LabelSelectorRequirement {
            key: key.trim().to_owned(),
            operator: operator.to_owned(),
            values: values
                .map(|values: Vec<&str>| values.into_iter().map(|value| value.trim().to_owned()).collect()),
        });
    }
    Ok(LabelSelector { match_labels: None, match_expressions: Some(requirements) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_selectors_select_like_kubectl() {
        let labels: Labels =
            [("app", "podinfo"), ("tier", "web")].map(|(key, value)| (key.into(), value.into())).into();
        let check = |text: &str, selected: bool| {
            assert_eq!(selects(&parse(text).unwrap(), Some(&labels)), selected, "{text}");
        };
        check("", true);
        check("app=podinfo", true);
        check("app==podinfo,tier in (web, api)", true);
        check("app=other", false);
        check("tier notin (web,api),app=podinfo", false);
        check("zone!=a,!zone,app", true);
        check("zone", false);
        assert!(parse("tier in (web").is_err());
    }
}
