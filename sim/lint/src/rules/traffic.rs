//! Requests that the checks need, and the load tests that should send them.

use whatif::load_test::LoadTest;
use whatif::policy::{Probe, Reach};

use super::Report;
use crate::facts::{ANSWER, number, span};
use crate::finding::Level;

pub(super) fn check(report: &mut Report<'_, '_>) {
    too_few(report);
    gaps(report);
    aims(report);
}

/// CM001.
fn too_few(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let weights = subject.weights();
    let Some(weight) = weights.first().copied() else { return };
    let rate = subject.facts.rate;
    for (index, check) in subject.policy.checks.iter().enumerate() {
        let requests =
            (rate * f64::from(weight) / 100.0 + subject.tested(weight)) * check.window as f64 / 1000.0;
        let where_from = format!(
            "at weight {weight} the canary gets about {} requests in {} ({} of {}/s of users, {}/s of load tests)",
            number(requests),
            span(check.window),
            format_args!("{weight}%"),
            number(rate),
            number(subject.tested(weight))
        );
        let field = subject.path(&format!("metrics[{index}].interval"));
        match (&check.probe, check.min) {
            (Probe::SuccessRate, Some(min)) if min < 100.0 => {
                let allowed = (100.0 - min) / 100.0;
                if requests * allowed >= 1.0 {
                    continue;
                }
                let one = if requests >= 1.0 { 100.0 / requests } else { 100.0 };
                let needed = (1.0 / allowed).ceil();
                report.say(
                    "CM001",
                    Level::Warning,
                    field,
                    format!(
                        "{where_from}; one that fails is {}%, and only {}% may: a single failed request fails the check",
                        number(one),
                        canary::float_text((allowed * 1e4).round() / 100.0)
                    ),
                    format!(
                        "at least {needed:.0} requests per window: an interval of {} or more here, a greater first weight, or a load test",
                        span((needed / requests.max(1e-9) * check.window as f64).min(86_400_000.0).ceil() as i64 / 1000 * 1000 + 1000)
                    ),
                );
            }
            (Probe::Quantile { q, .. }, _) if *q < 1.0 && requests * (1.0 - q) < 1.0 => {
                report.say(
                    "CM001",
                    Level::Warning,
                    field,
                    format!(
                        "{where_from}; a {} quantile of that is the slowest request",
                        canary::float_text(*q)
                    ),
                    format!("at least {:.0} requests per window", (1.0 / (1.0 - q)).ceil()),
                );
            }
            _ => {}
        }
    }
}

/// CM003.
fn gaps(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let interval = subject.policy.interval;
    let found: Vec<(usize, LoadTest)> =
        subject.load_tests().map(|(index, test, _)| (index, test.clone())).collect();
    for (index, test) in found {
        let length = test.length(ANSWER);
        let rounds = (length + interval - 1) / interval;
        let gap = rounds * interval - length;
        // A second without requests is what a fix leaves too.
        if gap <= 2_000 || length > 100 * interval {
            continue;
        }
        let why = if rounds == 1 {
            format!(
                "it sends for {}, then nothing for {} until the next check calls it again: {}% of each interval of {} is without it",
                span(length / 1000 * 1000),
                span(gap / 1000 * 1000),
                number(gap as f64 / interval as f64 * 100.0),
                span(interval)
            )
        } else {
            format!(
                "it runs {} and a little, so it still runs at {} of its next calls ({} apart) and is skipped there: it starts again {} after it began, and for {} of those nothing is sent",
                span(length / 1000 * 1000),
                rounds - 1,
                span(interval),
                span(rounds * interval),
                span(gap / 1000 * 1000)
            )
        };
        let sent = ((length / interval).max(1) * interval / 1000) - 1;
        report.say(
            "CM003",
            Level::Warning,
            subject.path(&format!("webhooks[{index}].metadata")),
            why,
            format!("let it run for {sent}s (hey -z {sent}s), so that it ends just before a check"),
        );
    }
}

/// CM004, CM005 and CM006.
fn aims(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let service = &subject.canary.spec.service;
    let apex = subject.canary.spec.apex_name();
    let first = subject.weights().first().copied().unwrap_or(0);
    let lists_mesh = service.gateways.iter().any(|gateway| gateway == "mesh");
    let found: Vec<(usize, LoadTest, Reach)> =
        subject.load_tests().map(|(index, test, reach)| (index, test.clone(), reach)).collect();
    let host_of = |test: &LoadTest| test.host_header.clone().unwrap_or_else(|| test.host.clone());
    let users = subject.facts.rate * f64::from(first) / 100.0;
    for (index, test, reach) in found {
        let field = subject.path(&format!("webhooks[{index}].metadata"));
        let host = host_of(&test);
        let in_mesh = !service.hosts.contains(&host) && reach != Reach::Nobody;
        match reach {
            Reach::Canary => {
                let tested = test.rate(ANSWER);
                report.say(
                    "CM004",
                    Level::Warning,
                    field,
                    format!(
                        "{host} is the canary's own Service: its {}/s reach the canary at every weight, against {}/s of users at weight {first}: {}% of what is judged there is synthetic",
                        number(tested),
                        number(users),
                        number(tested / (tested + users).max(1e-9) * 100.0)
                    ),
                    match service.hosts.first() {
                        Some(host) => format!("send to http://{host}/ through the ingress gateway"),
                        None => format!("send to http://{apex}/, which the weight divides"),
                    },
                );
            }
            Reach::Nobody => report.say(
                "CM005",
                Level::Error,
                field,
                format!(
                    "{host} is no Service of this Canary and none of its hosts ({}): no request reaches the canary, and checks have no values",
                    if service.hosts.is_empty() { "it has none".to_owned() } else { service.hosts.join(", ") }
                ),
                match service.hosts.first() {
                    Some(host) => format!("use {host}"),
                    None => "add the host to spec.service.hosts, and a Gateway that serves it to spec.service.gateways".to_owned(),
                },
            ),
            Reach::Split | Reach::Primary => {}
        }
        if !service.gateways.is_empty() && !lists_mesh && in_mesh {
            let level = if reach == Reach::Primary { Level::Error } else { Level::Warning };
            report.say(
                "CM006",
                level,
                "spec.service.gateways".to_owned(),
                format!(
                    "the load test calls {host} from within the cluster, but the split applies to {} only: in-mesh calls to {apex} all go to the primary",
                    service.gateways.join(", ")
                ),
                "add mesh to the list".to_owned(),
            );
        }
    }
    unserved(report);
}

/// CM005: hosts that no Gateway among the documents serves.
fn unserved(report: &mut Report<'_, '_>) {
    let subject = report.subject;
    let service = &subject.canary.spec.service;
    let gateways: Vec<_> = subject
        .documents
        .iter()
        .filter(|d| d.kind() == "Gateway" && d.group() == "networking.istio.io")
        .collect();
    if gateways.is_empty() || service.gateways.iter().all(|gateway| gateway == "mesh") {
        return;
    }
    let named = |name: &str, namespace: &str| {
        service.gateways.iter().any(|gateway| {
            let gateway = gateway.trim_end_matches(".svc.cluster.local");
            match gateway.split_once('/') {
                Some((space, own)) => own == name && (space == namespace || space == "."),
                None => match gateway.split_once('.') {
                    Some((own, space)) => own == name && space.split('.').next() == Some(namespace),
                    None => gateway == name,
                },
            }
        })
    };
    let served: Vec<String> = gateways
        .iter()
        .filter(|document| named(document.name(), document.namespace()))
        .flat_map(|document| document.value["spec"]["servers"].as_array().cloned().unwrap_or_default())
        .flat_map(|server| server["hosts"].as_array().cloned().unwrap_or_default())
        .filter_map(|host| host.as_str().map(|host| host.rsplit('/').next().unwrap_or(host).to_owned()))
        .collect();
    for (index, host) in service.hosts.iter().enumerate() {
        let fits = |pattern: &String| {
            pattern == host
                || pattern == "*"
                || pattern.strip_prefix('*').is_some_and(|end| host.ends_with(end))
        };
        if !served.iter().any(fits) {
            report.say(
                "CM005",
                Level::Error,
                format!("spec.service.hosts[{index}]"),
                format!(
                    "no server of {} has {host} (they have: {}): the ingress answers 404, and the canary gets no traffic from there",
                    service.gateways.join(", "),
                    if served.is_empty() { "none".to_owned() } else { served.join(", ") }
                ),
                format!("add {host} to the Gateway's servers"),
            );
        }
    }
}
