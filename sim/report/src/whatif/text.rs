//! What-if results on a terminal.

use std::fmt::Write as _;

use ::whatif::results::{Curve, ModelResult, PolicyResult, Results, VersionResult};
use ::whatif::rollout::{End, Line, Outcome};
use ::whatif::tick::Reason;

use super::{count, number, percent, seconds, share, time};

/// The most policies that a table shows.
const ROWS: usize = 25;
/// The width of a bar of 100 %.
const BAR: usize = 32;

/// The whole answer.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    write(&mut text, results).expect("a String takes everything");
    text
}

fn write(out: &mut String, results: &Results) -> std::fmt::Result {
    let single = results.policies.len() == 1;
    let what = if single {
        "one policy".to_owned()
    } else {
        format!("{} policies", number(results.policies.len() as f64))
    };
    writeln!(out, "What does this release policy do? {} ({what}, seed {})", results.name, results.seed)?;
    writeln!(
        out,
        "{} simulated rollouts in {:.1}s ({} per second, {} engine)\n",
        number(results.rollouts_run as f64),
        results.seconds,
        number(results.rollouts_per_second),
        results.engine
    )?;
    if single {
        for model in &results.policies[0].models {
            one(out, results, model)?;
        }
    } else {
        table(out, results)?;
    }
    if !results.assumptions.is_empty() {
        writeln!(out, "Assumed")?;
        for assumption in &results.assumptions {
            writeln!(out, "  - {assumption}")?;
        }
    }
    Ok(())
}

fn one(out: &mut String, results: &Results, model: &ModelResult) -> std::fmt::Result {
    if results.policies[0].models.len() > 1 {
        writeln!(out, "Service model {}\n", model.name)?;
    }
    for version in &model.versions {
        verdict(out, version)?;
    }
    for version in model.versions.iter().filter(|version| !version.first_failures.is_empty()) {
        writeln!(out, "Which check fails first ({} version, of all its rollouts)", version.name)?;
        for (check, part) in version.first_failures.iter().take(6) {
            let part = part.map_or(0.0, |part| part.value);
            writeln!(out, "  {check:<44} {} {}", bar(part), percent(part))?;
        }
        writeln!(out)?;
    }
    for curve in &model.curves {
        curve_table(out, curve)?;
    }
    Ok(())
}

fn verdict(out: &mut String, version: &VersionResult) -> std::fmt::Result {
    let kind = if version.bad { "bad" } else { "good" };
    let name = if version.name == kind {
        format!("A {kind} version")
    } else {
        format!("{} (a {kind} version)", version.name)
    };
    writeln!(out, "{name}")?;
    let mark = if version.bad { ("   <- missed", "") } else { ("", "   <- false alarms") };
    let promoted = version.promoted.map_or(0.0, |e| e.value);
    let rolled_back = version.rolled_back.map_or(0.0, |e| e.value);
    let flag = |share: f64, mark: &'static str| if share > 0.0 { mark } else { "" };
    writeln!(out, "  promoted      {}{}", share(version.promoted), flag(promoted, mark.0))?;
    if version.promotion_seconds.p50.is_some() {
        let spread = &version.promotion_seconds;
        writeln!(
            out,
            "                after {} (10% by {}, 90% by {})",
            time(spread.p50),
            time(spread.p10),
            time(spread.p90)
        )?;
    }
    writeln!(out, "  rolled back   {}{}", share(version.rolled_back), flag(rolled_back, mark.1))?;
    if version.detection_seconds.p50.is_some() {
        let spread = &version.detection_seconds;
        writeln!(
            out,
            "                after {} (10% by {}, 90% by {})",
            time(spread.p50),
            time(spread.p10),
            time(spread.p90)
        )?;
    }
    for (part, why) in [
        (
            version.rolled_back_without_values,
            "of them for lack of metric values, not because of what they showed",
        ),
        (version.rolled_back_by_deadline, "because it was not ready within progressDeadlineSeconds"),
    ] {
        if part.is_some_and(|part| part.value > 0.0) {
            writeln!(out, "                {} {why}", share(part))?;
        }
    }
    if version.endless.is_some_and(|part| part.value > 0.0) {
        writeln!(out, "  never ends    {}", share(version.endless))?;
    }
    writeln!(
        out,
        "  users         {} requests answered by it on average, {} of them failed (in the worst 1%: {})",
        count(version.user_requests.mean),
        count(version.user_errors.mean),
        count(version.user_errors.p99)
    )?;
    writeln!(out)
}

fn curve_table(out: &mut String, curve: &Curve) -> std::fmt::Result {
    let (title, size): (&str, fn(f64) -> String) = match curve.defect.as_str() {
        "errors" => ("How many failed requests does it take to be rolled back?", |size| {
            format!("fails {}", percent(size))
        }),
        _ => ("How much slower must it be?", |size| format!("takes {} times as long", number(size))),
    };
    writeln!(out, "{title}")?;
    for point in &curve.points {
        let caught = point.caught.map_or(0.0, |caught| caught.value);
        let after =
            point.detection.map_or(String::new(), |after| format!(", after {}", seconds(after.value)));
        let errors = point.user_errors.map_or(0.0, |errors| errors.value);
        writeln!(
            out,
            "  {:<24} {} {:>6} caught{after}; users see {} failures",
            size(point.size),
            bar(caught),
            percent(caught),
            number(errors)
        )?;
    }
    writeln!(out)
}

fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let parts = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(parts[eighths % 8 - 1]);
    }
    let missing = BAR - bar.chars().count();
    bar + &" ".repeat(missing)
}

fn table(out: &mut String, results: &Results) -> std::fmt::Result {
    for (index, model) in results.policies[0].models.iter().enumerate() {
        if results.policies[0].models.len() > 1 {
            writeln!(out, "Service model {}", model.name)?;
        }
        let rows = rows(results, index);
        let width = rows.iter().map(|(_, policy)| policy.title().chars().count()).max().unwrap_or(0).max(6);
        writeln!(
            out,
            "    {:<width$}  {:>12}  {:>8}  {:>9}  {:>9}  {:>11}",
            "policy", "false alarms", "misses", "detection", "release", "user errors"
        )?;
        for (place, policy) in &rows {
            let model = &policy.models[index];
            let mark = match (results.best == Some(*place), policy.on_front) {
                (true, _) => "=>",
                (false, true) => " *",
                (false, false) => "  ",
            };
            let part = |estimate: Option<::whatif::statistics::Estimate>| {
                estimate.map_or("-".to_owned(), |e| percent(e.value))
            };
            writeln!(
                out,
                " {mark} {:<width$}  {:>12}  {:>8}  {:>9}  {:>9}  {:>11}",
                policy.title(),
                part(model.false_alarms),
                part(model.misses),
                time(model.detection),
                time(model.release),
                count(model.user_errors)
            )?;
        }
        let hidden = results.policies.len() - rows.len();
        if hidden > 0 {
            writeln!(out, "    and {} more (all with --format csv or json)", number(hidden as f64))?;
        }
        writeln!(out)?;
    }
    writeln!(out, " * no other policy is better in one figure without being worse in another")?;
    match (&results.goal, results.best) {
        (Some(goal), Some(best)) => {
            writeln!(out, "=> best for \"{goal}\": {}", results.policies[best].title())?;
        }
        (Some(goal), None) => {
            writeln!(
                out,
                "no policy is sure to meet \"{goal}\": loosen a limit, vary more fields, or run more --rollouts"
            )?;
        }
        (None, _) => {}
    }
    writeln!(out)
}

/// The policies that a table shows: the best, as shipped, the front, then the others, by misses and errors.
fn rows(results: &Results, model: usize) -> Vec<(usize, &PolicyResult)> {
    let mut rows: Vec<(usize, &PolicyResult)> = results.policies.iter().enumerate().collect();
    let key = |place: usize, policy: &PolicyResult| {
        let value =
            |estimate: Option<::whatif::statistics::Estimate>| estimate.map_or(f64::INFINITY, |e| e.value);
        let figures = &policy.models[model];
        let rank = match (results.best == Some(place), policy.changes.is_empty(), policy.on_front) {
            (true, ..) => 0,
            (_, true, _) => 1,
            (.., true) => 2,
            _ => 3,
        };
        (rank, value(figures.misses), value(figures.user_errors))
    };
    rows.sort_by(|a, b| {
        let (a, b) = (key(a.0, a.1), key(b.0, b.1));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2))
    });
    rows.truncate(ROWS);
    rows
}

/// One rollout, message by message.
pub fn timeline(title: &str, outcome: &Outcome, lines: &[Line]) -> String {
    let mut text = format!("{title}\n\n");
    for line in lines {
        let at = seconds(line.at as f64 / 1000.0);
        let mark = if line.is_warning { '!' } else { ' ' };
        let _ = writeln!(
            text,
            "{at:>9} {mark} weight {:>3}  failed {:>2}  {}",
            line.weight, line.failed_checks, line.message
        );
    }
    let end = match outcome.end {
        End::Promoted => "promoted",
        End::RolledBack(Reason::Threshold) => "rolled back: too many failed checks",
        End::RolledBack(Reason::Deadline) => "rolled back: not ready in time",
        End::RolledBack(Reason::Other) => "rolled back",
        End::Endless => "goes on for ever",
    };
    let _ = writeln!(
        text,
        "\n{end} after {}; it answered {} requests of users, {} of them failed",
        seconds(outcome.time as f64 / 1000.0),
        number(outcome.user_requests as f64),
        number(outcome.user_errors as f64)
    );
    text
}
