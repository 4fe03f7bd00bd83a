//! The Gateway API's HTTPRoute (newer dialect): the second way to split between primary and canary.

use canary::Routes;
use crd::{
    Canary, CorsPolicy, GatewayApiVersion, GatewayBackend, GatewayPathMatch, GatewayRoute, GatewayRouteMatch,
    GatewayRouteRule, GatewayRouteSpec, GatewayTimeouts, GatewayValueMatch, HeaderOperations,
    HttpMatchRequest, Phase, SessionAffinity, StringMatch,
};
use serde_json::{Value, json};

use crate::istio::{Cookies, attributes};
use crate::owner::{self, Labels};
use crate::service::Role;

/// What HTTPRoutes are made of.
#[derive(Clone, Copy)]
pub struct Recipe<'a> {
    /// The Canary.
    pub canary: &'a Canary,
    /// Whether the object lives in the Canary's own cluster, where its ownership means something.
    pub owned: bool,
    /// The version to write.
    pub version: GatewayApiVersion,
}

impl Recipe<'_> {
    /// The HTTPRoute as it is first made: everything to the primary.
    ///
    /// # Errors
    /// Flagger's words for a Canary without gateways, or with conditions that the Gateway API does not have.
    pub fn route(&self) -> Result<GatewayRoute, String> {
        let spec = self.first_spec()?;
        let (namespace, apex) = (self.canary.namespace(), self.canary.spec.apex_name());
        let mut object = GatewayRoute::versioned(&self.version, namespace, apex, spec);
        if self.owned {
            object.metadata.owner_references = Some(vec![owner::reference(self.canary)]);
        }
        let (labels, annotations) = self.custom();
        object.metadata.labels = Some(labels).filter(|labels| !labels.is_empty());
        object.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
        Ok(object)
    }

    /// Corrects an existing HTTPRoute; `None` if nothing but what a run changes differs. A correction sends everything
    /// to the primary again.
    ///
    /// # Errors
    /// As [`Recipe::route`].
    pub fn correct(&self, existing: &GatewayRoute) -> Result<Option<GatewayRoute>, String> {
        let spec = self.first_spec()?;
        let (labels, mut annotations) = self.custom();
        // Other controllers' annotations stay.
        let old = existing.metadata.annotations.clone().unwrap_or_default();
        for (name, value) in &old {
            annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let same_marks = labels == existing.metadata.labels.clone().unwrap_or_default() && annotations == old;
        if same_marks && self.comparable(&spec) == self.comparable(&existing.spec) {
            return Ok(None);
        }
        let mut corrected = existing.clone();
        corrected.spec = spec;
        corrected.metadata.labels = Some(labels).filter(|labels| !labels.is_empty());
        corrected.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
        Ok(Some(corrected))
    }

    /// The weights of an HTTPRoute.
    ///
    /// # Errors
    /// That a gateway has not accepted its newest generation.
    pub fn routes(&self, object: &GatewayRoute) -> Result<Routes, String> {
        self.accepted(object)?;
        let (primary, canary) = (Role::Primary.service(self.canary), Role::Canary.service(self.canary));
        let mut routes = Routes { primary: 0, canary: 0, mirrored: false };
        let mut read = |rule: &GatewayRouteRule| {
            for backend in &rule.backend_refs {
                if backend.name == primary {
                    routes.primary = backend.weight;
                } else if backend.name == canary {
                    routes.canary = backend.weight;
                }
            }
        };
        // The rule of an A/B test's other requests has the primary alone; the rule that sets cookies is the one that
        // splits.
        object.spec.rules.iter().filter(|rule| rule.backend_refs.len() == 2).for_each(&mut read);
        if self.affinity().is_some() {
            let sets_cookies = |rule: &&GatewayRouteRule| {
                rule.backend_refs.iter().any(|backend| !backend.filters.is_empty())
            };
            object.spec.rules.iter().filter(sets_cookies).for_each(read);
        }
        let mut filters = object.spec.rules.iter().flat_map(|rule| &rule.filters);
        routes.mirrored = filters.any(|filter| {
            filter["type"] == "RequestMirror" && filter["requestMirror"]["backendRef"]["name"] == *canary
        });
        Ok(routes)
    }

    fn accepted(&self, object: &GatewayRoute) -> Result<(), String> {
        let generation = object.metadata.generation.unwrap_or_default();
        let parents = object.status.as_ref().map_or(&[][..], |status| &status.parents);
        for reference in &object.spec.parent_refs {
            let judged = parents.iter().filter(|parent| parent.parent_ref == *reference);
            for condition in judged.flat_map(|parent| &parent.conditions) {
                let stale = condition.status != "True" || condition.observed_generation < generation;
                if condition.kind == "Accepted" && stale {
                    return Err(format!(
                        "HTTPRoute {}.{} parent {} is not ready (status: {}, observed generation: {}, current \
                         generation: {generation})",
                        self.canary.spec.apex_name(),
                        self.canary.namespace(),
                        reference.name,
                        condition.status,
                        condition.observed_generation
                    ));
                }
            }
        }
        Ok(())
    }

    /// Writes weights into an HTTPRoute. `cookies` are those of the status, and become those of the run; `draw` gives
    /// a fresh cookie value.
    ///
    /// # Errors
    /// As [`Recipe::route`]; an interval that is none, if the primary has a cookie.
    pub fn set_routes(
        &self,
        object: &mut GatewayRoute,
        routes: Routes,
        cookies: &mut Cookies,
        mut draw: impl FnMut() -> String,
    ) -> Result<(), String> {
        let mut weighted = self.rule(self.service_matches()?, self.split(routes));
        let iterations = self.canary.spec.analysis().map_or(0, |analysis| analysis.iterations);
        if routes.mirrored && iterations > 0 {
            let GatewayBackend { group, kind, name, port, .. } = self.to(Role::Canary, 0);
            let backend = json!({"group": group, "kind": kind, "name": name, "port": port});
            weighted.filters.push(json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend}}));
        }
        let mut rules = match self.affinity() {
            Some(affinity) => self.sticky(affinity, weighted, routes.canary, cookies, &mut draw)?,
            None => vec![weighted],
        };
        if self.is_ab_test() {
            rules[0].matches = self.ab_matches()?;
            rules.push(self.rest()?);
        }
        object.spec = GatewayRouteSpec { rules, ..self.frame() };
        Ok(())
    }

    fn frame(&self) -> GatewayRouteSpec {
        let service = &self.canary.spec.service;
        GatewayRouteSpec {
            parent_refs: service.gateway_refs.clone(),
            hostnames: service.hosts.clone(),
            ..Default::default()
        }
    }

    fn first_spec(&self) -> Result<GatewayRouteSpec, String> {
        if self.canary.spec.service.gateway_refs.is_empty() {
            return Err("GatewayRefs must be specified when using Gateway API as a provider.".to_owned());
        }
        let mut rules = vec![self.rule(self.service_matches()?, self.split(Routes::PRIMARY))];
        if self.is_ab_test() {
            rules[0].matches = self.ab_matches()?;
            rules.push(self.rest()?);
        }
        Ok(GatewayRouteSpec { rules, ..self.frame() })
    }

    /// The rule of requests that an A/B test does not match.
    fn rest(&self) -> Result<GatewayRouteRule, String> {
        Ok(self.rule(self.service_matches()?, vec![self.to(Role::Primary, 100)]))
    }

    /// Labels and annotations that the Canary asks for on the apex.
    fn custom(&self) -> (Labels, Labels) {
        let apex = self.canary.spec.service.apex.as_ref();
        let labels = apex.map(|apex| apex.labels.clone()).unwrap_or_default();
        (labels, owner::without_flux(apex.map(|apex| &apex.annotations)))
    }

    /// A spec without what Flagger changes during a run.
    fn comparable(&self, spec: &GatewayRouteSpec) -> GatewayRouteSpec {
        let mut spec = spec.clone();
        let analysis = self.canary.spec.analysis();
        let phase = self.canary.status.as_ref().map(|status| status.phase).unwrap_or_default();
        let running = matches!(phase, Phase::Waiting | Phase::Progressing | Phase::WaitingPromotion);
        let mirrors = analysis.is_some_and(|analysis| analysis.mirror) && running;
        if let Some(affinity) = self.affinity() {
            let sticky = |name: &str, rule: &GatewayRouteRule| {
                let mut headers = rule.matches.iter().flat_map(|one| &one.headers);
                headers.any(|header| {
                    header.kind == "RegularExpression"
                        && header.name == "Cookie"
                        && header.value.contains(name)
                })
            };
            let names = [&affinity.cookie_name, &affinity.primary_cookie_name];
            spec.rules.retain(|rule| !names.iter().any(|name| sticky(name, rule)));
        }
        for rule in &mut spec.rules {
            if mirrors {
                rule.filters.clear();
            }
            for backend in &mut rule.backend_refs {
                backend.weight = 0;
                if self.affinity().is_some() {
                    backend.filters.clear();
                }
            }
        }
        spec
    }

    fn affinity(&self) -> Option<&SessionAffinity> {
        self.canary.spec.analysis().and_then(|analysis| analysis.session_affinity.as_ref())
    }

    fn is_ab_test(&self) -> bool {
        self.canary.spec.analysis().is_some_and(|analysis| !analysis.matches.is_empty())
    }

    fn rule(&self, matches: Vec<GatewayRouteMatch>, backend_refs: Vec<GatewayBackend>) -> GatewayRouteRule {
        let service = &self.canary.spec.service;
        let timeouts = GatewayTimeouts {
            request: service.timeout.clone(),
            backend_request: service.backend_timeout.clone(),
            ..Default::default()
        };
        GatewayRouteRule {
            matches,
            filters: self.filters(),
            backend_refs,
            timeouts: Some(timeouts).filter(|timeouts| *timeouts != GatewayTimeouts::default()),
            ..Default::default()
        }
    }

    fn split(&self, routes: Routes) -> Vec<GatewayBackend> {
        vec![self.to(Role::Primary, routes.primary), self.to(Role::Canary, routes.canary)]
    }

    fn to(&self, role: Role, weight: i32) -> GatewayBackend {
        GatewayBackend {
            kind: "Service".to_owned(),
            name: role.service(self.canary),
            weight,
            port: Some(self.canary.spec.service.port),
            ..Default::default()
        }
    }

    /// The Service's own conditions; any path if there are none.
    fn service_matches(&self) -> Result<Vec<GatewayRouteMatch>, String> {
        let matches = self.mapped(&self.canary.spec.service.matches)?;
        if !matches.is_empty() {
            return Ok(matches);
        }
        let any = GatewayPathMatch { kind: "PathPrefix".into(), value: "/".into(), ..Default::default() };
        Ok(vec![GatewayRouteMatch { path: Some(any), ..Default::default() }])
    }

    fn ab_matches(&self) -> Result<Vec<GatewayRouteMatch>, String> {
        let conditions = self.canary.spec.analysis().map_or(&[][..], |analysis| &analysis.matches);
        // As upstream: conditions that cannot be mapped are none here.
        Ok(merged(&self.mapped(conditions).unwrap_or_default(), &self.service_matches()?))
    }

    fn mapped(&self, conditions: &[HttpMatchRequest]) -> Result<Vec<GatewayRouteMatch>, String> {
        let mapped = conditions.iter().map(mapped).collect::<Result<Vec<_>, String>>();
        let mapped = mapped.map_err(|error| format!("Invalid request matching selectors: {error}"))?;
        Ok(mapped.into_iter().filter(|one| *one != GatewayRouteMatch::default()).collect())
    }

    fn filters(&self) -> Vec<Value> {
        let service = &self.canary.spec.service;
        let mut filters = Vec::new();
        let headers = service.headers.clone().unwrap_or_default();
        if let Some(request) = &headers.request {
            filters.push(
                json!({"type": "RequestHeaderModifier", "requestHeaderModifier": header_filter(request)}),
            );
        }
        if let Some(response) = &headers.response {
            filters.push(
                json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": header_filter(response)}),
            );
        }
        if let Some(rewrite) = &service.rewrite {
            let mut filter = json!({});
            if !rewrite.authority.is_empty() {
                filter["hostname"] = rewrite.authority.clone().into();
            }
            if !rewrite.uri.is_empty() {
                let (kind, field) = match rewrite.kind.as_str() {
                    "ReplacePrefixMatch" => ("ReplacePrefixMatch", "replacePrefixMatch"),
                    _ => ("ReplaceFullPath", "replaceFullPath"),
                };
                filter["path"] = json!({"type": kind, field: rewrite.uri});
            }
            filters.push(json!({"type": "URLRewrite", "urlRewrite": filter}));
        }
        for mirror in &service.mirror {
            filters.push(json!({"type": "RequestMirror", "requestMirror": mirror}));
        }
        if let Some(policy) = &service.cors_policy {
            filters.push(json!({"type": "CORS", "cors": cors(policy)}));
        }
        filters
    }

    fn sticky(
        &self,
        affinity: &SessionAffinity,
        mut weighted: GatewayRouteRule,
        canary_weight: i32,
        cookies: &mut Cookies,
        draw: &mut impl FnMut() -> String,
    ) -> Result<Vec<GatewayRouteRule>, String> {
        let mut canary_rule = weighted.clone();
        if canary_weight == 0 {
            // The run is over: its cookie is called back, and those who still have it reach the primary.
            if !cookies.canary.is_empty() {
                cookies.previous = std::mem::take(&mut cookies.canary);
            }
            if !cookies.previous.is_empty() {
                canary_rule.matches = self.cookie_matches(&cookies.previous)?;
                canary_rule.filters.push(set_cookie(&format!("{}; Max-Age=-1", cookies.previous)));
            }
            return Ok(vec![canary_rule, weighted]);
        }
        if cookies.canary.is_empty() {
            cookies.canary = format!("{}={}", affinity.cookie_name, draw());
        }
        if cookies.primary.is_empty() {
            cookies.primary = format!("{}={}", affinity.primary_cookie_name, draw());
        }
        canary_rule.matches = self.cookie_matches(&cookies.canary)?;
        canary_rule.backend_refs = self.split(Routes::CANARY);
        let age = if affinity.max_age == 0 { 86_400 } else { affinity.max_age };
        weighted.backend_refs[1].filters.push(set_cookie(&attributes(affinity, &cookies.canary, age)));
        let mut rules = vec![canary_rule];
        if !affinity.primary_cookie_name.is_empty() {
            let interval = self.canary.spec.analysis().map_or("", |analysis| analysis.interval.as_str());
            let interval = canary::parse_duration(interval).ok_or_else(|| {
                format!("failed to parse canary interval: time: invalid duration {interval:?}")
            })?;
            let cookie = attributes(affinity, &cookies.primary, interval.as_secs() as i64);
            let mut rule = weighted.clone();
            weighted.backend_refs[0].filters.push(set_cookie(&cookie));
            rule.matches = self.cookie_matches(&cookies.primary)?;
            rule.backend_refs = self.split(Routes::PRIMARY);
            rules.push(rule);
        }
        rules.push(weighted);
        Ok(rules)
    }

    fn cookie_matches(&self, cookie: &str) -> Result<Vec<GatewayRouteMatch>, String> {
        let (name, value) = cookie.split_once('=').unwrap_or((cookie, ""));
        let header = value_match("Cookie", "RegularExpression", format!(".*{name}.*{value}.*"));
        let one = GatewayRouteMatch { headers: vec![header], ..Default::default() };
        Ok(merged(&[one], &self.mapped(&self.canary.spec.service.matches)?))
    }
}

fn set_cookie(cookie: &str) -> Value {
    let add = json!([{"name": "Set-Cookie", "value": cookie}]);
    json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": add}})
}

/// Conditions that must hold together with the Service's own.
fn merged(conditions: &[GatewayRouteMatch], service: &[GatewayRouteMatch]) -> Vec<GatewayRouteMatch> {
    if conditions.is_empty() {
        return service.to_vec();
    }
    if service.is_empty() {
        return conditions.to_vec();
    }
    let pair = |one: &GatewayRouteMatch, default: &GatewayRouteMatch| {
        let mut merged = default.clone();
        if !one.headers.is_empty() {
            merged.headers.clone_from(&one.headers);
        }
        if !one.query_params.is_empty() {
            merged.query_params.clone_from(&one.query_params);
        }
        merged
    };
    conditions.iter().flat_map(|one| service.iter().map(move |default| pair(one, default))).collect()
}

fn value_match(name: &str, kind: &str, value: String) -> GatewayValueMatch {
    GatewayValueMatch { kind: kind.to_owned(), name: name.to_owned(), value, ..Default::default() }
}

fn given(text: &Option<String>) -> Option<&String> {
    text.as_ref().filter(|text| !text.is_empty())
}

/// Istio's conditions as the Gateway API's.
fn mapped(condition: &HttpMatchRequest) -> Result<GatewayRouteMatch, String> {
    let unsupported = |what: &str, name: &str| {
        format!("Gateway API doesn't support the specified {what} matching selector: {name}")
    };
    let mut one = GatewayRouteMatch::default();
    if let Some(uri) = &condition.uri {
        let (kind, value) = match (given(&uri.regex), given(&uri.exact), given(&uri.prefix)) {
            (Some(value), ..) => ("RegularExpression", value),
            (_, Some(value), _) => ("Exact", value),
            (.., Some(value)) => ("PathPrefix", value),
            _ => return Err(unsupported("path", "uri")),
        };
        one.path = Some(GatewayPathMatch { kind: kind.into(), value: value.clone(), ..Default::default() });
    }
    if let Some(method) = &condition.method {
        let Some(exact) = given(&method.exact) else { return Err(unsupported("header", "method")) };
        one.method.clone_from(exact);
    }
    let named = |name: &str, what: &str, text: &StringMatch| match (given(&text.exact), given(&text.regex)) {
        (Some(value), _) => Ok(value_match(name, "Exact", value.clone())),
        (_, Some(value)) => Ok(value_match(name, "RegularExpression", value.clone())),
        _ => Err(unsupported(what, name)),
    };
    for (name, text) in &condition.headers {
        one.headers.push(named(name, "header", text)?);
    }
    for (name, text) in &condition.query_params {
        one.query_params.push(named(name, "query", text)?);
    }
    Ok(one)
}

fn header_filter(operations: &HeaderOperations) -> Value {
    let list = |values: &Labels| -> Vec<Value> {
        values.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    };
    let mut filter = json!({});
    for (field, values) in [("add", &operations.add), ("set", &operations.set)] {
        if !values.is_empty() {
            filter[field] = list(values).into();
        }
    }
    if !operations.remove.is_empty() {
        filter["remove"] = operations.remove.clone().into();
    }
    filter
}

fn cors(policy: &CorsPolicy) -> Value {
    let mut filter = json!({});
    for (field, values) in [
        ("allowOrigins", &policy.allow_origin),
        ("allowMethods", &policy.allow_methods),
        ("allowHeaders", &policy.allow_headers),
        ("exposeHeaders", &policy.expose_headers),
    ] {
        if !values.is_empty() {
            filter[field] = values.clone().into();
        }
    }
    if policy.allow_credentials == Some(true) {
        filter["allowCredentials"] = true.into();
    }
    if let Some(age) = canary::parse_duration(&policy.max_age).filter(|age| !age.is_zero()) {
        filter["maxAge"] = age.as_secs().into();
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(analysis: &str) -> Canary {
        let text = format!(
            "
metadata: {{name: podinfo, namespace: test, uid: u-1}}
spec:
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: podinfo}}
  service:
    port: 9898
    hosts: [app.example.com]
    timeout: 15s
    gatewayRefs: [{{name: gateway, namespace: istio-ingress}}]
    headers: {{request: {{add: {{x-a: '1'}}}}}}
    rewrite: {{uri: /v2, type: ReplacePrefixMatch}}
  analysis: {analysis}
"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    fn check(object: &impl serde::Serialize, expected: &str) {
        let expected: Value = serde_saphyr::from_str(expected).unwrap();
        let object = serde_json::to_value(object).unwrap();
        assert_eq!(object, expected, "got:\n{}", serde_json::to_string_pretty(&object).unwrap());
    }

    #[test]
    fn routes_split_between_the_two() {
        let canary = canary("{interval: 30s, threshold: 2, stepWeight: 10}");
        let recipe = Recipe { canary: &canary, owned: true, version: GatewayApiVersion::V1 };
        let expected = |primary: i32, canary: i32| {
            format!(
                "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: podinfo
  namespace: test
  ownerReferences:
    - {{apiVersion: flagger.app/v1beta1, kind: Canary, name: podinfo, uid: u-1, controller: true, blockOwnerDeletion: true}}
spec:
  parentRefs: [{{name: gateway, namespace: istio-ingress}}]
  hostnames: [app.example.com]
  rules:
    - matches: [{{path: {{type: PathPrefix, value: /}}}}]
      filters:
        - {{type: RequestHeaderModifier, requestHeaderModifier: {{add: [{{name: x-a, value: '1'}}]}}}}
        - {{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}}}}
      backendRefs:
        - {{group: '', kind: Service, name: podinfo-primary, port: 9898, weight: {primary}}}
        - {{group: '', kind: Service, name: podinfo-canary, port: 9898, weight: {canary}}}
      timeouts: {{request: 15s}}
"
            )
        };
        let mut object = recipe.route().unwrap();
        check(&object, &expected(100, 0));
        let routes = Routes { primary: 90, canary: 10, mirrored: false };
        recipe.set_routes(&mut object, routes, &mut Cookies::default(), || unreachable!()).unwrap();
        check(&object, &expected(90, 10));
        assert_eq!(recipe.routes(&object), Ok(routes));
        assert_eq!(recipe.correct(&object), Ok(None), "weights alone are no difference");
        object.spec.hostnames.clear();
        check(&recipe.correct(&object).unwrap().unwrap(), &expected(100, 0));

        let status = "parents: [{parentRef: {name: gateway, namespace: istio-ingress}, conditions: [{type: Accepted, status: 'False'}]}]";
        object.status = Some(serde_saphyr::from_str(status).unwrap());
        assert_eq!(
            recipe.routes(&object).unwrap_err(),
            "HTTPRoute podinfo.test parent gateway is not ready (status: False, observed generation: 0, current \
             generation: 0)"
        );
    }

    #[test]
    fn ab_tests_mirrors_and_cookies_have_rules_of_their_own() {
        let ab = canary("{iterations: 2, threshold: 1, match: [{headers: {x-user: {exact: a}}}]}");
        let recipe = Recipe { canary: &ab, owned: false, version: GatewayApiVersion::V1 };
        let mut object = recipe.route().unwrap();
        recipe.set_routes(&mut object, Routes::CANARY, &mut Cookies::default(), || unreachable!()).unwrap();
        check(
            &object.spec.rules[0].matches,
            "[{path: {type: PathPrefix, value: /}, headers: [{type: Exact, name: x-user, value: a}]}]",
        );
        assert_eq!(object.spec.rules[1].backend_refs.len(), 1);
        assert_eq!(recipe.routes(&object), Ok(Routes::CANARY));

        let green = canary("{iterations: 2, threshold: 1, mirror: true}");
        let recipe = Recipe { canary: &green, owned: false, version: GatewayApiVersion::V1 };
        let mirrored = Routes { mirrored: true, ..Routes::PRIMARY };
        recipe.set_routes(&mut object, mirrored, &mut Cookies::default(), || unreachable!()).unwrap();
        assert_eq!(recipe.routes(&object), Ok(mirrored));

        let sticky =
            canary("{interval: 30s, stepWeight: 10, sessionAffinity: {cookieName: c, primaryCookieName: p}}");
        let recipe = Recipe { canary: &sticky, owned: false, version: GatewayApiVersion::V1 };
        let (mut cookies, mut object) = (Cookies::default(), recipe.route().unwrap());
        let routes = Routes { primary: 90, canary: 10, mirrored: false };
        recipe.set_routes(&mut object, routes, &mut cookies, || "abcdefghij".to_owned()).unwrap();
        assert_eq!(object.spec.rules.len(), 3);
        assert_eq!(recipe.routes(&object), Ok(routes));
        assert_eq!(recipe.correct(&object), Ok(None));
        check(
            &object.spec.rules[2].backend_refs[0].filters,
            "[{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: Set-Cookie, value: p=abcdefghij; Max-Age=30}]}}]",
        );
        recipe.set_routes(&mut object, Routes::PRIMARY, &mut cookies, || unreachable!()).unwrap();
        assert_eq!((cookies.previous.as_str(), cookies.canary.as_str()), ("c=abcdefghij", ""));
        assert_eq!(recipe.routes(&object), Ok(Routes::PRIMARY));
    }
}
