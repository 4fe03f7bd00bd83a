//! Prometheus' text format: one sample per line.

/// One line's sample: the text that names the series, its value, and its time in milliseconds if it has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line<'a> {
    /// Name and labels as written, e.g. `up{job="x"}`: the same text is the same series.
    pub series: &'a str,
    pub value: f64,
    pub at_ms: Option<i64>,
}

/// What a line of a page says.
pub(crate) enum Sample<'a> {
    /// The value of the series that was likely to come.
    Likely(f64),
    /// Anything.
    Line(Line<'a>),
}

/// A page that is read line by line.
pub(crate) struct Page<'a>(pub &'a [u8]);

impl<'a> Page<'a> {
    /// The next line that is a sample. Pages are long, and most repeat the last one but for the values: the line is quickly
    /// read if its series is the `likely` one, the text of one that came before.
    ///
    /// # Errors
    /// Why it is no sample.
    pub(crate) fn next(&mut self, likely: &str) -> Option<Result<Sample<'a>, String>> {
        while !self.0.is_empty() {
            if !likely.is_empty()
                && let Some(rest) = self.0.strip_prefix(likely.as_bytes())
                && let Some(rest) = rest.strip_prefix(b" ")
                && let Some((value, rest)) = whole(rest).or_else(|| float(rest))
            {
                self.0 = rest;
                return Some(Ok(Sample::Likely(value)));
            }
            let end = memchr::memchr(b'\n', self.0).unwrap_or(self.0.len());
            let (text, rest) = self.0.split_at(end);
            self.0 = rest.get(1..).unwrap_or_default();
            let text = text.trim_ascii();
            if !text.is_empty() && text[0] != b'#' {
                let text = std::str::from_utf8(text).map_err(|_| "the page is not UTF-8".to_owned());
                return Some(text.and_then(line).map(Sample::Line));
            }
        }
        None
    }
}

/// A whole number of which a float loses nothing, that ends the line, and what follows.
fn whole(text: &[u8]) -> Option<(f64, &[u8])> {
    let digits = text.iter().take(16).take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=15).contains(&digits) {
        return None;
    }
    let (digits, rest) = text.split_at(digits);
    let rest = if rest.is_empty() { rest } else { rest.strip_prefix(b"\n")? };
    let number = digits.iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
    Some((number as f64, rest))
}

/// A number alone that ends the line, and what follows.
fn float(text: &[u8]) -> Option<(f64, &[u8])> {
    let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    let number = std::str::from_utf8(&text[..end]).ok()?;
    let is_alone = !number.bytes().any(|byte| byte.is_ascii_whitespace());
    let value = is_alone.then(|| promql::parse_float(number)).flatten()?;
    Some((value, text.get(end + 1..).unwrap_or_default()))
}

fn line(text: &str) -> Result<Line<'_>, String> {
    let wrong = |why: &str| format!("{why} in line {text:?}");
    let end = series_end(text).ok_or_else(|| wrong("unclosed label set"))?;
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
        let read = |page: &'static str, likely: &'static str| {
            let mut page = Page(page.as_bytes());
            let line = |sample| match sample {
                Sample::Likely(value) => Line { series: likely, value, at_ms: None },
                Sample::Line(line) => line,
            };
            let lines = std::iter::from_fn(move || page.next(likely));
            lines.map(|sample| sample.map(line)).collect::<Result<Vec<_>, String>>()
        };
        let found = read(page, "").unwrap();
        assert_eq!(found[0], Line { series: "a{x=\"1, }\\\"\",y=\"b\"}", value: 4.5, at_ms: Some(1000) });
        assert_eq!((found[1].series, found[1].value), ("b", 1000.0));
        assert!(found[2].value.is_nan());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            labels(found[0].series).unwrap(),
            [pair("__name__", "a"), pair("x", "1, }\""), pair("y", "b")]
        );
        assert_eq!(labels("b").unwrap(), [pair("__name__", "b")]);
        assert_eq!(read(&page[..page.len() - 6], "b"), read(&page[..page.len() - 6], ""));
        assert!(read("a{x=\"1\" 2", "").is_err());
        assert!(read("a b", "a").is_err() && read("a b", "").is_err());
        let short =
            |likely| read("\n a 1 \r\nab 2\na 12\na  3 4\na 4.5\na 5.5 6\na 123456789012345678", likely);
        assert_eq!(short("a"), short(""));
        let values: Vec<f64> = short("a").unwrap().iter().map(|line| line.value).collect();
        assert_eq!(values, [1.0, 2.0, 12.0, 3.0, 4.5, 5.5, 123_456_789_012_345_680.0]);
    }
}
