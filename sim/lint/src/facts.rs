//! What the rules know: the documents understood, and what is assumed of the traffic.

use canary::Dialect;
use crd::{Canary, MetricTemplate};
use whatif::load_test::LoadTest;
use whatif::manifest::{self, Document, ScrapeJob};
use whatif::model::Telemetry;
use whatif::policy::{Policy, Reach};

/// What is not in manifests.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Users' requests per second.
    pub rate: f64,
    /// The share of its requests that a bad version fails.
    pub bad_errors: f64,
    /// Flagger's version, if it is not in a Deployment among the documents.
    pub dialect: Option<String>,
    /// The unit of the mesh's duration histogram, if known.
    pub telemetry: Option<Telemetry>,
}

impl Default for Facts {
    fn default() -> Self {
        Facts { rate: 20.0, bad_errors: 0.05, dialect: None, telemetry: None }
    }
}

/// A Canary among documents.
pub(crate) struct Subject<'a> {
    pub facts: &'a Facts,
    pub documents: &'a [Document],
    pub document: &'a Document,
    pub canary: Canary,
    pub policy: Policy,
    pub dialect: Dialect,
    pub templates: &'a [MetricTemplate],
    pub jobs: &'a [ScrapeJob],
}

/// Seconds that an answer takes, where a load test's length depends on it.
pub(crate) const ANSWER: f64 = 0.03;

impl<'a> Subject<'a> {
    pub(crate) fn analysis(&self) -> crd::CanaryAnalysis {
        self.canary.spec.analysis().cloned().unwrap_or_default()
    }

    /// The path of a field of the analysis, under the name that the manifest uses.
    pub(crate) fn path(&self, field: &str) -> String {
        let name = if self.canary.spec.analysis.is_none() && self.canary.spec.canary_analysis.is_some() {
            "canaryAnalysis"
        } else {
            "analysis"
        };
        format!("spec.{name}.{field}")
    }

    /// Seconds between checks.
    pub(crate) fn interval(&self) -> f64 {
        self.policy.interval as f64 / 1000.0
    }

    /// The weights at which checks are made, in order.
    pub(crate) fn weights(&self) -> Vec<i32> {
        let analysis = self.analysis();
        if analysis.iterations > 0 {
            return vec![0; analysis.iterations as usize];
        }
        let most = canary::max_weight(&analysis, self.dialect);
        let (mut weight, mut weights) = (0, Vec::new());
        while weight < most && weights.len() < 200 {
            let step = canary::next_step(&analysis, weight, self.dialect);
            if step <= 0 {
                break;
            }
            weight = (weight + step).min(100);
            weights.push(weight);
        }
        weights
    }

    /// Requests per second that load tests send to the canary at a weight.
    pub(crate) fn tested(&self, weight: i32) -> f64 {
        let tests = self.policy.load_tests.iter().flatten();
        tests
            .map(|(test, reach)| match reach {
                Reach::Canary => test.rate(ANSWER),
                Reach::Split => test.rate(ANSWER) * f64::from(weight) / 100.0,
                Reach::Primary | Reach::Nobody => 0.0,
            })
            .sum()
    }

    /// Load tests with the index of their webhook.
    pub(crate) fn load_tests(&self) -> impl Iterator<Item = (usize, &LoadTest, Reach)> {
        let tests = self.policy.load_tests.iter().enumerate();
        tests.filter_map(|(index, test)| test.as_ref().map(|(test, reach)| (index, test, *reach)))
    }

    /// A document by kind and name, in the Canary's namespace or in none.
    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<&'a Document> {
        self.documents.iter().find(|document| {
            document.kind() == kind
                && document.name() == name
                && (document.namespace().is_empty() || document.namespace() == self.canary.namespace())
        })
    }

    /// Milliseconds between scrapes of the mesh's proxies, if a configuration is among the documents.
    pub(crate) fn scrape(&self) -> Option<&'a ScrapeJob> {
        manifest::mesh_job(self.jobs)
    }
}

/// The tag of Flagger's image among documents.
pub(crate) fn flagger_tag(documents: &[Document]) -> Option<String> {
    let deployments = documents.iter().filter(|document| document.kind() == "Deployment");
    let images = deployments.flat_map(|document| {
        let containers = document.value["spec"]["template"]["spec"]["containers"].as_array();
        containers.into_iter().flatten().filter_map(|container| container["image"].as_str())
    });
    let found =
        images.filter_map(|image| image.rsplit_once(':')).find(|(name, _)| name.ends_with("/flagger"));
    found.map(|(_, tag)| tag.to_owned())
}

/// A number for sentences: at most one digit behind the point.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Milliseconds for sentences.
pub(crate) fn span(ms: i64) -> String {
    canary::duration_text(ms.saturating_mul(1_000_000))
}
