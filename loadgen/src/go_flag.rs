//! Command lines as Go's `flag` package reads them: `-name value`, `-name=value`, `--name`, booleans without a
//! value, flags only before the first other argument.

/// Whether a flag takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `-name value` or `-name=value`.
    Value,
    /// `-name` or `-name=true|false`.
    Bool,
}

/// A command line taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Flags in the order given; a boolean without a value is `true`.
    pub flags: Vec<(String, String)>,
    /// Arguments after the flags.
    pub rest: Vec<String>,
}

impl Parsed {
    /// The last value given for a flag.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| flag == name).map(|(_, value)| value.as_str())
    }
}

/// Takes a command line apart, given the flags that exist.
///
/// # Errors
/// Go's words, e.g. `flag provided but not defined: -x`. `-help` (and `-h` where it is no flag) gives
/// `flag: help requested`.
pub fn parse(defined: &[(&str, Kind)], args: &[String]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            parsed.rest.push(arg.clone());
            break;
        };
        if flag == "-" {
            break;
        }
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {arg}"));
        }
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        let Some((_, kind)) = defined.iter().find(|(defined, _)| *defined == name) else {
            return Err(match name {
                "h" | "help" => "flag: help requested".to_owned(),
                _ => format!("flag provided but not defined: -{name}"),
            });
        };
        let value = match (kind, given) {
            (Kind::Bool, None) => "true".to_owned(),
            (Kind::Bool, Some(value)) => {
                let value = parse_bool(value)
                    .ok_or_else(|| format!("invalid boolean value {value:?} for -{name}: parse error"))?;
                value.to_string()
            }
            (Kind::Value, Some(value)) => value.to_owned(),
            (Kind::Value, None) => {
                args.next().cloned().ok_or_else(|| format!("flag needs an argument: -{name}"))?
            }
        };
        parsed.flags.push((name.to_owned(), value));
    }
    parsed.rest.extend(args.cloned());
    Ok(parsed)
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A flag's value as a number or other parsable type, with Go's words for what is none.
///
/// # Errors
/// `invalid value "x" for flag -name: parse error`.
pub fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("invalid value {value:?} for flag -{name}: parse error"))
}
