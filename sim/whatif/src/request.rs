//! A question, and a whole one as text: everything that another machine needs to run a shard of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::experiment::{self, Experiment, Overrides, Variation};
use crate::goal::Goal;
use crate::source::{Copied, Source};

/// What a command line says about files with an experiment or a Canary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Question {
    /// What is said of the service.
    pub overrides: Overrides,
    /// The seed, instead of the experiment's.
    pub seed: Option<u64>,
    /// So many random points of the variations.
    pub random: Option<u64>,
    /// The goal, as it was written.
    pub optimize: Option<String>,
    /// Ends early when shares are known to within this much.
    #[serde(with = "exact")]
    pub precision: Option<f64>,
    /// The variations, as they were written, instead of the experiment's.
    pub vary: Vec<String>,
}

impl Question {
    /// The experiment that answers it.
    ///
    /// # Errors
    /// As [`experiment::read`]; a variation or goal that cannot be read.
    pub fn experiment(&self, source: &dyn Source, paths: &[PathBuf]) -> Result<Experiment, String> {
        let mut experiment = experiment::read(source, paths, &self.overrides)?;
        experiment.seed = self.seed.unwrap_or(experiment.seed);
        experiment.random = self.random.or(experiment.random);
        let goal = self.optimize.as_deref().map(Goal::parse).transpose()?;
        experiment.goal = goal.or(experiment.goal);
        experiment.precision = self.precision.or(experiment.precision);
        if !self.vary.is_empty() {
            let vary = self.vary.iter().map(|text| Variation::parse(text));
            experiment.vary = vary.collect::<Result<_, _>>()?;
        }
        Ok(experiment)
    }
}

/// A question with its files, to be answered in parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// `coalmine.dev/v1alpha1`.
    pub api_version: String,
    /// `WhatIfRequest`.
    pub kind: String,
    /// The files as they were named.
    pub paths: Vec<String>,
    /// What is in them, and in those that they name.
    pub source: Copied,
    /// The question.
    pub question: Question,
    /// `fast` or `full`.
    pub engine: String,
    /// Rollouts of each version under each policy, of all parts.
    pub rollouts: u64,
    /// The number of parts.
    pub shards: u64,
}

/// The API version and kind of requests.
pub const KIND: (&str, &str) = ("coalmine.dev/v1alpha1", "WhatIfRequest");

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Request, String> {
        let request: Request = serde_json::from_str(text)
            .map_err(|error| format!("no request of `coalmine whatif`: {error}"))?;
        if (request.api_version.as_str(), request.kind.as_str()) != KIND {
            return Err(format!(
                "expected {} {}, found {} {}",
                KIND.0, KIND.1, request.api_version, request.kind
            ));
        }
        Ok(request)
    }

    /// The part with this number, as `--shard` means it.
    ///
    /// # Errors
    /// A sentence if there is no such part.
    pub fn part(&self, index: u64) -> Result<(u64, u64), String> {
        if index < self.shards {
            return Ok((index, self.shards));
        }
        Err(format!(
            "there is no shard {index}: they are numbered from 0 to {}",
            self.shards.saturating_sub(1)
        ))
    }

    /// The experiment.
    ///
    /// # Errors
    /// As [`Question::experiment`].
    pub fn experiment(&self) -> Result<Experiment, String> {
        let paths: Vec<PathBuf> = self.paths.iter().map(PathBuf::from).collect();
        self.question.experiment(&self.source, &paths)
    }
}

/// Numbers as text: JSON's readers may be off in the last digit, and the same seed must give the same results.
pub(crate) mod exact {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        number.map(|number| number.to_string()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let number =
            |text: String| text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no number")));
        text.map(number).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::{Copying, Disk};
    use crate::sweep;

    #[test]
    fn a_request_that_has_travelled_asks_the_same() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/article/flagger/podinfo");
        let paths = [folder.clone()];
        let question = Question {
            overrides: Overrides {
                bad_errors: Some(3.3 / 100.0),
                rate: Some(0.1 + 0.2),
                ..Overrides::default()
            },
            vary: vec!["analysis.threshold=1..4".to_owned()],
            ..Question::default()
        };
        let copying = Copying::new(&Disk);
        let here = question.experiment(&copying, &paths).unwrap();
        let request = Request {
            api_version: KIND.0.to_owned(),
            kind: KIND.1.to_owned(),
            paths: vec![folder.display().to_string()],
            source: copying.copied(),
            question,
            engine: "fast".to_owned(),
            rollouts: 10,
            shards: 2,
        };
        let there = Request::parse(&serde_json::to_string(&request).unwrap()).unwrap();
        assert_eq!(there, request);
        let there = there.experiment().unwrap();
        assert_eq!(format!("{here:?}"), format!("{there:?}"));
        assert_eq!(sweep::points(&there).unwrap().len(), 4);
        assert!(request.part(2).unwrap_err().contains("from 0 to 1"));
        assert!(Request::parse("{}").unwrap_err().starts_with("no request of"));
    }
}
