//! Command lines of hey, wrk and curl, and the shell around them.

use std::collections::BTreeMap;
use std::time::Duration;

use loadgen::shell::{self, Redirect, When};
use loadgen::{Pace, curl, hey, wrk};
use proptest::prelude::*;

fn args(line: &str) -> Vec<String> {
    shell::words(line).unwrap()[1..].to_vec()
}

#[test]
fn hey_flags_mean_what_they_mean_in_hey() {
    let parsed = hey::Args::parse(&args("hey -z 1m -q 10 -c 2 http://podinfo-canary.test:9898/")).unwrap();
    assert_eq!(parsed.duration, Some(Duration::from_secs(60)));
    let plan = parsed.plan();
    assert_eq!((plan.connections, plan.requests), (2, None));
    assert!(matches!(plan.pace, Pace::PerWorker(period) if period == Duration::from_millis(100)));
    assert_eq!(parsed.request.headers["user-agent"], "hey/0.0.1");
    assert_eq!(parsed.request.headers["content-type"], "text/html");
    assert_eq!(parsed.timeout, Some(Duration::from_secs(20)));

    let parsed = hey::Args::parse(&args(
        "hey --n=10 -c 5 -m post -d 'a b' -H 'X-A:  1' -H \"User-Agent: me\" -host h.example -a u:p:w -t 0 \
         -h2 -disable-keepalive=false -disable-redirects http://u2@x:80/p?q=1#f -z 1m",
    ))
    .unwrap();
    assert_eq!(parsed.request.method, "POST");
    assert_eq!(parsed.request.url, "http://x:80/p?q=1");
    assert_eq!(parsed.request.host(), "h.example");
    assert_eq!(&parsed.request.body[..], b"a b");
    assert_eq!(parsed.request.headers["x-a"], "1");
    assert_eq!(parsed.request.headers["user-agent"], "me hey/0.0.1");
    assert_eq!(parsed.request.headers["authorization"], "Basic dTpwOnc=");
    assert_eq!((parsed.timeout, parsed.http2, parsed.disable_redirects), (None, true, true));
    assert!(!parsed.disable_keepalive);
    assert_eq!(parsed.ignored, ["-z", "1m"]);
    // A third of a million microseconds, rounded down.
    let plan = hey::Args::parse(&args("hey -q 3 http://x/")).unwrap().plan();
    assert!(matches!(plan.pace, Pace::PerWorker(period) if period == Duration::from_micros(333_333)));
    // Go's client takes the Host from nowhere but -host.
    let parsed = hey::Args::parse(&args("hey -H 'Host: other' http://x/")).unwrap();
    assert_eq!(parsed.request.host(), "x");
}

#[test]
fn hey_refuses_in_its_own_words() {
    let check = |line: &str, code: i32, message: &str| {
        let error = hey::Args::parse(&args(line)).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message), "{line}");
    };
    check("hey", 1, "no URL given");
    check("hey -n 5 http://x/", 1, "-n cannot be less than -c.");
    check("hey -n 0 -c 1 http://x/", 1, "-n and -c cannot be smaller than 1.");
    check("hey -z 1s -c 0 http://x/", 1, "-c cannot be smaller than 1.");
    check("hey -z 5 http://x/", 2, "invalid value \"5\" for flag -z: parse error");
    check("hey -n ten http://x/", 2, "invalid value \"ten\" for flag -n: parse error");
    check("hey -rate 5 http://x/", 2, "flag provided but not defined: -rate");
    check("hey -h2=maybe http://x/", 2, "invalid boolean value \"maybe\" for -h2: parse error");
    check("hey -z", 2, "flag needs an argument: -z");
    check("hey -h 'A: b' http://x/", 1, "Flag '-h' is deprecated, please use '-H' instead.");
    check("hey -H nonsense http://x/", 1, "could not parse the provided input; input = nonsense");
    check("hey -a user http://x/", 1, "could not parse the provided input; input = user");
    check("hey -o json http://x/", 1, "unknown output \"json\": -o takes csv only");
    check(
        "hey localhost:8080",
        1,
        "parse \"localhost:8080\": unsupported protocol scheme \"\": the URL must begin with http:// or https://",
    );
    check("hey ftp://x/", 1, "parse \"ftp://x/\": unsupported protocol scheme \"ftp\"");
}

#[test]
fn wrk_and_wrk2_lines_are_understood() {
    let parsed =
        wrk::Args::parse(&args("wrk -t2 -c 10 --duration=30s -R100 --latency -H 'A: b' http://x/")).unwrap();
    assert_eq!((parsed.threads, parsed.connections), (2, 10));
    assert_eq!((parsed.duration, parsed.rate), (Duration::from_secs(30), Some(100.0)));
    assert!(parsed.latency && matches!(parsed.plan().pace, Pace::Open(_)));
    assert!(matches!(wrk::Args::parse(&args("wrk http://x/")).unwrap().plan().pace, Pace::Unlimited));
    for (line, message) in [
        ("wrk -t 4 -c 2 http://x/", "wrk: number of connections must be >= threads"),
        ("wrk -s post.lua http://x/", "wrk: Lua scripts are not supported (-s post.lua)"),
        ("wrk -d soon http://x/", "wrk: invalid value \"soon\" for option -d"),
        ("wrk --what 1 http://x/", "wrk: unrecognized option '--what'"),
        ("wrk -t", "wrk: option requires an argument -- 't'"),
        ("wrk -t 1", "wrk: no URL given"),
    ] {
        assert_eq!(wrk::Args::parse(&args(line)).unwrap_err(), message);
    }
}

#[test]
fn curl_lines_are_understood() {
    let parsed =
        curl::Args::parse(&args("curl -sfd 'test' -Hx-a:1 http://podinfo-canary:9898/token")).unwrap();
    assert!(parsed.silent && parsed.fail && !parsed.show_error);
    assert_eq!(parsed.requests[0].method, "POST");
    assert_eq!(&parsed.requests[0].body[..], b"test");
    assert_eq!(parsed.requests[0].headers["x-a"], "1");
    assert_eq!(parsed.requests[0].headers["content-type"], "application/x-www-form-urlencoded");
    let parsed = curl::Args::parse(&args(
        "curl -k -sS -X PUT -o /dev/null -w '%{http_code}\\n' --max-time 1.5 x:80/a",
    ))
    .unwrap();
    assert_eq!(parsed.requests[0].method, "PUT");
    assert_eq!(parsed.requests[0].url, "http://x:80/a");
    assert_eq!(parsed.write_out.as_deref(), Some("%{http_code}\n"));
    assert_eq!(parsed.max_time, Some(Duration::from_millis(1500)));
    let refused = |line: &str| curl::Args::parse(&args(line)).unwrap_err();
    assert_eq!(refused("curl -s"), (2, "curl: no URL specified!".into()));
    assert_eq!(refused("curl --bogus http://x/"), (2, "curl: option --bogus: is unknown".into()));
    assert_eq!(refused("curl -X"), (2, "curl: option -X: requires parameter".into()));
    assert_eq!(refused("curl 'http://a b/'").0, 3);
}

#[test]
fn the_shell_knows_quotes_variables_and_lists() {
    let env =
        BTreeMap::from([("URL".to_owned(), "http://x/".to_owned()), ("OPTS".into(), "-q 5  -c 2".into())]);
    let script = shell::parse(
        "A=1 hey $OPTS \"$URL${NONE:-y}\" '$URL' a\\ b >/dev/null 2>&1 && curl -s $URL | grep -q ok || echo no # end\n\
         HOST=h; hey \\\n  http://$HOST/",
        &env,
    )
    .unwrap();
    assert_eq!(script.len(), 5);
    let hey = &script[0].commands[0];
    assert_eq!(hey.env, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(hey.words, ["hey", "-q", "5", "-c", "2", "http://x/y", "$URL", "a b"]);
    assert_eq!(hey.redirects.len(), 2);
    assert_eq!(hey.redirects[1], Redirect::ErrorsToOutput);
    assert_eq!((script[1].when, script[1].commands.len()), (When::Success, 2));
    assert_eq!(script[1].commands[1].words, ["grep", "-q", "ok"]);
    assert_eq!(
        (script[2].when, script[2].commands[0].words.as_slice()),
        (When::Failure, &["echo".into(), "no".into()][..])
    );
    assert_eq!(script[4].commands[0].words, ["hey", "http://h/"]);
}

#[test]
fn the_shell_names_what_it_does_not_know() {
    for (script, message) in [
        ("hey 'http://x", "syntax error: unterminated quoted string (')"),
        ("hey \"http://x", "syntax error: unterminated quoted string (\")"),
        ("hey $(cat url)", "unsupported shell syntax: command substitution `$(`"),
        ("hey `cat url`", "unsupported shell syntax: command substitution (`)"),
        ("for i in 1 2; do hey http://x/; done", "unsupported shell syntax: `for`"),
        ("(hey http://x/)", "unsupported shell syntax: `(`"),
        ("hey http://x/ &", "unsupported shell syntax: background commands (`&`)"),
        ("hey http://x/ &&", "syntax error: unexpected end of file"),
        ("| hey", "syntax error near unexpected token `|'"),
        ("cat <<EOF", "unsupported shell syntax: here-documents (`<<`)"),
        ("echo $?", "unsupported shell syntax: `$?`"),
        ("echo ${a%b}", "unsupported shell syntax: `${a%b}`"),
    ] {
        assert_eq!(shell::parse(script, &BTreeMap::new()).unwrap_err(), message, "{script}");
    }
}

proptest! {
    #[test]
    fn quoted_words_come_back(list in prop::collection::vec("[ -~äß\\n]{0,12}", 1..6)) {
        let line: Vec<String> = list.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        prop_assert_eq!(shell::words(&line.join(" ")).unwrap(), list);
    }

    #[test]
    fn no_text_makes_a_parser_panic(line in "[ -~\\n]{0,60}") {
        let env = BTreeMap::new();
        for pipeline in shell::parse(&line, &env).unwrap_or_default() {
            for command in pipeline.commands {
                let _ = hey::Args::parse(&command.words);
                let _ = wrk::Args::parse(&command.words);
                let _ = curl::Args::parse(&command.words);
            }
        }
    }
}
