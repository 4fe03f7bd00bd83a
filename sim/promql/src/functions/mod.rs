//! PromQL's functions: the table of names, and calls.

pub(crate) mod histogram;
mod label;
mod over_time;
pub(crate) mod rate;
pub(crate) mod sum;

use crate::ast::{Kind, Node};
use crate::calendar::{Civil, days_in_month};
use crate::error::QueryError;
use crate::eval::{Evaluator, Output, Sample, Window, drop_names, nan_first, strip};
use crate::labels::{Labels, METRIC_NAME};
use crate::matcher::MatchKind;
use rate::Extrapolation;

/// A function by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    name: &'static str,
    body: Body,
}

/// What a function does, by the shape of its arguments.
#[derive(Clone, Copy, Debug)]
enum Body {
    /// Each value of an instant vector.
    Map(fn(f64) -> f64),
    /// Each series of a range.
    OverTime(fn(&Window<'_>) -> Option<f64>),
    /// As `OverTime`, and the metric's name stays.
    Pick(fn(&Window<'_>) -> Option<f64>),
    Rate(Extrapolation),
    /// A field of the date that each value stands for, or of the evaluation's time.
    Date(fn(&Civil) -> f64),
    /// Of native histograms, of which there are none.
    NativeHistogram,
    /// Told apart by name.
    Special,
}

/// Functions with no more to them than their table entry says.
const TABLE: [(&str, Body); 69] = [
    ("abs", Body::Map(f64::abs)),
    ("acos", Body::Map(f64::acos)),
    ("acosh", Body::Map(f64::acosh)),
    ("asin", Body::Map(f64::asin)),
    ("asinh", Body::Map(f64::asinh)),
    ("atan", Body::Map(f64::atan)),
    ("atanh", Body::Map(f64::atanh)),
    ("ceil", Body::Map(f64::ceil)),
    ("cos", Body::Map(f64::cos)),
    ("cosh", Body::Map(f64::cosh)),
    ("deg", Body::Map(|value| value * 180.0 / std::f64::consts::PI)),
    ("exp", Body::Map(f64::exp)),
    ("floor", Body::Map(f64::floor)),
    ("ln", Body::Map(f64::ln)),
    ("log10", Body::Map(f64::log10)),
    ("log2", Body::Map(f64::log2)),
    ("rad", Body::Map(|value| value * std::f64::consts::PI / 180.0)),
    ("sgn", Body::Map(|value| if value == 0.0 || value.is_nan() { value } else { value.signum() })),
    ("sin", Body::Map(f64::sin)),
    ("sinh", Body::Map(f64::sinh)),
    ("sqrt", Body::Map(f64::sqrt)),
    ("tan", Body::Map(f64::tan)),
    ("tanh", Body::Map(f64::tanh)),
    ("rate", Body::Rate(Extrapolation::Rate)),
    ("increase", Body::Rate(Extrapolation::Increase)),
    ("delta", Body::Rate(Extrapolation::Delta)),
    ("irate", Body::OverTime(rate::irate)),
    ("idelta", Body::OverTime(rate::idelta)),
    ("changes", Body::OverTime(over_time::changes)),
    ("resets", Body::OverTime(over_time::resets)),
    ("deriv", Body::OverTime(over_time::deriv)),
    ("avg_over_time", Body::OverTime(|window| Some(sum::mean(window.values)))),
    ("count_over_time", Body::OverTime(|window| Some(window.values.len() as f64))),
    ("first_over_time", Body::Pick(|window| window.values.first().copied())),
    ("last_over_time", Body::Pick(|window| window.values.last().copied())),
    ("mad_over_time", Body::OverTime(over_time::median_deviation)),
    ("max_over_time", Body::OverTime(|window| Some(over_time::max(window).1))),
    ("min_over_time", Body::OverTime(|window| Some(over_time::min(window).1))),
    ("present_over_time", Body::OverTime(|_| Some(1.0))),
    ("stddev_over_time", Body::OverTime(|window| Some(over_time::variance(window).sqrt()))),
    ("stdvar_over_time", Body::OverTime(|window| Some(over_time::variance(window)))),
    ("sum_over_time", Body::OverTime(|window| Some(sum::sum(window.values)))),
    ("ts_of_first_over_time", Body::OverTime(|window| window.times.first().map(|time| seconds(*time)))),
    ("ts_of_last_over_time", Body::OverTime(|window| window.times.last().map(|time| seconds(*time)))),
    ("ts_of_max_over_time", Body::OverTime(|window| Some(seconds(over_time::max(window).0)))),
    ("ts_of_min_over_time", Body::OverTime(|window| Some(seconds(over_time::min(window).0)))),
    ("day_of_month", Body::Date(|date| f64::from(date.day))),
    ("day_of_week", Body::Date(|date| f64::from(date.weekday))),
    ("day_of_year", Body::Date(|date| f64::from(date.day_of_year))),
    ("days_in_month", Body::Date(|date| f64::from(days_in_month(date.year, date.month)))),
    ("hour", Body::Date(|date| f64::from(date.hour))),
    ("minute", Body::Date(|date| f64::from(date.minute))),
    ("month", Body::Date(|date| f64::from(date.month))),
    ("year", Body::Date(|date| date.year as f64)),
    ("histogram_avg", Body::NativeHistogram),
    ("histogram_count", Body::NativeHistogram),
    ("histogram_stddev", Body::NativeHistogram),
    ("histogram_stdvar", Body::NativeHistogram),
    ("histogram_sum", Body::NativeHistogram),
    ("absent", Body::Special),
    ("absent_over_time", Body::Special),
    ("clamp", Body::Special),
    ("clamp_max", Body::Special),
    ("clamp_min", Body::Special),
    ("double_exponential_smoothing", Body::Special),
    ("histogram_fraction", Body::Special),
    ("histogram_quantile", Body::Special),
    ("label_join", Body::Special),
    ("label_replace", Body::Special),
];

/// Special functions, continued: those that are no more than a line each.
const SPECIAL: [&str; 18] = [
    "end",
    "max_of",
    "min_of",
    "pi",
    "predict_linear",
    "quantile_over_time",
    "range",
    "round",
    "scalar",
    "sort",
    "sort_by_label",
    "sort_by_label_desc",
    "sort_desc",
    "start",
    "step",
    "time",
    "timestamp",
    "vector",
];

const EXPERIMENTAL: [&str; 14] = [
    "double_exponential_smoothing",
    "end",
    "mad_over_time",
    "max_of",
    "min_of",
    "range",
    "sort_by_label",
    "sort_by_label_desc",
    "start",
    "step",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
];

/// A function's arguments.
pub(crate) struct Signature {
    /// Their types.
    pub args: &'static [Kind],
    /// How many there must be.
    pub required: usize,
    /// Whether the last may come again and again.
    repeats: bool,
}

impl Signature {
    /// How many there may be, if that has an end.
    pub(crate) fn most(&self) -> Option<usize> {
        (!self.repeats).then_some(self.args.len())
    }
}

impl Function {
    /// The function of that name, if there is one.
    pub(crate) fn from_name(name: &str) -> Option<Function> {
        let listed =
            TABLE.iter().find(|(known, _)| *known == name).map(|(name, body)| Function { name, body: *body });
        listed.or_else(|| {
            SPECIAL.iter().find(|known| **known == name).map(|name| Function { name, body: Body::Special })
        })
    }

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    /// What it takes.
    pub(crate) fn signature(self) -> Signature {
        use Kind::{Matrix, Scalar, Text, Vector};
        let (args, required, repeats): (&'static [Kind], usize, bool) = match self.body {
            Body::Map(_) | Body::NativeHistogram => (&[Vector], 1, false),
            Body::OverTime(_) | Body::Pick(_) | Body::Rate(_) => (&[Matrix], 1, false),
            Body::Date(_) => (&[Vector], 0, false),
            Body::Special => match self.name {
                "absent" | "scalar" | "sort" | "sort_desc" | "timestamp" => (&[Vector], 1, false),
                "absent_over_time" => (&[Matrix], 1, false),
                "clamp" => (&[Vector, Scalar, Scalar], 3, false),
                "clamp_max" | "clamp_min" => (&[Vector, Scalar], 2, false),
                "double_exponential_smoothing" => (&[Matrix, Scalar, Scalar], 3, false),
                "histogram_fraction" => (&[Scalar, Scalar, Vector], 3, false),
                "histogram_quantile" => (&[Scalar, Vector], 2, false),
                "label_join" => (&[Vector, Text, Text, Text], 3, true),
                "label_replace" => (&[Vector, Text, Text, Text, Text], 5, false),
                "max_of" | "min_of" => (&[Scalar, Scalar], 2, false),
                "predict_linear" => (&[Matrix, Scalar], 2, false),
                "quantile_over_time" => (&[Scalar, Matrix], 2, false),
                "round" => (&[Vector, Scalar], 1, false),
                "sort_by_label" | "sort_by_label_desc" => (&[Vector, Text], 1, true),
                "vector" => (&[Scalar], 1, false),
                // `end`, `pi`, `range`, `start`, `step`, `time`
                _ => (&[], 0, false),
            },
        };
        Signature { args, required, repeats }
    }

    /// What it gives.
    pub(crate) fn gives(self) -> Kind {
        match self.name {
            "time" | "scalar" | "pi" | "start" | "end" | "step" | "range" | "max_of" | "min_of" => {
                Kind::Scalar
            }
            _ => Kind::Vector,
        }
    }

    /// Whether its value depends on the time of evaluation even where its arguments do not.
    pub(crate) fn depends_on_step(self) -> bool {
        matches!(self.body, Body::Date(_)) || matches!(self.name, "time" | "timestamp" | "predict_linear")
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Go's `math.Max`: NaN wins.
fn go_max(left: f64, right: f64) -> f64 {
    if left.is_nan() || right.is_nan() { f64::NAN } else { left.max(right) }
}

/// Go's `math.Min`: NaN wins.
fn go_min(left: f64, right: f64) -> f64 {
    if left.is_nan() || right.is_nan() { f64::NAN } else { left.min(right) }
}

/// Calls a function at one step.
pub(crate) fn call(
    evaluator: &Evaluator<'_>,
    function: Function,
    args: &[Node],
    at: i64,
) -> Result<Output, QueryError> {
    if EXPERIMENTAL.contains(&function.name) && !evaluator.options.experimental {
        return Err(QueryError::Parse(format!("parse error: function \"{}\" is not enabled", function.name)));
    }
    match function.body {
        Body::Map(map) => mapped(evaluator, &args[0], at, map),
        Body::OverTime(body) => evaluator.over_windows(&args[0], at, false, body).map(Output::Vector),
        Body::Pick(body) => evaluator.over_windows(&args[0], at, true, body).map(Output::Vector),
        Body::Rate(kind) => rate::call(evaluator, &args[0], at, kind).map(Output::Vector),
        Body::Date(field) => {
            let of = |value: f64| {
                if value.is_finite() { field(&Civil::from_unix(value as i64)) } else { f64::NAN }
            };
            match args.first() {
                Some(arg) => mapped(evaluator, arg, at, of),
                None => Ok(unlabelled(of(seconds(at).floor()))),
            }
        }
        Body::NativeHistogram => {
            evaluator.vector(&args[0], at)?;
            Ok(Output::Vector(Vec::new()))
        }
        Body::Special => special(evaluator, function.name, args, at),
    }
}

fn mapped(
    evaluator: &Evaluator<'_>,
    arg: &Node,
    at: i64,
    map: impl Fn(f64) -> f64,
) -> Result<Output, QueryError> {
    let mut samples = evaluator.vector(arg, at)?;
    drop_names(&mut samples)?;
    samples.iter_mut().for_each(|sample| sample.value = map(sample.value));
    Ok(Output::Vector(samples))
}

fn unlabelled(value: f64) -> Output {
    Output::Vector(vec![Sample { labels: Labels::default(), value }])
}

fn special(evaluator: &Evaluator<'_>, name: &str, args: &[Node], at: i64) -> Result<Output, QueryError> {
    let scalar = |index: usize| evaluator.scalar(&args[index], at);
    let (start, end, step) = evaluator.bounds;
    Ok(match name {
        "time" => Output::Scalar(seconds(at)),
        "pi" => Output::Scalar(std::f64::consts::PI),
        "start" => Output::Scalar(seconds(start)),
        "end" => Output::Scalar(seconds(end)),
        "range" => Output::Scalar(seconds(end - start)),
        "step" => Output::Scalar(seconds(step)),
        "max_of" => Output::Scalar(go_max(scalar(0)?, scalar(1)?)),
        "min_of" => Output::Scalar(go_min(scalar(0)?, scalar(1)?)),
        "vector" => unlabelled(scalar(0)?),
        "scalar" => Output::Scalar(match evaluator.vector(&args[0], at)?.as_slice() {
            [only] => only.value,
            _ => f64::NAN,
        }),
        "timestamp" => timestamp(evaluator, &args[0], at)?,
        "absent" => {
            let samples = evaluator.vector(&args[0], at)?;
            absent(samples.is_empty(), &args[0])
        }
        "absent_over_time" => {
            let mut is_empty = true;
            evaluator.windows(&args[0], at, &mut |_, _| is_empty = false)?;
            absent(is_empty, &args[0])
        }
        "clamp" => {
            let (low, high) = (scalar(1)?, scalar(2)?);
            if low > high {
                return Ok(Output::Vector(Vec::new()));
            }
            mapped(evaluator, &args[0], at, |value| go_max(low, go_min(high, value)))?
        }
        "clamp_max" => {
            let high = scalar(1)?;
            mapped(evaluator, &args[0], at, |value| go_min(high, value))?
        }
        "clamp_min" => {
            let low = scalar(1)?;
            mapped(evaluator, &args[0], at, |value| go_max(low, value))?
        }
        "round" => {
            // Dividing by the inverse keeps decimal steps such as 0.1 exact.
            let inverse = 1.0 / if args.len() > 1 { scalar(1)? } else { 1.0 };
            mapped(evaluator, &args[0], at, |value| (value * inverse + 0.5).floor() / inverse)?
        }
        "sort" | "sort_desc" => {
            let mut samples = evaluator.vector(&args[0], at)?;
            samples.sort_by(|a, b| match (a.value.is_nan(), b.value.is_nan()) {
                (false, false) if name == "sort" => nan_first(a.value, b.value),
                (false, false) => nan_first(b.value, a.value),
                (a, b) => a.cmp(&b),
            });
            Output::Vector(samples)
        }
        "sort_by_label" | "sort_by_label_desc" => {
            label::sort(evaluator, args, at, name == "sort_by_label_desc")?
        }
        "label_replace" => label::replace(evaluator, args, at)?,
        "label_join" => label::join(evaluator, args, at)?,
        "histogram_quantile" => histogram::quantile(evaluator, args, at)?,
        "histogram_fraction" => histogram::fraction(evaluator, args, at)?,
        "quantile_over_time" => {
            let q = scalar(0)?;
            evaluator.check_quantile(q, "quantile_over_time");
            let mut values = Vec::new();
            Output::Vector(evaluator.over_windows(&args[1], at, false, |window| {
                values.clear();
                values.extend_from_slice(window.values);
                Some(sum::quantile(q, &mut values))
            })?)
        }
        "predict_linear" => {
            let ahead = scalar(1)?;
            Output::Vector(
                evaluator
                    .over_windows(&args[0], at, false, |window| over_time::predict_linear(window, ahead))?,
            )
        }
        "double_exponential_smoothing" => {
            let (smoothing, trend) = (scalar(1)?, scalar(2)?);
            for (what, factor, letter) in [("smoothing", smoothing, "sf"), ("trend", trend, "tf")] {
                if !(factor > 0.0 && factor < 1.0) {
                    return Err(QueryError::execution(format!(
                        "invalid {what} factor. Expected: 0 < {letter} < 1, got: {factor:.6}"
                    )));
                }
            }
            Output::Vector(
                evaluator.over_windows(&args[0], at, false, |window| {
                    over_time::smoothed(window, smoothing, trend)
                })?,
            )
        }
        _ => return Err(QueryError::execution(format!("unknown function \"{name}\""))),
    })
}

/// A sample's own time where the argument is a selector, else the evaluation's.
fn timestamp(evaluator: &Evaluator<'_>, arg: &Node, at: i64) -> Result<Output, QueryError> {
    let mut samples = match strip(arg) {
        Node::Selector(selector) => evaluator
            .newest_with_times(selector, at)
            .into_iter()
            .map(|(time, sample)| Sample { value: seconds(time), ..sample })
            .collect(),
        arg => {
            let mut samples = evaluator.vector(arg, at)?;
            samples.iter_mut().for_each(|sample| sample.value = seconds(at));
            samples
        }
    };
    drop_names(&mut samples)?;
    Ok(Output::Vector(samples))
}

/// `1` with the labels that the selector's `=` matchers tell, where there is nothing.
fn absent(is_empty: bool, arg: &Node) -> Output {
    if !is_empty {
        return Output::Vector(Vec::new());
    }
    let matchers = match strip(arg) {
        Node::Selector(selector) | Node::Range(selector, _) => selector.matchers.as_slice(),
        _ => &[],
    };
    let mut labels = Labels::default().to_builder();
    let mut seen = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
        if matcher.kind == MatchKind::Equal && !seen.contains(&&matcher.name) {
            labels.set(matcher.name.as_str(), matcher.value.as_str());
            seen.push(&matcher.name);
        } else {
            labels.remove(&matcher.name);
        }
    }
    Output::Vector(vec![Sample { labels: labels.build(), value: 1.0 }])
}
