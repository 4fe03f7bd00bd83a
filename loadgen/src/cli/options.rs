//! The command line beyond hey's.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::assertion::Assertion;
use crate::go_flag::{self, Kind, Parsed};
use crate::hey::{self, UsageError};
use crate::net::{GroupBy, Pin, Proxy, Route, TargetOptions, Trust, client_config};
use crate::{Arrivals, Mix, Pace, Plan, Profile, RequestSpec, Stage, parse_duration};

/// Flags that hey does not have.
const FLAGS: &[(&str, Kind)] = &[
    ("rate", Kind::Value),
    ("poisson", Kind::Bool),
    ("seed", Kind::Value),
    ("max-connections", Kind::Value),
    ("warmup", Kind::Value),
    ("ramp", Kind::Value),
    ("stages", Kind::Value),
    ("url", Kind::Value),
    ("template", Kind::Bool),
    ("h2c", Kind::Bool),
    ("unix", Kind::Value),
    ("cacert", Kind::Value),
    ("insecure", Kind::Bool),
    ("cert", Kind::Value),
    ("key", Kind::Value),
    ("resolve", Kind::Value),
    ("by", Kind::Value),
    ("baseline", Kind::Value),
    ("assert", Kind::Value),
    ("json", Kind::Bool),
    ("hdr", Kind::Value),
    ("quiet", Kind::Bool),
];

/// Help for them.
pub(crate) const USAGE: &str = "\
Rate:
  --rate RATE           Requests per second in all, due at times of their own
                        whatever the answers do (open model): latencies count
                        from when a request was due as well as from when it was
                        sent.
  --poisson             Random arrivals instead of even ones; --seed N (0) draws
                        others.
  --max-connections N   Connections for --rate and --stages, as -c.
  --warmup DURATION     Send for this long before counting and recording.
  --ramp DURATION       Begin at nothing: the rate rises, or the workers begin,
                        over this time.
  --stages R:D,R:D,...  The rate goes in a straight line to R within D, from one
                        stage to the next: 0:0s,100:30s,100:1m,0:10s.
Requests:
  --url [WEIGHT=]URL    One more URL; may be repeated.
  --template            Fill in {{n}}, {{uuid}}, {{random:LOW:HIGH}} and
                        {{line:FILE}} in URLs, headers and bodies.
Connections:
  --h2c                 HTTP/2 without TLS or asking (prior knowledge).
  --unix PATH           Connect to a Unix socket.
  --resolve HOST:PORT:ADDRESS
                        An address for a name; may be repeated.
  --cacert FILE         Trust the authorities in this PEM file alone.
  --insecure            Trust every certificate, as hey does.
  --cert FILE --key FILE
                        A client certificate and its key, PEM.
Results:
  --by header:NAME      Group results by a response header, by a field of a
  --by json:FIELD       JSON answer (a.b.0), or by URL, and compare the groups.
  --by url
  --baseline GROUP      What the others are compared with (the largest group).
  --assert 'p99<500ms'  Exit with 3 unless this holds; may be repeated. pNN, mean,
                        min, max, success, errors, rate, requests; p99@GROUP.
  --json                Print a JSON report instead of the summary.
  --hdr FILE            Write the latencies as an HdrHistogram log.
  --quiet               No progress on the terminal.
";

/// A run, ready to start.
pub(crate) struct Options {
    pub plan: Plan,
    pub mix: Mix,
    pub target: TargetOptions,
    pub route: Route,
    pub threads: usize,
    pub output: Output,
    pub hdr: Option<PathBuf>,
    pub assertions: Vec<Assertion>,
    pub baseline: Option<String>,
    pub quiet: bool,
    /// What to tell the user before the run.
    pub notes: Vec<String>,
}

/// What is printed after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Summary,
    Csv,
    Json,
}

/// Understands a command line. `as_hey`: certificates are not checked, as under that name.
pub(crate) fn parse(args: &[String], as_hey: bool) -> Result<Options, UsageError> {
    let defined: Vec<(&str, Kind)> = hey::FLAGS.iter().chain(FLAGS).copied().collect();
    let mut parsed = go_flag::parse(&defined, args).map_err(UsageError::flag)?;
    let own = Own::read(&parsed)?;
    // With --url there need be no other.
    let weighted = own.urls.clone();
    let main = parsed.rest.first().cloned();
    if main.is_none()
        && let Some((_, url)) = weighted.first()
    {
        parsed.rest.push(url.clone());
    }
    if own.open() {
        own.fit_connections(&mut parsed);
    }
    if let Some(GroupBy::Json(_)) = own.by {
        // A field of a compressed body is out of reach.
        parsed.flags.push(("disable-compression".to_owned(), "true".to_owned()));
    }
    let hey = hey::Args::from_parsed(&parsed)?;
    if let Some(ignored) = hey.ignored.first() {
        let hint = if ignored.starts_with('-') {
            "flags go before the URL"
        } else {
            "one URL only: --url adds others"
        };
        return Err(UsageError::usage(format!("unexpected argument {ignored:?} after the URL: {hint}")));
    }
    let refused = |text: String| UsageError::usage(text);
    let body = match &hey.body_file {
        None => None,
        Some(file) => {
            Some(std::fs::read(file).map_err(|error| refused(format!("request body {file}: {error}")))?)
        }
    };
    let with_body = |mut request: RequestSpec| {
        if let Some(body) = &body {
            request.body = Bytes::from(body.clone());
        }
        request
    };
    let mut requests = Vec::new();
    if main.is_some() {
        requests.push((1, with_body(hey.request.clone())));
    }
    for (weight, url) in &weighted {
        let at = RequestSpec::new(hey.request.method.clone(), url).map_err(refused)?;
        let mut request = hey.request.clone();
        // A user and password in the URL are its own.
        request.headers.extend(at.headers);
        (request.url, request.typed_url) = (at.url, at.typed_url);
        requests.push((*weight, with_body(request)));
    }
    let mut mix = Mix::weighted(requests).map_err(refused)?;
    if own.template {
        mix = mix.with_templates(own.seed, &mut lines_of).map_err(refused)?;
    }
    own.finish(&hey, mix, as_hey)
}

fn lines_of(file: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The flags of this list as typed.
#[derive(Default)]
struct Own {
    rate: Option<f64>,
    poisson: bool,
    seed: u64,
    max_connections: Option<usize>,
    warmup: Duration,
    ramp: Duration,
    stages: Vec<Stage>,
    urls: Vec<(u32, String)>,
    template: bool,
    h2c: bool,
    unix: Option<PathBuf>,
    trust: Option<Trust>,
    cert: Option<String>,
    key: Option<String>,
    pins: Vec<Pin>,
    by: Option<GroupBy>,
    baseline: Option<String>,
    assertions: Vec<Assertion>,
    json: bool,
    hdr: Option<PathBuf>,
    quiet: bool,
    /// Of hey's flags: whether these were given.
    requests_given: bool,
    rate_per_worker_given: bool,
}

impl Own {
    fn read(parsed: &Parsed) -> Result<Self, UsageError> {
        let mut own = Own::default();
        for (name, value) in &parsed.flags {
            own.set(name, value).map_err(UsageError::flag)?;
        }
        let conflict = |text: &str| Err(UsageError::usage(text));
        if own.rate.is_some() && !own.stages.is_empty() {
            return conflict("--rate and --stages exclude each other: give the rate in the stages");
        }
        if own.open() && own.rate_per_worker_given {
            return conflict("-q limits workers, --rate and --stages set the rate of all: choose one");
        }
        if !own.stages.is_empty() && !own.ramp.is_zero() {
            return conflict("--ramp goes with --rate: write a ramp as the first of the --stages");
        }
        if !own.open() && (own.poisson || own.max_connections.is_some()) {
            return conflict("--poisson and --max-connections need --rate or --stages");
        }
        if own.cert.is_some() != own.key.is_some() {
            return conflict("--cert and --key need each other");
        }
        if own.baseline.is_some() && own.by.is_none() {
            return conflict("--baseline needs --by");
        }
        Ok(own)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let invalid = |why: &str| format!("invalid value {value:?} for flag -{name}: {why}");
        let on = value == "true";
        let duration = || parse_duration(value).map_err(|error| invalid(&error));
        match name {
            "n" => self.requests_given = true,
            "q" => self.rate_per_worker_given = go_flag::number::<f64>(name, value)? > 0.0,
            "rate" => {
                let rate: f64 = go_flag::number(name, value)?;
                if !(rate.is_finite() && rate > 0.0) {
                    return Err(invalid("must be above zero"));
                }
                self.rate = Some(rate);
            }
            "poisson" => self.poisson = on,
            "seed" => self.seed = go_flag::number(name, value)?,
            "max-connections" => {
                let connections = go_flag::number(name, value)?;
                if connections == 0 {
                    return Err(invalid("must be above zero"));
                }
                self.max_connections = Some(connections);
            }
            "warmup" => self.warmup = duration()?,
            "ramp" => self.ramp = duration()?,
            "stages" => self.stages = stages(value).map_err(|error| invalid(&error))?,
            "url" => self.urls.push(weighted_url(value).map_err(|error| invalid(&error))?),
            "template" => self.template = on,
            "h2c" => self.h2c = on,
            "unix" => self.unix = Some(PathBuf::from(value)),
            "cacert" => self.trust = Some(Trust::File(PathBuf::from(value))),
            "insecure" if on => self.trust = Some(Trust::Anyone),
            "cert" => self.cert = Some(value.to_owned()),
            "key" => self.key = Some(value.to_owned()),
            "resolve" => self.pins.push(Pin::parse(value).map_err(|error| invalid(&error))?),
            "by" => self.by = Some(group_by(value).map_err(|error| invalid(&error))?),
            "baseline" => self.baseline = Some(value.to_owned()),
            "assert" => self.assertions.push(Assertion::parse(value)?),
            "json" => self.json = on,
            "hdr" => self.hdr = Some(PathBuf::from(value)),
            "quiet" => self.quiet = on,
            _ => {}
        }
        Ok(())
    }

    fn open(&self) -> bool {
        self.rate.is_some() || !self.stages.is_empty()
    }

    /// Connections of an open model are a bound and no workers: fewer requests than connections are no mistake.
    fn fit_connections(&self, parsed: &mut Parsed) {
        let number = |name: &str, default: usize| {
            parsed.last(name).map_or(Some(default), |value| value.parse::<usize>().ok())
        };
        let Some(connections) = self.max_connections.or_else(|| number("c", 50)) else { return };
        let requests = if self.requests_given { number("n", 200) } else { None };
        let connections = connections.min(requests.unwrap_or(usize::MAX));
        parsed.flags.push(("c".to_owned(), connections.to_string()));
        if self.max_connections.is_some() && !self.requests_given {
            // hey's default of 200 is no wish of the user's.
            parsed.flags.push(("n".to_owned(), connections.max(200).to_string()));
        }
    }

    fn finish(self, hey: &hey::Args, mix: Mix, as_hey: bool) -> Result<Options, UsageError> {
        let refused = |text: String| UsageError::usage(text);
        let mut plan = hey.plan();
        let profile = match self.rate {
            Some(rate) if self.ramp.is_zero() => Some(Profile::constant(rate)),
            Some(rate) => Some(Profile::ramp(rate, self.ramp)),
            None if self.stages.is_empty() => None,
            None => Some(Profile::stages(&self.stages)),
        };
        if let Some(profile) = profile {
            if let Some(length) = profile.length() {
                plan.requests = plan.requests.filter(|_| self.requests_given);
                let left = length.saturating_sub(self.warmup);
                plan.duration = Some(plan.duration.map_or(left, |duration| duration.min(left)));
            }
            let arrivals =
                if self.poisson { Arrivals::random(profile, self.seed) } else { Arrivals::even(profile) };
            plan.pace = Pace::Open(arrivals);
        } else {
            plan.ramp = self.ramp;
        }
        plan.warmup = self.warmup;
        let output = match (hey.output, self.json) {
            (hey::Output::Csv, true) => {
                return Err(UsageError::usage("-o csv and --json exclude each other"));
            }
            (hey::Output::Csv, false) => Output::Csv,
            (hey::Output::Summary, true) => Output::Json,
            (hey::Output::Summary, false) => Output::Summary,
        };
        let tls = mix.requests().any(|request| request.url.scheme_str() == Some("https"));
        let mut notes = Vec::new();
        if hey.http2 && !tls && !self.h2c {
            notes.push(
                "-h2 is agreed on in TLS: plain http stays HTTP/1.1 (--h2c needs no agreement)".to_owned(),
            );
        }
        let identity = self.cert.as_deref().zip(self.key.as_deref());
        let trust = self.trust.unwrap_or(if as_hey { Trust::Anyone } else { Trust::System });
        // Redirects may lead to https, too.
        let needs_tls = tls || identity.is_some() || !hey.disable_redirects;
        let tls = if needs_tls {
            Some(client_config(&trust, identity, hey.http2 || self.h2c).map_err(refused)?)
        } else {
            None
        };
        let proxy = hey.proxy.as_deref().map(Proxy::parse).transpose().map_err(refused)?;
        Ok(Options {
            plan,
            mix,
            target: TargetOptions {
                timeout: hey.timeout,
                close: hey.disable_keepalive,
                keep_redirects: hey.disable_redirects,
                http2: hey.http2,
                http2_prior_knowledge: self.h2c,
                group_by: self.by,
            },
            route: Route { pins: self.pins, unix: self.unix, proxy, tls },
            threads: hey.cpus.unwrap_or(1),
            output,
            hdr: self.hdr,
            assertions: self.assertions,
            baseline: self.baseline,
            quiet: self.quiet,
            notes,
        })
    }
}

fn stages(text: &str) -> Result<Vec<Stage>, String> {
    let bad = |stage: &str| format!("stage {stage:?} must be RATE:DURATION, e.g. 100:30s");
    let mut stages = Vec::new();
    for stage in text.split(',') {
        let (rate, length) = stage.trim().split_once(':').ok_or_else(|| bad(stage))?;
        let rate: f64 = rate.parse().map_err(|_| bad(stage))?;
        if !(rate.is_finite() && rate >= 0.0) {
            return Err(bad(stage));
        }
        stages.push(Stage { rate, length: parse_duration(length).map_err(|_| bad(stage))? });
    }
    if stages.iter().all(|stage| stage.rate == 0.0 || stage.length.is_zero()) {
        return Err("these stages send nothing".to_owned());
    }
    Ok(stages)
}

fn weighted_url(text: &str) -> Result<(u32, String), String> {
    match text.split_once('=') {
        Some((weight, url)) if !weight.is_empty() && weight.bytes().all(|c| c.is_ascii_digit()) => {
            let weight: u32 = weight.parse().map_err(|_| "the weight is too large".to_owned())?;
            if weight == 0 {
                Err("the weight must be at least 1".to_owned())
            } else {
                Ok((weight, url.to_owned()))
            }
        }
        _ => Ok((1, text.to_owned())),
    }
}

fn group_by(text: &str) -> Result<GroupBy, String> {
    match text.split_once(':') {
        Some(("header", name)) if !name.is_empty() => Ok(GroupBy::Header(name.to_ascii_lowercase())),
        Some(("json", path)) if !path.is_empty() => {
            Ok(GroupBy::Json(path.split('.').map(str::to_owned).collect()))
        }
        None if text == "url" => Ok(GroupBy::Url),
        _ => Err("must be header:NAME, json:FIELD or url".to_owned()),
    }
}
