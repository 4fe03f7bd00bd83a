//! YAML documents as they are shipped, with the place that each came from.

use std::path::{Path, PathBuf};

use crd::{Canary, MetricTemplate};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::source::Source;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The file as it was named.
    pub file: String,
    /// The line that the document begins at, from 1.
    pub line: usize,
    /// The document's text.
    pub text: String,
    /// What it says.
    pub value: Value,
}

impl Document {
    /// The object's kind, empty without one.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// The object's API group, empty for the core group.
    pub fn group(&self) -> &str {
        let version = self.value["apiVersion"].as_str().unwrap_or_default();
        version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The object's namespace, empty if it names none.
    pub fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    /// `Kind namespace/name`, as messages name it.
    pub fn title(&self) -> String {
        match self.namespace() {
            "" => format!("{} {}", self.kind(), self.name()),
            namespace => format!("{} {namespace}/{}", self.kind(), self.name()),
        }
    }

    /// The object as its type.
    ///
    /// # Errors
    /// File, object and field, and what is wrong there.
    pub fn object<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            format!("{}:{}: {}: {}: {}", self.file, self.line, self.title(), error.path(), error.inner())
        })
    }
}

/// The documents of a text.
///
/// # Errors
/// File, line and what is wrong there.
pub fn parse(file: &str, text: &str) -> Result<Vec<Document>, String> {
    let mut documents = Vec::new();
    let (mut begin, mut lines) = (1, Vec::new());
    let mut finish = |begin: usize, lines: &[&str]| -> Result<(), String> {
        let is_empty = lines.iter().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        if is_empty {
            return Ok(());
        }
        let text = lines.join("\n") + "\n";
        let options = serde_saphyr::options! { with_snippet: false };
        let value: Value = serde_saphyr::from_str_with_options(&text, options).map_err(|error| {
            let place = if begin > 1 {
                format!(" (in the document that begins at line {begin})")
            } else {
                String::new()
            };
            format!("{file}: {}{place}", error.to_string().trim())
        })?;
        if value.is_object() {
            documents.push(Document { file: file.to_owned(), line: begin, text, value });
            return Ok(());
        }
        Err(format!("{file}:{begin}: expected a Kubernetes object: a map with apiVersion and kind"))
    };
    for (index, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            finish(begin, &lines)?;
            lines.clear();
            begin = index + 2;
        } else {
            lines.push(line);
        }
    }
    finish(begin, &lines)?;
    // A list is what `kubectl get -o yaml` prints of several objects.
    let mut flat = Vec::new();
    for document in documents {
        match document.value["items"].as_array() {
            Some(items) if document.kind().ends_with("List") => {
                flat.extend(items.iter().map(|value| Document { value: value.clone(), ..document.clone() }));
            }
            _ => flat.push(document),
        }
    }
    Ok(flat)
}

/// The documents of files and of all YAML files below folders, in order.
///
/// # Errors
/// File, line and what is wrong there; of a folder's files, those that are no Kubernetes objects are left out.
pub fn read(source: &dyn Source, paths: &[PathBuf]) -> Result<Vec<Document>, String> {
    let mut documents = Vec::new();
    for path in paths {
        let files = source.list(path)?.unwrap_or_else(|| vec![path.clone()]);
        for file in files {
            documents.extend(read_file(source, &file)?);
        }
    }
    Ok(documents)
}

fn read_file(source: &dyn Source, path: &Path) -> Result<Vec<Document>, String> {
    let text = source.read(path)?;
    let name = path.display().to_string();
    let is_prometheus = path.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        name.starts_with("prometheus") && (name.ends_with(".yml") || name.ends_with(".yaml"))
    });
    if is_prometheus
        && text.contains("scrape_configs")
        && !text.contains("\nkind:")
        && !text.starts_with("kind:")
    {
        // A bare configuration file: as the ConfigMap that would carry it.
        let value = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prometheus"},
            "data": {"prometheus.yml": text},
        });
        return Ok(vec![Document { file: name, line: 1, text, value }]);
    }
    parse(&name, &text)
}

/// The Canaries among documents.
///
/// # Errors
/// As [`Document::object`].
pub fn canaries(documents: &[Document]) -> Result<Vec<(usize, Canary)>, String> {
    let found = documents.iter().enumerate().filter(|(_, document)| document.kind() == Canary::KIND);
    found.map(|(index, document)| Ok((index, document.object()?))).collect()
}

/// The MetricTemplates among documents.
///
/// # Errors
/// As [`Document::object`].
pub fn templates(documents: &[Document]) -> Result<Vec<MetricTemplate>, String> {
    documents
        .iter()
        .filter(|document| document.kind() == MetricTemplate::KIND)
        .map(Document::object)
        .collect()
}

/// A job of a Prometheus configuration and the milliseconds between its scrapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeJob {
    /// The file.
    pub file: String,
    /// The object that carries the configuration.
    pub object: String,
    /// The job's name.
    pub job: String,
    /// Milliseconds between scrapes.
    pub interval: i64,
}

/// The scrape jobs of all Prometheus configurations among documents.
///
/// # Errors
/// The object and what is wrong with its configuration.
pub fn scrape_jobs(documents: &[Document]) -> Result<Vec<ScrapeJob>, String> {
    let mut jobs = Vec::new();
    for document in documents.iter().filter(|document| document.kind() == "ConfigMap") {
        let data = document.value["data"].as_object().into_iter().flatten();
        for (key, text) in data.filter_map(|(key, text)| Some((key, text.as_str()?))) {
            if !text.contains("scrape_configs") {
                continue;
            }
            let place = format!("{}: {}: {key}", document.file, document.title());
            let config: Value = serde_saphyr::from_str(text).map_err(|error| format!("{place}: {error}"))?;
            let span = |value: &Value| -> Result<Option<i64>, String> {
                value
                    .as_str()
                    .map(promql::parse_duration)
                    .transpose()
                    .map_err(|error| format!("{place}: {error}"))
            };
            let global = span(&config["global"]["scrape_interval"])?.unwrap_or(60_000);
            for job in config["scrape_configs"].as_array().into_iter().flatten() {
                jobs.push(ScrapeJob {
                    file: document.file.clone(),
                    object: document.title(),
                    job: job["job_name"].as_str().unwrap_or_default().to_owned(),
                    interval: span(&job["scrape_interval"])?.unwrap_or(global),
                });
            }
        }
    }
    Ok(jobs)
}

/// The job that scrapes the mesh's proxies: by its name, else the only one.
pub fn mesh_job(jobs: &[ScrapeJob]) -> Option<&ScrapeJob> {
    let named = jobs.iter().find(|job| ["envoy", "istio", "mesh"].iter().any(|word| job.job.contains(word)));
    named.or(if jobs.len() == 1 { jobs.first() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_their_place() {
        let documents =
            parse("a.yaml", "# nothing\n---\nkind: A\nmetadata: {name: x}\n---\nkind: B\n").unwrap();
        assert_eq!((documents[0].line, documents[1].line), (3, 6));
        assert_eq!(documents[0].title(), "A x");
        let error = parse("a.yaml", "kind: A\n---\nkind: [\n").unwrap_err();
        assert!(error.contains("a.yaml") && error.contains("line 3"), "{error}");
        assert!(parse("a.yaml", "- 1\n").unwrap_err().contains("a.yaml:1"));
        let canary = parse("c.yaml", "kind: Canary\nspec: {analysis: {stepWeight: five}}").unwrap();
        let error = canaries(&canary).unwrap_err();
        assert!(error.contains("spec") && error.contains("five"), "{error}");
    }

    #[test]
    fn the_articles_scrape_interval() {
        let text = include_str!("../../../fixtures/article/flagger/prometheus/config.yaml");
        let jobs = scrape_jobs(&parse("config.yaml", text).unwrap()).unwrap();
        assert_eq!(mesh_job(&jobs).map(|job| (job.job.as_str(), job.interval)), Some(("envoy-stats", 5_000)));
    }
}
