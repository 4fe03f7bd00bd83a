//! Sets of completion indexes as a Job's status writes them: `1,3-5,7`. Pure.

use std::collections::BTreeSet;

/// Reads such a text; what is no index below `completions` is left out.
pub(super) fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.parse::<i32>(), to.parse::<i32>()) else { continue };
        indexes.extend(from.max(0)..=to.min(completions - 1));
    }
    indexes
}

/// Writes them: three and more neighbours as a range, as upstream.
pub(super) fn text(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let range = |(from, to): &(i32, i32)| match to - from {
        0 => from.to_string(),
        1 => format!("{from},{to}"),
        _ => format!("{from}-{to}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_are_ranges() {
        for (indexes, expected) in
            [(vec![], ""), (vec![7], "7"), (vec![1, 2], "1,2"), (vec![1, 3, 4, 5, 7], "1,3-5,7")]
        {
            assert_eq!(text(&indexes.into_iter().collect()), expected);
        }
        assert_eq!(parse("1,3-5,junk,9-20", 11), [1, 3, 4, 5, 9, 10].into());
    }

    proptest! {
        #[test]
        fn texts_are_read_back(indexes in prop::collection::btree_set(0..200i32, 0..60)) {
            prop_assert_eq!(parse(&text(&indexes), 200), indexes);
        }
    }
}
