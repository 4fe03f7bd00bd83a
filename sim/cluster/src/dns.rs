//! A cluster's DNS as its pods use it: Service names in all the forms that the search list allows.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::kube_proxy::{ServiceEntry, Table};

const CLUSTER_DOMAIN: &str = ".svc.cluster.local";
/// How long a chain of ExternalNames may be.
const ALIASES_MAX: usize = 8;

/// All addresses of a name as a pod of `namespace` sees it: `web`, `web.test`, `web.test.svc`,
/// `web.test.svc.cluster.local`, each with a pod's hostname before it; several for a headless Service, never none. The
/// outer `None` is no such Service, or a headless one without pods, the inner error an ExternalName that leads out of
/// the cluster.
pub(crate) fn addresses<'a>(
    table: &'a Table,
    namespace: &str,
    host: &str,
) -> Option<Result<Cow<'a, [IpAddr]>, String>> {
    let mut name = Cow::Borrowed(host.trim_end_matches('.'));
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name = Cow::Owned(name.to_ascii_lowercase());
    }
    for alias in 0..ALIASES_MAX {
        let Some(found) = service(table, &name, namespace) else {
            return (alias > 0).then(|| Err(name.into_owned()));
        };
        match found {
            Found::Pod(ip) => return Some(Ok(vec![ip].into())),
            Found::Service(entry) => match (&entry.external_name, entry.cluster_ip) {
                (Some(target), _) => name = Cow::Owned(target.trim_end_matches('.').to_owned()),
                (None, None) if entry.addresses.is_empty() => return None,
                (None, None) => return Some(Ok(entry.addresses.as_slice().into())),
                (None, Some(_)) => return Some(Ok(entry.cluster_ip.as_slice().into())),
            },
        }
    }
    None
}

enum Found<'a> {
    Service(&'a ServiceEntry),
    Pod(IpAddr),
}

/// What a name stands for, tried with the search list in its order.
fn service<'a>(table: &'a Table, name: &str, own: &str) -> Option<Found<'a>> {
    let (short, qualified) = match name.strip_suffix(CLUSTER_DOMAIN).or_else(|| name.strip_suffix(".svc")) {
        Some(short) => (short, true),
        None => (name, false),
    };
    let of_service = |namespace, name| table.service(namespace, name).map(|entry| Found::Service(entry));
    let of_pod =
        |namespace, name, host| table.service(namespace, name)?.hostnames.get(host).copied().map(Found::Pod);
    let mut labels = short.split('.');
    match (labels.next()?, labels.next(), labels.next(), labels.next()) {
        (service, None, ..) => (!qualified).then(|| of_service(own, service))?,
        (first, Some(second), None, _) => {
            let pod = (!qualified).then(|| of_pod(own, second, first)).flatten();
            pod.or_else(|| of_service(second, first))
        }
        (host, Some(service), Some(namespace), None) => of_pod(namespace, service, host),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_proxy::Table;

    #[test]
    fn names_of_services_have_four_forms() {
        let entry = |ip: [u8; 4]| ServiceEntry { cluster_ip: Some(ip.into()), ..ServiceEntry::default() };
        let alias = |name: &str| ServiceEntry { external_name: Some(name.into()), ..ServiceEntry::default() };
        let named = ServiceEntry {
            addresses: vec![[10, 16, 0, 7].into(), [10, 16, 0, 8].into()],
            hostnames: [("db-0".to_owned(), [10, 16, 0, 7].into())].into(),
            ..ServiceEntry::default()
        };
        let table = Table::of([
            ("test", "web", entry([10, 96, 0, 1])),
            ("own", "web", entry([10, 96, 0, 2])),
            ("own", "db", named),
            ("own", "empty", ServiceEntry::default()),
            ("own", "near", alias("web.test.svc.cluster.local")),
            ("own", "far", alias("example.com")),
            ("own", "loop", alias("loop.own.svc")),
        ]);
        let check = |host: &str, expected: Option<Result<&[[u8; 4]], &str>>| {
            let found = addresses(&table, "own", host).map(|found| found.map(Cow::into_owned));
            let addresses = |ips: &[[u8; 4]]| ips.iter().copied().map(IpAddr::from).collect();
            let expected = expected.map(|expected| expected.map(addresses).map_err(str::to_owned));
            assert_eq!(found, expected, "{host}");
        };
        check("web", Some(Ok(&[[10, 96, 0, 2]])));
        check("web.test", Some(Ok(&[[10, 96, 0, 1]])));
        check("Web.test.svc", Some(Ok(&[[10, 96, 0, 1]])));
        check("web.test.svc.cluster.local.", Some(Ok(&[[10, 96, 0, 1]])));
        check("db", Some(Ok(&[[10, 16, 0, 7], [10, 16, 0, 8]])));
        check("db-0.db", Some(Ok(&[[10, 16, 0, 7]])));
        check("db-0.db.own.svc.cluster.local", Some(Ok(&[[10, 16, 0, 7]])));
        check("near", Some(Ok(&[[10, 96, 0, 1]])));
        check("far", Some(Err("example.com")));
        for unknown in ["empty", "loop", "other", "web.other", "web.svc", "app.istio.example.com"] {
            check(unknown, None);
        }
    }
}
