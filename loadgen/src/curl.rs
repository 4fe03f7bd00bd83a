//! `curl`: the flags that checks in canaries use, and its exit codes.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use crate::{FailureKind, RequestSpec};

/// Exit codes, as in curl's manual.
pub mod exit {
    /// The command line could not be used.
    pub const USAGE: i32 = 2;
    /// The URL could not be used.
    pub const URL: i32 = 3;
    /// The name did not resolve.
    pub const RESOLVE: i32 = 6;
    /// No connection.
    pub const CONNECT: i32 = 7;
    /// HTTP status 400 or above, with `-f`.
    pub const HTTP: i32 = 22;
    /// A file could not be read.
    pub const READ: i32 = 26;
    /// The time limit passed.
    pub const TIMEOUT: i32 = 28;
    /// Too many redirects.
    pub const REDIRECTS: i32 = 47;
    /// The server closed the connection without an answer.
    pub const EMPTY: i32 = 52;
    /// TLS did not come about.
    pub const TLS: i32 = 35;
    /// The connection broke while receiving.
    pub const RECEIVE: i32 = 56;
}

/// curl's command line, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    /// The requests, one per URL, in order.
    pub requests: Vec<RequestSpec>,
    /// `-d @FILE`: whoever runs this reads the file and sets the requests' bodies.
    pub body_file: Option<String>,
    /// `-s`.
    pub silent: bool,
    /// `-S`.
    pub show_error: bool,
    /// `-f`.
    pub fail: bool,
    /// `-i`.
    pub include_headers: bool,
    /// `-I`.
    pub head: bool,
    /// `-L`.
    pub follow_redirects: bool,
    /// `-o FILE`: the body does not reach standard output.
    pub output: Option<String>,
    /// `-w`, with its escapes (`\n`) resolved.
    pub write_out: Option<String>,
    /// `-m`.
    pub max_time: Option<Duration>,
    /// `--retry`.
    pub retry: u32,
}

/// Options that take a value and are otherwise of no consequence here.
const IGNORED_WITH_VALUE: [&str; 9] = [
    "--connect-timeout",
    "--retry-delay",
    "--retry-max-time",
    "--cacert",
    "--cert",
    "--key",
    "-c",
    "-b",
    "--resolve",
];
/// Options without a value that are of no consequence here.
const IGNORED: [&str; 14] = [
    "-k",
    "--insecure",
    "-v",
    "--verbose",
    "--compressed",
    "--http1.1",
    "--http2",
    "--http2-prior-knowledge",
    "-N",
    "--no-buffer",
    "-#",
    "--progress-bar",
    "--retry-connrefused",
    "-g",
];

impl Args {
    /// Understands a command line, without the program's name.
    ///
    /// # Errors
    /// What curl would print, and its exit code.
    pub fn parse(args: &[String]) -> Result<Args, (i32, String)> {
        let mut flags = Flags::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let long = arg.starts_with("--");
            if long {
                let mut value = || args.next().cloned();
                flags.option(arg, &mut value)?;
            } else if let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                let mut rest = letters;
                while let Some(letter) = rest.chars().next() {
                    rest = &rest[letter.len_utf8()..];
                    // A letter that takes a value takes the rest of its bundle, or else the next argument.
                    let mut taken = false;
                    let mut value = || {
                        taken = true;
                        if rest.is_empty() { args.next().cloned() } else { Some(rest.to_owned()) }
                    };
                    flags.option(&format!("-{letter}"), &mut value)?;
                    if taken {
                        break;
                    }
                }
            } else {
                flags.urls.push(arg.clone());
            }
        }
        flags.finish()
    }

    /// Whether `--retry` tries again after this status: those that may pass by themselves, in curl's list.
    pub fn is_transient(status: u16) -> bool {
        matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
    }

    /// The exit code after a failure.
    pub fn exit_code(kind: FailureKind) -> i32 {
        match kind {
            FailureKind::Resolve => exit::RESOLVE,
            FailureKind::Connect => exit::CONNECT,
            FailureKind::Tls => exit::TLS,
            FailureKind::Timeout => exit::TIMEOUT,
            FailureKind::Reset => exit::RECEIVE,
            FailureKind::Protocol => exit::EMPTY,
            FailureKind::Invalid => exit::URL,
        }
    }
}

#[derive(Default)]
struct Flags {
    urls: Vec<String>,
    method: Option<String>,
    headers: Vec<String>,
    data: Option<String>,
    data_file: Option<String>,
    json: bool,
    get: bool,
    user: Option<String>,
    agent: Option<String>,
    silent: bool,
    show_error: bool,
    fail: bool,
    include_headers: bool,
    head: bool,
    follow_redirects: bool,
    output: Option<String>,
    write_out: Option<String>,
    max_time: Option<Duration>,
    retry: u32,
}

impl Flags {
    fn option(&mut self, name: &str, value: &mut dyn FnMut() -> Option<String>) -> Result<(), (i32, String)> {
        let mut needed =
            || value().ok_or_else(|| (exit::USAGE, format!("curl: option {name}: requires parameter")));
        let seconds = |text: String| {
            text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(
                || (exit::USAGE, format!("curl: option {name}: expected a proper numerical parameter")),
            )
        };
        match name {
            "-s" | "--silent" => self.silent = true,
            "-S" | "--show-error" => self.show_error = true,
            "-f" | "--fail" | "--fail-with-body" => self.fail = true,
            "-i" | "--include" => self.include_headers = true,
            "-I" | "--head" => self.head = true,
            "-L" | "--location" => self.follow_redirects = true,
            "-G" | "--get" => self.get = true,
            "-X" | "--request" => self.method = Some(needed()?),
            "-H" | "--header" => self.headers.push(needed()?),
            "-u" | "--user" => self.user = Some(needed()?),
            "-A" | "--user-agent" => self.agent = Some(needed()?),
            "-o" | "--output" => self.output = Some(needed()?),
            "-w" | "--write-out" => {
                self.write_out =
                    Some(needed()?.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r"));
            }
            "-m" | "--max-time" => self.max_time = Some(seconds(needed()?)?),
            "--retry" => {
                self.retry = needed()?.parse().map_err(|_| {
                    (exit::USAGE, format!("curl: option {name}: expected a proper numerical parameter"))
                })?;
            }
            "--url" => {
                let url = needed()?;
                self.urls.push(url);
            }
            "-d" | "--data" | "--data-ascii" | "--data-binary" => {
                let data = needed()?;
                match data.strip_prefix('@') {
                    Some(file) => self.data_file = Some(file.to_owned()),
                    None => self.add_data(&data, "&"),
                }
            }
            "--data-raw" | "--data-urlencode" => {
                let data = needed()?;
                self.add_data(&data, "&");
            }
            "--json" => {
                let data = needed()?;
                self.json = true;
                self.add_data(&data, "");
            }
            name if IGNORED_WITH_VALUE.contains(&name) => {
                needed()?;
            }
            name if IGNORED.contains(&name) => {}
            name => return Err((exit::USAGE, format!("curl: option {name}: is unknown"))),
        }
        Ok(())
    }

    fn add_data(&mut self, data: &str, separator: &str) {
        match &mut self.data {
            Some(all) => {
                all.push_str(separator);
                all.push_str(data);
            }
            None => self.data = Some(data.to_owned()),
        }
    }

    fn finish(self) -> Result<Args, (i32, String)> {
        if self.urls.is_empty() {
            return Err((exit::USAGE, "curl: no URL specified!".into()));
        }
        let mut requests = Vec::new();
        for url in &self.urls {
            requests.push(self.request(url).map_err(|problem| (exit::URL, format!("curl: (3) {problem}")))?);
        }
        Ok(Args {
            requests,
            body_file: self.data_file,
            silent: self.silent,
            show_error: self.show_error,
            fail: self.fail,
            include_headers: self.include_headers,
            head: self.head,
            follow_redirects: self.follow_redirects,
            output: self.output,
            write_out: self.write_out,
            max_time: self.max_time,
            retry: self.retry,
        })
    }

    fn request(&self, url: &str) -> Result<RequestSpec, String> {
        let sends_data = self.data.is_some() || self.data_file.is_some();
        let method = match &self.method {
            Some(method) => method.as_str(),
            None if self.head => "HEAD",
            None if sends_data && !self.get => "POST",
            None => "GET",
        };
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| format!("invalid method {method:?}"))?;
        // curl takes a URL without a scheme for http.
        let mut url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        if let (true, Some(data)) = (self.get, &self.data) {
            url = format!("{url}{}{data}", if url.contains('?') { '&' } else { '?' });
        }
        let mut request = RequestSpec::new(method, &url)?;
        request.set_header("User-Agent", self.agent.as_deref().unwrap_or("curl/7.67.0"))?;
        request.set_header("Accept", if self.json { "application/json" } else { "*/*" })?;
        if sends_data && !self.get {
            let kind = if self.json { "application/json" } else { "application/x-www-form-urlencoded" };
            request.set_header("Content-Type", kind)?;
            request.body = Bytes::from(self.data.clone().unwrap_or_default());
        }
        if let Some(user) = &self.user {
            request.set_basic_auth(user);
        }
        for header in &self.headers {
            // `Name;` sends an empty header, `Name:` none at all.
            match header.split_once(':') {
                Some((name, value)) if !value.trim().is_empty() => {
                    request.set_header(name.trim(), value.trim())?
                }
                Some((name, _)) => {
                    request.headers.remove(name.trim());
                }
                None => {
                    if let Some(name) = header.strip_suffix(';') {
                        request.set_header(name.trim(), "")?;
                    }
                }
            }
        }
        Ok(request)
    }
}
