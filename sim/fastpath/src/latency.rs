//! Distributions of latencies: how likely is it that an answer takes longer than a bound.

use serde::{Deserialize, Serialize};

use crate::span::Span;

/// A distribution of latencies: a constant (`20ms`), one by name, or a measured histogram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Latency {
    /// Always the same.
    Constant(Span),
    /// Any duration in a range, all as likely.
    Uniform {
        /// The range.
        uniform: Range,
    },
    /// Log-normal, by its median and 99th percentile: what service times look like.
    Percentiles {
        /// The median.
        p50: Span,
        /// The 99th percentile.
        p99: Span,
    },
    /// Normal, cut off at zero.
    Normal {
        /// Its parameters.
        normal: Normal,
    },
    /// Exponential.
    Exponential {
        /// Its parameter.
        exponential: Exponential,
    },
    /// Counts by upper bound, as measured; evenly spread within a bucket.
    Histogram {
        /// The buckets, their bounds ascending.
        histogram: Vec<Bucket>,
    },
    /// Counts from a file: an HdrHistogram percentile table (`.hdr`, `.hgrm`, milliseconds), or Prometheus' answer to
    /// a query of `..._bucket` series (`.json`).
    File {
        /// Its path, relative to the experiment file.
        file: String,
        /// The unit of the file's bounds: `s` or `ms` (by the metric's name, else `ms`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
    },
}

/// A range of durations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The shortest.
    pub min: Span,
    /// The longest.
    pub max: Span,
}

/// A normal distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normal {
    /// The mean.
    pub mean: Span,
    /// The standard deviation.
    pub deviation: Span,
}

/// An exponential distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exponential {
    /// The mean.
    pub mean: Span,
}

/// Answers up to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// The upper bound.
    pub le: Span,
    /// Answers above the previous bound and up to this one.
    pub count: f64,
}

/// The standard normal distribution's 99th percentile.
const Z99: f64 = 2.326_347_874_040_841;

impl Latency {
    /// The probability that an answer takes `bound` seconds or longer when everything takes `slowdown` times as long.
    pub fn above(&self, bound: f64, slowdown: f64) -> f64 {
        let bound = if slowdown > 0.0 { bound / slowdown } else { f64::INFINITY };
        if bound <= 0.0 {
            return 1.0;
        }
        let normal = |z: f64| 0.5 * libm::erfc(z / std::f64::consts::SQRT_2);
        let share: f64 = match self {
            Latency::Constant(span) => f64::from(u8::from(span.seconds() >= bound)),
            Latency::Uniform { uniform } => {
                let (min, max) = (uniform.min.seconds(), uniform.max.seconds());
                if bound <= min {
                    1.0
                } else if bound >= max {
                    0.0
                } else {
                    (max - bound) / (max - min)
                }
            }
            Latency::Percentiles { p50, p99 } => {
                let spread = (p99.seconds() / p50.seconds()).ln() / Z99;
                let distance = (bound / p50.seconds()).ln();
                if spread > 0.0 { normal(distance / spread) } else { f64::from(u8::from(distance <= 0.0)) }
            }
            Latency::Normal { normal: law } => {
                let (mean, deviation) = (law.mean.seconds(), law.deviation.seconds());
                if deviation > 0.0 {
                    normal((bound - mean) / deviation)
                } else {
                    f64::from(u8::from(mean >= bound))
                }
            }
            Latency::Exponential { exponential } => (-bound / exponential.mean.seconds()).exp(),
            Latency::Histogram { histogram } => {
                let total: f64 = histogram.iter().map(|bucket| bucket.count).sum();
                let mut from = 0.0;
                let mut above = 0.0;
                for bucket in histogram {
                    let to = bucket.le.seconds();
                    let share = if to <= bound {
                        0.0
                    } else if from >= bound {
                        1.0
                    } else {
                        (to - bound) / (to - from)
                    };
                    above += bucket.count * share;
                    from = to;
                }
                above / total
            }
            // Files are read before anything runs.
            Latency::File { .. } => 0.0,
        };
        share.clamp(0.0, 1.0)
    }

    /// The mean in seconds, by its distribution function where there is no formula.
    pub fn mean(&self) -> f64 {
        match self {
            Latency::Constant(span) => span.seconds(),
            Latency::Uniform { uniform } => (uniform.min.seconds() + uniform.max.seconds()) / 2.0,
            Latency::Percentiles { p50, p99 } => {
                let spread = (p99.seconds() / p50.seconds()).ln() / Z99;
                p50.seconds() * (spread * spread / 2.0).exp()
            }
            Latency::Normal { normal } => normal.mean.seconds(),
            Latency::Exponential { exponential } => exponential.mean.seconds(),
            Latency::Histogram { histogram } => {
                let total: f64 = histogram.iter().map(|bucket| bucket.count).sum();
                let mut from = 0.0;
                let mut sum = 0.0;
                for bucket in histogram {
                    sum += bucket.count * (from + bucket.le.seconds()) / 2.0;
                    from = bucket.le.seconds();
                }
                sum / total
            }
            Latency::File { .. } => 0.0,
        }
    }

    /// What is wrong with its figures.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Latency::Percentiles { p50, p99 } if p50.0.is_zero() || p99 < p50 => {
                Err("p50 must be above 0 and p99 not below it".to_owned())
            }
            Latency::Uniform { uniform } if uniform.max < uniform.min => {
                Err("uniform: max must not be below min".to_owned())
            }
            Latency::Exponential { exponential } if exponential.mean.0.is_zero() => {
                Err("exponential: mean must be above 0".to_owned())
            }
            Latency::Histogram { histogram } => {
                let ascends = histogram.windows(2).all(|two| two[0].le < two[1].le);
                let fine = histogram.iter().all(|bucket| bucket.count >= 0.0);
                let total: f64 = histogram.iter().map(|bucket| bucket.count).sum();
                if ascends && fine && total > 0.0 && total.is_finite() {
                    Ok(())
                } else {
                    Err("histogram: bounds must ascend, counts must not be negative and not all 0".to_owned())
                }
            }
            _ => Ok(()),
        }
    }

    /// Replaces a file by what is in it.
    pub(crate) fn load(&mut self, read: &dyn Fn(&str) -> Result<String, String>) -> Result<(), String> {
        let Latency::File { file, unit } = self else { return self.check() };
        let text = read(file)?;
        let histogram = if text.trim_start().starts_with('{') {
            prometheus_buckets(&text, unit.as_deref())
        } else {
            percentile_table(&text, unit.as_deref())
        };
        *self = Latency::Histogram { histogram: histogram.map_err(|error| format!("{file}: {error}"))? };
        self.check()
    }
}

fn seconds(value: f64) -> Result<Span, String> {
    std::time::Duration::try_from_secs_f64(value).map(Span).map_err(|_| format!("{value} is no latency"))
}

fn scale(unit: &str) -> Result<f64, String> {
    match unit {
        "s" => Ok(1.0),
        "ms" => Ok(1e-3),
        "us" => Ok(1e-6),
        "ns" => Ok(1e-9),
        other => Err(format!("unit {other:?}: write s, ms, us or ns")),
    }
}

/// HdrHistogram's percentile table: value, percentile and total count a line.
fn percentile_table(text: &str, unit: Option<&str>) -> Result<Vec<Bucket>, String> {
    let scale = scale(unit.unwrap_or("ms"))?;
    let mut buckets: Vec<Bucket> = Vec::new();
    let mut before = 0.0;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let mut number = || fields.next().and_then(|field| field.parse::<f64>().ok());
        let (Some(value), Some(_), Some(total)) = (number(), number(), number()) else { continue };
        let le = seconds(value * scale)?;
        let count = (total - before).max(0.0);
        match buckets.last_mut() {
            Some(last) if last.le >= le => last.count += count,
            _ => buckets.push(Bucket { le, count }),
        }
        before = total;
    }
    if buckets.is_empty() {
        return Err(
            "no line of value, percentile and count: expected HdrHistogram's percentile table".to_owned()
        );
    }
    Ok(buckets)
}

/// Prometheus' answer to an instant or range query of bucket series: the last value of each bound, or over a range
/// the last less the first.
fn prometheus_buckets(text: &str, unit: Option<&str>) -> Result<Vec<Bucket>, String> {
    let answer: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let results =
        answer["data"]["result"].as_array().ok_or("no data.result: expected a query's JSON answer")?;
    let mut unit = unit.map(str::to_owned);
    let mut cumulative: Vec<(f64, f64)> = Vec::new();
    for result in results {
        let name = result["metric"]["__name__"].as_str().unwrap_or_default();
        if unit.is_none() && name.contains("_seconds") {
            unit = Some("s".to_owned());
        }
        let Some(le) = result["metric"]["le"].as_str() else { continue };
        let le = promql::parse_float(le).ok_or_else(|| format!("le {le:?} is no number"))?;
        let number =
            |sample: &serde_json::Value| sample[1].as_str().and_then(|text| text.parse::<f64>().ok());
        let value = match result["values"].as_array() {
            Some(values) => {
                let first = values.first().and_then(number).unwrap_or(0.0);
                values.last().and_then(number).unwrap_or(0.0) - first
            }
            None => number(&result["value"]).unwrap_or(0.0),
        };
        match cumulative.iter_mut().find(|(bound, _)| *bound == le) {
            Some((_, sum)) => *sum += value,
            None => cumulative.push((le, value)),
        }
    }
    cumulative.sort_by(|a, b| a.0.total_cmp(&b.0));
    let scale = scale(unit.as_deref().unwrap_or("ms"))?;
    let (mut buckets, mut before): (Vec<Bucket>, f64) = (Vec::new(), 0.0);
    for (bound, total) in cumulative {
        let count = (total - before).max(0.0);
        before = before.max(total);
        if bound.is_finite() {
            buckets.push(Bucket { le: seconds(bound * scale)?, count });
        } else if let Some(last) = buckets.last() {
            // Nobody knows how long these took; twice the last bound keeps them above it.
            let le = seconds(last.le.seconds() * 2.0)?;
            buckets.push(Bucket { le, count });
        }
    }
    if buckets.is_empty() {
        return Err("no series with the label le: query a metric that ends in _bucket".to_owned());
    }
    Ok(buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, bound: f64, share: f64) {
        let latency: Latency = serde_saphyr::from_str(yaml).unwrap();
        latency.check().unwrap();
        assert!((latency.above(bound, 1.0) - share).abs() < 1e-6, "{yaml} {}", latency.above(bound, 1.0));
        assert!((latency.above(bound * 3.0, 3.0) - share).abs() < 1e-6, "{yaml} slowed down");
    }

    #[test]
    fn shares_above_a_bound() {
        check("20ms", 0.02, 1.0);
        check("20ms", 0.021, 0.0);
        check("{p50: 20ms, p99: 200ms}", 0.2, 0.01);
        check("{p50: 20ms, p99: 200ms}", 0.02, 0.5);
        check("{uniform: {min: 0s, max: 1s}}", 0.75, 0.25);
        check("{exponential: {mean: 1s}}", 1.0, (-1.0f64).exp());
        check("{normal: {mean: 1s, deviation: 100ms}}", 1.0, 0.5);
        check("{histogram: [{le: 100ms, count: 90}, {le: 200ms, count: 10}]}", 0.15, 0.05);
    }

    #[test]
    fn measured_files() {
        let table = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n 10.0 0.5 50 2.0\n 40.0 1.0 100 inf\n#[Mean = 1]\n";
        let buckets = percentile_table(table, None).unwrap();
        assert_eq!(buckets[1], Bucket { le: Span::from_millis(40), count: 50.0 });
        let answer = r#"{"data":{"result":[
            {"metric":{"__name__":"istio_request_duration_milliseconds_bucket","le":"50"},"value":[0,"90"]},
            {"metric":{"le":"100"},"value":[0,"99"]},{"metric":{"le":"+Inf"},"value":[0,"100"]}]}}"#;
        let buckets = prometheus_buckets(answer, None).unwrap();
        assert_eq!(buckets.iter().map(|b| b.count).collect::<Vec<_>>(), [90.0, 9.0, 1.0]);
        assert!(percentile_table("hello", None).unwrap_err().contains("HdrHistogram"));
    }
}
