//! Golden logs: a component's whole log beside its scenario, compared byte for byte.

use crate::scenario::Loaded;
use crate::{ExpectationResult, Mismatch, Outcome, Status};

impl Outcome {
    /// Compares the log with the golden file that the scenario names, and adds the result to the expectations. A
    /// golden file belongs to the scenario's own seed: runs with another seed, and runs that did not come to their
    /// end, are not compared. With `bless` the file is written instead.
    ///
    /// # Errors
    /// A sentence with the path if the file cannot be written.
    pub fn check_golden(&mut self, loaded: &Loaded, bless: bool) -> Result<(), String> {
        let Some((golden, lines)) = loaded.scenario.spec.golden.as_ref().zip(self.golden.as_ref()) else {
            return Ok(());
        };
        if self.seed != loaded.scenario.spec.seed || self.status != Status::Finished {
            return Ok(());
        }
        let path = loaded.path(&golden.file);
        let found: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        if bless {
            std::fs::write(&path, &found).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let expected = std::fs::read_to_string(&path);
        let name = format!("golden {}", golden.file);
        let place = path.display().to_string();
        let result = |passed, explanation: String, mismatch| ExpectationResult {
            place,
            name,
            passed,
            explanation,
            mismatch,
        };
        self.expectations.push(match expected {
            Ok(expected) if expected == found => result(true, format!("{} lines", lines.len()), None),
            Ok(expected) => {
                let mismatch = Mismatch {
                    expected: expected.lines().map(str::to_owned).collect(),
                    found: lines.clone(),
                };
                let explanation = "the log differs; --bless writes it anew".to_owned();
                result(false, explanation, Some(mismatch))
            }
            Err(error) => result(false, format!("{error}; --bless writes it"), None),
        });
        Ok(())
    }
}
