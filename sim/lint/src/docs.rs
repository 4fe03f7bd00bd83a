//! The reference of all rules, as it stands in `docs/lint.md`.

use std::fmt::Write as _;

use crate::rules::RULES;

/// The text of `docs/lint.md`.
pub fn reference() -> String {
    let mut text = String::from(
        "# Lint\n\n\
         `coalmine lint FILES` finds what makes a release policy lie, in the manifests and the Prometheus configuration\n\
         that it is given, with no simulation. Folders are read with all YAML files below them.\n\n\
         ```\n\
         coalmine lint canary.yaml deployment.yaml hpa.yaml prometheus.yml\n\
         coalmine lint --rate 2 --format json manifests/\n\
         ```\n\n\
         Each finding has a code, the object and field, why it bites with the numbers of this policy, and the fix. The\n\
         numbers take the traffic from the load tests and from `--rate` (20 requests of users per second).\n\n\
         Exit code: 0 if there is nothing above a note, 1 if there is a warning or an error (`--deny error` or\n\
         `--deny note` moves the line), 2 if the input is unusable. `--allow CM004` leaves a rule out.\n\n\
         This file is made from the rules themselves; a test keeps it so.\n",
    );
    for rule in &RULES {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = write!(
            text,
            "\n## {}: {}\n\n{}\n\nFix: {}\n\nShown by `scenarios/lint/{}.yaml`.\n",
            rule.code,
            rule.title,
            wrapped(&words(rule.why)),
            wrapped(&words(rule.fix)),
            rule.slug
        );
    }
    text
}

/// A paragraph in lines of at most 115 characters.
fn wrapped(text: &str) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.len() + 1 + word.len() > 115 {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}
