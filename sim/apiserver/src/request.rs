//! What a request asks for: its path and parameters.

use std::borrow::Cow;

use crate::failure::Failure;

/// A parsed resource path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub group: Cow<'a, str>,
    pub version: Cow<'a, str>,
    pub namespace: Option<Cow<'a, str>>,
    pub plural: Cow<'a, str>,
    pub name: Option<Cow<'a, str>>,
    pub subresource: Option<Cow<'a, str>>,
}

/// Parses `/api/VERSION/…` and `/apis/GROUP/VERSION/…` below their discovery paths; `None` for other paths.
pub(crate) fn target(path: &str) -> Option<Target<'_>> {
    // As many as there are in the longest paths that are common.
    let mut parts = Vec::with_capacity(8);
    parts.extend(path.split('/').filter(|part| !part.is_empty()));
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    // `namespaces/NAME` with nothing or `status` or `finalize` behind is the Namespace itself.
    let (namespace, rest) = match rest {
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] => (Some(decoded(namespace)), rest),
        rest => (None, rest),
    };
    let (plural, rest) = rest.split_first()?;
    let (name, rest) = match rest {
        [] => (None, rest),
        [name, rest @ ..] => (Some(decoded(name)), rest),
    };
    let subresource = match rest {
        [] => None,
        [one] => Some(decoded(one)),
        several => Some(decoded(&several.join("/")).into_owned().into()),
    };
    Some(Target {
        group: decoded(group),
        version: decoded(version),
        namespace,
        plural: decoded(plural),
        name,
        subresource,
    })
}

/// The query's parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Parameters(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name).into_owned(), decoded(value).into_owned())
                })
                .collect(),
        )
    }

    /// A parameter that is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(found, value)| found == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that may be given several times.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Failure::bad_request(format!("{name}: Invalid value: {text:?}: must be a whole number"))
        })
    }
}

/// Undoes percent-encoding, and `+` for a blank.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let text: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let code = (bytes[index] == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) => {
                out.push(code);
                index += 3;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_target() {
        let check = |path: &str, expected: Option<[&str; 5]>| {
            let found = target(path).map(|found| {
                let text = |part: &Option<Cow<'_, str>>| part.as_deref().unwrap_or_default().to_owned();
                [
                    found.group.to_string(),
                    text(&found.namespace),
                    found.plural.to_string(),
                    text(&found.name),
                    text(&found.subresource),
                ]
            });
            assert_eq!(found, expected.map(|parts| parts.map(str::to_owned)), "{path}");
        };
        check("/api/v1/pods", Some(["", "", "pods", "", ""]));
        check("/api/v1/namespaces/test/pods/a/status", Some(["", "test", "pods", "a", "status"]));
        check("/api/v1/namespaces/test", Some(["", "", "namespaces", "test", ""]));
        check("/api/v1/namespaces/test/finalize", Some(["", "", "namespaces", "test", "finalize"]));
        check("/apis/apps/v1/deployments", Some(["apps", "", "deployments", "", ""]));
        check("/api/v1", None);
        check("/healthz", None);
        assert_eq!(Parameters::parse(Some("&a=b%3Dc&d")).get("a"), Some("b=c"));
    }
}
