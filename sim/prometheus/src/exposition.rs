//! Prometheus' text format: one sample per line.

/// One line's sample: the text that names the series, its value, and its time in milliseconds if it has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line<'a> {
    /// Name and labels as written, e.g. `up{job="x"}`: the same text is the same series.
    pub series: &'a str,
    pub value: f64,
    pub at_ms: Option<i64>,
}

/// The lines of a page that are samples.
pub(crate) fn lines(page: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', page.as_bytes()).chain([page.len()]);
    let lines = ends.map(move |end| {
        let line = page[start..end].trim_ascii();
        start = (end + 1).min(page.len());
        line
    });
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Reads a line; as a rule its series is the `likely` one.
///
/// # Errors
/// Why it is no sample.
pub(crate) fn line<'a>(text: &'a str, likely: &str) -> Result<Line<'a>, String> {
    let wrong = |why: &str| format!("{why} in line {text:?}");
    let is_likely = !likely.is_empty()
        && text.starts_with(likely)
        && text.as_bytes().get(likely.len()).is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    let end = if is_likely { Some(likely.len()) } else { series_end(text) };
    let end = end.ok_or_else(|| wrong("unclosed label set"))?;
    let series = text[..end].trim_end();
    let (value, rest) = word(&text[end..]);
    if value.is_empty() {
        return Err(wrong("expected value after metric"));
    }
    let value = promql::parse_float(value).ok_or_else(|| wrong("expected a number as the value"))?;
    let (time, rest) = word(rest);
    let at_ms = match time {
        "" => None,
        time => Some(time.parse().map_err(|_| wrong("expected timestamp or new record"))?),
    };
    if series.is_empty() || !rest.is_empty() {
        return Err(wrong("unexpected text"));
    }
    Ok(Line { series, value, at_ms })
}

/// The next word and what follows it, without the blanks in front of either. Looks at bytes: there are many lines.
fn word(text: &str) -> (&str, &str) {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace();
    let bytes = text.as_bytes();
    let start = bytes.iter().position(|byte| !is_blank(byte)).unwrap_or(bytes.len());
    let end = bytes[start..].iter().position(is_blank).map_or(bytes.len(), |length| start + length);
    (&text[start..end], text[end..].trim_ascii_start())
}

/// Where name and labels end. No value and no time has a brace, so the label set's is the last one.
fn series_end(text: &str) -> Option<usize> {
    let brace = text.bytes().position(|byte| matches!(byte, b'{' | b' ' | b'\t'))?;
    match text.as_bytes()[brace] {
        b'{' => text.rfind('}').map(|end| end + 1),
        _ => Some(brace),
    }
}

/// The labels of a series' text, with `__name__`.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn labels(series: &str) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("invalid labels in {series:?}");
    let (name, rest) = match series.split_once('{') {
        None => (series, ""),
        Some((name, rest)) => (name.trim_end(), rest.strip_suffix('}').ok_or_else(wrong)?),
    };
    let mut labels = vec![("__name__".to_owned(), name.to_owned())];
    let mut rest = rest.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(wrong)?;
        let mut characters = after.trim_start().strip_prefix('"').ok_or_else(wrong)?.chars();
        let mut value = String::new();
        loop {
            match characters.next().ok_or_else(wrong)? {
                '"' => break,
                '\\' => match characters.next().ok_or_else(wrong)? {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                other => value.push(other),
            }
        }
        labels.push((name.trim().to_owned(), value));
        rest = characters.as_str().trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_line_by_line() {
        let page = "# HELP a text\na{x=\"1, }\\\"\",y=\"b\"} 4.5 1000\nb 1e3\n\nc NaN\n";
        let found: Vec<Line<'_>> = lines(page).map(|text| line(text, "b").unwrap()).collect();
        assert_eq!(found[0], Line { series: "a{x=\"1, }\\\"\",y=\"b\"}", value: 4.5, at_ms: Some(1000) });
        assert_eq!((found[1].series, found[1].value), ("b", 1000.0));
        assert!(found[2].value.is_nan());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            labels(found[0].series).unwrap(),
            [pair("__name__", "a"), pair("x", "1, }\""), pair("y", "b")]
        );
        assert_eq!(labels("b").unwrap(), [pair("__name__", "b")]);
        assert!(line("a{x=\"1\" 2", "").is_err());
        assert!(line("a b", "a").is_err() && line("a b", "").is_err());
        assert_eq!(line("ab 1", "a").unwrap().series, "ab");
        assert_eq!(lines("\n a 1 \r\nb 2").collect::<Vec<_>>(), ["a 1", "b 2"]);
    }
}
