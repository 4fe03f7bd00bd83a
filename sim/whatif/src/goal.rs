//! What the best policy is: limits on some figures, and the figure to make least.

use crate::results::{ModelResult, PolicyResult};
use crate::span::Span;
use crate::statistics::Estimate;

/// A figure of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// The share of good versions that are rolled back.
    FalseAlarms,
    /// The share of bad versions that are promoted.
    Misses,
    /// Median seconds from release to rollback of a bad version.
    Detection,
    /// Median seconds from release to promotion of a good version.
    Release,
    /// Failed requests that a bad version's release shows to users, on average.
    UserErrors,
    /// Requests of users that a bad version answers, on average.
    UserRequests,
}

const NAMES: [(&str, Figure); 12] = [
    ("false alarms", Figure::FalseAlarms),
    ("false alarm rate", Figure::FalseAlarms),
    ("misses", Figure::Misses),
    ("miss rate", Figure::Misses),
    ("detection time", Figure::Detection),
    ("detection", Figure::Detection),
    ("release duration", Figure::Release),
    ("release", Figure::Release),
    ("user errors", Figure::UserErrors),
    ("errors", Figure::UserErrors),
    ("user requests", Figure::UserRequests),
    ("blast radius", Figure::UserErrors),
];

impl Figure {
    /// The figure's name.
    pub fn name(self) -> &'static str {
        match self {
            Figure::FalseAlarms => "false alarms",
            Figure::Misses => "misses",
            Figure::Detection => "detection time",
            Figure::Release => "release duration",
            Figure::UserErrors => "user errors",
            Figure::UserRequests => "user requests",
        }
    }

    /// The figure of a policy under a model; `None` where it does not exist, as when no bad version is caught.
    pub fn of(self, model: &ModelResult) -> Option<Estimate> {
        match self {
            Figure::FalseAlarms => model.false_alarms,
            Figure::Misses => model.misses,
            Figure::Detection => model.detection,
            Figure::Release => model.release,
            Figure::UserErrors => model.user_errors,
            Figure::UserRequests => model.user_requests,
        }
    }

    /// The worst of a policy's models; infinite where the figure does not exist.
    pub fn worst(self, policy: &PolicyResult) -> Estimate {
        let nowhere = Estimate { value: f64::INFINITY, low: f64::INFINITY, high: f64::INFINITY };
        let worst = policy.models.iter().map(|model| self.of(model).unwrap_or(nowhere));
        worst.max_by(|a, b| a.value.total_cmp(&b.value)).unwrap_or(nowhere)
    }
}

/// A limit: the figure must be below it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// The figure.
    pub figure: Figure,
    /// The limit: a share, seconds, or a number.
    pub below: f64,
}

/// What the best policy is.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// As it was written.
    pub text: String,
    /// What must hold.
    pub limits: Vec<Limit>,
    /// What to make least among policies for which that holds.
    pub least: Figure,
}

impl Goal {
    /// Reads `false alarms < 1%, release < 15m, least user errors`.
    ///
    /// # Errors
    /// A sentence on what is wrong, with an example.
    pub fn parse(text: &str) -> Result<Goal, String> {
        let figure = |name: &str| {
            let name = name.trim().to_lowercase();
            NAMES.iter().find(|(known, _)| *known == name).map(|(_, figure)| *figure).ok_or_else(|| {
                format!("{name:?} is no figure: write false alarms, misses, detection, release, user errors or user requests")
            })
        };
        let (mut limits, mut least) = (Vec::new(), None);
        for clause in text.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
            if let Some(name) = clause.strip_prefix("least ").or_else(|| clause.strip_prefix("fewest ")) {
                if least.replace(figure(name)?).is_some() {
                    return Err(format!("{text:?}: only one figure can be made least"));
                }
                continue;
            }
            let (name, limit) = clause.split_once('<').ok_or_else(|| {
                format!("{clause:?}: write e.g. \"false alarms < 1%\" or \"least user errors\"")
            })?;
            let figure = figure(name)?;
            let limit = limit.trim();
            let below = match figure {
                Figure::FalseAlarms | Figure::Misses => match limit.strip_suffix('%') {
                    Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
                    None => limit.parse::<f64>().ok(),
                },
                Figure::Detection | Figure::Release => {
                    limit.replace(" min", "m").replace(' ', "").parse::<Span>().ok().map(Span::seconds)
                }
                Figure::UserErrors | Figure::UserRequests => limit.parse::<f64>().ok(),
            };
            let below = below.filter(|below| *below >= 0.0);
            limits.push(Limit {
                figure,
                below: below
                    .ok_or_else(|| format!("{clause:?}: {limit:?} is no limit for {}", figure.name()))?,
            });
        }
        let least =
            least.ok_or_else(|| format!("{text:?}: say what to make least, e.g. \"least user errors\""))?;
        Ok(Goal { text: text.to_owned(), limits, least })
    }

    /// Whether a policy keeps all limits, with the whole of each confidence interval.
    pub fn is_met(&self, policy: &PolicyResult) -> bool {
        self.limits.iter().all(|limit| limit.figure.worst(policy).high < limit.below)
    }

    /// The best of several policies: its place. The first of equals, so that the result does not depend on chance.
    pub fn best(&self, policies: &[PolicyResult]) -> Option<usize> {
        let met = policies.iter().enumerate().filter(|(_, policy)| self.is_met(policy));
        let ties = [Figure::Detection, Figure::Release];
        met.min_by(|(_, a), (_, b)| {
            let by = |figure: Figure| figure.worst(a).value.total_cmp(&figure.worst(b).value);
            ties.iter().fold(by(self.least), |order, figure| order.then(by(*figure)))
        })
        .map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_read_and_mistakes_named() {
        let goal = Goal::parse("false alarms < 1%, release < 15 min, least user errors").unwrap();
        assert_eq!(goal.least, Figure::UserErrors);
        assert_eq!(goal.limits[0], Limit { figure: Figure::FalseAlarms, below: 0.01 });
        assert_eq!(goal.limits[1], Limit { figure: Figure::Release, below: 900.0 });
        let check = |text: &str, part: &str| assert!(Goal::parse(text).unwrap_err().contains(part), "{text}");
        check("false alarms < 1%", "say what to make least");
        check("flase alarms < 1%, least misses", "is no figure");
        check("release < soon, least misses", "no limit for release duration");
        check("release, least misses", "write e.g.");
    }
}
