//! Experiments: a Canary, service models, and what to try. From an experiment file, or from manifests alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use canary::Dialect;
use crd::{Canary, MetricTemplate};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::Field;
use crate::goal::Goal;
use crate::load_test::LoadTest;
use crate::manifest::{self, Document};
use crate::model::ServiceModel;
use crate::request::exact;
use crate::source::Source;
use crate::span::Span;

/// The kind of experiment files.
pub const KIND: &str = "Experiment";

/// What to find out.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// The document with the Canary.
    pub document: Document,
    /// The Canary.
    pub canary: Canary,
    /// The MetricTemplates that are known.
    pub templates: Vec<MetricTemplate>,
    /// All documents that were read.
    pub documents: Vec<Document>,
    /// The release of Flagger that is followed.
    pub dialect: Dialect,
    /// The service models.
    pub models: Vec<ServiceModel>,
    /// What to vary.
    pub vary: Vec<Variation>,
    /// So many random points of the variations, instead of all combinations.
    pub random: Option<u64>,
    /// What the best policy is.
    pub goal: Option<Goal>,
    /// Rollouts of each version under each policy.
    pub rollouts: Option<u64>,
    /// The seed.
    pub seed: u64,
    /// Ends early when shares are known to within this much.
    pub precision: Option<f64>,
    /// What was assumed where nothing was said.
    pub assumptions: Vec<String>,
}

/// A field and the values to try.
#[derive(Clone, Debug, PartialEq)]
pub struct Variation {
    /// The field.
    pub field: Field,
    /// The values.
    pub values: Vec<Value>,
}

impl Variation {
    /// Reads `FIELD=VALUE,VALUE`, or `FIELD=FROM..TO` for random points (integers, decimals or durations).
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub fn parse(text: &str) -> Result<Variation, String> {
        let wrong = || format!("{text:?}: write FIELD=VALUE,VALUE, e.g. analysis.stepWeight=5,10,20");
        let (field, values) = text.split_once('=').ok_or_else(wrong)?;
        let field = Field::parse(field.trim())?;
        if let Some((from, to)) = values.split_once("..") {
            return Ok(Variation { field, values: range(from.trim(), to.trim())? });
        }
        let values: Vec<Value> = values
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(crate::field::value)
            .collect();
        if values.is_empty() { Err(wrong()) } else { Ok(Variation { field, values }) }
    }
}

/// All values between two, at most 1000.
fn range(from: &str, to: &str) -> Result<Vec<Value>, String> {
    let wrong = || format!("{from}..{to}: write two integers, decimals or durations, the lower first");
    const MOST: i64 = 1000;
    if let (Ok(from), Ok(to)) = (from.parse::<i64>(), to.parse::<i64>()) {
        if to < from || to - from >= MOST {
            return Err(wrong());
        }
        return Ok((from..=to).map(Value::from).collect());
    }
    if let (Ok(from), Ok(to)) = (from.parse::<f64>(), to.parse::<f64>()) {
        if !(from <= to && to - from < 1e12) {
            return Err(wrong());
        }
        let digits = 10f64.powi(3);
        let values = (0..=100).map(|step| from + (to - from) * f64::from(step) / 100.0);
        return Ok(values.map(|value| Value::from((value * digits).round() / digits)).collect());
    }
    let (Ok(from_span), Ok(to_span)) = (from.parse::<Span>(), to.parse::<Span>()) else {
        return Err(wrong());
    };
    let (low, high) = (from_span.millis() / 1000, to_span.millis() / 1000);
    if high < low {
        return Err(wrong());
    }
    let step = ((high - low) / MOST + 1).max(if (high - low) > 60 { 5 } else { 1 });
    Ok((low..=high).step_by(step as usize).map(|seconds| Value::from(format!("{seconds}s"))).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    /// The file with the Canary.
    canary: PathBuf,
    /// More manifests: MetricTemplates, the Deployment, Prometheus' configuration.
    #[serde(default)]
    manifests: Vec<PathBuf>,
    /// Flagger's version.
    dialect: Option<String>,
    /// Rollouts of each version under each policy.
    rollouts: Option<u64>,
    seed: Option<u64>,
    precision: Option<f64>,
    #[serde(default)]
    models: Vec<ServiceModel>,
    #[serde(default)]
    vary: BTreeMap<String, Vec<Value>>,
    random: Option<u64>,
    optimize: Option<String>,
}

/// What a command line says beyond its files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Overrides {
    /// Flagger's version.
    pub dialect: Option<String>,
    /// The Canary, of several: `name` or `namespace/name`.
    pub canary: Option<String>,
    /// Users' requests per second.
    #[serde(with = "exact")]
    pub rate: Option<f64>,
    /// The bad version's share of failed requests.
    #[serde(with = "exact")]
    pub bad_errors: Option<f64>,
    /// The bad version's slowdown.
    #[serde(with = "exact")]
    pub bad_slowdown: Option<f64>,
    /// The time between scrapes.
    pub scrape_interval: Option<Span>,
}

/// Reads files into an experiment.
///
/// # Errors
/// Every sentence names file, object and field.
pub fn read(source: &dyn Source, paths: &[PathBuf], overrides: &Overrides) -> Result<Experiment, String> {
    let documents = manifest::read(source, paths)?;
    let mut experiments = documents.iter().filter(|document| document.kind() == KIND);
    let experiment = experiments.next();
    if let Some(second) = experiments.next() {
        return Err(format!("{}:{}: a second Experiment: give one at a time", second.file, second.line));
    }
    let Some(document) = experiment else { return from_manifests(documents, overrides) };
    let text = serde_json::to_string(&document.value).unwrap_or_default();
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let file: File = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let inner = error.inner().to_string();
        // The text that was read is not the user's: its lines mean nothing to them.
        let inner = inner.split(" at line ").next().unwrap_or_default();
        format!("{}:{}: {}: {inner}", document.file, document.line, error.path())
    })?;
    if file.api_version != "coalmine.dev/v1alpha1" || file.kind != KIND {
        return Err(format!("{}: apiVersion: expected coalmine.dev/v1alpha1", document.file));
    }
    let folder = Path::new(&document.file).parent().unwrap_or(Path::new("")).to_owned();
    let mut paths = vec![folder.join(&file.spec.canary)];
    paths.extend(file.spec.manifests.iter().map(|path| folder.join(path)));
    let mut all = manifest::read(source, &paths)?;
    all.extend(documents.iter().filter(|other| other.kind() != KIND).cloned());
    let overrides =
        Overrides { dialect: overrides.dialect.clone().or(file.spec.dialect), ..overrides.clone() };
    let mut experiment = from_manifests(all, &overrides)?;
    if !file.metadata.name.is_empty() {
        experiment.name = file.metadata.name;
    }
    let named = |error: String| format!("{}: spec.{error}", document.file);
    if !file.spec.models.is_empty() {
        experiment.models = file.spec.models;
        experiment.assumptions.clear();
        let read = |path: &str| source.read(&folder.join(path));
        let mut names = Vec::new();
        for (index, model) in experiment.models.iter_mut().enumerate() {
            model.load(&read).map_err(|error| named(format!("models[{index}].{error}")))?;
            if names.contains(&model.name) {
                return Err(named(format!(
                    "models[{index}].name: {:?} is taken: name each model",
                    model.name
                )));
            }
            names.push(model.name.clone());
            apply(model, &overrides);
        }
    }
    for (field, values) in file.spec.vary {
        let field = Field::parse(&field).map_err(|error| named(format!("vary: {error}")))?;
        experiment.vary.push(Variation { field, values });
    }
    experiment.random = file.spec.random;
    experiment.goal = file
        .spec
        .optimize
        .as_deref()
        .map(Goal::parse)
        .transpose()
        .map_err(|error| named(format!("optimize: {error}")))?;
    experiment.rollouts = file.spec.rollouts;
    experiment.precision = file.spec.precision;
    experiment.seed = file.spec.seed.unwrap_or(experiment.seed);
    Ok(experiment)
}

fn apply(model: &mut ServiceModel, overrides: &Overrides) {
    if let Some(rate) = overrides.rate {
        model.traffic.rate = rate;
    }
    if let Some(interval) = overrides.scrape_interval {
        model.prometheus.scrape_interval = interval;
    }
    for (name, version) in &mut model.versions {
        if version.is_bad(name) {
            if let Some(errors) = overrides.bad_errors {
                version.error_rate = Some(crate::model::Rate::Fixed(errors));
            }
            if let Some(slowdown) = overrides.bad_slowdown {
                version.slowdown = Some(slowdown);
                // Slow, and no worse otherwise unless that was asked for as well.
                if overrides.bad_errors.is_none() {
                    version.error_rate = None;
                }
            }
        }
    }
}

fn from_manifests(documents: Vec<Document>, overrides: &Overrides) -> Result<Experiment, String> {
    let canaries = manifest::canaries(&documents)?;
    let wanted = |canary: &Canary| {
        overrides.canary.as_ref().is_none_or(|name| {
            name == canary.name() || *name == format!("{}/{}", canary.namespace(), canary.name())
        })
    };
    let names: Vec<String> =
        canaries.iter().map(|(_, canary)| format!("{}/{}", canary.namespace(), canary.name())).collect();
    let mut matching = canaries.into_iter().filter(|(_, canary)| wanted(canary));
    let files = || {
        let mut files: Vec<&str> = documents.iter().map(|document| document.file.as_str()).collect();
        files.dedup();
        files.join(", ")
    };
    let (index, canary) = match (matching.next(), matching.next()) {
        (Some(found), None) => found,
        (Some(_), Some(_)) => {
            return Err(format!(
                "{} Canaries in {}: choose one with --canary: {}",
                names.len(),
                files(),
                names.join(", ")
            ));
        }
        (None, _) if names.is_empty() => {
            return Err(format!(
                "no Canary (apiVersion: flagger.app/v1beta1, kind: Canary) in {}",
                if documents.is_empty() { "the files given".to_owned() } else { files() }
            ));
        }
        (None, _) => {
            let asked = overrides.canary.clone().unwrap_or_default();
            return Err(format!("no Canary {asked} in {}: there are {}", files(), names.join(", ")));
        }
    };
    let templates = manifest::templates(&documents)?;
    let mut model = ServiceModel::default();
    let mut assumptions = Vec::new();
    let rate = overrides.rate.unwrap_or(model.traffic.rate);
    let tests: f64 = canary.spec.analysis().map_or(0.0, |analysis| {
        let tests = analysis.webhooks.iter().filter_map(LoadTest::of);
        tests.map(|test| test.rate(model.baseline.latency.mean())).sum()
    });
    assumptions.push(format!(
        "users send {rate} requests/s in all, which the canary's weight divides{}",
        if tests > 0.0 { format!("; the load test adds {tests:.0}/s of its own") } else { String::new() }
    ));
    let bad_errors = overrides.bad_errors.or(overrides.bad_slowdown.is_none().then_some(0.05));
    let bad = match (bad_errors, overrides.bad_slowdown) {
        (Some(errors), None) => format!("fails {}% of its requests", percent(errors)),
        (None, Some(slowdown)) => format!("takes {slowdown} times as long"),
        (errors, slowdown) => format!(
            "fails {}% of its requests and takes {} times as long",
            percent(errors.unwrap_or(0.0)),
            slowdown.unwrap_or(1.0)
        ),
    };
    assumptions.push(format!(
        "a good version fails 0.1% of its requests and answers in 30ms (half of them) to 200ms (99%); a bad one {bad}"
    ));
    let jobs = manifest::scrape_jobs(&documents)?;
    match (overrides.scrape_interval, manifest::mesh_job(&jobs)) {
        (Some(interval), _) => model.prometheus.scrape_interval = interval,
        (None, Some(job)) => {
            model.prometheus.scrape_interval = Span::from_millis(job.interval.max(1) as u64);
        }
        (None, None) => assumptions.push("Prometheus scrapes the proxies every 5s".to_owned()),
    }
    match deployment(&documents, &canary) {
        Some(startup) => model.startup = startup,
        None => assumptions.push(format!(
            "a new version is ready {} after it is scaled up, and the primary rolls it out in {}",
            model.startup, model.promotion
        )),
    }
    apply(&mut model, overrides);
    model
        .load(&|file| Err(format!("{file} is not read here")))
        .map_err(|error| format!("service model: {error}"))?;
    let tag = overrides.dialect.clone().or_else(|| flagger_tag(&documents));
    if tag.is_none() {
        assumptions.push("Flagger behaves as 1.44.0 (--dialect 1.0.0-rc.1 for the old one)".to_owned());
    }
    Ok(Experiment {
        name: canary.name().to_owned(),
        document: documents[index].clone(),
        canary,
        templates,
        dialect: tag.as_deref().map_or(Dialect::Latest, Dialect::from_tag),
        models: vec![model],
        vary: Vec::new(),
        random: None,
        goal: None,
        rollouts: None,
        seed: 1,
        precision: None,
        assumptions,
        documents,
    })
}

fn percent(share: f64) -> String {
    canary::float_text((share * 1e6).round() / 1e4)
}

/// Time until the target is ready and available, as its Deployment says: two seconds for the image, the probe's
/// delay, minReadySeconds.
fn deployment(documents: &[Document], canary: &Canary) -> Option<Span> {
    let target = &canary.spec.target_ref.name;
    let found =
        documents.iter().find(|document| document.kind() == "Deployment" && document.name() == target)?;
    let spec = &found.value["spec"];
    let least = spec["minReadySeconds"].as_u64().unwrap_or(0);
    let containers = spec["template"]["spec"]["containers"].as_array()?;
    let delay = containers
        .iter()
        .filter_map(|container| container["readinessProbe"]["initialDelaySeconds"].as_u64())
        .max()
        .unwrap_or(0);
    Some(Span::from_millis((2 + least + delay) * 1000))
}

/// The tag of Flagger's image, if its Deployment is among the documents.
fn flagger_tag(documents: &[Document]) -> Option<String> {
    let images = documents.iter().filter(|document| document.kind() == "Deployment").flat_map(|document| {
        let containers = document.value["spec"]["template"]["spec"]["containers"].as_array();
        containers.into_iter().flatten().filter_map(|container| container["image"].as_str())
    });
    let flagger =
        images.filter_map(|image| image.rsplit_once(':')).find(|(name, _)| name.ends_with("/flagger"));
    flagger.map(|(_, tag)| tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variations_are_lists_or_ranges() {
        let list = Variation::parse("analysis.interval=30s,1m").unwrap();
        assert_eq!(list.values, [Value::from("30s"), Value::from("1m")]);
        assert_eq!(Variation::parse("analysis.stepWeight=5..8").unwrap().values.len(), 4);
        assert_eq!(Variation::parse("analysis.interval=10s..2m").unwrap().values[1], Value::from("15s"));
        assert!(Variation::parse("analysis.stepWeight").unwrap_err().contains("FIELD=VALUE"));
        assert!(Variation::parse("analysis.stepWeight=9..2").is_err());
    }
}
