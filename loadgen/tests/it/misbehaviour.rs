//! Servers that do not do what they should: everything is counted with its reason, nothing hangs.

use serde_json::{Value, json};

use crate::server::{Server, Then, answer, ok, report};

/// Runs four requests over two connections against a server that always gives this answer; returns the report and
/// the one text of its errors, without the URL.
fn failing(bytes: &'static [u8], then: Then, flags: &[&str]) -> (Value, String) {
    let server = Server::start(move |_, _| (bytes.to_vec(), then));
    let url = server.url("/");
    let report = report(&[&["-n", "4", "-c", "2"], flags, &[&url]].concat());
    assert_eq!(report["requests"], 4);
    let errors = report["errors"].as_object().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let (text, count) = errors.iter().next().unwrap();
    assert_eq!(count, 4);
    let text = text.strip_prefix(&format!("Get \"{url}\": ")).unwrap().to_owned();
    (report, text)
}

#[test]
fn each_failure_has_its_reason() {
    let check = |bytes, then, kind: &str, text: &str| {
        let (report, found) = failing(bytes, then, &[]);
        assert_eq!(report["failures"], json!({kind: 4}), "{text}");
        assert_eq!(found, text);
    };
    check(b"", Then::Close, "reset", "EOF");
    check(b"HTTP/1.1 200 OK\r\nContent-Le", Then::Close, "reset", "unexpected EOF");
    check(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Then::Close, "reset", "unexpected EOF");
    check(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        Then::Close,
        "reset",
        "unexpected EOF",
    );
    check(
        b"\x16\x03\x01 what\r\n",
        Then::Close,
        "protocol",
        "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"\\u{16}\\u{3}\\u{1} what\"",
    );
    check(
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        Then::Keep,
        "protocol",
        "net/http: HTTP/1.x transport connection broken: bad Content-Length \"many\"",
    );
}

#[test]
fn a_server_that_never_answers_costs_the_time_limit() {
    for (bytes, text) in [
        (&b""[..], "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)",
        ),
    ] {
        let (report, found) = failing(bytes, Then::Hang, &["-t", "1"]);
        assert_eq!(report["failures"], json!({"timeout": 4}));
        assert_eq!(found, text);
        let total = report["total_seconds"].as_f64().unwrap();
        assert!((2.0..3.5).contains(&total), "two rounds of one second each, got {total}");
    }
}

#[test]
fn a_body_without_end_does_not_outlast_the_time_limit() {
    // Faster than anyone reads, so that there is always more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                use std::io::Write as _;
                let chunks = "1\r\nx\r\n".repeat(20_000);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                while stream.write_all(chunks.as_bytes()).is_ok() {}
            });
        }
    });
    let report = report(&["-n", "4", "-c", "4", "-t", "1", &url]);
    assert_eq!(report["failures"], json!({"timeout": 4}), "{report}");
    assert!(report["total_seconds"].as_f64().unwrap() < 5.0, "all four at once: {report}");
}

#[test]
fn floods_of_headers_end() {
    let server = Server::start(|_, _| {
        let flood = format!("HTTP/1.1 200 OK\r\n{}", format!("A: {}\r\n", "b".repeat(1000)).repeat(1000));
        (flood.into_bytes(), Then::Hang)
    });
    let report = report(&["-n", "2", "-c", "1", &server.url("/")]);
    assert_eq!(report["failures"], json!({"protocol": 2}));
    assert!(report["errors"].to_string().contains("server response headers exceeded"), "{report}");
}

#[test]
fn nobody_there_and_no_such_name_are_told_apart() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = report(&["-n", "3", "-c", "1", &format!("http://{free}/x")]);
    assert_eq!(refused["failures"], json!({"connect": 3}));
    let text = format!("Get \"http://{free}/x\": dial tcp {free}: connect: connection refused");
    assert_eq!(refused["errors"], json!({text: 3}));
    let unknown = report(&["-n", "3", "-c", "1", "http://nosuchhost.invalid/"]);
    assert_eq!(unknown["failures"], json!({"resolve": 3}));
    let socket = report(&["-n", "1", "-c", "1", "--unix", "/nonexistent/socket", "http://x/"]);
    let text = "Get \"http://x/\": dial unix /nonexistent/socket: connect: no such file or directory";
    assert_eq!(socket["errors"], json!({text: 1}));
}

#[test]
fn a_server_that_closes_idle_connections_costs_no_request() {
    // Every connection serves two requests and closes without a word.
    let server = Server::start(|_, number| (ok("x"), if number == 1 { Then::Close } else { Then::Keep }));
    let report = report(&["-n", "20", "-c", "2", &server.url("/")]);
    assert_eq!(report["statuses"], json!({"200": 20}));
    assert_eq!(server.count(), 20, "no request was sent twice");
    assert!(*server.connections.lock().unwrap() >= 10);
}

#[test]
fn an_early_answer_to_a_large_body_is_taken() {
    // The server reads the head of each request alone; the body stays in the socket.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            use std::io::{Read as _, Write as _};
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(&answer("413 Content Too Large", "Connection: close\r\n", "no"));
            // Held open until the client is done, so that no reset overtakes the answer.
            std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    let file = format!("{}/large-body", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&file, vec![b'x'; 8 << 20]).unwrap();
    let report =
        report(&["-n", "2", "-c", "1", "-t", "5", "-m", "POST", "-D", &file, &format!("http://{address}/")]);
    assert_eq!(report["statuses"], json!({"413": 2}), "{report}");
}

#[test]
fn redirects_are_followed_as_far_as_go_does() {
    let server = Server::start(|request, _| {
        let hop: u32 = request.line.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let location = format!("Location: /{}\r\n", hop.saturating_sub(1));
        (if hop == 0 { ok("there") } else { answer("302 Found", &location, "") }, Then::Keep)
    });
    let statuses = |flags: &[&str], path: &str| {
        let url = server.url(path);
        let report = report(&[&["-n", "1", "-c", "1"], flags, &[&url]].concat());
        (report["statuses"].clone(), report["errors"].to_string())
    };
    assert_eq!(statuses(&[], "/10").0, json!({"200": 1}));
    assert!(statuses(&[], "/11").1.contains("stopped after 10 redirects"));
    assert_eq!(statuses(&["-disable-redirects"], "/3").0, json!({"302": 1}));
}
