//! What differs between two texts.

use std::fmt::Write as _;
use std::ops::Range;

use imara_diff::{Algorithm, Diff, Hunk, InternedInput};

/// Lines shown around a change.
const CONTEXT: u32 = 3;

/// A unified diff of two texts under their names; empty if they are the same.
pub fn unified_diff(names: (&str, &str), before: &str, after: &str) -> String {
    let lines = InternedInput::new(before, after);
    let mut diff = Diff::compute(Algorithm::Histogram, &lines);
    diff.postprocess_lines(&lines);
    let mut text = String::new();
    let hunks: Vec<Hunk> = diff.hunks().collect();
    // Changes that are near each other share their surroundings.
    for group in hunks.chunk_by(|one, next| next.before.start - one.before.end <= 2 * CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        if text.is_empty() {
            let _ = writeln!(text, "--- {}\n+++ {}", names.0, names.1);
        }
        let leading = first.before.start.min(CONTEXT);
        let trailing = CONTEXT.min(lines.before.len() as u32 - last.before.end);
        let old = first.before.start - leading..last.before.end + trailing;
        let new = first.after.start - leading..last.after.end + trailing;
        let _ = writeln!(text, "@@ -{} +{} @@", range(&old), range(&new));
        let mut print = |mark: char, tokens: &[imara_diff::Token]| {
            for token in tokens {
                let line = lines.interner[*token];
                let _ = write!(text, "{mark}{line}");
                if !line.ends_with('\n') {
                    text.push_str("\n\\ No newline at end of file\n");
                }
            }
        };
        let mut at = old.start;
        for Hunk { before, after } in group {
            print(' ', &lines.before[at as usize..before.start as usize]);
            print('-', &lines.before[before.start as usize..before.end as usize]);
            print('+', &lines.after[after.start as usize..after.end as usize]);
            at = before.end;
        }
        print(' ', &lines.before[at as usize..old.end as usize]);
    }
    text
}

/// The first line, from 1, and how many; a range without lines names the line before it.
fn range(lines: &Range<u32>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        count => format!("{},{count}", lines.start + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(to: u32) -> String {
        (1..=to).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn changes_come_with_their_surroundings() {
        let diff = unified_diff(("old", "new"), &numbers(9), &numbers(9).replace("5\n", "five\n"));
        assert_eq!(diff, "--- old\n+++ new\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
        assert_eq!(unified_diff(("old", "new"), &numbers(9), &numbers(9)), "");
    }

    #[test]
    fn changes_far_from_each_other_stand_apart() {
        let after = numbers(30).replace("1\n2\n3\n", "1\n3\n").replace("29\n", "29\nmore\n");
        let diff = unified_diff(("a", "b"), &numbers(30), &after);
        assert_eq!(
            diff,
            "--- a\n+++ b\n@@ -1,5 +1,4 @@\n 1\n-2\n 3\n 4\n 5\n@@ -27,4 +26,5 @@\n 27\n 28\n 29\n+more\n 30\n"
        );
    }

    #[test]
    fn texts_may_be_empty_and_lines_unfinished() {
        assert_eq!(unified_diff(("a", "b"), "", "x\n"), "--- a\n+++ b\n@@ -0,0 +1 @@\n+x\n");
        assert_eq!(
            unified_diff(("a", "b"), "x\n", "x"),
            "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+x\n\\ No newline at end of file\n"
        );
    }
}
