//! hey itself beside ours, on the same server: the same requests on the wire, the same fields in the output. Needs
//! hey 0.1.4 (Debian packages it); without it these tests say so and check ours alone.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::server::{Request, Server, Then, answer, ok};

/// Ours, and hey if there is one.
fn programs() -> Vec<&'static str> {
    let ours = env!("CARGO_BIN_EXE_loadgen");
    if Command::new("hey").output().is_ok() {
        vec![ours, "hey"]
    } else {
        eprintln!("hey is not installed: nothing to compare with");
        vec![ours]
    }
}

/// Runs both.
fn both(args: &[&str]) -> Vec<Output> {
    programs().iter().map(|program| Command::new(program).args(args).output().unwrap()).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A summary's fields: section and label, with the value if it does not depend on time.
fn fields(summary: &str) -> Vec<(String, String)> {
    let (mut section, mut fields) = (String::new(), Vec::new());
    for line in summary.lines() {
        if !line.starts_with(' ') {
            line.trim_end().clone_into(&mut section);
            continue;
        }
        let line = line.trim();
        let (label, value) = match section.as_str() {
            "Response time histogram:" => {
                // Eleven rows, whatever they hold.
                let (_, rest) = line.split_once(" [").unwrap();
                assert!(rest.contains("]\t|"), "{line}");
                ("bucket", "")
            }
            "Latency distribution:" => (line.split(" in ").next().unwrap(), ""),
            "Status code distribution:" => line.split_once('\t').unwrap(),
            "Error distribution:" => line.split_once('\t').map(|(count, text)| (text, count)).unwrap(),
            _ => match line.split_once('\t') {
                Some((label @ ("Total data:" | "Size/request:"), value)) => (label, value),
                Some((label, value)) => {
                    let unit = value.ends_with("secs") || label == "Requests/sec:";
                    assert!(unit, "{line}");
                    // As many figures in a row.
                    (label, if value.matches("secs").count() == 3 { "three" } else { "one" })
                }
                None => (line, ""),
            },
        };
        fields.push((format!("{section} {label}"), value.to_owned()));
    }
    fields
}

#[test]
fn the_summary_has_the_same_fields() {
    for args in [
        &["-n", "400", "-c", "5"][..],
        &["-n", "203", "-c", "10"],
        &["-n", "6", "-c", "2"],
        &["-n", "40", "-c", "4", "-disable-keepalive"],
        &["-n", "20", "-c", "2", "-m", "POST", "-d", "x"],
        &["-n", "10", "-c", "1", "-m", "HEAD"],
    ] {
        let summaries = programs().into_iter().map(|program| {
            // Every fourth answer is a 404, whatever connection it comes on.
            let served = AtomicUsize::new(0);
            let is_head = args.contains(&"HEAD");
            let server = Server::start(move |_, _| {
                let missing = served.fetch_add(1, Ordering::Relaxed) % 4 == 3;
                let mut sent = if missing { answer("404 Not Found", "", "none") } else { ok("hello") };
                if is_head {
                    // HEAD is answered with the length of a body, and without the body.
                    sent.truncate(sent.len() - if missing { 4 } else { 5 });
                }
                (sent, Then::Keep)
            });
            let output = Command::new(program).args(args).arg(server.url("/")).output().unwrap();
            assert!(output.status.success());
            fields(&text(&output))
        });
        let summaries: Vec<_> = summaries.collect();
        assert_eq!(summaries[0][0].0, "Summary: Total:");
        for summary in &summaries {
            assert_eq!(*summary, summaries[0], "{args:?}");
        }
    }
}

#[test]
fn failures_are_told_in_the_same_words() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closing = Server::start(|_, _| (Vec::new(), Then::Close));
    for url in [format!("http://{free}/"), closing.url("/a?b=c")] {
        let outputs = both(&["-n", "6", "-c", "2", &url]);
        let errors = |output: &Output| {
            let text = text(output);
            let (_, errors) = text.split_once("Error distribution:\n").unwrap();
            errors.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let ours = errors(&outputs[0]);
        assert!(ours.len() == 1 && ours[0].starts_with("  [6]\tGet \"http://"), "{ours:?}");
        for output in &outputs {
            assert_eq!(errors(output), ours);
            assert_eq!(output.status.code(), Some(0), "failed requests are results");
        }
    }
}

#[test]
fn csv_has_the_same_columns_and_rows() {
    let server = Server::plain();
    for output in both(&["-n", "12", "-c", "3", "-o", "csv", &server.url("/")]) {
        let text = text(&output);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(loadgen::hey::CSV_HEADER));
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
        assert_eq!(rows.len(), 12);
        for row in rows {
            assert_eq!((row.len(), row[6]), (8, "200"));
            for (column, value) in row.iter().enumerate().filter(|(column, _)| *column != 6) {
                let decimals = value.split_once('.').map(|(_, decimals)| decimals.len());
                assert_eq!((value.parse::<f64>().is_ok(), decimals), (true, Some(4)), "column {column}");
            }
        }
    }
}

#[test]
fn the_same_flags_send_the_same_request() {
    let body = format!("{}/body-of-hey", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&body, "from a file").unwrap();
    for args in [
        &[][..],
        &["-m", "post", "-d", "a=b", "-T", "application/x-www-form-urlencoded"],
        &["-m", "PUT", "-D", &body],
        &["-m", "POST"],
        &["-m", "DELETE"],
        &["-H", "X-One: 1", "-H", "Accept: text/plain", "-A", "application/json", "-H", "x-two:2"],
        &["-host", "podinfo.example"],
        &["-H", "Host: ignored"],
        &["-disable-compression"],
        &["-disable-keepalive"],
        &["-m", "HEAD"],
    ] {
        let server = Server::plain();
        let url = server.url("/path?query=1&x=%20y");
        for output in both(&[&["-n", "1", "-c", "1"], args, &[&url]].concat()) {
            assert!(output.status.success(), "{output:?}");
        }
        let requests: Vec<Request> = server.requests.lock().unwrap().clone();
        assert!(requests[0].line.contains(" /path?query=1&x=%20y HTTP/1.1"), "{requests:?}");
        let differing: BTreeMap<_, _> = requests.iter().map(|request| (&request.line, request)).collect();
        assert_eq!(differing.len(), 1);
        assert!(requests.iter().all(|request| *request == requests[0]), "{args:?}: {requests:#?}");
    }
}

/// hey 0.1.4 takes `-a` and a `User-Agent` and forgets them before it sends; ours sends them.
#[test]
fn what_hey_forgets_is_sent() {
    let server = Server::plain();
    let url = server.url("/");
    crate::server::report(&["-n", "1", "-c", "1", "-a", "user:pass:word", "-H", "User-Agent: me", &url]);
    let headers = server.requests.lock().unwrap()[0].headers.clone();
    assert_eq!(headers["authorization"], "Basic dXNlcjpwYXNzOndvcmQ=");
    assert_eq!(headers["user-agent"], "me hey/0.0.1");
}
