//! What-if results as a table for notebooks: a row for each policy, service model and version.

use std::fmt::Write as _;

use ::whatif::results::Results;
use ::whatif::statistics::Estimate;

/// The table, with a header. Times are in seconds, shares between 0 and 1; `_low` and `_high` are the ends of 95 %
/// confidence intervals; a figure that does not exist is empty.
pub fn csv(results: &Results) -> String {
    let mut fields: Vec<&String> = results.policies.iter().flat_map(|policy| policy.changes.keys()).collect();
    fields.sort();
    fields.dedup();
    let mut text = String::from("policy,on_front,best,model,version,bad,share,rollouts");
    for field in &fields {
        let _ = write!(text, ",{}", quoted(field));
    }
    for figure in FIGURES {
        let _ = write!(text, ",{figure},{figure}_low,{figure}_high");
    }
    text.push('\n');
    for (place, policy) in results.policies.iter().enumerate() {
        for model in &policy.models {
            for version in &model.versions {
                let best = results.best == Some(place);
                let _ = write!(
                    text,
                    "{},{},{best},{},{},{},{},{}",
                    quoted(&policy.title()),
                    policy.on_front,
                    quoted(&model.name),
                    quoted(&version.name),
                    version.bad,
                    version.share,
                    version.tally.rollouts
                );
                for field in &fields {
                    let value = policy.changes.get(*field);
                    let value = value
                        .map_or(String::new(), |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
                    let _ = write!(text, ",{}", quoted(&value));
                }
                let figures: [Option<Estimate>; 13] = [
                    version.promoted,
                    version.rolled_back,
                    version.rolled_back_without_values,
                    version.rolled_back_by_deadline,
                    version.endless,
                    version.detection_seconds.p50,
                    version.detection_seconds.p90,
                    version.promotion_seconds.p50,
                    version.promotion_seconds.p90,
                    version.user_requests.mean,
                    version.user_errors.mean,
                    version.user_errors.p50,
                    version.user_errors.p99,
                ];
                for figure in figures {
                    match figure {
                        Some(e) => drop(write!(text, ",{},{},{}", e.value, e.low, e.high)),
                        None => text.push_str(",,,"),
                    }
                }
                text.push('\n');
            }
        }
    }
    text
}

const FIGURES: [&str; 13] = [
    "promoted",
    "rolled_back",
    "rolled_back_without_values",
    "rolled_back_by_deadline",
    "endless",
    "detection_p50",
    "detection_p90",
    "promotion_p50",
    "promotion_p90",
    "user_requests_mean",
    "user_errors_mean",
    "user_errors_p50",
    "user_errors_p99",
];

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
