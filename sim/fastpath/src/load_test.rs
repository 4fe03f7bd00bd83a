//! What a load-test webhook sends: the command line of hey and of the generators that resemble it.

use crd::{CanaryWebhook, HookType};

/// A stream of synthetic requests that a webhook starts.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadTest {
    /// The webhook's name.
    pub hook: String,
    /// The command, as the webhook carries it.
    pub command: String,
    /// Requests that are sent together.
    pub batch: u32,
    /// Milliseconds between batches, if a rate is set; without one, each worker sends its next request when it has an
    /// answer.
    pub period_ms: Option<f64>,
    /// How long it lasts in milliseconds, if a time is set.
    pub duration_ms: Option<i64>,
    /// How many requests it sends, if a number is set.
    pub requests: Option<u32>,
    /// The URL's host, without port.
    pub host: String,
    /// The value of a Host header, if one is set.
    pub host_header: Option<String>,
}

impl LoadTest {
    /// The load test of a webhook: a task of the load tester that runs hey, wrk, or another generator with a URL.
    /// `None` for gates, hooks of other types and commands without a URL.
    pub fn of(hook: &CanaryWebhook) -> Option<LoadTest> {
        if !matches!(hook.kind, HookType::Unset | HookType::Rollout) {
            return None;
        }
        let metadata = hook.metadata.as_ref()?;
        let kind = metadata.get("type").map_or("cmd", String::as_str);
        let command = metadata.get("cmd")?;
        if kind != "cmd" {
            return None;
        }
        LoadTest::parse(&hook.name, command)
    }

    /// Reads a command.
    pub fn parse(hook: &str, command: &str) -> Option<LoadTest> {
        let words: Vec<&str> =
            command.split_whitespace().map(|word| word.trim_matches(|c| c == '"' || c == '\'')).collect();
        let url = words.iter().find(|word| word.starts_with("http://") || word.starts_with("https://"))?;
        let host = url.split_once("://")?.1.split(['/', ':', '?']).next()?.to_owned();
        let after = |names: &[&str]| {
            words.iter().enumerate().find_map(|(index, word)| {
                if let Some(name) = names.iter().find(|name| word == *name) {
                    let _ = name;
                    return words.get(index + 1).copied();
                }
                let long = names.iter().filter(|name| name.starts_with("--"));
                long.filter_map(|name| word.strip_prefix(name)?.strip_prefix('=')).next()
            })
        };
        let number = |names: &[&str]| after(names).and_then(|text| text.parse::<f64>().ok());
        let span = |names: &[&str]| {
            let text = after(names)?;
            let plain = text.parse::<u64>().ok().map(std::time::Duration::from_secs);
            canary::parse_duration(text).or(plain).map(|span| span.as_millis() as i64)
        };
        let tool = words.iter().find_map(|word| {
            let name = word.rsplit('/').next().unwrap_or(word);
            ["hey", "wrk", "wrk2", "ab", "oha", "fortio", "vegeta"].into_iter().find(|tool| name == *tool)
        });
        let header = words.windows(2).find_map(|two| match two {
            ["-host" | "--host", host] => Some((*host).to_owned()),
            ["-H", "Host:"] => None,
            ["Host:" | "host:", host] => Some((*host).to_owned()),
            ["-H", header] => {
                let (name, value) = header.split_once(':')?;
                (name.eq_ignore_ascii_case("host") && !value.is_empty()).then(|| value.trim().to_owned())
            }
            _ => None,
        });
        let mut test = LoadTest {
            hook: hook.to_owned(),
            command: command.trim().to_owned(),
            batch: 1,
            period_ms: None,
            duration_ms: None,
            requests: None,
            host,
            host_header: header,
        };
        match tool {
            Some("wrk" | "wrk2") => {
                test.batch = number(&["-c", "--connections"]).unwrap_or(10.0) as u32;
                test.duration_ms = Some(span(&["-d", "--duration"]).unwrap_or(10_000));
                if let Some(rate) = number(&["-R", "--rate"]) {
                    (test.batch, test.period_ms) = (1, Some(1000.0 / rate.max(1e-3)));
                }
            }
            Some("oha") => {
                test.batch = number(&["-c"]).unwrap_or(50.0) as u32;
                test.duration_ms = span(&["-z"]);
                test.requests = test.duration_ms.is_none().then(|| number(&["-n"]).unwrap_or(200.0) as u32);
                if let Some(rate) = number(&["-q"]) {
                    (test.batch, test.period_ms) = (1, Some(1000.0 / rate.max(1e-3)));
                }
            }
            Some("fortio") => {
                let rate = number(&["-qps", "--qps"]).unwrap_or(8.0);
                (test.batch, test.period_ms) = (1, Some(1000.0 / rate.max(1e-3)));
                test.duration_ms = Some(span(&["-t"]).unwrap_or(5_000));
            }
            _ => {
                // hey's own: -q is per worker, and each worker's first request comes after one period.
                test.batch = number(&["-c"]).unwrap_or(50.0) as u32;
                test.duration_ms = span(&["-z"]);
                test.requests = test.duration_ms.is_none().then(|| number(&["-n"]).unwrap_or(200.0) as u32);
                if let Some(rate) = number(&["-q"]).filter(|rate| *rate > 0.0) {
                    test.period_ms = Some((1e6 / rate).floor() / 1000.0);
                }
            }
        }
        test.batch = test.batch.max(1);
        Some(test)
    }

    /// Milliseconds between batches when an answer takes `latency` seconds on average.
    pub fn period(&self, latency: f64) -> f64 {
        let answer = (latency * 1000.0).max(0.01);
        self.period_ms.map_or(answer, |period| period.max(answer))
    }

    /// Requests per second.
    pub fn rate(&self, latency: f64) -> f64 {
        f64::from(self.batch) * 1000.0 / self.period(latency)
    }

    /// Milliseconds from start to end, the last answer included.
    pub fn length(&self, latency: f64) -> i64 {
        let answer = (latency * 1000.0).ceil() as i64 + 1;
        match (self.duration_ms, self.requests) {
            (Some(duration), _) => duration + answer,
            (None, Some(requests)) => {
                let batches = f64::from(requests.div_ceil(self.batch));
                (batches * self.period(latency)).ceil() as i64 + answer
            }
            (None, None) => i64::MAX / 4,
        }
    }

    /// How its requests come when an answer takes `latency` seconds on average.
    pub fn pace(&self, latency: f64) -> Pace {
        Pace {
            batch: i64::from(self.batch),
            period: self.period(latency),
            duration: self.duration_ms.unwrap_or(i64::MAX),
            most: self.requests.unwrap_or(u32::MAX / 2),
        }
    }
}

/// How a load test's requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    batch: i64,
    /// Milliseconds between batches.
    period: f64,
    /// Milliseconds until the last batch.
    duration: i64,
    /// Requests in all.
    most: u32,
}

impl Pace {
    /// Requests sent in the first `elapsed` milliseconds.
    #[inline]
    pub fn sent(&self, elapsed: i64) -> u32 {
        if elapsed <= 0 {
            return 0;
        }
        // Conversions cut the fraction off.
        let batches = (elapsed.min(self.duration) as f64 / self.period + 1e-9) as i64;
        (batches * self.batch).min(i64::from(self.most)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_articles_command() {
        let test =
            LoadTest::parse("load-test", "hey -z 1m -q 10 -c 2 http://podinfo-canary.test:9898/").unwrap();
        assert_eq!((test.batch, test.period_ms, test.duration_ms), (2, Some(100.0), Some(60_000)));
        assert_eq!(test.host, "podinfo-canary.test");
        assert_eq!(test.rate(0.03), 20.0);
        let pace = test.pace(0.03);
        assert_eq!(pace.sent(30_000), 600);
        assert_eq!(pace.sent(99), 0);
        assert_eq!(pace.sent(90_000), 1200);
        assert_eq!(test.length(0.03), 60_031);
        // Slower answers than the workers' rate: the workers wait.
        assert_eq!(test.rate(0.2), 10.0);
    }

    #[test]
    fn other_generators() {
        let hey = LoadTest::parse("", "hey -n 1000 -c 10 -host app.example.com http://1.2.3.4/").unwrap();
        assert_eq!((hey.requests, hey.host_header.as_deref()), (Some(1000), Some("app.example.com")));
        let wrk = LoadTest::parse("", "wrk -t2 -c 4 -d 30s -R 100 http://podinfo/").unwrap();
        assert_eq!((wrk.period_ms, wrk.duration_ms), (Some(10.0), Some(30_000)));
        assert_eq!(LoadTest::parse("", "echo hello"), None);
    }
}
