//! Delegation: a rule of one VirtualService that goes on in another.
//!
//! Pure; follows `pilot/pkg/model/virtualservice.go`. The rule's conditions and the delegate's hold together, so a
//! delegate's rule that could never match is left out; what the delegate leaves open is the root's.

use std::collections::BTreeMap;

use crd::{HttpMatchRequest, HttpRoute, StringMatch};

/// A delegate's rule as it applies under the root's; `None` if their conditions exclude one another.
pub(crate) fn merged(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let mut rule = delegate.clone();
    rule.matches = conditions(&root.matches, &delegate.matches)?;
    rule.name = joined(&root.name, &delegate.name);
    inherit(&mut rule.rewrite, &root.rewrite);
    inherit(&mut rule.direct_response, &root.direct_response);
    inherit(&mut rule.timeout, &root.timeout);
    inherit(&mut rule.retries, &root.retries);
    inherit(&mut rule.fault, &root.fault);
    inherit(&mut rule.mirror, &root.mirror);
    inherit(&mut rule.mirrors, &root.mirrors);
    inherit(&mut rule.mirror_percentage, &root.mirror_percentage);
    inherit(&mut rule.mirror_percent, &root.mirror_percent);
    inherit(&mut rule.cors_policy, &root.cors_policy);
    inherit(&mut rule.headers, &root.headers);
    Some(rule)
}

/// Takes the root's value where there is none.
fn inherit<T: Clone + Default + PartialEq>(own: &mut T, root: &T) {
    if *own == T::default() {
        own.clone_from(root);
    }
}

fn joined(root: &str, own: &str) -> String {
    let parts: Vec<&str> = [root, own].into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// Every condition of the delegate with each of the root's that it does not contradict; `None` if one of the delegate's
/// contradicts all of them.
fn conditions(root: &[HttpMatchRequest], delegate: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut found = Vec::new();
    for own in delegate {
        let before = found.len();
        found.extend(root.iter().filter(|outer| !conflict(outer, own)).map(|outer| both(outer, own)));
        if found.len() == before {
            return None;
        }
    }
    Some(found)
}

fn both(root: &HttpMatchRequest, own: &HttpMatchRequest) -> HttpMatchRequest {
    fn union<V: Clone>(root: &BTreeMap<String, V>, own: &mut BTreeMap<String, V>) {
        for (name, value) in root {
            own.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    let mut both = own.clone();
    both.name = joined(&root.name, &own.name);
    inherit(&mut both.uri, &root.uri);
    inherit(&mut both.scheme, &root.scheme);
    inherit(&mut both.method, &root.method);
    inherit(&mut both.authority, &root.authority);
    inherit(&mut both.port, &root.port);
    inherit(&mut both.source_namespace, &root.source_namespace);
    inherit(&mut both.gateways, &root.gateways);
    inherit(&mut both.ignore_uri_case, &root.ignore_uri_case);
    union(&root.headers, &mut both.headers);
    union(&root.without_headers, &mut both.without_headers);
    union(&root.query_params, &mut both.query_params);
    union(&root.source_labels, &mut both.source_labels);
    both
}

/// Whether the delegate's condition is not a part of the root's.
fn conflict(root: &HttpMatchRequest, own: &HttpMatchRequest) -> bool {
    let texts = [
        (&root.uri, &own.uri),
        (&root.scheme, &own.scheme),
        (&root.method, &own.method),
        (&root.authority, &own.authority),
    ];
    let text = |(root, own): (&Option<StringMatch>, &Option<StringMatch>)| match (root, own) {
        (Some(root), Some(own)) => text_conflict(root, own),
        _ => false,
    };
    let named = |root: &BTreeMap<String, StringMatch>, own: &BTreeMap<String, StringMatch>| {
        own.iter().any(|(name, own)| root.get(name).is_some_and(|root| text_conflict(root, own)))
    };
    texts.into_iter().any(text)
        || named(&root.headers, &own.headers)
        || named(&root.without_headers, &own.without_headers)
        || named(&root.query_params, &own.query_params)
        || root.ignore_uri_case != own.ignore_uri_case
        || matches!((root.port, own.port), (Some(root), Some(own)) if root != own)
        || (!root.source_namespace.is_empty()
            && !own.source_namespace.is_empty()
            && root.source_namespace != own.source_namespace)
        || own
            .source_labels
            .iter()
            .any(|(name, value)| root.source_labels.get(name).is_some_and(|root| root != value))
        || (!root.gateways.is_empty() && own.gateways.iter().any(|gateway| !root.gateways.contains(gateway)))
}

/// Whether a text condition is not a part of another. Regular expressions cannot be compared: they always conflict.
fn text_conflict(root: &StringMatch, own: &StringMatch) -> bool {
    if root.regex.is_some() || own.regex.is_some() {
        return true;
    }
    match (&root.exact, &root.prefix) {
        (Some(exact), _) => own.prefix.is_some() || own.exact.as_ref() != Some(exact),
        (None, Some(prefix)) => match own.prefix.as_ref().or(own.exact.as_ref()) {
            Some(own) => !own.starts_with(prefix.as_str()),
            None => true,
        },
        // The root asks for presence only: upstream takes this for a conflict, too.
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(yaml: &str) -> HttpRoute {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn conditions_hold_together_and_gaps_are_the_roots() {
        let root = rule(
            "{name: api, timeout: 3s, retries: {attempts: 1}, match: [{uri: {prefix: /api}, headers: {a: {exact: x}}}]}",
        );
        let own =
            "{timeout: 1s, match: [{uri: {exact: /api/info}}], route: [{destination: {host: podinfo}}]}";
        let found = merged(&root, &rule(own)).unwrap();
        let expected = rule(
            "{name: api, timeout: 1s, retries: {attempts: 1}, route: [{destination: {host: podinfo}}],
              match: [{uri: {exact: /api/info}, headers: {a: {exact: x}}}]}",
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn rules_that_exclude_one_another_are_none() {
        let check = |root: &str, own: &str, expected: bool| {
            let wrap = |text: &str| rule(&format!("{{match: [{text}]}}"));
            assert_eq!(merged(&wrap(root), &wrap(own)).is_some(), expected, "{root} and {own}");
        };
        check("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}}", true);
        check("{uri: {prefix: /a/b}}", "{uri: {prefix: /a}}", false);
        check("{uri: {exact: /a}}", "{uri: {prefix: /a}}", false);
        check("{uri: {exact: /a}}", "{uri: {exact: /a}}", true);
        check("{uri: {prefix: /a}}", "{uri: {regex: /a.*}}", false);
        check("{headers: {a: {exact: x}}}", "{headers: {b: {exact: y}}}", true);
        check("{headers: {a: {exact: x}}}", "{headers: {a: {exact: y}}}", false);
        check("{sourceLabels: {app: a}}", "{sourceLabels: {app: b}}", false);
        check("{port: 80}", "{port: 81}", false);
        check("{gateways: [mesh]}", "{gateways: [test/public]}", false);
        check("{uri: {prefix: /a}}, {uri: {prefix: /b}}", "{uri: {exact: /b/c}}", true);
    }
}
