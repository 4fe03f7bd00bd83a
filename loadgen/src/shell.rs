//! As much shell as load test commands are wrapped in: words, quotes, variables, pipelines, `&&`, `||`, `;`,
//! redirections. What it does not know is an error that names it, never a guess.

use std::collections::BTreeMap;

/// One command with its words expanded and its quotes removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Variables set for this command alone (`NAME=value command`).
    pub env: Vec<(String, String)>,
    /// The command's name and arguments; empty for a bare assignment.
    pub words: Vec<String>,
    /// Redirections in order.
    pub redirects: Vec<Redirect>,
}

/// A redirection of output or input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// `>FILE`, `2>>FILE`: the descriptor's output does not reach the terminal.
    ToFile {
        /// 1 or 2; both for `&>`.
        descriptor: Descriptor,
        /// The file's path.
        path: String,
    },
    /// `2>&1`.
    ErrorsToOutput,
    /// `1>&2`, `>&2`.
    OutputToErrors,
    /// `<FILE`.
    FromFile(String),
}

/// What a redirection applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
    /// Both.
    Both,
}

/// When a pipeline runs, given how the one before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// After `;`, a line break, or first.
    Always,
    /// After `&&`.
    Success,
    /// After `||`.
    Failure,
}

/// Commands whose outputs feed each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// When it runs.
    pub when: When,
    /// Whether its exit status is inverted (`! command`).
    pub negated: bool,
    /// The commands, first to last.
    pub commands: Vec<Command>,
}

/// Splits one command line into words as a shell would, without variables.
///
/// # Errors
/// An unclosed quote, or more than one plain command.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let script = parse(line, &BTreeMap::new())?;
    match script.as_slice() {
        [] => Ok(Vec::new()),
        [Pipeline { commands, .. }] if commands.len() == 1 => Ok(commands[0].words.clone()),
        _ => Err(format!("{line:?} is more than one command")),
    }
}

/// Parses a script of simple commands. Variables come from `env` and from assignments before their use.
///
/// # Errors
/// Syntax that this shell does not know, or that no shell knows, in words that quote it.
pub fn parse(script: &str, env: &BTreeMap<String, String>) -> Result<Vec<Pipeline>, String> {
    let mut parser = Parser { chars: script.chars().collect(), at: 0, env: env.clone() };
    parser.script()
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    env: BTreeMap<String, String>,
}

/// Words that begin compound commands.
const KEYWORDS: [&str; 12] =
    ["if", "then", "else", "fi", "for", "while", "until", "do", "done", "case", "function", "select"];

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn looking_at(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(offset, c)| self.chars.get(self.at + offset) == Some(&c))
    }

    fn accept(&mut self, text: &str) -> bool {
        let found = self.looking_at(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn skip_blanks(&mut self) {
        loop {
            if self.accept("\\\n") || self.accept("\\\r\n") {
                continue;
            }
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn skip_lines(&mut self) {
        self.skip_blanks();
        while self.accept("\n") {
            self.skip_blanks();
        }
    }

    fn script(&mut self) -> Result<Vec<Pipeline>, String> {
        let mut pipelines = Vec::new();
        let mut when = When::Always;
        loop {
            self.skip_lines();
            if self.peek().is_none() {
                if when != When::Always {
                    return Err("syntax error: unexpected end of file".into());
                }
                return Ok(pipelines);
            }
            pipelines.push(self.pipeline(when)?);
            self.skip_blanks();
            when = if self.accept("&&") {
                When::Success
            } else if self.accept("||") {
                When::Failure
            } else if self.accept(";;") {
                return Err("syntax error near unexpected token `;;'".into());
            } else if self.accept(";") || self.accept("\n") || self.peek().is_none() {
                When::Always
            } else if self.accept("&") {
                return Err("unsupported shell syntax: background commands (`&`)".into());
            } else {
                return Err(self.unexpected());
            };
        }
    }

    fn unexpected(&self) -> String {
        match self.peek() {
            Some(c @ ('(' | ')')) => format!("unsupported shell syntax: `{c}`"),
            Some(c) => format!("syntax error near unexpected token `{c}'"),
            None => "syntax error: unexpected end of file".into(),
        }
    }

    fn pipeline(&mut self, when: When) -> Result<Pipeline, String> {
        let mut negated = false;
        while self.looking_at("! ") {
            self.at += 2;
            negated = !negated;
            self.skip_blanks();
        }
        let mut commands = vec![self.command()?];
        loop {
            self.skip_blanks();
            if self.looking_at("||") || !self.accept("|") {
                break;
            }
            if self.peek() == Some('&') {
                self.at += 1;
                if let Some(last) = commands.last_mut() {
                    last.redirects.push(Redirect::ErrorsToOutput);
                }
            }
            self.skip_lines();
            commands.push(self.command()?);
        }
        if let [command] = commands.as_slice()
            && command.words.is_empty()
        {
            self.env.extend(command.env.iter().cloned());
        }
        Ok(Pipeline { when, negated, commands })
    }

    fn command(&mut self) -> Result<Command, String> {
        let mut command = Command::default();
        loop {
            self.skip_blanks();
            if self.redirect(&mut command)? {
                continue;
            }
            match self.peek() {
                None | Some('\n' | ';' | '|' | '&') => break,
                Some('(' | ')') => return Err(self.unexpected()),
                Some(_) => {}
            }
            let start = self.at;
            let words = self.word()?;
            let plain: String = self.chars[start..self.at].iter().collect();
            if command.words.is_empty() {
                if KEYWORDS.contains(&plain.as_str()) || plain == "{" || plain == "[[" {
                    return Err(format!("unsupported shell syntax: `{plain}`"));
                }
                if let Some((name, value)) = assignment(&plain, &words) {
                    command.env.push((name, value));
                    continue;
                }
            }
            command.words.extend(words);
        }
        if command == Command::default() {
            return Err(self.unexpected());
        }
        Ok(command)
    }

    fn redirect(&mut self, command: &mut Command) -> Result<bool, String> {
        let descriptor = if self.accept("&>>") || self.accept("&>") {
            Descriptor::Both
        } else if self.accept("2>&1") {
            command.redirects.push(Redirect::ErrorsToOutput);
            return Ok(true);
        } else if self.accept("1>&2") || self.accept(">&2") {
            command.redirects.push(Redirect::OutputToErrors);
            return Ok(true);
        } else if self.accept("2>>") || self.accept("2>") {
            Descriptor::Errors
        } else if self.accept("1>>") || self.accept("1>") || self.accept(">>") || self.accept(">") {
            Descriptor::Output
        } else if self.looking_at("<<") {
            return Err("unsupported shell syntax: here-documents (`<<`)".into());
        } else if self.accept("<") {
            let path = self.path()?;
            command.redirects.push(Redirect::FromFile(path));
            return Ok(true);
        } else {
            return Ok(false);
        };
        let path = self.path()?;
        command.redirects.push(Redirect::ToFile { descriptor, path });
        Ok(true)
    }

    fn path(&mut self) -> Result<String, String> {
        self.skip_blanks();
        match self.peek() {
            None | Some('\n' | ';' | '|' | '&' | '<' | '>') => Err(self.unexpected()),
            Some('(') => Err(self.unexpected()),
            Some(_) => Ok(self.word()?.join(" ")),
        }
    }

    /// One word as written; unquoted variables may make it several, or none.
    fn word(&mut self) -> Result<Vec<String>, String> {
        let mut words = Vec::new();
        let mut current: Option<String> = None;
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '|' | '&' | '<' | '>' | '(' | ')' => break,
                '\'' => {
                    self.at += 1;
                    let text = current.get_or_insert_default();
                    loop {
                        match self.peek() {
                            None => return Err("syntax error: unterminated quoted string (')".into()),
                            Some('\'') => break,
                            Some(c) => text.push(c),
                        }
                        self.at += 1;
                    }
                    self.at += 1;
                }
                '"' => {
                    self.at += 1;
                    let quoted = self.double_quoted()?;
                    current.get_or_insert_default().push_str(&quoted);
                }
                '\\' => {
                    self.at += 1;
                    match self.peek() {
                        Some('\n') => {}
                        Some(escaped) => current.get_or_insert_default().push(escaped),
                        None => {
                            current.get_or_insert_default().push('\\');
                            break;
                        }
                    }
                    self.at += 1;
                }
                '`' => return Err("unsupported shell syntax: command substitution (`)".into()),
                '$' => {
                    let value = self.variable()?;
                    let mut pieces = value.split_whitespace();
                    if value.starts_with(char::is_whitespace)
                        && let Some(done) = current.take()
                    {
                        words.push(done);
                    }
                    if let Some(first) = pieces.next() {
                        current.get_or_insert_default().push_str(first);
                    }
                    for piece in pieces {
                        words.extend(current.replace(piece.to_owned()));
                    }
                    if value.ends_with(char::is_whitespace) {
                        words.extend(current.take());
                    }
                }
                c => {
                    current.get_or_insert_default().push(c);
                    self.at += 1;
                }
            }
        }
        words.extend(current);
        Ok(words)
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err("syntax error: unterminated quoted string (\")".into()),
                Some('"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(c @ ('"' | '\\' | '$' | '`')) => text.push(c),
                        Some('\n') => {}
                        Some(c) => text.extend(['\\', c]),
                        None => continue,
                    }
                    self.at += 1;
                }
                Some('$') => text.push_str(&self.variable()?),
                Some('`') => return Err("unsupported shell syntax: command substitution (`)".into()),
                Some(c) => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
    }

    /// `$NAME`, `${NAME}`, `${NAME:-default}`; a lone `$` is itself.
    fn variable(&mut self) -> Result<String, String> {
        self.at += 1;
        match self.peek() {
            Some('(') => Err("unsupported shell syntax: command substitution `$(`".into()),
            Some('{') => {
                self.at += 1;
                let start = self.at;
                while self.peek().is_some_and(|c| c != '}') {
                    self.at += 1;
                }
                let inner: String = self.chars[start..self.at].iter().collect();
                if !self.accept("}") {
                    return Err(format!("syntax error: unterminated `${{{inner}`"));
                }
                let (name, default) = match inner.split_once(":-") {
                    Some((name, default)) => (name, default),
                    None => (inner.as_str(), ""),
                };
                if !is_name(name) {
                    return Err(format!("unsupported shell syntax: `${{{inner}}}`"));
                }
                let value = self.env.get(name).filter(|value| !value.is_empty());
                Ok(value.map_or(default, String::as_str).to_owned())
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let start = self.at;
                while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                    self.at += 1;
                }
                let name: String = self.chars[start..self.at].iter().collect();
                Ok(self.env.get(&name).cloned().unwrap_or_default())
            }
            Some(c @ ('0'..='9' | '?' | '@' | '*' | '#' | '!' | '$' | '-')) => {
                Err(format!("unsupported shell syntax: `${c}`"))
            }
            _ => Ok("$".into()),
        }
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `NAME=value` as typed, with the value expanded (not split).
fn assignment(plain: &str, words: &[String]) -> Option<(String, String)> {
    let (name, _) = plain.split_once('=').filter(|(name, _)| is_name(name))?;
    let whole = words.join(" ");
    let (_, value) = whole.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}
