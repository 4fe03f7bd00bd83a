//! Text to tokens. What a word or a `=` means depends on whether it stands in braces or brackets.

use crate::ast::{AggregateOp, BinaryOp};
use crate::format::{parse_duration, quote};

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A word that is no keyword; with a colon, a metric's name only.
    Identifier,
    Keyword(Keyword),
    Aggregate(AggregateOp),
    /// An operator between expressions; in braces, only `!=`.
    Operator(BinaryOp),
    Number(f64),
    /// In milliseconds.
    Duration(i64),
    /// Its text, escapes resolved.
    Text(String),
    /// `=` in braces, and wherever else it stands wrongly.
    Equal,
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
    At,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    End,
    /// What stands here is no token.
    Mistake(String),
}

/// Words with a meaning of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Offset,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Bool,
    Fill,
    FillLeft,
    FillRight,
}

/// A token and the bytes it stands in.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

/// All tokens of a query, up to and with the end or the first mistake.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, parens: 0, in_braces: false, in_brackets: false };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        let kind = lexer.next().unwrap_or_else(Kind::Mistake);
        let last = matches!(kind, Kind::End | Kind::Mistake(_));
        tokens.push(Token { kind, start, end: lexer.at });
        if last {
            return tokens;
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    parens: usize,
    in_braces: bool,
    in_brackets: bool,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
            self.at += blanks;
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// Takes a piece of text, if it comes next.
    fn takes(&mut self, piece: &str) -> bool {
        let here = self.rest().starts_with(piece);
        if here {
            self.at += piece.len();
        }
        here
    }

    /// Takes characters for as long as they fit.
    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !fits(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn next(&mut self) -> Result<Kind, String> {
        let Some(first) = self.rest().chars().next() else {
            return match () {
                () if self.in_braces => Err("unexpected end of input inside braces".into()),
                () if self.parens > 0 => Err("unclosed left parenthesis".into()),
                () if self.in_brackets => Err("unclosed left bracket".into()),
                () => Ok(Kind::End),
            };
        };
        match first {
            '"' | '\'' => return self.string(first),
            '`' => return self.raw_string(),
            _ if self.in_braces => return self.in_braces(first),
            '0'..='9' => return self.number(),
            '.' if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => return self.number(),
            ':' if self.in_brackets => {}
            'a'..='z' | 'A'..='Z' | '_' | ':' if !self.in_brackets => return Ok(self.word()),
            _ => {}
        }
        self.at += first.len_utf8();
        Ok(match first {
            ',' => Kind::Comma,
            '@' => Kind::At,
            ':' => Kind::Colon,
            '+' => Kind::Operator(BinaryOp::Add),
            '-' => Kind::Operator(BinaryOp::Sub),
            '*' => Kind::Operator(BinaryOp::Mul),
            '/' => Kind::Operator(BinaryOp::Div),
            '%' => Kind::Operator(BinaryOp::Mod),
            '^' => Kind::Operator(BinaryOp::Pow),
            '<' if self.takes("=") => Kind::Operator(BinaryOp::LessOrEqual),
            '<' => Kind::Operator(BinaryOp::Less),
            '>' if self.takes("=") => Kind::Operator(BinaryOp::GreaterOrEqual),
            '>' => Kind::Operator(BinaryOp::Greater),
            '=' if self.takes("=") => Kind::Operator(BinaryOp::Equal),
            '=' if self.rest().starts_with('~') => return Err("unexpected character after '=': '~'".into()),
            '=' => Kind::Equal,
            '!' if self.takes("=") => Kind::Operator(BinaryOp::NotEqual),
            '!' => return Err(self.wrong_after('!', "")),
            '(' => {
                self.parens += 1;
                Kind::LeftParen
            }
            ')' if self.parens == 0 => return Err("unexpected right parenthesis ')'".into()),
            ')' => {
                self.parens -= 1;
                Kind::RightParen
            }
            '{' => {
                self.in_braces = true;
                Kind::LeftBrace
            }
            '[' if self.in_brackets => return Err("unexpected left bracket '['".into()),
            '[' => {
                self.in_brackets = true;
                Kind::LeftBracket
            }
            ']' if !self.in_brackets => return Err("unexpected right bracket ']'".into()),
            ']' => {
                self.in_brackets = false;
                Kind::RightBracket
            }
            other => return Err(format!("unexpected character: {other:?}")),
        })
    }

    fn wrong_after(&self, first: char, place: &str) -> String {
        match self.rest().chars().next() {
            Some(next) => format!("unexpected character after {first:?}{place}: {next:?}"),
            None => format!("unexpected end of input after {first:?}{place}"),
        }
    }

    fn in_braces(&mut self, first: char) -> Result<Kind, String> {
        if first.is_ascii_alphabetic() || first == '_' {
            self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            return Ok(Kind::Identifier);
        }
        self.at += first.len_utf8();
        Ok(match first {
            ',' => Kind::Comma,
            '=' if self.takes("~") => Kind::Matches,
            '=' => Kind::Equal,
            '!' if self.takes("~") => Kind::MatchesNot,
            '!' if self.takes("=") => Kind::Operator(BinaryOp::NotEqual),
            '!' => return Err(self.wrong_after('!', " inside braces")),
            '}' => {
                self.in_braces = false;
                Kind::RightBrace
            }
            '{' => return Err("unexpected left brace '{'".into()),
            other => return Err(format!("unexpected character inside braces: {other:?}")),
        })
    }

    fn word(&mut self) -> Kind {
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
        match word.to_ascii_lowercase().as_str() {
            "and" => Kind::Operator(BinaryOp::And),
            "or" => Kind::Operator(BinaryOp::Or),
            "unless" => Kind::Operator(BinaryOp::Unless),
            "atan2" => Kind::Operator(BinaryOp::Atan2),
            "offset" => Kind::Keyword(Keyword::Offset),
            "by" => Kind::Keyword(Keyword::By),
            "without" => Kind::Keyword(Keyword::Without),
            "on" => Kind::Keyword(Keyword::On),
            "ignoring" => Kind::Keyword(Keyword::Ignoring),
            "group_left" => Kind::Keyword(Keyword::GroupLeft),
            "group_right" => Kind::Keyword(Keyword::GroupRight),
            "bool" => Kind::Keyword(Keyword::Bool),
            "fill" => Kind::Keyword(Keyword::Fill),
            "fill_left" => Kind::Keyword(Keyword::FillLeft),
            "fill_right" => Kind::Keyword(Keyword::FillRight),
            "inf" => Kind::Number(f64::INFINITY),
            "nan" => Kind::Number(f64::NAN),
            lower => AggregateOp::from_name(lower).map_or(Kind::Identifier, Kind::Aggregate),
        }
    }

    /// A number, or a duration: digits with a unit.
    fn number(&mut self) -> Result<Kind, String> {
        let start = self.at;
        let hex = self.takes("0x") || self.takes("0X");
        if hex {
            self.take_while(|c| c.is_ascii_hexdigit() || c == '_');
        } else {
            let whole = self.take_while(|c| c.is_ascii_digit() || c == '_').len();
            let unit = ["y", "w", "d", "h", "m", "s"].iter().any(|unit| self.rest().starts_with(unit));
            if whole > 0 && unit {
                self.take_while(|c| c.is_ascii_alphanumeric());
                let text = &self.text[start..self.at];
                return match parse_duration(text) {
                    Ok(ms) => Ok(Kind::Duration(ms)),
                    Err(error) if error == "duration out of range" => Err(error),
                    Err(_) => Err(format!("bad number or duration syntax: {}", quote(text))),
                };
            }
            if self.takes(".") {
                self.take_while(|c| c.is_ascii_digit());
            }
            let mantissa = self.at;
            if self.takes("e") || self.takes("E") {
                let _ = self.takes("+") || self.takes("-");
                if self.take_while(|c| c.is_ascii_digit()).is_empty() {
                    self.at = mantissa;
                }
            }
        }
        let tail = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.'));
        let text = &self.text[start..self.at];
        let number = if tail.is_empty() { read_number(text, hex) } else { None };
        number.map(Kind::Number).ok_or_else(|| format!("bad number or duration syntax: {}", quote(text)))
    }

    fn string(&mut self, mark: char) -> Result<Kind, String> {
        self.at += 1;
        let mut read = Vec::new();
        loop {
            let Some(c) = self.rest().chars().next().filter(|c| *c != '\n') else {
                return Err("unterminated quoted string".into());
            };
            self.at += c.len_utf8();
            match c {
                '\\' => self.escape(mark, &mut read)?,
                c if c == mark => break,
                c => read.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(Kind::Text(String::from_utf8_lossy(&read).into_owned()))
    }

    fn raw_string(&mut self) -> Result<Kind, String> {
        let Some(length) = self.rest()[1..].find('`') else {
            self.at = self.text.len();
            return Err("unterminated raw string".into());
        };
        let inside = &self.rest()[1..=length];
        self.at += length + 2;
        Ok(Kind::Text(inside.to_owned()))
    }

    /// What follows a backslash, with Go's rules for strings.
    fn escape(&mut self, mark: char, read: &mut Vec<u8>) -> Result<(), String> {
        let Some(c) = self.rest().chars().next() else { return Err("escape sequence not terminated".into()) };
        self.at += c.len_utf8();
        let simple = match c {
            'a' => 7,
            'b' => 8,
            't' => b'\t',
            'n' => b'\n',
            'v' => 11,
            'f' => 12,
            'r' => b'\r',
            '\\' => b'\\',
            c if c == mark => mark as u8,
            _ => 0,
        };
        if simple != 0 {
            read.push(simple);
            return Ok(());
        }
        let (digits, radix) = match c {
            '0'..='7' => {
                self.at -= 1;
                (3, 8)
            }
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            other => {
                return Err(format!("unknown escape sequence U+{:04X} {other:?}", u32::from(other)));
            }
        };
        let number = self.rest().get(..digits).and_then(|text| u32::from_str_radix(text, radix).ok());
        let Some(number) = number else {
            return Err("illegal character in escape sequence".into());
        };
        self.at += digits;
        if matches!(c, 'u' | 'U') {
            let c = char::from_u32(number).ok_or("escape sequence is an invalid Unicode code point")?;
            read.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            read.push(u8::try_from(number).map_err(|_| "escape sequence is above one byte")?);
        }
        Ok(())
    }
}

/// Go's number: hexadecimal, octal (with a leading zero) or decimal, underscores between digits.
fn read_number(text: &str, hex: bool) -> Option<f64> {
    if text.ends_with('_') || text.contains("__") {
        return None;
    }
    let text = text.replace('_', "");
    if hex {
        return u64::from_str_radix(&text[2..], 16).ok().map(|number| number as f64);
    }
    let octal =
        text.len() > 1 && text.starts_with('0') && text.bytes().all(|byte| (b'0'..b'8').contains(&byte));
    if octal {
        return u64::from_str_radix(&text, 8).ok().map(|number| number as f64);
    }
    text.parse().ok()
}
