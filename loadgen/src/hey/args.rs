//! hey's command line.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use crate::go_flag::{self, Kind, Parsed};
use crate::{Pace, Plan, RequestSpec, parse_duration};

/// hey's flags, in the order of its help.
pub const FLAGS: &[(&str, Kind)] = &[
    ("n", Kind::Value),
    ("c", Kind::Value),
    ("q", Kind::Value),
    ("z", Kind::Value),
    ("o", Kind::Value),
    ("m", Kind::Value),
    ("H", Kind::Value),
    ("t", Kind::Value),
    ("A", Kind::Value),
    ("d", Kind::Value),
    ("D", Kind::Value),
    ("T", Kind::Value),
    ("U", Kind::Value),
    ("a", Kind::Value),
    ("x", Kind::Value),
    ("h", Kind::Value),
    ("h2", Kind::Bool),
    ("host", Kind::Value),
    ("disable-compression", Kind::Bool),
    ("disable-keepalive", Kind::Bool),
    ("disable-redirects", Kind::Bool),
    ("cpus", Kind::Value),
];

/// Help for hey's flags.
pub const USAGE: &str = "  -n NUMBER             Requests to send in all (200). Each worker sends an equal
                        part; a remainder is dropped. At least -c.
  -c NUMBER             Workers, each with one request on its way at a time (50).
  -q RATE               Requests per second and worker (no limit).
  -z DURATION           Send for this long (10s, 3m) instead of -n requests.
                        Requests on their way at the end are waited for.
  -o csv                Print a row per answered request instead of a summary.
  -m METHOD             HTTP method (GET).
  -H 'NAME: VALUE'      Header; may be repeated.
  -t SECONDS            Time limit for one request (20), 0 for none.
  -A VALUE              Accept header.
  -d TEXT               Request body.
  -D FILE               Request body from a file.
  -T TYPE               Content-Type (text/html).
  -U AGENT              User-Agent, before hey/0.0.1.
  -a USER:PASSWORD      Basic authentication.
  -x HOST:PORT          HTTP proxy.
  -h2                   HTTP/2.
  -host NAME            Host header.
  -disable-compression  Ask for no compressed answers.
  -disable-keepalive    A new connection for each request.
  -disable-redirects    Take redirects as answers.
  -cpus NUMBER          Threads that send (1).
";

const USER_AGENT: &str = "hey/0.0.1";

/// What a run prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// The summary.
    #[default]
    Summary,
    /// A row per answered request.
    Csv,
}

/// A command line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// What is wrong with it.
    pub message: String,
    /// The exit code: 2 where Go's flag package refuses, 1 where hey does.
    pub code: i32,
}

impl UsageError {
    pub(crate) fn flag(message: String) -> Self {
        UsageError { message, code: 2 }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        UsageError { message: message.into(), code: 1 }
    }
}

/// hey's command line, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    /// `-n`.
    pub requests: u64,
    /// `-c`.
    pub connections: usize,
    /// `-q`, 0 for no limit.
    pub rate_per_worker: f64,
    /// `-z`; overrides [`requests`](Args::requests).
    pub duration: Option<Duration>,
    /// `-o`.
    pub output: Output,
    /// `-t`, `None` for no limit.
    pub timeout: Option<Duration>,
    /// The request, without the body of [`body_file`](Args::body_file).
    pub request: RequestSpec,
    /// `-D`: whoever runs this reads the file and sets the request's body.
    pub body_file: Option<String>,
    /// `-x`.
    pub proxy: Option<String>,
    /// `-h2`.
    pub http2: bool,
    /// `-disable-compression`.
    pub disable_compression: bool,
    /// `-disable-keepalive`.
    pub disable_keepalive: bool,
    /// `-disable-redirects`.
    pub disable_redirects: bool,
    /// `-cpus`: threads that send, `None` where nothing was said.
    pub cpus: Option<usize>,
    /// Arguments after the URL, flags among them: hey ignores these without a word.
    pub ignored: Vec<String>,
}

impl Args {
    /// Understands a command line, without the program's name.
    ///
    /// # Errors
    /// [`UsageError`] in hey's and Go's words.
    pub fn parse(args: &[String]) -> Result<Args, UsageError> {
        Args::from_parsed(&go_flag::parse(FLAGS, args).map_err(UsageError::flag)?)
    }

    /// Understands a command line that was taken apart with [`FLAGS`] and possibly more flags, which it passes over.
    ///
    /// # Errors
    /// As [`Args::parse`].
    pub fn from_parsed(parsed: &Parsed) -> Result<Args, UsageError> {
        let mut flags = Flags::default();
        for (name, value) in &parsed.flags {
            flags.set(name, value).map_err(UsageError::flag)?;
        }
        let [url, ignored @ ..] = parsed.rest.as_slice() else {
            return Err(UsageError::usage("no URL given"));
        };
        flags.finish(url, ignored)
    }

    /// What the scheduler shall do.
    pub fn plan(&self) -> Plan {
        let pace = if self.rate_per_worker > 0.0 {
            Pace::PerWorker(ticker_period(self.rate_per_worker))
        } else {
            Pace::Unlimited
        };
        let requests = if self.duration.is_some() { None } else { Some(self.requests) };
        Plan { connections: self.connections, requests, duration: self.duration, pace, ..Plan::default() }
    }
}

/// hey's ticker: whole microseconds, rounded down.
fn ticker_period(rate: f64) -> Duration {
    Duration::from_micros(((1e6 / rate) as u64).max(1))
}

/// Values of the flags, still as typed where their check waits for the others.
struct Flags {
    requests: i64,
    connections: i64,
    rate: f64,
    duration: Option<Duration>,
    output: String,
    method: String,
    headers: Vec<String>,
    timeout: i64,
    accept: String,
    body: String,
    body_file: String,
    content_type: String,
    user_agent: String,
    auth: String,
    proxy: String,
    deprecated_header: String,
    http2: bool,
    host: String,
    disable_compression: bool,
    disable_keepalive: bool,
    disable_redirects: bool,
    cpus: i64,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            requests: 200,
            connections: 50,
            rate: 0.0,
            duration: None,
            output: String::new(),
            method: "GET".into(),
            headers: Vec::new(),
            timeout: 20,
            accept: String::new(),
            body: String::new(),
            body_file: String::new(),
            content_type: "text/html".into(),
            user_agent: String::new(),
            auth: String::new(),
            proxy: String::new(),
            deprecated_header: String::new(),
            http2: false,
            host: String::new(),
            disable_compression: false,
            disable_keepalive: false,
            disable_redirects: false,
            cpus: 0,
        }
    }
}

impl Flags {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let text = || value.to_owned();
        match name {
            "n" => self.requests = go_flag::number(name, value)?,
            "c" => self.connections = go_flag::number(name, value)?,
            "q" => self.rate = go_flag::number(name, value)?,
            "z" => {
                let duration = parse_duration(value)
                    .map_err(|_| format!("invalid value {value:?} for flag -{name}: parse error"))?;
                self.duration = (!duration.is_zero()).then_some(duration);
            }
            "o" => self.output = text(),
            "m" => self.method = text(),
            "H" => self.headers.push(text()),
            "t" => self.timeout = go_flag::number(name, value)?,
            "A" => self.accept = text(),
            "d" => self.body = text(),
            "D" => self.body_file = text(),
            "T" => self.content_type = text(),
            "U" => self.user_agent = text(),
            "a" => self.auth = text(),
            "x" => self.proxy = text(),
            "h" => self.deprecated_header = text(),
            "h2" => self.http2 = value == "true",
            "host" => self.host = text(),
            "disable-compression" => self.disable_compression = value == "true",
            "disable-keepalive" => self.disable_keepalive = value == "true",
            "disable-redirects" => self.disable_redirects = value == "true",
            "cpus" => self.cpus = go_flag::number(name, value)?,
            // Flags of a longer list than hey's: their owner reads them.
            _ => {}
        }
        Ok(())
    }

    fn finish(self, url: &str, ignored: &[String]) -> Result<Args, UsageError> {
        let usage = |message: String| UsageError::usage(message);
        if self.duration.is_some() {
            if self.connections <= 0 {
                return Err(usage("-c cannot be smaller than 1.".into()));
            }
        } else if self.requests <= 0 || self.connections <= 0 {
            return Err(usage("-n and -c cannot be smaller than 1.".into()));
        } else if self.requests < self.connections {
            return Err(usage("-n cannot be less than -c.".into()));
        }
        if !self.rate.is_finite() {
            return Err(usage(format!("-q must be a finite number, got {}.", self.rate)));
        }
        if !self.deprecated_header.is_empty() {
            return Err(usage("Flag '-h' is deprecated, please use '-H' instead.".into()));
        }
        let output = match self.output.as_str() {
            "" => Output::Summary,
            "csv" => Output::Csv,
            other => return Err(usage(format!("unknown output {other:?}: -o takes csv only"))),
        };
        let request = self.request(url).map_err(usage)?;
        let some = |text: String| (!text.is_empty()).then_some(text);
        Ok(Args {
            requests: self.requests.unsigned_abs(),
            connections: usize::try_from(self.connections).unwrap_or(usize::MAX),
            rate_per_worker: self.rate.max(0.0),
            duration: self.duration,
            output,
            timeout: u64::try_from(self.timeout).ok().filter(|t| *t > 0).map(Duration::from_secs),
            request,
            body_file: some(self.body_file),
            proxy: some(self.proxy),
            http2: self.http2,
            disable_compression: self.disable_compression,
            disable_keepalive: self.disable_keepalive,
            disable_redirects: self.disable_redirects,
            cpus: usize::try_from(self.cpus).ok().filter(|cpus| *cpus > 0),
            ignored: ignored.to_vec(),
        })
    }

    fn request(&self, url: &str) -> Result<RequestSpec, String> {
        let method = self.method.to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("net/http: invalid method {method:?}"))?;
        let mut request = RequestSpec::new(method, url)?;
        request.set_header("Content-Type", &self.content_type)?;
        for header in &self.headers {
            let (name, value) = split_header(header)
                .ok_or_else(|| format!("could not parse the provided input; input = {header}"))?;
            request.set_header(name, value)?;
        }
        if !self.accept.is_empty() {
            request.set_header("Accept", &self.accept)?;
        }
        if !self.auth.is_empty() {
            // Both halves are needed, and the password does not begin with a space.
            let valid = self.auth.rmatch_indices(':').any(|(at, _)| {
                let after = self.auth[at + 1..].chars();
                at > 0 && after.clone().count() >= 2 && !after.clone().next().is_some_and(char::is_whitespace)
            });
            if !valid {
                return Err(format!("could not parse the provided input; input = {}", self.auth));
            }
            request.set_basic_auth(&self.auth);
        }
        // Go's client does not send a Host from the headers; only -host counts.
        request.headers.remove(http::header::HOST);
        if !self.host.is_empty() {
            request.set_header("Host", &self.host)?;
        }
        let from_header =
            request.headers.get("User-Agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let agent = if self.user_agent.is_empty() { from_header } else { &self.user_agent };
        let agent = if agent.is_empty() { USER_AGENT.to_owned() } else { format!("{agent} {USER_AGENT}") };
        request.set_header("User-Agent", &agent)?;
        if !self.disable_compression
            && !request.headers.contains_key("Accept-Encoding")
            && request.method != Method::HEAD
        {
            request.set_header("Accept-Encoding", "gzip")?;
        }
        request.body = Bytes::from(self.body.clone());
        Ok(request)
    }
}

/// A header as hey takes it: a name of letters, digits, `_` and `-`, a colon, and a value that is not empty.
fn split_header(header: &str) -> Option<(&str, &str)> {
    let (name, value) = header.split_once(':')?;
    let value = value.trim_start();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!name.is_empty() && name.chars().all(word) && !value.is_empty()).then_some((name, value))
}
