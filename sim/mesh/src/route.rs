//! Where a request goes: a pure function of configuration, caller, request and random draws.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crd::{
    Destination, DirectResponse, HeaderOperations, Headers, HttpMatchRequest, HttpRedirect, HttpRewrite,
    HttpRoute, HttpRouteDestination, Percent, StringMatch, TrafficPolicy,
};
use regex::Regex;

use crate::config::{Config, Endpoint, Route, Rules, Service, full_host, gateway_key, host_fit};

/// Who routes.
#[derive(Clone, Debug)]
pub struct Caller<'a> {
    /// `NAMESPACE/NAME` of the gateways that the request came in by; empty for a sidecar.
    pub gateways: Vec<&'a str>,
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod's labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// What routing looks at in a request.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The host, without a port.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The method.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The query, without the question mark.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a http::HeaderMap,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It is sent on.
    Forward(Forward),
    /// The proxy answers itself: status, body, and the response flag of telemetry.
    Answer {
        /// The status.
        status: u16,
        /// The body.
        body: String,
        /// The response flag, `-` for none.
        flag: &'static str,
        /// The service that was asked for, if it is one.
        service: Option<Arc<Service>>,
    },
    /// A redirect to this location.
    Redirect {
        /// The status.
        status: u16,
        /// The `Location`.
        location: String,
    },
    /// The mesh knows nothing of it: it goes where it was going.
    Passthrough,
}

/// How a request is sent on.
#[derive(Clone, Debug)]
pub struct Forward {
    /// To which of the places in [`Matched::upstreams`].
    pub upstream: usize,
    /// The new path and host.
    pub rewrite: Option<(Option<String>, Option<String>)>,
    /// An injected delay.
    pub delay: Option<Duration>,
    /// Where copies go.
    pub mirrors: Vec<(Arc<Service>, u16)>,
}

/// A place that requests are sent to, and how: the same for all that a rule sends there.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The service.
    pub service: Arc<Service>,
    /// Its port.
    pub port: u16,
    /// The subset, if one was named.
    pub subset: String,
    /// Endpoints to choose from.
    pub endpoints: Arc<[Endpoint]>,
    /// The policy that applies.
    pub policy: Option<Arc<TrafficPolicy>>,
    /// Header changes, of the rule first.
    pub headers: Vec<Headers>,
    /// Time limit of the whole request.
    pub timeout: Option<Duration>,
    /// Retries.
    pub retries: Retries,
}

/// No upstream: the destination is none that the mesh knows, though perhaps its service is.
type NoCluster = Option<Arc<Service>>;

/// Retries after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How many.
    pub attempts: u32,
    /// Time limit of each attempt.
    pub per_try: Option<Duration>,
    /// Whether an answer with 503 is tried again.
    pub on_503: bool,
    /// Whether any answer of 500 and above is tried again.
    pub on_5xx: bool,
    /// Whether a broken connection is tried again.
    pub on_reset: bool,
}

impl Default for Retries {
    /// Istio's default: two, when no connection comes about.
    fn default() -> Self {
        Retries { attempts: 2, per_try: None, on_503: false, on_5xx: false, on_reset: false }
    }
}

/// What applies to requests for a host's port that are alike.
#[derive(Clone, Debug)]
pub struct Matched {
    what: What,
    upstreams: Vec<Result<Upstream, NoCluster>>,
}

#[derive(Clone, Debug)]
enum What {
    /// A rule, with an upstream for each of its destinations.
    Rule(Arc<Route>),
    /// A service without rules, which is the upstream.
    Service,
    /// Nothing, though the host has rules, or the request came in by a gateway.
    NoRule(Option<Arc<Service>>),
    /// Nothing: the mesh does not know the host.
    Unknown,
}

impl Matched {
    /// Nothing applies, though the request came in by a gateway.
    pub fn nothing() -> Matched {
        Matched { what: What::NoRule(None), upstreams: Vec::new() }
    }

    /// Where requests may be sent to, by what a [`Forward`] says; `None` is nowhere.
    pub fn upstreams(&self) -> impl Iterator<Item = Option<&Upstream>> {
        self.upstreams.iter().map(|upstream| upstream.as_ref().ok())
    }
}

/// Looks for what applies to a request: nothing about it is random.
pub fn matching(config: &Config, caller: &Caller<'_>, asked: &Asked<'_>) -> Matched {
    let service =
        if caller.gateways.is_empty() { config.service(asked.host, caller.namespace) } else { None };
    let host = service.map_or(asked.host, |service| &service.named.host);
    let rules = rules_for(config, caller, host);
    let rule = rules.iter().find(|route| matches(route.rule(), &route.namespace, caller, asked));
    let mut upstreams = Vec::new();
    let what = match (rule, service) {
        (Some(rule), _) => {
            let destinations = rule.rule().route.iter();
            upstreams.extend(destinations.map(|destination| {
                let service = config.by_host(&full_host(&destination.destination.host, &rule.namespace));
                let upstream = upstream(service, &destination.destination, asked.port)?;
                Ok(Upstream {
                    headers: rule.rule().headers.iter().chain(&destination.headers).cloned().collect(),
                    timeout: duration(&rule.rule().timeout),
                    retries: retries(rule.rule()),
                    ..upstream
                })
            }));
            What::Rule(Arc::clone(rule))
        }
        (None, Some(service)) if rules.is_empty() => {
            upstreams.push(upstream(Some(service), &Destination::default(), asked.port));
            What::Service
        }
        _ if !rules.is_empty() || !caller.gateways.is_empty() => What::NoRule(service.cloned()),
        _ => What::Unknown,
    };
    Matched { what, upstreams }
}

/// Decides, by what applies. `draw` gives numbers in [0, 1), one per random decision.
pub fn follow(
    config: &Config,
    matched: &Matched,
    asked: &Asked<'_>,
    mut draw: impl FnMut() -> f64,
) -> Decision {
    match &matched.what {
        What::Rule(route) => apply(config, route, &matched.upstreams, asked, &mut draw),
        What::Service => forward(&matched.upstreams, 0).map_or_else(|answer| answer, Decision::Forward),
        What::NoRule(service) => {
            Decision::Answer { status: 404, body: String::new(), flag: "NR", service: service.clone() }
        }
        What::Unknown => Decision::Passthrough,
    }
}

/// A request goes to an upstream, if there is one.
fn forward(upstreams: &[Result<Upstream, NoCluster>], upstream: usize) -> Result<Forward, Decision> {
    match &upstreams[upstream] {
        Ok(_) => Ok(Forward { upstream, rewrite: None, delay: None, mirrors: Vec::new() }),
        Err(service) => {
            Err(Decision::Answer { status: 503, body: String::new(), flag: "NC", service: service.clone() })
        }
    }
}

/// The HTTP rules that apply to a host, in order.
fn rules_for<'a>(config: &'a Config, caller: &Caller<'_>, host: &str) -> Cow<'a, [Arc<Route>]> {
    let applies = |gateways: &[String]| {
        if caller.gateways.is_empty() {
            gateways.iter().any(|gateway| gateway == "mesh")
        } else {
            gateways.iter().any(|gateway| caller.gateways.contains(&gateway.as_str()))
        }
    };
    let mut best: Option<usize> = None;
    let (mut first, mut others): (Option<&Rules>, Vec<&Rules>) = (None, Vec::new());
    for rules in config.rules_about(host).filter(|rules| applies(&rules.gateways)) {
        let Some(fit) = rules.hosts.iter().filter_map(|pattern| host_fit(pattern, host)).max() else {
            continue;
        };
        if best.is_none_or(|best| fit > best) {
            best = Some(fit);
            first = Some(rules);
            others.clear();
        } else if best == Some(fit) {
            others.push(rules);
        }
    }
    let first = first.map_or(&[][..], |rules| &rules.routes);
    // In sidecars the oldest VirtualService owns the host.
    if caller.gateways.is_empty() || others.is_empty() {
        return Cow::Borrowed(first);
    }
    let others = others.into_iter().flat_map(|rules| &rules.routes);
    let mut routes: Vec<Arc<Route>> = first.iter().chain(others).cloned().collect();
    routes.sort_by_key(|route| route.precedence);
    Cow::Owned(routes)
}

fn matches(http: &HttpRoute, namespace: &str, caller: &Caller<'_>, asked: &Asked<'_>) -> bool {
    http.matches.is_empty() || http.matches.iter().any(|condition| holds(condition, namespace, caller, asked))
}

fn holds(condition: &HttpMatchRequest, namespace: &str, caller: &Caller<'_>, asked: &Asked<'_>) -> bool {
    if condition.gateways.is_empty() {
        let has_labels =
            condition.source_labels.iter().all(|(name, value)| caller.labels.get(name) == Some(value));
        let of_namespace =
            condition.source_namespace.is_empty() || condition.source_namespace == caller.namespace;
        if caller.gateways.is_empty() && !(has_labels && of_namespace) {
            return false;
        }
    } else {
        let keys: Vec<String> =
            condition.gateways.iter().map(|gateway| gateway_key(gateway, namespace)).collect();
        let hit = if caller.gateways.is_empty() {
            keys.iter().any(|key| key == "mesh")
        } else {
            keys.iter().any(|key| caller.gateways.contains(&key.as_str()))
        };
        if !hit {
            return false;
        }
    }
    let text = |wanted: &Option<StringMatch>, found: &str, ignore_case: bool| {
        wanted.as_ref().is_none_or(|wanted| is_match(wanted, found, ignore_case))
    };
    let header = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok());
    let header_holds = |(name, wanted): (&String, &StringMatch)| match header(name) {
        Some(found) => is_empty(wanted) || is_match(wanted, found, false),
        None => false,
    };
    let query = |name: &str| {
        asked.query.split('&').find_map(|pair| {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            (found == name).then_some(value)
        })
    };
    condition.port.is_none_or(|port| port == u32::from(asked.port))
        && text(&condition.uri, asked.path, condition.ignore_uri_case)
        && text(&condition.method, asked.method, false)
        && text(&condition.scheme, "http", false)
        && text(&condition.authority, asked.host, false)
        && condition.headers.iter().all(header_holds)
        && !condition.without_headers.iter().any(header_holds)
        && condition.query_params.iter().all(|(name, wanted)| {
            query(name).is_some_and(|found| is_empty(wanted) || is_match(wanted, found, false))
        })
}

fn is_empty(wanted: &StringMatch) -> bool {
    wanted.exact.is_none() && wanted.prefix.is_none() && wanted.regex.is_none()
}

fn is_match(wanted: &StringMatch, found: &str, ignore_case: bool) -> bool {
    let (found, fold) = if ignore_case { (found.to_lowercase(), true) } else { (found.to_owned(), false) };
    let wanted_text = |text: &str| if fold { text.to_lowercase() } else { text.to_owned() };
    if let Some(exact) = &wanted.exact {
        return found == wanted_text(exact);
    }
    if let Some(prefix) = &wanted.prefix {
        return found.starts_with(&wanted_text(prefix));
    }
    if let Some(pattern) = &wanted.regex {
        // The whole value must match; a pattern that is none matches nothing.
        return Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|regex| regex.is_match(&found));
    }
    true
}

fn apply(
    config: &Config,
    route: &Route,
    upstreams: &[Result<Upstream, NoCluster>],
    asked: &Asked<'_>,
    draw: &mut impl FnMut() -> f64,
) -> Decision {
    let (http, namespace) = (route.rule(), &*route.namespace);
    let mut delay = None;
    if let Some(fault) = &http.fault {
        if let Some(injected) = &fault.delay
            && happens(injected.percentage.as_ref(), injected.percent, draw)
        {
            delay = duration(&injected.fixed_delay);
        }
        if let Some(abort) = &fault.abort
            && happens(abort.percentage.as_ref(), abort.percent, draw)
        {
            let status = abort.http_status.and_then(|status| u16::try_from(status).ok()).unwrap_or(503);
            let body = "fault filter abort".to_owned();
            return Decision::Answer { status, body, flag: "FI", service: None };
        }
    }
    if let Some(redirect) = &http.redirect {
        return redirected(redirect, asked);
    }
    if let Some(direct) = &http.direct_response {
        return answered(direct);
    }
    let Some(chosen) = weighted(http, draw) else {
        return Decision::Answer { status: 404, body: String::new(), flag: "NR", service: None };
    };
    let forward = match forward(upstreams, chosen) {
        Ok(forward) => forward,
        Err(decision) => return decision,
    };
    let share_of_all = http
        .mirror_percentage
        .as_ref()
        .map_or_else(|| http.mirror_percent.map_or(100.0, f64::from), |percentage| percentage.value);
    let one = http.mirror.as_ref().map(|mirror| (mirror, share_of_all));
    let several = http.mirrors.iter().map(|mirror| {
        (&mirror.destination, mirror.percentage.as_ref().map_or(100.0, |percentage| percentage.value))
    });
    let mut mirrors = Vec::new();
    for (mirror, share) in one.into_iter().chain(several) {
        if draw_percent(share, draw)
            && let Some(service) = config.by_host(&full_host(&mirror.host, namespace))
        {
            let port = mirror.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
            mirrors.push((Arc::clone(service), port.unwrap_or_else(|| default_port(service, asked.port))));
        }
    }
    let rewrite = http.rewrite.as_ref().map(|rewrite| rewritten(rewrite, http, asked));
    Decision::Forward(Forward { rewrite, delay, mirrors, ..forward })
}

/// The upstream that a destination is, for a request to `asked_port`.
fn upstream(
    service: Option<&Arc<Service>>,
    destination: &Destination,
    asked_port: u16,
) -> Result<Upstream, NoCluster> {
    let service = service.ok_or(None)?;
    let no_cluster = || Some(Arc::clone(service));
    let port = match destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok()) {
        Some(port) => port,
        None => default_port(service, asked_port),
    };
    let all = service.ports.get(&port).ok_or_else(no_cluster)?;
    let rule = service.rule.as_ref();
    let (endpoints, own) = if destination.subset.is_empty() {
        (all, None)
    } else {
        let subset = rule.and_then(|rule| rule.subsets.get(&destination.subset));
        let found = subset.and_then(|subset| Some((subset.ports.get(&port)?, subset.policy.clone())));
        found.ok_or_else(no_cluster)?
    };
    let policy = own.or_else(|| rule.and_then(|rule| rule.policy.clone()));
    Ok(Upstream {
        service: Arc::clone(service),
        port,
        subset: destination.subset.clone(),
        endpoints: Arc::clone(endpoints),
        policy,
        headers: Vec::new(),
        timeout: None,
        retries: Retries::default(),
    })
}

/// The port of a destination that names none: the one that was asked for, or the service's only one.
fn default_port(service: &Service, asked: u16) -> u16 {
    if service.ports.contains_key(&asked) || service.ports.len() != 1 {
        return asked;
    }
    service.ports.keys().next().copied().unwrap_or(asked)
}

/// One of a rule's destinations by weight; one alone takes all, zero weights none.
fn weighted(http: &HttpRoute, draw: &mut impl FnMut() -> f64) -> Option<usize> {
    if http.route.len() == 1 {
        return Some(0);
    }
    let weight = |route: &HttpRouteDestination| f64::from(route.weight.max(0));
    let total: f64 = http.route.iter().map(weight).sum();
    if total <= 0.0 {
        return None;
    }
    let mut left = draw() * total;
    let weighty = http.route.iter().enumerate().filter(|(_, route)| route.weight > 0);
    let mut last = None;
    for (place, route) in weighty {
        last = Some(place);
        if left < weight(route) {
            break;
        }
        left -= weight(route);
    }
    last
}

fn happens(percentage: Option<&Percent>, percent: Option<u32>, draw: &mut impl FnMut() -> f64) -> bool {
    let share = percentage.map_or_else(|| percent.map_or(0.0, f64::from), |percentage| percentage.value);
    draw_percent(share, draw)
}

fn draw_percent(share: f64, draw: &mut impl FnMut() -> f64) -> bool {
    share >= 100.0 || (share > 0.0 && draw() * 100.0 < share)
}

fn redirected(redirect: &HttpRedirect, asked: &Asked<'_>) -> Decision {
    let scheme = if redirect.scheme.is_empty() { "http" } else { &redirect.scheme };
    let host = if redirect.authority.is_empty() { asked.host } else { &redirect.authority };
    let path = if redirect.uri.is_empty() { asked.path } else { &redirect.uri };
    let status = redirect.redirect_code.and_then(|code| u16::try_from(code).ok()).unwrap_or(301);
    Decision::Redirect { status, location: format!("{scheme}://{host}{path}") }
}

fn answered(direct: &DirectResponse) -> Decision {
    let status = u16::try_from(direct.status).unwrap_or(503);
    let body = direct.body.as_ref().and_then(|body| body["string"].as_str()).unwrap_or_default().to_owned();
    Decision::Answer { status, body, flag: "-", service: None }
}

fn rewritten(rewrite: &HttpRewrite, http: &HttpRoute, asked: &Asked<'_>) -> (Option<String>, Option<String>) {
    let authority = Some(rewrite.authority.clone()).filter(|authority| !authority.is_empty());
    if let Some(by_regex) = &rewrite.uri_regex_rewrite {
        // Envoy's substitutions are `\1`, the regex crate's `${1}`.
        let replacement =
            Regex::new(r"\\(\d)").map(|digits| digits.replace_all(&by_regex.rewrite, "$${$1}").into_owned());
        let path = Regex::new(&by_regex.pattern)
            .ok()
            .zip(replacement.ok())
            .map(|(regex, replacement)| regex.replace_all(asked.path, replacement.as_str()).into_owned());
        return (path, authority);
    }
    if rewrite.uri.is_empty() {
        return (None, authority);
    }
    // A prefix that matched is replaced; anything else is replaced whole.
    let prefixes = http.matches.iter().filter_map(|condition| condition.uri.as_ref()?.prefix.as_deref());
    let prefix = prefixes.filter(|prefix| asked.path.starts_with(prefix)).max_by_key(|prefix| prefix.len());
    let is_exact =
        http.matches.iter().any(|condition| condition.uri.as_ref().is_some_and(|uri| uri.exact.is_some()));
    let path = match prefix {
        Some(prefix) => format!("{}{}", rewrite.uri, &asked.path[prefix.len()..]),
        None if is_exact => rewrite.uri.clone(),
        // Without a condition the matched prefix is `/`.
        None => format!("{}{}", rewrite.uri, asked.path.strip_prefix('/').unwrap_or(asked.path)),
    };
    (Some(path), authority)
}

fn retries(http: &HttpRoute) -> Retries {
    let Some(wanted) = &http.retries else { return Retries::default() };
    let on: Vec<&str> = wanted.retry_on.split(',').map(str::trim).collect();
    Retries {
        attempts: u32::try_from(wanted.attempts).unwrap_or(0),
        per_try: duration(&wanted.per_try_timeout),
        on_503: on.contains(&"503") || on.contains(&"gateway-error"),
        on_5xx: on.contains(&"5xx"),
        on_reset: on.contains(&"reset") || on.contains(&"5xx") || on.contains(&"gateway-error"),
    }
}

/// A duration as Istio writes it; nothing or zero is none.
fn duration(text: &str) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let found: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(found).ok().filter(|duration| !duration.is_zero())
}

/// Changes headers.
pub fn change_headers(headers: &mut http::HeaderMap, operations: Option<&HeaderOperations>) {
    let Some(operations) = operations else { return };
    let pair = |name: &str, value: &str| {
        Some((name.parse::<http::HeaderName>().ok()?, http::HeaderValue::from_str(value).ok()?))
    };
    for name in &operations.remove {
        headers.remove(name.as_str());
    }
    for (name, value) in &operations.set {
        if let Some((name, value)) = pair(name, value) {
            headers.insert(name, value);
        }
    }
    for (name, value) in &operations.add {
        if let Some((name, value)) = pair(name, value) {
            headers.append(name, value);
        }
    }
}
