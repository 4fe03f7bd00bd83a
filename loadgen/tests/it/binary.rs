//! The binary as a user runs it.
#![allow(clippy::disallowed_methods, reason = "servers that take real time are what these tests are about")]

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{Server, Then, answer, loadgen, ok, report};

#[test]
fn open_model_requests_are_exact_and_late_ones_tell_how_late() {
    // One request in the middle stalls the only connection for 300 ms.
    let server = Server::start(|_, number| {
        if number == 60 {
            std::thread::sleep(Duration::from_millis(300));
        }
        (ok("x"), Then::Keep)
    });
    let report = report(&["-z", "1s", "--rate", "200", "--max-connections", "1", &server.url("/")]);
    assert_eq!(report["requests"], 200);
    assert_eq!(server.count(), 200);
    let at = |of: &str, quantile: &str| report[of][quantile].as_f64().unwrap();
    assert!(at("latency_from_due", "p99") > 0.25, "{report}");
    assert!(at("latency", "p99") < 0.2, "a closed look at the same run sees one slow request");
    let total = report["total_seconds"].as_f64().unwrap();
    assert!((1.0..1.3).contains(&total), "{total}");
    assert_eq!(*server.connections.lock().unwrap(), 1);
}

#[test]
fn weights_templates_and_groups_work_together() {
    // The canary fails every third request and is slower.
    let server = Server::start(|request, number| {
        let canary = request.line.contains("canary");
        if canary {
            std::thread::sleep(Duration::from_millis(3));
        }
        let version = if canary { "v2" } else { "v1" };
        let header = format!("X-Version: {version}\r\n");
        let status = if canary && number % 3 == 0 { "503 Service Unavailable" } else { "200 OK" };
        (answer(status, &header, &format!("{{\"info\": {{\"version\": \"{version}\"}}}}")), Then::Keep)
    });
    let (primary, canary) =
        (format!("3={}", server.url("/primary/{{n}}")), format!("1={}", server.url("/canary/{{uuid}}")));
    let flags = ["-n", "4000", "-c", "4", "--template", "--url", &primary, "--url", &canary];
    let by_header = report(&[&flags[..], &["--by", "header:X-Version", "--baseline", "v1"]].concat());
    assert_eq!(by_header["groups"]["v1"]["requests"], 3000);
    assert_eq!(by_header["groups"]["v2"]["requests"], 1000);
    let comparison = &by_header["comparisons"]["v2"];
    assert_eq!(comparison["verdict"], "worse", "{comparison:#}");
    assert!(comparison["errors_p"].as_f64().unwrap() < 1e-6);
    assert!(comparison["quantiles"][0]["difference"].as_f64().unwrap() > 0.002);
    let paths: std::collections::BTreeSet<String> =
        server.requests.lock().unwrap().iter().map(|request| request.line.clone()).collect();
    assert_eq!(paths.len(), 4000, "every request has a path of its own");

    let small = ["-n", "40", "-c", "1", "--template", "--url", &primary, "--url", &canary];
    let by_json = report(&[&small[..], &["--by", "json:info.version"]].concat());
    assert_eq!(by_json["groups"]["v2"]["requests"], 10);
    let last = server.requests.lock().unwrap().last().unwrap().clone();
    assert!(!last.headers.contains_key("accept-encoding"), "no one can look into a compressed body");
    let by_url = report(&[&small[..], &["--by", "url"]].concat());
    assert_eq!(by_url["groups"].as_object().unwrap().len(), 2);
    let text = loadgen(&[&small[..], &["--by", "header:x-version"]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("v2 against v1: "), "{text}");
}

#[test]
fn assertions_decide_the_exit_code() {
    let server = Server::start(|_, number| {
        (if number == 9 { answer("500 Oops", "", "") } else { ok("x") }, Then::Keep)
    });
    let run = |assertion: &str| {
        let output = loadgen(&["-n", "10", "-c", "1", "--assert", assertion, &server.url("/")]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run("success>=90%").0, Some(0));
    let (code, text) = run("success>90%");
    assert_eq!((code, text.as_str()), (Some(3), "loadgen: FAILED: success>90% (90.0000%)\n"));
    assert_eq!(run("p99<10s").0, Some(0));
    assert_eq!(run("requests>=11").0, Some(3));
}

#[test]
fn logs_of_several_runs_merge() {
    let server = Server::plain();
    let file = |name: &str| format!("{}/{name}.hdr", env!("CARGO_TARGET_TMPDIR"));
    for (name, requests) in [("one", "30"), ("two", "12")] {
        let output = loadgen(&["-n", requests, "-c", "2", "--hdr", &file(name), &server.url("/")]);
        assert!(output.status.success(), "{output:?}");
    }
    let merge = |args: &[&str]| {
        let output = loadgen(&[&["merge"], args].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = merge(&["-o", &file("sum"), &file("one"), &file("two")]);
    assert!(code == Some(0) && text.starts_with("all: 42 answers, "), "{text}");
    let (_, again) = merge(&[&file("sum")]);
    assert_eq!(again, text, "the merged log holds the same");
    std::fs::write(file("broken"), "Tag=a,0.1,1.0,2.0,AAAA\n").unwrap();
    assert_eq!(merge(&[&file("broken")]).0, Some(1));
}

#[test]
fn a_log_that_cannot_be_written_costs_no_run() {
    let server = Server::plain();
    let output = loadgen(&["-n", "1", "-c", "1", "--hdr", "/nonexistent/log.hdr", &server.url("/")]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        text,
        "loadgen: HdrHistogram log /nonexistent/log.hdr: No such file or directory (os error 2)\n"
    );
    assert_eq!((output.status.code(), server.count()), (Some(1), 0));
}

#[test]
fn an_interrupt_ends_the_run_with_its_summary() {
    let server = Server::plain();
    let child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["--json", "-z", "10m", "-c", "3", "-q", "50", &server.url("/")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while server.count() < 5 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["interrupted"], &report["abandoned"]), (&json!(true), &json!(0)));
    assert_eq!(report["statuses"]["200"], server.count(), "what was sent was waited for");
}

#[test]
fn an_interrupt_does_not_wait_for_a_server_that_hangs() {
    let server = Server::start(|_, _| (Vec::new(), Then::Hang));
    let child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["--json", "-n", "2", "-c", "2", &server.url("/")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while server.count() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    // The second one gives up at once.
    for _ in 0..2 {
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["requests"], &report["abandoned"]), (&json!(0), &json!(2)));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors, "loadgen: interrupted: 2 requests were still on their way\n");
}

#[test]
fn wrong_command_lines_say_what_is_wrong_with_them() {
    let check = |args: &[&str], code: i32, message: &str| {
        let output = loadgen(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().next().unwrap()), (Some(code), message), "{args:?}");
    };
    let after = "loadgen: unexpected argument \"-n\" after the URL: flags go before the URL";
    check(&["http://x/", "-n", "5"], 1, after);
    check(&["-n", "1", "-c", "2", "http://x/"], 1, "loadgen: -n cannot be less than -c.");
    check(&["--rate", "fast", "http://x/"], 2, "loadgen: invalid value \"fast\" for flag -rate: parse error");
    check(
        &["--rate", "5", "-q", "1", "http://x/"],
        1,
        "loadgen: -q limits workers, --rate and --stages set the rate of all: choose one",
    );
    check(
        &["--stages", "10", "http://x/"],
        2,
        "loadgen: invalid value \"10\" for flag -stages: stage \"10\" must be RATE:DURATION, e.g. 100:30s",
    );
    check(
        &["-D", "/nonexistent/body", "http://x/"],
        1,
        "loadgen: request body /nonexistent/body: No such file or directory (os error 2)",
    );
    check(
        &["--assert", "p99", "http://x/"],
        2,
        "loadgen: assertion \"p99\": write METRIC<VALUE, e.g. p99<500ms",
    );
    assert!(String::from_utf8(loadgen(&["-help"]).stdout).unwrap().contains("\n  -n NUMBER "));
}

#[test]
fn names_and_sockets_can_be_pinned() {
    let server = Server::plain();
    let port = server.address.port();
    let pin = format!("podinfo.test:{port}:127.0.0.1");
    let pinned = report(&["-n", "2", "-c", "1", "--resolve", &pin, &format!("http://podinfo.test:{port}/")]);
    assert_eq!(pinned["statuses"], json!({"200": 2}));
    let host = format!("podinfo.test:{port}");
    assert_eq!(server.requests.lock().unwrap()[0].headers["host"], host);
    // A proxy gets the whole URL.
    let proxied = report(&["-n", "1", "-c", "1", "-x", &server.address.to_string(), "http://far.away/x"]);
    assert_eq!(proxied["statuses"], json!({"200": 1}));
    assert_eq!(server.requests.lock().unwrap()[2].line, "GET http://far.away/x HTTP/1.1");

    let path = format!("{}/unix-socket", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
            stream.write_all(&ok("x")).unwrap();
        }
    });
    let unix = report(&["-n", "3", "-c", "1", "--unix", &path, "http://x/"]);
    assert_eq!(unix["statuses"], json!({"200": 3}));
}

#[test]
fn several_threads_send_exactly_what_one_would() {
    let server = Server::plain();
    let report = report(&["-n", "100", "-c", "7", "-cpus", "3", &server.url("/")]);
    assert_eq!((&report["requests"], server.count()), (&json!(98), 98));
    assert_eq!(*server.connections.lock().unwrap(), 7);
}

#[test]
fn a_warmup_is_sent_but_not_counted() {
    let server = Server::plain();
    let url = server.url("/");
    let report = report(&["-n", "20", "--rate", "200", "--warmup", "200ms", "--ramp", "100ms", &url]);
    assert_eq!(report["requests"], 20);
    // Half of 20 in the ramp, 20 at full rate; the one that falls on the end may be either.
    assert!((49..=51).contains(&server.count()), "{}", server.count());
}
