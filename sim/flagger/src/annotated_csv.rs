//! InfluxDB's annotated CSV, as far as the first record's value needs it.

/// The value of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// A number of type `double`.
    Double(f64),
    /// None; the record as InfluxDB's own client prints it.
    Null(String),
    /// Of another type; the record likewise.
    Other(String),
}

/// The `_value` of the first record; `None` if there is no record.
///
/// # Errors
/// The server's own words in an error table; what is no number under a column of type `double`.
pub fn first_value(text: &str) -> Result<Option<Field>, String> {
    let (mut types, mut names) = (Vec::new(), Vec::<String>::new());
    for line in text.lines() {
        if line.is_empty() {
            // A new table begins.
            names.clear();
            continue;
        }
        let cells = split(line);
        if line.starts_with('#') {
            if cells[0] == "#datatype" {
                types = cells;
            }
            continue;
        }
        if names.is_empty() {
            names = cells;
            continue;
        }
        if let Some(error) = names.iter().position(|name| name == "error") {
            return Err(cells.get(error).cloned().unwrap_or_default());
        }
        let column = names.iter().position(|name| name == "_value");
        let value = column.and_then(|column| cells.get(column)).map(String::as_str).unwrap_or_default();
        let kind = column.and_then(|column| types.get(column)).map(String::as_str).unwrap_or_default();
        let pairs = names.iter().zip(&cells).skip(1).map(|(name, value)| format!("{name}:{value}"));
        let record = pairs.collect::<Vec<_>>().join(",");
        return Ok(Some(match (value, kind) {
            ("", _) => Field::Null(record),
            (value, "double") => {
                Field::Double(value.parse().map_err(|error| format!("_value {value:?}: {error}"))?)
            }
            _ => Field::Other(record),
        }));
    }
    Ok(None)
}

/// A line's cells; quotes keep commas, and are doubled inside of themselves.
fn split(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        let cell = cells.last_mut().expect("there is always a cell");
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cell.push(other),
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_counts() {
        let table = |kind: &str, value: &str| {
            format!(
                "#datatype,string,long,{kind},string\r\n#group,false,false,false,true\r\n#default,_result,,,\r\n\
                 ,result,table,_value,host\r\n,,0,{value},\"a,b\"\r\n,,0,9,c\r\n\r\n"
            )
        };
        assert_eq!(first_value(&table("double", "0.25")), Ok(Some(Field::Double(0.25))));
        let record = |value: &str| format!("result:,table:0,_value:{value},host:a,b");
        assert_eq!(first_value(&table("double", "")), Ok(Some(Field::Null(record("")))));
        assert_eq!(first_value(&table("long", "3")), Ok(Some(Field::Other(record("3")))));
        assert_eq!(first_value(""), Ok(None));
        assert!(first_value(&table("double", "x")).is_err());
        let error =
            "#datatype,string,string\n#group,true,true\n#default,,\n,error,reference\n,no such bucket,897\n";
        assert_eq!(first_value(error), Err("no such bucket".to_owned()));
    }
}
