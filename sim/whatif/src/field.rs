//! Fields of a Canary by path: read, set in the object, set in the text.

use serde_json::Value;

/// A part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Key(String),
    Index(usize),
}

/// A field of a Canary's spec: `analysis.stepWeight`, `analysis.metrics[0].threshold`,
/// `analysis.metrics.request-duration.threshold`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As it was written.
    pub text: String,
    parts: Vec<Part>,
}

impl Field {
    /// Reads a path.
    ///
    /// # Errors
    /// A sentence on what is wrong with it.
    pub fn parse(text: &str) -> Result<Field, String> {
        let path = text.strip_prefix("spec.").unwrap_or(text);
        let mut parts = vec![Part::Key("spec".to_owned())];
        for segment in path.split('.') {
            let (key, index) = match segment.split_once('[') {
                Some((key, rest)) => {
                    let index = rest.strip_suffix(']').and_then(|index| index.parse().ok());
                    (
                        key,
                        Some(index.ok_or_else(|| {
                            format!("{text}: {segment:?} is no list item: write e.g. metrics[0]")
                        })?),
                    )
                }
                None => (segment, None),
            };
            if key.is_empty() {
                return Err(format!("{text:?} is no field: write e.g. analysis.stepWeight"));
            }
            parts.push(Part::Key(key.to_owned()));
            parts.extend(index.map(Part::Index));
        }
        Ok(Field { text: text.to_owned(), parts })
    }

    /// The keys of the path below `spec`.
    pub fn keys(&self) -> Vec<&str> {
        let keys = self.parts.iter().skip(1).filter_map(|part| match part {
            Part::Key(key) => Some(key.as_str()),
            Part::Index(_) => None,
        });
        keys.collect()
    }

    /// The path within this object: the analysis under the name that it has, list items by their name.
    fn within(&self, object: &Value) -> Result<Vec<Part>, String> {
        let mut at = object;
        let mut path: Vec<Part> = Vec::new();
        for (depth, part) in self.parts.iter().enumerate() {
            let mut part = part.clone();
            if let Part::Key(key) = &mut part {
                if depth == 1
                    && key == "analysis"
                    && at.get("analysis").is_none()
                    && at.get("canaryAnalysis").is_some()
                {
                    *key = "canaryAnalysis".to_owned();
                }
                if let Some(items) = at.as_array() {
                    let found = items.iter().position(|item| item["name"] == **key);
                    let names: Vec<&str> = items.iter().filter_map(|item| item["name"].as_str()).collect();
                    part = Part::Index(found.ok_or_else(|| {
                        format!("{}: no item is named {key} (there are {})", self.text, names.join(", "))
                    })?);
                }
            }
            if let Part::Index(index) = part
                && at.get(index).is_none()
            {
                return Err(format!("{}: the list has no item {index}", self.text));
            }
            at = match &part {
                Part::Key(key) => at.get(key).unwrap_or(&Value::Null),
                Part::Index(index) => &at[*index],
            };
            path.push(part);
        }
        Ok(path)
    }

    /// The field's value, null if it is absent.
    ///
    /// # Errors
    /// A sentence if the path leads nowhere.
    pub fn get<'a>(&self, object: &'a Value) -> Result<&'a Value, String> {
        let path = self.within(object)?;
        Ok(path.iter().fold(object, |at, part| match part {
            Part::Key(key) => at.get(key).unwrap_or(&Value::Null),
            Part::Index(index) => at.get(*index).unwrap_or(&Value::Null),
        }))
    }

    /// Sets the field.
    ///
    /// # Errors
    /// A sentence if the path leads nowhere.
    pub fn set(&self, object: &mut Value, new: Value) -> Result<(), String> {
        let path = self.within(object)?;
        let mut at = object;
        for part in path {
            at = match part {
                Part::Key(key) => {
                    if at.is_null() {
                        *at = Value::Object(serde_json::Map::new());
                    }
                    let found = at
                        .as_object_mut()
                        .ok_or_else(|| format!("{}: {key} is no field there", self.text))?;
                    found.entry(key).or_insert(Value::Null)
                }
                Part::Index(index) => &mut at[index],
            };
        }
        *at = new;
        Ok(())
    }

    /// Sets the field in a document's text, leaving all else as it is. `None` where the text is written in a way that
    /// this does not handle.
    fn write(&self, text: &str, object: &Value, new: &Value) -> Option<String> {
        let path = self.within(object).ok()?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // The block that is searched: its lines, and the column of its keys.
        let (mut from, mut to, mut column) = (0, lines.len(), 0);
        let mut parent = None;
        for (depth, part) in path.iter().enumerate() {
            let is_last = depth + 1 == path.len();
            match part {
                Part::Key(key) => {
                    let found = (from..to).find(|index| is_key(&lines[*index], column, key));
                    let Some(found) = found else {
                        if !is_last || parent.is_none() {
                            return None;
                        }
                        lines.insert(from, format!("{}{key}: {}", " ".repeat(column), scalar(new)?));
                        return Some(lines.join("\n") + "\n");
                    };
                    let after = lines[found].find(&format!("{key}:"))? + key.len() + 1;
                    if is_last {
                        let rest = lines[found][after..].to_owned();
                        let comment = rest.find(" #").map_or(String::new(), |at| rest[at..].to_owned());
                        let before: String = lines[found][..after].to_owned();
                        lines[found] = format!("{before} {}{comment}", scalar(new)?);
                        return Some(lines.join("\n") + "\n");
                    }
                    let rest = lines[found][after..].trim();
                    if !(rest.is_empty() || rest.starts_with('#')) {
                        return None;
                    }
                    parent = Some(found);
                    from = found + 1;
                    let first = (from..to).find(|index| !is_blank(&lines[*index]))?;
                    let child = indent(&lines[first]);
                    let is_list = lines[first].trim_start().starts_with("- ");
                    if child < column || (child == column && !is_list) {
                        return None;
                    }
                    to = (first..to)
                        .find(|index| {
                            let line = &lines[*index];
                            !is_blank(line)
                                && (indent(line) < child
                                    || (indent(line) == child
                                        && is_list
                                        && !line.trim_start().starts_with("- ")))
                        })
                        .unwrap_or(to);
                    (from, column) = (first, child);
                }
                Part::Index(index) => {
                    let is_item = |line: &str| {
                        indent(line) == column && line.trim_start().starts_with("- ") && !is_blank(line)
                    };
                    let items: Vec<usize> = (from..to).filter(|at| is_item(&lines[*at])).collect();
                    let begin = *items.get(*index)?;
                    to = items.get(index + 1).copied().unwrap_or(to);
                    // The item's first key stands behind the dash: as if the dash were a space.
                    from = begin;
                    column += 2;
                    parent = Some(begin);
                    if is_last {
                        return None;
                    }
                }
            }
        }
        None
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_blank(line: &str) -> bool {
    let text = line.trim_start();
    text.is_empty() || text.starts_with('#')
}

fn is_key(line: &str, column: usize, key: &str) -> bool {
    if is_blank(line) {
        return false;
    }
    let rest = match indent(line) {
        found if found == column => &line[column..],
        found if found + 2 == column && line[found..].starts_with("- ") => &line[column..],
        _ => return false,
    };
    rest.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => {
            let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            let is_text = serde_saphyr::from_str::<Value>(text).is_ok_and(|read| read.is_string());
            Some(if plain && is_text { text.clone() } else { serde_json::to_string(text).ok()? })
        }
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A value as it is written on a command line: YAML's number, truth value or text.
pub fn value(text: &str) -> Value {
    match serde_saphyr::from_str::<Value>(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

/// A document's text with these fields changed, comments and order kept. Where the text is written in a way that
/// does not allow it, the whole document is written anew, which loses its comments: the second value says so.
///
/// # Errors
/// A sentence if a path leads nowhere.
pub fn patch(text: &str, changes: &[(Field, Value)]) -> Result<(String, bool), String> {
    let parse = |text: &str| serde_saphyr::from_str::<Value>(text).map_err(|error| error.to_string());
    let mut wanted = parse(text)?;
    let mut written = Some(text.to_owned());
    for (field, new) in changes {
        let before = wanted.clone();
        field.set(&mut wanted, new.clone())?;
        written = written.and_then(|text| field.write(&text, &before, new));
    }
    if let Some(text) = written
        && parse(&text).is_ok_and(|read| read == wanted)
    {
        return Ok((text, false));
    }
    let text = serde_saphyr::to_string(&wanted).map_err(|error| error.to_string())?;
    Ok((text, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARTICLE: &str = include_str!("../../../fixtures/article/flagger/podinfo/canary.yaml");

    fn sorted(mut lines: Vec<&str>) -> Vec<&str> {
        lines.sort_unstable();
        lines
    }

    #[test]
    fn texts_keep_everything_else() {
        let changes = [
            (Field::parse("analysis.stepWeight").unwrap(), value("10")),
            (Field::parse("analysis.interval").unwrap(), value("1m")),
            (Field::parse("spec.analysis.metrics.request-duration.threshold").unwrap(), value("250")),
            (Field::parse("analysis.metrics[0].interval").unwrap(), value("1m")),
            (Field::parse("analysis.stepWeightPromotion").unwrap(), value("20")),
        ];
        let (text, is_rewritten) = patch(ARTICLE, &changes).unwrap();
        assert!(!is_rewritten);
        let changed: Vec<&str> =
            text.lines().filter(|line| !ARTICLE.lines().any(|old| old == *line)).collect();
        let expected = [
            "    interval: 1m",
            "    stepWeight: 10",
            "    stepWeightPromotion: 20",
            "        threshold: 250",
            "        interval: 1m",
        ];
        assert_eq!(sorted(changed), sorted(expected.to_vec()), "{text}");
        assert_eq!(text.lines().count(), ARTICLE.lines().count() + 1);
        assert!(text.contains("# use ISTIO_MUTUAL when mTLS is enabled"));
    }

    #[test]
    fn flow_style_is_written_anew() {
        let (text, is_rewritten) = patch(
            "kind: Canary\nspec: {analysis: {stepWeight: 5}}\n",
            &[(Field::parse("analysis.stepWeight").unwrap(), value("10"))],
        )
        .unwrap();
        assert!(is_rewritten && text.contains("stepWeight: 10"), "{text}");
    }

    #[test]
    fn paths_that_lead_nowhere_are_named() {
        let object: Value = serde_saphyr::from_str(ARTICLE).unwrap();
        let error = Field::parse("analysis.metrics.latency.threshold").unwrap().get(&object).unwrap_err();
        assert!(error.contains("latency") && error.contains("request-duration"), "{error}");
        assert!(Field::parse("analysis.metrics[x]").is_err());
        assert!(Field::parse("analysis..x").is_err());
        assert_eq!(value("30s"), Value::String("30s".to_owned()));
        assert_eq!(value("99.5"), serde_json::json!(99.5));
    }
}
