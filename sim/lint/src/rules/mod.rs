//! The rules, and the check of documents against all of them.

mod gitops;
mod metrics;
mod notify;
mod steps;
mod traffic;
mod workload;

use canary::Dialect;
use whatif::manifest::{self, Document};
use whatif::policy::Policy;

use crate::facts::{Facts, Subject, flagger_tag};
use crate::finding::{Finding, Level, line_of};

/// A rule.
pub struct Rule {
    /// Its code.
    pub code: &'static str,
    /// The name of its scenario in `scenarios/lint/`.
    pub slug: &'static str,
    /// What it finds, in a few words.
    pub title: &'static str,
    /// Why it matters, in general.
    pub why: &'static str,
    /// What to do, in general.
    pub fix: &'static str,
}

const fn rule(
    code: &'static str,
    slug: &'static str,
    title: &'static str,
    why: &'static str,
    fix: &'static str,
) -> Rule {
    Rule { code, slug, title, why, fix }
}

/// All rules, by code.
pub const RULES: [Rule; 25] = [
    rule(
        "CM001",
        "too-few-requests",
        "too few requests for the threshold to mean anything",
        "A percentage of a handful of requests jumps: one failed request of 20 is 5 %, far past a threshold of 99 %, \
         so that a check fails by bad luck; and a 99th percentile of fewer than 100 requests is just the slowest one.",
        "Lengthen the metric's window, start at a greater weight, send a steady load test, or loosen the threshold.",
    ),
    rule(
        "CM002",
        "scrape-interval",
        "scrape interval too long for the metric's window",
        "rate() needs two samples in its window. A window shorter than two scrape intervals holds one sample at times, \
         and the check then has no values, which counts as a failed check; with exactly two, one lost scrape is enough.",
        "Make the window at least three scrape intervals long, or scrape more often.",
    ),
    rule(
        "CM003",
        "load-test-gap",
        "load test leaves gaps",
        "The load tester starts a command only if the same one is not still running. A test shorter than the interval \
         leaves the rest of each interval without traffic; one that still runs at the next check is skipped there, \
         and nothing is sent until the check after.",
        "Let it end just before a check: a duration a second short of a whole number of intervals.",
    ),
    rule(
        "CM004",
        "load-test-past-split",
        "load test aimed past the split",
        "The Service NAME-canary has the canary's pods only. A load test that calls it is not divided by the weight: \
         the checks judge mostly synthetic requests at every weight, and the split itself is never exercised.",
        "Call the host that users call, through the gateway, or the apex Service if the mesh gateway is listed.",
    ),
    rule(
        "CM005",
        "load-test-unserved-host",
        "load test aimed at a host that nobody serves",
        "A host that is in no VirtualService, or in no Gateway's servers, is answered with 404 or not at all: the \
         canary gets no traffic, and checks have no values.",
        "Use a host of spec.service.hosts that a Gateway serves.",
    ),
    rule(
        "CM006",
        "gateways-without-mesh",
        "gateways without mesh while callers are in the mesh",
        "A VirtualService that lists gateways applies to those alone. Calls from within the mesh, the load tester's \
         among them, are then not split: the apex Service sends them all to the primary.",
        "Add mesh to spec.service.gateways.",
    ),
    rule(
        "CM007",
        "latency-between-buckets",
        "latency threshold that the buckets cannot resolve",
        "A histogram knows only how many requests were in each bucket; a quantile inside one is interpolated. A \
         threshold inside a bucket is compared with that guess, not with what was measured.",
        "Use a bucket's bound as the threshold.",
    ),
    rule(
        "CM008",
        "latency-unit",
        "latency in the wrong unit",
        "Flagger before 1.0.0 reads istio_request_duration_seconds, which meshes since Istio 1.5 do not export: the \
         check has no values, ever. A template that reads one unit and compares with the other passes or fails always.",
        "Use a MetricTemplate over the histogram that the mesh exports, with a threshold in its unit.",
    ),
    rule(
        "CM009",
        "all-requests-fail",
        "success rate that is empty, not 0, when every request fails",
        "A version that fails from its first request on has no series of successful answers. The query's numerator is \
         empty then, and so is the whole: the log says that there is no traffic, where everything fails.",
        "Read \"no values found\" as a failure; a template with \"or on() vector(0)\" says 0 instead.",
    ),
    rule(
        "CM010",
        "timeouts-succeed",
        "timeouts that count as successes",
        "When the client gives up, the canary's own proxy records the request with code 0, which is not 5xx: the \
         success rate at the destination counts it as a success.",
        "Check request-duration with a maximum below the timeout, or judge by reporter=\"source\".",
    ),
    rule(
        "CM011",
        "weight-overshoot",
        "maxWeight overshot by stepWeight",
        "The weight is raised by whole steps until it is at least maxWeight, and is not cut there.",
        "Make maxWeight a multiple of stepWeight.",
    ),
    rule(
        "CM012",
        "threshold-out-of-reach",
        "threshold that is hardly reached before promotion",
        "Each passed check is a step towards promotion, each failed one counts towards the threshold. With more \
         failures to go than steps, a version that fails every second check is promoted more often than not.",
        "Lower the threshold, or take smaller steps.",
    ),
    rule(
        "CM013",
        "bad-version-promoted",
        "a version bad from the start that gets through",
        "Failed checks and steps race: with few requests, few checks or loose bounds, a version that fails far more \
         requests than allowed passes often enough to be promoted.",
        "More requests per check, more checks, or a lower threshold; `coalmine whatif` finds which.",
    ),
    rule(
        "CM014",
        "replicas-in-git",
        "replicas in git against scale-to-zero",
        "Flagger scales the target to zero between releases. If its manifest in git sets replicas, the application is \
         out of sync for ever, and self-heal starts the old canary again and again.",
        "Leave spec.replicas out of the Deployment, or ignore its difference and respect that on sync.",
    ),
    rule(
        "CM015",
        "template-moved",
        "kustomize namespace that moves a MetricTemplate away",
        "A kustomization's namespace overrides that of every object in it, but not what refers to them: the Canary \
         looks for the template where it no longer is, and every check fails.",
        "Refer to the namespace that the kustomization sets, or keep the template out of it.",
    ),
    rule(
        "CM016",
        "autoscaler-stalls-promotion",
        "autoscaler bounds that stall promotion",
        "Promotion waits until all replicas of the primary have been replaced and are available. The more replicas \
         the autoscaler allows, and the fewer are replaced at a time, the more checks are halted, with the canary \
         serving at its last weight meanwhile.",
        "Allow a greater maxUnavailable or maxSurge, shorten minReadySeconds, or lower maxReplicas.",
    ),
    rule(
        "CM017",
        "no-progress-deadline",
        "missing progress deadline",
        "Without progressDeadlineSeconds a version that never becomes ready is waited for during 600 seconds.",
        "Set spec.progressDeadlineSeconds to what a start may take, and the Deployment's to the same.",
    ),
    rule(
        "CM018",
        "alert-without-severity",
        "alert without severity",
        "An alert is sent to a provider when its severity matches; an empty one matches nothing, and a Canary without \
         the field is refused by the API server.",
        "Set severity to info, warn or error.",
    ),
    rule(
        "CM019",
        "webhook-204",
        "webhook whose 204 counts as a failure",
        "Flagger takes answers up to 202 for agreement. 204 No Content, what many services answer to a POST, is a \
         refusal: a failed check, or a gate that never opens.",
        "Answer 200.",
    ),
    rule(
        "CM020",
        "no-steps",
        "neither steps nor iterations",
        "With steps of 0 and no iterations nothing ever advances: passed checks repeat for ever, at weight 0, and the \
         release neither ends nor fails. A Canary that names none of them is refused by the API server.",
        "Set stepWeight and maxWeight, or iterations.",
    ),
    rule(
        "CM021",
        "one-step",
        "maxWeight not above stepWeight",
        "The first step comes without a check. If it reaches maxWeight already, a single passed check promotes.",
        "Make stepWeight a fraction of maxWeight.",
    ),
    rule(
        "CM022",
        "threshold-below-one",
        "threshold below 1",
        "A threshold of zero or less does not mean that nothing is tolerated, or everything: it counts as 1.",
        "Write the number of failed checks that roll back.",
    ),
    rule(
        "CM023",
        "interval-below-floor",
        "interval below the floor, or unreadable",
        "The controller looks for due Canaries every 10 seconds: a shorter interval is 10s, an unreadable one 60s.",
        "Use a Go duration of at least 10s.",
    ),
    rule(
        "CM024",
        "steps-and-iterations",
        "both steps and iterations",
        "A Canary has exactly one of iterations, stepWeight and stepWeights: the API server refuses one with two, so \
         that the change never arrives. Where nothing validates it, iterations win and the weights are not used.",
        "Remove one of them.",
    ),
    rule(
        "CM025",
        "nothing-measured",
        "no metrics",
        "Without metrics only webhooks judge: a version that fails every request is promoted.",
        "Add request-success-rate and request-duration.",
    ),
];

/// What a rule says of one field.
pub(crate) struct Remark {
    code: &'static str,
    level: Level,
    field: String,
    why: String,
    fix: String,
}

/// Collects findings about one Canary.
pub(crate) struct Report<'s, 'a> {
    pub subject: &'s Subject<'a>,
    findings: Vec<Finding>,
}

impl Report<'_, '_> {
    /// Says something of the Canary.
    pub(crate) fn say(&mut self, code: &'static str, level: Level, field: String, why: String, fix: String) {
        let document = self.subject.document;
        self.say_of(document, Remark { code, level, field, why, fix });
    }

    /// Says something of another object.
    pub(crate) fn say_of(&mut self, document: &Document, remark: Remark) {
        let Remark { code, level, field, why, fix } = remark;
        let rule = RULES.iter().find(|rule| rule.code == code).expect("findings have a rule's code");
        self.findings.push(Finding {
            code: rule.code,
            level,
            file: document.file.clone(),
            line: line_of(document, &field),
            object: document.title(),
            field,
            why,
            fix,
            scenario: format!("scenarios/lint/{}.yaml", rule.slug),
        });
    }
}

/// Checks the Canaries among documents.
///
/// # Errors
/// File, object and field of what cannot be read.
pub fn check(documents: &[Document], facts: &Facts) -> Result<Vec<Finding>, String> {
    let templates = manifest::templates(documents)?;
    let jobs = manifest::scrape_jobs(documents)?;
    let tag = facts.dialect.clone().or_else(|| flagger_tag(documents));
    let dialect = tag.as_deref().map_or(Dialect::Latest, Dialect::from_tag);
    let mut findings = Vec::new();
    for (index, canary) in manifest::canaries(documents)? {
        let policy = Policy::new(canary.clone(), dialect, &templates, &|_| None);
        let subject = Subject {
            facts,
            documents,
            document: &documents[index],
            canary,
            policy,
            dialect,
            templates: &templates,
            jobs: &jobs,
        };
        let mut report = Report { subject: &subject, findings: Vec::new() };
        if !subject.canary.spec.skips_analysis() {
            steps::check(&mut report);
            traffic::check(&mut report);
            metrics::check(&mut report);
        }
        gitops::check(&mut report);
        workload::check(&mut report);
        notify::check(&mut report);
        findings.append(&mut report.findings);
    }
    findings.sort_by(|a, b| b.level.cmp(&a.level).then(a.code.cmp(b.code)).then(a.field.cmp(&b.field)));
    Ok(findings)
}
