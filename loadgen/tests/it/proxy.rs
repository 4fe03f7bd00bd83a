//! `-x` with an `https` URL: a tunnel through a proxy that speaks `CONNECT`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::secure::{Files, serve};
use crate::server::{Server, Then, report};

/// A proxy on a port of its own; the heads of the requests that it got are kept.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Answers `CONNECT` with `answer` and, if that is [`OPEN`], passes on what comes to the port that was asked for.
    /// Names are nobody's but the proxy's: all are this machine.
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&heads);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || tunnel(client, answer, &kept));
            }
        });
        Proxy { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, answer: &str, kept: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    if answer != OPEN {
        kept.lock().unwrap().push(head);
        let _ = client.write_all(answer.as_bytes());
        // The client's end comes before ours where it has read enough.
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
        return;
    }
    let port: u16 = head.split([' ', ':']).nth(2).unwrap().parse().unwrap();
    kept.lock().unwrap().push(head);
    client.write_all(answer.as_bytes()).unwrap();
    let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let upwards = std::thread::spawn(move || pump(from_client, server));
    pump(from_server, client);
    upwards.join().unwrap();
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

const OPEN: &str = "HTTP/1.1 200 Connection established\r\nVia: a proxy\r\n\r\n";
/// As long as a line gets.
static FLOOD: &str = match std::str::from_utf8(&[b'a'; 20_000]) {
    Ok(flood) => flood,
    Err(_) => unreachable!(),
};

/// Six requests over two connections through a proxy.
fn through(proxy: &str, flags: &[&str], url: &str) -> Value {
    report(
        &[&["-n", "6", "-c", "2", "-t", "5", "-x", proxy, "--by", "header:x-spoken"], flags, &[url]].concat(),
    )
}

#[test]
fn https_goes_through_a_tunnel() {
    let files = Files::create("proxy");
    let ca = files.path("ca.pem");
    let server = serve(Some(files.server(&["h2", "http/1.1"], false)));
    let proxy = Proxy::start(OPEN);
    let url = format!("https://localhost:{}/", server.port());
    let by = |report: &Value, version: &str| report["groups"][version]["requests"].clone();

    let http1 = through(&proxy.address.to_string(), &["--cacert", &ca], &url);
    assert_eq!(by(&http1, "HTTP/1.1"), 6, "{http1}");
    let head = format!("CONNECT localhost:{0} HTTP/1.1\r\nHost: localhost:{0}\r\n\r\n", server.port());
    assert_eq!(proxy.heads(), [head.as_str(), &head], "a tunnel for each connection, not for each request");

    let http2 = through(&proxy.address.to_string(), &["-h2", "--cacert", &ca], &url);
    assert_eq!(by(&http2, "HTTP/2.0"), 6, "{http2}");

    let closing = through(&proxy.address.to_string(), &["-disable-keepalive", "--cacert", &ca], &url);
    assert_eq!(by(&closing, "HTTP/1.1"), 6, "{closing}");
    assert_eq!(proxy.heads().len(), 2 + 1 + 6);

    // The server's certificate is checked through the tunnel, too.
    let distrusted = through(&proxy.address.to_string(), &[], &url);
    assert_eq!(distrusted["failures"], json!({"tls": 6}), "{distrusted}");
}

#[test]
fn the_password_of_a_proxy_goes_to_the_proxy_alone() {
    let files = Files::create("proxy-password");
    let server = serve(Some(files.server(&["http/1.1"], false)));
    let proxy = Proxy::start(OPEN);
    let with_user = format!("http://me:secret@{}", proxy.address);
    let url = format!("https://localhost:{}/", server.port());
    let answered = through(&with_user, &["--cacert", &files.path("ca.pem")], &url);
    assert_eq!(answered["statuses"], json!({"200": 6}), "{answered}");
    assert!(
        proxy.heads()[0].contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n"),
        "{:?}",
        proxy.heads()
    );
}

#[test]
fn a_proxy_that_opens_no_tunnel_is_blamed_for_it() {
    let refused = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    for (answer, kind, text) in [
        (refused, "connect", "407 Proxy Authentication Required"),
        ("HTTP/1.1 200 Conn", "reset", "unexpected EOF"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "protocol", "malformed HTTP response \"SSH-2.0-OpenSSH_9.2\""),
        (FLOOD, "protocol", "headers exceeded 16384 bytes; aborted"),
    ] {
        let proxy = Proxy::start(answer);
        let through = through(&proxy.address.to_string(), &[], "https://nowhere.invalid/");
        assert_eq!(through["failures"], json!({kind: 6}), "{through}");
        let text = format!("Get \"https://nowhere.invalid/\": proxyconnect tcp: {text}");
        assert_eq!(through["errors"], json!({text: 6}));
    }
}

#[test]
fn a_proxy_that_is_not_there_or_silent_is_no_mystery() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let absent = through(&free.to_string(), &[], "https://nowhere.invalid/");
    let text = format!(
        "Get \"https://nowhere.invalid/\": proxyconnect tcp: dial tcp {free}: connect: connection refused"
    );
    assert_eq!(absent["errors"], json!({text: 6}));
    assert_eq!(absent["failures"], json!({"connect": 6}));

    let silent = Server::start(|_, _| (Vec::new(), Then::Hang));
    let address = silent.address.to_string();
    let report = report(&["-n", "2", "-c", "2", "-t", "1", "-x", &address, "https://nowhere.invalid/"]);
    assert_eq!(report["failures"], json!({"timeout": 2}), "{report}");
}
