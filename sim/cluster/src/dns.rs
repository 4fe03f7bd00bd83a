//! A cluster's DNS as its pods use it: Service names in all the forms that the search list allows.

use std::net::IpAddr;

use crate::kube_proxy::Table;

const CLUSTER_DOMAIN: &str = ".svc.cluster.local";
/// How long a chain of ExternalNames may be.
const ALIASES_MAX: usize = 8;

/// Looks a name up as a pod of `namespace` does: `web`, `web.test`, `web.test.svc`, `web.test.svc.cluster.local`. The
/// outer `None` is no such Service, the inner error an ExternalName that leads out of the cluster. `pick` chooses among
/// a headless Service's addresses.
pub(crate) fn lookup(
    table: &Table,
    namespace: &str,
    host: &str,
    pick: impl Fn(usize) -> usize,
) -> Option<Result<IpAddr, String>> {
    let mut name = host.trim_end_matches('.').to_owned();
    for _ in 0..ALIASES_MAX {
        let (service, namespace) = split(&name, namespace)?;
        let found = table.service(namespace, service)?;
        if let Some(alias) = &found.external_name {
            if split(alias, namespace)
                .is_none_or(|(service, namespace)| table.service(namespace, service).is_none())
            {
                return Some(Err(alias.clone()));
            }
            name = alias.clone();
            continue;
        }
        if let Some(ip) = found.cluster_ip {
            return Some(Ok(ip));
        }
        let addresses = found.addresses();
        return (!addresses.is_empty()).then(|| Ok(addresses[pick(addresses.len())]));
    }
    None
}

/// A Service's name and namespace, if the name has one of the forms of a Service's.
fn split<'a>(host: &'a str, namespace: &'a str) -> Option<(&'a str, &'a str)> {
    let short = host.strip_suffix(CLUSTER_DOMAIN).or_else(|| host.strip_suffix(".svc")).unwrap_or(host);
    match short.split_once('.') {
        None if short.len() == host.len() => Some((short, namespace)),
        None => None,
        Some((service, namespace)) if !namespace.contains('.') => Some((service, namespace)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn names_of_services_have_four_forms() {
        let check =
            |host: &str, expected: Option<(&str, &str)>| assert_eq!(split(host, "own"), expected, "{host}");
        check("web", Some(("web", "own")));
        check("web.test", Some(("web", "test")));
        check("web.test.svc", Some(("web", "test")));
        check("web.test.svc.cluster.local", Some(("web", "test")));
        check("web.svc", None);
        check("app.istio.example.com", None);
    }
}
