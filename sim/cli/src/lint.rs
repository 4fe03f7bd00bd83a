//! `coalmine lint`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use ::lint::{Facts, Finding, Level, RULES};
use ::whatif::manifest;
use ::whatif::model::Telemetry;
use ::whatif::source::Disk;
use clap::{Args, ValueEnum};

use crate::output;

/// The exit code when something is found.
const FOUND: u8 = 1;
/// The exit code of unusable input.
const UNUSABLE: u8 = 2;

/// What is looked at, and how.
#[derive(Debug, Args)]
pub struct LintArguments {
    /// Manifests, Prometheus configurations, or folders of them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to print the findings.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Users' requests per second.
    #[arg(long, value_name = "RATE", default_value_t = 20.0)]
    rate: f64,
    /// Flagger's version (as its Deployment among the files says, else the newest).
    #[arg(long, value_name = "VERSION")]
    dialect: Option<String>,
    /// The unit of the mesh's request duration histogram, if it is known.
    #[arg(long, value_enum, value_name = "UNIT")]
    telemetry: Option<Unit>,
    /// Leave a rule out.
    #[arg(long, value_name = "CODE")]
    allow: Vec<String>,
    /// The least level that makes the exit code 1.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    deny: Deny,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A paragraph for each finding.
    #[default]
    Text,
    /// All findings as one JSON document.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Unit {
    Seconds,
    Milliseconds,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Deny {
    Error,
    #[default]
    Warning,
    Note,
}

/// Runs the command.
pub fn run(arguments: &LintArguments) -> ExitCode {
    match look(arguments) {
        Ok(findings) => {
            let least = match arguments.deny {
                Deny::Error => Level::Error,
                Deny::Warning => Level::Warning,
                Deny::Note => Level::Note,
            };
            let denied = findings.iter().any(|finding| finding.level >= least);
            if denied { ExitCode::from(FOUND) } else { ExitCode::SUCCESS }
        }
        Err(problem) => {
            output::problem(&problem);
            ExitCode::from(UNUSABLE)
        }
    }
}

fn look(arguments: &LintArguments) -> Result<Vec<Finding>, String> {
    for code in &arguments.allow {
        if !RULES.iter().any(|rule| rule.code == code) {
            return Err(format!("--allow {code}: no such rule (CM001 to {})", RULES[RULES.len() - 1].code));
        }
    }
    if !(arguments.rate >= 0.0 && arguments.rate.is_finite()) {
        return Err(format!("--rate {}: write a number that is not negative", arguments.rate));
    }
    let documents = manifest::read(&Disk, &arguments.files)?;
    if !documents.iter().any(|document| document.kind() == "Canary") {
        let files: Vec<String> = arguments.files.iter().map(|file| file.display().to_string()).collect();
        return Err(format!("no Canary in {}: nothing to look at", files.join(", ")));
    }
    let facts = Facts {
        rate: arguments.rate,
        dialect: arguments.dialect.clone(),
        telemetry: arguments.telemetry.map(|unit| match unit {
            Unit::Seconds => Telemetry::Seconds,
            Unit::Milliseconds => Telemetry::Milliseconds,
        }),
        ..Facts::default()
    };
    let mut findings = ::lint::check(&documents, &facts)?;
    findings.retain(|finding| !arguments.allow.iter().any(|code| code == finding.code));
    match arguments.format {
        Format::Json => {
            let report = serde_json::json!({ "findings": &findings });
            output::line(&report.to_string());
        }
        Format::Text => text(&findings),
    }
    Ok(findings)
}

fn text(findings: &[Finding]) {
    for finding in findings {
        let title = RULES.iter().find(|rule| rule.code == finding.code).map_or("", |rule| rule.title);
        output::line(&format!("{} {}: {title}", finding.level.name(), finding.code));
        output::line(&format!("  {}:{}: {}: {}", finding.file, finding.line, finding.object, finding.field));
        output::line(&format!("  why:  {}", finding.why));
        output::line(&format!("  fix:  {}", finding.fix));
        output::line(&format!("  see:  coalmine run {}", finding.scenario));
        output::line("");
    }
    let mut counts: BTreeMap<Level, usize> = BTreeMap::new();
    for finding in findings {
        *counts.entry(finding.level).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.iter().rev().map(|(level, count)| format!("{count} {}", level.name())).collect();
    output::line(&if counts.is_empty() {
        "nothing found".to_owned()
    } else {
        format!("found: {}", counts.join(", "))
    });
}
