//! Function calls.

use regex::Regex;

use super::{Computed, Instant, Outcome, Sample, Window};
use crate::ast::Node;
use crate::calendar::{Civil, days_in_month};
use crate::error::QueryError;
use crate::format::parse_float;
use crate::functions::Function;
use crate::functions::histogram::{Bucket, bucket_fraction, bucket_quantile};
use crate::functions::over_time::of_window;
use crate::functions::rate::{Extrapolation, extrapolate, instant, regression};
use crate::labels::{Labels, METRIC_NAME};
use crate::matcher::{MatchKind, anchored};

impl Instant<'_> {
    pub(super) fn call(&self, function: Function, args: &[Node]) -> Outcome<Computed> {
        use Function::*;
        if let Some(of_number) = function.of_number() {
            return Ok(Computed::Vector(self.map(&args[0], of_number)?));
        }
        Ok(match function {
            Time => Computed::Scalar(self.at_ms as f64 / 1000.0),
            Pi => Computed::Scalar(std::f64::consts::PI),
            Vector => {
                let value = self.scalar(&args[0])?;
                Computed::Vector(vec![Sample { labels: Labels::default(), value }])
            }
            Scalar => {
                let samples = self.vector(&args[0])?;
                let only = if samples.len() == 1 { samples[0].value } else { f64::NAN };
                Computed::Scalar(only)
            }
            Absent => {
                let present = !self.vector(&args[0])?.is_empty();
                Computed::Vector(if present { Vec::new() } else { vec![absent(&args[0])] })
            }
            AbsentOverTime => {
                let present = !self.range(&args[0])?.0.is_empty();
                Computed::Vector(if present { Vec::new() } else { vec![absent(&args[0])] })
            }
            Timestamp => Computed::Vector(self.timestamps(&args[0])?),
            Sort | SortDesc => {
                let mut samples = self.vector(&args[0])?;
                samples.sort_by(|a, b| match (a.value.is_nan(), b.value.is_nan()) {
                    (false, false) if function == Sort => a.value.total_cmp(&b.value),
                    (false, false) => b.value.total_cmp(&a.value),
                    (a, b) => a.cmp(&b),
                });
                Computed::Vector(samples)
            }
            Clamp => {
                let (min, max) = (self.scalar(&args[1])?, self.scalar(&args[2])?);
                if min > max {
                    return Ok(Computed::Vector(Vec::new()));
                }
                Computed::Vector(self.map(&args[0], |value| bounded(value, min, max))?)
            }
            ClampMin => {
                let min = self.scalar(&args[1])?;
                Computed::Vector(self.map(&args[0], |value| bounded(value, min, f64::INFINITY))?)
            }
            ClampMax => {
                let max = self.scalar(&args[1])?;
                Computed::Vector(self.map(&args[0], |value| bounded(value, f64::NEG_INFINITY, max))?)
            }
            Round => {
                let nearest = args.get(1).map_or(Ok(1.0), |arg| self.scalar(arg))?;
                let inverse = 1.0 / nearest;
                Computed::Vector(self.map(&args[0], |value| (value * inverse + 0.5).floor() / inverse)?)
            }
            HistogramQuantile => {
                let quantile = self.scalar(&args[0])?;
                Computed::Vector(self.histograms(&args[1], |buckets| bucket_quantile(quantile, buckets))?)
            }
            HistogramFraction => {
                let (lower, upper) = (self.scalar(&args[0])?, self.scalar(&args[1])?);
                Computed::Vector(self.histograms(&args[2], |buckets| bucket_fraction(lower, upper, buckets))?)
            }
            LabelReplace => Computed::Vector(self.label_replace(args)?),
            LabelJoin => Computed::Vector(self.label_join(args)?),
            DayOfMonth | DayOfWeek | DayOfYear | DaysInMonth | Hour | Minute | Month | Year => {
                let samples = match args.first() {
                    Some(arg) => self.vector(arg)?,
                    None => vec![Sample { labels: Labels::default(), value: self.at_ms as f64 / 1000.0 }],
                };
                let field = |sample: Sample| Sample {
                    labels: sample.labels.without_name(),
                    value: calendar(function, sample.value),
                };
                Computed::Vector(samples.into_iter().map(field).collect())
            }
            QuantileOverTime => {
                let quantile = self.scalar(&args[0])?;
                Computed::Vector(self.over_windows(function, &args[1], quantile)?)
            }
            PredictLinear => {
                let ahead = self.scalar(&args[1])?;
                Computed::Vector(self.over_windows(function, &args[0], ahead)?)
            }
            _ => Computed::Vector(self.over_windows(function, &args[0], 0.0)?),
        })
    }

    fn map(&self, arg: &Node, of: impl Fn(f64) -> f64) -> Outcome<Vec<Sample>> {
        let apply = |sample: Sample| Sample { labels: sample.labels.without_name(), value: of(sample.value) };
        Ok(self.vector(arg)?.into_iter().map(apply).collect())
    }

    /// Functions from a window of samples to a number.
    fn over_windows(&self, function: Function, arg: &Node, param: f64) -> Outcome<Vec<Sample>> {
        use Function::*;
        let (windows, bounds) = self.range(arg)?;
        let extrapolated = |window: &Window<'_>, counter: bool, per_second: bool| {
            extrapolate(&window.times, &window.values, bounds, Extrapolation { counter, per_second })
        };
        let mut results = Vec::with_capacity(windows.len());
        for window in windows {
            let value = match function {
                Rate => extrapolated(&window, true, true),
                Increase => extrapolated(&window, true, false),
                Delta => extrapolated(&window, false, false),
                Irate => instant(&window.times, &window.values, true),
                Idelta => instant(&window.times, &window.values, false),
                Deriv => regression(&window.times, &window.values, window.times[0]).map(|(slope, _)| slope),
                PredictLinear => {
                    let line = regression(&window.times, &window.values, self.at_ms);
                    line.map(|(slope, intercept)| slope * param + intercept)
                }
                _ => of_window(function, &window.values, param),
            };
            if let Some(value) = value {
                let labels = if function.keeps_name() { window.labels } else { window.labels.without_name() };
                results.push(Sample { labels, value });
            }
        }
        Ok(results)
    }

    fn timestamps(&self, arg: &Node) -> Outcome<Vec<Sample>> {
        if let Node::Selector(selector) = arg {
            let found = self.select_times(selector).into_iter();
            let of = |(labels, at_ms): (Labels, i64)| Sample {
                labels: labels.without_name(),
                value: at_ms as f64 / 1000.0,
            };
            return Ok(found.map(of).collect());
        }
        self.map(arg, |_| self.at_ms as f64 / 1000.0)
    }

    /// Groups buckets by their labels without `le`.
    fn histograms(&self, arg: &Node, of: impl Fn(&mut Vec<Bucket>) -> f64) -> Outcome<Vec<Sample>> {
        let mut groups: indexmap::IndexMap<Labels, Vec<Bucket>, crate::hash::FixedState> =
            indexmap::IndexMap::default();
        for sample in self.vector(arg)? {
            // Series without a usable `le` are no buckets.
            let Some(upper) = sample.labels.get("le").and_then(parse_float) else { continue };
            let labels = sample.labels.filtered(|name| name != "le" && name != METRIC_NAME);
            groups.entry(labels).or_default().push(Bucket { upper, count: sample.value });
        }
        Ok(groups
            .into_iter()
            .map(|(labels, mut buckets)| Sample { labels, value: of(&mut buckets) })
            .collect())
    }

    fn label_replace(&self, args: &[Node]) -> Outcome<Vec<Sample>> {
        let samples = self.vector(&args[0])?;
        let (target, replacement) = (self.text(&args[1])?, self.text(&args[2])?);
        let (source, pattern) = (self.text(&args[3])?, self.text(&args[4])?);
        let regex: Regex = anchored(&pattern).map_err(|_| {
            QueryError::execution(format!("invalid regular expression in label_replace(): {pattern}"))
        })?;
        check_label(&target, "destination label name in label_replace()")?;
        let replace = |sample: Sample| {
            let value = sample.labels.get(&source).unwrap_or_default();
            let Some(captures) = regex.captures(value) else { return sample };
            let mut text = String::new();
            captures.expand(&replacement, &mut text);
            let mut labels = sample.labels.to_builder();
            labels.set(target.as_str(), text);
            Sample { labels: labels.build(), value: sample.value }
        };
        Ok(samples.into_iter().map(replace).collect())
    }

    fn label_join(&self, args: &[Node]) -> Outcome<Vec<Sample>> {
        let samples = self.vector(&args[0])?;
        let (target, separator) = (self.text(&args[1])?, self.text(&args[2])?);
        check_label(&target, "destination label name in label_join()")?;
        let sources = args[3..].iter().map(|arg| self.text(arg)).collect::<Outcome<Vec<String>>>()?;
        let join = |sample: Sample| {
            let parts: Vec<&str> =
                sources.iter().map(|name| sample.labels.get(name).unwrap_or_default()).collect();
            let mut labels = sample.labels.to_builder();
            labels.set(target.as_str(), parts.join(&separator));
            Sample { labels: labels.build(), value: sample.value }
        };
        Ok(samples.into_iter().map(join).collect())
    }
}

fn check_label(name: &str, what: &str) -> Outcome<()> {
    let first_ok = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if first_ok && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(())
    } else {
        Err(QueryError::execution(format!("invalid {what}: {name}")))
    }
}

fn bounded(value: f64, min: f64, max: f64) -> f64 {
    if value.is_nan() || min.is_nan() || max.is_nan() { f64::NAN } else { value.max(min).min(max) }
}

/// The sample of `absent()`: the labels that the selector demands by equality, each once.
fn absent(arg: &Node) -> Sample {
    let selector = match arg {
        Node::Selector(selector) | Node::Range(selector, _) => selector,
        _ => return Sample { labels: Labels::default(), value: 1.0 },
    };
    let mut labels = Labels::default().to_builder();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in &selector.matchers {
        let name = matcher.name.as_str();
        if name == METRIC_NAME {
            continue;
        }
        if matcher.kind == MatchKind::Equal && !seen.contains(&name) {
            labels.set(name, matcher.value.as_str());
        } else {
            labels.remove(name);
        }
        seen.push(name);
    }
    Sample { labels: labels.build(), value: 1.0 }
}

fn calendar(function: Function, seconds: f64) -> f64 {
    use Function::*;
    if !seconds.is_finite() {
        return f64::NAN;
    }
    let civil = Civil::from_unix(seconds.floor() as i64);
    match function {
        DayOfMonth => f64::from(civil.day),
        DayOfWeek => f64::from(civil.weekday),
        DayOfYear => f64::from(civil.day_of_year),
        DaysInMonth => f64::from(days_in_month(civil.year, civil.month)),
        Hour => f64::from(civil.hour),
        Minute => f64::from(civil.minute),
        Month => f64::from(civil.month),
        _ => civil.year as f64,
    }
}
