//! Clients that misbehave, and ends that come at a bad time.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use super::{Folder, Server, assert_has, until};
use crate::root;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A connection with TLS, by openssl's client, as bytes in and out.
struct Connection(Child);

impl Connection {
    fn open(server: &Server) -> Connection {
        Connection::to(&server.serving.address().to_string())
    }

    fn to(address: &str) -> Connection {
        let child = Command::new("openssl")
            .args(["s_client", "-quiet", "-ign_eof", "-connect", address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Connection(child.expect("openssl runs"))
    }

    fn send(&mut self, text: &str) {
        self.0.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Reads until a text has come.
    fn until(&mut self, part: &str) -> String {
        let (mut seen, mut buffer) = (String::new(), [0; 4096]);
        while !seen.contains(part) {
            let length = self.0.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
            assert_ne!(length, 0, "the connection ended without {part:?}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        seen
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn head(server: &Server, method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\n{more}\r\n", server.token)
}

/// Writes to the server past its sockets.
fn write(server: &Server, method: &str, path: &str, body: &serde_json::Value) -> u16 {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(bytes::Bytes::from(body.to_string())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(server.api.handle("test", request)).unwrap().status().as_u16()
}

fn memory_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_slow_client_and_a_half_closed_watch_hold_nobody_up() {
    let server = Server::start();
    let mut slow = Connection::open(&server);
    // A body in pieces, while others are served.
    let body = json!({"metadata": {"name": "slow"}}).to_string();
    slow.send(&head(
        &server,
        "POST",
        CONFIG_MAPS,
        &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
    ));
    let (first, rest) = body.split_at(5);
    slow.send(first);
    assert_eq!(write(&server, "POST", CONFIG_MAPS, &json!({"metadata": {"name": "quick"}})), 201);
    let mut other = Connection::open(&server);
    other.send(&head(&server, "GET", &format!("{CONFIG_MAPS}/quick"), ""));
    other.until("\"name\":\"quick\"");
    slow.send(rest);
    assert_has(&slow.until("}"), "201 Created");

    // A client that half-closes its connection has gone, as for the real server: the watch ends, others' do not.
    let (through, outgoing) = half_closable(&server);
    let path = format!("{CONFIG_MAPS}?watch=true");
    let (mut gone, mut stays) = (Connection::to(&through), Connection::open(&server));
    for watch in [&mut gone, &mut stays] {
        watch.send(&head(&server, "GET", &path, ""));
        watch.until("\"name\":\"slow\"");
    }
    outgoing.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    gone.0.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(write(&server, "POST", CONFIG_MAPS, &json!({"metadata": {"name": "later"}})), 201);
    stays.until("\"name\":\"later\"");
}

/// An address that leads to the server, for one connection, and the server's end of the way there.
fn half_closable(server: &Server) -> (String, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let outgoing = TcpStream::connect(server.serving.address()).unwrap();
    let (mut there, mut back) = (outgoing.try_clone().unwrap(), outgoing.try_clone().unwrap());
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), client);
        std::thread::spawn(move || std::io::copy(&mut from, &mut there));
        let _ = std::io::copy(&mut back, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    (address, outgoing)
}

#[test]
fn a_watch_that_nobody_reads_ends_and_memory_stays_bounded() {
    const UPDATES: usize = 6_000;
    let filling = "x".repeat(64 << 10);
    let server = Server::start();
    let path = format!("{CONFIG_MAPS}/large");
    assert_eq!(write(&server, "POST", CONFIG_MAPS, &json!({"metadata": {"name": "large"}})), 201);
    let mut watch = Connection::open(&server);
    watch.send(&head(&server, "GET", &format!("{CONFIG_MAPS}?watch=true"), ""));
    watch.until("\"name\":\"large\"");
    // From now on it reads no more. Each update is 64 KiB, as an object and as text: all of them would be 750 MiB.
    let before = memory_kib();
    let mut most = before;
    for number in 0..UPDATES {
        let text = format!("{number}{filling}");
        assert_eq!(write(&server, "PATCH", &path, &json!({"data": {"text": text}})), 200);
        if number % 500 == 0 {
            most = most.max(memory_kib());
        }
    }
    let grown = (most - before) >> 10;
    assert!(grown < 500, "memory grew by {grown} MiB");
    // The client hears that it missed something, when it reads again: the stream ends.
    let (done, ended) = mpsc::channel();
    let mut stdout = watch.0.stdout.take().unwrap();
    std::thread::spawn(move || {
        // The end may come in pieces.
        let (mut buffer, mut last) = (vec![0; 1 << 20], Vec::new());
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            last.extend_from_slice(&buffer[..length]);
            last.drain(..last.len().saturating_sub(7));
            if last == b"\r\n0\r\n\r\n" {
                break;
            }
        }
        let _ = done.send(());
    });
    assert!(ended.recv_timeout(Duration::from_secs(60)).is_ok(), "the watch has not ended");
}

#[test]
fn idle_connections_cost_little_and_keep_nobody_out() {
    let limit = Command::new("sh").args(["-c", "ulimit -n"]).output().unwrap();
    let limit: usize = String::from_utf8(limit.stdout).unwrap().trim().parse().unwrap_or(usize::MAX);
    // Both ends are in this process, beside other tests.
    let count = (limit.saturating_sub(400) / 2).min(10_000);
    if count < 10_000 {
        eprintln!("only {count} idle connections: a process may open {limit} files here");
    }
    let server = Server::start();
    let before = memory_kib();
    let open = |_| TcpStream::connect(server.serving.address()).unwrap();
    let idle: Vec<TcpStream> = (0..count).map(open).collect();
    let mut client = Connection::open(&server);
    client.send(&head(&server, "GET", "/api/v1/namespaces/default", ""));
    client.until("\"name\":\"default\"");
    let grown = memory_kib().saturating_sub(before);
    // Beside few connections, what the tests beside this one take weighs more.
    let others = if count < 5_000 { 200 * 1024 } else { 0 };
    assert!(grown < 64 * count + others, "{grown} KiB for {count} idle connections");
    drop(idle);
}

/// The command line's program, if it was built beside this test.
fn program() -> Option<std::path::PathBuf> {
    let path = std::env::current_exe().unwrap().parent()?.parent()?.join("coalmine");
    if path.exists() {
        return Some(path);
    }
    let missing = format!("{} is missing: cargo test --workspace builds it", path.display());
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
    eprintln!("skipped: {missing}");
    None
}

#[test]
fn a_port_that_is_taken_is_named() {
    let Some(program) = super::kubectl() else { return };
    super::testbed::with_testbed(|state, home| {
        let kubectl =
            super::Kubectl { program, kubeconfig: state.kubeconfig.clone().into(), home: home.to_owned() };
        let ip = kubectl.ok("get service podinfo -o jsonpath={.spec.clusterIP}");
        let net: Vec<&str> = ip.split('.').take(2).collect();
        let taken = format!("{}.200.7", net.join("."));
        let _squatter = TcpListener::bind((taken.as_str(), 9898)).unwrap();
        kubectl.ok(&format!("create service clusterip taken --clusterip={taken} --tcp=9898"));
        until("the status says which port is taken", || {
            let status = super::testbed::curl(&[&format!("{}status.json", state.status)]);
            status.contains(&format!(
                "service default/taken in one: cannot listen on {taken}:9898: Address already in use"
            ))
        });
    });
}

#[test]
fn sigterm_during_a_rollout_leaves_nothing_behind() {
    let Some(program) = program() else { return };
    let folder = Folder::new("sigterm");
    let file = folder.write("small.yaml", super::testbed::TESTBED);
    let dir = folder.0.join("up");
    let mut up = Command::new(&program)
        .arg("up")
        .arg(&file)
        .arg("--dir")
        .arg(&dir)
        .current_dir(root())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // At the pace of real time podinfo takes its time to start: the rollout is under way.
    let mut state = serde_json::Value::Null;
    until("the testbed is up", || {
        let text = std::fs::read_to_string(dir.join("testbed.json")).unwrap_or_default();
        state = serde_json::from_str(&text).unwrap_or_default();
        state["setup"] == "running"
    });
    let pid = up.id();
    assert_eq!(state["pid"], pid);
    assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
    let mut said = String::new();
    up.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let ended = up.wait().unwrap();
    assert!(ended.success(), "{ended}: {said}");
    assert!(!dir.exists(), "it left {} behind", dir.display());
    let server = state["clusters"][0]["server"].as_str().unwrap().trim_start_matches("https://");
    assert!(TcpStream::connect(server).is_err(), "{server} still listens");
}
