//! The README's first screen is a real session: its lines come out of the run that it shows.

use testbed::RunOptions;
use testbed::scenario::Loaded;

use crate::root;

#[test]
fn the_session_in_the_readme_is_what_the_command_prints() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README.md");
    let shown = readme.split("```console\n").nth(1).and_then(|rest| rest.split("```").next());
    let mut shown = shown.expect("the README begins with a session").lines();
    let command = shown.next().expect("a session begins with a command");
    let file = command.split_whitespace().last().expect("a command has words");
    let loaded = Loaded::read(&root().join(file)).unwrap_or_else(|error| panic!("{error}"));
    let mut outcome = testbed::run(&loaded, &RunOptions::default());
    outcome.check_golden(&loaded, false).unwrap_or_else(|error| panic!("{error}"));
    let summary = report::summary(&outcome);
    let printed = [report::timeline(&outcome), summary].concat();
    let mut printed = printed.lines();
    for line in shown.filter(|line| *line != "...") {
        assert!(
            printed.any(|found| found == line),
            "{command}\ndoes not print this line, or not in this place:\n{line}"
        );
    }
}
