//! What-if results as a table for notebooks: a row for each policy, service model and version.

use ::whatif::results::Results;
use ::whatif::statistics::Estimate;

/// A table by its columns, all of the same length.
pub(super) struct Table {
    pub columns: Vec<(String, Cells)>,
}

/// A column's cells.
pub(super) enum Cells {
    Text(Vec<String>),
    Flag(Vec<bool>),
    Count(Vec<u64>),
    /// A number that may be missing.
    Number(Vec<Option<f64>>),
}

/// Figures with their intervals, in the order of their columns.
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

impl Table {
    /// The table of results. Times are in seconds, shares between 0 and 1; `_low` and `_high` are the ends of 95 %
    /// confidence intervals; a figure that does not exist is missing.
    pub(super) fn of(results: &Results) -> Table {
        let rows: Vec<_> = results
            .policies
            .iter()
            .enumerate()
            .flat_map(|(place, policy)| policy.models.iter().map(move |model| (place, policy, model)))
            .flat_map(|(place, policy, model)| {
                model.versions.iter().map(move |version| (place, policy, model, version))
            })
            .collect();
        let mut columns = vec![
            ("policy".to_owned(), Cells::Text(rows.iter().map(|row| row.1.title()).collect())),
            ("on_front".to_owned(), Cells::Flag(rows.iter().map(|row| row.1.on_front).collect())),
            ("best".to_owned(), Cells::Flag(rows.iter().map(|row| results.best == Some(row.0)).collect())),
            ("model".to_owned(), Cells::Text(rows.iter().map(|row| row.2.name.clone()).collect())),
            ("version".to_owned(), Cells::Text(rows.iter().map(|row| row.3.name.clone()).collect())),
            ("bad".to_owned(), Cells::Flag(rows.iter().map(|row| row.3.bad).collect())),
            ("share".to_owned(), Cells::Number(rows.iter().map(|row| Some(row.3.share)).collect())),
            ("rollouts".to_owned(), Cells::Count(rows.iter().map(|row| row.3.tally.rollouts).collect())),
        ];
        let mut fields: Vec<&String> =
            results.policies.iter().flat_map(|policy| policy.changes.keys()).collect();
        fields.sort();
        fields.dedup();
        for field in fields {
            let text = |value: &serde_json::Value| match value.as_str() {
                Some(text) => text.to_owned(),
                None => value.to_string(),
            };
            let cells = rows.iter().map(|row| row.1.changes.get(field).map(text).unwrap_or_default());
            columns.push((field.clone(), Cells::Text(cells.collect())));
        }
        for (index, figure) in FIGURES.iter().enumerate() {
            let estimates: Vec<Option<Estimate>> = rows
                .iter()
                .map(|(_, _, _, version)| {
                    [
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
                    ][index]
                })
                .collect();
            let mut column = |name: String, part: fn(&Estimate) -> f64| {
                let cells = estimates.iter().map(|estimate| estimate.as_ref().map(part)).collect();
                columns.push((name, Cells::Number(cells)));
            };
            column((*figure).to_owned(), |estimate| estimate.value);
            column(format!("{figure}_low"), |estimate| estimate.low);
            column(format!("{figure}_high"), |estimate| estimate.high);
        }
        Table { columns }
    }

    /// How many rows it has.
    pub(super) fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, cells)| cells.len())
    }
}

impl Cells {
    fn len(&self) -> usize {
        match self {
            Cells::Text(cells) => cells.len(),
            Cells::Flag(cells) => cells.len(),
            Cells::Count(cells) => cells.len(),
            Cells::Number(cells) => cells.len(),
        }
    }

    fn as_text(&self, row: usize) -> String {
        match self {
            Cells::Text(cells) => quoted(&cells[row]),
            Cells::Flag(cells) => cells[row].to_string(),
            Cells::Count(cells) => cells[row].to_string(),
            Cells::Number(cells) => cells[row].map_or(String::new(), |number| number.to_string()),
        }
    }
}

/// The results as comma-separated values, with a header: a row for each policy, service model and version.
pub fn csv(results: &Results) -> String {
    let table = Table::of(results);
    let names: Vec<String> = table.columns.iter().map(|(name, _)| quoted(name)).collect();
    let mut text = names.join(",") + "\n";
    for row in 0..table.rows() {
        let cells: Vec<String> = table.columns.iter().map(|(_, cells)| cells.as_text(row)).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
