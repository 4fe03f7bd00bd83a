//! The Gateway API: HTTPRoutes and Gateways as the rules that proxies know.
//!
//! Pure; follows Istio's `pilot/pkg/config/kube/gateway`. A route is served by the gateways among its parents
//! (ingress) and for clients of the Services among them (in the mesh). A Gateway is served by the pods of the Service
//! that its `addresses` name; none are deployed for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crd::{
    ApiGateway, Destination, GatewayBackend, GatewayRoute, GatewayRouteMatch, GatewayRouteParent,
    GatewayRouteRule, GatewayRouteStatus, GatewayValueMatch, HeaderOperations, Headers, HttpMatchRequest,
    HttpMirror, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute, HttpRouteDestination, Listener,
    ParentReference, Percent, PortSelector, RegexRewrite, StringMatch,
};
use serde_json::{Value, json};

use crate::config::{Entrance, Precedence, Route, Rules, SUFFIX};

/// The name by which Istio signs the status of routes.
const CONTROLLER: &str = "istio.io/gateway-controller";
/// The class of gateways that Istio serves.
const CLASS: &str = "istio";
const GROUP: &str = "gateway.networking.k8s.io";

/// The key by which rules name a Gateway of the Gateway API; no Istio Gateway can be named so.
fn key(namespace: &str, name: &str) -> String {
    format!("{GROUP}/{namespace}/{name}")
}

/// Who serves a Gateway, and which hosts on which ports; nothing for other classes and gateways without a Service.
pub(crate) fn entrance(gateway: &ApiGateway) -> Option<Entrance> {
    if gateway.spec.gateway_class_name != CLASS {
        return None;
    }
    let address = gateway.spec.addresses.iter().find(|address| address.kind == "Hostname")?;
    let host = address.value.strip_suffix(SUFFIX).unwrap_or(&address.value);
    let (name, namespace) = host.split_once('.').unwrap_or((host, gateway.namespace()));
    let listeners = gateway.spec.listeners.iter().filter(|listener| listener.protocol == "HTTP");
    let server = |listener: &Listener| {
        let host = if listener.hostname.is_empty() { "*" } else { &listener.hostname };
        Some((u16::try_from(listener.port).ok()?, vec![host.to_owned()]))
    };
    Some(Entrance {
        key: key(gateway.namespace(), gateway.name()),
        selector: BTreeMap::new(),
        service: Some(format!("{name}.{namespace}{SUFFIX}")),
        servers: listeners.filter_map(server).collect(),
    })
}

/// What a route comes to: rules for proxies, and the answer for its status.
pub(crate) fn rules(route: &GatewayRoute, gateways: &[Arc<ApiGateway>]) -> (Vec<Rules>, GatewayRouteStatus) {
    let mut served = Vec::new();
    let mut status = GatewayRouteStatus::default();
    let mut routes: Vec<Arc<Route>> =
        route.spec.rules.iter().flat_map(|rule| converted(route, rule)).collect();
    routes.sort_by_key(|route| route.precedence);
    for parent in &route.spec.parent_refs {
        let attached = attach(route, parent, gateways);
        if let Some(answer) = answer(route, parent, &attached) {
            status.parents.push(answer);
        }
        if let Attached::To { hosts, gateway } = attached {
            served.push(Rules { hosts, gateways: vec![gateway], routes: routes.clone() });
        }
    }
    (served, status)
}

/// What became of a route at one of its parents.
enum Attached {
    /// It is served there.
    To { hosts: Vec<String>, gateway: String },
    /// The parent does not take it: reason and message.
    Refused(&'static str, String),
    /// The parent is nothing of Istio's.
    Foreign,
}

fn attach(route: &GatewayRoute, parent: &ParentReference, gateways: &[Arc<ApiGateway>]) -> Attached {
    let group = parent.group.as_deref().unwrap_or(GROUP);
    let namespace = parent.namespace.as_deref().unwrap_or(route.namespace());
    match (group, parent.kind.as_deref().unwrap_or("Gateway")) {
        ("" | "core", "Service") if namespace == route.namespace() => Attached::To {
            hosts: vec![format!("{}.{namespace}{SUFFIX}", parent.name)],
            gateway: "mesh".to_owned(),
        },
        ("" | "core", "Service") => {
            let text = format!("service {namespace}/{} is of another namespace than the route", parent.name);
            Attached::Refused("NotAllowedByParent", text)
        }
        (GROUP, "Gateway") => {
            let is_meant = |gateway: &&Arc<ApiGateway>| {
                gateway.namespace() == namespace && gateway.name() == parent.name
            };
            let Some(gateway) = gateways.iter().find(is_meant) else { return Attached::Foreign };
            if gateway.spec.gateway_class_name != CLASS {
                return Attached::Foreign;
            }
            to_listeners(route, parent, gateway)
        }
        _ => Attached::Foreign,
    }
}

fn to_listeners(route: &GatewayRoute, parent: &ParentReference, gateway: &ApiGateway) -> Attached {
    let named = |listener: &&Listener| {
        parent.section_name.as_ref().is_none_or(|name| *name == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let listeners: Vec<&Listener> = gateway.spec.listeners.iter().filter(named).collect();
    if listeners.is_empty() {
        return Attached::Refused("NoMatchingParent", "no listener of the gateway fits".to_owned());
    }
    let open: Vec<&Listener> = listeners
        .into_iter()
        .filter(|listener| allows(listener, gateway.namespace(), route.namespace()))
        .collect();
    if open.is_empty() {
        let text =
            format!("hostnames and namespace {:?} are not allowed by the listeners", route.namespace());
        return Attached::Refused("NotAllowedByListeners", text);
    }
    let mut hosts = route.spec.hostnames.clone();
    if hosts.is_empty() {
        let host = |listener: &&Listener| match listener.hostname.as_str() {
            "" => "*".to_owned(),
            host => host.to_owned(),
        };
        hosts = open.iter().map(host).collect();
    }
    Attached::To { hosts, gateway: key(gateway.namespace(), gateway.name()) }
}

/// Whether a listener takes routes of a namespace. Of selectors, the label with the namespace's name is known.
fn allows(listener: &Listener, own: &str, namespace: &str) -> bool {
    let namespaces = listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    match namespaces.map_or("Same", |namespaces| namespaces.from.as_str()) {
        "All" => true,
        "Selector" => {
            namespaces.and_then(|namespaces| namespaces.selector.as_ref()).is_some_and(|selector| {
                selector["matchLabels"]["kubernetes.io/metadata.name"].as_str() == Some(namespace)
            })
        }
        _ => own == namespace,
    }
}

/// What the status says of a parent; the times of its conditions are the writer's to set.
fn answer(route: &GatewayRoute, parent: &ParentReference, attached: &Attached) -> Option<GatewayRouteParent> {
    let (accepted, reason, message) = match attached {
        Attached::To { .. } => ("True", "Accepted", "Route was valid".to_owned()),
        Attached::Refused(reason, message) => ("False", *reason, message.clone()),
        Attached::Foreign => return None,
    };
    let generation = route.metadata.generation.unwrap_or_default();
    let conditions = json!([
        {"type": "Accepted", "status": accepted, "reason": reason, "message": message,
            "observedGeneration": generation},
        {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs",
            "message": "All references resolved", "observedGeneration": generation},
    ]);
    let mut answer = GatewayRouteParent { parent_ref: parent.clone(), ..Default::default() };
    answer.conditions = serde_json::from_value(conditions).unwrap_or_default();
    answer.extra.insert("controllerName".to_owned(), CONTROLLER.into());
    Some(answer)
}

/// A rule, once per condition: each has a precedence of its own.
fn converted(route: &GatewayRoute, rule: &GatewayRouteRule) -> Vec<Arc<Route>> {
    let any = GatewayRouteMatch::default();
    let conditions = if rule.matches.is_empty() { std::slice::from_ref(&any) } else { &rule.matches };
    let namespace: Arc<str> = route.namespace().into();
    let made = |condition| {
        Arc::new(Route::made(http_route(rule, condition), Arc::clone(&namespace), precedence(condition)))
    };
    conditions.iter().map(made).collect()
}

/// Exact paths, then long prefixes, then methods, then many headers, then many parameters.
fn precedence(condition: &GatewayRouteMatch) -> Precedence {
    let (kind, length) = condition.path.as_ref().map_or((1, 1), |path| {
        let rank = match path.kind.as_str() {
            "Exact" => 3,
            "RegularExpression" => 2,
            _ => 1,
        };
        (rank, path.value.len())
    });
    Precedence::of_specificity([
        kind,
        length,
        usize::from(!condition.method.is_empty()),
        condition.headers.len(),
        condition.query_params.len(),
    ])
}

fn http_route(rule: &GatewayRouteRule, condition: &GatewayRouteMatch) -> HttpRoute {
    let mut made = HttpRoute { matches: vec![http_match(condition)], ..HttpRoute::default() };
    made.route = rule.backend_refs.iter().map(backend).collect();
    if let Some(timeouts) = &rule.timeouts {
        made.timeout.clone_from(&timeouts.request);
        if !timeouts.backend_request.is_empty() {
            let per_try_timeout = timeouts.backend_request.clone();
            made.retries = Some(HttpRetry { attempts: 2, per_try_timeout, ..HttpRetry::default() });
        }
    }
    let mut headers = Headers::default();
    for filter in &rule.filters {
        change_headers(&mut headers, filter);
        match filter["type"].as_str().unwrap_or_default() {
            "URLRewrite" => made.rewrite = Some(rewrite(&filter["urlRewrite"], condition)),
            "RequestMirror" => made.mirrors.extend(mirror(&filter["requestMirror"])),
            "RequestRedirect" => made.redirect = Some(redirect(&filter["requestRedirect"])),
            _ => {}
        }
    }
    made.headers = Some(headers).filter(|headers| *headers != Headers::default());
    made
}

fn http_match(condition: &GatewayRouteMatch) -> HttpMatchRequest {
    let exact = |text: &str| StringMatch { exact: Some(text.to_owned()), ..StringMatch::default() };
    let regex = |text: String| StringMatch { regex: Some(text), ..StringMatch::default() };
    let value = |wanted: &GatewayValueMatch| match wanted.kind.as_str() {
        "RegularExpression" => regex(wanted.value.clone()),
        _ => exact(&wanted.value),
    };
    let named = |all: &[GatewayValueMatch], name: fn(&str) -> String| {
        // Of several conditions on one name the first counts.
        all.iter().rev().map(|wanted| (name(&wanted.name), value(wanted))).collect::<BTreeMap<_, _>>()
    };
    let uri = condition.path.as_ref().and_then(|path| match path.kind.as_str() {
        "Exact" => Some(exact(&path.value)),
        "RegularExpression" => Some(regex(path.value.clone())),
        // A prefix is of whole path elements.
        _ => match path.value.trim_end_matches('/') {
            "" => None,
            prefix => Some(regex(format!("{}(?:/.*)?", regex::escape(prefix)))),
        },
    });
    HttpMatchRequest {
        uri,
        method: Some(&condition.method).filter(|method| !method.is_empty()).map(|method| exact(method)),
        headers: named(&condition.headers, str::to_lowercase),
        query_params: named(&condition.query_params, str::to_owned),
        ..HttpMatchRequest::default()
    }
}

fn backend(backend: &GatewayBackend) -> HttpRouteDestination {
    let mut headers = Headers::default();
    backend.filters.iter().for_each(|filter| change_headers(&mut headers, filter));
    HttpRouteDestination {
        destination: destination(&backend.name, backend.extra.get("namespace"), backend.port.map(i64::from)),
        weight: backend.weight,
        headers: Some(headers).filter(|headers| *headers != Headers::default()),
        ..HttpRouteDestination::default()
    }
}

fn destination(name: &str, namespace: Option<&Value>, port: Option<i64>) -> Destination {
    let host = match namespace.and_then(Value::as_str) {
        Some(namespace) => format!("{name}.{namespace}{SUFFIX}"),
        None => name.to_owned(),
    };
    let port = port.and_then(|port| u32::try_from(port).ok());
    let port = port.map(|number| PortSelector { number, ..PortSelector::default() });
    Destination { host, port, ..Destination::default() }
}

/// Takes a filter's header changes over.
fn change_headers(headers: &mut Headers, filter: &Value) {
    let (operations, changes) = match filter["type"].as_str().unwrap_or_default() {
        "RequestHeaderModifier" => (&mut headers.request, &filter["requestHeaderModifier"]),
        "ResponseHeaderModifier" => (&mut headers.response, &filter["responseHeaderModifier"]),
        _ => return,
    };
    let operations = operations.get_or_insert_with(HeaderOperations::default);
    let pairs = |field: &str| {
        let list = changes[field].as_array().into_iter().flatten();
        list.filter_map(|pair| Some((pair["name"].as_str()?.to_owned(), pair["value"].as_str()?.to_owned())))
            .collect::<Vec<_>>()
    };
    operations.set.extend(pairs("set"));
    operations.add.extend(pairs("add"));
    let removed = changes["remove"].as_array().into_iter().flatten();
    operations.remove.extend(removed.filter_map(|name| name.as_str().map(str::to_owned)));
}

fn rewrite(change: &Value, condition: &GatewayRouteMatch) -> HttpRewrite {
    let path = &change["path"];
    // A dollar sign would name a group of the pattern.
    let literal = |text: &str| text.replace('$', "$$");
    let uri_regex_rewrite = match path["type"].as_str().unwrap_or_default() {
        "ReplaceFullPath" => {
            let rewrite = literal(path["replaceFullPath"].as_str().unwrap_or("/"));
            Some(RegexRewrite { pattern: "^.*$".to_owned(), rewrite, ..RegexRewrite::default() })
        }
        "ReplacePrefixMatch" => {
            let matched = condition.path.as_ref().map_or("/", |path| path.value.as_str());
            let matched = regex::escape(matched.trim_end_matches('/'));
            let new = literal(path["replacePrefixMatch"].as_str().unwrap_or_default().trim_end_matches('/'));
            Some(RegexRewrite {
                pattern: format!("^{matched}/*(.*)$"),
                rewrite: format!(r"{new}/\1"),
                ..RegexRewrite::default()
            })
        }
        _ => None,
    };
    let authority = change["hostname"].as_str().unwrap_or_default().to_owned();
    HttpRewrite { authority, uri_regex_rewrite, ..HttpRewrite::default() }
}

fn redirect(change: &Value) -> HttpRedirect {
    let text = |field: &str| change[field].as_str().unwrap_or_default().to_owned();
    HttpRedirect {
        uri: change["path"]["replaceFullPath"].as_str().unwrap_or_default().to_owned(),
        authority: text("hostname"),
        scheme: text("scheme"),
        redirect_code: Some(
            change["statusCode"].as_u64().and_then(|code| u32::try_from(code).ok()).unwrap_or(302),
        ),
        ..HttpRedirect::default()
    }
}

fn mirror(change: &Value) -> Option<HttpMirror> {
    let backend = &change["backendRef"];
    let destination =
        destination(backend["name"].as_str()?, backend.get("namespace"), backend["port"].as_i64());
    let fraction = &change["fraction"];
    let share = match (change["percent"].as_f64(), fraction["numerator"].as_f64()) {
        (Some(percent), _) => Some(percent),
        (None, Some(numerator)) => {
            Some(100.0 * numerator / fraction["denominator"].as_f64().unwrap_or(100.0).max(1.0))
        }
        (None, None) => None,
    };
    let percentage = share.map(|value| Percent { value, ..Percent::default() });
    Some(HttpMirror { destination, percentage, ..HttpMirror::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(spec: &str) -> GatewayRoute {
        let text = format!("{{metadata: {{name: podinfo, namespace: test, generation: 3}}, spec: {spec}}}");
        serde_saphyr::from_str(&text).unwrap()
    }

    fn gateway(spec: &str) -> Arc<ApiGateway> {
        let text = format!("{{metadata: {{name: public, namespace: edge}}, spec: {spec}}}");
        Arc::new(serde_saphyr::from_str(&text).unwrap())
    }

    #[test]
    fn rules_that_ask_for_more_come_first() {
        let route = route(
            "{parentRefs: [{group: '', kind: Service, name: podinfo}], rules: [
               {backendRefs: [{name: a, weight: 1}]},
               {matches: [{path: {type: PathPrefix, value: /api}}, {path: {type: Exact, value: /x}}],
                backendRefs: [{name: b, weight: 1}]},
               {matches: [{path: {type: PathPrefix, value: /api}, headers: [{type: Exact, name: X-User, value: me}]}],
                backendRefs: [{name: c, weight: 1}]}]}",
        );
        let (rules, status) = rules(&route, &[]);
        assert_eq!(rules[0].hosts, ["podinfo.test.svc.cluster.local"]);
        assert_eq!(rules[0].gateways, ["mesh"]);
        let order: Vec<&str> =
            rules[0].routes.iter().map(|route| route.rule().route[0].destination.host.as_str()).collect();
        assert_eq!(order, ["b", "c", "b", "a"]);
        let condition = &rules[0].routes[1].rule().matches[0];
        assert!(condition.headers.contains_key("x-user"), "header names have no case");
        assert_eq!(condition.uri.as_ref().unwrap().regex.as_deref(), Some("/api(?:/.*)?"));
        let accepted = &status.parents[0].conditions[0];
        assert_eq!((accepted.status.as_str(), accepted.observed_generation), ("True", 3));
    }

    #[test]
    fn a_gateway_takes_the_routes_that_its_listeners_allow() {
        let route =
            route("{parentRefs: [{name: public, namespace: edge}], hostnames: [app.example.com], rules: []}");
        let check = |listener: &str, expected: &str| {
            let spec = format!(
                "{{gatewayClassName: istio, addresses: [{{type: Hostname, value: gate.edge.svc.cluster.local}}], \
                 listeners: [{{name: http, port: 80, protocol: HTTP, {listener}}}]}}"
            );
            let gateway = gateway(&spec);
            assert_eq!(entrance(&gateway).unwrap().service.as_deref(), Some("gate.edge.svc.cluster.local"));
            let (rules, status) = rules(&route, &[gateway]);
            let reason = &status.parents[0].conditions[0].extra["reason"];
            assert_eq!(
                (reason.as_str().unwrap(), rules.len()),
                (expected, usize::from(expected == "Accepted"))
            );
        };
        check("allowedRoutes: {namespaces: {from: All}}", "Accepted");
        check("hostname: '*.example.com'", "NotAllowedByListeners");
        check(
            "allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: test}}}}",
            "Accepted",
        );
        let (none, status) = rules(&route, &[gateway("{gatewayClassName: other, listeners: []}")]);
        assert!(none.is_empty() && status.parents.is_empty(), "another's gateway");
    }

    #[test]
    fn filters_change_what_they_name() {
        let rule: GatewayRouteRule = serde_saphyr::from_str(
            "{filters: [
               {type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}, percent: 20}},
               {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}},
               {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: a, value: b}]}}],
              backendRefs: [{name: a, weight: 3, port: 9898}, {name: b, weight: 1}], timeouts: {request: 3s}}",
        )
        .unwrap();
        let made = http_route(&rule, &GatewayRouteMatch::default());
        assert_eq!(made.mirrors[0].destination.host, "shadow");
        assert_eq!(made.mirrors[0].percentage.as_ref().unwrap().value, 20.0);
        assert_eq!(made.rewrite.unwrap().uri_regex_rewrite.unwrap().rewrite, r"/v2/\1");
        assert_eq!(made.headers.unwrap().response.unwrap().add["a"], "b");
        assert_eq!((made.route[0].weight, made.route[1].weight, made.timeout.as_str()), (3, 1, "3s"));
    }
}
