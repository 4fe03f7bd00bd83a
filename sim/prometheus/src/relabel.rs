//! Relabelling: rules that keep, drop and rewrite label sets.

use std::collections::BTreeMap;

use crate::config::{Action, Rule};

/// Labels while they are worked on: an absent label is the empty string.
pub(crate) type Draft = BTreeMap<String, String>;

/// Applies rules in order. Returns whether the labels are kept.
pub(crate) fn apply(rules: &[Rule], labels: &mut Draft) -> bool {
    rules.iter().all(|rule| apply_one(rule, labels))
}

fn apply_one(rule: &Rule, labels: &mut Draft) -> bool {
    let values: Vec<&str> =
        rule.source_labels.iter().map(|name| labels.get(name).map_or("", String::as_str)).collect();
    let value = values.join(&rule.separator);
    match rule.action {
        Action::Keep => return rule.regex.is_match(&value),
        Action::Drop => return !rule.regex.is_match(&value),
        Action::KeepEqual => return labels.get(&rule.target_label).map_or("", String::as_str) == value,
        Action::DropEqual => return labels.get(&rule.target_label).map_or("", String::as_str) != value,
        Action::Replace => {
            if let Some(captures) = rule.regex.captures(&value) {
                let mut target = String::new();
                captures.expand(&rule.target_label, &mut target);
                let mut text = String::new();
                captures.expand(&rule.replacement, &mut text);
                set(labels, target, text);
            }
        }
        Action::Lowercase => set(labels, rule.target_label.clone(), value.to_lowercase()),
        Action::Uppercase => set(labels, rule.target_label.clone(), value.to_uppercase()),
        Action::HashMod => {
            // Upstream takes MD5's last eight bytes; any even spread serves the purpose of sharding targets.
            let hash = value.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            set(labels, rule.target_label.clone(), (hash % rule.modulus).to_string());
        }
        Action::LabelMap => {
            let renamed: Vec<(String, String)> = labels
                .iter()
                .filter_map(|(name, value)| {
                    let captures = rule.regex.captures(name)?;
                    let mut new = String::new();
                    captures.expand(&rule.replacement, &mut new);
                    Some((new, value.clone()))
                })
                .collect();
            renamed.into_iter().for_each(|(name, value)| set(labels, name, value));
        }
        Action::LabelDrop => labels.retain(|name, _| !rule.regex.is_match(name)),
        Action::LabelKeep => labels.retain(|name, _| rule.regex.is_match(name)),
    }
    true
}

fn set(labels: &mut Draft, name: String, value: String) {
    if value.is_empty() {
        labels.remove(&name);
    } else {
        labels.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn rules(yaml: &str) -> Vec<Rule> {
        let text = format!("scrape_configs:\n  - job_name: a\n    relabel_configs: {yaml}\n");
        config::parse(&text, "default").unwrap().jobs.remove(0).relabel
    }

    #[test]
    fn actions() {
        let check = |yaml: &str, labels: &[(&str, &str)], expected: Option<&[(&str, &str)]>| {
            let draft = |labels: &[(&str, &str)]| -> Draft {
                labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
            };
            let mut found = draft(labels);
            let kept = apply(&rules(yaml), &mut found);
            assert_eq!(kept.then_some(found), expected.map(draft), "{yaml}");
        };
        check(
            "[{source_labels: [a], action: keep, regex: .*-envoy-prom}]",
            &[("a", "http-envoy-prom")],
            Some(&[("a", "http-envoy-prom")]),
        );
        check("[{source_labels: [a], action: keep, regex: envoy}]", &[("a", "http-envoy-prom")], None);
        check(
            "[{source_labels: [__address__, port], regex: '([^:]+)(?::\\d+)?;(\\d+)', replacement: '$1:$2', target_label: __address__}]",
            &[("__address__", "10.0.0.1:80"), ("port", "9797")],
            Some(&[("__address__", "10.0.0.1:9797"), ("port", "9797")]),
        );
        check(
            "[{action: labelmap, regex: 'l_(.+)'}]",
            &[("l_app", "web")],
            Some(&[("app", "web"), ("l_app", "web")]),
        );
        check("[{action: labeldrop, regex: 'l_.*'}]", &[("l_app", "web"), ("x", "y")], Some(&[("x", "y")]));
        check(
            "[{source_labels: [a], target_label: b, replacement: ''}]",
            &[("a", "1"), ("b", "2")],
            Some(&[("a", "1")]),
        );
    }
}
