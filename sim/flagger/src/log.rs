//! Flagger's log: zap's JSON lines, one object per line, keys in zap's order.

use canary::Dialect;
use clock::{Clock, Timestamp};
use program::LogSink;

/// A line's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For people who debug the controller.
    Debug,
    /// What happens; most refusals too.
    Info,
    /// What looks wrong.
    Warn,
    /// What failed.
    Error,
    /// What ends the program.
    Fatal,
}

impl Level {
    /// The level that `-log-level` names; info for unknown ones.
    pub fn parse(text: &str) -> Level {
        match text {
            "debug" => Level::Debug,
            "warning" => Level::Warn,
            "error" => Level::Error,
            "fatal" => Level::Fatal,
            _ => Level::Info,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }
}

/// Where in Flagger's sources a line is printed: the last folder, file and line, per dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// In `v1.0.0-rc.1`.
    pub rc1: &'static str,
    /// In `v1.44.0`.
    pub latest: &'static str,
}

/// A place in the sources.
pub const fn site(rc1: &'static str, latest: &'static str) -> Site {
    Site { rc1, latest }
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its level.
    pub level: Level,
    /// When it is printed.
    pub at: Timestamp,
    /// Where it is printed, e.g. `controller/events.go:15`.
    pub caller: &'a str,
    /// What it says.
    pub message: &'a str,
    /// The Canary that it is about, `NAME.NAMESPACE`.
    pub canary: Option<&'a str>,
}

impl Line<'_> {
    /// The line as zap's JSON encoder writes it. Errors carry a stack, of which the first frame is given.
    pub fn json(&self, dialect: Dialect) -> String {
        let mut text = format!(
            r#"{{"level":"{}","ts":"{:.3}","caller":{},"msg":{}"#,
            self.level.name(),
            self.at,
            quoted(self.caller),
            quoted(self.message)
        );
        if let Some(canary) = self.canary {
            text.push_str(&format!(r#","canary":{}"#, quoted(canary)));
        }
        if self.level >= Level::Error {
            text.push_str(&format!(r#","stacktrace":{}"#, quoted(&stack(self.caller, dialect))));
        }
        text.push('}');
        text
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

fn stack(caller: &str, dialect: Dialect) -> String {
    let (package, _) = caller.split_once('/').unwrap_or(("controller", ""));
    let folder = if package == "flagger" { "cmd/flagger" } else { &format!("pkg/{package}") };
    let (module, root) = match dialect {
        Dialect::Rc1 => ("github.com/weaveworks/flagger", "/home/circleci/build"),
        Dialect::Latest => ("github.com/fluxcd/flagger", "/workspace"),
    };
    let file = caller.split_once('/').map_or(caller, |(_, file)| file);
    format!("{module}/{folder}\n\t{root}/{folder}/{file}")
}

/// The program's log. Cheap to clone.
#[derive(Clone)]
pub struct Logger {
    sink: LogSink,
    clock: Clock,
    least: Level,
    dialect: Dialect,
}

impl Logger {
    /// A log that leaves out what is below `least`.
    pub fn new(sink: LogSink, clock: Clock, least: Level, dialect: Dialect) -> Self {
        Logger { sink, clock, least, dialect }
    }

    /// Prints a line that is about no Canary.
    pub fn print(&self, level: Level, at: Site, message: &str) {
        self.write(level, at, message, None);
    }

    /// Prints a line about a Canary (`NAME.NAMESPACE`).
    pub fn about(&self, level: Level, at: Site, canary: &str, message: &str) {
        self.write(level, at, message, Some(canary));
    }

    fn write(&self, level: Level, at: Site, message: &str, canary: Option<&str>) {
        if level < self.least {
            return;
        }
        let caller = match self.dialect {
            Dialect::Rc1 => at.rc1,
            Dialect::Latest => at.latest,
        };
        let line = Line { level, at: self.clock.now(), caller, message, canary };
        self.sink.print(&line.json(self.dialect));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_zaps() {
        let at: Timestamp = "2020-03-17T11:44:13.1239Z".parse().unwrap();
        let line = Line {
            level: Level::Info,
            at,
            caller: "controller/events.go:27",
            message: "Halt podinfo.test advancement success rate 96.20% < 99% \"x\"",
            canary: Some("podinfo.test"),
        };
        assert_eq!(
            line.json(Dialect::Rc1),
            "{\"level\":\"info\",\"ts\":\"2020-03-17T11:44:13.123Z\",\"caller\":\"controller/events.go:27\",\
             \"msg\":\"Halt podinfo.test advancement success rate 96.20% < 99% \\\"x\\\"\",\
             \"canary\":\"podinfo.test\"}"
        );
        let line = Line { level: Level::Error, message: "m", canary: None, ..line };
        assert_eq!(
            line.json(Dialect::Rc1),
            "{\"level\":\"error\",\"ts\":\"2020-03-17T11:44:13.123Z\",\"caller\":\"controller/events.go:27\",\
             \"msg\":\"m\",\"stacktrace\":\"github.com/weaveworks/flagger/pkg/controller\\n\\t\
             /home/circleci/build/pkg/controller/events.go:27\"}"
        );
    }
}
