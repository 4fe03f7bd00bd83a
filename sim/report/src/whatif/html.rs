//! What-if results as one self-contained HTML file.

use std::fmt::Write as _;

use ::whatif::results::{Curve, ModelResult, Results, VersionResult};
use ::whatif::rollout::{Line, Outcome};
use ::whatif::tally::Sketch;

use super::chart::{Axis, Chart, escape};
use super::{count, number, percent, seconds, share, text, time};

/// One rollout to show.
pub struct Example {
    /// What it is an example of.
    pub title: String,
    /// The command that shows it again.
    pub command: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What the controller said.
    pub lines: Vec<Line>,
}

const STYLE: &str = "
:root{--ink:#1d2330;--soft:#667085;--line:#e4e7ec;--good:#12805c;--bad:#c4320a;--accent:#3056d3;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e7e9ee;--soft:#98a2b3;--line:#344054;--good:#3ccb93;--bad:#ff8a5c;--accent:#8aa4ff;--paper:#12161f}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left}tr.best td{font-weight:600}tr.front td:first-child::before{content:'\u{2605} ';color:var(--accent)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1.5rem}figure{margin:0}figcaption{font-weight:600}
svg{width:100%;max-width:44rem;height:auto}svg text{fill:var(--soft);font-size:11px}.grid{stroke:var(--line)}
path{fill:none;stroke-width:2}.good{stroke:var(--good)}.bad{stroke:var(--bad)}.accent{stroke:var(--accent)}
polygon.band{fill:var(--accent);opacity:.18}circle{fill:var(--soft);opacity:.55}circle.front{fill:var(--accent);opacity:1}circle.shipped{fill:var(--bad);opacity:1}
pre{background:color-mix(in srgb,var(--line) 40%,transparent);padding:.8rem;overflow:auto;font-size:13px}details{margin:.5rem 0}
";

/// The page.
pub fn html(results: &Results, examples: &[Example], diff: Option<&str>) -> String {
    let mut page = String::new();
    write(&mut page, results, examples, diff).expect("a String takes everything");
    page
}

fn write(page: &mut String, results: &Results, examples: &[Example], diff: Option<&str>) -> std::fmt::Result {
    let name = escape(&results.name);
    writeln!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name}: release policy what-if</title><style>{STYLE}</style></head><body>"
    )?;
    writeln!(page, "<h1>What does this release policy do? {name}</h1>")?;
    writeln!(
        page,
        "<p class=\"soft\">{} simulated rollouts, seed {}, {} engine. Intervals hold with 95 % confidence.</p>",
        number(results.rollouts_run as f64),
        results.seed,
        results.engine
    )?;
    let shipped = results.policies.iter().find(|policy| policy.changes.is_empty());
    let shown = results.best.map(|best| &results.policies[best]).or(shipped).or(results.policies.first());
    if results.policies.len() > 1 {
        policies(page, results)?;
    }
    if let Some(diff) = diff {
        writeln!(page, "<h2>The chosen policy</h2><pre>{}</pre>", escape(diff))?;
    }
    if let Some(policy) = shown {
        for model in &policy.models {
            writeln!(page, "<h2>{}, service model {}</h2>", escape(&policy.title()), escape(&model.name))?;
            figures(page, model)?;
        }
    }
    if !examples.is_empty() {
        writeln!(page, "<h2>Single rollouts</h2>")?;
        for example in examples {
            timeline(page, example)?;
        }
    }
    writeln!(page, "<h2>Assumed</h2><ul>")?;
    for assumption in &results.assumptions {
        writeln!(page, "<li>{}</li>", escape(assumption))?;
    }
    writeln!(page, "</ul><h2>The command</h2><pre>{}</pre></body></html>", escape(&results.command))
}

fn policies(page: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(page, "<h2>{} policies</h2><div class=\"charts\">", results.policies.len())?;
    let value = |estimate: Option<::whatif::statistics::Estimate>| estimate.map(|e| e.value);
    let points: Vec<(f64, f64, &::whatif::results::PolicyResult)> = results
        .policies
        .iter()
        .filter_map(|policy| {
            let model = policy.models.first()?;
            Some((value(model.release)?, value(model.user_errors)?, policy))
        })
        .collect();
    let most = |of: &dyn Fn(&(f64, f64, &::whatif::results::PolicyResult)) -> f64| {
        points.iter().map(of).fold(1.0, f64::max)
    };
    let (longest, worst) = (most(&|point| point.0), most(&|point| point.1));
    let mut chart = Chart::new(
        Axis {
            title: "release duration of a good version",
            low: 0.0,
            high: longest * 1.05,
            is_log: false,
            label: &seconds,
        },
        Axis {
            title: "failed requests of users, bad version",
            low: 0.0,
            high: worst * 1.05,
            is_log: false,
            label: &number,
        },
    );
    for (release, errors, policy) in &points {
        let class = if policy.changes.is_empty() {
            "shipped"
        } else if policy.on_front {
            "front"
        } else {
            "other"
        };
        chart.dot(class, *release, *errors, &policy.title());
    }
    writeln!(
        page,
        "<figure><figcaption>Failed requests of users, by how long a release takes (blue: the Pareto front, red: as shipped)</figcaption>{}</figure></div>",
        chart.finish()
    )?;
    writeln!(
        page,
        "<table><tr><th>policy (\u{2605} on the front)</th><th>false alarms</th><th>misses</th><th>detection</th><th>release</th><th>user errors</th></tr>"
    )?;
    for (place, policy) in results.policies.iter().enumerate() {
        let is_best = results.best == Some(place);
        if !(is_best || policy.on_front || policy.changes.is_empty()) && results.policies.len() > 200 {
            continue;
        }
        for model in &policy.models {
            let class = if is_best {
                "best"
            } else if policy.on_front {
                "front"
            } else {
                ""
            };
            writeln!(
                page,
                "<tr class=\"{class}\"><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&policy.title()),
                if is_best { " (best)" } else { "" },
                share(model.false_alarms),
                share(model.misses),
                time(model.detection),
                time(model.release),
                count(model.user_errors)
            )?;
        }
    }
    writeln!(page, "</table>")
}

fn figures(page: &mut String, model: &ModelResult) -> std::fmt::Result {
    writeln!(
        page,
        "<table><tr><th>version</th><th>promoted</th><th>rolled back</th><th>no values</th><th>deadline</th><th>detected after</th><th>promoted after</th><th>user requests</th><th>user errors</th></tr>"
    )?;
    for version in &model.versions {
        writeln!(
            page,
            "<tr><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&version.name),
            if version.bad { " (bad)" } else { "" },
            share(version.promoted),
            share(version.rolled_back),
            share(version.rolled_back_without_values),
            share(version.rolled_back_by_deadline),
            time(version.detection_seconds.p50),
            time(version.promotion_seconds.p50),
            count(version.user_requests.mean),
            count(version.user_errors.mean)
        )?;
    }
    writeln!(page, "</table><div class=\"charts\">")?;
    for curve in &model.curves {
        detection(page, curve)?;
    }
    let ends: Vec<(&str, &str, &Sketch)> = model
        .versions
        .iter()
        .flat_map(|version| {
            [("bad", "rolled back", &version.tally.detection), ("good", "promoted", &version.tally.promotion)]
        })
        .filter(|(_, _, sketch)| sketch.count() > 0)
        .collect();
    distribution(
        page,
        "When does it end? Share of rollouts rolled back (red), promoted (green), by time",
        &ends,
        1e-3,
        &seconds,
    )?;
    let errors: Vec<(&str, &str, &Sketch)> = model
        .versions
        .iter()
        .map(|version: &VersionResult| {
            (if version.bad { "bad" } else { "good" }, version.name.as_str(), &version.tally.errors)
        })
        .collect();
    distribution(
        page,
        "Blast radius: share of rollouts by failed requests of users (red: bad versions)",
        &errors,
        1.0,
        &number,
    )?;
    writeln!(page, "</div>")
}

fn detection(page: &mut String, curve: &Curve) -> std::fmt::Result {
    let (title, label): (&str, &dyn Fn(f64) -> String) = match curve.defect.as_str() {
        "errors" => ("share of requests that fail", &percent),
        _ => ("factor on the latency", &number),
    };
    let (Some(first), Some(last)) = (curve.points.first(), curve.points.last()) else { return Ok(()) };
    let mut chart = Chart::new(
        Axis { title, low: first.size, high: last.size, is_log: true, label },
        Axis { title: "share rolled back", low: 0.0, high: 1.0, is_log: false, label: &percent },
    );
    let caught = || curve.points.iter().filter_map(|point| Some((point.size, point.caught?)));
    chart.band("band", &caught().map(|(x, e)| (x, e.low, e.high)).collect::<Vec<_>>());
    chart.line("accent", &caught().map(|(x, e)| (x, e.value)).collect::<Vec<_>>(), false);
    for (x, e) in caught() {
        chart.dot("front", x, e.value, &format!("{} caught", share(Some(e))));
    }
    writeln!(page, "<figure><figcaption>Rolled back, by {title}</figcaption>{}</figure>", chart.finish())
}

fn distribution(
    page: &mut String,
    caption: &str,
    sketches: &[(&str, &str, &Sketch)],
    factor: f64,
    label: &dyn Fn(f64) -> String,
) -> std::fmt::Result {
    let most =
        sketches.iter().filter_map(|(_, _, sketch)| sketch.bars().last().map(|bar| bar.0 as f64 * factor));
    let most = most.fold(1.0, f64::max);
    let mut chart = Chart::new(
        Axis { title: "", low: 0.0, high: most, is_log: false, label },
        Axis { title: "share of rollouts", low: 0.0, high: 1.0, is_log: false, label: &percent },
    );
    for (class, _, sketch) in sketches {
        let (all, mut sum, mut points) = (sketch.count() as f64, 0u64, vec![(0.0, 0.0)]);
        let bars = sketch.bars();
        // A few hundred points draw the same line as a hundred thousand.
        let every = (bars.len() / 300).max(1);
        for (index, (value, count)) in bars.iter().enumerate() {
            sum += count;
            if index % every == 0 || index + 1 == bars.len() {
                points.push((*value as f64 * factor, sum as f64 / all));
            }
        }
        points.push((most, 1.0));
        chart.line(class, &points, true);
    }
    writeln!(page, "<figure><figcaption>{}</figcaption>{}</figure>", escape(caption), chart.finish())
}

fn timeline(page: &mut String, example: &Example) -> std::fmt::Result {
    let last = example.outcome.time.max(1) as f64 / 1000.0;
    let weights: Vec<(f64, f64)> =
        example.lines.iter().map(|line| (line.at as f64 / 1000.0, f64::from(line.weight))).collect();
    let mut chart = Chart::new(
        Axis { title: "time since the release", low: 0.0, high: last, is_log: false, label: &seconds },
        Axis { title: "canary weight", low: 0.0, high: 100.0, is_log: false, label: &number },
    );
    chart.line("accent", &weights, true);
    for line in example.lines.iter().filter(|line| line.is_warning) {
        chart.dot("shipped", line.at as f64 / 1000.0, f64::from(line.weight), &line.message);
    }
    writeln!(
        page,
        "<details><summary>{}</summary><p class=\"soft\"><code>{}</code></p><figure>{}</figure><pre>{}</pre></details>",
        escape(&example.title),
        escape(&example.command),
        chart.finish(),
        escape(&text::timeline(&example.title, &example.outcome, &example.lines))
    )
}
