//! Istio's objects: a VirtualService that splits between primary and canary, a DestinationRule for each.

use std::collections::BTreeMap;

use canary::{Dialect, Routes};
use crd::{
    Canary, Destination, DestinationRule, DestinationRuleSpec, HeaderOperations, Headers, HttpMatchRequest,
    HttpRoute, HttpRouteDestination, IstioVersion, Percent, PortSelector, SessionAffinity, StringMatch,
    VirtualService, VirtualServiceSpec,
};
use serde_json::{Value, json};

use crate::owner::{self, Labels};
use crate::service::Role;

/// `kubectl apply`'s record of what was applied.
pub const KUBECTL_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What a VirtualService was before Flagger took it over.
pub const CONFIG_ANNOTATION: &str = "flagger.kubernetes.io/original-configuration";

/// The version of Istio's API that the dialect speaks.
pub fn version(dialect: Dialect) -> IstioVersion {
    match dialect {
        Dialect::Rc1 => IstioVersion::V1Alpha3,
        Dialect::Latest => IstioVersion::V1Beta1,
    }
}

/// The cookies of a run with session affinity, `NAME=VALUE` each; empty while there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cookies {
    /// The canary's of this run.
    pub canary: String,
    /// The primary's of this run.
    pub primary: String,
    /// The canary's of the last run.
    pub previous: String,
}

/// What Istio's objects are made of.
#[derive(Clone, Copy)]
pub struct Recipe<'a> {
    /// The Canary.
    pub canary: &'a Canary,
    /// Whether the objects live in the Canary's own cluster, where its ownership means something.
    pub owned: bool,
    /// The release that is followed.
    pub dialect: Dialect,
}

impl Recipe<'_> {
    /// The DestinationRule of a Service.
    pub fn destination_rule(&self, role: Role) -> DestinationRule {
        let name = role.service(self.canary);
        let spec = DestinationRuleSpec {
            host: name.clone(),
            traffic_policy: self.canary.spec.service.traffic_policy.clone(),
            ..Default::default()
        };
        let mut rule =
            DestinationRule::versioned(&version(self.dialect), self.canary.namespace(), &name, spec);
        if self.owned {
            rule.metadata.owner_references = Some(vec![owner::reference(self.canary)]);
        }
        rule
    }

    /// The VirtualService as it is first made: everything to the primary.
    ///
    /// # Errors
    /// The newer dialect refuses hosts and gateways together with delegation.
    pub fn virtual_service(&self) -> Result<VirtualService, String> {
        let (namespace, apex) = (self.canary.namespace(), self.canary.spec.apex_name());
        let mut object =
            VirtualService::versioned(&version(self.dialect), namespace, apex, self.first_spec()?);
        if self.owned {
            object.metadata.owner_references = Some(vec![owner::reference(self.canary)]);
        }
        let (labels, annotations) = self.custom();
        object.metadata.labels = Some(labels).filter(|labels| !labels.is_empty());
        object.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
        Ok(object)
    }

    /// Corrects an existing VirtualService; `None` if nothing but weights and mirroring differs. A correction
    /// sends everything to the primary again.
    ///
    /// # Errors
    /// As [`Recipe::virtual_service`].
    pub fn correct(&self, existing: &VirtualService) -> Result<Option<VirtualService>, String> {
        let spec = self.first_spec()?;
        let spec_differs = self.comparable(&spec) != self.comparable(&existing.spec);
        let mut corrected = existing.clone();
        if self.dialect == Dialect::Rc1 {
            corrected.spec = spec;
            return Ok(spec_differs.then_some(corrected));
        }
        let (labels, mut annotations) = self.custom();
        let old = existing.metadata.annotations.clone().unwrap_or_default();
        for kept in [KUBECTL_ANNOTATION, CONFIG_ANNOTATION] {
            if let Some(value) = old.get(kept) {
                annotations.insert(kept.to_owned(), value.clone());
            }
        }
        let marks_differ =
            labels != existing.metadata.labels.clone().unwrap_or_default() || annotations != old;
        if !spec_differs && !marks_differ {
            return Ok(None);
        }
        if spec_differs && !annotations.contains_key(KUBECTL_ANNOTATION) {
            let original = serde_json::to_string(&existing.spec).expect("a spec is always JSON");
            annotations.insert(CONFIG_ANNOTATION.to_owned(), original);
        }
        corrected.spec = spec;
        corrected.metadata.labels = (!labels.is_empty()).then_some(labels);
        corrected.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        Ok(Some(corrected))
    }

    /// The weights of a VirtualService.
    ///
    /// # Errors
    /// Flagger's words for a VirtualService that routes to neither.
    pub fn routes(&self, object: &VirtualService) -> Result<Routes, String> {
        let (primary, canary) = (Role::Primary.service(self.canary), Role::Canary.service(self.canary));
        let mut routes = Routes { primary: 0, canary: 0, mirrored: false };
        let mut read = |host: &str, weight: i32| {
            if host == primary {
                routes.primary = weight;
            } else if host == canary {
                routes.canary = weight;
            }
        };
        if self.is_tcp() {
            for route in object.spec.tcp.iter().filter_map(|rule| rule["route"].as_array()).flatten() {
                let weight = route["weight"].as_i64().unwrap_or_default();
                read(route["destination"]["host"].as_str().unwrap_or_default(), weight as i32);
            }
        } else {
            let to_canary = |rule: &&HttpRoute| rule.route.iter().any(|to| to.destination.host == canary);
            let rule = object.spec.http.iter().rfind(to_canary);
            for to in rule.iter().flat_map(|rule| &rule.route) {
                read(&to.destination.host, to.weight);
            }
            if self.affinity().is_some() {
                // The rule that sets cookies is the one that splits.
                for to in object.spec.http.iter().flat_map(|rule| &rule.route) {
                    if to.headers.is_some() {
                        read(&to.destination.host, to.weight);
                    }
                }
            }
            let mirror = rule.and_then(|rule| rule.mirror.as_ref());
            routes.mirrored = mirror.is_some_and(|mirror| !mirror.host.is_empty());
        }
        if routes.primary == 0 && routes.canary == 0 {
            let apex = self.canary.spec.apex_name();
            return Err(format!(
                "VirtualService {apex}.{} does not contain routes for {apex}-primary and {apex}-canary",
                self.canary.namespace()
            ));
        }
        Ok(routes)
    }

    /// Writes weights into a VirtualService. `cookies` are those of the status, and become those of the run;
    /// `draw` gives a fresh cookie value.
    pub fn set_routes(
        &self,
        object: &mut VirtualService,
        routes: Routes,
        cookies: &mut Cookies,
        mut draw: impl FnMut() -> String,
    ) {
        let weighted = self.weighted(routes);
        if self.is_tcp() {
            object.spec.tcp = vec![self.tcp_rule(routes)];
            return;
        }
        object.spec.http = match self.affinity() {
            Some(affinity) => self.sticky(affinity, weighted, routes.canary, cookies, &mut draw),
            None => vec![weighted],
        };
        if routes.mirrored {
            let rule = &mut object.spec.http[0];
            rule.mirror = Some(Destination { host: Role::Canary.service(self.canary), ..Default::default() });
            let share = self.canary.spec.analysis().map_or(0, |analysis| analysis.mirror_weight);
            if self.dialect == Dialect::Latest && share > 0 {
                rule.mirror_percentage = Some(Percent { value: share.into(), ..Default::default() });
            }
        }
        if self.is_ab_test() {
            object.spec.http = self.ab_rules(routes, routes.primary);
        }
    }

    fn first_spec(&self) -> Result<VirtualServiceSpec, String> {
        let service = &self.canary.spec.service;
        let apex = self.canary.spec.apex_name();
        let mut spec = VirtualServiceSpec {
            hosts: service.hosts.clone(),
            gateways: service.gateways.clone(),
            ..Default::default()
        };
        if self.dialect == Dialect::Latest && service.delegation {
            if !spec.hosts.is_empty() || !spec.gateways.is_empty() {
                return Err(format!(
                    "VirtualService {apex}.{} cannot have hosts and gateways when delegation enabled",
                    self.canary.namespace()
                ));
            }
        } else {
            if !spec.hosts.iter().any(|host| host == apex || host == "*") {
                spec.hosts.push(apex.to_owned());
            }
            if spec.gateways.is_empty() {
                spec.gateways.push("mesh".to_owned());
            }
        }
        if self.is_tcp() {
            spec.tcp = vec![self.tcp_rule(Routes::PRIMARY)];
        } else if self.is_ab_test() {
            spec.http = self.ab_rules(Routes::PRIMARY, 100);
        } else {
            spec.http = vec![self.weighted(Routes::PRIMARY)];
        }
        Ok(spec)
    }

    /// Labels and annotations that the Canary asks for on the apex.
    fn custom(&self) -> (Labels, Labels) {
        match (self.dialect, &self.canary.spec.service.apex) {
            (Dialect::Latest, Some(apex)) => {
                (apex.labels.clone(), owner::without_flux(Some(&apex.annotations)))
            }
            _ => Default::default(),
        }
    }

    /// A spec without what Flagger changes during a run.
    fn comparable(&self, spec: &VirtualServiceSpec) -> VirtualServiceSpec {
        let mut spec = spec.clone();
        if let Some(affinity) = self.affinity() {
            let sticky = |name: &str, rule: &HttpRoute| {
                let mut cookies = rule.matches.iter().filter_map(|one| one.headers.get("Cookie"));
                cookies.any(|cookie| cookie.regex.as_deref().is_some_and(|regex| regex.contains(name)))
            };
            let names = [&affinity.cookie_name, &affinity.primary_cookie_name];
            spec.http.retain(|rule| !names.iter().any(|name| !name.is_empty() && sticky(name, rule)));
        }
        for rule in &mut spec.http {
            rule.mirror = None;
            rule.mirror_percentage = None;
            for to in &mut rule.route {
                to.weight = 0;
                if self.affinity().is_some() {
                    to.headers = None;
                }
            }
        }
        for to in spec.tcp.iter_mut().filter_map(|rule| rule["route"].as_array_mut()).flatten() {
            to["weight"] = Value::from(0);
        }
        spec
    }

    fn is_tcp(&self) -> bool {
        self.dialect == Dialect::Latest && self.canary.spec.service.app_protocol.eq_ignore_ascii_case("tcp")
    }

    fn is_ab_test(&self) -> bool {
        !self.is_tcp() && self.canary.spec.analysis().is_some_and(|analysis| !analysis.matches.is_empty())
    }

    fn affinity(&self) -> Option<&SessionAffinity> {
        let analysis = self.canary.spec.analysis().filter(|_| self.dialect == Dialect::Latest);
        analysis.and_then(|analysis| analysis.session_affinity.as_ref())
    }

    fn rule(&self, matches: Vec<HttpMatchRequest>, route: Vec<HttpRouteDestination>) -> HttpRoute {
        let service = &self.canary.spec.service;
        HttpRoute {
            matches,
            rewrite: service.rewrite.clone().map(|mut rewrite| {
                // The type is the Gateway API's, not Istio's.
                rewrite.kind = String::new();
                rewrite
            }),
            timeout: service.timeout.clone(),
            retries: service.retries.clone(),
            cors_policy: service.cors_policy.clone(),
            headers: service.headers.clone(),
            route,
            ..Default::default()
        }
    }

    fn weighted(&self, routes: Routes) -> HttpRoute {
        self.rule(self.canary.spec.service.matches.clone(), self.split(routes))
    }

    fn ab_rules(&self, routes: Routes, rest: i32) -> Vec<HttpRoute> {
        let conditions = self.canary.spec.analysis().map(|analysis| analysis.matches.clone());
        let matched = self.merged(conditions.unwrap_or_default());
        vec![
            self.rule(matched, self.split(routes)),
            self.rule(self.canary.spec.service.matches.clone(), vec![self.to(Role::Primary, rest)]),
        ]
    }

    /// Conditions that must hold together with the Service's own.
    fn merged(&self, mut conditions: Vec<HttpMatchRequest>) -> Vec<HttpMatchRequest> {
        let defaults = &self.canary.spec.service.matches;
        if self.dialect == Dialect::Rc1 {
            if let Some(uri) = defaults.iter().filter_map(|one| one.uri.as_ref()).next_back() {
                conditions.iter_mut().for_each(|one| one.uri = Some(uri.clone()));
            }
            return conditions;
        }
        if defaults.is_empty() {
            return conditions;
        }
        let pair = |one: &HttpMatchRequest, default: &HttpMatchRequest| {
            let mut merged = default.clone();
            if !one.headers.is_empty() {
                merged.headers = one.headers.clone();
            }
            if !one.source_labels.is_empty() {
                merged.source_labels = one.source_labels.clone();
            }
            merged
        };
        conditions.iter().flat_map(|one| defaults.iter().map(move |default| pair(one, default))).collect()
    }

    fn split(&self, routes: Routes) -> Vec<HttpRouteDestination> {
        vec![self.to(Role::Primary, routes.primary), self.to(Role::Canary, routes.canary)]
    }

    fn to(&self, role: Role, weight: i32) -> HttpRouteDestination {
        let service = &self.canary.spec.service;
        let through_gateway = service.gateways.first().is_some_and(|gateway| gateway != "mesh")
            || (self.dialect == Dialect::Latest && service.delegation);
        let port = (service.port_discovery && through_gateway)
            .then(|| PortSelector { number: service.port.unsigned_abs(), ..Default::default() });
        HttpRouteDestination {
            destination: Destination { host: role.service(self.canary), port, ..Default::default() },
            weight,
            ..Default::default()
        }
    }

    fn tcp_rule(&self, routes: Routes) -> Value {
        let ports = self.canary.spec.service.matches.iter();
        let matches: Vec<Value> = ports.map(|one| json!({ "port": one.port.unwrap_or_default() })).collect();
        let mut rule = json!({ "route": self.split(routes) });
        if !matches.is_empty() {
            rule["match"] = matches.into();
        }
        rule
    }

    fn sticky(
        &self,
        affinity: &SessionAffinity,
        mut weighted: HttpRoute,
        canary_weight: i32,
        cookies: &mut Cookies,
        draw: &mut impl FnMut() -> String,
    ) -> Vec<HttpRoute> {
        if canary_weight == 0 {
            // The run is over: its cookie is called back, and those who still have it reach the primary.
            if !cookies.canary.is_empty() {
                cookies.previous = std::mem::take(&mut cookies.canary);
            }
            let mut rule = weighted.clone();
            if !cookies.previous.is_empty() {
                rule.matches = self.cookie_match(&cookies.previous);
                let expired = format!("{}; Max-Age=-1", cookies.previous);
                rule.headers = Some(set_cookie(rule.headers.take(), expired));
            }
            return vec![rule, weighted];
        }
        if cookies.canary.is_empty() {
            cookies.canary = format!("{}={}", affinity.cookie_name, draw());
        }
        if cookies.primary.is_empty() {
            cookies.primary = format!("{}={}", affinity.primary_cookie_name, draw());
        }
        let sticky = |cookie: &str, routes: Routes| {
            let mut rule = self.weighted(routes);
            rule.matches = self.cookie_match(cookie);
            rule
        };
        let mut rules = vec![sticky(&cookies.canary, Routes::CANARY)];
        let age = if affinity.max_age == 0 { 86_400 } else { affinity.max_age };
        let cookie = attributes(affinity, &cookies.canary, age);
        weighted.route[1].headers = Some(set_cookie(weighted.route[1].headers.take(), cookie));
        if !affinity.primary_cookie_name.is_empty() {
            rules.push(sticky(&cookies.primary, Routes::PRIMARY));
            let interval = self.canary.spec.analysis().map_or("", |analysis| analysis.interval.as_str());
            let interval = canary::parse_duration(interval).unwrap_or_default();
            let cookie = attributes(affinity, &cookies.primary, interval.as_secs() as i64);
            weighted.route[0].headers = Some(set_cookie(weighted.route[0].headers.take(), cookie));
        }
        rules.push(weighted);
        rules
    }

    fn cookie_match(&self, cookie: &str) -> Vec<HttpMatchRequest> {
        let (name, value) = cookie.split_once('=').unwrap_or((cookie, ""));
        let regex = StringMatch { regex: Some(format!(".*{name}.*{value}.*")), ..Default::default() };
        self.merged(vec![HttpMatchRequest {
            headers: BTreeMap::from([("Cookie".to_owned(), regex)]),
            ..Default::default()
        }])
    }
}

fn set_cookie(headers: Option<Headers>, cookie: String) -> Headers {
    let mut headers = headers.unwrap_or_default();
    let response = headers.response.get_or_insert_with(HeaderOperations::default);
    response.add.insert("Set-Cookie".to_owned(), cookie);
    headers
}

/// A cookie with its attributes, in Flagger's order.
pub fn attributes(affinity: &SessionAffinity, cookie: &str, max_age: i64) -> String {
    let mut text = format!("{cookie}; Max-Age={max_age}");
    let values = [
        ("Domain", affinity.domain.as_str(), !affinity.domain.is_empty()),
        ("HttpOnly", "", affinity.http_only),
        ("Partitioned", "", affinity.partitioned),
        ("Path", &affinity.path, !affinity.path.is_empty()),
        ("SameSite", &affinity.same_site, !affinity.same_site.is_empty()),
        ("Secure", "", affinity.secure),
    ];
    for (name, value, _) in values.into_iter().filter(|(.., given)| *given) {
        text.push_str(&if value.is_empty() { format!("; {name}") } else { format!("; {name}={value}") });
    }
    text
}
